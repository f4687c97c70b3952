"""Z-scoring within sessions: each voxel to mean 0 and standard deviation 1 over all trials of a session.

Sums are taken around the session's first trial, and trials are scaled as distances from it, so that a large baseline
costs no digits.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError

# A variance below this share of the mean square around the first trial is rounding, not response.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class SessionScaling:
    """How a session's trials are scaled.

    Attributes
    ----------
    origin
        The session's first trial (n_voxels,).
    mean
        Mean distance from it (n_voxels,).
    inverse_sd
        1 / standard deviation (n_voxels,), NaN for constant voxels.
    """

    origin: npt.NDArray[np.float32]
    mean: npt.NDArray[np.float32]
    inverse_sd: npt.NDArray[np.float32]

    def apply(self, trials: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scale trials (n_voxels,) or (n_trials, n_voxels)."""
        return ((trials - self.origin) - self.mean) * self.inverse_sd


class SessionMoments:
    """Sums over a session's trials, from which its scaling follows.

    Parameters
    ----------
    origin
        The session's first trial (n_voxels,); it is to be added like the others.
    """

    def __init__(self, origin: npt.NDArray[np.float32]) -> None:
        self._origin = np.array(origin)
        self._n = 0
        self._sums = np.zeros(origin.size)
        self._squares = np.zeros(origin.size)

    def add(self, trials: npt.NDArray[np.float32]) -> None:
        """Count trials (n_trials, n_voxels)."""
        distance = (trials - self._origin).astype(np.float64)
        self._n += len(distance)
        self._sums += distance.sum(axis=0)
        self._squares += np.einsum("tv,tv->v", distance, distance)

    def scaling(self, session: str) -> SessionScaling:
        """Scaling of the session, once all of its trials are added.

        Parameters
        ----------
        session
            Its name, for messages.

        Raises
        ------
        InputError
            If it has one trial only.
        """
        if self._n < 2:
            raise InputError(f"session '{session}' has one trial, which cannot be z-scored: pass zscore='none'.")
        mean, mean_square = self._sums / self._n, self._squares / self._n
        variance = mean_square - mean**2
        # A voxel that is constant within a session carries no response there: NaN keeps it out of the fit.
        constant = variance <= _ROUNDING * np.maximum(mean_square, np.finfo(np.float64).tiny)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(constant, np.nan, 1.0 / np.sqrt(variance))
        return SessionScaling(self._origin, mean.astype(np.float32), inverse.astype(np.float32))
