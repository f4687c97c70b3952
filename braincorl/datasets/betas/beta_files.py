"""Betas in files as streams of trials, so that a person need not fit into memory.

A source of betas tells how many trials it has and hands them out in order, a few at a time, as (n_trials, n_voxels)
float32 with the mask's voxels in C order of the grid. Letters: T trials, X Y Z the grid. Files of a surface are read in
`braincorl.datasets.surfaces`.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.datasets.betas.grids import Grid, check_same_grid
from braincorl.datasets.betas.nifti import NiftiFile
from braincorl.datasets.betas.safe_pickle import map_npy
from braincorl.datasets.space import ALIGNED
from braincorl.errors import InputError
from braincorl.storage.files import reading
from braincorl.storage.hdf5 import check_written, dataset_in, open_hdf5

logger = logging.getLogger(__name__)

# Of the working memory, where a file is better read through than trial by trial.
THROUGH_SHARE = 1 / 4

Axes = Literal["TZYX", "XYZT"]


class BetasSource(Protocol):
    """Trials of one file, readable in order."""

    path: Path
    n_trials: int
    n_voxels: int

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""


class NiftiBetas:
    """Trials of a 4-D NIfTI file (X, Y, Z, trials), or the one trial of a 3-D file.

    Parameters
    ----------
    path
        The file.
    grid
        Mask of the voxels to read; None reads every voxel of the grid.
    same_affine
        Refuse a file whose affine differs from the mask's. False is for data sets that are known to store a wrong one;
        the mask's is used then.

    Raises
    ------
    InputError
        If the file is not on the mask's grid or has no trials.
    FileFormatError
        If it is damaged.
    """

    def __init__(self, path: str | Path, grid: Grid | None, *, same_affine: bool = True) -> None:
        self.path = Path(path)
        self._image = NiftiFile(path)
        shape = self._image.shape
        if len(shape) not in (3, 4):
            raise InputError(f"{path} has shape {shape}, expected (X, Y, Z, trials).")
        affine = self._image.affine
        self.grid = grid or Grid(np.ones(shape[:3], dtype=bool), affine, self.path, self._image.space_code or ALIGNED)
        check_same_grid(shape[:3], affine if same_affine else self.grid.affine, self.path, self.grid)
        self.n_trials = shape[3] if len(shape) == 4 else 1
        self._flat = _flat_index(self.grid.mask)
        self.n_voxels = self._flat.size

    @property
    def stored_type(self) -> np.dtype[Any]:
        """Type of the numbers in the file, before any scaling of its header."""
        return self._image.stored_type

    @property
    def is_scaled(self) -> bool:
        """Whether the file's header scales or shifts its numbers."""
        return self._image.is_scaled

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        step = at_a_time(8 * self.grid.mask.size)  # a scaled chunk is float64
        for start, chunk in self._image.volumes(step):
            # In the order of the file the trials are rows, so that taking voxels moves each through the cache once.
            trials = chunk.reshape(-1, chunk.shape[-1], order="F").T
            yield start, as_float32(trials.take(self._flat, axis=1))


