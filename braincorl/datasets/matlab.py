"""MATLAB's `.mat` files up to version 7; from 7.3 on they are HDF5, which `braincorl.hdf5` reads."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.io import loadmat, whosmat

from braincorl.datasets.streams import LARGEST_RATIO
from braincorl.errors import FileFormatError, InputError
from braincorl.files import check_regular, reading

KIND = "MATLAB file"
HDF5_START = b"\x89HDF"
HDF5_OFFSET = 512


def is_hdf5_mat(path: Path) -> bool:
    """Whether a `.mat` file is of version 7.3, which is HDF5 behind 512 bytes of MATLAB's own."""
    check_regular(path, KIND)
    with reading(path, f"is not a readable {KIND}"), path.open("rb") as file:
        file.seek(HDF5_OFFSET)
        return file.read(len(HDF5_START)) == HDF5_START


def read_mat(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of numbers from a `.mat` file.

    Parameters
    ----------
    path
        The file.
    names
        Variables to read, those that are there.

    Returns
    -------
    dict
        Name -> array, as MATLAB showed it: two axes at least.

    Raises
    ------
    InputError
        If the file is missing, or none of the variables is in it.
    FileFormatError
        If it is damaged, of another kind, or a variable is no array of numbers.
    """
    check_regular(path, KIND)
    # SciPy only warns of a compressed variable that goes on behind its array, which is a sign of damage.
    with reading(path, f"is not a readable {KIND}"), warnings.catch_warnings():
        warnings.simplefilter("error")
        there = whosmat(path)
        most = path.stat().st_size * LARGEST_RATIO
        too_large = [name for name, shape, _ in there if name in names and int(np.prod(shape, dtype=object)) > most]
        if too_large:
            raise FileFormatError(
                f"{path} is truncated or damaged: it is too short for '{too_large[0]}': get a new copy."
            )
        content = loadmat(path, variable_names=list(names))
    found = {name: np.asarray(content[name]) for name in names if name in content}
    if not found:
        shown = ", ".join(name for name, _, _ in there) or "nothing"
        raise InputError(f"{path} holds {shown} but no {' or '.join(names)}.")
    for name, values in found.items():
        if values.dtype.kind not in "fiub":
            raise FileFormatError(f"{path}: '{name}' is of type {values.dtype}, expected numbers.")
    return found
