"""`GroupPrior`: earlier people's voxels, remembered, and the file that holds them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.batching import working_memory
from braincorl.cells import facts_html
from braincorl.closed_forms.items import Items, Nearby
from braincorl.errors import FileFormatError, InputError
from braincorl.priors.arguments import check_features, find_prior, nonempty, positive_integer
from braincorl.priors.gathering import Voxels, gather
from braincorl.priors.image_digests import NO_IMAGES
from braincorl.priors.places import WIDTH, check_places, neighbours, spacing
from braincorl.priors.regions import Rois, check_labels, index_labels, name_regions
from braincorl.priors.remembered import (
    PoolMoments,
    PoolOfPeople,
    SeenImages,
    check_person,
    count_features,
    count_voxels,
    pool_moments,
    remember_person,
    signal_variance,
)
from braincorl.storage.files import reading
from braincorl.storage.tensorfile import read_metadata, read_tensors, write_tensors
from braincorl.validation import check_finite, check_pool

KIND = "braincorl-prior/2"
# More items cost time in proportion. Where places are known more cost none, since a voxel attends to those around it.
MAX_ITEMS = 4096
MAX_ITEMS_WITH_PLACES = 65_536

_ARRAYS = ("weights", "mass", "region", "moment", "feature_mean", "pool_covariance")


@dataclass(frozen=True)
class GroupPrior:
    """A memory of earlier people's voxels, to which a new person's voxels attend.

    Made by `GroupPrior.fit`; read by `GroupPriorEncoder` and `InContextEncoder`. Nothing is learned but one closed-form
    fit per person (`braincorl.priors.remembered`); `braincorl.models.attention` says how it is read.

    Attributes
    ----------
    weights
        Of the remembered voxels, their signal of unit variance over the pool (n_items, n_features).
    mass
        Share of all remembered voxels that each item stands for, reliable ones counting for more (n_items,).
    region
        Index of each item's region, -1 where unknown (n_items,).
    regions
        Region labels.
    positions
        Place of each item in the common space (n_items, 3), or number of its grayordinate (n_items, 1); None if
        unknown.
    spacing
        Distance between neighbouring voxels of one person, in the units of the positions.
    moment
        Second moment of all remembered weights, before any were merged; unit signal (n_features, n_features).
    feature_mean
        Mean feature vector of the pool (n_features,).
    pool_covariance
        Covariance of the pool's features (n_features, n_features).
    image_digests
        Fingerprints of the images that the people saw, as far as they are known.
    summary
        What it rests on: people, voxels, items.
    provenance
        Where the features and people come from, as given.
    """

    weights: npt.NDArray[np.float32]
    mass: npt.NDArray[np.float64]
    region: npt.NDArray[np.intp]
    regions: tuple[str, ...]
    moment: npt.NDArray[np.float64]
    feature_mean: npt.NDArray[np.float64]
    pool_covariance: npt.NDArray[np.float64]
    positions: npt.NDArray[np.float64] | None = None
    spacing: float = 1.0
    image_digests: npt.NDArray[np.int64] = field(default_factory=NO_IMAGES.copy)
    summary: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        people: Sequence[Any],
        rois: Sequence[Rois | None] | None = None,
        positions: Sequence[npt.ArrayLike] | None = None,
        *,
        X_pool: npt.ArrayLike | None = None,
        max_items: int | str = "auto",
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """Remember people.

        The result does not depend on the order of voxels (to rounding). People are gone through one after the other, a
        few times: sequences that read them from disk when they are asked for need room for one person
        (`braincorl.fits.earlier.one_by_one`).

        Parameters
        ----------
        people
            For each person (features (n_images, n_features), responses (n_images, n_voxels)), or a fitted encoder; all
            in one feature space, each with their own images and voxels.
        rois
            For each person one text label per voxel, "" where unknown, or None for a person without labels.
        positions
            For each person the places of the voxels in one common space (n_voxels, 3), any unit, or the numbers of
            their grayordinates (n_voxels,).
        X_pool
            Features of any images (n_pool, n_features) over which a voxel's signal has unit variance; by default the
            people's own images. Needed for encoders that hold weights alone.
        max_items
            Voxels that are alike are merged until about so many are left; "auto" is 4,096, and 65,536 with positions.
        provenance
            JSON-serialisable notes, to be stored: backbone, weights, preprocessing, people.

        Returns
        -------
        GroupPrior

        Raises
        ------
        InputError
            If there are no people, shapes do not match, values are not finite, or no voxel has any signal.
        """
        known = _survey(nonempty(people), rois, positions, X_pool)
        automatic = MAX_ITEMS if positions is None else MAX_ITEMS_WITH_PLACES
        limit = positive_integer(max_items, "max_items", automatic, 10**7)
        if not float(np.trace(known.moments.covariance)) > 0:
            raise InputError("the features do not vary over images: nothing can be learned from them.")
        found = gather(
            _Remembering(people, rois, positions, known), sum(known.counts), known.moments, limit, known.spacing
        )
        return cls(
            weights=found.weights,
            mass=found.mass,
            region=found.region,
            regions=known.regions,
            moment=found.moment,
            feature_mean=known.moments.mean,
            pool_covariance=known.moments.covariance,
            positions=found.places,
            spacing=known.spacing,
            image_digests=known.image_digests,
            summary={"n_people": len(people), "n_voxels": found.n_voxels, "reliability": found.reliability},
            provenance=dict(provenance or {}),
        )

    @property
    def n_features(self) -> int:
        """Number of features of the prior's feature space."""
        return int(self.weights.shape[1])

    @property
    def scale(self) -> float:
        """Variance at which isotropic weights give unit signal over the pool."""
        return 1.0 / float(np.trace(self.pool_covariance))

    def __str__(self) -> str:
        s = self.summary
        people = f"{s.get('n_people', '?')} people, {sum(s.get('n_voxels', [])):,} voxels"
        return f"memory of {people} in {len(self.mass):,} items over {self.n_features} features"

    def _repr_html_(self) -> str:
        """Show a notebook what it remembers."""
        s = self.summary
        facts = {
            "people": s.get("n_people", "unknown"),
            "voxels": f"{sum(s.get('n_voxels', [])):,}, remembered as {len(self.mass):,} items",
            "features": f"{self.n_features} of {self.provenance.get('backbone', 'an unknown network')}",
            "regions": ", ".join(self.regions) or "none",
            "places": "none" if self.positions is None else "known",
        }
        return facts_html("Memory of earlier people's voxels", facts)

    def items(self, X_pool: npt.ArrayLike | None = None) -> Items:
        """Give the remembered voxels as attention reads them.

        Parameters
        ----------
        X_pool
            Features of a pool (n_pool, n_features) over which signals are to have unit variance, or None for the
            prior's own.

        Returns
        -------
        Items
        """
        covariance = self.covariance_of(X_pool)
        weights = self.weights.astype(np.float64)
        weights /= np.sqrt(np.maximum(signal_variance(weights, covariance), 1e-300))[:, None]
        moment = self.moment / float(np.einsum("pq,qp->", self.moment, covariance))
        return Items(weights, np.log(self.mass), moment, self.region, len(self.regions))

    def covariance_of(self, X_pool: npt.ArrayLike | None) -> npt.NDArray[np.float64]:
        """Covariance of the features of a pool (n_pool, n_features), or of the prior's own for None."""
        if X_pool is None:
            return self.pool_covariance
        pool = np.asarray(X_pool)
        check_pool(pool, self.n_features)
        check_finite(pool, "X_pool")
        if pool.shape[0] < 2:
            raise InputError(f"X_pool has {pool.shape[0]} images: at least 2 are needed to vary.")
        return pool_moments(pool).covariance

    def region_index(self, rois: Rois | None, n_voxels: int) -> npt.NDArray[np.intp]:
        """Index of each voxel's region (n_voxels,), -1 where it is unknown to the caller or to the prior.

        Raises
        ------
        InputError
            If `rois` has another length, or the prior was learned without regions.
        """
        if rois is None:
            return np.full(n_voxels, -1, dtype=np.intp)
        if not self.regions:
            raise InputError(
                "rois were given, but the prior was learned without regions: leave them out, or relearn it."
            )
        return index_labels(rois, self.regions, n_voxels, "rois")

    def nearby(self, positions: npt.ArrayLike | None, n_voxels: int) -> Nearby | None:
        """Find the items around each voxel.

        Parameters
        ----------
        positions
            Places in the prior's common space (n_voxels, 3), or numbers of grayordinates (n_voxels,); None if unknown.
        n_voxels
            Number of voxels.

        Returns
        -------
        Nearby, or None where the prior or the caller knows no places

        Raises
        ------
        InputError
            If shapes do not match, or the places are of another kind than the prior's.
        """
        if positions is None or self.positions is None:
            return None
        index, weight = neighbours(self.positions, check_places(positions, n_voxels, "positions"), WIDTH * self.spacing)
        return Nearby(index, (weight,))

    def save(self, path: str | Path) -> None:
        """Write the prior to a safetensors file, whole or not at all.

        Parameters
        ----------
        path
            Destination, by convention ending in `.safetensors`.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        arrays, header = self.to_arrays()
        write_tensors(path, KIND, arrays, header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a prior that `save` wrote, or one that comes with braincorl, by its name.

        Parameters
        ----------
        path
            The file, or a shipped name such as `bold5000-resnet18`.

        Returns
        -------
        GroupPrior

        Raises
        ------
        InputError
            If there is no such file or name.
        FileFormatError
            If it is damaged, altered, no prior, or one of an earlier version.
        """
        found = find_prior(path)
        if read_metadata(found).get("format") == "braincorl-prior/1":
            raise FileFormatError(
                f"{found} is a prior of version 0.1, which remembers no voxels: make it again with braincorl prior."
            )
        arrays, header = read_tensors(found, KIND)
        # Whole, with its checksum, it may still be of somebody else's making.
        with reading(found, "is no prior of this version"):
            return cls.from_arrays(arrays, header)

    def to_arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Give the arrays and the JSON header that a file holds."""
        arrays = {name: np.asarray(getattr(self, name)) for name in _ARRAYS}
        smaller: dict[Any, Any] = {np.dtype(np.float64): np.float32, np.dtype(np.intp): np.int64}
        stored: dict[str, npt.NDArray[Any]] = {}
        for name, array in arrays.items():
            stored[name] = array.astype(smaller.get(array.dtype, array.dtype))
        if self.positions is not None:
            stored["positions"] = self.positions
        if self.image_digests.size:
            stored["image_digests"] = self.image_digests
        header = {
            "regions": list(self.regions),
            "spacing": self.spacing,
            "summary": dict(self.summary),
            "provenance": dict(self.provenance),
        }
        return stored, header

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Undo `to_arrays`.

        Raises
        ------
        FileFormatError
            If an array is missing, arrays do not fit one another, or their numbers are impossible.
        """
        missing = [name for name in _ARRAYS if name not in arrays]
        if missing:
            raise FileFormatError(f"The prior file holds no '{missing[0]}': it is incomplete.")
        weights, places = arrays["weights"], arrays.get("positions")
        n_items, n_features = weights.shape if weights.ndim == 2 else (-1, -1)
        shapes: dict[str, tuple[int, ...]] = {"mass": (n_items,), "region": (n_items,), "feature_mean": (n_features,)}
        shapes |= {name: (n_features, n_features) for name in ("moment", "pool_covariance")}
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise FileFormatError(f"The prior's '{name}' has shape {arrays[name].shape}, expected {shape}.")
        if (places is not None and len(places) != n_items) or arrays["region"].max() >= len(header["regions"]):
            raise FileFormatError("The prior's places or regions do not fit its items: it is damaged.")
        _check_numbers(arrays, header)
        double = {
            name: arrays[name].astype(np.float64) for name in ("mass", "moment", "feature_mean", "pool_covariance")
        }
        return cls(
            weights=weights.astype(np.float32),
            region=arrays["region"].astype(np.intp),
            regions=tuple(header["regions"]),
            positions=None if places is None else places.astype(np.float64),
            spacing=float(header["spacing"]),
            image_digests=arrays.get("image_digests", NO_IMAGES),
            summary=header["summary"],
            provenance=header["provenance"],
            **double,
        )


