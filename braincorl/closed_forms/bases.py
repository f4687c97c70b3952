"""The context in the eigenbasis of one residual metric, where every ridge posterior is diagonal.

A voxel's weights are a known part plus a residual of covariance r S. With centred features X_c (n, p),

    X_c S X_cᵀ = U Λ Uᵀ        z = Uᵀ y        w = S X_cᵀ U (r / (r λ + 1 - r)) z

The metrics are S = (1 - g) G + g I: G the second moment of remembered weights, I isotropic weights, both of unit signal
over the pool. Only the smaller of n and p is decomposed.

Letters: n images, p features, k rank, v voxels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.validation import FloatArray

_RANK_TOLERANCE = 1e-10  # of the largest eigenvalue: directions below are rounding of the features


@dataclass(frozen=True)
class Metric:
    """Covariance of weights of unit signal: S = (1 - isotropic) moment + isotropic scale I.

    Attributes
    ----------
    moment
        G (p, p) of unit signal; None where nothing is remembered, and then S is isotropic.
    isotropic
        g, from 0 to 1.
    scale
        Variance at which isotropic weights give unit signal over the pool.
    """

    moment: FloatArray | None
    isotropic: float
    scale: float

    def __matmul__(self, other: FloatArray) -> FloatArray:
        """Multiply S with a matrix (p, m)."""
        plain: FloatArray = self.isotropic * self.scale * other
        return plain if self.moment is None else plain + (1 - self.isotropic) * (self.moment @ other)


@dataclass(frozen=True)
class Basis:
    """The context's eigenbasis under a metric.

    Attributes
    ----------
    vectors
        U (n, k), orthonormal.
    values
        Λ (k,), positive.
    rows
        Uᵀ X_c (k, p): what turns weights into their projections.
    to_weights
        S X_cᵀ U (p, k): what turns projections into weights.
    """

    vectors: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    rows: npt.NDArray[np.float64]
    to_weights: npt.NDArray[np.float64]


def context_basis(centred: npt.NDArray[np.float64], metric: Metric) -> Basis:
    """Decompose a context under a metric.

    Parameters
    ----------
    centred
        Features with their mean taken off (n, p), times the square roots of the images' precisions.
    metric
        S.

    Returns
    -------
    Basis
    """
    weighted = metric @ centred.T
    n_images, n_features = centred.shape
    if n_images <= n_features:
        values, vectors = scipy.linalg.eigh(centred @ weighted, check_finite=False)
        kept = _kept(values, n_images - 1)
        values, vectors = values[kept], vectors[:, kept]
    else:
        rows = centred @ _square_root(metric, n_features)
        values, right = scipy.linalg.eigh(rows.T @ rows, check_finite=False)
        kept = _kept(values, n_images - 1)
        values = values[kept]
        vectors = rows @ (right[:, kept] / np.sqrt(values))
    return Basis(vectors, values, vectors.T @ centred, weighted @ vectors)


def _kept(values: FloatArray, most: int) -> npt.NDArray[np.intp]:
    """Give the eigenvalues that are not rounding, largest first."""
    largest = values[-1] if values.size else 0.0
    found = np.flatnonzero(values > max(largest, 0.0) * _RANK_TOLERANCE)
    return np.ascontiguousarray(found[::-1][:most])


def _square_root(metric: Metric, n_features: int) -> npt.NDArray[np.float64]:
    if metric.moment is None or metric.isotropic == 1:
        return np.asarray(np.sqrt(metric.scale) * np.eye(n_features))
    values, vectors = scipy.linalg.eigh(metric @ np.eye(n_features), check_finite=False)
    root: npt.NDArray[np.float64] = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
