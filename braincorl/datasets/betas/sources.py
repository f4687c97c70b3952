"""Trials of other containers than NIfTI: HDF5 bricks, arrays of volumes, and surface files.

Like `NiftiBetas`, each source hands out its trials in order, some at a time, as (n_trials, n_voxels) float32 with the
mask's voxels in C order of the grid. Letters: T trials, X Y Z the grid.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.volumes import CHUNK_BYTES, BetasSource, as_float32
from braincorl.datasets.space import Surface
from braincorl.datasets.surfaces.surface_file import SurfaceFile, check_hemispheres
from braincorl.errors import InputError
from braincorl.files import reading
from braincorl.hdf5 import dataset_in, open_hdf5

BLOCK_BYTES = 256 * 2**20  # of chosen voxels, where a file is better read through than trial by trial

Axes = Literal["TZYX", "XYZT"]


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
        if self._mask.shape != self.shape:
            hint = ""
            if self._mask.shape == self.shape[::-1]:
                hint = " It looks stored in the opposite order of axes."
            raise InputError(
                f"{path} is {_times(self.shape)} voxels but the mask is {_times(self._mask.shape)}: "
                f"use a mask on the grid of the betas.{hint}"
            )
        self.n_voxels = int(self._mask.sum())

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        with open_hdf5(self.path) as file:
            data = dataset_in(file, self._dataset, self.path)
            # Where many trials of a voxel lie together, each read of one trial would touch the whole file.
            by_trial = not self._flat and self._axes == "TZYX" and (data.chunks is None or data.chunks[0] == 1)
            bytes_per_trial = 4 * (self._mask.size if by_trial else self.n_voxels)
            step = max(1, (CHUNK_BYTES if by_trial else BLOCK_BYTES) // bytes_per_trial)
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
        if mask is not None and mask.shape != values.shape[:3]:
            raise InputError(
                f"{path} is {_times(values.shape[:3])} voxels but the mask is {_times(mask.shape)}: "
                "use a mask on the grid of the betas."
            )
        self._values = values.reshape(-1, values.shape[3]) if mask is None else values[mask]
        self.n_voxels, self.n_trials = self._values.shape

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        step = max(1, CHUNK_BYTES // (4 * self.n_voxels))
        for start in range(0, self.n_trials, step):
            yield start, as_float32(np.array(self._values[:, start : start + step].T))


class SurfaceBetas:
    """Trials of a pair of surface files, left hemisphere first.

    Parameters
    ----------
    left, right
        As `SurfaceFile` reads them.
    surface
        Vertices to read.

    Raises
    ------
    InputError
        If a file is missing, or the hemispheres are swapped, or disagree with one another or with the surface.
    FileFormatError
        If a file is damaged.
    """

    def __init__(self, left: str | Path, right: str | Path, surface: Surface) -> None:
        self.path = Path(left)
        self.paths = (Path(left), Path(right))
        self._chosen = (surface.left, surface.right)
        if surface.subcortex is not None:
            raise InputError(
                f"{left} is of the cortex alone, but {surface.subcortex.structures.size} voxels below it are looked "
                "at, too: pass a CIFTI file."
            )
        self._files = (SurfaceFile(left), SurfaceFile(right))
        check_hemispheres(*self._files)
        for file, chosen in zip(self._files, self._chosen, strict=True):
            if file.n_vertices != chosen.size:
                raise InputError(f"{file.path} has {file.n_vertices} vertices, but the surface has {chosen.size}.")
        counts = [file.n_trials for file in self._files]
        if counts[0] != counts[1]:
            raise InputError(f"{left} has {counts[0]} trials but {right} has {counts[1]}: get a new copy of both.")
        self.n_trials, self.n_voxels = counts[0], surface.n_chosen

    @staticmethod
    def n_vertices(path: Path) -> int:
        """Vertices of one surface file."""
        return SurfaceFile(path).n_vertices

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_vertices)) in order."""
        step = max(1, CHUNK_BYTES // (8 * sum(chosen.size for chosen in self._chosen)))
        halves = zip(*(file.trials(step) for file in self._files), strict=True)
        for start, parts in zip(range(0, self.n_trials, step), halves, strict=True):
            chosen = [part[:, vertices] for part, vertices in zip(parts, self._chosen, strict=True)]
            yield start, as_float32(np.concatenate(chosen, axis=1))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
