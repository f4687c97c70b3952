"""Several feature spaces at once: ridge with a share of the signal for each, averaged over shares by evidence.

Model of one voxel with spaces s = 1 … S, a flat prior on the intercept, r the share of its variance that all features
explain together and π the shares of the spaces in that (π_s ≥ 0, Σ π_s = 1):

    y = Σ_s X_s w_s + b + ε,   w_s ~ N(0, r π_s σ² c_s I),   ε ~ N(0, (1 - r) σ² I)

c_s makes the mean variance of X_s w_s over a pool of images 1, so that π says what each space contributes, whatever its
number and size of features. With K_s = c_s X_s X_sᵀ (centred) and K(π) = Σ π_s K_s = U Λ Uᵀ this is the model of
`braincorl.closed_forms.evidence`, and one eigendecomposition serves all voxels at all r:

    log p(y | π, r) as there, with z = Uᵀy
    w_s(π, r) = r π_s c_s X_sᵀ U (r Λ + 1 - r)⁻¹ z

The shares run over a grid, all π whose parts are multiples of 1/m, with the weights of a Dirichlet distribution of
concentration ½ in every part (Jeffreys' prior): a voxel may well be told by one space alone. Weights are averaged over
the grid by their evidence; nothing is chosen, and nothing is left out of the fit to choose by. Points with π_s = 0 are
the encoder without space s, so that the encoders of all subsets come from the same decompositions, each averaged over
its own points.

Letters: n images, p features, s spaces, k rank, v voxels, g grid of π, h grid of r, q queries.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import gammaln, logsumexp

from braincorl.batching import batches, working_memory
from braincorl.closed_forms.decomposition import centre
from braincorl.closed_forms.evidence import SIGNAL_GRID
from braincorl.validation import FloatArray

Array = npt.NDArray[np.float64]
Subset = tuple[int, ...]

MOST_SPACES = 6  # the grid grows with the number of spaces faster than its steps can shrink
CONCENTRATION = 0.5  # of the Dirichlet prior over shares: Jeffreys'
# Steps of 1/m: about thirty to seventy points for any number of spaces.
STEPS = {1: 1, 2: 10, 3: 6, 4: 5, 5: 4, 6: 3}

_RANK_TOLERANCE = 1e-10  # of the largest eigenvalue, as in `closed_forms.bases`
# Points of the grid that hold less than this of a voxel's probability are left out of its mean.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class SpacesPosterior:
    """What is known of every voxel after its context.

    Attributes
    ----------
    mean
        Mean feature vector of the context, of all spaces side by side (p,).
    sizes
        Features of each space (s,).
    scales
        c of each space (s,).
    to_rows
        √c X_cᵀ Q of all spaces one below the other (p, k): what turns queries into kernel rows in the basis Q of the
        context.
    kernels
        Qᵀ K_s Q of each space (s, k, k).
    shares
        Grid of π (g, s).
    signal_grid
        Values of r (h,).
    probability
        Posterior probability of each (π, r) (g, h, v).
    variance
        σ²(π, r) (g, h, v).
    projected
        Qᵀ y (k, v).
    n_images
        Context length: a scalar array ().
    """

    mean: FloatArray
    sizes: npt.NDArray[np.int64]
    scales: FloatArray
    to_rows: FloatArray
    kernels: FloatArray
    shares: FloatArray
    signal_grid: FloatArray
    probability: FloatArray
    variance: FloatArray
    projected: FloatArray
    n_images: npt.NDArray[Any]


@dataclass(frozen=True)
class SpacesSolution:
    """Encoders of all spaces together, and of subsets.

    Attributes
    ----------
    coef
        Weights (v, p).
    intercept
        Intercepts (v,).
    parts
        For each subset of spaces asked for, weights over its own features (v, p of the subset) and intercepts (v,).
    posterior
        Of all spaces together.
    """

    coef: FloatArray
    intercept: FloatArray
    parts: dict[Subset, tuple[FloatArray, FloatArray]]
    posterior: SpacesPosterior


def share_grid(n_spaces: int, steps: int | None = None) -> tuple[Array, Array]:
    """Lay out the grid of shares and its prior.

    Parameters
    ----------
    n_spaces
        S.
    steps
        m, the parts of a share; by default what makes about thirty to seventy points.

    Returns
    -------
    shares : ndarray of shape (g, s)
        Rows sum to 1.
    log_prior : ndarray of shape (g,)
        Log of the Dirichlet-multinomial probability of each.
    """
    m = STEPS[n_spaces] if steps is None else steps
    bars = combinations(range(m + n_spaces - 1), n_spaces - 1)
    counts = np.array([np.diff([-1, *bar, m + n_spaces - 1]) - 1 for bar in bars])
    log_prior = (gammaln(counts + CONCENTRATION) - gammaln(counts + 1.0)).sum(axis=1)
    return counts / m, np.asarray(log_prior - logsumexp(log_prior))


def standard_subsets(n_spaces: int) -> list[Subset]:
    """Subsets that unique and shared parts are made of: all spaces but one, and each alone."""
    everything = tuple(range(n_spaces))
    without = [everything[:left_out] + everything[left_out + 1 :] for left_out in everything]
    return list(dict.fromkeys([*without, *((alone,) for alone in everything)])) if n_spaces > 1 else []


def fit_spaces(
    spaces: Sequence[FloatArray],
    y: FloatArray,
    scales: Sequence[float],
    *,
    steps: int | None = None,
    subsets: Sequence[Subset] = (),
    voxel_batch_size: int | str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> SpacesSolution:
    """Posterior of every voxel's encoder over several feature spaces.

    Parameters
    ----------
    spaces
        Features of each space (n, p_s).
    y
        Responses (n, v).
    scales
        c of each space, of `braincorl.closed_forms.evidence.pool_scale`.
    steps
        Of the grid of shares.
    subsets
        Spaces, by number, of further encoders.
    voxel_batch_size
        Voxels at a time, or "auto"; bounds memory and changes no result.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    SpacesSolution
        In the type of `y`; everything is computed in float64.
    """
    dtype, n_voxels, n_spaces = y.dtype, y.shape[1], len(spaces)
    means = [X.mean(axis=0, dtype=np.float64) for X in spaces]
    centred = [np.sqrt(c) * (X - mean) for X, mean, c in zip(spaces, means, scales, strict=True)]
    basis, kernels = _context(centred)
    to_rows = [part.T @ basis for part in centred]
    shares, log_prior = share_grid(n_spaces, steps)
    bases = _Bases(kernels, shares)
    freedom, rank, n_grid = y.shape[0] - 1, basis.shape[1], len(shares) * SIGNAL_GRID.size
    probability, variance = (np.empty((len(shares), SIGNAL_GRID.size, n_voxels), dtype) for _ in range(2))
    projected = np.empty((rank, n_voxels), dtype)
    models = [tuple(range(n_spaces)), *subsets]
    inside = np.stack(
        [(shares[:, [s for s in range(n_spaces) if s not in model]] == 0).all(axis=1) for model in models]
    )
    sizes = [X.shape[1] for X in spaces]
    coefs = [np.empty((n_voxels, sum(sizes[s] for s in model)), dtype) for model in models]
    intercepts = [np.empty(n_voxels, dtype) for _ in models]
    each = 8 * (3 * n_grid + (sum(len(model) for model in models) + 4) * max(rank, 1))
    for batch in batches(n_voxels, each, voxel_batch_size):
        responses, mean = centre(y[:, batch])
        z = basis.T @ responses
        outside = np.maximum(np.einsum("nv,nv->v", responses, responses) - np.einsum("kv,kv->v", z, z), 0.0)
        if rank == freedom:
            outside = np.zeros_like(outside)
        log_evidence, spread = _log_evidence(bases, z, outside, SIGNAL_GRID, freedom)
        log_evidence += log_prior[:, None, None]
        posteriors = [_normalized(log_evidence, np.flatnonzero(points)) for points in inside]
        duals = _duals(bases, z, posteriors, models, SIGNAL_GRID)
        for model, dual, coef, intercept in zip(models, duals, coefs, intercepts, strict=True):
            columns, baseline = 0, mean.copy()
            for s, weights in zip(model, dual, strict=True):
                part = (np.sqrt(scales[s]) * (to_rows[s] @ weights)).T
                coef[batch, columns : columns + sizes[s]] = part
                baseline -= part @ means[s]
                columns += sizes[s]
            intercept[batch] = baseline
        probability[..., batch] = np.stack([posteriors[0][number] for number in range(len(shares))])
        variance[..., batch], projected[:, batch] = spread, z
        if progress is not None:
            progress(batch.stop, n_voxels)
    posterior = SpacesPosterior(
        mean=np.concatenate(means),
        sizes=np.asarray(sizes, dtype=np.int64),
        scales=np.asarray(scales, dtype=np.float64),
        to_rows=np.concatenate(to_rows),
        kernels=kernels,
        shares=shares,
        signal_grid=SIGNAL_GRID,
        probability=probability,
        variance=variance,
        projected=projected,
        n_images=np.asarray(y.shape[0]),
    )
    parts = dict(zip(models[1:], zip(coefs[1:], intercepts[1:], strict=True), strict=True))
    return SpacesSolution(coefs[0], intercepts[0], parts, posterior)


def explained_shares(posterior: SpacesPosterior) -> FloatArray:
    """Posterior mean of r π_s (v, s): what each space explains of the response variance; sums to the whole, r."""
    by_space = np.einsum("gs,h,ghv->vs", posterior.shares, posterior.signal_grid, posterior.probability, optimize=True)
    return np.asarray(by_space, dtype=posterior.probability.dtype)


def spaces_noise_variance(posterior: SpacesPosterior) -> FloatArray:
    """Posterior mean of the variance of one response around the encoder (v,)."""
    noise = (1.0 - posterior.signal_grid).astype(posterior.variance.dtype)
    return np.asarray(np.einsum("ghv,ghv,h->v", posterior.probability, posterior.variance, noise, optimize=True))


def spaces_predictive_std(posterior: SpacesPosterior, X: FloatArray) -> FloatArray:
    """Predict the standard deviation of new responses: noise, what the context leaves open, spread over the grid.

    Parameters
    ----------
    posterior
        Of `fit_spaces`.
    X
        Features of new images, all spaces side by side (q, p).

    Returns
    -------
    ndarray of shape (q, v)
        In the units of the responses.
    """
    r, n_images = posterior.signal_grid, int(posterior.n_images)
    edges = np.cumsum(posterior.sizes)[:-1]
    scale = np.sqrt(posterior.scales)
    queries = [c * part for c, part in zip(scale, np.split(X - posterior.mean, edges, axis=1), strict=True)]
    rows = np.stack([query @ part for query, part in zip(queries, np.split(posterior.to_rows, edges), strict=True)])
    lengths = np.stack([np.square(query).sum(axis=1) for query in queries])  # (s, q)
    bases = _Bases(posterior.kernels, posterior.shares)
    shape = (len(X), posterior.projected.shape[1])
    total, mean, square = (np.zeros(shape) for _ in range(3))
    tail = (n_images - 1) / max(n_images - 3, 1)
    for shares, (vectors, values), probability, variance in zip(
        posterior.shares, bases, posterior.probability, posterior.variance, strict=True
    ):
        row = np.tensordot(shares, rows, 1) @ vectors
        marginal = _marginal(values, r)  # (h, k)
        latent = (shares @ lengths)[:, None] * r - (row**2) @ (r**2 / marginal.T)
        per_level = np.maximum(latent, 0.0) + (1.0 - r) * (1.0 + 1.0 / n_images)  # (q, h), in units of σ²
        total += per_level @ (tail * probability * variance)
        likely = np.flatnonzero(probability.sum(axis=0) > _NEGLIGIBLE)
        z = vectors.T @ posterior.projected[:, likely]
        for level, divisor, weight in zip(r, marginal, probability[:, likely], strict=True):
            prediction = (row * (level / divisor)) @ z
            mean[:, likely] += weight * prediction
            square[:, likely] += weight * prediction**2
    std = np.sqrt(total + np.maximum(square - mean**2, 0.0))
    return np.asarray(std, dtype=posterior.variance.dtype)


class _Bases:
    """Eigenvectors and eigenvalues of K(π) at every point of the grid, kept if they fit into the working memory."""

    def __init__(self, kernels: FloatArray, shares: FloatArray) -> None:
        self._kernels, self._shares = kernels, shares
        small = len(shares) * kernels[0].nbytes <= working_memory()
        self._kept = [self._at(point) for point in shares] if small else None

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        return iter(self._kept) if self._kept is not None else (self._at(point) for point in self._shares)

    def _at(self, point: FloatArray) -> tuple[Array, Array]:
        kernel: Array = np.tensordot(point, self._kernels, 1)
        values, vectors = scipy.linalg.eigh(kernel, check_finite=False)
        return np.asarray(vectors, dtype=np.float64), np.maximum(values, 0.0)


def _context(centred: Sequence[Array]) -> tuple[Array, Array]:
    """Give a basis (n, k) of what the features reach, and each space's kernel in it (s, k, k)."""
    n_images, n_features = centred[0].shape[0], sum(part.shape[1] for part in centred)
    # Each space by its own size, so that the weakest one is not taken for rounding of the strongest.
    unit = [part / max(float(np.linalg.norm(part)), 1e-300) for part in centred]
    if n_features < n_images - 1:
        joined = np.concatenate(unit, axis=1)
        vectors, values, _ = scipy.linalg.svd(joined, full_matrices=False, check_finite=False)
        values = values**2
    else:
        gram: Array = np.sum([part @ part.T for part in unit], axis=0)
        values, vectors = scipy.linalg.eigh(gram, check_finite=False)
        values, vectors = values[::-1], vectors[:, ::-1]
    rank = min(int((values > max(float(values[0]), 0.0) * _RANK_TOLERANCE).sum()), n_images - 1) if values.size else 0
    basis = np.ascontiguousarray(vectors[:, :rank] - vectors[:, :rank].mean(axis=0))
    inner = [basis.T @ part for part in centred]
    return basis, np.stack([part @ part.T for part in inner])


