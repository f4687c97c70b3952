"""What a context says about every voxel: the sufficient statistics that all closed forms of this room share.

All voxels of a person saw the same images. With the centred features X_c = A S Vᵀ (n, p), every linear Gaussian model
with a flat intercept depends on a voxel's responses y only through z = Aᵀy and |y - Az|², and on the images only
through the rows R = S Vᵀ, since z = Rw + noise. k = min(n - 1, p) rows stand for n images however many there are.

Images of unequal noise enter by weights ω (variance σ²/ω): rows and responses are centred at their weighted mean and
multiplied by √ω, which removes a flat intercept exactly.

Letters: n images, p features, k rank, v voxels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.validation import FloatArray


@dataclass(frozen=True)
class Context:
    """Sufficient statistics of one person's context.

    Attributes
    ----------
    feature_mean
        Mean feature vector (p,).
    rows
        R = S Vᵀ (k, p), orthogonal rows.
    projected
        z = Aᵀy in units of each voxel's `scale` (k, v).
    outside
        |y - Az|² in squared units of `scale` (v,); what no feature reaches.
    scale
        Standard deviation of each voxel over the context, in response units (v,); 0 for constant voxels.
    response_mean
        Mean response of each voxel (v,).
    n_images
        n.
    noise_free
        The responses are an encoder's own predictions, so their noise is not to be learned from.
    prior_freedom
        Degrees of freedom d₀ that the person's other voxels lend to the scale of each; see `with_shared_scale`.
    prior_energy
        d₀ s₀² in squared units of `scale` (v,).
    """

    feature_mean: FloatArray
    rows: FloatArray
    projected: FloatArray
    outside: FloatArray
    scale: FloatArray
    response_mean: FloatArray
    n_images: int
    noise_free: bool
    prior_freedom: float
    prior_energy: FloatArray

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return int(self.projected.shape[1])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.rows.shape[1])

    @property
    def freedom(self) -> int:
        """Directions that centring leaves, n - 1 (0 without images)."""
        return max(self.n_images - 1, 0)

    def voxels(self, chosen: npt.NDArray[np.intp] | npt.NDArray[np.bool_] | slice) -> "Context":
        """Give the same context for some of the voxels."""
        return replace(
            self,
            projected=self.projected[:, chosen],
            outside=self.outside[chosen],
            scale=self.scale[chosen],
            response_mean=self.response_mean[chosen],
            prior_energy=self.prior_energy[chosen],
        )


def reduce_context(X: FloatArray, y: FloatArray, weights: FloatArray | None = None) -> Context:
    """Reduce a context to its sufficient statistics.

    Parameters
    ----------
    X
        Features (n, p); n may be 0 or 1, which leaves no rows.
    y
        Responses (n, v), any unit.
    weights
        Relative precision ω of each image (n,), mean 1; by default all 1.

    Returns
    -------
    Context
        In the type of `X`; decomposed in float64.
    """
    n_images, n_features = X.shape
    dtype = X.dtype
    omega = np.ones(n_images) if weights is None else np.asarray(weights, dtype=np.float64)
    share = omega / omega.sum() if n_images else omega
    feature_mean = share @ X if n_images else np.zeros(n_features)
    response_mean = (share.astype(y.dtype) @ y) if n_images else np.zeros(y.shape[1], y.dtype)
    root = np.sqrt(omega)[:, None]
    left, rows = _rows(root * (X - feature_mean), float(np.abs(X).max(initial=0.0)), dtype)
    centred = root.astype(y.dtype) * (y - response_mean)
    scale = np.sqrt(np.einsum("nv,nv->v", centred, centred) / max(n_images - 1, 1))
    if n_images:  # the mean of equal numbers may differ from them by rounding, which is no response
        constant = np.ptp(y, axis=0) == 0
        scale, response_mean = np.where(constant, 0.0, scale), np.where(constant, y[0], response_mean)
    standard = centred / np.where(scale > 0, scale, 1.0)
    projected = left.astype(dtype).T @ standard
    freedom = max(n_images - 1, 0)
    outside = np.maximum(freedom * (scale > 0) - np.einsum("kv,kv->v", projected, projected), 0.0)
    if rows.shape[0] == freedom:  # the rows reach every direction that centring leaves: only rounding is outside
        outside = np.zeros_like(outside)
    return Context(
        feature_mean=feature_mean.astype(dtype),
        rows=rows.astype(dtype),
        projected=projected,
        outside=outside.astype(dtype),
        scale=scale.astype(dtype),
        response_mean=response_mean.astype(dtype),
        n_images=n_images,
        noise_free=False,
        prior_freedom=0.0,
        prior_energy=np.zeros(y.shape[1], dtype),
    )


def context_from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Context:
    """Rebuild a context from its fields as arrays, scalars included.

    Parameters
    ----------
    arrays
        Field of `Context` -> array.

    Returns
    -------
    Context
    """
    scalars: dict[str, Any] = {
        "n_images": int(arrays["n_images"]),
        "noise_free": bool(arrays["noise_free"]),
        "prior_freedom": float(arrays["prior_freedom"]),
    }
    return Context(**(dict(arrays) | scalars))


def weights_as_context(coef: FloatArray, X_pool: FloatArray) -> Context:
    """Take an encoder's weights at their word: its noise-free responses to a pool of images.

    Parameters
    ----------
    coef
        Weights (v, p).
    X_pool
        Features of the pool (m, p).

    Returns
    -------
    Context
        Marked `noise_free`.
    """
    return replace(reduce_context(X_pool, X_pool @ coef.T.astype(X_pool.dtype)), noise_free=True)


def in_basis(context: Context, basis: FloatArray | None) -> Context:
    """Give the context as features in a smaller basis would; the directions that it lacks count as noise.

    Parameters
    ----------
    context
        Of one person.
    basis
        Orthonormal columns (p, m); None for all directions.

    Returns
    -------
    Context
        Of m features.
    """
    if basis is None:
        return context
    left, rows = _rows(context.rows @ basis, float(np.abs(context.rows).max(initial=0.0)), context.rows.dtype, 0)
    projected = left.T.astype(context.rows.dtype) @ context.projected
    lost = np.einsum("kv,kv->v", context.projected, context.projected) - np.einsum("kv,kv->v", projected, projected)
    return replace(
        context,
        feature_mean=context.feature_mean @ basis,
        rows=rows,
        projected=projected,
        outside=context.outside + np.maximum(lost, 0.0),
    )


def effective_voxels(context: Context) -> float:
    """Estimate how many voxels with independent noise would scatter as much as these do.

    Neighbouring voxels share noise, so thousands of them may hold a few tens of independent draws, and whatever is
    learned from a person must be weighted by that number. With E the noise estimates in k directions, unit variance
    per direction if voxels were independent, and G = EEᵀ / v, the participation ratio tr(G)² / tr(G²) tends to k for
    many independent voxels and is 1 / (1/k + 1/v_eff) in general.

    The noise is estimated by the residual (1 - r) / (r λ + 1 - r) z of an isotropic ridge at the typical r of fMRI, .2,
    whitened; what signal remains in it lowers the estimate, which errs on the safe side.

    Parameters
    ----------
    context
        Of one person.

    Returns
    -------
    float
        Between 1 and the number of voxels; that number itself with fewer than three directions.
    """
    varying = context.scale > 0
    n_voxels = int(varying.sum())
    rank = context.rows.shape[0]
    if rank < 3 or n_voxels < 2:
        return float(max(n_voxels, 1))
    gram = (context.rows.astype(np.float64) ** 2).sum(axis=1)
    r = 0.2
    ratio = r * gram / max(gram.sum() / max(context.freedom, 1), 1e-300) + (1.0 - r)
    white = context.projected[:, varying].astype(np.float64) / np.sqrt(ratio)[:, None]
    white /= np.maximum(np.sqrt((white**2).mean(axis=0)), 1e-12)
    g = white @ white.T / n_voxels
    # Averaged over directions of the smaller features only, where noise dominates: half the spectrum.
    small = slice(rank // 2, None)
    g = g[small, small]
    g /= np.sqrt(np.outer(np.diag(g), np.diag(g)))
    size = g.shape[0]
    inverse = float((g**2).sum()) / size**2 - 1.0 / size
    return float(np.clip(1.0 / max(inverse * size / max(size - 1, 1), 1e-12), 1.0, n_voxels))


def _rows(
    centred: npt.NDArray[np.float64], largest: float, dtype: npt.DTypeLike, n_fixed: int = 1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Left singular vectors (n, k) and rows S Vᵀ (k, p), without directions of zero variance; k ≤ n - n_fixed."""
    n_images, n_features = centred.shape
    if n_images < 2:
        return np.zeros((n_images, 0)), np.zeros((0, n_features))
    centred = centred.astype(np.float64)
    try:
        left, s, vt = scipy.linalg.svd(centred, full_matrices=False, check_finite=False)
    except np.linalg.LinAlgError:  # the fast driver fails to converge on rare matrices; the older one does not
        left, s, vt = scipy.linalg.svd(centred, full_matrices=False, check_finite=False, lapack_driver="gesvd")
    kept = s > max(s[0], largest) * max(centred.shape) * np.finfo(dtype).eps
    rank = min(int(kept.sum()), n_images - n_fixed)
    return left[:, :rank], s[:rank, None] * vt[:rank]
