"""Learning the mixture from people, by expectation-maximisation on their responses.

Voxels of one person share noise, so each person counts for `effective_voxels`, and the covariance is the mean of an
inverse-Wishart posterior: `shrinkage` pseudo-voxels of a target covariance (the broad component for the first Gaussian,
that Gaussian for the components of a mixture) are added to what the people show.

Letters: p features, c components, g levels of r.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import Components, flat_levels, low_rank_plus_isotropic, unit_signal
from braincorl.priors.expectation import Mixture, Moments, Person, expect
from braincorl.priors.regions import smoothed_weights

# Pseudo-voxels with which the levels of r are smoothed.
_LEVEL_PSEUDO_COUNT = 10.0


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


def _smoothed_levels(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """p(r | c), shrunk toward that of all voxels, and that toward a flat density."""
    overall = counts.sum(axis=0) + _LEVEL_PSEUDO_COUNT * flat_levels()
    overall /= overall.sum()
    smoothed = counts + _LEVEL_PSEUDO_COUNT * overall
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))
