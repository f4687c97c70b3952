"""Bayesian ridge regression of every voxel, averaged over noise levels by their evidence, as pure functions.

Model of one voxel, with a flat prior on the intercept and r the share of its response variance that features explain:

    y = Xw + b + ε,   w ~ N(0, r s² c I),   ε ~ N(0, (1 - r) s² I)

c makes the mean variance of features @ w over a pool of images 1 (a pool needs features only), s² is the voxel's
variance. With the centred, scaled Gram matrix K = c X_c X_cᵀ = U Λ Uᵀ and z = Uᵀy, everything is diagonal:

    d_j(r) = r λ_j + 1 - r
    s²(r)  = (Σ_j z_j² / d_j + |y - U z|² / (1 - r)) / (n - 1)
    log p(y | r) = -½ Σ_j log d_j - ½ (n - 1 - k) log(1 - r) - ½ (n - 1) log s²(r) + const

with s² integrated out under 1/s². Each r of a grid is weighted by its evidence; the posterior mean is the weighted mean
of the ridge solutions, never a choice among them, which is what makes ten images usable.

Letters: n images, p features, k rank, v voxels, g grid of r, q queries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.closed_forms.decomposition import centre, coefficients, decompose
from braincorl.validation import FloatArray

# Share of response variance that features explain: from none to what the cleanest voxels show.
SIGNAL_GRID = np.linspace(0.0, 0.8, 17)


@dataclass(frozen=True)
class EvidencePosterior:
    """What is known of every voxel after its context, enough for means and variances of any new response.

    Attributes
    ----------
    mean
        Mean feature vector of the context (p,).
    basis
        Directions of feature space that the context informs (k, p), orthonormal.
    scale
        c, the prior's scale: a scalar array ().
    eigenvalues
        Λ of the scaled Gram matrix (k,).
    signal_grid
        Values of r (g,).
    probability
        Posterior probability of each r (g, v).
    variance
        s²(r) (g, v).
    projected
        z = Uᵀy (k, v).
    n_images
        Context length: a scalar array ().
    """

    mean: FloatArray
    basis: FloatArray
    scale: FloatArray
    eigenvalues: FloatArray
    signal_grid: FloatArray
    probability: FloatArray
    variance: FloatArray
    projected: FloatArray
    n_images: FloatArray


def pool_scale(X: FloatArray) -> float:
    """Scale c at which isotropic weights give unit signal variance over a pool of images.

    Parameters
    ----------
    X
        Features of the pool (n_pool, p).

    Returns
    -------
    float
        1 over the mean squared distance from the mean; 1 if the features do not vary.
    """
    mean = X.mean(axis=0, dtype=np.float64)
    rows = batches(X.shape[0], 2 * X.shape[1] * 8)  # a pool may be all images of a data set
    spread = sum(float(np.square(X[part] - mean).sum()) for part in rows) / max(X.shape[0] - 1, 1)
    return 1.0 / spread if spread > 0 else 1.0


def fit_evidence(
    X: FloatArray,
    y: FloatArray,
    scale: float,
    signal_grid: npt.NDArray[np.float64] = SIGNAL_GRID,
    voxel_batch_size: int | str = "auto",
) -> tuple[FloatArray, FloatArray, EvidencePosterior]:
    """Posterior of every voxel's encoder.

    Parameters
    ----------
    X
        Features (n, p).
    y
        Responses (n, v), of the type of `X`.
    scale
        c of `pool_scale`.
    signal_grid
        Values of r in [0, 1) (g,).
    voxel_batch_size
        Voxels at a time, or "auto"; bounds memory and changes no result.

    Returns
    -------
    coef : ndarray of shape (v, p)
        Posterior mean weights.
    intercept : ndarray of shape (v,)
    posterior : EvidencePosterior
    """
    dtype, n_voxels = X.dtype, y.shape[1]
    parts = decompose(X)
    eigenvalues = scale * parts.s**2
    coef = np.empty((n_voxels, X.shape[1]), dtype)
    intercept = np.empty(n_voxels, dtype)
    probability, variance = (np.empty((signal_grid.size, n_voxels), dtype) for _ in range(2))
    projected = np.empty((parts.s.size, n_voxels), dtype)
    # w = √c V √Λ diag(r / d) z, so this turns grid weights (g, v) into factors of z (k, v) with one product.
    shrinkage = signal_grid / _marginal_variances(eigenvalues, signal_grid).T
    back = np.sqrt(scale * eigenvalues)[:, None]
    for batch in batches(n_voxels, 3 * (X.shape[0] + signal_grid.size) * 8, voxel_batch_size):
        centred, mean = centre(y[:, batch])
        z = parts.u.T @ centred
        weight, spread = _grid_evidence(z, centred, eigenvalues, signal_grid)
        weights = coefficients(parts, back * (shrinkage @ weight) * z)
        coef[batch], intercept[batch] = weights, mean - weights @ parts.mean
        projected[:, batch], probability[:, batch], variance[:, batch] = z, weight, spread
    posterior = EvidencePosterior(
        mean=parts.mean.astype(dtype),
        basis=parts.vt.astype(dtype),
        scale=np.asarray(scale, dtype=np.float64),
        eigenvalues=eigenvalues,
        signal_grid=signal_grid,
        probability=probability,
        variance=variance,
        projected=projected,
        n_images=np.asarray(X.shape[0]),
    )
    return coef, intercept, posterior


def _grid_evidence(
    projected: FloatArray, y: FloatArray, eigenvalues: FloatArray, signal_grid: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Posterior probability of each r (g, v), columns sum to 1, and s²(r) (g, v), from z = Uᵀy and centred y (n, v).

    A voxel of constant response gets all probability on the smallest r.
    """
    freedom, rank = y.shape[0] - 1, eigenvalues.size
    squares = projected**2
    outside = np.maximum(np.einsum("nv,nv->v", y, y) - squares.sum(axis=0), 0.0)
    if rank == freedom:  # the features reach every direction that centring leaves: only rounding is outside
        outside = np.zeros_like(outside)
    marginal = _marginal_variances(eigenvalues, signal_grid)
    noise = 1.0 - signal_grid
    total = (1.0 / marginal).astype(y.dtype) @ squares + (1.0 / noise).astype(y.dtype)[:, None] * outside
    log_determinant = np.log(marginal).sum(axis=1) + (freedom - rank) * np.log(noise)
    constant = total.max(axis=0) <= 0
    with np.errstate(divide="ignore"):
        log_evidence = np.log(total).astype(np.float64)
    log_evidence *= -0.5 * freedom
    log_evidence -= 0.5 * log_determinant[:, None]
    log_evidence[:, constant] = np.where(np.arange(signal_grid.size) == signal_grid.argmin(), 0.0, -np.inf)[:, None]
    log_evidence -= log_evidence.max(axis=0)
    probability = np.exp(log_evidence)
    probability /= probability.sum(axis=0)
    return probability.astype(y.dtype), total / freedom


