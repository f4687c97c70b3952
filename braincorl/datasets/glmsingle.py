"""GLMsingle output: a lab's own new person.

The file holds `betasmd` (X, Y, Z, trials) in % signal change, in the order of the design. It is an HDF5 file, or a
`.npy` file with a pickled dictionary, which is read without running what is in it.

References
----------
Prince et al., Improving the accuracy of single-trial fMRI response estimates using GLMsingle, eLife 11 (2022).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.safe_pickle import load_pickled_npy
from braincorl.datasets.sources import HDF5Betas, VolumeArrayBetas
from braincorl.datasets.volumes import Grid
from braincorl.errors import FileFormatError, InputError

BETAS = "betasmd"
HDF5_SUFFIXES = (".hdf5", ".h5")


def is_glmsingle(path: Path) -> bool:
    """Whether a file is GLMsingle's, by its ending, or for `.npy` by holding a pickled object."""
    if path.suffix in HDF5_SUFFIXES:
        return True
    if path.suffix != ".npy" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b"|O" in file.read(256)


class GlmsingleBetas:
    """Trials of one GLMsingle file.

    Parameters
    ----------
    path
        `TYPED_FITHRF_GLMDENOISE_RR.hdf5` or `.npy`, or a file of another model of GLMsingle's.
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
            whole = HDF5Betas(self.path, BETAS, "XYZT", None)
            flattened = mask is not None and whole.shape == (int(mask.sum()), 1, 1)
            self._source = whole if flattened else HDF5Betas(self.path, BETAS, "XYZT", mask)
        else:
            values = _betas_in(load_pickled_npy(self.path), self.path)
            flattened = mask is not None and values.shape[:-1] in ((int(mask.sum()), 1, 1), (int(mask.sum()),))
            if flattened and values.ndim == 2:
                values = values[:, None, None]
            self._source = VolumeArrayBetas(values, None if flattened else mask, self.path)
        self.n_trials, self.n_voxels = self._source.n_trials, self._source.n_voxels

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        yield from self._source.chunks()


def _betas_in(content: Any, path: Path) -> npt.NDArray[Any]:
    if not isinstance(content, dict):
        raise FileFormatError(
            f"{path} is not a readable .npy array of numbers, nor a dictionary as GLMsingle saves it."
        )
    if BETAS not in content:
        names = ", ".join(map(str, content)) or "nothing"
        raise InputError(f"{path} holds {names} but no '{BETAS}': pass GLMsingle's file of single-trial betas.")
    values = content[BETAS]
    if not isinstance(values, np.ndarray):
        raise FileFormatError(f"{path}: '{BETAS}' is a {type(values).__name__}, expected an array.")
    return values
