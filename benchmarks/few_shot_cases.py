"""Contexts and test images of people for whom others are remembered: the splits that all few-shot tables share.

Three data sets of real voxels (outside the repository: BRAINCORL_SHARED), each person left out in turn:

- `object2vec-alexnet20`, `object2vec-word2vec30`: real responses, tested on 41 categories that nobody has seen.
- `actions`: real responses of six people on a common grid, session 1 to learn from, session 2 to test on.
- `bold5000`: real voxel weights, **simulated** noise, half of it shared by neighbours; tested on the noise-free truth.

Which images a draw picks depends on its number alone, so that runs of different versions see the same splits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from real_people import PublishedWeights, draw_noise, load_actions, load_bold5000, load_object2vec, parcels

Array = npt.NDArray[Any]
DATA_SETS = ("object2vec-alexnet20", "object2vec-word2vec30", "actions", "bold5000")
# Context lengths that enter means over lengths.
LENGTHS = {
    "object2vec-alexnet20": (10, 20, 40),
    "object2vec-word2vec30": (10, 20, 40),
    "actions": (10, 20, 40),
    "bold5000": (10, 20, 50, 100, 200),
}


@dataclass(frozen=True)
class Others:
    """Earlier people: what `GroupPrior.fit` takes, with names of their voxels' regions or parcels, and their places."""

    key: tuple[Any, ...]
    people: list[Any]
    rois: list[Array]
    positions: list[Array] | None
    pool: Array | None


@dataclass(frozen=True)
class Case:
    """A context and a test of one person: X (n, p), y (n, v), the pool of features, what is to be predicted."""

    data: str
    person: int
    n: int
    draw: int
    others: Others
    X: Array
    y: Array
    pool: Array
    X_test: Array
    y_test: Array
    keep: Array
    rois: Array
    positions: Array | None

    @property
    def key(self) -> tuple[str, int, int, int]:
        """Name of the case."""
        return self.data, self.person, self.n, self.draw


def cases(data: str, draws: Sequence[int]) -> Iterator[Case]:
    """Give all contexts of a data set, those of one memory in sequence."""
    if data.startswith("object2vec"):
        yield from _object2vec(data, draws)
    elif data == "actions":
        yield from _actions(draws)
    else:
        yield from _bold5000(draws)


def _object2vec(data: str, draws: Sequence[int]) -> Iterator[Case]:
    X, responses, rois = load_object2vec(data.split("-")[1])
    for draw in draws:
        order = np.random.default_rng([draw, 7]).permutation(81)
        test, train = order[:41], order[41:]
        for new in range(4):
            rest = [i for i in range(4) if i != new]
            people = [(X[train], responses[i][train]) for i in rest]
            others = Others((data, new, draw), people, [rois[i] for i in rest], None, None)
            keep = np.ones(responses[new].shape[1], dtype=bool)
            for n in LENGTHS[data]:
                context = train[:n]
                yield Case(
                    data, new, n, draw, others, X[context], responses[new][context], X, X[test], responses[new][test],
                    keep, rois[new], None,
                )  # fmt: skip


def _actions(draws: Sequence[int]) -> Iterator[Case]:
    people, coordinates = load_actions()
    labels = parcels(coordinates, 60)
    for new, person in enumerate(people):
        pairs = [(person.features[1], p.responses[1]) for i, p in enumerate(people) if i != new]
        others = Others(("actions", new), pairs, [labels] * 5, [coordinates] * 5, None)
        pool, X, y = np.vstack([*person.features.values()]), person.features[1], person.responses[1]
        keep = (np.ptp(y, axis=0) > 0) & (np.ptp(person.responses[2], axis=0) > 0)
        for n in LENGTHS["actions"]:
            for draw in draws:
                chosen = np.random.default_rng([new, n, draw]).permutation(60)[:n]
                yield Case(
                    "actions", new, n, draw, others, X[chosen], y[chosen], pool, person.features[2],
                    person.responses[2], keep, labels, coordinates,
                )  # fmt: skip


def _bold5000(draws: Sequence[int]) -> Iterator[Case]:
    X, people = load_bold5000()
    for source, target in ((0, 1), (1, 0)):
        new, teacher = people[target], people[source]
        others = Others(("bold5000", target), [PublishedWeights(teacher.coef)], [teacher.rois], None, X)
        truth = X @ new.coef.T
        truth = (truth - truth.mean(axis=0)) / truth.std(axis=0)
        keep = np.ones(truth.shape[1], dtype=bool)
        for draw in draws:
            rng = np.random.default_rng([source, draw])
            order = rng.permutation(len(X))
            ceiling = rng.uniform(0.05, 0.7, truth.shape[1])
            noise = draw_noise(rng, 200, new.positions, True)
            test = order[600:]
            for n in LENGTHS["bold5000"]:
                rows = order[:n]
                y = np.sqrt(ceiling) * truth[rows] + np.sqrt(1 - ceiling) * noise[:n]
                yield Case(
                    "bold5000", target, n, draw, others, X[rows], y, X, X[test], np.sqrt(ceiling) * truth[test],
                    keep, new.rois, None,
                )  # fmt: skip
