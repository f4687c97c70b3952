"""Checks of arrays that users pass in: shapes, finiteness, and the mistakes that are easy to make.

Images are on axis 0 and voxels on axis 1, everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError

FloatArray = npt.NDArray[np.floating[Any]]

# Of arithmetic; "auto" is left to whoever knows the hardware.
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
SHORT = {"bf16": "bfloat16"}  # as the field says


def spell_precision(precision: str, among: Sequence[str] = PRECISIONS) -> str:
    """Give a precision its one name: "bf16" is "bfloat16".

    Raises
    ------
    InputError
        If it is none of `among`.
    """
    name = SHORT.get(precision, precision)
    if name not in among:
        raise InputError(f"precision must be one of {', '.join(among)}, but is {precision!r}.")
    return name


# Sizes of numbers whose squares, summed over images and features and times a regularisation of 10⁶, a type can hold.
SIZES = {np.dtype(np.float32): (1e-15, 1e12), np.dtype(np.float64): (1e-150, 1e140)}


def check_finite(array: FloatArray, name: str) -> None:
    """Refuse NaN, infinity, and numbers so large that their squares are infinite.

    Raises
    ------
    InputError
        Naming the array, and how many of its columns are concerned or the largest number.
    """
    if array.size == 0:
        return
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = np.isfinite(array)
        kind = "infinity" if not np.isnan(array).any() else "NaN"
        where = f" in {int((~finite.all(axis=0)).sum())} of its {array.shape[1]} columns" if array.ndim == 2 else ""
        raise InputError(f"{name} contains {kind}{where}: leave those voxels or images out first.")
    largest = max(float(high), -float(low))
    if array.dtype in SIZES and largest > SIZES[array.dtype][1]:
        raise InputError(
            f"{name} contains {largest:.3g}, but numbers above {SIZES[array.dtype][1]:g} in {array.dtype} have squares "
            "that overflow: divide by a constant, or leave that voxel or image out."
        )


def check_not_tiny(array: FloatArray, name: str, axis: int | None = None) -> None:
    """Refuse numbers so small that their squares vanish; zeros alone may pass.

    Parameters
    ----------
    array
        Of any shape, finite.
    name
        For the message.
    axis
        0 to ask it of every column, None of the array as a whole.

    Raises
    ------
    InputError
        Naming the array and the size of its numbers.
    """
    if array.size == 0 or array.dtype not in SIZES:
        return
    largest = np.asarray(np.maximum(array.max(axis=axis), -array.min(axis=axis)))
    tiny = (largest > 0) & (largest < SIZES[array.dtype][0])
    if tiny.any():
        where = f" in {int(tiny.sum())} of its {largest.size} columns" if axis == 0 else ""
        raise InputError(
            f"{name} contains nothing above {largest[tiny].max():.3g}{where}, but numbers below "
            f"{SIZES[array.dtype][0]:g} in {array.dtype} have squares that vanish: multiply by a constant."
        )


def as_float(array: npt.NDArray[Any]) -> FloatArray:
    """Keep float32 and float64; turn half precision into float32 and integers into float64."""
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype == np.float16:
        return array.astype(np.float32)
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers, but got an array of type {array.dtype}.") from error


def check_real(array: npt.NDArray[Any], name: str) -> None:
    """Refuse complex numbers.

    Raises
    ------
    InputError
        If the array is complex.
    """
    if np.iscomplexobj(array):
        raise InputError(f"{name} holds complex numbers (Complex data not supported): pass real responses.")


def check_pair(X: FloatArray, y: FloatArray) -> None:
    """Refuse features and responses that do not index the same images.

    Parameters
    ----------
    X
        Features (n_images, n_features).
    y
        Responses (n_images, n_voxels).

    Raises
    ------
    InputError
        If the numbers of images differ, or there are fewer than two.
    """
    if X.shape[0] != y.shape[0]:
        hint = " y looks transposed: pass y.T." if y.ndim == 2 and y.shape[1] == X.shape[0] else ""
        raise InputError(
            f"X has {X.shape[0]} images but y has {y.shape[0]}: both index images on axis 0, "
            f"as in (n_images, n_features) and (n_images, n_voxels).{hint}"
        )
    if X.shape[0] < 2:
        raise InputError(
            f"X has n_samples={X.shape[0]} (1 sample is one image), but an encoder needs at least 2: add images."
        )


def check_pool(X_pool: FloatArray, n_features: int) -> None:
    """Refuse a feature pool of another feature space than the context's.

    Parameters
    ----------
    X_pool
        Features of any images (n_pool, n_features).
    n_features
        Number of features of the context.

    Raises
    ------
    InputError
        If the numbers of features differ.
    """
    if X_pool.ndim != 2 or X_pool.shape[1] != n_features:
        raise InputError(
            f"X_pool has shape {X_pool.shape} but X has {n_features} features: "
            "the pool must come from the same backbone, as (n_pool_images, n_features)."
        )


def check_batch_size(size: int | str, name: str = "voxel_batch_size") -> int | None:
    """Refuse an impossible number of things at a time.

    Parameters
    ----------
    size
        How many, or "auto".
    name
        Of the argument, for the message.

    Returns
    -------
    int or None
        None for "auto".

    Raises
    ------
    InputError
        If it is neither "auto" nor a positive integer.
    """
    if isinstance(size, str) and size == "auto":
        return None
    if isinstance(size, bool | str) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"{name} must be 'auto' or a positive integer, but is {size!r}.")
    return int(size)


def check_same_shape(y_true: FloatArray, y_pred: FloatArray) -> None:
    """Refuse measured and predicted responses of different shapes.

    Raises
    ------
    InputError
        Naming both shapes.
    """
    if y_true.shape != y_pred.shape:
        raise InputError(
            f"y_true has shape {y_true.shape} but y_pred has {y_pred.shape}: both must be (n_images, n_voxels)."
        )
