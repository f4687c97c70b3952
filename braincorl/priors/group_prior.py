"""`GroupPrior`: what earlier people teach about the weights of a new person's voxels, and its file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.errors import FileFormatError, InputError
from braincorl.priors.arguments import check_features, find_prior, nonempty, positive_integer, positive_number
from braincorl.priors.choosing import Chosen, choose, leading_basis
from braincorl.priors.components import LEVELS, Components, unit_signal
from braincorl.priors.context import Context
from braincorl.priors.images import NO_IMAGES
from braincorl.priors.learning import learn
from braincorl.priors.people import covariance_of, examinees, pool_moments, read_person, seen_images, training_person
from braincorl.priors.regions import Rois, index_labels, index_regions
from braincorl.tensorfile import read_tensors, write_tensors
from braincorl.validation import check_finite, check_pool

KIND = "braincorl-prior/1"

# Columns of the covariance factors when the feature space has more dimensions: fMRI weights of a few people do not
# determine more.
_MOST_RANK = 64


@dataclass(frozen=True)
class GroupPrior:
    """A distribution over the weights of a new person's voxels, learned from other people.

    Made by `GroupPrior.fit`; used by `GroupPriorEncoder`. See `braincorl.priors.components` for the distribution and
    `braincorl.priors.mixture_em` for how it is learned.

    Attributes
    ----------
    components
        The mixture over weights of unit signal.
    region_weight
        Weight of each component in each region (n_regions + 1, n_components); the last row is for unknown regions.
    regions
        Region labels, in order of the rows.
    feature_mean
        Mean feature vector of the pool (n_features,).
    pool_covariance
        Covariance of the pool's features (n_features, n_features).
    widening
        Factor of predictive standard deviations that made intervals hold what they promise on left-out people.
    image_digests
        Fingerprints of the images that it was learned from, as far as they are known.
    summary
        What it rests on: people, voxels, effective voxels, settings and how they were chosen.
    provenance
        Where the features and people come from, as given.
    """

    components: Components
    region_weight: npt.NDArray[np.float64]
    regions: tuple[str, ...]
    feature_mean: npt.NDArray[np.float64]
    pool_covariance: npt.NDArray[np.float64]
    widening: float = 1.0
    image_digests: npt.NDArray[np.int64] = field(default_factory=NO_IMAGES.copy)
    summary: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        people: Sequence[Any],
        rois: Sequence[Rois | None] | None = None,
        *,
        X_pool: npt.ArrayLike | None = None,
        n_components: int | str = "auto",
        shrinkage: float | str = "auto",
        rank: int | str = "auto",
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """Learn a prior from people.

        The result is deterministic and does not depend on the order of voxels (to rounding).

        Parameters
        ----------
        people
            For each person (features (n_images, n_features), responses (n_images, n_voxels)), or a fitted encoder; all
            in one feature space, each with their own images and voxels.
        rois
            For each person one text label per voxel, "" where unknown, or None for a person without labels.
        X_pool
            Features of any images (n_pool, n_features) over which a voxel's signal has unit variance; by default the
            people's own images. Needed for encoders that hold weights alone.
        n_components
            Kinds of voxel, beside the broad one; "auto" is chosen on left-out people, starting from one per region.
        shrinkage
            Effective voxels that the target of each covariance counts for; "auto" is chosen on left-out people.
        rank
            Rank of each covariance beside its isotropic part; "auto" is at most 64.
        provenance
            JSON-serialisable notes, to be stored: backbone, weights, preprocessing, people.

        Returns
        -------
        GroupPrior

        Raises
        ------
        InputError
            If there are no people, shapes do not match, values are not finite, or a setting is impossible.
        """
        pool = None if X_pool is None else np.asarray(X_pool, dtype=np.float64)
        contexts = [read_person(person, i, pool) for i, person in enumerate(nonempty(people))]
        n_features = contexts[0].n_features
        check_features([context.n_features for context in contexts], pool)
        regions, indices = index_regions(rois, [context.n_voxels for context in contexts])
        feature_mean, covariance = pool_moments(contexts, pool)
        if not float(np.trace(covariance)) > 0:
            raise InputError("the features do not vary over images: nothing can be learned from them.")
        trained = [training_person(context, index) for context, index in zip(contexts, indices, strict=True)]
        persons = [person for person, _ in trained]
        chosen_rank = positive_integer(rank, "rank", min(n_features, _MOST_RANK), n_features)
        count = None if n_components == "auto" else positive_integer(n_components, "n_components", 1, 256)
        strength = None if shrinkage == "auto" else positive_number(shrinkage, "shrinkage")
        n_regions = max(len(regions), 1)
        small, basis = leading_basis(covariance)
        divisions = examinees(people, contexts, indices, basis)
        chosen = choose(divisions, small, min(chosen_rank, len(small)), n_regions, strength, count)
        mixture = learn(persons, covariance, chosen.choice, chosen_rank, n_regions)
        return cls(
            components=mixture.components,
            region_weight=mixture.region_weight,
            regions=regions,
            feature_mean=feature_mean,
            pool_covariance=covariance,
            widening=chosen.widening,
            image_digests=seen_images(people),
            summary=_summary(contexts, [n_effective for _, n_effective in trained], chosen),
            provenance=dict(provenance or {}),
        )

    @property
    def n_features(self) -> int:
        """Number of features of the prior's feature space."""
        return self.components.n_features

    def __str__(self) -> str:
        s = self.summary
        people = f"{s.get('n_people', '?')} people, {sum(s.get('n_voxels', [])):,} voxels"
        effective = f"(worth {sum(s.get('n_effective_voxels', [])):,.0f} independent ones)"
        return f"group prior over {self.n_features} features from {people} {effective}"

    def log_weight(self, rois: Rois | None, n_voxels: int) -> npt.NDArray[np.float64]:
        """Log weight of each component for each voxel.

        Parameters
        ----------
        rois
            One text label per voxel (n_voxels,); labels that the prior does not know count as unknown. None if no
            region is known.
        n_voxels
            Number of voxels.

        Returns
        -------
        ndarray of shape (n_components, n_voxels), or (n_components, 1) if `rois` is None

        Raises
        ------
        InputError
            If `rois` has another length, or the prior was learned without regions.
        """
        if rois is None:
            return np.log(self.region_weight[-1:]).T
        if not self.regions:
            raise InputError(
                "rois were given, but the prior was learned without regions: leave them out, or relearn it."
            )
        return np.log(self.region_weight[index_labels(rois, self.regions, n_voxels, "rois")]).T

    def for_pool(self, X_pool: npt.ArrayLike | None) -> Components:
        """Give the components, of unit signal over another pool of images.

        Parameters
        ----------
        X_pool
            Features (n_pool, n_features), or None for the pool of the prior.

        Returns
        -------
        Components
        """
        if X_pool is None:
            return self.components
        pool = np.asarray(X_pool)
        check_pool(pool, self.n_features)
        check_finite(pool, "X_pool")
        if pool.shape[0] < 2:
            raise InputError(f"X_pool has {pool.shape[0]} images: at least 2 are needed to vary.")
        return unit_signal(self.components, covariance_of(pool))

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
            If it is damaged, altered, or no prior.
        """
        arrays, header = read_tensors(find_prior(path), KIND)
        return cls.from_arrays(arrays, header)

    def to_arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Give the arrays (float32, fingerprints int64) and the JSON header that a file holds."""
        arrays = {f"components.{f.name}": getattr(self.components, f.name) for f in fields(Components)}
        arrays |= {name: getattr(self, name) for name in ("region_weight", "feature_mean", "pool_covariance")}
        header = {
            "regions": list(self.regions),
            "levels": LEVELS.tolist(),
            "widening": self.widening,
            "summary": dict(self.summary),
            "provenance": dict(self.provenance),
        }
        stored: dict[str, npt.NDArray[Any]] = {name: array.astype(np.float32) for name, array in arrays.items()}
        if self.image_digests.size:
            stored["image_digests"] = self.image_digests
        return stored, header

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> Self:
        """Undo `to_arrays`.

        Raises
        ------
        FileFormatError
            If an array is missing or the levels of r are not those of this version.
        """
        if not np.array_equal(header.get("levels", []), LEVELS):
            raise FileFormatError("The prior was written by another version of braincorl: learn it again.")
        try:
            double = {name: array.astype(np.float64) for name, array in arrays.items()}
            components = Components(**{f.name: double[f"components.{f.name}"] for f in fields(Components)})
            rest = {name: double[name] for name in ("region_weight", "feature_mean", "pool_covariance")}
        except KeyError as error:
            raise FileFormatError(f"The prior file holds no {error}: it is incomplete.") from error
        widening, regions = float(header.get("widening", 1.0)), tuple(header["regions"])
        digests = arrays.get("image_digests", NO_IMAGES)
        return cls(components, regions=regions, widening=widening, image_digests=digests, **rest,
                   summary=header["summary"], provenance=header["provenance"])  # fmt: skip


def load_prior(prior: GroupPrior | str | Path) -> GroupPrior:
    """Give a prior as it is, or read it from a file or by a shipped name."""
    return prior if isinstance(prior, GroupPrior) else GroupPrior.load(prior)


def _summary(contexts: Sequence[Context], n_effective: Sequence[float], chosen: Chosen) -> dict[str, Any]:
    return {
        "n_people": len(contexts),
        "n_images": [context.n_images for context in contexts],
        "n_voxels": [int((context.scale > 0).sum()) for context in contexts],
        "n_effective_voxels": [round(n, 1) for n in n_effective],
        "taken_at_their_word": [context.noise_free for context in contexts],
        "n_components": chosen.choice.n_components,
        "shrinkage": chosen.choice.shrinkage,
        "held_out_score": chosen.scores,
    }
