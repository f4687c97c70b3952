"""`remember_fits`: earlier people's fits to a memory (`GroupPrior`) for the next person."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.file_names import UNNAMED
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.fits.fit import Fit
from braincorl.fits.seen_images import check_same_across
from braincorl.priors import GroupPrior
from braincorl.priors.regions import label_voxels

logger = logging.getLogger(__name__)


def remember_fits(
    fits: Sequence[Fit],
    *,
    rois: bool = False,
    places: bool = False,
    pool: FeatureTable | None = None,
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
    _check_different(fits)
    check_same_across(fits)
    space: dict[str, Any] = {}
    for fit in fits:
        provenance = fit.config.get("features_provenance", {})
        if space:
            check_same_space(provenance, space, fits[0].title)
        space |= provenance
    if pool is not None:
        check_same_space(pool.provenance, space, "the first fit")
    return GroupPrior.fit(
        [fit.encoder for fit in fits],
        [_labels(fit) for fit in fits] if rois else None,
        [fit.space.coordinates() for fit in fits] if places else None,
        X_pool=None if pool is None else pool.features,
        max_items=max_items,
        provenance={**space, "people": [fit.subject for fit in fits]},
    )


def features_of_contexts(fits: Sequence[Fit], table: FeatureTable) -> FeatureTable | None:
    """Features of the images that people were fitted on, for `pool`, where an encoder holds weights alone; else None.

    Other images than these may be somebody's to be scored.
    """
    if all(hasattr(fit.encoder, "posterior_") or hasattr(fit.encoder, "context_rows_") for fit in fits):
        return None
    names = {name for fit in fits for name in fit.context}
    rows = np.flatnonzero(np.isin(table.image_ids, sorted(names)))
    return FeatureTable(table.features[rows], table.image_ids[rows], table.provenance)


def _check_different(fits: Sequence[Fit]) -> None:
    """Refuse one person given twice, which would be remembered as two who agree; tell of people of one name."""
    known: dict[bytes, list[Fit]] = {}
    for fit in fits:
        start = np.ascontiguousarray(fit.encoder.coef_[:1]).tobytes()  # few share it, so few are compared in whole
        for other in known.setdefault(start, []):
            if np.array_equal(fit.encoder.coef_, other.encoder.coef_):
                raise InputError(f"{other.title} and {fit.title} hold the same encoder: give each person once.")
        known[start].append(fit)
    names = [fit.subject for fit in fits if fit.subject != UNNAMED]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        logger.warning(
            "%d fits are of %s: if that is one person, give one fit of it, as the others count as more people",
            names.count(twice[0]),
            twice[0],
        )


def _labels(fit: Fit) -> npt.NDArray[np.str_]:
    if not fit.rois:
        raise InputError(f"{fit.title} was made without regions: leave --rois out, or fit it again with --rois.")
    return label_voxels(fit.rois, fit.space.n_voxels)
