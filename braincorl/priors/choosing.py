"""How many components, how much shrinkage: chosen on people who are left out.

Each stage of the learning path is scored by the evidence of a left-out person's responses to left-out images, and the
path is left once that no longer grows. Both have to be left out: people share what no feature explains about an image,
and a prior that was bent to it would look good on other people with the same images and fail on new ones. With a single
person nobody can be left out: the settings are then fixed ones.

Letters: p features, c components, v voxels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.priors.expectation import Mixture, Person, evidence_stack, level_probability
from braincorl.priors.learning import Choice, learning_path
from braincorl.priors.posterior import make_frames, mixture_evidence

_ITERATIONS = 8
# Groups of people to leave out in turn; more would cost time and change little.
_FOLDS = 3
_SHRINKAGES = (300.0, 100.0, 30.0, 10.0, 3.0)
_MOST_COMPONENTS = 16
_MOST_REGION_COMPONENTS = 24
# Of more regions than that, each is a mixture of a few kinds.
_MANY_REGIONS_COMPONENTS = 8
# Settings are compared in this many leading directions of the features: what is chosen there holds for all.
_MOST_FEATURES = 256
# With a single person, whose voxels are more alike than those of two people.
_ALONE = (30.0, 4)


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
    left_out = _LeftOut(halves, pool_covariance, rank, n_regions)

    def score(candidate: Choice) -> float:
        value = left_out.score(candidate)
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


def leading_basis(
    pool_covariance: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Give the leading principal directions of the pool, in which settings are compared.

    Parameters
    ----------
    pool_covariance
        S (p, p).

    Returns
    -------
    covariance : ndarray of shape (m, m)
        S in that basis, m = min(p, 256).
    basis : ndarray of shape (p, m), or None
        Orthonormal columns; None if no direction is left out.
    """
    p = pool_covariance.shape[0]
    if p <= _MOST_FEATURES:
        return pool_covariance, None
    values, vectors = scipy.linalg.eigh(pool_covariance, subset_by_index=(p - _MOST_FEATURES, p - 1))
    return np.diag(values), vectors


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


@dataclass
class _LeftOut:
    """People split into teachers and left-out ones, and how far each learning path has come."""

    halves: Sequence[Sequence[Person]]
    pool_covariance: npt.NDArray[np.float64]
    rank: int
    n_regions: int
    paths: dict[tuple[int, int, float], Iterator[Mixture]] = field(default_factory=dict)

    def score(self, candidate: Choice) -> float:
        """Mean evidence of people who are left out, on the images that the others did not teach with.

        Scores of growing numbers of components continue one path; they are asked for in that order.
        """
        n_people = len(self.halves[0])
        values: list[float] = []
        for half, (teaching, scoring) in enumerate(zip(self.halves, reversed(self.halves), strict=True)):
            for fold, out in enumerate(np.array_split(np.arange(n_people), min(n_people, _FOLDS))):
                key = (half, fold, candidate.shrinkage)
                if key not in self.paths:
                    rest = [person for i, person in enumerate(teaching) if i not in out]
                    self.paths[key] = learning_path(
                        rest, self.pool_covariance, candidate, self.rank, self.n_regions, _ITERATIONS
                    )
                path = self.paths[key]
                mixture = next(m for m in path if m.components.n_components > candidate.n_components)
                values += [held_out_evidence(mixture, scoring[i]) for i in out]
        return float(np.mean(values))


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
