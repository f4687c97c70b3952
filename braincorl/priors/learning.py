"""Learning runs of given settings: one Gaussian, then ever more components.

The path is deterministic and does not depend on the order of voxels. One Gaussian is learned first; then every
component is split in two along the direction in which its voxels differ most, EM is run again, and so on. With regions,
the mixture starts from one component per region instead.

Letters: p features, c components, v voxels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import Components, broad_components, unit_signal
from braincorl.priors.expectation import Mixture, Person, expect
from braincorl.priors.mixture_em import maximize, run_em
from braincorl.priors.regions import smoothed_weights

_ITERATIONS = 20


@dataclass(frozen=True)
class Choice:
    """Settings of one learning run.

    Attributes
    ----------
    shrinkage
        Pseudo-voxels of the target covariance.
    n_components
        Components beside the broad one.
    """

    shrinkage: float
    n_components: int


def learn(
    people: Sequence[Person],
    pool_covariance: npt.NDArray[np.float64],
    choice: Choice,
    rank: int,
    n_regions: int,
    n_iterations: int = _ITERATIONS,
) -> Mixture:
    """Learn a mixture with given settings.

    Parameters
    ----------
    people
        Training people.
    pool_covariance
        S (p, p).
    choice
        Settings.
    rank
        Columns of the factors.
    n_regions
        Number of region labels; with two or more, and as many components, the mixture starts from one per region.
    n_iterations
        Most rounds of EM at every stage.

    Returns
    -------
    Mixture
    """
    path = learning_path(people, pool_covariance, choice, rank, n_regions, n_iterations)
    return next(mixture for mixture in path if mixture.components.n_components > choice.n_components)


def learning_path(
    people: Sequence[Person],
    pool_covariance: npt.NDArray[np.float64],
    choice: Choice,
    rank: int,
    n_regions: int,
    n_iterations: int = _ITERATIONS,
) -> Iterator[Mixture]:
    """Learn ever larger mixtures, each from the one before.

    Parameters
    ----------
    people, pool_covariance, choice, rank, n_regions, n_iterations
        As in `learn`; the path passes through `choice.n_components` and goes on beyond.

    Yields
    ------
    Mixture
    """
    strength = choice.shrinkage
    mixture = learn_gaussian(people, pool_covariance, strength, rank, n_regions, n_iterations)
    yield mixture
    target = mixture.components.covariance(0)
    n_now = 1
    if 1 < n_regions <= choice.n_components:
        mixture, n_now = _one_per_region(people, mixture, target, pool_covariance, strength, rank), n_regions
        mixture = run_em(people, mixture, target, pool_covariance, strength, rank, n_iterations)
        yield mixture
    while True:
        n_next = choice.n_components if n_now < choice.n_components < 2 * n_now else 2 * n_now
        mixture, n_now = split_components(mixture, n_next - n_now, pool_covariance), n_next
        mixture = run_em(people, mixture, target, pool_covariance, strength, rank, n_iterations)
        yield mixture


def learn_gaussian(
    people: Sequence[Person],
    pool_covariance: npt.NDArray[np.float64],
    shrinkage: float,
    rank: int,
    n_regions: int,
    n_iterations: int = _ITERATIONS,
) -> Mixture:
    """Learn one Gaussian beside the broad component.

    Parameters
    ----------
    people, pool_covariance, shrinkage, rank, n_regions, n_iterations
        As in `learn`.

    Returns
    -------
    Mixture
    """
    broad = broad_components(pool_covariance)
    p = broad.n_features
    pair = Components(
        mean=np.zeros((2, p)),
        factor=np.zeros((2, p, rank)),
        floor=np.repeat(broad.floor, 2),
        weight=np.full(2, 0.5),
        level_probability=np.repeat(broad.level_probability, 2, axis=0),
    )
    start = Mixture(pair, np.full((n_regions + 1, 2), 0.5))
    return run_em(people, start, broad.covariance(0), pool_covariance, shrinkage, rank, n_iterations)


def split_components(mixture: Mixture, n_more: int, pool_covariance: npt.NDArray[np.float64]) -> Mixture:
    """Split the heaviest components in two, each along its longest axis.

    Parameters
    ----------
    mixture
        To be split; its broad component is kept.
    n_more
        How many components to add, at most as many as there are.
    pool_covariance
        S (p, p).

    Returns
    -------
    Mixture
        Halves stand side by side with equal weights.
    """
    old = mixture.components
    n_old = old.n_components - 1
    chosen = np.sort(np.argsort(-old.weight[:-1], kind="stable")[: min(n_more, n_old)])
    source = np.concatenate([np.arange(n_old), chosen, [n_old]])
    mean, factor = old.mean[source].copy(), old.factor[source].copy()
    for position, c in enumerate(chosen):
        axis = factor[c, :, 0] * np.sqrt(2 / np.pi)  # mean distance from the middle of either half of a Gaussian
        largest = np.argmax(np.abs(axis))
        axis = axis * np.sign(axis[largest] if axis[largest] else 1.0)
        mean[c] += axis
        mean[n_old + position] -= axis
        for half in (c, n_old + position):
            factor[half, :, 0] *= np.sqrt(1 - 2 / np.pi)
    share = np.where(np.isin(source, chosen), 0.5, 1.0)
    region_weight = mixture.region_weight[:, source] * share
    components = Components(mean, factor, old.floor[source], region_weight[-1], old.level_probability[source])
    return Mixture(unit_signal(components, pool_covariance), region_weight)


def _one_per_region(
    people: Sequence[Person],
    gaussian: Mixture,
    target: npt.NDArray[np.float64],
    pool_covariance: npt.NDArray[np.float64],
    shrinkage: float,
    rank: int,
) -> Mixture:
    """Give every region the Gaussian of its own voxels, as a start."""
    n_regions = gaussian.region_weight.shape[0] - 1
    one = gaussian.components
    parts = []
    for index in range(n_regions):
        inside = [
            replace(person, context=person.context.voxels(person.region == index), region=np.full(chosen, index))
            for person in people
            if (chosen := int((person.region == index).sum()))
        ]
        moments = expect(inside, gaussian)
        parts.append(maximize(moments, gaussian, target, pool_covariance, shrinkage, rank).components)
    counts = np.hstack([np.eye(n_regions) * 50.0 + 1.0, np.full((n_regions, 1), 2.0)])
    region_weight = smoothed_weights(counts)
    components = Components(
        mean=np.concatenate([*(part.mean[:1] for part in parts), one.mean[1:]]),
        factor=np.concatenate([*(part.factor[:1] for part in parts), one.factor[1:]]),
        floor=np.concatenate([*(part.floor[:1] for part in parts), one.floor[1:]]),
        weight=region_weight[-1],
        level_probability=np.concatenate([*(p.level_probability[:1] for p in parts), one.level_probability[1:]]),
    )
    return Mixture(unit_signal(components, pool_covariance), region_weight)
