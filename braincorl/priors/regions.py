"""Regions of the brain as labels of voxels."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.names import check_names

Rois = npt.ArrayLike


def check_labels(labels: Rois, n_voxels: int, name: str) -> npt.NDArray[np.str_]:
    """Give labels as text (n_voxels,).

    Raises
    ------
    InputError
        If there is not one label per voxel.
    """
    array = np.asarray(labels)
    if array.shape != (n_voxels,):
        raise InputError(f"{name} has shape {array.shape}, but must hold one label for each of the {n_voxels} voxels.")
    return np.array([str(label) for label in array.tolist()], dtype=np.str_)


def index_labels(labels: Rois, regions: Sequence[str], n_voxels: int, name: str) -> npt.NDArray[np.intp]:
    """Row of each voxel's region (n_voxels,), -1 for labels that are not in `regions`.

    Raises
    ------
    InputError
        If there is not one label per voxel.
    """
    array = check_labels(labels, n_voxels, name)
    position = {label: i for i, label in enumerate(regions)}
    return np.array([position.get(label, -1) for label in array.tolist()], dtype=np.intp)


def label_voxels(rois: Mapping[str, npt.NDArray[np.bool_]], n_voxels: int) -> npt.NDArray[np.str_]:
    """Turn region masks into one label per voxel.

    Parameters
    ----------
    rois
        Region name -> bool (n_voxels,). Where regions overlap, the smallest wins: it says most.
    n_voxels
        Number of voxels.

    Returns
    -------
    ndarray of shape (n_voxels,)
        "" where no region is.
    """
    labels = np.full(n_voxels, "", dtype=object)
    for name in sorted(rois, key=lambda name: (-int(rois[name].sum()), name)):
        labels[rois[name]] = name
    return labels.astype(np.str_)


def name_regions(labels: Iterable[str]) -> tuple[str, ...]:
    """Give the regions of all people's labels, sorted; the empty label is none.

    Raises
    ------
    InputError
        If a label would break a table.
    """
    known = set(labels) - {""}
    check_names(known, "the region")
    return tuple(sorted(known))
