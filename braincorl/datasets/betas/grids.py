"""Masks: which voxels of a volume are read, where they lie, and what 3-D images of masks, labels and ncsnr may hold."""

import itertools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.nifti import NiftiFile
from braincorl.datasets.space import ALIGNED, check_affine
from braincorl.errors import InputError

logger = logging.getLogger(__name__)

AFFINE_TOLERANCE_MM = 1e-2  # rounding of affines that were stored as quaternions, in single precision
LABEL_TOLERANCE = 1e-3  # rounding of labels that were stored as floats; interpolated ones are farther off
LARGEST_LABEL = 2**31  # whole numbers of 32 bits, as tools of the field read them
LARGEST_CEILING = 0.99  # a voxel without any noise would weigh infinitely
LARGEST_NCSNR = 10  # a noise ceiling of 99 % from a single trial, which no scanner gives


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
    space_code
        NIfTI's code of the space that the affine leads to, as of `VoxelSpace`.

    Raises
    ------
    InputError
        If the affine is not finite or singular.
    """

    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    path: Path
    space_code: int = ALIGNED

    def __post_init__(self) -> None:
        check_affine(self.affine, f"the affine of {self.path}")


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
    image = NiftiFile(path)
    return _one_volume(image), image.affine


def _one_volume(image: NiftiFile) -> npt.NDArray[Any]:
    if len(image.shape) < 3 or any(size != 1 for size in image.shape[3:]):
        raise InputError(f"{image.path} has shape {image.shape}, expected one 3-D volume.")
    return image.read().reshape(image.shape[:3])


def read_mask(path: str | Path) -> Grid:
    """Read a mask: voxels above 0.

    Raises
    ------
    InputError
        If it is missing, not 3-D, empty, or holds negative values.
    FileFormatError
        If it is damaged.
    """
    image = NiftiFile(path)
    return Grid(as_mask(_one_volume(image), Path(path)), image.affine, Path(path), image.space_code or ALIGNED)


def as_mask(values: npt.NDArray[Any], path: Path, *, may_be_empty: bool = False) -> npt.NDArray[np.bool_]:
    """Tell inside from outside: values above 0 are inside, 0 and NaN outside.

    Parameters
    ----------
    values
        Of any shape. More than one value above 0, as in an atlas or a probability map, is told in a warning.
    path
        Where they are from, for messages.
    may_be_empty
        None inside is fine, as in one hemisphere of two.

    Raises
    ------
    InputError
        If none is inside, or some are negative: 0 may then be meant as inside.
    """
    finite = np.where(np.isfinite(values), values, 0)
    mask: npt.NDArray[np.bool_] = finite > 0
    if (finite < 0).any():
        raise InputError(
            f"{path} holds values below 0, such as {finite.min():g}: is it an atlas or a statistic? "
            "A mask is 0 outside and 1 inside."
        )
    if not mask.any():
        if may_be_empty:
            return mask
        raise InputError(f"{path} is an empty mask: every voxel is 0; check that it is the right file.")
    low, high = finite[mask].min(), finite[mask].max()
    if low < high:
        logger.warning(
            "%s is no mask of 0 and 1, it holds values from %g to %g: every voxel above 0 is taken", path, low, high
        )
    return mask


def as_labels(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.int64]:
    """Whole-number labels, of the same shape; NaN becomes 0.

    An image that is stored with a slope gives 1.000001 for 1; values that are further from whole numbers are no labels.

    Raises
    ------
    InputError
        If the values are not whole numbers, or several are negative: one that is stands for outside.
    """
    finite = np.where(np.isfinite(values), values, 0)
    if (np.abs(finite) > LARGEST_LABEL).any():
        raise InputError(
            f"{path} holds values as large as {np.abs(finite).max():g}: expected a mask or integer labels."
        )
    labels: npt.NDArray[np.int64] = np.rint(finite).astype(np.int64)
    off = np.abs(finite - labels)
    if (off > LABEL_TOLERANCE).any():
        raise InputError(
            f"{path} holds values such as {finite.flat[int(off.argmax())]:g}, which are not whole numbers: expected a "
            "mask or integer labels."
        )
    negative = np.unique(labels[labels < 0])
    if negative.size > 1:
        raise InputError(
            f"{path} holds {negative.size} different values below 0, such as {negative[0]}: expected labels above 0."
        )
    return labels


def ncsnr_of_ceiling(ceiling: npt.NDArray[np.float64], mean_inverse: float) -> npt.NDArray[np.float64]:
    """Signal over noise standard deviation of a single trial, from noise ceilings of means over repeats.

    Parameters
    ----------
    ceiling
        Of R², between 0 and 1 (n_voxels,).
    mean_inverse
        Mean of 1 / repeats over the images that it is for.

    Returns
    -------
    ndarray of shape (n_voxels,)
    """
    share = np.minimum(ceiling, LARGEST_CEILING)
    return np.asarray(np.sqrt(share / (1 - share) * mean_inverse))


def check_ncsnr(signal: npt.NDArray[np.float64], path: Path) -> npt.NDArray[np.float64]:
    """Refuse a map that cannot be signal over noise standard deviations of single trials.

    Raises
    ------
    InputError
        If it is nowhere finite, negative somewhere, as large as noise ceilings in percent are, or a mask.
    """
    if "ceiling" in path.name.lower() and "snr" not in path.name.lower():
        raise InputError(
            f"{path} is a map of noise ceilings by its name, but an ncsnr map is a ratio of standard deviations: "
            "ceiling / (1 - ceiling) is its square for single trials."
        )
    finite = signal[np.isfinite(signal)]
    if finite.size == 0:
        raise InputError(f"{path} holds no finite value in the mask: check that it belongs to this person.")
    if finite.min() < 0:
        raise InputError(f"{path} holds negative values, but an ncsnr map is a ratio of standard deviations.")
    if finite.max() > LARGEST_NCSNR:
        raise InputError(
            f"{path} holds values up to {finite.max():.4g}, but the signal of a single trial is no {LARGEST_NCSNR} "
            "times its noise: are these noise ceilings in percent? An ncsnr map is a ratio of standard deviations."
        )
    if np.isin(finite, (0, 1)).all() and finite.any():
        raise InputError(
            f"{path} holds nothing but 0 and 1, as a mask does, but an ncsnr map is a ratio of standard deviations: "
            "pass that map, or leave it out."
        )
    return signal


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
    if not distance <= AFFINE_TOLERANCE_MM:  # NaN is no distance
        raise InputError(
            f"{path} and the mask {grid.path} have different affines: they place the same voxel up to "
            f"{distance:.3g} mm apart; use a mask in the space of the betas."
        )
