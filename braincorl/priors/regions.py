"""Regions of the brain as labels of voxels."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.names import check_names

Rois = npt.ArrayLike


def index_labels(labels: Rois, regions: Sequence[str], n_voxels: int, name: str) -> npt.NDArray[np.intp]:
    """Row of each voxel's region (n_voxels,), -1 for labels that are not in `regions`.

    Raises
    ------
    InputError
        If there is not one label per voxel.
    """
    array = np.asarray(labels)
    if array.shape != (n_voxels,):
        raise InputError(f"{name} has shape {array.shape}, but must hold one label for each of the {n_voxels} voxels.")
    position = {label: i for i, label in enumerate(regions)}
    return np.array([position.get(str(label), -1) for label in array.tolist()], dtype=np.intp)


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


def index_regions(
    rois: Sequence[Rois | None] | None, n_voxels: Sequence[int]
) -> tuple[tuple[str, ...], list[npt.NDArray[np.intp]]]:
    """Give the region labels of all people, sorted, and each voxel's index among them.

    Parameters
    ----------
    rois
        For each person one label per voxel, or None; None for no regions at all.
    n_voxels
        Voxels of each person.

    Returns
    -------
    regions : tuple of str
        Empty for no regions; the empty label is none.
    indices : list of ndarray of shape (n_voxels,)
        -1 where unknown.

    Raises
    ------
    InputError
        If the numbers of people or of labels do not match, or a label would break a table.
    """
    if rois is None:
        return (), [np.full(count, -1, dtype=np.intp) for count in n_voxels]
    if len(rois) != len(n_voxels):
        raise InputError(
            f"rois has {len(rois)} entries for {len(n_voxels)} people: pass one per person, None if unknown."
        )
    labels = {str(label) for one in rois if one is not None for label in np.asarray(one).ravel().tolist()} - {""}
    check_names(labels, "the region")
    regions = tuple(sorted(labels))
    indices = [
        np.full(count, -1, dtype=np.intp) if one is None else index_labels(one, regions, count, f"rois[{i}]")
        for i, (one, count) in enumerate(zip(rois, n_voxels, strict=True))
    ]
    return regions, indices
