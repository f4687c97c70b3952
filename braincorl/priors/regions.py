"""Regions of the brain as labels of voxels, and how often each kind of voxel occurs in each."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError

Rois = npt.ArrayLike

# Pseudo-voxels of the overall weights that every region's weights are smoothed with.
_WEIGHT_PSEUDO_COUNT = 2.0
# Prior probability that a voxel is unlike everything learned.
BROAD_WEIGHT = 0.05


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
        -1 where unknown, 0 throughout for no regions.

    Raises
    ------
    InputError
        If the numbers of people or of labels do not match.
    """
    if rois is None:
        return (), [np.zeros(count, dtype=np.intp) for count in n_voxels]
    if len(rois) != len(n_voxels):
        raise InputError(
            f"rois has {len(rois)} entries for {len(n_voxels)} people: pass one per person, None if unknown."
        )
    labels = {str(label) for one in rois if one is not None for label in np.asarray(one).ravel().tolist()} - {""}
    regions = tuple(sorted(labels))
    indices = [
        np.full(count, -1, dtype=np.intp) if one is None else index_labels(one, regions, count, f"rois[{i}]")
        for i, (one, count) in enumerate(zip(rois, n_voxels, strict=True))
    ]
    return regions, indices


def smoothed_weights(region_counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Component weights of every region, shrunk toward those of all voxels.

    Parameters
    ----------
    region_counts
        Effective voxels of each region in each component (n_regions, c); the broad one is last and does not count.

    Returns
    -------
    ndarray of shape (n_regions + 1, c)
        Rows sum to 1; the last row is for voxels of unknown region. The broad component has `BROAD_WEIGHT`.
    """
    counts = region_counts[:, :-1]
    overall = counts.sum(axis=0) + _WEIGHT_PSEUDO_COUNT / max(counts.shape[1], 1)
    overall /= overall.sum()
    weights = np.vstack([counts + _WEIGHT_PSEUDO_COUNT * overall, overall])
    weights *= (1.0 - BROAD_WEIGHT) / weights.sum(axis=1, keepdims=True)
    return np.hstack([weights, np.full((weights.shape[0], 1), BROAD_WEIGHT)])
