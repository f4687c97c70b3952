"""`InContextEncoder`: a network that reads images and responses of a person and writes down the encoder at once.

The published networks expect features of length 1 and z-scored responses, and return weights w and an intercept b for
them. With s the length of the features, and m_v and d_v the mean and standard deviation of voxel v over the context:

    w_v, b_v = network(X / s, (y_v - m_v) / d_v)        coef_v = d_v w_v / s        intercept_v = m_v + d_v b_v

One s serves all images, so the encoder stays linear in the features as they were given. It is the root mean square of
the lengths, hence 1 for unit-norm features; lengths that differ much among images have no such s and are refused.

Source: Yu et al., arXiv 2505.15813. Shapes: X (n_images, n_features), y (n_images, n_voxels).
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.checkpoint import read_checkpoint
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.files import Progress
from braincorl.models import InferenceEngine
from braincorl.validation import FloatArray

logger = logging.getLogger(__name__)

NOTED_SPREAD = 0.01  # of the lengths, relative: more than storing unit vectors in half precision makes
LARGEST_SPREAD = 0.25
LARGEST_RATIO = 2.0  # of query to context lengths; averages over images are shorter, and welcome


class InContextEncoder(LinearEncoder):
    """Voxelwise encoder written by an in-context transformer.

    Parameters
    ----------
    checkpoint : path
        A network: a file of `braincorl convert`, or the authors' own checkpoint.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", …
    precision : str
        "auto" (bfloat16 where the device multiplies it natively, else float32), "float32", "bfloat16" or "float64".
        With random network weights, bfloat16 changed weights and predictions by 3 to 9 % in norm and an explained
        variance of .300 by less than .004, and another batch size changed them by 1 to 4 %; float32 is within 1e-5.
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory. "auto" follows the free memory.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights.
    intercept_ : ndarray of shape (n_voxels,)
        Intercepts.
    noise_variance_ : ndarray of shape (n_voxels,)
        Mean squared residual over the context itself: a lower bound, since the network has seen these responses.
    feature_length_ : float
        s, by which the features are divided for the network.

    Examples
    --------
    >>> encoder = InContextEncoder(checkpoint="clip.safetensors")  # doctest: +SKIP
    >>> encoder.fit(X, y).predict(X_new).shape  # doctest: +SKIP
    (n_new_images, n_voxels)
    """

    uses_pool = True
    reports_progress = True
    _array_names = ("coef_", "intercept_", "noise_variance_", "feature_length_")

    feature_length_: float

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str = "auto",
        precision: str = "auto",
        voxel_batch_size: int | str = "auto",
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device
        self.precision = precision
        self.voxel_batch_size = voxel_batch_size

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        X_pool: npt.ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> Self:
        """Let the network read the context.

        Parameters
        ----------
        X
            Features of the context images (n_images, n_features), of about equal length, from the network's backbone.
        y
            Responses (n_images, n_voxels), any unit; a constant voxel gets weights 0.
        X_pool
            Features of any images, to take the length s from more of them; for unit-norm features it changes nothing.
        progress
            Called with (voxels done, voxels) as work goes on.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If no checkpoint is given, features are not of the network's number or differ much in length, shapes do not
            match, values are not finite, or an option is unknown.
        FileFormatError
            If the checkpoint is damaged or holds another network.
        OutOfMemoryError
            If not even one voxel fits into the memory.
        """
        features, responses = self._check_fit(X, y)
        length = feature_length(features, self._check_pool(X_pool, features))
        engine, description = self._load_network(features.shape[1])
        mean, deviation = responses.mean(axis=0), responses.std(axis=0)
        varying = deviation > np.finfo(responses.dtype).eps * np.abs(mean) * len(responses)
        scale = np.where(varying, deviation, 1)
        weights = engine(features / length, ((responses - mean) / scale).T, progress).astype(
            responses.dtype, copy=False
        )
        scale = np.where(varying, deviation, 0)
        self.coef_ = weights[:, :-1] * (scale / length)[:, None]
        self.intercept_ = mean + weights[:, -1] * scale
        residuals = responses - features @ self.coef_.T - self.intercept_
        self.noise_variance_ = np.mean(residuals**2, axis=0)
        self.feature_length_ = length
        self.provenance_ = {"network": {**description, "precision": engine.precision}}
        return self

    def predict(self, X: npt.ArrayLike, return_std: bool = False) -> Any:
        """Predict responses to images.

        Parameters
        ----------
        X
            Features (n_images, n_features), prepared as the context's were.
        return_std
            Not to be had from these networks.

        Returns
        -------
        ndarray of shape (n_images, n_voxels)
            Predicted responses, in the units of the context's; (n_images,) if the encoder was fitted on a 1-D y.

        Raises
        ------
        InputError
            If the number of features differs from the context's, or their length is more than twice the context's.
        """
        prediction = super().predict(X, return_std)
        length = float(np.sqrt(np.mean(np.sum(np.square(np.asarray(X, dtype=np.float64)), axis=1))))
        if length > LARGEST_RATIO * self.feature_length_:
            raise InputError(
                f"X has features of length {length:.3g}, but the context's had {self.feature_length_:.3g}: "
                f"prepare both in the same way, as X / np.linalg.norm(X, axis=1, keepdims=True)."
            )
        return prediction

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.feature_length_ = float(self.feature_length_)

    def _load_network(self, n_features: int) -> tuple[InferenceEngine, Mapping[str, Any]]:
        if self.checkpoint is None:
            raise InputError(
                "checkpoint is None, but a network is needed: pass the path of the authors' checkpoint, or of a file "
                "that `braincorl convert` made from it."
            )
        network, header = read_checkpoint(self.checkpoint)
        expected = network.config.n_features
        if n_features != expected:
            raise InputError(
                f"X has {n_features} features, but the network in {self.checkpoint} reads {expected} "
                f"(backbone: {header['backbone']}): embed the images with that backbone."
            )
        engine = InferenceEngine(
            network, device=self.device, precision=self.precision, voxel_batch_size=self.voxel_batch_size
        )
        return engine, header


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
    length = float(np.sqrt(np.mean(np.sum(np.square(pool, dtype=np.float64), axis=1))))
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
