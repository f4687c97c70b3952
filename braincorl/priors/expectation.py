"""The expectation step: posterior moments of the weights of all training voxels under the current mixture.

Fitted weights are noisy estimates, so their covariance is not that of the true weights. EM never forms them: its second
moments are those of the posterior under the current mixture,

    E[u uᵀ | y] = E[u | y] E[u | y]ᵀ + Cov[u | y],

whose last term is what a mean of squares of estimates gets wrong (Dempster, Laird & Rubin 1977). People may have seen
different images; only the weights are shared.

Letters: k rank, p features, v voxels, c components, g levels of r.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import LEVELS, Components
from braincorl.priors.context import Context
from braincorl.priors.posterior import Frame, level_evidence, make_frames, mixture_evidence
from braincorl.validation import FloatArray

# Responsibilities of a level below this are left out of the second moments: it bounds the work, at no visible change
# of the result.
_NEGLIGIBLE = 1e-2
# Up to this many rows, squares are quicker found as pairs of rows.
_FEW_ROWS = 40


@dataclass(frozen=True)
class Person:
    """One training person.

    Attributes
    ----------
    context
        Sufficient statistics.
    voxel_weight
        What one voxel counts for: effective voxels over voxels.
    region
        Index of each voxel's region (v,), -1 where unknown.
    """

    context: Context
    voxel_weight: float
    region: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Mixture:
    """What EM learns.

    Attributes
    ----------
    components
        The mixture over weights, the broad component last.
    region_weight
        π_c in each region (n_regions + 1, c), rows sum to 1; the last row, index -1, is for unknown regions.
    """

    components: Components
    region_weight: npt.NDArray[np.float64]


@dataclass
class Moments:
    """Sums over voxels, weighted by responsibility and by `Person.voxel_weight`.

    Attributes
    ----------
    level
        Voxels at each level of r (c, g), of people whose noise is known to be real.
    region
        Voxels of each region in each component (n_regions, c).
    count
        Voxels with signal in each component (c,).
    first
        Σ E[u] (c, p).
    second
        Σ E[uuᵀ] (c, p, p).
    log_likelihood
        Of the responses, weighted alike.
    """

    level: npt.NDArray[np.float64]
    region: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]
    log_likelihood: float


def expect(people: Sequence[Person], mixture: Mixture) -> Moments:
    """Posterior moments of the weights, summed over all voxels of all people.

    Parameters
    ----------
    people
        Training people.
    mixture
        The current mixture.

    Returns
    -------
    Moments
    """
    moments = _no_moments(mixture)
    for person in people:
        _add_person(moments, person, mixture)
    return moments


def level_probability(components: Components, context: Context) -> npt.NDArray[np.float64]:
    """p(r | c) for one person: all at the highest level for noise-free responses (c, g)."""
    if not context.noise_free:
        return components.level_probability
    certain = np.zeros_like(components.level_probability)
    certain[:, -1] = 1.0
    return certain


def evidence_stack(frames: Sequence[Frame], context: Context) -> FloatArray:
    """Log evidence of every component, level and voxel (c, g, v)."""
    return np.stack([level_evidence(f, context, f.vectors.T @ context.projected).log_evidence for f in frames])


def _no_moments(mixture: Mixture) -> Moments:
    c, p = mixture.components.mean.shape
    n_regions = mixture.region_weight.shape[0] - 1
    return Moments(
        level=np.zeros((c, LEVELS.size)),
        region=np.zeros((max(n_regions, 1), c)),
        count=np.zeros(c),
        first=np.zeros((c, p)),
        second=np.zeros((c, p, p)),
        log_likelihood=0.0,
    )


def _add_person(moments: Moments, person: Person, mixture: Mixture) -> None:
    components, context = mixture.components, person.context
    # The broad component learns nothing and takes no voxel: with many images it would take every voxel that is not
    # exactly Gaussian, and leave nothing to learn from. It has its say where the prior is used.
    frames = make_frames(context, components.some(slice(-1)))
    log_weight = np.log(mixture.region_weight[person.region, :-1]).T
    turned = [frame.vectors.T @ context.projected for frame in frames]
    evidences = [level_evidence(frame, context, z) for frame, z in zip(frames, turned, strict=True)]
    stack = np.stack([evidence.log_evidence for evidence in evidences])
    share, marginal = mixture_evidence(stack, log_weight, level_probability(components, context)[:-1])
    moments.log_likelihood += person.voxel_weight * float(marginal.sum())
    if not context.noise_free:
        moments.level[:-1] += person.voxel_weight * share.sum(axis=2)
    by_component = person.voxel_weight * share.sum(axis=1)
    n_regions = moments.region.shape[0]
    row = np.zeros_like(person.region) if n_regions == 1 else person.region
    for c, voxels in enumerate(by_component):
        moments.region[:, c] += np.bincount(row + 1, voxels, n_regions + 1)[1:]
    some = np.where(share > _NEGLIGIBLE, share, 0.0)
    some[:, LEVELS == 0] = 0.0  # voxels without signal say nothing about weights
    squares = _weighted_squares(
        context.projected, frames, turned, [q * e.mode**2 for q, e in zip(some, evidences, strict=True)]
    )
    for c, (frame, z) in enumerate(zip(frames, turned, strict=True)):
        first = (some[c] * evidences[c].mode) @ z.T
        _add_weight_moments(moments, c, components, frame, some[c].sum(axis=1), first, squares[c], person.voxel_weight)


def _weighted_squares(
    projected: FloatArray, frames: Sequence[Frame], turned: Sequence[FloatArray], weight: Sequence[FloatArray]
) -> Sequence[FloatArray]:
    """Σ_v w z̃ z̃ᵀ of every component and level, (g, k, k) each."""
    rank = projected.shape[0]
    if rank <= _FEW_ROWS:  # all components and levels are one product with all pairs of rows
        one, other = np.triu_indices(rank)
        every = np.concatenate(weight)
        used = np.flatnonzero(every.any(axis=1))
        full = np.zeros((every.shape[0], rank, rank))
        pairs = every[used] @ (projected[one] * projected[other]).T
        full[used[:, None], one, other] = full[used[:, None], other, one] = pairs
        by_component = full.reshape(len(frames), LEVELS.size, rank, rank)
        return [frame.vectors.T @ by_component[c] @ frame.vectors for c, frame in enumerate(frames)]
    found = []
    for z, w in zip(turned, weight, strict=True):
        rows, squares = np.ascontiguousarray(z.T), np.zeros((LEVELS.size, rank, rank))
        for g in np.flatnonzero(w.any(axis=1)):
            chosen = np.flatnonzero(w[g])
            scaled = rows[chosen] * np.sqrt(w[g, chosen])[:, None]
            squares[g] = scaled.T @ scaled
        found.append(squares)
    return found


def _add_weight_moments(
    moments: Moments,
    c: int,
    components: Components,
    frame: Frame,
    count: FloatArray,
    first: FloatArray,
    squares: FloatArray,
    weight: float,
) -> None:
    """Add Σ E[u] and Σ E[uuᵀ] of one component and person, from Σ q (g,), Σ q t z̃ (g, k) and Σ q t² z̃ z̃ᵀ (g, k, k).

    u = μ + (Uᵀ R Σ)ᵀ a with a = √r/d (t z̃ - √r m̃), so both sums need only sums over a (k,) and a aᵀ (k, k); the
    posterior covariance Σ - (UᵀRΣ)ᵀ diag(r/d) UᵀRΣ is the same for all voxels of a level.
    """
    mean, total = components.mean[c], float(count.sum())
    gain = np.sqrt(LEVELS)[:, None] / frame.marginal
    expected = np.sqrt(LEVELS)[:, None] * frame.turned_mean
    shift = (gain * (first - count[:, None] * expected)).sum(axis=0)
    outer = np.einsum("gi,gij,gj->ij", gain, squares, gain, optimize=False)
    cross = (gain * first).T @ (gain * expected)
    outer += (gain * expected * count[:, None]).T @ (gain * expected) - cross - cross.T
    outer -= np.diag((count[:, None] * gain**2 * frame.marginal).sum(axis=0))
    moved = frame.back.T @ shift
    along = np.outer(mean, moved)
    moments.count[c] += weight * total
    moments.first[c] += weight * (total * mean + moved)
    moments.second[c] += weight * total * (np.outer(mean, mean) + components.covariance(c))
    moments.second[c] += weight * (along + along.T)
    moments.second[c] += weight * (frame.back.T @ (outer @ frame.back))