def _marginal(values: FloatArray, r: FloatArray) -> Array:
    """Variance of each projection at each r, in units of σ² (h, k)."""
    return np.asarray(r[:, None] * values + (1.0 - r)[:, None])


def _log_evidence(bases: _Bases, z: Array, outside: Array, r: Array, freedom: int) -> tuple[Array, Array]:
    """Log evidence and σ² at every point of both grids (g, h, v)."""
    levels, variances = [], []
    smallest = int(r.argmin())
    for vectors, values in bases:
        marginal = _marginal(values, r)
        total = (1.0 / marginal) @ np.square(vectors.T @ z) + outside / (1.0 - r)[:, None]
        log_determinant = np.log(marginal).sum(axis=1) + (freedom - values.size) * np.log(1.0 - r)
        with np.errstate(divide="ignore"):
            level = -0.5 * freedom * np.log(total) - 0.5 * log_determinant[:, None]
        constant = total.max(axis=0) <= 0  # nothing to explain: all of it on the smallest r
        level[:, constant] = -np.inf
        level[smallest, constant] = 0.0
        levels.append(level)
        variances.append(total / max(freedom, 1))
    return np.stack(levels), np.stack(variances)


def _normalized(log_evidence: Array, points: npt.NDArray[np.intp]) -> dict[int, Array]:
    """Posterior probability over the points of the grid that belong to a model, point -> (h, v)."""
    posterior = log_evidence[points]
    posterior -= posterior.max(axis=(0, 1))
    np.exp(posterior, out=posterior)
    posterior /= posterior.sum(axis=(0, 1))
    return dict(zip(points.tolist(), posterior, strict=True))


def _duals(
    bases: _Bases, z: Array, posteriors: Sequence[dict[int, Array]], models: Sequence[Subset], r: Array
) -> list[list[Array]]:
    """For every model and each of its spaces Σ over the grid of P r π_s U (r Λ + 1 - r)⁻¹ Uᵀ z (k, v)."""
    shares = bases._shares
    duals = [[np.zeros_like(z) for _ in model] for model in models]
    for number, (vectors, values) in enumerate(bases):
        factors = r / _marginal(values, r).T  # (k, h)
        rotated = None
        for posterior, model, dual in zip(posteriors, models, duals, strict=True):
            if number not in posterior:
                continue
            likely = np.flatnonzero(posterior[number].sum(axis=0) > _NEGLIGIBLE)
            rotated = vectors.T @ z if rotated is None else rotated
            weights = vectors @ ((factors @ posterior[number][:, likely]) * rotated[:, likely])
            for s, out in zip(model, dual, strict=True):
                if shares[number, s] > 0:
                    out[:, likely] += shares[number, s] * weights
    return duals
