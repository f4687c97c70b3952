"""The one decomposition that every closed-form encoder shares across voxels.

All voxels saw the same images, so the centred features X_c (n_images, n_features) are decomposed once, X_c = U S Vᵀ,
and each voxel's solution is arithmetic on Uᵀy. The rank is at most min(n_images - 1, n_features): with fewer images
than features this is the kernel form (U spans the images), otherwise the primal form (V spans the features), at the
cost of the smaller side either way.

Letters: n images, p features, k rank, v voxels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.validation import FloatArray


@dataclass(frozen=True)
class Decomposition:
    """Thin singular value decomposition of centred features, without directions of zero variance.

    Attributes
    ----------
    mean
        Mean feature vector that was removed (p,).
    u
        Left singular vectors (n, k), orthogonal to the constant vector.
    s
        Singular values (k,), positive, descending.
    vt
        Right singular vectors (k, p).
    """

    mean: FloatArray
    u: FloatArray
    s: FloatArray
    vt: FloatArray


def decompose(X: FloatArray) -> Decomposition:
    """Centre and decompose features.

    Parameters
    ----------
    X
        Features (n, p), n ≥ 2.

    Returns
    -------
    Decomposition
        In float64 for any type of `X`.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    u, s, vt = _thin_svd(X - mean)
    # Centring leaves rounding of the size of the features themselves, so the threshold counts the mean too.
    scale = max(float(s[0]) if s.size else 0.0, float(np.abs(X).max()) if X.size else 0.0)
    rank = int((s > scale * max(X.shape) * np.finfo(np.float64).eps).sum())
    rank = min(rank, X.shape[0] - 1)
    # The singular vectors of a centred matrix are orthogonal to 1 only up to rounding: make it so.
    u = u[:, :rank] - u[:, :rank].mean(axis=0)
    return Decomposition(mean, u, s[:rank], vt[:rank])


def centre(y: FloatArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Centre responses in float64, so that neither a large baseline nor the order of images costs digits.

    Parameters
    ----------
    y
        Responses of a batch of voxels (n, v).

    Returns
    -------
    centred : ndarray of shape (n, v)
        Exactly 0 for constant voxels.
    mean : ndarray of shape (v,)
    """
    first = y[0].astype(np.float64)
    distance = y - first
    shift = distance.mean(axis=0)
    return distance - shift, first + shift


def moments(y: FloatArray) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of every voxel (v,) each, of responses (n, v), as exact as `centre`."""
    centred, mean = centre(y)
    return mean, centred.std(axis=0)


def varying_voxels(mean: FloatArray, deviation: FloatArray, dtype: npt.DTypeLike) -> npt.NDArray[np.bool_]:
    """Tell voxels that respond from constant ones, which vary by the rounding of their values at most.

    Parameters
    ----------
    mean, deviation
        Of each voxel's responses over the context (v,), of `moments`.
    dtype
        Type of the responses.

    Returns
    -------
    ndarray of shape (v,)
    """
    varying: npt.NDArray[np.bool_] = deviation > np.finfo(dtype).eps * np.abs(mean)
    return varying


def coefficients(decomposition: Decomposition, weighted: FloatArray) -> FloatArray:
    """Map coordinates along the right singular vectors to weights over features.

    Parameters
    ----------
    decomposition
        Of the context features.
    weighted
        Coordinates of each voxel (k, v).

    Returns
    -------
    ndarray of shape (v, p)
    """
    return weighted.T @ decomposition.vt


def _thin_svd(centred: npt.NDArray[np.float64]) -> tuple[FloatArray, FloatArray, FloatArray]:
    try:
        u, s, vt = scipy.linalg.svd(centred, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:  # the fast driver fails to converge on rare matrices; the older one does not
        u, s, vt = scipy.linalg.svd(centred, full_matrices=False, check_finite=False, lapack_driver="gesvd")
    return u, s, vt