def noise_variance(posterior: EvidencePosterior) -> FloatArray:
    """Posterior mean of the variance of one response around the encoder, (v,)."""
    noise = (1.0 - posterior.signal_grid).astype(posterior.variance.dtype)[:, None]
    expected: FloatArray = (posterior.probability * posterior.variance * noise).sum(axis=0)
    return expected


def predictive_std(posterior: EvidencePosterior, X: FloatArray) -> FloatArray:
    """Predict the standard deviation of new responses: noise, what the context leaves open, spread over noise levels.

    Parameters
    ----------
    posterior
        Of `fit_evidence`.
    X
        Features of new images (q, p).

    Returns
    -------
    ndarray of shape (q, v)
        In the units of the responses.
    """
    grid, eigenvalues = posterior.signal_grid, posterior.eigenvalues
    dtype = posterior.variance.dtype
    n_images = int(posterior.n_images)
    query = np.sqrt(posterior.scale) * (X - posterior.mean)
    inside = query @ posterior.basis.T  # (q, k)
    outside = np.maximum((query**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)
    marginal = _marginal_variances(eigenvalues, grid)
    latent = (inside**2) @ (grid[:, None] * (1.0 - grid[:, None]) / marginal).T + outside[:, None] * grid
    per_level = latent + (1.0 - grid) * (1.0 + 1.0 / n_images)  # (q, g), in units of s²(r)
    # Integrating s² out makes the predictive Student's t with n - 1 degrees of freedom; this is its variance.
    tail = (n_images - 1) / max(n_images - 3, 1)
    weighted = posterior.probability * posterior.variance * np.asarray(tail, dtype)
    total = per_level.astype(dtype) @ weighted
    total += _spread_over_levels(posterior, inside, marginal)
    std: FloatArray = np.sqrt(total)
    return std


def _spread_over_levels(posterior: EvidencePosterior, inside: FloatArray, marginal: FloatArray) -> FloatArray:
    """Variance over r of the predicted mean (q, v)."""
    dtype = posterior.variance.dtype
    mean = np.zeros((inside.shape[0], posterior.projected.shape[1]), dtype)
    square = np.zeros_like(mean)
    for r, d, probability in zip(posterior.signal_grid, marginal, posterior.probability, strict=True):
        prediction = (inside * (np.sqrt(posterior.eigenvalues) * r / d)).astype(dtype) @ posterior.projected
        mean += probability * prediction
        square += probability * prediction**2
    return np.maximum(square - mean**2, 0.0)


def _marginal_variances(eigenvalues: FloatArray, signal_grid: FloatArray) -> FloatArray:
    """Variance of each projection at each r, in units of s² (g, k)."""
    marginal: FloatArray = signal_grid[:, None] * eigenvalues + (1.0 - signal_grid)[:, None]
    return marginal
