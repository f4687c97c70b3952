"""Places of voxels in a space that people share: coordinates, or grayordinates by number."""

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from braincorl.errors import InputError

# Remembered voxels that a voxel may attend to; with a Gaussian of 1.5 spacings those further away count for little.
NEIGHBOURS = 128
# Standard deviation of the Gaussian in distance, in distances between neighbouring voxels of one person.
WIDTH = 1.5
# Grayordinates have no distances: the same number is the same place, and any other is another.
_SPACING_OF_NUMBERS = 0.1


def check_places(positions: npt.ArrayLike, n_voxels: int, name: str) -> npt.NDArray[np.float64]:
    """Give places as coordinates (n_voxels, 3), or numbers of grayordinates as (n_voxels, 1).

    Raises
    ------
    InputError
        If there is not one place for each voxel, or a coordinate is not finite.
    """
    places = np.asarray(positions)
    if places.ndim == 1 and np.issubdtype(places.dtype, np.integer):
        places = places[:, None]
    elif places.ndim != 2 or places.shape[1] != 3:
        raise InputError(
            f"{name} has shape {places.shape} and type {places.dtype}: pass coordinates (n_voxels, 3) in a common "
            "space, or whole numbers of grayordinates (n_voxels,)."
        )
    if len(places) != n_voxels:
        raise InputError(f"{name} has {len(places)} places for {n_voxels} voxels: one per voxel.")
    places = places.astype(np.float64)
    if not np.isfinite(places).all():
        raise InputError(f"{name} contains NaN or infinity: leave voxels without a place out.")
    return places


def spacing(places: npt.NDArray[np.float64]) -> float:
    """Median distance from a voxel of one person to the nearest other (n_voxels, d)."""
    if places.shape[1] == 1:
        return _SPACING_OF_NUMBERS
    if len(places) < 2:
        return 1.0
    distance = np.asarray(cKDTree(places).query(places, k=2)[0])
    median = float(np.median(distance[:, 1]))
    return median if median > 0 else 1.0


def neighbours(
    remembered: npt.NDArray[np.float64], places: npt.NDArray[np.float64], width: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Find the remembered voxels around each place.

    Parameters
    ----------
    remembered
        Places of items (j, d).
    places
        Of the new person's voxels (v, d).
    width
        Standard deviation of the Gaussian in distance.

    Returns
    -------
    index : ndarray of shape (v, m)
        The m nearest items.
    log_weight : ndarray of shape (v, m)
        -distance² / 2 width², from 0 for the nearest.

    Raises
    ------
    InputError
        If one is coordinates and the other numbers of grayordinates.
    """
    if remembered.shape[1] != places.shape[1]:
        raise InputError(
            "positions are of another kind than the prior's: pass coordinates where it has coordinates, numbers of "
            "grayordinates where it has these."
        )
    count = min(NEIGHBOURS, len(remembered))
    distance, index = map(np.asarray, cKDTree(remembered).query(places, k=np.arange(1, count + 1)))
    log_weight = -0.5 * (distance / width) ** 2
    return index.astype(np.intp), log_weight - log_weight.max(axis=1, keepdims=True)
