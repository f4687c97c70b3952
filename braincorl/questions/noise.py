"""Noise that voxels share: low rank plus diagonal, shrunk.

Residuals e (n, v) of one person's responses, standardised per voxel, have the sample correlation C = Eᵀ E / n, of rank
at most n with thousands of voxels. It is shrunk towards independent noise,

    R = (1 - λ) C + λ I = λ I + A Aᵀ        A = √((1 - λ) / n) Eᵀ

with λ of Ledoit and Wolf, which minimises the expected squared error and needs only the Gram matrix E Eᵀ (n, n). So R
is diagonal plus low rank, and its inverse and determinant cost n² v, whatever the number of voxels.

Letters: n residuals, v voxels, t rows.

References
----------
Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, Journal of Multivariate Analysis
88 (2004); Kay, Naselaris, Prenger & Gallant, Identifying natural images from human brain activity, Nature 452 (2008).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_finite

Array = npt.NDArray[np.float64]

_LEAST_SHRINKAGE = 1e-3  # of noise that is one component exactly, whose inverse would be infinite


@dataclass(frozen=True)
class NoiseModel:
    """Correlation of noise between voxels, R = shrinkage I + factors factorsᵀ.

    Attributes
    ----------
    factors
        A (v, k).
    shrinkage
        λ, from 0 to 1: 1 is independent noise.
    source
        What it was estimated from, for people.
    """

    factors: Array
    shrinkage: float
    source: str = ""

    @classmethod
    def independent(cls, n_voxels: int) -> "NoiseModel":
        """Noise that voxels do not share."""
        return cls(np.zeros((n_voxels, 0)), 1.0, "assumed to be independent")

    @classmethod
    def of(cls, residuals: npt.ArrayLike, source: str = "residuals") -> "NoiseModel":
        """Estimate from residuals (n, v) in any unit, of mean about 0; voxels that do not vary count as independent.

        Raises
        ------
        InputError
            If there are fewer than three, or a value is not finite.
        """
        e = np.asarray(residuals, dtype=np.float64)
        if e.ndim != 2 or e.shape[0] < 3:
            raise InputError(f"residuals has shape {e.shape}: expected (n, n_voxels) with at least three rows.")
        check_finite(e, "residuals")
        n = len(e)
        scale = np.sqrt(np.mean(e**2, axis=0))
        e = e / np.where(scale > 0, scale, np.inf)
        shrinkage = max(ledoit_wolf(e), _LEAST_SHRINKAGE)
        return cls(np.sqrt((1 - shrinkage) / n) * e.T, shrinkage, source)

    def select(self, voxels: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> "NoiseModel":
        """Keep some voxels."""
        return NoiseModel(self.factors[voxels], self.shrinkage, self.source)

    def variance_along(self, directions: FloatArray) -> tuple[float, float]:
        """Sum over directions (t, v) of the variance of independent and of this noise: Σ aᵀa and Σ aᵀRa."""
        plain = float(np.square(directions).sum())
        return plain, self.shrinkage * plain + float(np.square(directions @ self.factors).sum())

    def whiten(self, rows: FloatArray) -> Array:
        """Turn rows (t, v) of covariance R into rows of covariance I: rows R^-½."""
        if self.factors.shape[1] == 0:
            return np.asarray(rows / np.sqrt(self.shrinkage), dtype=np.float64)
        values, left = self._axes
        # Along the orthonormal columns of `left` the variance is λ + value, elsewhere λ.
        plain = 1.0 / np.sqrt(self.shrinkage)
        along = 1.0 / np.sqrt(self.shrinkage + values) - plain
        return np.asarray(plain * rows + ((rows @ left) * along) @ left.T)

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        """Eigenvalues of A Aᵀ and their vectors (v, k)."""
        values, right = scipy.linalg.eigh(self.factors.T @ self.factors, check_finite=False)
        kept = values > 1e-12 * max(float(values[-1]), 1e-300)
        return values[kept], self.factors @ (right[:, kept] / np.sqrt(values[kept]))


def ledoit_wolf(standard: Array) -> float:
    """Best weight of the mean variance times the identity, from rows (n, v) of mean 0, by their smaller Gram matrix."""
    n, n_voxels = standard.shape
    gram = standard @ standard.T if n <= n_voxels else standard.T @ standard
    lengths = np.square(standard).sum(axis=1)
    mu = float(lengths.sum()) / n / n_voxels
    squared = float(np.square(gram).sum()) / n**2  # |C|²
    distance = squared - n_voxels * mu**2
    error = (float(np.square(lengths).sum()) / n - squared) / n
    return float(np.clip(error / distance, 0.0, 1.0)) if distance > 0 else 1.0
