"""`load_surface`: a person whose betas lie on the cortical surface, one file per hemisphere and session.

FreeSurfer `.mgh` / `.mgz` (n_vertices, 1, 1, trials), or GIFTI `.func.gii` with one array per trial.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.grids import as_labels, as_mask, check_ncsnr
from braincorl.datasets.file_names import subject_label
from braincorl.datasets.space import Surface
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.surfaces.surface_file import SurfaceBetas, SurfaceFile, check_hemispheres, read_vertices
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.same import check_different
from braincorl.datasets.trials.trials_table import match_trials, read_trials
from braincorl.datasets.trials.zscoring import check_zscore
from braincorl.errors import InputError
from braincorl.files import Progress

Paths = str | Path | Sequence[str | Path]
Pair = tuple[str | Path, str | Path]


def load_surface(
    left: Paths,
    right: Paths,
    trials: Paths,
    *,
    mask: Pair | None = None,
    rois: Mapping[str, Pair] | None = None,
    ncsnr: Pair | None = None,
    surface: str = "fsaverage",
    zscore: Literal["none", "session"] = "none",
    images: Iterable[str] | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person on a surface, averaging the repeats of each image.

    Parameters
    ----------
    left, right
        Betas of the hemispheres, in the same order: one file or several.
    trials
        Tables as for `load_subject`, one per pair of files or one for all.
    mask
        Files of the left and the right hemisphere with one value per vertex, 0 outside; by default every vertex.
    rois
        Region name -> files of the left and the right hemisphere, values above 0 inside.
    ncsnr
        Files with the noise ceiling signal-to-noise ratio of each vertex; by default estimated from repeats.
    surface
        Name of the surface.
    zscore, images, progress
        As for `load_subject`.
    name
        BIDS label; by default the `sub-` of the first file.

    Returns
    -------
    SubjectData
        Voxels are vertices, left hemisphere first.

    Raises
    ------
    InputError
        If files are missing or do not fit together.
    FileFormatError
        If a file is damaged.
    """
    check_zscore(zscore)
    halves = [_paths(left, "left"), _paths(right, "right")]
    if len(halves[0]) != len(halves[1]):
        raise InputError(f"left has {len(halves[0])} files but right has {len(halves[1])}: pass both of each session.")
    check_different(halves[1], "right")
    chosen = _mask_of(halves, mask, surface)
    sources = [SurfaceBetas(one, two, chosen) for one, two in zip(*halves, strict=True)]
    tables = [Path(path) for path in _paths(trials, "trials")]
    matched = match_trials(
        [read_trials(path) for path in tables], tables, halves[0], [source.n_trials for source in sources]
    )
    return Recording(
        name=name or subject_label(halves[0][0]),
        sources=sources,
        tables=matched,
        zscore=zscore == "session",
        surface=chosen,
        rois={region: as_labels(read_pair(pair, chosen), Path(pair[0])) > 0 for region, pair in (rois or {}).items()},
        ncsnr=None if ncsnr is None else check_ncsnr(read_pair(ncsnr, chosen).astype(np.float64), Path(ncsnr[0])),
    ).load(images, progress)


def read_pair(pair: Pair, surface: Surface) -> npt.NDArray[Any]:
    """Read one value per chosen vertex from a file of each hemisphere (n_vertices,), left first.

    Raises
    ------
    InputError
        If a file is missing or has another number of vertices.
    FileFormatError
        If a file is damaged.
    """
    check_hemispheres(*(SurfaceFile(path) for path in pair))
    parts = []
    for path, chosen in zip(pair, (surface.left, surface.right), strict=True):
        values = read_vertices(path)
        if values.shape != chosen.shape:
            raise InputError(f"{path} has {values.size} vertices, but the surface has {chosen.size}.")
        parts.append(np.nan_to_num(values[chosen]))
    return np.concatenate(parts)


def _mask_of(halves: list[list[Path]], mask: Pair | None, name: str) -> Surface:
    if mask is not None:
        check_hemispheres(*(SurfaceFile(path) for path in mask))
        left, right = (as_mask(read_vertices(path), Path(path), may_be_empty=True) for path in mask)
        return Surface(left, right, name)
    sizes = [SurfaceBetas.n_vertices(paths[0]) for paths in halves]
    return Surface(np.ones(sizes[0], dtype=bool), np.ones(sizes[1], dtype=bool), name)


def _paths(value: Paths, name: str) -> list[Path]:
    paths = [Path(value)] if isinstance(value, str | Path) else [Path(item) for item in value]
    if not paths:
        raise InputError(f"{name} is empty: pass at least one file.")
    return paths