class ArrayBetas:
    """Trials of a `.npy` file or array (n_trials, n_voxels), without a grid.

    Parameters
    ----------
    values
        The array, or the path of a `.npy` file, which is mapped rather than read.

    Raises
    ------
    InputError
        If it is not two-dimensional, real and non-empty.
    FileFormatError
        If the file is damaged.
    """

    def __init__(self, values: str | Path | npt.NDArray[Any]) -> None:
        self.path = Path("betas") if isinstance(values, np.ndarray) else Path(values)
        array = values if isinstance(values, np.ndarray) else map_npy(self.path)
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
            raise InputError(
                f"{self.path} has shape {array.shape} and type {array.dtype}, expected numbers (n_trials, n_voxels)."
            )
        self._values = array
        self.n_trials, self.n_voxels = array.shape
        if self.n_trials == self.n_voxels > 1:
            logger.info("%s has as many rows as columns (%d): rows are taken as trials", self.path, self.n_trials)

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        for start in range(0, self.n_trials, self.step):
            yield start, self.rows(start, start + self.step)

    @property
    def step(self) -> int:
        """Trials that are read at a time."""
        return at_a_time(8 * int(self.n_voxels))

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read some trials (n, n_voxels), as a copy."""
        return as_float32(np.array(self._values[start:stop]))


class HDF5Betas:
    """Trials of a four-dimensional HDF5 dataset.

    Parameters
    ----------
    path
        The file.
    dataset
        Name of the dataset in it. Of two axes, voxels and trials, it is taken as a grid of n_voxels x 1 x 1.
    axes
        Order of its axes: "TZYX", as MATLAB's (X, Y, Z, T) appears here, or "XYZT", as Python writes it.
    mask
        3-D bool (X, Y, Z); None reads every voxel.

    Raises
    ------
    InputError
        If the file is missing, holds no such dataset, or not on the mask's grid.
    FileFormatError
        If it is damaged.
    """

    def __init__(self, path: str | Path, dataset: str, axes: Axes, mask: npt.NDArray[np.bool_] | None) -> None:
        self.path, self._dataset, self._axes = Path(path), dataset, axes
        with open_hdf5(self.path) as file:
            data = dataset_in(file, dataset, self.path)
            check_written(data, dataset, self.path)
            shape, self.stored_type = data.shape, data.dtype
        self._flat = shape is not None and len(shape) == 2
        if self._flat:
            shape = (shape[0], 1, 1, shape[1])
        if shape is None or len(shape) != 4 or 0 in shape or self.stored_type.kind not in "fiu":
            raise InputError(
                f"{path}: '{dataset}' has shape {shape} and type {self.stored_type}, expected numbers on four axes."
            )
        self.n_trials = shape[0] if axes == "TZYX" else shape[3]
        self.shape: tuple[int, ...] = shape[:0:-1] if axes == "TZYX" else shape[:3]
        self._mask = np.ones(self.shape, dtype=bool) if mask is None else mask
        _check_shape(self.shape, self._mask, self.path)
        self.n_voxels = int(self._mask.sum())

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        with open_hdf5(self.path) as file:
            data = dataset_in(file, self._dataset, self.path)
            # Where many trials of a voxel lie together, each read of one trial would touch the whole file.
            by_trial = not self._flat and self._axes == "TZYX" and (data.chunks is None or data.chunks[0] == 1)
            step = at_a_time(4 * self._mask.size) if by_trial else at_a_time(4 * self.n_voxels, THROUGH_SHARE)
            for start in range(0, self.n_trials, step):
                stop = min(start + step, self.n_trials)
                with reading(self.path, f"is truncated or damaged at trial {start} of {self.n_trials}"):
                    block = self._whole(data, start, stop) if by_trial else self._by_slab(data, start, stop)
                yield start, block

    def _whole(self, data: Any, start: int, stop: int) -> npt.NDArray[np.float32]:
        flat = np.ravel_multi_index(np.nonzero(self._mask), self.shape, order="F")
        block = data[start:stop].reshape(stop - start, -1).take(flat, axis=1)
        return as_float32(block)

    def _by_slab(self, data: Any, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read plane by plane of the slowest spatial axis, all trials of the block together."""
        if self._flat:
            values = data[start:stop] if self._axes == "TZYX" else data[:, start:stop].T
            return as_float32(values[:, self._mask[:, 0, 0]])
        out = np.empty((stop - start, self.n_voxels), dtype=np.float32)
        slow = 2 if self._axes == "TZYX" else 0
        plane_of = np.nonzero(self._mask)[slow]
        for plane in np.unique(plane_of):
            members = np.take(self._mask, plane, axis=slow)
            if self._axes == "TZYX":
                values = data[start:stop, plane].transpose(0, 2, 1)[:, members]  # (T, Y, X) -> (T, X, Y)
            else:
                values = data[plane, :, :, start:stop][members].T
            out[:, plane_of == plane] = as_float32(values)
        return out


class VolumeArrayBetas:
    """Trials of an array of volumes in memory, (X, Y, Z, T).

    Parameters
    ----------
    values
        The array.
    mask
        3-D bool (X, Y, Z); None reads every voxel.
    path
        Where it came from, for messages.

    Raises
    ------
    InputError
        If it is not on the mask's grid.
    """

    def __init__(self, values: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, path: Path) -> None:
        self.path = path
        if values.ndim != 4 or 0 in values.shape or values.dtype.kind not in "fiu":
            raise InputError(f"{path} has shape {values.shape} and type {values.dtype}, expected (X, Y, Z, trials).")
        if mask is not None:
            _check_shape(values.shape[:3], mask, path)
        self._values = values.reshape(-1, values.shape[3]) if mask is None else values[mask]
        self.n_voxels, self.n_trials = self._values.shape

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        step = at_a_time(4 * self.n_voxels)
        for start in range(0, self.n_trials, step):
            yield start, as_float32(np.array(self._values[:, start : start + step].T))


class Scaled:
    """Trials of another source, divided by a constant.

    Parameters
    ----------
    source
        The trials.
    divisor
        What they are divided by.
    """

    def __init__(self, source: BetasSource, divisor: float) -> None:
        self._source, self._divisor = source, np.float32(divisor)
        self.path, self.n_trials, self.n_voxels = source.path, source.n_trials, source.n_voxels

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        for start, chunk in self._source.chunks():
            yield start, chunk / self._divisor


def as_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Numbers in single precision; those that are too large become infinite, which averaging looks for."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _flat_index(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Where each voxel of a mask, in C order, is in a volume whose first axis runs fastest, as NIfTI stores it."""
    return np.asarray(np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F"))


def _check_shape(shape: tuple[int, ...], mask: npt.NDArray[np.bool_], path: Path) -> None:
    """Refuse a mask of another grid than that of betas which have no affine."""
    if mask.shape != shape:
        own, other = (" x ".join(map(str, sizes)) for sizes in (shape, mask.shape))
        hint = " It looks stored in the opposite order of axes." if mask.shape == shape[::-1] else ""
        raise InputError(f"{path} is {own} voxels but the mask is {other}: use a mask on the grid of the betas.{hint}")
