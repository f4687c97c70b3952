"""`join_voxels`: encoders of some voxels each, fitted on the same images, to one encoder of all of them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError


def join_voxels(encoders: Iterable[LinearEncoder], n_voxels: int) -> LinearEncoder:
    """Put encoders of blocks of voxels together.

    Parameters
    ----------
    encoders
        Fitted, of one kind that treats each voxel by itself, in the order of the voxels. They are taken one at a time.
    n_voxels
        Of all of them.

    Returns
    -------
    LinearEncoder
        To the bit what one fit of all voxels gives where its batches and the blocks are of whole 64 voxels, since a
        column of a matrix product depends on where it stands among those that are computed together.

    Raises
    ------
    InputError
        If voxels are not separate, or the encoders are of other images, features or options.
    """
    whole: dict[str, npt.NDArray[Any]] = {}
    first: LinearEncoder | None = None
    column = 0
    for encoder in encoders:
        axes, arrays = encoder.voxel_axes, encoder._arrays()
        if axes is None:
            raise InputError(f"{type(encoder).__name__} reads all voxels together: it has no blocks to join.")
        if first is None:
            first, whole = encoder, {name: _room(array, axes.get(name), n_voxels) for name, array in arrays.items()}
        if type(encoder) is not type(first) or not _agree(whole, arrays, set(axes)):
            raise InputError("blocks of voxels were fitted on other images, features or options: fit them again.")
        size = len(encoder.coef_)
        for name, axis in axes.items():
            np.moveaxis(whole[name], axis, 0)[column : column + size] = np.moveaxis(arrays[name], axis, 0)
        column += size
    if first is None or column != n_voxels:
        raise InputError(f"blocks have {column} voxels together, expected {n_voxels}: fit them again.")
    joined = type(first)(**first.get_params(deep=False))
    joined._restore(whole)
    joined.n_features_in_ = joined.coef_.shape[1]
    return joined


def _room(array: npt.NDArray[Any], axis: int | None, n_voxels: int) -> npt.NDArray[Any]:
    """Room for all voxels, or the array itself where it is of no voxel."""
    if axis is None:
        return array
    return np.empty((*array.shape[:axis], n_voxels, *array.shape[axis + 1 :]), array.dtype)


def _agree(whole: dict[str, npt.NDArray[Any]], arrays: dict[str, npt.NDArray[Any]], voxelwise: set[str]) -> bool:
    return whole.keys() == arrays.keys() and all(
        whole[name].dtype == array.dtype
        if name in voxelwise
        else np.array_equal(whole[name], array, equal_nan=array.dtype.kind == "f")
        for name, array in arrays.items()
    )
