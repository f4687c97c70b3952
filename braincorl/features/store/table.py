"""A table of features: one row per named image, and where the features come from.

The provenance travels with the features, so that features of another backbone, weights or preprocessing are refused
wherever they could enter.
"""

import logging
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.errors import InputError
from braincorl.names import check_names
from braincorl.validation import FloatArray, check_finite

logger = logging.getLogger(__name__)

SPACES = "spaces"  # key of a provenance of several named spaces, name -> provenance of each

# What makes two feature files one space. Other keys of a provenance (versions, counts) may differ.
SPACE_KEYS = (
    "backbone",
    "weights",
    "weights_sha256",
    "preprocessing",
    "layer",
    "pooling",
    "normalized",
    "n_features",
)

# Of the working memory, for rows of a mapped file: its pages count as well.
_ROWS_SHARE = 1 / 64

# Two feature spaces are one if the similarities of so many images agree to so much, the rounding of single precision.
COMPARED_IMAGES, SAME_SPACE = 200, 1e-5


@dataclass(frozen=True)
class FeatureTable:
    """Features of named images.

    Attributes
    ----------
    features
        (n_images, n_features), float32 or float64; a read-only memory map for a large file.
    image_ids
        One distinct name per image (n_images,).
    provenance
        Where the features come from; empty if unknown.

    Raises
    ------
    InputError
        If the shapes do not match, a name occurs twice or would break a table, or a value is not finite.
    """

    features: FloatArray
    image_ids: npt.NDArray[np.str_]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or 0 in self.features.shape:
            raise InputError(f"features has shape {self.features.shape}: expected (n_images, n_features), both ≥ 1.")
        if self.image_ids.shape != self.features.shape[:1]:
            raise InputError(
                f"image_ids has shape {self.image_ids.shape} but there are {self.features.shape[0]} rows of features: "
                "name every row once."
            )
        names, counts = np.unique(self.image_ids, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"image_ids names '{names[counts.argmax()]}' {counts.max()} times: names must differ.")
        check_names(self.image_ids.tolist(), "the name")
        _check_finite_in_blocks(self.features, "features")

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return int(self.features.shape[1])

    def rows(self, image_ids: Iterable[str]) -> npt.NDArray[np.intp]:
        """Row of each named image.

        Parameters
        ----------
        image_ids
            Names, all of which must be in the table.

        Returns
        -------
        ndarray of shape (n_names,)

        Raises
        ------
        InputError
            If a name is missing.
        """
        return rows_of(self.image_ids, image_ids)

    def select(self, image_ids: Iterable[str]) -> "FeatureTable":
        """Features of the named images, in that order and in memory.

        Parameters
        ----------
        image_ids
            Distinct names, all of which must be in the table.

        Returns
        -------
        FeatureTable

        Raises
        ------
        InputError
            If a name is missing, or given twice.
        """
        rows = self.rows(image_ids)
        return FeatureTable(take_rows(self.features, rows), self.image_ids[rows], self.provenance)


