"""What encoders by attention share as estimators: fitted state, predictive spread, regions, files."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.attention_posterior import (
    AttentionPosterior,
    predictive_std,
)
from braincorl.closed_forms.stored import posterior_arrays, restore_posterior
from braincorl.encoders.base import LinearEncoder, unknown_if_constant
from braincorl.errors import InputError
from braincorl.priors import GroupPrior, load_prior
from braincorl.validation import FloatArray

if TYPE_CHECKING:  # PyTorch takes seconds to import, and predicting needs none
    from braincorl.encoders.by_attention import AttentionFit


class AttendingEncoder(LinearEncoder):
    """Base of `GroupPriorEncoder` and `InContextEncoder`.

    Attributes
    ----------
    posterior_ : AttentionPosterior
        What `predict(return_std=True)` reads.
    signal_fraction_ : ndarray of shape (n_voxels,)
        Posterior mean of r, the share of response variance that the features explain.
    region_probability_ : ndarray of shape (n_voxels, n_regions)
        Probability that the voxel is like those of each region that the prior knows; no columns if it knows none.
    region_names_ : ndarray of shape (n_regions,)
        Names of these regions.
    image_weight_ : ndarray of shape (n_images,)
        Relative precision of each image; below 1 where the responses of all voxels were off.
    """

    _state_names = ("signal_fraction_", "region_probability_", "image_weight_", "context_rows_", "context_mean_")

    posterior_: AttentionPosterior
    signal_fraction_: FloatArray
    region_probability_: FloatArray
    region_names_: npt.NDArray[np.str_]
    image_weight_: npt.NDArray[np.float64]
    context_rows_: FloatArray
    context_mean_: FloatArray

    @property
    def n_context_(self) -> int:
        """Images that were read."""
        return int(self.posterior_.n_images)

    def _keep(self, fit: "AttentionFit", region_names: tuple[str, ...]) -> None:
        """Store what was written."""
        self.coef_, self.intercept_, self.posterior_ = fit.coef, fit.intercept, fit.posterior
        self.noise_variance_ = unknown_if_constant(fit.posterior.noise_variance)
        self.signal_fraction_ = fit.posterior.signal_fraction
        self.region_probability_, self.region_names_ = fit.region_probability, np.array(region_names, dtype=np.str_)
        self.image_weight_ = fit.image_weight
        self.context_rows_, self.context_mean_ = fit.context_rows, fit.posterior.mean

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        return predictive_std(self.posterior_, X)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        stored = {name.rstrip("_"): np.asarray(getattr(self, name)) for name in self._state_names}
        names = np.frombuffer(json.dumps(self.region_names_.tolist()).encode(), dtype=np.uint8)
        return super()._arrays() | stored | posterior_arrays(self.posterior_) | {"region_names": names}

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.posterior_ = restore_posterior(AttentionPosterior, arrays)
        self._restore_named(arrays, (*self._state_names, "region_names_"))
        self.region_names_ = np.array(json.loads(arrays["region_names"].tobytes()), dtype=np.str_)

    def _header_parameters(self) -> dict[str, Any]:
        # A memory can be larger than all encoders; the fitted encoder needs it no more.
        return super()._header_parameters() | ({"prior": None} if "prior" in self.get_params(deep=False) else {})


def read_prior(prior: Any, n_features: int) -> GroupPrior:
    """Give a prior, by itself, its file or its name, in the feature space of the context.

    Raises
    ------
    InputError
        If there is none, or it is of another feature space.
    """
    if prior is None:
        raise InputError("prior is None: pass a GroupPrior, its file, or the name of a shipped one.")
    found = load_prior(prior)
    if n_features != found.n_features:
        raise InputError(
            f"X has {n_features} features but the prior was learned with {found.n_features}: "
            "embed the images with the prior's backbone, or learn a prior in this feature space."
        )
    return found


def remembered(
    prior: GroupPrior, X_pool: npt.ArrayLike | None, rois: npt.ArrayLike | None, positions: Any, n_voxels: int
) -> dict[str, Any]:
    """Give what `fit_by_attention` reads of a memory for a person's voxels; parameters as of an encoder's `fit`."""
    covariance = prior.covariance_of(X_pool)
    return {
        "scale": 1.0 / float(np.trace(covariance)),
        "items": prior.items(X_pool),
        "covariance": covariance,
        "region": prior.region_index(rois, n_voxels),
        "nearby": prior.nearby(positions, n_voxels),
    }
