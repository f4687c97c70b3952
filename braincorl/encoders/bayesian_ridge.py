"""`BayesianRidgeEncoder`: ridge regression averaged over noise levels by their evidence."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.evidence import (
    SIGNAL_GRID,
    EvidencePosterior,
    fit_evidence,
    noise_variance,
    pool_scale,
    predictive_std,
)
from braincorl.closed_forms.stored import posterior_arrays, restore_posterior
from braincorl.encoders.base import LinearEncoder, unknown_if_constant
from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_batch_size


class BayesianRidgeEncoder(LinearEncoder):
    """Voxelwise Bayesian ridge regression that needs no cross-validation and is usable from ten images.

    Each voxel's share of explainable variance r is unknown; the encoder is the mean of the ridge solutions over a grid
    of r, weighted by the evidence of the voxel's own responses. See `braincorl.closed_forms.evidence` for the
    equations.

    Parameters
    ----------
    signal_grid : "auto" or array-like
        Values of r in [0, 1); "auto" is 0 to 0.8 in steps of 0.05.
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory and changes no result.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Posterior mean weights.
    intercept_ : ndarray of shape (n_voxels,)
        Posterior mean intercepts.
    noise_variance_ : ndarray of shape (n_voxels,)
        Posterior mean noise variance of one response.
    signal_fraction_ : ndarray of shape (n_voxels,)
        Posterior mean of r, the share of response variance that the features explain.
    posterior_ : EvidencePosterior
        What `predict(return_std=True)` reads.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((20, 8)), rng.standard_normal((3, 8))
    >>> y, std = BayesianRidgeEncoder().fit(X, X @ W.T).predict(X, return_std=True)
    >>> std.shape
    (20, 3)
    """

    uses_pool = True
    _array_names = ("coef_", "intercept_", "noise_variance_", "signal_fraction_")
    voxel_axes: ClassVar = {
        **dict.fromkeys(("coef", "intercept", "noise_variance", "signal_fraction"), 0),
        **dict.fromkeys(("posterior.probability", "posterior.variance", "posterior.projected"), 1),
    }

    def __init__(self, signal_grid: Any = "auto", voxel_batch_size: int | str = "auto") -> None:
        self.signal_grid = signal_grid
        self.voxel_batch_size = voxel_batch_size

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike, X_pool: npt.ArrayLike | None = None) -> Self:
        """Fit every voxel.

        Parameters
        ----------
        X
            Features of the context (n_images, n_features).
        y
            Responses (n_images, n_voxels), any unit.
        X_pool
            Features of any images (n_pool, n_features), no responses needed: the scale of the prior is set so that
            responses to these vary as measured. By default the context itself.

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
        scale = pool_scale(self._check_pool(X_pool, features))
        self.coef_, self.intercept_, self.posterior_ = fit_evidence(
            features, responses, scale, self._grid(), self.voxel_batch_size
        )
        self.noise_variance_ = unknown_if_constant(noise_variance(self.posterior_))
        # Summed, not multiplied as matrices: a voxel's value then does not depend on how many there are.
        grid = self.posterior_.signal_grid.astype(features.dtype)[:, None]
        self.signal_fraction_ = (grid * self.posterior_.probability).sum(axis=0)
        return self

    def _grid(self) -> npt.NDArray[np.float64]:
        if isinstance(self.signal_grid, str):
            if self.signal_grid != "auto":
                raise InputError(f"signal_grid must be 'auto' or numbers in [0, 1), but is {self.signal_grid!r}.")
            return SIGNAL_GRID
        grid = np.atleast_1d(np.asarray(self.signal_grid, dtype=np.float64))
        if grid.ndim != 1 or grid.size == 0 or not ((grid >= 0) & (grid < 1)).all():
            raise InputError("signal_grid must hold numbers in [0, 1) in one dimension.")
        return grid

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        return predictive_std(self.posterior_, X)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return super()._arrays() | posterior_arrays(self.posterior_)

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.posterior_ = restore_posterior(EvidencePosterior, arrays)
