"""NIfTI images and plain arrays as streams of trials, so that a person need not fit into memory.

A source of betas tells how many trials it has and hands them out in order, a few at a time, as (n_trials, n_voxels)
arrays of the mask's voxels.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from braincorl.errors import FileFormatError, InputError

CHUNK_BYTES = 64 * 2**20
AFFINE_TOLERANCE_MM = 1e-2


class BetasSource(Protocol):
    """Trials of one file, readable in order."""

    path: Path
    n_trials: int
    n_voxels: int

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""


@dataclass(frozen=True)
class Grid:
    """A 3-D mask with its place in the world.

    Attributes
    ----------
    mask
        3-D bool.
    affine
        (4, 4), voxel indices to millimetres.
    path
        Where it was read, for messages.
    """

    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    path: Path


def open_image(path: str | Path) -> Any:
    """Open a NIfTI image without reading its data.

    Raises
    ------
    InputError
        If the file is missing.
    FileFormatError
        If it is no NIfTI image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file: pass a NIfTI image.")
    try:
        # The file stays open so that a compressed one is read once through, not from its start for every chunk.
        # Not mapped: mapped pages of many sessions would count as memory of this process.
        image = nib.load(path, keep_file_open=True, mmap=False)
    except (ImageFileError, OSError, EOFError, zlib.error, ValueError) as error:
        raise FileFormatError(f"{path} is not a readable NIfTI image ({first_line(error)}).") from error
    if not isinstance(image, nib.Nifti1Image):
        raise FileFormatError(f"{path} is a {type(image).__name__}, expected a NIfTI image (.nii or .nii.gz).")
    if image.get_data_dtype().kind not in "fiub":
        raise FileFormatError(f"{path} holds values of type {image.get_data_dtype()}, expected real numbers.")
    return image


def read_volume(path: str | Path) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Read a 3-D image.

    Parameters
    ----------
    path
        NIfTI image; trailing axes of length one are dropped.

    Returns
    -------
    values : ndarray of shape (X, Y, Z)
    affine : ndarray of shape (4, 4)

    Raises
    ------
    InputError
        If it is missing or not 3-D.
    FileFormatError
        If it is damaged.
    """
    image = open_image(path)
    try:
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FileFormatError(f"{path} is truncated or damaged ({first_line(error)}): get a new copy.") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise InputError(f"{path} has shape {values.shape}, expected one 3-D volume.")
    return values, np.asarray(image.affine, dtype=np.float64)


def read_mask(path: str | Path) -> Grid:
    """Read a mask: voxels that are neither 0 nor NaN.

    Raises
    ------
    InputError
        If it is missing, not 3-D, or empty.
    FileFormatError
        If it is damaged.
    """
    values, affine = read_volume(path)
    mask = np.nan_to_num(values) != 0
    if not mask.any():
        raise InputError(f"{path} is an empty mask: every voxel is 0; check that it is the right file.")
    return Grid(mask, affine, Path(path))


def check_same_grid(shape: tuple[int, ...], affine: npt.NDArray[np.float64], path: Path, grid: Grid) -> None:
    """Refuse an image that is not on the mask's grid.

    Raises
    ------
    InputError
        Naming both shapes, or how far apart the affines put the same voxel.
    """
    if tuple(shape) != grid.mask.shape:
        raise InputError(
            f"{path} is {' x '.join(map(str, shape))} voxels but the mask {grid.path} is "
            f"{' x '.join(map(str, grid.mask.shape))}: resample one to the other's grid."
        )
    corners = np.array(list(itertools.product(*((0, size) for size in grid.mask.shape), (1,))), dtype=np.float64)
    distance = float(np.abs(corners @ (affine - grid.affine).T).max())
    if distance > AFFINE_TOLERANCE_MM:
        raise InputError(
            f"{path} and the mask {grid.path} have different affines: they place the same voxel up to "
            f"{distance:.3g} mm apart; use a mask in the space of the betas."
        )


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
        self._image = open_image(path)
        shape = self._image.shape
        if len(shape) not in (3, 4) or 0 in shape:
            raise InputError(f"{path} has shape {shape}, expected (X, Y, Z, trials).")
        affine = np.asarray(self._image.affine, dtype=np.float64)
        self.grid = grid or Grid(np.ones(shape[:3], dtype=bool), affine, self.path)
        check_same_grid(shape[:3], affine if same_affine else self.grid.affine, self.path, self.grid)
        self.n_trials = shape[3] if len(shape) == 4 else 1
        self._flat = flat_index(self.grid.mask)
        self.n_voxels = self._flat.size

    @property
    def stored_type(self) -> np.dtype[Any]:
        """Type of the numbers in the file, before any scaling of its header."""
        stored: np.dtype[Any] = self._image.get_data_dtype()
        return stored

    @property
    def is_scaled(self) -> bool:
        """Whether the file's header scales or shifts its numbers."""
        return (float(self._image.dataobj.slope), float(self._image.dataobj.inter)) != (1.0, 0.0)

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        data = self._image.dataobj
        step = max(1, CHUNK_BYTES // (8 * self.grid.mask.size))  # a scaled chunk is float64
        for start in range(0, self.n_trials, step):
            try:
                chunk = np.asarray(data[..., start : start + step] if self._image.ndim == 4 else data[..., None])
            except (OSError, EOFError, zlib.error, ValueError) as error:
                raise FileFormatError(
                    f"{self.path} is truncated or damaged at volume {start} of {self.n_trials} "
                    f"({first_line(error)}): get a new copy."
                ) from error
            # In the order of the file the trials are rows, so that taking voxels moves each through the cache once.
            trials = chunk.reshape(-1, chunk.shape[-1], order="F").T
            yield start, trials.take(self._flat, axis=1).astype(np.float32, copy=False)


def flat_index(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Where each voxel of a mask, in C order, is in a volume whose first axis runs fastest, as NIfTI stores it."""
    return np.asarray(np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F"))


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
        array = values if isinstance(values, np.ndarray) else _map_npy(self.path)
        if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
            raise InputError(
                f"{self.path} has shape {array.shape} and type {array.dtype}, expected numbers (n_trials, n_voxels)."
            )
        self._values = array
        self.n_trials, self.n_voxels = array.shape

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield (index of the first trial, responses (n, n_voxels)) in order."""
        for start in range(0, self.n_trials, self.step):
            yield start, self.rows(start, start + self.step)

    @property
    def step(self) -> int:
        """Trials that are read at a time."""
        return max(1, CHUNK_BYTES // (8 * int(self.n_voxels)))

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Read some trials (n, n_voxels), as a copy."""
        return np.array(self._values[start:stop], dtype=np.float32)


def _map_npy(path: Path) -> npt.NDArray[Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(f"{path} is not a readable .npy array ({first_line(error)}).") from error
    return array


def first_line(error: BaseException) -> str:
    """Cut another library's error down to its first line, for a message of one."""
    return (str(error).splitlines() or [type(error).__name__])[0]
