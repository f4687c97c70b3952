"""`load_surface`: a person whose betas lie on the cortical surface, one file per hemisphere and session.

FreeSurfer `.mgh` / `.mgz` (n_vertices, 1, 1, trials), or GIFTI `.func.gii` with one array per trial.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.grids import as_labels, as_mask, check_ncsnr
from braincorl.datasets.file_names import subject_label
from braincorl.datasets.space import Surface
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.surfaces.surface_file import SurfaceBetas, check_hemispheres, n_vertices, read_vertices
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.same import check_different
from braincorl.datasets.trials.trials_table import match_trials, read_trials
from braincorl.errors import InputError
from braincorl.storage.files import Progress

Paths = str | Path | Sequence[str | Path]
Pair = tuple[str | Path | None, str | Path | None]


def load_surface(
    left: Paths | None,
    right: Paths | None,
    trials: Paths,
    *,
    mask: Pair | None = None,
    rois: Mapping[str, Pair] | None = None,
    ncsnr: Pair | None = None,
    surface: str = "fsaverage",
    zscore: ZScore = "none",
    images: Iterable[str] | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> SubjectData:
    """Read a person on a surface, averaging the repeats of each image.

    Parameters
    ----------
    left, right
        Betas of the hemispheres, in the same order: one file or several; None for a hemisphere that is left out, in
        pairs of files, too.
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
    halves = {side: _paths(paths, side) for side, paths in (("left", left), ("right", right)) if paths is not None}
    if not halves:
        raise InputError("left and right are both None: pass the files of at least one hemisphere.")
    if len({len(paths) for paths in halves.values()}) > 1:
        raise InputError(
            f"left has {len(halves['left'])} files but right has {len(halves['right'])}: pass both of each session."
        )
    for side, paths in halves.items():
        check_different(paths, side)
    first = next(iter(halves.values()))
    nothing: list[Path | None] = [None] * len(first)
    pairs: list[tuple[Path | None, Path | None]] = list(
        zip(halves.get("left", nothing), halves.get("right", nothing), strict=True)
    )
    chosen = _mask_of(pairs[0], mask, surface)
    sources = [SurfaceBetas(one, two, chosen) for one, two in pairs]
    tables = [Path(path) for path in _paths(trials, "trials")]
    matched = match_trials([read_trials(path) for path in tables], tables, first, [s.n_trials for s in sources])
    return Recording(
        name=name or subject_label(first[0]),
        sources=sources,
        tables=matched,
        zscore=zscore == "session",
        surface=chosen,
        rois={region: as_labels(read_pair(pair, chosen), _first(pair)) > 0 for region, pair in (rois or {}).items()},
        ncsnr=None if ncsnr is None else check_ncsnr(read_pair(ncsnr, chosen).astype(np.float64), _first(ncsnr)),
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
    check_hemispheres(*pair)
    parts = []
    for path, chosen in zip(pair, (surface.left, surface.right), strict=True):
        if not chosen.any():
            continue
        if path is None:
            raise InputError(f"{_first(pair)} is of one hemisphere, but both are looked at: pass the other one's, too.")
        values = read_vertices(path)
        if values.shape != chosen.shape:
            raise InputError(f"{path} has {values.size} vertices, but the surface has {chosen.size}.")
        parts.append(np.nan_to_num(values[chosen]))
    return np.concatenate(parts)


def _mask_of(betas: Pair, mask: Pair | None, name: str) -> Surface:
    if mask is None:
        left, right = (np.ones(n_vertices(path), dtype=bool) for path in betas)
        return Surface(left, right, name)
    check_hemispheres(*mask)
    left, right = (
        np.zeros(0, dtype=bool) if path is None else as_mask(read_vertices(path), Path(path), may_be_empty=True)
        for path in mask
    )
    return Surface(left, right, name)


def _first(pair: Pair) -> Path:
    return next(Path(path) for path in pair if path is not None)


def _paths(value: Paths, name: str) -> list[Path]:
    paths = [Path(value)] if isinstance(value, str | Path) else [Path(item) for item in value]
    if not paths:
        raise InputError(f"{name} is empty: pass at least one file.")
    return paths
