"""`remember_fits`: earlier people's fits to a memory (`GroupPrior`) for the next person.

Fits are gone through one after the other, a few times. Those of `braincorl.fits.earlier.one_by_one.load_fits` are read
each time, so that there is one in memory, whatever the number of people.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.file_names import UNNAMED
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.fits.earlier.one_by_one import each
from braincorl.fits.fit import Fit
from braincorl.fits.seen_images import SameImages
from braincorl.priors import GroupPrior
from braincorl.priors.regions import label_voxels

logger = logging.getLogger(__name__)


def remember_fits(
    fits: Sequence[Fit],
    *,
    rois: bool = False,
    places: bool = False,
    pool: FeatureTable | None = None,
    table: FeatureTable | None = None,
    max_items: int | str = "auto",
) -> GroupPrior:
    """Remember the voxels of fitted people.

    Parameters
    ----------
    fits
        One per person.
    rois
        Remember in which region each voxel lies, from the regions that the fits were given.
    places
        Remember where each voxel lies, for people in one common space.
    pool
        Features of any images, over which a voxel's signal has unit variance; needed for fits that hold weights alone,
        such as ridge's.
    table
        In place of a pool, features of at least the images that people were fitted on, which are the pool where a fit
        holds weights alone. Its other images may be somebody's to be scored, and are not read.
    max_items
        As for `GroupPrior.fit`.

    Returns
    -------
    GroupPrior

    Raises
    ------
    InputError
        If a person is given twice, the fits are of different features, or lack what is to be remembered.
    """
    survey = _Survey()
    for fit in fits:
        survey.add(fit)
    survey.tell_namesakes()
    if pool is not None:
        check_same_space(pool.provenance, survey.space, "the first fit")
    elif table is not None and not survey.know_their_images:
        pool = _rows_of(table, survey.context)
    return GroupPrior.fit(
        each(fits, lambda fit: fit.encoder),
        each(fits, _labels) if rois else None,
        each(fits, lambda fit: fit.space.coordinates()) if places else None,
        X_pool=None if pool is None else pool.features,
        max_items=max_items,
        provenance={**survey.space, "people": survey.subjects},
    )


class _Survey:
    """What is checked and collected of all fits, one after the other.

    Attributes
    ----------
    space
        What is known of their features.
    subjects
        Their labels.
    context
        Images that they were fitted on.
    know_their_images
        Whether all encoders hold more of their images than weights.
    """

    def __init__(self) -> None:
        self.space: dict[str, Any] = {}
        self.subjects: list[str] = []
        self.context: set[str] = set()
        self.know_their_images = True
        self._images, self._encoders = SameImages(), dict[bytes, str]()
        self._first = ""

    def add(self, fit: Fit) -> None:
        """Refuse one person given twice, who would be remembered as two who agree, and other features."""
        weights = np.ascontiguousarray(fit.encoder.coef_).reshape(-1)
        digest = hashlib.blake2b(weights.view(np.uint8).data, digest_size=16).digest()
        if digest in self._encoders:
            raise InputError(f"{self._encoders[digest]} and {fit.title} hold the same encoder: give each person once.")
        self._encoders[digest] = fit.title
        self._images.add(fit)
        provenance = fit.config.get("features_provenance", {})
        if self.space:
            check_same_space(provenance, self.space, self._first)
        self._first = self._first or fit.title
        self.space |= provenance
        self.subjects.append(fit.subject)
        self.context.update(fit.context)
        self.know_their_images &= hasattr(fit.encoder, "posterior_") or hasattr(fit.encoder, "context_rows_")

    def tell_namesakes(self) -> None:
        """Tell of people of one name."""
        counts = Counter(name for name in self.subjects if name != UNNAMED)
        if twice := sorted(name for name, n in counts.items() if n > 1):
            logger.warning(
                "%d fits are of %s: if that is one person, give one fit of it, as the others count as more people",
                counts[twice[0]],
                twice[0],
            )


def _rows_of(table: FeatureTable, names: set[str]) -> FeatureTable:
    rows = np.flatnonzero(np.isin(table.image_ids, sorted(names)))
    return FeatureTable(table.features[rows], table.image_ids[rows], table.provenance)


def _labels(fit: Fit) -> npt.NDArray[np.str_]:
    if not fit.rois:
        raise InputError(f"{fit.title} was made without regions: leave --rois out, or fit it again with --rois.")
    return label_voxels(fit.rois, fit.space.n_voxels)
