"""`RidgeEncoder`: the fair baseline, ridge regression with its own cross-validated α for every voxel."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold

from braincorl.closed_forms.ridge_solver import solve_ridge
from braincorl.encoders.base import LinearEncoder, unknown_if_constant
from braincorl.errors import InputError
from braincorl.validation import check_batch_size


class RidgeEncoder(LinearEncoder):
    """Voxelwise ridge regression, its regularisation chosen for each voxel by cross-validation.

    With α_v the value that predicts the left-out responses of voxel v best, on all images,

        w_v, b_v = argmin Σ_i (y_iv - b - x_iᵀw)² + α_v wᵀw

    See `braincorl.closed_forms.ridge_solver` for how all voxels and values share one decomposition.

    Parameters
    ----------
    alphas : "auto" or array-like
        Regularisation values to choose from. "auto" is 0.1 to 10⁶ times the mean squared length of a centred
        feature vector; pass smaller ones for responses cleaner than fMRI's.
    cv : "loo" or int
        Leave-one-out in closed form, or the number of folds of a K-fold split in the given order of images.
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory and changes no result.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights.
    intercept_ : ndarray of shape (n_voxels,)
        Intercepts.
    alpha_ : ndarray of shape (n_voxels,)
        Chosen regularisation.
    cv_r2_ : ndarray of shape (n_voxels,)
        Cross-validated R² at the chosen α; a little optimistic, since the α was chosen on it. NaN for constant voxels.
    noise_variance_ : ndarray of shape (n_voxels,)
        Residual variance, over residual degrees of freedom.
    alpha_limits_ : ndarray of shape (2,), or None
        Smallest and largest regularisation that there was to choose from; None where an earlier version fitted.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((50, 8)), rng.standard_normal((3, 8))
    >>> RidgeEncoder().fit(X, X @ W.T).coef_.shape
    (3, 8)
    """

    _array_names = ("coef_", "intercept_", "noise_variance_", "alpha_", "cv_r2_")
    voxel_axes: ClassVar = dict.fromkeys(("coef", "intercept", "noise_variance", "alpha", "cv_r2"), 0)

    alpha_limits_: npt.NDArray[np.floating] | None

    def __init__(self, alphas: Any = "auto", cv: int | str = "loo", voxel_batch_size: int | str = "auto") -> None:
        self.alphas = alphas
        self.cv = cv
        self.voxel_batch_size = voxel_batch_size

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit every voxel.

        Parameters
        ----------
        X
            Features (n_images, n_features), any scale.
        y
            Responses (n_images, n_voxels), any unit.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If shapes do not match, values are not finite, or a parameter is impossible.
        """
        check_batch_size(self.voxel_batch_size)
        features, responses = self._check_fit(X, y)
        found = solve_ridge(
            features,
            responses,
            alphas=self._grid(),
            folds=self._folds(len(features)),
            voxel_batch_size=self.voxel_batch_size,
        )
        self.coef_, self.intercept_ = found.coef, found.intercept
        self.noise_variance_ = unknown_if_constant(found.noise_variance)
        self.alpha_, self.alpha_limits_, self.cv_r2_ = found.alpha, found.alpha_limits, found.cv_r2
        return self

    def _grid(self) -> npt.NDArray[np.float64] | None:
        if isinstance(self.alphas, str):
            if self.alphas != "auto":
                raise InputError(f"alphas must be 'auto' or positive numbers, but is {self.alphas!r}.")
            return None
        grid = np.atleast_1d(np.asarray(self.alphas, dtype=np.float64))
        if grid.ndim != 1 or grid.size == 0 or not (np.isfinite(grid) & (grid > 0)).all():
            raise InputError("alphas must be positive, finite numbers in one dimension.")
        return grid

    def _folds(self, n_images: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] | None:
        if self.cv == "loo":
            return None
        if not isinstance(self.cv, int | np.integer) or not self.cv >= 2:
            raise InputError(f"cv must be 'loo' or a number of folds of at least 2, but is {self.cv!r}.")
        if self.cv > n_images // 2:
            return None  # folds of one image are leave-one-out; of one or two, too few to tell them from it
        return list(KFold(int(self.cv)).split(np.empty((n_images, 1))))

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return super()._arrays() | ({} if self.alpha_limits_ is None else {"alpha_limits": self.alpha_limits_})

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.alpha_limits_ = arrays.get("alpha_limits")