def _check_numbers(arrays: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Refuse numbers that no memory holds: files may be written by anybody's script."""
    numbers: dict[str, npt.NDArray[Any]] = {name: arrays[name] for name in _ARRAYS}
    numbers |= {"spacing": np.asarray(header["spacing"])}
    numbers |= {"positions": arrays["positions"]} if "positions" in arrays else {}
    for name, values in numbers.items():
        if values.dtype.kind not in ("i" if name == "region" else "fi") or not np.isfinite(values).all():
            raise FileFormatError(f"The prior's '{name}' are not all finite numbers: it is damaged.")
    for name in ("moment", "pool_covariance"):
        matrix = arrays[name]
        if not (np.allclose(matrix, matrix.T) and (np.diag(matrix) >= 0).all() and np.trace(matrix) > 0):
            raise FileFormatError(f"The prior's '{name}' is no covariance: it is damaged.")
    if not (arrays["mass"] > 0).all() or (arrays["region"] < -1).any() or not float(header["spacing"]) > 0:
        raise FileFormatError("The prior's items have no mass, region or distance: it is damaged.")
    for name in ("summary", "provenance"):
        if not isinstance(header[name], Mapping):
            raise FileFormatError(f"The prior's {name} is no table: it is damaged.")
    if not all(isinstance(n, int) for n in header["summary"].get("n_voxels", [])):
        raise FileFormatError("The prior's summary has numbers of voxels that are none: it is damaged.")


def load_prior(prior: GroupPrior | str | Path) -> GroupPrior:
    """Give a prior as it is, or read it from a file or by a shipped name."""
    return prior if isinstance(prior, GroupPrior) else GroupPrior.load(prior)


@dataclass(frozen=True)
class _Known:
    """What is known of all people before their voxels are gathered."""

    counts: list[int]
    regions: tuple[str, ...]
    moments: PoolMoments
    spacing: float
    image_digests: npt.NDArray[np.int64]


def _survey(
    people: Sequence[Any],
    rois: Sequence[Rois | None] | None,
    positions: Sequence[npt.ArrayLike] | None,
    X_pool: npt.ArrayLike | None,
) -> _Known:
    """Check all people, and collect what their voxels have in common; one person after the other."""
    for name, given in (("rois", rois), ("positions", positions)):
        if given is not None and len(given) != len(people):
            wanted = "pass one per person" + (", None if unknown." if name == "rois" else ".")
            raise InputError(f"{name} has {len(given)} entries for {len(people)} people: {wanted}")
    pool = None if X_pool is None else np.asarray(X_pool)
    moments, seen = PoolOfPeople(), SeenImages()
    features, counts, labels = list[int](), list[int](), set[str]()
    kinds, steps = set[int](), list[float]()
    for number, person in enumerate(people):
        check_person(person, number)
        features.append(count_features(person))
        counts.append(count_voxels(person))
        seen.add(person)
        if pool is None and features[-1] == features[0]:
            moments.add(person, number)
        if rois is not None and (own := rois[number]) is not None:
            labels |= set(check_labels(own, counts[-1], f"rois[{number}]").tolist())
        if positions is not None:
            places = check_places(positions[number], counts[-1], f"positions[{number}]")
            kinds.add(places.shape[1])
            steps.append(spacing(places))
    check_features(features, pool)
    if len(kinds) > 1:
        raise InputError("positions mix coordinates with numbers of grayordinates: all people must lie in one space.")
    return _Known(
        counts=counts,
        regions=name_regions(labels),
        moments=moments.result() if pool is None else pool_moments(pool),
        spacing=float(np.mean(steps)) if steps else 1.0,
        image_digests=seen.result(),
    )


class _Remembering:
    """Everybody's voxels, one person after the other, as often as they are asked for.

    Kept in between are those that take much time to make (responses are fitted), and all of them where they are small.
    """

    def __init__(
        self,
        people: Sequence[Any],
        rois: Sequence[Rois | None] | None,
        positions: Sequence[npt.ArrayLike] | None,
        known: _Known,
    ) -> None:
        self._people, self._rois, self._positions, self._known = people, rois, positions, known
        size = 8 * sum(known.counts) * len(known.moments.mean)
        self._all, self._kept = size <= working_memory() // 4, dict[int, Voxels]()

    def __call__(self) -> Iterator[Voxels]:
        for number in range(len(self._people)):
            if number in self._kept:
                yield self._kept[number]
                continue
            person = self._people[number]
            voxels = self._remember(person, number)
            if self._all or not hasattr(person, "coef_"):
                self._kept[number] = voxels
            del person
            yield voxels

    def _remember(self, person: Any, number: int) -> Voxels:
        known, n_voxels = self._known, self._known.counts[number]
        labels = None if self._rois is None else self._rois[number]
        region = np.full(n_voxels, -1, dtype=np.intp)
        if labels is not None:
            region = index_labels(labels, known.regions, n_voxels, f"rois[{number}]")
        places = None
        if self._positions is not None:
            places = check_places(self._positions[number], n_voxels, f"positions[{number}]")
        return Voxels(remember_person(person, known.moments), region, places)
