"""A pool of images as a yardstick: how much features, and hence predictions, vary over images of the usual kind.

With C the covariance of the pool's features, an encoder's predictions wᵀx + b have standard deviation √(wᵀCw) over the
pool, and two encoders' predictions covariance w₁ᵀCw₂. C is kept as F with FᵀF = C, so that √(wᵀCw) = |Fw|.

Letters: n images, p features, k rank.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_finite

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Mean and spread of the features of a pool of images.

    Attributes
    ----------
    mean
        (p,).
    factor
        F with FᵀF the covariance (k, p).
    """

    mean: Array
    factor: Array

    def spread(self, weights: FloatArray) -> Array:
        """Measure how predictions vary over the pool: their standard deviation, one per row of `weights` (n, p)."""
        rows = batches(len(weights), 2 * 8 * weights.shape[-1])  # whole brains of weights need not be there twice
        parts = [np.linalg.norm(self.in_metric(weights[part]), axis=-1) for part in rows]
        return np.concatenate(parts) if parts else np.zeros(0)

    def in_metric(self, weights: FloatArray) -> Array:
        """Turn weights (…, p) into coordinates (…, k) whose inner products are covariances of predictions."""
        return np.asarray(weights @ self.factor.T, dtype=np.float64)


def make_pool(image_features: npt.ArrayLike | None, n_features: int) -> Pool:
    """Summarise a pool of images.

    Parameters
    ----------
    image_features
        Features of any images (n_images, p), at least two of them different; None if there are none, so that every
        direction of feature space counts the same.
    n_features
        p of the encoder.

    Returns
    -------
    Pool

    Raises
    ------
    InputError
        If the number of features differs, there are fewer than two images, or they do not vary.
    """
    if image_features is None:
        return Pool(np.zeros(n_features), np.eye(n_features))
    X = np.asarray(image_features)
    if X.ndim != 2 or X.shape[1] != n_features or X.shape[0] < 2:
        raise InputError(
            f"image_features has shape {X.shape}, expected (n_images ≥ 2, {n_features}) as the encoder has "
            f"{n_features} features: embed the images with the encoder's backbone."
        )
    check_finite(X, "image_features")
    mean = X.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((n_features, n_features))
    for part in batches(X.shape[0], 2 * 8 * n_features):
        centred = X[part] - mean
        covariance += centred.T @ centred
    values, vectors = np.linalg.eigh(covariance / X.shape[0])
    kept = values > max(values[-1], 0.0) * n_features * np.finfo(np.float64).eps
    if not kept.any():
        raise InputError("image_features are the same for all images: pass images that differ.")
    return Pool(mean, np.sqrt(values[kept])[:, None] * vectors[:, kept].T)
