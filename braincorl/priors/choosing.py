"""How many components, how much shrinkage: chosen on people who are left out.

Each stage of the learning path is scored by its predictions of left-out people's responses to left-out images (see
`left_out`), and the path is left once that no longer grows. With a single person nobody can be left out: the settings
are then fixed ones.

Letters: p features, c components, v voxels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from braincorl.priors.expectation import Mixture, Person
from braincorl.priors.learning import Choice, learning_path
from braincorl.priors.left_out import Examinee, examine

_ITERATIONS = 8
# Groups of people to leave out in turn; more would cost time and change little.
_FOLDS = 3
_SHRINKAGES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
_MOST_COMPONENTS = 16
# How often every person is left out, each time with other images; more would cost time and change little.
_TURNS = 2
_MOST_REGION_COMPONENTS = 24
# Of more regions than that, each is a mixture of a few kinds.
_MANY_REGIONS_COMPONENTS = 8
# Settings are compared in this many leading directions of the features: what is chosen there holds for all.
_MOST_FEATURES = 256
# With a single person, whose voxels are more alike than those of two people.
_ALONE = (30.0, 4)


@dataclass(frozen=True)
class Chosen:
    """What the left-out people say.

    Attributes
    ----------
    choice
        Settings.
    widening
        Factor by which predictive intervals must be widened, at least 1.
    scores
        Mean score of every setting that was tried.
    """

    choice: Choice
    widening: float
    scores: dict[str, float]


def choose(
    divisions: Sequence[Sequence[Examinee]],
    pool_covariance: npt.NDArray[np.float64],
    rank: int,
    n_regions: int,
    shrinkage: float | None = None,
    n_components: int | None = None,
) -> Chosen:
    """Choose what is not given, by how well people who are left out are predicted.

    Parameters
    ----------
    divisions
        Training people in each division of the images into those that teach and those that are left out.
    pool_covariance, rank, n_regions
        As in `learn`.
    shrinkage, n_components
        Settings that are given; None to choose.

    Returns
    -------
    Chosen
    """
    first_count = n_regions if n_regions <= _MOST_REGION_COMPONENTS else _MANY_REGIONS_COMPONENTS
    given = shrinkage is not None and n_components is not None
    if len(divisions[0]) == 1 or (given and not divisions[0][0].trials):
        alone = _ALONE[1] if first_count == 1 else first_count
        return Chosen(Choice(shrinkage or _ALONE[0], n_components or alone), 1.0, {})
    scores: dict[str, float] = {}
    examination = _Examination(divisions, pool_covariance, rank, n_regions)

    def value_of(candidate: Choice) -> float:
        value = examination.score(candidate)
        scores[f"shrinkage {candidate.shrinkage:g}, components {candidate.n_components}"] = value
        return value

    count = n_components or first_count
    strengths = _SHRINKAGES if shrinkage is None else (shrinkage,)
    best, value = _climb([Choice(strength, count) for strength in strengths], value_of)
    while n_components is None and 2 * best.n_components <= max(_MOST_COMPONENTS, first_count):
        candidate = replace(best, n_components=2 * best.n_components)
        grown = value_of(candidate)
        if grown <= value:
            break
        best, value = candidate, grown
    return Chosen(best, examination.widening(best), scores)


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
    values, vectors = np.linalg.eigh(pool_covariance)
    return np.diag(values[-_MOST_FEATURES:]), vectors[:, -_MOST_FEATURES:]


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
class _Examination:
    """People split into teachers and left-out ones, how far each learning path has come, and what it had to say."""

    divisions: Sequence[Sequence[Examinee]]
    pool_covariance: npt.NDArray[np.float64]
    rank: int
    n_regions: int
    paths: dict[tuple[int, float], Iterator[Mixture]] = field(default_factory=dict)
    ratios: dict[Choice, float] = field(default_factory=dict)

    def score(self, candidate: Choice) -> float:
        """Mean score of people who are left out, on the images that the others did not teach with.

        Scores of growing numbers of components continue one path; they are asked for in that order.
        """
        n_people, n_divisions = len(self.divisions[0]), len(self.divisions)
        groups = np.array_split(np.arange(n_people), min(n_people, _FOLDS))
        results: list[tuple[float, float]] = []
        n_turns = _TURNS * max(len(groups), n_divisions) if n_divisions > 1 else len(groups)
        for turn in range(n_turns):
            out = groups[turn % len(groups)]
            division = self.divisions[(turn + turn // len(groups)) % n_divisions]
            rest = [examinee.person for i, examinee in enumerate(division) if i not in out]
            mixture = self._learn((turn, candidate.shrinkage), rest, candidate)
            results += [examine(mixture, division[i]) for i in out]
        value, self.ratios[candidate] = (float(mean) for mean in np.mean(results, axis=0))
        return value

    def widening(self, choice: Choice) -> float:
        """Mean ratio of the widths of intervals that a choice needs to those that it gives, at least 1."""
        return max(self.ratios[choice], 1.0)

    def _learn(self, key: tuple[int, float], people: Sequence[Person], candidate: Choice) -> Mixture:
        if key not in self.paths:
            self.paths[key] = learning_path(
                people, self.pool_covariance, candidate, self.rank, self.n_regions, _ITERATIONS
            )
        return next(m for m in self.paths[key] if m.components.n_components > candidate.n_components)
