"""GLMsingle output: a lab's own new person.

The file holds `betasmd` (X, Y, Z, trials) in % signal change, in the order of the design, or (voxels, trials) where
GLMsingle was run on voxels. It is an HDF5 file, a `.npy` file with a pickled dictionary, which is read without running
what is in it, or a `.mat` file, where the betas are called `modelmd`.

References
----------
Prince et al., Improving the accuracy of single-trial fMRI response estimates using GLMsingle, eLife 11 (2022).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import Axes, HDF5Betas, VolumeArrayBetas
from braincorl.datasets.betas.grids import Grid
from braincorl.datasets.betas.matlab import is_hdf5_mat, read_mat
from braincorl.datasets.betas.safe_pickle import load_pickled_npy
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, listed, reading
from braincorl.storage.hdf5 import open_hdf5

BETAS = "betasmd"
MAT_NAMES = ("modelmd", BETAS)
HDF5_SUFFIXES = (".hdf5", ".h5")
MAT_SUFFIX = ".mat"


def is_glmsingle(path: Path) -> bool:
    """Whether a file is GLMsingle's, by its ending, or for `.npy` by holding a pickled object."""
    if path.suffix in (*HDF5_SUFFIXES, MAT_SUFFIX):
        return True
    if path.suffix != ".npy":
        return False
    check_regular(path, ".npy file")
    with reading(path, "is not a readable .npy file"), path.open("rb") as file:
        return b"|O" in file.read(256)


class GlmsingleBetas:
    """Trials of one GLMsingle file.

    Parameters
    ----------
    path
        `TYPED_FITHRF_GLMDENOISE_RR.hdf5`, `.npy` or `.mat`, or a file of another model of GLMsingle's.
    grid
        Mask of the voxels to read, which also gives the affine that GLMsingle's files lack; None reads all voxels. If
        GLMsingle was run on the mask's voxels as (n_voxels, time), they are taken to be in C order of the grid.

    Raises
    ------
    InputError
        If the file is missing, holds no betas, or is not on the mask's grid.
    FileFormatError
        If it is damaged, or its pickle holds more than data.
    """

    def __init__(self, path: str | Path, grid: Grid | None) -> None:
        self.path = Path(path)
        mask = None if grid is None else grid.mask
        self._source: HDF5Betas | VolumeArrayBetas
        if self.path.suffix in HDF5_SUFFIXES:
            self._source = _in_hdf5(self.path, BETAS, "XYZT", mask)
        elif self.path.suffix != MAT_SUFFIX:
            self._source = _in_memory(_betas_in(load_pickled_npy(self.path), self.path), mask, self.path)
        elif is_hdf5_mat(self.path):
            self._source = _in_hdf5(self.path, _name_in_mat(self.path), "TZYX", mask)
        else:
            found = read_mat(self.path, MAT_NAMES)
            self._source = _in_memory(next(found[name] for name in MAT_NAMES if name in found), mask, self.path)
        self.n_trials, self.n_voxels = self._source.n_trials, self._source.n_voxels

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        yield from self._source.chunks()


def _in_hdf5(path: Path, name: str, axes: Axes, mask: npt.NDArray[np.bool_] | None) -> HDF5Betas:
    whole = HDF5Betas(path, name, axes, None)
    return whole if _is_flat(whole.shape, mask) else HDF5Betas(path, name, axes, mask)


def _in_memory(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, path: Path) -> VolumeArrayBetas:
    volumes = values[:, None, None] if values.ndim == 2 else values
    return VolumeArrayBetas(volumes, None if _is_flat(volumes.shape[:3], mask) else mask, path)


def _is_flat(shape: tuple[int, ...], mask: npt.NDArray[np.bool_] | None) -> bool:
    """Whether these are the mask's voxels in a row, so that there is nothing to choose."""
    return mask is not None and shape == (int(mask.sum()), 1, 1)


def _name_in_mat(path: Path) -> str:
    with open_hdf5(path) as file:
        return next((name for name in MAT_NAMES if name in file), MAT_NAMES[0])


def _betas_in(content: Any, path: Path) -> npt.NDArray[Any]:
    if not isinstance(content, dict):
        raise FileFormatError(
            f"{path} is not a readable .npy array of numbers, nor a dictionary as GLMsingle saves it."
        )
    if BETAS not in content:
        raise InputError(
            f"{path} holds {listed(content)} but no '{BETAS}': pass GLMsingle's file of single-trial betas."
        )
    values = content[BETAS]
    if not isinstance(values, np.ndarray):
        raise FileFormatError(f"{path}: '{BETAS}' is a {type(values).__name__}, expected an array.")
    return values
