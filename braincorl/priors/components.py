"""A mixture of Gaussians over voxel weights, each component a mean and a low-rank-plus-isotropic covariance.

    u ~ Σ_c π_c N(μ_c, F_c F_cᵀ + τ_c I),   r ~ p(r | c)

u are weights of unit signal: over a pool of images with covariance S, the mean variance of features @ u is 1 within
each component, tr(S Σ_c) + μ_cᵀ S μ_c = 1. r is the share of a response's variance that is signal. The last component
is "broad": zero mean, isotropic, the prior of Bayesian ridge; it keeps a person who is unlike all others from being
forced into their mould.

Letters: c components, p features, q rank of the factors, g levels of r.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from braincorl.validation import FloatArray

# Shares of signal: dense where fMRI lives; the last is for weights that are taken at their word.
LEVELS = np.array([0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97])


@dataclass(frozen=True)
class Components:
    """Parameters of the mixture.

    Attributes
    ----------
    mean
        μ (c, p).
    factor
        F (c, p, q).
    floor
        τ (c,).
    weight
        π (c,), sums to 1.
    level_probability
        p(r | c) on `LEVELS` (c, g), rows sum to 1.
    """

    mean: npt.NDArray[np.float64]
    factor: npt.NDArray[np.float64]
    floor: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    level_probability: npt.NDArray[np.float64]

    @property
    def n_components(self) -> int:
        """Number of components, the broad one included."""
        return int(self.mean.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.mean.shape[1])

    def some(self, chosen: slice) -> "Components":
        """Give some of the components, their weights as they are."""
        return Components(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def covariance_times(self, rows: FloatArray, c: int) -> FloatArray:
        """Rows @ Σ_c for rows (k, p), without forming Σ_c."""
        factor = self.factor[c].astype(rows.dtype)
        product: FloatArray = (rows @ factor) @ factor.T + rows * rows.dtype.type(self.floor[c])
        return product

    def covariance(self, c: int) -> npt.NDArray[np.float64]:
        """Σ_c as a matrix (p, p)."""
        return np.asarray(self.factor[c] @ self.factor[c].T + self.floor[c] * np.eye(self.n_features))


def broad_components(pool_covariance: FloatArray) -> Components:
    """Give the mixture of the broad component alone: Bayesian ridge.

    Parameters
    ----------
    pool_covariance
        S (p, p).

    Returns
    -------
    Components
        With factors of rank 0.
    """
    p = pool_covariance.shape[0]
    spread = float(np.trace(pool_covariance))
    return Components(
        mean=np.zeros((1, p)),
        factor=np.zeros((1, p, 0)),
        floor=np.array([1.0 / spread if spread > 0 else 1.0]),
        weight=np.ones(1),
        level_probability=flat_levels()[None],
    )


def flat_levels() -> npt.NDArray[np.float64]:
    """Probability of each level under a density of r that is flat up to .8, (g,)."""
    usable = LEVELS[LEVELS <= 0.8]
    edges = np.concatenate([[0.0], (usable[1:] + usable[:-1]) / 2, [usable[-1]]])
    width = np.zeros(LEVELS.size)
    width[: usable.size] = np.diff(edges)
    width[0] += 0.02  # a voxel without any signal is always possible
    return np.asarray(width / width.sum())


def signal_variance(components: Components, pool_covariance: FloatArray) -> npt.NDArray[np.float64]:
    """Mean variance over the pool of each component's responses, tr(S Σ_c) + μ_cᵀ S μ_c, (c,)."""
    low_rank = np.einsum("cpq,po,coq->c", components.factor, pool_covariance, components.factor, optimize=True)
    mean = np.einsum("cp,po,co->c", components.mean, pool_covariance, components.mean, optimize=True)
    return np.asarray(low_rank + mean + components.floor * np.trace(pool_covariance))


def unit_signal(components: Components, pool_covariance: FloatArray) -> Components:
    """Rescale every component to unit signal variance over a pool.

    Parameters
    ----------
    components
        The mixture.
    pool_covariance
        S (p, p).

    Returns
    -------
    Components
    """
    variance = signal_variance(components, pool_covariance)
    variance = np.where(variance > 0, variance, 1.0)
    root = np.sqrt(variance)
    return replace(
        components,
        mean=components.mean / root[:, None],
        factor=components.factor / root[:, None, None],
        floor=components.floor / variance,
    )


def low_rank_plus_isotropic(covariance: FloatArray, rank: int) -> tuple[npt.NDArray[np.float64], float]:
    """Nearest F Fᵀ + τI in likelihood (probabilistic principal components, Tipping & Bishop 1999).

    Parameters
    ----------
    covariance
        Symmetric, positive semi-definite (p, p).
    rank
        Columns of F, at most p.

    Returns
    -------
    factor : ndarray of shape (p, rank)
    floor : float
        Mean of the eigenvalues that F leaves out, or the smallest one if it leaves none out.
    """
    p = covariance.shape[0]
    # All of them: LAPACK's search for the leading ones alone may give up on nearly equal eigenvalues.
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = np.maximum(values[::-1], 0.0)[:rank], vectors[:, ::-1][:, :rank]
    rest = max(float(np.trace(covariance) - values.sum()), 0.0)
    floor = rest / (p - rank) if rank < p else float(values[-1])
    factor = vectors * np.sqrt(np.maximum(values - floor, 0.0))
    return factor, floor


def response_moment(rows: FloatArray, components: Components) -> npt.NDArray[np.float64]:
    """Second moment of the mixture's responses over images, Σ_c π_c X (Σ_c + μ_c μ_cᵀ) Xᵀ.

    Parameters
    ----------
    rows
        Centred features X (n, p).
    components
        The mixture.

    Returns
    -------
    ndarray of shape (n, n)
    """
    return np.asarray(metric_rows(rows, components) @ rows.T)


def metric_rows(rows: FloatArray, components: Components) -> npt.NDArray[np.float64]:
    """Features in the mixture's metric, X Σ_c π_c (Σ_c + μ_c μ_cᵀ).

    Parameters
    ----------
    rows
        Centred features X (n, p).
    components
        The mixture.

    Returns
    -------
    ndarray of shape (n, p)
    """
    metric = np.zeros(rows.shape)
    for c, weight in enumerate(components.weight):
        mean = components.mean[c]
        metric += weight * (components.covariance_times(rows, c) + np.outer(rows @ mean, mean))
    return metric
