"""`GroupPriorEncoder`: the posterior of every voxel under a prior learned from other people, hedged."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.evidence import fit_good_images
from braincorl.errors import FileFormatError, InputError
from braincorl.priors import GroupPrior, load_prior
from braincorl.priors.components import Components
from braincorl.priors.context import Context, context_from_arrays, reduce_context
from braincorl.priors.hedge import blend, share_without_prior
from braincorl.priors.images import count_seen
from braincorl.priors.neighbours import (
    WIDTH,
    check_positions,
    check_smoothness,
    choose_smoothness,
    component_evidence,
    context_halves,
    neighbour_weights,
    smooth_log_weight,
)
from braincorl.priors.person import update_levels, with_shared_scale
from braincorl.priors.predictive import predictive_std, solve_mixture
from braincorl.priors.regions import index_labels
from braincorl.priors.robust import image_weights
from braincorl.validation import FloatArray, as_float, check_batch_size, check_finite, check_real


class GroupPriorEncoder(LinearEncoder):
    """Voxelwise encoder that starts from what other people's voxels are like.

    Each voxel is one of a few kinds, each a Gaussian over weights; kind, noise level and weights are inferred together,
    in closed form, and averaged by their evidence. Usable from no image at all if regions are known.

    Parameters
    ----------
    prior : GroupPrior, path or name
        A learned prior, its file, or the name of a shipped one.
    robust : bool
        Let images count for less in which the responses of all voxels are off.
    hedge : bool
        Average the posterior mean with Bayesian ridge, which knows no earlier people: 40 % of it, 25 % where the region
        is known, more where the earlier people saw few images and the same ones (`braincorl.priors.hedge`). Without it,
        and with fewer than two images, the encoder is the exact posterior mean under the prior.
    smoothness : "auto" or float
        How much a voxel's kind is expected to be that of its neighbours, from 0 (not at all) to below 1, if `fit` is
        given positions and the voxel's region is unknown. "auto" is chosen on the context, and 0 where neighbours do
        not help.
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory and changes no result.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights: posterior mean, hedged.
    intercept_ : ndarray of shape (n_voxels,)
        Intercepts, likewise.
    noise_variance_ : ndarray of shape (n_voxels,)
        Posterior mean variance of one response around the encoder.
    signal_fraction_ : ndarray of shape (n_voxels,)
        Posterior mean of r, the share of response variance that the features explain.
    responsibility_ : ndarray of shape (n_voxels, n_components)
        Probability that the voxel is of each kind; the last is "none of them".
    smoothness_ : float
        How much neighbours counted.
    image_weight_ : ndarray of shape (n_images,)
        Relative precision of each image; below 1 where the responses of all voxels were off.
    context_ : Context
        Sufficient statistics of the context, which `predict(return_std=True)` and `GroupPrior.fit` read.

    Examples
    --------
    >>> import numpy as np
    >>> from braincorl import GroupPrior
    >>> rng = np.random.default_rng(0)
    >>> kinds = rng.standard_normal((8, 2))
    >>> def person(n_images):
    ...     X = rng.standard_normal((n_images, 8))
    ...     signal = X @ kinds @ rng.standard_normal((2, 30))
    ...     return X, signal + rng.standard_normal(signal.shape)
    >>> prior = GroupPrior.fit([person(60), person(50)], n_components=1)
    >>> X, y = person(6)
    >>> GroupPriorEncoder(prior).fit(X, y).coef_.shape
    (30, 8)
    """

    uses_pool = False  # it can take one, but the prior has its own
    _array_names = ("coef_", "intercept_", "noise_variance_", "signal_fraction_", "responsibility_", "image_weight_")

    def __init__(
        self,
        prior: Any,
        robust: bool = True,
        hedge: bool = True,
        smoothness: float | str = "auto",
        voxel_batch_size: int | str = "auto",
    ) -> None:
        self.prior = prior
        self.robust = robust
        self.hedge = hedge
        self.smoothness = smoothness
        self.voxel_batch_size = voxel_batch_size

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        X_pool: npt.ArrayLike | None = None,
        rois: npt.ArrayLike | None = None,
        positions: npt.ArrayLike | None = None,
    ) -> Self:
        """Fit every voxel.

        Parameters
        ----------
        X
            Features of the context (n_images, n_features). With no image or one, the prior is the encoder; responses
            are then in units of their standard deviation.
        y
            Responses (n_images, n_voxels), any unit.
        X_pool
            Features of any images (n_pool, n_features), no responses needed, over which a voxel's signal has unit
            variance. By default the images that the prior was learned with.
        rois
            One region label per voxel (n_voxels,), "" where unknown.
        positions
            Grid coordinates of the voxels (n_voxels, 3), such as `np.argwhere(mask)`; without them voxels have no
            neighbours.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If shapes do not match, values are not finite, or the prior is of another feature space.
        """
        check_batch_size(self.voxel_batch_size)
        prior = load_prior(self.prior)
        features, responses = self._check_few(X, y)
        if features.shape[1] != prior.n_features:
            raise InputError(
                f"X has {features.shape[1]} features but the prior was learned with {prior.n_features}: "
                "embed the images with the prior's backbone, or learn a prior in this feature space."
            )
        check_smoothness(self.smoothness)
        self.prior_ = prior
        self.log_weight_ = prior.log_weight(rois, responses.shape[1])
        components = prior.for_pool(X_pool)
        alike = np.ones(features.shape[0])
        self.image_weight_ = image_weights(features, responses, components) if self.robust else alike
        self.context_ = with_shared_scale(reduce_context(features, responses, self.image_weight_))
        self.components_ = update_levels(self.context_, components, self.log_weight_)
        self.smoothness_ = 0.0
        if positions is not None:
            self._smooth(features, responses, positions, rois)
        self.feature_mean_ = prior.feature_mean if X_pool is None else np.asarray(X_pool).mean(axis=0, dtype=np.float64)
        posterior = solve_mixture(
            self.context_, self.components_, self.log_weight_, self.feature_mean_, self.voxel_batch_size
        )
        for part in fields(posterior):
            setattr(self, f"{part.name}_", getattr(posterior, part.name))
        if self.hedge and len(features) > 1:
            self._hedge(features, responses, self.known_regions(rois, responses.shape[1]))
        return self

    def _hedge(self, X: FloatArray, y: FloatArray, known: npt.NDArray[np.bool_]) -> None:
        """Average with an encoder that knows no earlier people."""
        coef, intercept, _ = fit_good_images(X, y, self.scale_, self.image_weight_, self.voxel_batch_size)
        share = self.share_without_prior(known)
        self.coef_, self.intercept_ = blend(self.coef_, coef, share), blend(self.intercept_, intercept, share)

    @property
    def scale_(self) -> float:
        """Variance of isotropic weights of unit signal over the pool: what Bayesian ridge starts from."""
        return float(self.components_.floor[-1])

    def share_without_prior(self, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """How much of each voxel's encoder is to come from a method that knows no prior.

        Parameters
        ----------
        known
            Whether the region of each voxel is known (n_voxels,).

        Returns
        -------
        ndarray of shape (n_voxels,)
        """
        taught = self.prior_.image_digests
        return share_without_prior(known, count_seen(self.image_digests_, taught), taught.size)

    def known_regions(self, rois: npt.ArrayLike | None, n_voxels: int) -> npt.NDArray[np.bool_]:
        """Whether the prior of a fitted encoder knows the region of each voxel.

        Parameters
        ----------
        rois
            One label per voxel (n_voxels,), or None.
        n_voxels
            Number of voxels.

        Returns
        -------
        ndarray of shape (n_voxels,)
        """
        if rois is None:
            return np.zeros(n_voxels, dtype=bool)
        known: npt.NDArray[np.bool_] = index_labels(rois, self.prior_.regions, n_voxels, "rois") >= 0
        return known

    def _smooth(self, X: FloatArray, y: FloatArray, positions: npt.ArrayLike, rois: npt.ArrayLike | None) -> None:
        """Let neighbours inform the log weights of the components."""
        places = check_positions(positions, y.shape[1])
        known = self.known_regions(rois, y.shape[1])
        if self.smoothness == "auto":
            halves = context_halves(X, y, self.image_weight_)
            share, width = choose_smoothness(halves, self.components_, self.log_weight_, places, known)
        else:
            share, width = float(self.smoothness), WIDTH
        if share > 0:
            evidence = component_evidence(self.context_, self.components_)
            weights = neighbour_weights(places, width)
            self.log_weight_ = smooth_log_weight(evidence, self.log_weight_, weights, share, known)
        self.smoothness_ = share

    def _check_few(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Check as `_check_fit` does, but let contexts of no image or one pass."""
        features, responses = np.asarray(X), np.asarray(y)
        if features.ndim != 2 or features.shape[0] >= 2 or responses.ndim != 2:
            return self._check_fit(X, y)
        if features.shape[0] != responses.shape[0]:
            raise InputError(f"X has {features.shape[0]} images but y has {responses.shape[0]}: both index images.")
        for array, name in ((features, "X"), (responses, "y")):
            check_real(array, name)
        features, responses = as_float(features), as_float(responses)
        check_finite(features, "X")
        self.n_features_in_, self._one_voxel = features.shape[1], False
        return self._checked_pair(features, responses)

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        std = predictive_std(
            self.context_, self.components_, self.log_weight_, self.feature_mean_, X, self.voxel_batch_size
        )
        return std * std.dtype.type(self.prior_.widening)

    def _header_parameters(self) -> dict[str, Any]:
        return super()._header_parameters() | {"prior": None}  # the prior itself is among the arrays

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays, header = self.prior_.to_arrays()
        stored = {f"prior.{name}": array for name, array in arrays.items()} | {
            "prior_header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        }
        stored |= {f"context.{f.name}": np.asarray(getattr(self.context_, f.name)) for f in fields(Context)}
        stored |= {f"components.{f.name}": getattr(self.components_, f.name) for f in fields(Components)}
        stored |= {"log_weight": self.log_weight_, "feature_mean": self.feature_mean_}
        return super()._arrays() | stored

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        try:
            parts = {f.name: arrays[f"context.{f.name}"] for f in fields(Context)}
            self.components_ = Components(**{f.name: arrays[f"components.{f.name}"] for f in fields(Components)})
            self.log_weight_, self.feature_mean_ = arrays["log_weight"], arrays["feature_mean"]
            header = json.loads(arrays["prior_header"].tobytes().decode())
        except KeyError as error:
            raise FileFormatError(f"The encoder file holds no {error}: it is incomplete.") from error
        self.context_ = context_from_arrays(parts)
        stored = {name.removeprefix("prior."): a for name, a in arrays.items() if name.startswith("prior.")}
        self.prior = self.prior_ = GroupPrior.from_arrays(stored, header)
