"""The published in-context networks as encoders of whole people.

They expect features of length 1 and z-scored responses, and return weights w and an intercept b for them. With s the
length of the features, and m_v and d_v the mean and standard deviation of voxel v over the context:

    w_v, b_v = network(X / s, (y_v - m_v) / d_v)        coef_v = d_v w_v / s        intercept_v = m_v + d_v b_v

One s serves all images, so the encoder stays linear in the features as they were given. It is the root mean square of
the lengths, hence 1 for unit-norm features; lengths that differ much among images have no such s and are refused.

Source: Yu et al., arXiv 2505.15813. Shapes: X (n_images, n_features), y (n_images, n_voxels).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braincorl.batching import batches
from braincorl.closed_forms.decomposition import moments, varying_voxels
from braincorl.errors import InputError
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray

if TYPE_CHECKING:  # PyTorch takes seconds to import, and predicting needs none
    from braincorl.models import InferenceEngine, ReferenceTransformer

logger = logging.getLogger(__name__)

NOTED_SPREAD = 0.01  # of the lengths, relative: more than storing unit vectors in half precision makes
LARGEST_SPREAD = 0.25  # far beyond any rounding: these features were never normalised
LARGEST_RATIO = 2.0  # of query to context lengths; averages over images are shorter, and welcome


def fit_published(
    engine: "InferenceEngine", X: FloatArray, y: FloatArray, length: float, progress: Progress | None = None
) -> tuple[FloatArray, FloatArray]:
    """Let a published network write every voxel's encoder.

    Parameters
    ----------
    engine
        The network.
    X
        Features (n_images, n_features).
    y
        Responses (n_images, n_voxels), any unit; a constant voxel gets weights 0.
    length
        s, of `feature_length`.
    progress
        Called with (voxels done, n_voxels).

    Returns
    -------
    coef : ndarray of shape (n_voxels, n_features)
    intercept : ndarray of shape (n_voxels,)
    """
    mean, deviation = moments(y)
    varying = varying_voxels(mean, deviation, y.dtype)
    scale = np.where(varying, deviation, 1)
    weights = engine(X / length, ((y - mean) / scale).T, progress).astype(y.dtype, copy=False)
    scale = np.where(varying, deviation, 0)
    coef = weights[:, :-1] * (scale / length)[:, None].astype(y.dtype)
    return coef, (mean + weights[:, -1] * scale).astype(y.dtype)


def check_feature_count(
    network: "ReferenceTransformer", header: Mapping[str, Any], n_features: int, checkpoint: str | Path
) -> None:
    """Refuse features of another number than the network reads.

    Raises
    ------
    InputError
        Naming the checkpoint and its backbone.
    """
    expected = network.config.n_features
    if n_features != expected:
        raise InputError(
            f"X has {n_features} features, but the network in {checkpoint} reads {expected} "
            f"(backbone: {header['backbone']}): embed the images with that backbone."
        )


def check_query_length(X: FloatArray, length: float) -> None:
    """Refuse features that are far longer than the context's.

    Raises
    ------
    InputError
        If their root mean square length is more than twice `length`.
    """
    query = float(np.sqrt(np.mean(np.sum(np.square(np.asarray(X, dtype=np.float64)), axis=1))))
    if query > LARGEST_RATIO * length:
        raise InputError(
            f"X has features of length {query:.3g}, but the context's had {length:.3g}: "
            f"prepare both in the same way, as X / np.linalg.norm(X, axis=1, keepdims=True)."
        )


def feature_length(X: FloatArray, pool: FloatArray) -> float:
    """Root mean square length of feature vectors.

    Parameters
    ----------
    X
        Context features (n_images, n_features).
    pool
        Features to take the length from (n_pool, n_features).

    Raises
    ------
    InputError
        If the length of a context image differs by more than a quarter: the network was trained on unit-norm features.
    """
    rows = batches(len(pool), pool.shape[1] * 8)  # a pool may be all images of a data set
    length = float(np.sqrt(sum(float(np.square(pool[part], dtype=np.float64).sum()) for part in rows) / len(pool)))
    lengths = np.linalg.norm(X.astype(np.float64, copy=False), axis=1)
    spread = float(np.abs(lengths / length - 1).max()) if length > 0 else np.inf
    if not spread <= LARGEST_SPREAD:
        raise InputError(
            f"X has features of length {lengths.min():.3g} to {lengths.max():.3g}, but the network reads features of "
            f"equal length: divide them, as X / np.linalg.norm(X, axis=1, keepdims=True), here and for predict."
        )
    if spread > NOTED_SPREAD:
        logger.warning(
            "features are of length %.3g to %.3g; the network was trained on features of equal length",
            lengths.min(),
            lengths.max(),
        )
    return length
