"""`load_subject`: one person's betas, trials and mask, or a prepared file, to one response per image and voxel."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import ArrayBetas, BetasSource, NiftiBetas
from braincorl.datasets.betas.glmsingle import GlmsingleBetas, is_glmsingle
from braincorl.datasets.betas.grids import Grid, check_ncsnr, check_same_grid, read_mask, read_volume
from braincorl.datasets.file_names import identity, subject_label
from braincorl.datasets.space import Surface
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.surfaces.hemispheres import (
    is_on_surface,
    open_surface_betas,
    read_surface_mask,
    read_surface_ncsnr,
    read_surface_rois,
)
from braincorl.datasets.trials.prepared import is_prepared, load_prepared
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import read_rois
from braincorl.datasets.trials.trials_table import match_trials, read_trials
from braincorl.errors import InputError
from braincorl.storage.files import Progress

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]


def load_subject(
    betas: Paths,
    trials: Paths = (),
    mask: Paths | Grid | Surface | None = None,
    *,
    rois: Paths = (),
    zscore: ZScore = "none",
    images: Iterable[str] | None = None,
    ncsnr: Paths | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read one person, averaging the repeats of each image.

    Files are read a few volumes at a time: memory holds one row per distinct image, not the trials.

    Parameters
    ----------
    betas
        One or more 4-D NIfTI files (X, Y, Z, trials), GLMsingle files (`.hdf5`, `.mat`, `.npy` with a dictionary),
        `.npy` arrays (n_trials, n_voxels) without a mask, CIFTI files (`.dtseries.nii`, `.dscalar.nii`), or files of
        both hemispheres (`.func.gii`, `.mgh`, `.mgz`), which say of which they are and need no order. None may be
        given twice, and all must be of one person. Or one file of `prepare`, which brings trials, mask, regions and
        scaling along: `trials`, files of `mask`, `rois` and `ncsnr` are then left out.
    trials
        Tab-separated tables, one row per volume: one per betas file, in order, or one for all. Column `image`;
        optional `session` (else the `ses-` in a betas file's name); `ses-01`, `01` and `1` are one session.
    mask
        3-D NIfTI image on the grid of the betas, of which the voxels above 0 are read, or a `Grid`; on a surface, a
        file of each hemisphere, a CIFTI file, or a `Surface`. By default every voxel that varies.
    rois
        Region images on the same grid (masks or atlases), or text files with one label per mask voxel; on a surface
        `.annot`, GIFTI, FreeSurfer or CIFTI files.
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
        If files are missing, do not fit together, contradict each other by their names, or hold no usable image or
        voxel.
    FileFormatError
        If a file is damaged.
    """
    paths = _paths(betas, "betas")
    if len(paths) == 1 and is_prepared(paths[0]):
        files = None if isinstance(mask, Grid | Surface) else mask
        return read_prepared(paths[0], images, zscore, name, trials=trials, mask=files, rois=rois, ncsnr=ncsnr)
    recording = open_subject(paths, trials, mask, rois=rois, zscore=zscore, ncsnr=ncsnr, name=name)
    return recording.load(images, progress)


def read_prepared(
    path: Path,
    images: Iterable[str] | None,
    zscore: ZScore,
    name: str | None,
    voxels: slice | None = None,
    **brought: Paths | None,
) -> SubjectData:
    """Read a prepared person, who brings trials, mask, regions and scaling along, or a block of the voxels with data.

    Parameters and errors are those of `load_subject`.
    """
    extra = [argument for argument, value in brought.items() if value]
    if extra:
        raise InputError(f"{path} is a prepared person with its own mask and regions: leave out {extra[0]}.")
    subject = load_prepared(path, images=images, voxels=voxels)
    if subject.zscore != zscore:
        level = logging.WARNING if zscore == "session" else logging.INFO  # the other is what nobody may have asked for
        logger.log(level, "%s holds responses that are scaled '%s', and are left so", path, subject.zscore)
    return subject if name is None else replace(subject, name=name)


def open_subject(
    betas: Paths,
    trials: Paths,
    mask: Paths | Grid | Surface | None = None,
    *,
    rois: Paths = (),
    zscore: ZScore = "none",
    ncsnr: Paths | None = None,
    name: str | None = None,
) -> Recording:
    """Open one person's files without reading the betas. Parameters and errors are those of `load_subject`.

    Returns
    -------
    Recording
    """
    beta_paths, trial_paths = (
        _paths(betas, "betas"),
        _paths(trials, "trials", remedy="a table of trials for each betas"),
    )
    check_zscore(zscore)
    roi_paths = _paths(rois, "rois", empty=True)
    mask_paths = [] if mask is None or isinstance(mask, Grid | Surface) else _paths(mask, "mask")
    signal_paths = [] if ncsnr is None else _paths(ncsnr, "ncsnr")
    _tell_other_people(beta_paths[0], [*roi_paths, *mask_paths, *signal_paths])
    if isinstance(mask, Surface) or any(is_on_surface(path) for path in beta_paths):
        if isinstance(mask, Grid):
            raise InputError(f"{beta_paths[0]} lies on a surface, but the mask is a volume: pass betas on its grid.")
        return _open_on_surface(
            beta_paths, trial_paths, mask_paths, mask, roi_paths, signal_paths, zscore == "session", name
        )
    if len(mask_paths) > 1 or len(signal_paths) > 1:
        raise InputError(f"the betas are of a volume ({beta_paths[0]}), so mask and ncsnr are one file each.")
    sources, grid = open_betas(beta_paths, mask_paths[0] if mask_paths else mask)  # type: ignore[arg-type]
    tables = match_trials(
        [read_trials(path) for path in trial_paths], trial_paths, beta_paths, [source.n_trials for source in sources]
    )
    return Recording(
        name=name or subject_label(beta_paths[0]),
        sources=sources,
        tables=tables,
        zscore=zscore == "session",
        grid=grid,
        rois=read_rois(roi_paths, grid, sources[0].n_voxels),
        ncsnr=read_ncsnr(signal_paths[0], grid) if signal_paths else None,
    )


