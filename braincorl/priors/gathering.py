"""Many people's voxels to the items of a memory, one person after the other.

People are gone through twice: to see how unlike their voxels are, and to sum up those that become one item. Of more
voxels than `MOST_COMPARED` a random sample is compared, and every other voxel joins the item of its region that is
nearest. Held are one person, the items, and the coordinates of the voxels that are compared (and a bit for each of the
others): memory is bounded, whatever the number of people.

Letters: v voxels of a person, p features, m voxels that are compared, d coordinates, j items.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.errors import InputError
from braincorl.priors.compression import DIRECTIONS, cluster
from braincorl.priors.places import WIDTH
from braincorl.priors.remembered import DoubleArray, PoolMoments, RememberedPerson, signal_variance
from braincorl.validation import FloatArray

# Voxels among which clusters are sought: fifty people of 20,000. More would name no item that these do not.
MOST_COMPARED = 2**20

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Voxels:
    """One person's voxels.

    Attributes
    ----------
    remembered
        Their weights and reliability.
    region
        Index of each one's region, -1 where unknown (v,).
    places
        Of each (v, 3) or (v, 1), or None.
    """

    remembered: RememberedPerson
    region: Numbers
    places: DoubleArray | None

    def with_signal(self) -> tuple[FloatArray, DoubleArray, Numbers, DoubleArray | None]:
        """Weights, reliability, region and places of the voxels that have any signal."""
        alive = np.flatnonzero(self.remembered.reliability > 0)
        places = None if self.places is None else self.places[alive]
        return self.remembered.weights[alive], self.remembered.reliability[alive], self.region[alive], places


@dataclass(frozen=True)
class Gathered:
    """Items of a memory, named as in `GroupPrior`, and what is known of each person.

    Attributes
    ----------
    weights, mass, region, places, moment
        As in `GroupPrior`.
    n_voxels
        Of every person, those with signal.
    reliability
        Mean over every person's voxels.
    """

    weights: npt.NDArray[np.float32]
    mass: DoubleArray
    region: Numbers
    places: DoubleArray | None
    moment: DoubleArray
    n_voxels: list[int]
    reliability: list[float]


def gather(
    people: Callable[[], Iterable[Voxels]], n_voxels: int, pool: PoolMoments, limit: int, step: float
) -> Gathered:
    """Weigh all people's voxels by their reliability, and merge those that are alike.

    Parameters
    ----------
    people
        Gives everybody's voxels, each time that it is called.
    n_voxels
        Of all people together.
    pool
        Over which signals have unit variance.
    limit
        Voxels are merged until about so many items are left.
    step
        Distance between neighbouring voxels of one person, in the units of the places.

    Returns
    -------
    Gathered

    Raises
    ------
    InputError
        If no voxel has any signal.
    """
    seen = _Seen(_Coordinates(pool, step), n_voxels, limit)
    for voxels in people():
        seen.add(voxels)
    if not seen.total:
        raise InputError("no voxel of the people has any signal that the features explain: nothing to remember.")
    sums = _Merged(seen.items(), pool, seen.total) if sum(seen.counts) > limit else _Apart(pool, seen.total)
    for voxels in people():
        sums.add(*voxels.with_signal())
    moment = sums.moment / float(np.einsum("pq,qp->", sums.moment, pool.covariance))
    return Gathered(*sums.result(), moment, n_voxels=seen.counts, reliability=seen.reliability)


class _Coordinates:
    """Coordinates in which distance is how unlike voxels' signals are; with places, how far apart they lie too."""

    def __init__(self, pool: PoolMoments, step: float) -> None:
        values, vectors = np.linalg.eigh(pool.covariance)
        leading = np.argsort(-values)[:DIRECTIONS]
        self._directions = vectors[:, leading] * np.sqrt(np.maximum(values[leading], 0.0))
        self._width = WIDTH * step

    def of(self, weights: FloatArray, places: DoubleArray | None) -> npt.NDArray[np.float32]:
        """Give those of some voxels (v, d)."""
        signal = weights @ self._directions
        parts = [signal] if places is None else [signal, places / self._width]
        return np.hstack(parts).astype(np.float32)


class _Sample:
    """Which voxels are compared: a share, by what they are and not by their order; of each region at least one."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._regions: set[int] = set()

    def of(self, coordinates: npt.NDArray[np.float32], region: Numbers) -> npt.NDArray[np.bool_]:
        """Say which of a person's voxels (v,)."""
        if self._share >= 1:
            return np.ones(len(region), dtype=bool)
        chosen = _fraction(coordinates) < self._share
        for number in set(np.unique(region).tolist()) - self._regions:
            self._regions.add(number)
            members = np.flatnonzero(region == number)
            chosen[members[0]] |= not chosen[members].any()
        return chosen


