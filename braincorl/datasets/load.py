"""`load_subject`: one person's betas, trials and mask, to one response per image and voxel."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from braincorl.datasets.averaging import average_trials
from braincorl.datasets.rois import read_rois
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.trials import TrialsTable, match_trials, read_trials
from braincorl.datasets.volumes import (
    ArrayBetas,
    BetasSource,
    Grid,
    NiftiBetas,
    check_same_grid,
    read_mask,
    read_volume,
)
from braincorl.errors import InputError
from braincorl.files import Progress

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]
ZScore = Literal["none", "session"]


def load_subject(
    betas: Paths,
    trials: Paths,
    mask: str | Path | Grid | None = None,
    *,
    rois: Paths = (),
    zscore: ZScore = "none",
    images: Iterable[str] | None = None,
    ncsnr: str | Path | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read one person, averaging the repeats of each image.

    Files are read a few volumes at a time: memory holds one row per distinct image, not the trials.

    Parameters
    ----------
    betas
        One or more 4-D NIfTI files (X, Y, Z, trials), or `.npy` arrays (n_trials, n_voxels) without a mask.
    trials
        Tab-separated tables, one row per volume: one per betas file, in order, or one for all. Column `image`;
        optional `session` (else the `ses-` in a betas file's name).
    mask
        3-D NIfTI image on the grid of the betas, or a `Grid`; by default every voxel that varies.
    rois
        Region images on the same grid (masks or atlases), or text files with one label per mask voxel.
    zscore
        "session" scales each voxel to mean 0 and standard deviation 1 over all trials of a session, held-out ones too,
        as the field does; "none" leaves the units of the betas.
    images
        Images to keep, as those with features; by default all.
    ncsnr
        3-D map of noise ceiling signal-to-noise ratios; by default estimated from repeats where there are any.
    name
        BIDS label; by default the `sub-` of the first betas file.
    progress
        Called with (trials read, trials in all).

    Returns
    -------
    SubjectData
        Voxels that are constant or not finite are left out; `space` knows which.

    Raises
    ------
    InputError
        If files are missing, do not fit together, or hold no usable image or voxel.
    FileFormatError
        If a file is damaged.
    """
    beta_paths, trial_paths = _paths(betas, "betas"), _paths(trials, "trials")
    if zscore not in ("none", "session"):
        raise InputError(f"zscore must be 'none' or 'session', but is {zscore!r}.")
    sources, grid = open_betas(beta_paths, mask)
    tables = match_trials(
        [read_trials(path) for path in trial_paths], trial_paths, beta_paths, [source.n_trials for source in sources]
    )
    sessions = np.unique(np.concatenate([table.sessions[table.images != ""] for table in tables]))
    if zscore == "session" and "" in sessions and (sessions.size > 1 or len(sources) > 1):
        raise InputError(
            "zscore='session' needs the session of every trial: add a column 'session' to the trials tables, "
            "or 'ses-' to the names of the betas files."
        )
    if zscore == "none" and sessions.size > 1:
        logger.info(
            "the betas come from %d sessions and are not z-scored: consider scaling each session (zscore session)",
            sessions.size,
        )
    kept = _images_to_keep(tables, images)
    regions = read_rois(_paths(rois, "rois", empty=True), grid, sources[0].n_voxels)
    ncsnr_map = None if ncsnr is None else _read_ncsnr(Path(ncsnr), grid)
    averages = average_trials(sources, tables, kept, zscore=zscore == "session", progress=progress)
    space = VoxelSpace(averages.included, *((grid.mask, grid.affine) if grid else (None, None)))
    if space.n_excluded:
        logger.warning(
            "%d of %d voxels are constant or not finite: kept out of fits, NaN in maps",
            space.n_excluded,
            averages.included.size,
        )
    signal = averages.ncsnr if ncsnr_map is None else ncsnr_map
    whole = space.n_excluded == 0
    return SubjectData(
        responses=averages.responses if whole else averages.responses[:, averages.included],
        image_ids=averages.image_ids,
        space=space,
        n_repeats=averages.n_repeats,
        rois={region: members[averages.included] for region, members in regions.items()},
        ncsnr=None if signal is None else signal[averages.included],
        name=name or subject_label(beta_paths[0]),
    )


def open_betas(paths: Sequence[Path], mask: str | Path | Grid | None) -> tuple[list[BetasSource], Grid | None]:
    """Open betas files and check that they share one set of voxels.

    Parameters
    ----------
    paths
        All NIfTI or all `.npy`.
    mask
        3-D NIfTI image, a `Grid`, or None.

    Returns
    -------
    sources : list of BetasSource
    grid : Grid or None
        None for arrays.

    Raises
    ------
    InputError
        If kinds are mixed or voxels differ.
    FileFormatError
        If a file is damaged.
    """
    arrays = [path.suffix == ".npy" for path in paths]
    if any(arrays):
        if not all(arrays) or mask is not None:
            raise InputError(".npy betas come without a mask and cannot be mixed with images: pass only .npy files.")
        sources: list[BetasSource] = [ArrayBetas(path) for path in paths]
        if len({source.n_voxels for source in sources}) > 1:
            counts = ", ".join(f"{source.path.name}: {source.n_voxels}" for source in sources)
            raise InputError(f"the betas files have different numbers of voxels ({counts}); axis 1 must be the same.")
        return sources, None
    grid = read_mask(mask) if isinstance(mask, str | Path) else mask
    images: list[NiftiBetas] = []
    for path in paths:
        images.append(NiftiBetas(path, grid))
        grid = images[0].grid
    return list(images), grid


def subject_label(path: Path) -> str:
    """BIDS label of the person in a file name, "sub-new" if it has none."""
    entity = re.search(r"sub-[A-Za-z0-9]+", path.name)
    return entity.group(0) if entity else "sub-new"


def _paths(value: Paths, name: str, *, empty: bool = False) -> list[Path]:
    paths = [Path(value)] if isinstance(value, str | Path) else [Path(item) for item in value]
    if not paths and not empty:
        raise InputError(f"{name} is empty: pass at least one file.")
    return paths


def _images_to_keep(tables: Sequence[TrialsTable], images: Iterable[str] | None) -> npt.NDArray[np.str_]:
    shown = list(dict.fromkeys(str(image) for table in tables for image in table.images if image != ""))
    if not shown:
        raise InputError("the trials tables name no image: column 'image' is empty in every row.")
    if images is None:
        return np.asarray(shown)
    wanted = {str(image) for image in images}
    kept = [image for image in shown if image in wanted]
    if not kept:
        example = next(iter(wanted), "none")
        raise InputError(
            f"no image is in both tables: the trials show images such as '{shown[0]}', the features are of images such "
            f"as '{example}'; use the same names in both."
        )
    if len(kept) < len(shown):
        logger.warning(
            "%d of %d images in the trials have no features and are left out, such as '%s'",
            len(shown) - len(kept),
            len(shown),
            next(image for image in shown if image not in wanted),
        )
    return np.asarray(kept)


def _read_ncsnr(path: Path, grid: Grid | None) -> npt.NDArray[np.float64]:
    if grid is None:
        raise InputError(f"{path} is a map, but the betas came without a mask: pass a mask.")
    values, affine = read_volume(path)
    check_same_grid(values.shape, affine, path, grid)
    signal: npt.NDArray[Any] = np.asarray(values[grid.mask], dtype=np.float64)
    if not np.isfinite(signal).any():
        raise InputError(f"{path} holds no finite value in the mask: check that it belongs to this person.")
    if (signal < 0).any():
        raise InputError(f"{path} holds negative values, but an ncsnr map is a ratio of standard deviations.")
    return signal