def check_same_space(provenance: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Refuse features of another backbone, weights or preprocessing than a model was made with.

    Only what both sides state is compared: files without provenance pass. Where both state the hash of the weights,
    it decides, so that a tag and a local file of the same weights agree.

    Parameters
    ----------
    provenance
        Of the features at hand.
    expected
        Of the features that the model was made with.
    what
        Name of the model, for the message.

    Raises
    ------
    InputError
        Naming what differs, and both values.
    """
    if not isinstance(expected, Mapping):  # of a file that somebody else's program wrote
        raise InputError(f"{what} states where its features come from as {expected!r}, expected names and values.")
    if SPACES in provenance or SPACES in expected:
        _check_same_spaces(provenance, expected, what)
        return
    both = [key for key in SPACE_KEYS if key in provenance and key in expected]
    if "weights_sha256" in both and provenance["weights_sha256"] == expected["weights_sha256"]:
        both = [key for key in both if key != "weights"]
    for key in both:
        if provenance[key] != expected[key]:
            raise InputError(
                f"the features have {key} '{provenance[key]}' but {what} was made with '{expected[key]}': "
                "embed the images the same way."
            )


def _check_same_spaces(provenance: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    ours, theirs = (dict(made.get(SPACES, {})) for made in (provenance, expected))
    if list(ours) != list(theirs):
        names = [", ".join(spaces) or "one without a name" for spaces in (ours, theirs)]
        raise InputError(
            f"the features have the spaces {names[0]}, but {what} was made with {names[1]}: pass --features NAME=FILE "
            "for each of these."
        )
    for name, made in ours.items():
        check_same_space(made, theirs[name], f"the space '{name}' of {what}")


def join_tables(tables: Mapping[str, FeatureTable]) -> FeatureTable:
    """Put the features of several named spaces side by side, for the images that all of them have.

    Parameters
    ----------
    tables
        Name -> features.

    Returns
    -------
    FeatureTable
        Columns in alphabetical order of the names, whatever order they are given in. The provenance says under
        "spaces" what each is and how many features it has.

    Raises
    ------
    InputError
        If no image is in all tables, or two spaces say the same of the images.
    """
    names = sorted(tables)
    first = tables[names[0]].image_ids
    common = first[np.all([np.isin(first, tables[name].image_ids) for name in names], axis=0)]
    most = max(table.image_ids.size for table in tables.values())
    if common.size == 0:
        raise InputError(f"no image has features in all of {', '.join(names)}: embed the same images, under one name.")
    if common.size < most:
        logger.warning("%d of %d images do not have features in all of %s", most - common.size, most, ", ".join(names))
    parts = [take_rows(tables[name].features, tables[name].rows(common)) for name in names]
    _check_different(dict(zip(names, parts, strict=True)))
    spaces = {name: {**tables[name].provenance, "n_features": tables[name].n_features} for name in names}
    return FeatureTable(np.concatenate(parts, axis=1), common, {SPACES: spaces})


def _check_different(spaces: Mapping[str, FloatArray]) -> None:
    """Refuse a space given twice, also shifted, scaled or turned: no encoder could tell the two apart."""
    known: dict[str, npt.NDArray[np.float64]] = {}
    for name, features in spaces.items():
        some = features[:COMPARED_IMAGES].astype(np.float64)
        some = some - some.mean(axis=0)
        gram = some @ some.T
        size = float(np.linalg.norm(gram))
        if not size > 0:
            continue
        same = [other for other, found in known.items() if np.linalg.norm(found - gram / size) < SAME_SPACE]
        if same and len(some) > 2:
            raise InputError(
                f"the feature spaces '{same[0]}' and '{name}' say the same of the images: nothing can tell apart what "
                "each explains: give each once."
            )
        known[name] = gram / size


def rows_of(table: npt.NDArray[np.str_], image_ids: Iterable[str]) -> npt.NDArray[np.intp]:
    """Row of each name in a list of distinct names.

    Raises
    ------
    InputError
        If a name is missing.
    """
    position = {name: row for row, name in enumerate(table.tolist())}
    names = [str(name) for name in image_ids]
    missing = [name for name in names if name not in position]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images have no features, such as '{missing[0]}': "
            "embed them, or leave them out."
        )
    return np.array([position[name] for name in names], dtype=np.intp)


def take_rows(features: npt.NDArray[Any], rows: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """Copy rows; a mapped file is gone through once, block by block, letting go of its pages."""
    taken = np.empty((len(rows), features.shape[1]), dtype=features.dtype)
    order = np.argsort(rows, kind="stable")
    block_of = rows[order] // at_a_time(features[:1].nbytes, _ROWS_SHARE)
    for places in np.split(order, np.flatnonzero(np.diff(block_of)) + 1):
        taken[places] = features[rows[places]]
        _release_pages(features)
    return taken


def row_blocks(matrix: FloatArray) -> Iterator[FloatArray]:
    """Go through consecutive rows, a block at a time; pages of a mapped file are let go after use."""
    per_block = at_a_time(matrix[:1].nbytes, _ROWS_SHARE)
    for start in range(0, len(matrix), per_block):
        yield matrix[start : start + per_block]
        _release_pages(matrix)


def _release_pages(matrix: npt.NDArray[Any]) -> None:
    """Let the system forget the pages of a mapped file; they are read again when needed."""
    mapped = getattr(matrix, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _check_finite_in_blocks(matrix: FloatArray, name: str) -> None:
    """Refuse NaN and infinity, one block of rows at a time."""
    for block in row_blocks(matrix):
        check_finite(block, name)