def _fraction(coordinates: npt.NDArray[np.float32]) -> DoubleArray:
    """Give each row a number in [0, 1), as good as random, and the same wherever the row stands."""
    bits = np.ascontiguousarray(coordinates).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(0).integers(2**63, size=bits.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = (bits * odd).sum(axis=1, dtype=np.uint64)  # multiply-shift hashing: the upper bits are well mixed
    return np.asarray((mixed >> np.uint64(32)) / 2.0**32)


class _Seen:
    """What the first time through the people gives."""

    def __init__(self, coordinates: _Coordinates, n_voxels: int, limit: int) -> None:
        self._coordinates, self._limit, self._few = coordinates, limit, n_voxels <= limit
        self._sample = _Sample(max(MOST_COMPARED, limit) / n_voxels)
        self._parts: list[npt.NDArray[np.float32]] = []
        self._chosen: list[npt.NDArray[np.uint8]] = []
        self._regions: list[Numbers] = []
        self.counts: list[int] = []
        self.reliability: list[float] = []
        self.total = 0.0

    def add(self, voxels: Voxels) -> None:
        weights, reliability, region, places = voxels.with_signal()
        self.counts.append(len(reliability))
        self.reliability.append(round(float(voxels.remembered.reliability.mean()), 4))
        self.total += float(reliability.sum())
        if self._few:  # nothing will be merged
            return
        coordinates = self._coordinates.of(weights, places)
        chosen = self._sample.of(coordinates, region)
        self._parts.append(coordinates[chosen])
        self._chosen.append(np.packbits(chosen))
        self._regions.append(region[chosen])

    def items(self) -> "_Items":
        """Sort the compared voxels into items."""
        coordinates, region = np.concatenate(self._parts), np.concatenate(self._regions)
        item = cluster(coordinates, region, self._limit)
        return _Items(self._coordinates, self._chosen, coordinates, item, region)


class _Items:
    """Which item each voxel belongs to; asked about all people in the order in which they were seen."""

    def __init__(
        self,
        coordinates: _Coordinates,
        chosen: Sequence[npt.NDArray[np.uint8]],
        compared: npt.NDArray[np.float32],
        item: Numbers,
        region: Numbers,
    ) -> None:
        self._coordinates, self._chosen, self._compared, self._next = coordinates, iter(chosen), item, 0
        self.region = region[np.unique(item, return_index=True)[1]]
        centres = _sums(item, compared, len(self.region)) / np.bincount(item)[:, None]
        self._centres = centres.astype(np.float32)

    def of(self, weights: FloatArray, region: Numbers, places: DoubleArray | None) -> Numbers:
        """Give the items of a person's voxels (v,)."""
        chosen = np.unpackbits(next(self._chosen), count=len(region)).astype(bool)
        item, n = np.empty(len(region), dtype=np.intp), int(chosen.sum())
        item[chosen] = self._compared[self._next : self._next + n]
        self._next += n
        if n < len(region):
            coordinates = self._coordinates.of(weights, places)
            for number in np.unique(region[~chosen]):
                others = np.flatnonzero(~chosen & (region == number))
                there = np.flatnonzero(self.region == number)
                item[others] = there[_nearest(coordinates[others], self._centres[there])]
        return item


def _nearest(points: npt.NDArray[np.float32], centres: npt.NDArray[np.float32]) -> Numbers:
    nearest, length = np.empty(len(points), dtype=np.intp), (centres**2).sum(axis=1)
    for part in batches(len(points), 8 * len(centres)):
        nearest[part] = (length - 2 * points[part] @ centres.T).argmin(axis=1)
    return nearest


class _Apart:
    """Every voxel an item of its own."""

    def __init__(self, pool: PoolMoments, total: float) -> None:
        self._total, self._parts = total, list[tuple[FloatArray, DoubleArray, Numbers, DoubleArray | None]]()
        self.moment = np.zeros_like(pool.covariance)

    def add(self, weights: FloatArray, reliability: DoubleArray, region: Numbers, places: DoubleArray | None) -> None:
        mass = reliability / self._total
        self.moment += _moment(weights, mass)
        self._parts.append((weights, mass, region, places))

    def result(self) -> tuple[npt.NDArray[np.float32], DoubleArray, Numbers, DoubleArray | None]:
        weights, mass, region, places = zip(*self._parts, strict=True)
        joined = None if places[0] is None else np.concatenate(places)
        return np.concatenate(weights).astype(np.float32), np.concatenate(mass), np.concatenate(region), joined


class _Merged:
    """Sums over the voxels of each item, weighed by their mass."""

    def __init__(self, items: _Items, pool: PoolMoments, total: float) -> None:
        self._items, self._pool, self._total, n = items, pool, total, len(items.region)
        self._weights, self._mass = np.zeros((n, len(pool.mean))), np.zeros(n)
        self._places: DoubleArray | None = None
        self.moment = np.zeros_like(pool.covariance)

    def add(self, weights: FloatArray, reliability: DoubleArray, region: Numbers, places: DoubleArray | None) -> None:
        mass = reliability / self._total
        self.moment += _moment(weights, mass)
        item = self._items.of(weights, region, places)
        np.add.at(self._mass, item, mass)
        np.add.at(self._weights, item, weights * mass[:, None])
        if places is not None:
            if self._places is None:
                self._places = np.zeros((len(self._mass), places.shape[1]))
            np.add.at(self._places, item, places * mass[:, None])

    def result(self) -> tuple[npt.NDArray[np.float32], DoubleArray, Numbers, DoubleArray | None]:
        signal = signal_variance(self._weights, self._pool.covariance)
        self._weights /= np.sqrt(np.maximum(signal, 1e-300))[:, None]
        places = None if self._places is None else self._places / self._mass[:, None]
        return self._weights.astype(np.float32), self._mass, self._items.region, places


def _moment(weights: FloatArray, mass: DoubleArray) -> DoubleArray:
    return np.asarray((weights * mass[:, None].astype(weights.dtype)).T @ weights.astype(np.float64))


def _sums(item: Numbers, values: npt.NDArray[np.floating], n: int) -> DoubleArray:
    sums = np.zeros((n, values.shape[1]))
    np.add.at(sums, item, values)
    return sums
