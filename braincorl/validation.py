"""Checks of arrays that users pass in: shapes, finiteness, and the mistakes that are easy to make.

Images are on axis 0 and voxels on axis 1, everywhere.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError

FloatArray = npt.NDArray[np.floating[Any]]


def check_finite(array: FloatArray, name: str) -> None:
    """Refuse NaN and infinity.

    Raises
    ------
    InputError
        Naming the array and how many of its columns are concerned.
    """
    # A sum is finite only if every term is (or on overflow, which the slow path sorts out): one pass, no temporary.
    with np.errstate(all="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    finite = np.isfinite(array)
    if finite.all():
        return
    kind = "infinity" if not np.isnan(array).any() else "NaN"
    where = f" in {int((~finite.all(axis=0)).sum())} of its {array.shape[1]} columns" if array.ndim == 2 else ""
    raise InputError(f"{name} contains {kind}{where}: leave those voxels or images out first.")


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


def check_batch_size(size: int | str) -> int | None:
    """Refuse an impossible `voxel_batch_size`.

    Parameters
    ----------
    size
        Voxels at a time, or "auto".

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
        raise InputError(f"voxel_batch_size must be 'auto' or a positive integer, but is {size!r}.")
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
