"""Fewer items than voxels: voxels that are alike, in one region and at one place, become one item that counts for them.

Lloyd's k-means, a few rounds from evenly spread seeds. Which voxels are seeds depends on what they are and not on their
order; the count of an item is its voxels' mass, which attention adds to its logits.

Letters: m voxels, d coordinates, j items.
"""

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches

# Distances over more directions of feature space than this cost time and change no neighbour worth the name.
DIRECTIONS = 64
_ROUNDS = 3  # of moving centres; each costs as much as the first


def cluster(coordinates: npt.NDArray[np.float32], groups: npt.NDArray[np.intp], n_items: int) -> npt.NDArray[np.intp]:
    """Assign voxels to items.

    Parameters
    ----------
    coordinates
        Of every voxel (m, d); Euclidean distance between them is how unlike voxels are.
    groups
        Voxels of different groups never share an item (m,).
    n_items
        About how many items; each group has at least one.

    Returns
    -------
    ndarray of shape (m,)
        Item of every voxel, from 0 without gaps.
    """
    item = np.empty(len(coordinates), dtype=np.intp)
    start = 0
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        count = max(1, round(n_items * members.size / len(coordinates)))
        item[members] = start + _lloyd(coordinates[members], min(count, members.size))
        start = int(item[members].max()) + 1
    return item


def _lloyd(points: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    order = np.lexsort(points.T[::-1])
    centres = points[order[np.linspace(0, len(points) - 1, count).round().astype(np.intp)]]
    nearest = np.zeros(len(points), dtype=np.intp)
    for _ in range(_ROUNDS):
        length = (centres**2).sum(axis=1)
        for part in batches(len(points), 8 * count):
            nearest[part] = (length - 2 * points[part] @ centres.T).argmin(axis=1)
        filled, nearest = np.unique(nearest, return_inverse=True)
        sums = np.zeros((filled.size, points.shape[1]))
        np.add.at(sums, nearest, points)
        centres = (sums / np.bincount(nearest)[:, None]).astype(points.dtype)
    return nearest
