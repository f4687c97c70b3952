"""Learning the mixture from people, by expectation-maximisation on their responses.

Fitted weights are noisy estimates, so their covariance is not that of the true weights. EM never forms them: its second
moments are those of the posterior under the current mixture,

    E[u uᵀ | y] = E[u | y] E[u | y]ᵀ + Cov[u | y],

whose last term is what a mean of squares of estimates gets wrong (Dempster, Laird & Rubin 1977). People may have seen
different images; only the weights are shared.

Voxels of one person share noise, so each person counts for `effective_voxels`, and the covariance is the mean of an
inverse-Wishart posterior: `shrinkage` pseudo-voxels of a target covariance (the broad component for the first Gaussian,
that Gaussian for the components of a mixture) are added to what the people show.

Letters: k rank, p features, v voxels, c components, g levels of r.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import LEVELS, Components, flat_levels, low_rank_plus_isotropic, unit_signal
from braincorl.priors.context import Context
from braincorl.priors.posterior import (
    Frame,
    LevelEvidence,
    level_evidence,
    make_frames,
    mixture_evidence,
    scale_mode,
)
from braincorl.priors.regions import smoothed_weights
from braincorl.validation import FloatArray

# Responsibilities below this are left out of the moments: it bounds the work, at no visible change of the result.
_NEGLIGIBLE = 3e-3
# Pseudo-voxels with which the levels of r are smoothed.
_LEVEL_PSEUDO_COUNT = 10.0


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


def run_em(
    people: Sequence[Person],
    start: Mixture,
    target: npt.NDArray[np.float64],
    pool_covariance: npt.NDArray[np.float64],
    shrinkage: float,
    rank: int,
    n_iterations: int,
    tolerance: float = 0.02,
) -> Mixture:
    """Alternate expectation and maximisation until the likelihood stands still.

    Parameters
    ----------
    people
        Training people.
    start
        First guess; its broad component stays as it is.
    target
        Covariance toward which every component is shrunk (p, p).
    pool_covariance
        S (p, p).
    shrinkage
        Strength of the target, in effective voxels.
    rank
        Columns of the factors.
    n_iterations
        At most this many rounds.
    tolerance
        Stop once the likelihood per effective voxel grows by less.

    Returns
    -------
    Mixture
    """
    mixture, previous = start, -np.inf
    total = sum(person.voxel_weight * person.context.n_voxels for person in people)
    for _ in range(n_iterations):
        moments = expect(people, mixture)
        mixture = maximize(moments, mixture, target, pool_covariance, shrinkage, rank)
        if moments.log_likelihood - previous < tolerance * total:
            break
        previous = moments.log_likelihood
    return mixture


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


def maximize(
    moments: Moments,
    mixture: Mixture,
    target: npt.NDArray[np.float64],
    pool_covariance: npt.NDArray[np.float64],
    shrinkage: float,
    rank: int,
) -> Mixture:
    """Most probable mixture given the moments, every component of unit signal variance.

    Parameters
    ----------
    moments
        Of `expect`.
    mixture
        The mixture they were taken under.
    target, pool_covariance, shrinkage, rank
        As in `run_em`.

    Returns
    -------
    Mixture
    """
    old = mixture.components
    mean, factor, floor = old.mean.copy(), old.factor.copy(), old.floor.copy()
    for c in range(old.n_components - 1):  # the broad component stays as it is
        count = moments.count[c]
        mean[c] = moments.first[c] / (count + 1.0)  # one pseudo-voxel of zero mean
        cross = np.outer(mean[c], moments.first[c])
        scatter = moments.second[c] - cross - cross.T + (count + 1.0) * np.outer(mean[c], mean[c])
        factor[c], floor[c] = low_rank_plus_isotropic((scatter + shrinkage * target) / (count + shrinkage), rank)
    region_weight = smoothed_weights(moments.region)
    components = Components(mean, factor, floor, region_weight[-1], _smoothed_levels(moments.level))
    return Mixture(unit_signal(components, pool_covariance), region_weight)


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
    frames = make_frames(context, components)[:-1]
    log_weight = np.log(mixture.region_weight[person.region, :-1]).T
    evidences = [level_evidence(frame, context, frame.vectors.T @ context.projected) for frame in frames]
    stack = np.stack([evidence.log_evidence for evidence in evidences])
    share, marginal = mixture_evidence(stack, log_weight, level_probability(components, context)[:-1])
    moments.log_likelihood += person.voxel_weight * float(marginal.sum())
    if not context.noise_free:
        moments.level[:-1] += person.voxel_weight * share.sum(axis=2)
    by_component = person.voxel_weight * share.sum(axis=1)
    n_regions = moments.region.shape[0]
    for index in range(n_regions):
        inside = (person.region == index) | (n_regions == 1)
        moments.region[index, :-1] += by_component[:, inside].sum(axis=1)
    for c, frame in enumerate(frames):
        _add_weight_moments(moments, c, components, frame, person, share[c], evidences[c])


def _add_weight_moments(
    moments: Moments,
    c: int,
    components: Components,
    frame: Frame,
    person: Person,
    share: FloatArray,
    evidence: LevelEvidence,
) -> None:
    """Add Σ E[u] and Σ E[uuᵀ] of one component and person.

    u = μ + (Uᵀ R Σ)ᵀ a with a = √r/d (t z̃ - √r m̃), so both sums need only sums over a (k,) and a aᵀ (k, k); the
    posterior covariance Σ - (UᵀRΣ)ᵀ diag(r/d) UᵀRΣ is the same for all voxels of a level.
    """
    context, mean = person.context, components.mean[c]
    level, voxel = np.nonzero(share > _NEGLIGIBLE)
    level, voxel = level[LEVELS[level] > 0], voxel[LEVELS[level] > 0]
    q, r = share[level, voxel], LEVELS[level]
    power = max(context.freedom + context.prior_freedom, 1)
    t = scale_mode(evidence.alpha[level, voxel], evidence.beta[level, voxel], power)
    gain = (np.sqrt(LEVELS)[:, None] / frame.marginal).T  # (k, g)
    turned = frame.vectors.T @ context.projected
    a = gain[:, level] * (turned[:, voxel] * t - np.sqrt(r) * frame.turned_mean[:, None])
    total, shift, outer = float(q.sum()), a @ q, (a * q) @ a.T
    shrunk = (gain**2 * frame.marginal.T) @ np.bincount(level, q, LEVELS.size)  # Σ q r / d
    weight = person.voxel_weight
    moved = frame.back.T @ shift
    cross = np.outer(mean, moved)
    moments.count[c] += weight * total
    moments.first[c] += weight * (total * mean + moved)
    moments.second[c] += weight * total * (np.outer(mean, mean) + components.covariance(c))
    moments.second[c] += weight * (cross + cross.T)
    moments.second[c] += weight * (frame.back.T @ (outer - np.diag(shrunk)) @ frame.back)


def _smoothed_levels(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """p(r | c), shrunk toward that of all voxels, and that toward a flat density."""
    overall = counts.sum(axis=0) + _LEVEL_PSEUDO_COUNT * flat_levels()
    overall /= overall.sum()
    smoothed = counts + _LEVEL_PSEUDO_COUNT * overall
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))