def _open_on_surface(
    betas: Sequence[Path],
    trials: Sequence[Path],
    mask_paths: Sequence[Path],
    mask: object,
    rois: Sequence[Path],
    ncsnr: Sequence[Path],
    zscore: bool,
    name: str | None,
) -> Recording:
    chosen = mask if isinstance(mask, Surface) else read_surface_mask(mask_paths) if mask_paths else None
    others = [path for path in betas if not is_on_surface(path)]
    if others:
        raise InputError(f"{others[0]} is of no surface, but other betas or the mask are: pass files of one kind.")
    sources, surface, first = open_surface_betas(betas, chosen)
    tables = match_trials(
        [read_trials(path) for path in trials], trials, first, [source.n_trials for source in sources]
    )
    return Recording(
        name=name or subject_label(first[0]),
        sources=sources,
        tables=tables,
        zscore=zscore,
        surface=surface,
        rois=read_surface_rois(rois, surface),
        ncsnr=read_surface_ncsnr(ncsnr, surface) if ncsnr else None,
    )


def _tell_other_people(betas: Path, others: Sequence[str | Path]) -> None:
    """Say which of the other images are of another person by their names, which in one common space may be meant."""
    own = identity(betas).get("sub")
    for path in map(Path, others):
        other = identity(path).get("sub")
        if None not in (own, other) and own != other:
            logger.warning("%s is of sub-%s, but the betas %s are of sub-%s", path, other, betas, own)


def open_betas(paths: Sequence[Path], mask: str | Path | Grid | None) -> tuple[list[BetasSource], Grid | None]:
    """Open betas files and check that they share one set of voxels.

    Parameters
    ----------
    paths
        All NIfTI, all GLMsingle, or all `.npy` arrays.
    mask
        3-D NIfTI image, a `Grid`, or None.

    Returns
    -------
    sources : list of BetasSource
    grid : Grid or None
        None for arrays, and for GLMsingle files without a mask.

    Raises
    ------
    InputError
        If kinds are mixed or voxels differ.
    FileFormatError
        If a file is damaged.
    """
    kinds = [_kind(path) for path in paths]
    if len(set(kinds)) > 1:
        raise InputError(
            f"the betas are of different kinds ({', '.join(sorted(set(kinds)))}): pass files of one kind only."
        )
    if kinds[0] == ".npy array":
        if mask is not None:
            raise InputError(".npy betas come without a mask and cannot be mixed with images: pass only .npy files.")
        return _same_voxels([ArrayBetas(path) for path in paths]), None
    grid = read_mask(mask) if isinstance(mask, str | Path) else mask
    if kinds[0] == "GLMsingle":
        return _same_voxels([GlmsingleBetas(path, grid) for path in paths]), grid
    images: list[NiftiBetas] = []
    for path in paths:
        images.append(NiftiBetas(path, grid))
        grid = images[0].grid
    return list(images), grid


def _kind(path: Path) -> str:
    if is_glmsingle(path):
        return "GLMsingle"
    return ".npy array" if path.suffix == ".npy" else "NIfTI"


def _same_voxels(sources: Sequence[BetasSource]) -> list[BetasSource]:
    if len({source.n_voxels for source in sources}) > 1:
        counts = ", ".join(f"{source.path.name}: {source.n_voxels}" for source in sources)
        raise InputError(f"the betas files have different numbers of voxels ({counts}): they must be the same.")
    return list(sources)


def _paths(value: Paths, name: str, *, empty: bool = False, remedy: str = "at least one") -> list[Path]:
    paths = [Path(value)] if isinstance(value, str | Path) else [Path(item) for item in value]
    if not paths and not empty:
        raise InputError(f"{name} is empty: pass {remedy} file.")
    return paths


def read_ncsnr(path: Path, grid: Grid | None) -> npt.NDArray[np.float64]:
    """Read a map of noise ceiling signal-to-noise ratios at the voxels of a mask (n_mask_voxels,).

    Raises
    ------
    InputError
        If there is no mask, the map is on another grid, or its values cannot be such ratios.
    FileFormatError
        If the file is damaged.
    """
    if grid is None:
        raise InputError(f"{path} is a map, but the betas came without a mask: pass a mask.")
    values, affine = read_volume(path)
    check_same_grid(values.shape, affine, path, grid)
    return check_ncsnr(np.asarray(values[grid.mask], dtype=np.float64), path)
