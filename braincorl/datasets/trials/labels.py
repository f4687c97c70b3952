"""Label volumes and their names: atlases on a grid, colour tables, and hemispheres that belong together."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.grids import as_labels, read_volume
from braincorl.datasets.trials.rois import Rois
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import read_text, text_lines

logger = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]


def read_color_table(path: str | Path) -> dict[int, str]:
    """Read label names from a FreeSurfer colour table, lines of `id name` and maybe colours.

    Parameters
    ----------
    path
        Text file, by convention ending in `.ctab`.

    Returns
    -------
    dict
        Label -> name; the entry 0, which means no label, is left out.

    Raises
    ------
    FileFormatError
        If it cannot be read or has no such line.
    """
    names: dict[int, str] = {}
    for line in text_lines(read_text(path, "colour table")):
        match = re.match(r"\s*(\d{1,9})\s+(\S+)", line)
        if match:
            names[int(match.group(1))] = match.group(2)
    names.pop(0, None)
    if not names:
        raise FileFormatError(f"{path} names no label: expected lines such as '1 V1v'.")
    return names


def read_labels(path: str | Path) -> tuple[Labels, npt.NDArray[np.float64]]:
    """Read a volume of whole-number labels.

    Returns
    -------
    labels : ndarray of shape (X, Y, Z)
        As stored; NaN becomes 0.
    affine : ndarray of shape (4, 4)

    Raises
    ------
    InputError
        If the values are not whole numbers, or the file is missing.
    FileFormatError
        If the file is damaged.
    """
    values, affine = read_volume(path)
    return as_labels(values, Path(path)), affine


def check_sides(left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_], affine: npt.NDArray[np.float64]) -> bool:
    """Whether voxels called left lie left of those called right (x grows to the right), as far as they tell.

    Parameters
    ----------
    left, right
        3-D bool masks.
    affine
        Voxel indices to millimetres (4, 4).
    """
    if not left.any() or not right.any():
        return True
    x = [float((np.argwhere(side).mean(axis=0) @ affine[:3, :3].T)[0]) for side in (left, right)]
    return x[0] <= x[1]


def regions_of(labels: Mapping[str, Labels], names: Mapping[str, Mapping[int, str]]) -> Rois:
    """Regions of several atlases: each label, and each atlas as a whole.

    Parameters
    ----------
    labels
        Atlas -> label of each voxel (n_voxels,); only values above 0 are regions.
    names
        Atlas -> label -> name.

    Returns
    -------
    dict
        Name -> bool (n_voxels,). A name that an earlier atlas has used gets the atlas in front, as in
        "Kastner2015:V1v". Labels without a voxel are left out.
    """
    rois: Rois = {}
    for atlas, values in labels.items():
        if (values > 0).any():
            rois[atlas] = values > 0
        for label in np.unique(values[values > 0]).tolist():
            name = names.get(atlas, {}).get(label, f"{atlas}-{label}")
            if name == atlas:
                continue
            rois[f"{atlas}:{name}" if name in rois else name] = values == label
    return rois


def merge_hemispheres(paths: Sequence[Path]) -> tuple[Labels, npt.NDArray[np.float64]]:
    """Join the label volumes of the two hemispheres, left first; warns when they look swapped.

    Raises
    ------
    InputError
        If the two are on different grids.
    """
    (left, affine), (right, _) = (read_labels(path) for path in paths)
    if left.shape != right.shape:
        raise InputError(f"{paths[0]} has shape {left.shape} but {paths[1]} has {right.shape}: get a new copy of both.")
    if not check_sides(left > 0, right > 0, affine):
        logger.warning("%s lies right of %s: the two hemispheres look swapped", paths[0], paths[1].name)
    return np.maximum(left, right), affine
