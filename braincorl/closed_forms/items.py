"""Remembered voxels as attention reads them: weights, what they stand for, and who is near whom.

Letters: j items, p features, v voxels of the new person, m neighbours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Items:
    """Remembered voxels.

    Attributes
    ----------
    weights
        u (j, p), of unit signal over the pool.
    log_mass
        Log of the share of all remembered voxels that an item stands for (j,).
    moment
        Second moment of the remembered weights (p, p), of unit signal.
    region
        Index of its region (j,), -1 where unknown.
    n_regions
        R.
    """

    weights: npt.NDArray[np.float64]
    log_mass: npt.NDArray[np.float64]
    moment: npt.NDArray[np.float64]
    region: npt.NDArray[np.intp]
    n_regions: int

    def in_region(self, region: int, elsewhere: float) -> "Items":
        """Remember what a voxel of a known region would: items of other regions count for less.

        Parameters
        ----------
        region
            Index; -1 where it is unknown, and all items count.
        elsewhere
            Log of how much those of other regions count for.

        Returns
        -------
        Items
            Masses, and the second moment, with the items counted so.
        """
        if region < 0 or not (self.region == region).any():
            return self
        log_mass = self.log_mass + elsewhere * (self.region != region)
        log_mass = log_mass - np.logaddexp.reduce(log_mass)
        moment = (self.weights * np.exp(log_mass)[:, None]).T @ self.weights
        return Items(self.weights, log_mass, moment, self.region, self.n_regions)


@dataclass(frozen=True)
class Nearby:
    """For every voxel of the new person the remembered voxels around its place.

    Attributes
    ----------
    index
        Items (v, m).
    log_weight
        One array (v, m) for each width that neighbourhoods may have: log of the Gaussian in distance.
    """

    index: npt.NDArray[np.intp]
    log_weight: tuple[npt.NDArray[np.float64], ...]

    def of(self, voxels: npt.NDArray[np.intp]) -> "Nearby":
        """Keep some voxels, by index."""
        return Nearby(self.index[voxels], tuple(weight[voxels] for weight in self.log_weight))
