"""Regions, noise ceilings and the choice of voxels in the Natural Scenes Dataset.

In a label volume -1 means not cortex, 0 cortex without a label, and larger values are labels, named by a colour table.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.grids import Grid, read_volume
from braincorl.datasets.nsd.layout import NsdFolder, first_there
from braincorl.datasets.trials.labels import Labels, merge_hemispheres, read_color_table, read_labels, regions_of
from braincorl.datasets.trials.rois import Rois, names_among
from braincorl.errors import InputError
from braincorl.metrics import noise_ceiling

logger = logging.getLogger(__name__)

RETINOTOPIC = "prf-visualrois"
FUNCTIONAL = ("floc-bodies", "floc-faces", "floc-places", "floc-words")
VISION = (RETINOTOPIC, *FUNCTIONAL, "streams", "nsdgeneral")
CORTICAL = (*VISION, "Kastner2015", "HCP_MMP1")
CEILING_REPEATS = 3  # trials of an image in NSD

# The names in NSD's own colour tables, for folders that were downloaded without them.
LABEL_NAMES: dict[str, tuple[str, ...]] = {
    RETINOTOPIC: ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
    "nsdgeneral": ("nsdgeneral",),
}


@dataclass(frozen=True)
class Atlases:
    """Label volumes of one subject, all on one grid.

    Attributes
    ----------
    wanted
        Atlases whose regions were asked for; others may be there to say where cortex is.
    labels
        Atlas -> labels (X, Y, Z).
    names
        Atlas -> label -> name.
    affine
        Voxel indices to millimetres (4, 4); None if there is no atlas.
    """

    wanted: tuple[str, ...]
    labels: dict[str, Labels]
    names: dict[str, dict[int, str]]
    affine: npt.NDArray[np.float64] | None


def read_atlases(folder: NsdFolder, atlases: Sequence[str] | None) -> Atlases:
    """Read a subject's label volumes.

    Parameters
    ----------
    folder
        Where they are.
    atlases
        Which ones; None takes those of vision that are there.

    Returns
    -------
    Atlases

    Raises
    ------
    InputError
        If one that was named is missing, has no names, or they are on different grids.
    FileFormatError
        If a file is damaged.
    """
    wanted = VISION if atlases is None else tuple(atlases)
    found: dict[str, Labels] = {}
    first_affine = None
    for atlas in dict.fromkeys((*wanted, *CORTICAL)):
        labels, affine = _read_atlas(folder, atlas)
        if labels is None:
            if atlases is not None and atlas in wanted:
                raise InputError(f"{folder.regions} holds no {atlas}.nii.gz, nor lh. and rh. files of it: download it.")
            continue
        first = next(iter(found.values()), labels)
        if labels.shape != first.shape:
            raise InputError(
                f"{folder.regions / atlas}.nii.gz has shape {labels.shape}, other regions have {first.shape}: "
                "it belongs to another subject or space."
            )
        found[atlas] = labels
        first_affine = affine if first_affine is None else first_affine
    return Atlases(wanted, found, {atlas: _names(folder, atlas) for atlas in found}, first_affine)


def select_voxels(
    folder: NsdFolder, atlases: Atlases, voxels: str | Sequence[str] | npt.NDArray[np.bool_], min_ceiling: float
) -> tuple[Grid, npt.NDArray[np.float64] | None, Rois]:
    """Choose voxels by region and noise ceiling.

    Parameters
    ----------
    folder
        Where the `ncsnr` map is.
    atlases
        Label volumes.
    voxels, min_ceiling
        As for `load_nsd`.

    Returns
    -------
    grid : Grid
        Mask of the chosen voxels.
    ncsnr : ndarray of shape (n_voxels,) or None
        None if there is no map.
    rois : dict
        Name -> bool (n_voxels,).

    Raises
    ------
    InputError
        If nothing is left, or files that the choice needs are missing.
    """
    path = folder.ncsnr[0]
    ncsnr, affine = read_volume(path) if path.is_file() else (None, None)
    if atlases.affine is not None:
        affine = atlases.affine
    if affine is None:
        raise InputError(f"neither {folder.regions} nor {path} is there: download the regions, which give the grid.")
    shapes = [labels.shape for labels in atlases.labels.values()] + ([] if ncsnr is None else [ncsnr.shape])
    mask = voxels if isinstance(voxels, np.ndarray) else _rule(atlases, voxels, shapes[0])
    for shape in (*shapes, mask.shape):
        if shape != shapes[0]:
            raise InputError(
                f"ncsnr, regions and voxels have shapes {shapes[0]} and {shape}: they must be on one grid."
            )
    if not 0 <= min_ceiling < 1:
        raise InputError(f"min_ceiling must be in [0, 1), but is {min_ceiling}.")
    if min_ceiling > 0:
        if ncsnr is None:
            raise InputError(f"{path} does not exist: min_ceiling needs it; download it.")
        mask = mask & (noise_ceiling(np.nan_to_num(ncsnr), CEILING_REPEATS) >= min_ceiling)
    if not mask.any():
        raise InputError(
            f"no voxel of subject {folder.subject} is left after choosing {voxels!r}, ceiling {min_ceiling}."
        )
    inside = {atlas: labels[mask] for atlas, labels in atlases.labels.items() if atlas in atlases.wanted}
    values = None if ncsnr is None else np.asarray(np.nan_to_num(ncsnr[mask]), dtype=np.float64)
    return Grid(mask, affine, path), values, regions_of(inside, atlases.names)


def _rule(atlases: Atlases, voxels: str | Sequence[str], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Mask of a named choice of voxels."""
    if voxels == "all":
        return np.ones(shape, dtype=bool)
    if voxels == "cortex":
        known = [labels for atlas, labels in atlases.labels.items() if atlas in CORTICAL]
        if not known:
            raise InputError("voxels='cortex' needs at least one label volume: download the regions.")
        return np.asarray(np.any([labels != -1 for labels in known], axis=0))
    if voxels in ("functional", "higher-visual"):
        retinotopic = _labelled(atlases, RETINOTOPIC)
        localised = np.any([_labelled(atlases, atlas) for atlas in FUNCTIONAL], axis=0)
        return np.asarray(localised & ~retinotopic if voxels == "higher-visual" else localised | retinotopic)
    regions = regions_of(atlases.labels, atlases.names)
    expected = f"'higher-visual', 'functional', 'cortex', 'all', or regions among {', '.join(regions)}"
    names = names_among(voxels, regions, expected)
    return np.asarray(np.any([regions[name] for name in names], axis=0))


def _labelled(atlases: Atlases, atlas: str) -> npt.NDArray[np.bool_]:
    if atlas not in atlases.labels:
        raise InputError(
            f"{atlas}.nii.gz is missing, which the choice of higher-visual or functional voxels needs: download it."
        )
    return np.asarray(atlases.labels[atlas] > 0)


def _read_atlas(folder: NsdFolder, atlas: str) -> tuple[Labels | None, npt.NDArray[np.float64] | None]:
    paths = first_there(folder.atlas_forms(atlas))
    if not paths:
        return None, None
    return read_labels(paths[0]) if len(paths) == 1 else merge_hemispheres(paths)


def _names(folder: NsdFolder, atlas: str) -> dict[int, str]:
    path = folder.color_table(atlas)
    if path is not None:
        return read_color_table(path)
    if atlas in LABEL_NAMES:
        return dict(enumerate(LABEL_NAMES[atlas], start=1))
    logger.warning("%s.mgz.ctab is missing: the regions of %s are named by their numbers", atlas, atlas)
    return {}
