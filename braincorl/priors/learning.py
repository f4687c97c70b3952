"""How many components, how much shrinkage: chosen on people who are left out.

The path is deterministic and does not depend on the order of voxels. One Gaussian is learned first; then every
component is split in two along the direction in which its voxels differ most, EM is run again, and so on. With regions,
the mixture starts from one component per region instead. Each stage is scored by the evidence of a left-out person's
responses to left-out images, and the path is left once that no longer grows. Both have to be left out: people share
what no feature explains about an image, and a prior that was bent to it would look good on other people with the same
images and fail on new ones. With a single person nobody can be left out: the settings are then fixed ones.

Letters: p features, c components, v voxels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import Components, broad_components, unit_signal
from braincorl.priors.mixture_em import (
    Mixture,
    Person,
    evidence_stack,
    expect,
    level_probability,
    maximize,
    run_em,
)
from braincorl.priors.posterior import make_frames, mixture_evidence
from braincorl.priors.regions import smoothed_weights

_ITERATIONS, _ITERATIONS_TO_CHOOSE = 20, 8
# Groups of people to leave out in turn; more would cost time and change little.
_FOLDS = 3
_SHRINKAGES = (300.0, 100.0, 30.0, 10.0, 3.0)
_MOST_COMPONENTS = 16
_MOST_REGION_COMPONENTS = 24
# Of more regions than that, each is a mixture of a few kinds.
_MANY_REGIONS_COMPONENTS = 8
# With a single person, whose voxels are more alike than those of two people.
_ALONE = (30.0, 4)


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
        Number of region labels; with two or more the mixture starts from one component per region.
    n_iterations
        Most rounds of EM at every stage.

    Returns
    -------
    Mixture
    """
    gaussian = learn_gaussian(people, pool_covariance, choice.shrinkage, rank, n_regions, n_iterations)
    if choice.n_components == 1:
        return gaussian
    target = gaussian.components.covariance(0)
    mixture, n_now = gaussian, 1
    if 1 < n_regions <= choice.n_components:
        mixture, n_now = _one_per_region(people, gaussian, target, pool_covariance, choice.shrinkage, rank), n_regions
        mixture = run_em(people, mixture, target, pool_covariance, choice.shrinkage, rank, n_iterations)
    while n_now < choice.n_components:
        mixture = split_components(mixture, choice.n_components - n_now, pool_covariance)
        n_now = mixture.components.n_components - 1
        mixture = run_em(people, mixture, target, pool_covariance, choice.shrinkage, rank, n_iterations)
    return mixture


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


def held_out_evidence(mixture: Mixture, person: Person) -> float:
    """Mean log evidence of a person's voxels.

    Parameters
    ----------
    mixture
        Learned without that person.
    person
        The person.

    Returns
    -------
    float
    """
    frames = make_frames(person.context, mixture.components)
    log_weight = np.log(mixture.region_weight[person.region]).T
    levels = level_probability(mixture.components, person.context)
    _, marginal = mixture_evidence(evidence_stack(frames, person.context), log_weight, levels)
    return float(marginal.mean())


def choose(
    halves: Sequence[Sequence[Person]],
    pool_covariance: npt.NDArray[np.float64],
    rank: int,
    n_regions: int,
    shrinkage: float | None = None,
    n_components: int | None = None,
) -> tuple[Choice, dict[str, float]]:
    """Choose what is not given, by the evidence of people who are left out.

    Parameters
    ----------
    halves
        Training people, with one half of all images and with the other; or once, with all.
    pool_covariance, rank, n_regions
        As in `learn`.
    shrinkage, n_components
        Settings that are given; None to choose.

    Returns
    -------
    choice : Choice
    scores : dict
        Mean held-out log evidence per voxel of every setting that was tried.
    """
    first_count = n_regions if n_regions <= _MOST_REGION_COMPONENTS else _MANY_REGIONS_COMPONENTS
    if len(halves[0]) == 1 or (shrinkage is not None and n_components is not None):
        alone = _ALONE[1] if first_count == 1 else first_count
        return Choice(shrinkage or _ALONE[0], n_components or alone), {}
    scores: dict[str, float] = {}

    def score(candidate: Choice) -> float:
        value = _left_out_score(halves, pool_covariance, candidate, rank, n_regions)
        scores[f"shrinkage {candidate.shrinkage:g}, components {candidate.n_components}"] = value
        return value

    count = n_components or first_count
    strengths = _SHRINKAGES if shrinkage is None else (shrinkage,)
    best, value = _climb([Choice(strength, count) for strength in strengths], score)
    while n_components is None and 2 * best.n_components <= max(_MOST_COMPONENTS, first_count):
        candidate = replace(best, n_components=2 * best.n_components)
        grown = score(candidate)
        if grown <= value:
            break
        best, value = candidate, grown
    return best, scores


def _climb(candidates: Sequence[Choice], score: Callable[[Choice], float]) -> tuple[Choice, float]:
    """Best of ordered candidates with a single peak, from the middle outwards."""
    place = len(candidates) // 2
    value, direction = score(candidates[place]), 0
    for step in (-1, 1):
        while direction in (0, step) and 0 <= place + step < len(candidates):
            neighbour = score(candidates[place + step])
            if neighbour <= value:
                break
            place, value, direction = place + step, neighbour, step
    return candidates[place], value


def _left_out_score(
    halves: Sequence[Sequence[Person]],
    pool_covariance: npt.NDArray[np.float64],
    candidate: Choice,
    rank: int,
    n_regions: int,
) -> float:
    """Mean evidence of people who are left out, on the images that the others did not teach with."""
    n_people = len(halves[0])
    folds = np.array_split(np.arange(n_people), min(n_people, _FOLDS))
    values: list[float] = []
    for teaching, scoring in zip(halves, reversed(halves), strict=True):
        for fold in folds:
            rest = [person for i, person in enumerate(teaching) if i not in fold]
            mixture = learn(rest, pool_covariance, candidate, rank, n_regions, _ITERATIONS_TO_CHOOSE)
            values += [held_out_evidence(mixture, scoring[i]) for i in fold]
    return float(np.mean(values))


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
