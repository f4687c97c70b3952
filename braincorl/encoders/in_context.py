"""`InContextEncoder`: a network that reads images and responses of a person and writes down the encoder at once.

Two kinds of network serve: the native one, which comes with the package and takes features of any backbone
(`braincorl.encoders.native`), and the published ones, which take features of theirs (`braincorl.encoders.published`).

Shapes: X (n_images, n_features), y (n_images, n_voxels).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.checkpoint import read_checkpoint
from braincorl.encoders.base import LinearEncoder
from braincorl.encoders.evidence import (
    EvidencePosterior,
    fit_good_images,
    noise_variance,
    pool_scale,
    posterior_arrays,
    predictive_std,
    restore_posterior,
)
from braincorl.encoders.group_prior import GroupPriorEncoder
from braincorl.encoders.hedged import mean_of_three
from braincorl.encoders.native import check_precision, fit_native
from braincorl.encoders.published import check_feature_count, check_query_length, feature_length, fit_published
from braincorl.errors import InputError
from braincorl.files import Progress
from braincorl.models import InferenceEngine, NativeTransformer, ReferenceTransformer
from braincorl.models.hardware import resolve_device
from braincorl.priors import load_prior
from braincorl.priors.regions import index_labels
from braincorl.validation import FloatArray, check_batch_size


class InContextEncoder(LinearEncoder):
    """Voxelwise encoder written by an in-context transformer.

    Parameters
    ----------
    checkpoint : name or path
        "default" (the native network that comes with the package: features of any backbone, any number of images ≥ 2),
        or a file: of `braincorl train`, of `braincorl convert`, or the authors' own checkpoint.
    prior : GroupPrior, path or name, optional
        What earlier people's voxels are like, in the same feature space. The encoder is then a mean of three (see
        `braincorl.priors.hedge`): .4 of what the native network writes, .4 of the posterior mean under the prior, .2 of
        what the network writes in the prior's metric; where a voxel's region is known, .25, .75 and 0. The first part
        is larger where the earlier people saw few images and the same ones.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", …
    precision : str
        Of a published network: "auto" (bfloat16 where the device multiplies it natively, else float32), "float32",
        "bfloat16" or "float64". With random network weights, bfloat16 changed weights and predictions by 3 to 9 % in
        norm and an explained variance of .300 by less than .004, and another batch size changed them by 1 to 4 %;
        float32 is within 1e-5. The native network computes in the type of the responses.
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory. "auto" follows the memory.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights.
    intercept_ : ndarray of shape (n_voxels,)
        Intercepts.
    noise_variance_ : ndarray of shape (n_voxels,)
        Variance of a response around the encoder. Of a published network: mean squared residual over the context
        itself, a lower bound, since the network has seen these responses.
    prior_encoder_ : GroupPriorEncoder
        With a prior: the closed form, which also gives the predictive standard deviations.
    posterior_ : EvidencePosterior
        Native network: what the context leaves open, by Bayesian ridge.
    spread_ : ndarray of shape (n_voxels,)
        Native network: factor by which it corrects the standard deviation of that.
    shares_ : ndarray of shape (n_voxels, n_smoothers)
        Native network: how much of each closed form is in the encoder, in the order of
        `braincorl.models.smoothers.NAMES`.
    image_weight_ : ndarray of shape (n_images,)
        Native network: relative precision of each image; below 1 where the responses of all voxels were off.
    feature_length_ : float
        Published network: length by which the features are divided; `predict` refuses features of more than twice it.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((20, 8)), rng.standard_normal((30, 8))
    >>> y, std = InContextEncoder().fit(X, X @ W.T).predict(X, return_std=True)
    >>> std.shape
    (20, 30)
    """

    uses_pool = True
    reports_progress = True
    _native_names = ("spread_", "shares_", "image_weight_")

    prior_encoder_: GroupPriorEncoder
    posterior_: EvidencePosterior
    spread_: FloatArray
    shares_: FloatArray
    image_weight_: FloatArray
    feature_length_: float

    def __init__(
        self,
        checkpoint: str | Path = "default",
        prior: Any = None,
        device: str = "auto",
        precision: str = "auto",
        voxel_batch_size: int | str = "auto",
    ) -> None:
        self.checkpoint = checkpoint
        self.prior = prior
        self.device = device
        self.precision = precision
        self.voxel_batch_size = voxel_batch_size

    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        X_pool: npt.ArrayLike | None = None,
        rois: npt.ArrayLike | None = None,
        positions: npt.ArrayLike | None = None,
        *,
        progress: Progress | None = None,
    ) -> Self:
        """Let the network read the context.

        Parameters
        ----------
        X
            Features of the context images (n_images, n_features); for a published network from its backbone, and of
            about equal length.
        y
            Responses (n_images, n_voxels), any unit; a constant voxel gets weights 0. All voxels of the person belong
            into one call: the native network reads what they share.
        X_pool
            Features of any images (n_pool, n_features), no responses needed, from which the scale of the feature space
            is learned. By default the context itself.
        rois
            One region label per voxel (n_voxels,), "" where unknown; the native network then also reads what the voxels
            of a region share.
        positions
            Grid coordinates of the voxels (n_voxels, 3), for the neighbours of `GroupPriorEncoder`; only with a prior.
        progress
            Called with (voxels done, voxels) as work goes on.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If the checkpoint is unknown, features are not of the network's number or differ much in length, shapes do
            not match, values are not finite, or an option is unknown.
        FileFormatError
            If the checkpoint is damaged or holds another network.
        OutOfMemoryError
            If not even one voxel fits into the memory.
        """
        check_batch_size(self.voxel_batch_size)
        features, responses = self._check_fit(X, y)
        pool = self._check_pool(X_pool, features)
        network, header = read_checkpoint(self.checkpoint)
        if isinstance(network, ReferenceTransformer):
            if self.prior is not None:
                raise InputError("prior is for the native network: leave it out, or pass checkpoint='default'.")
            self._fit_published(network, header, features, responses, pool, progress)
        else:
            if self.prior is not None:
                closed = GroupPriorEncoder(load_prior(self.prior), hedge=False, voxel_batch_size=self.voxel_batch_size)
                self.prior_encoder_ = closed.fit(features, responses, X_pool=X_pool, rois=rois, positions=positions)
            self._fit_native(network, header, features, responses, pool, rois, progress)
        return self

    def _check_features(self, X: npt.ArrayLike, *, reset: bool) -> FloatArray:
        features = super()._check_features(X, reset=reset)
        if not reset and hasattr(self, "feature_length_"):
            check_query_length(features, self.feature_length_)
        return features

    def _fit_published(
        self,
        network: ReferenceTransformer,
        header: Mapping[str, Any],
        features: FloatArray,
        responses: FloatArray,
        pool: FloatArray,
        progress: Progress | None,
    ) -> None:
        length = feature_length(features, pool)
        engine = self._engine(network, header, features.shape[1])
        self.coef_, self.intercept_ = fit_published(engine, features, responses, length, progress)
        residuals = responses - features @ self.coef_.T - self.intercept_
        self.noise_variance_ = np.mean(residuals**2, axis=0)
        self.feature_length_ = length
        self.provenance_ = {"network": {**header, "precision": engine.precision}}

    def _engine(self, network: ReferenceTransformer, header: Mapping[str, Any], n_features: int) -> InferenceEngine:
        check_feature_count(network, header, n_features, self.checkpoint)
        return InferenceEngine(
            network, device=self.device, precision=self.precision, voxel_batch_size=self.voxel_batch_size
        )

    def published_engine(self, n_features: int) -> InferenceEngine | None:
        """Give the published network of this encoder, ready to run, or None if its network is native.

        Parameters
        ----------
        n_features
            Features of an image.

        Raises
        ------
        InputError
            If the checkpoint is unknown, or reads another number of features.
        """
        network, header = read_checkpoint(self.checkpoint)
        return self._engine(network, header, n_features) if isinstance(network, ReferenceTransformer) else None

    def _fit_native(
        self,
        network: NativeTransformer,
        header: Mapping[str, Any],
        features: FloatArray,
        responses: FloatArray,
        pool: FloatArray,
        rois: npt.ArrayLike | None,
        progress: Progress | None,
    ) -> None:
        check_precision(self.precision)
        write = partial(
            fit_native,
            network,
            features,
            responses,
            regions=None if rois is None else _region_index(rois, responses.shape[1]),
            device=resolve_device(self.device),
            voxel_batch_size=self.voxel_batch_size,
        )
        scale = pool_scale(pool) if self.prior is None else self.prior_encoder_.scale_
        fitted = write(scale, progress=progress)
        _, _, self.posterior_ = fit_good_images(features, responses, scale, fitted.image_weight, self.voxel_batch_size)
        self.spread_ = fitted.spread
        if self.prior is None:
            self.coef_, self.intercept_ = fitted.coef, fitted.intercept
            self.noise_variance_ = noise_variance(self.posterior_) * fitted.spread**2
        else:
            known = self.prior_encoder_.known_regions(rois, responses.shape[1])
            self.coef_, self.intercept_ = mean_of_three(self.prior_encoder_, fitted, write, known)
            self.noise_variance_ = self.prior_encoder_.noise_variance_
        self.shares_, self.image_weight_ = fitted.shares, fitted.image_weight
        self.provenance_ = {"network": {**header, "precision": str(responses.dtype)}}

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        if hasattr(self, "feature_length_"):
            return super()._predictive_std(X)
        if hasattr(self, "prior_encoder_"):
            return self.prior_encoder_._predictive_std(X)
        return predictive_std(self.posterior_, X) * self.spread_

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = super()._arrays()
        if hasattr(self, "feature_length_"):
            return arrays | {"feature_length": np.asarray(self.feature_length_)}
        named = {name.rstrip("_"): getattr(self, name) for name in self._native_names}
        if hasattr(self, "prior_encoder_"):
            inner = self.prior_encoder_._arrays()
            named |= {f"prior_encoder.{name}": array for name, array in inner.items()}
        return arrays | named | posterior_arrays(self.posterior_)

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        if "feature_length" in arrays:
            self.feature_length_ = float(arrays["feature_length"])
            return
        self._restore_named(arrays, self._native_names)
        self.posterior_ = restore_posterior(arrays)
        prefix = "prior_encoder."
        inner = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        if inner:
            self.prior_encoder_ = GroupPriorEncoder(None)
            self.prior_encoder_._restore(inner)
            self.prior = self.prior_encoder_.prior

    def _header_parameters(self) -> dict[str, Any]:
        return super()._header_parameters() | {"prior": None}  # the prior itself is among the arrays


def _region_index(rois: npt.ArrayLike, n_voxels: int) -> npt.NDArray[np.intp]:
    """Give the number of each voxel's region (n_voxels,), -1 where the label is ""."""
    labels = np.asarray(rois).astype(str)
    return index_labels(labels, np.unique(labels[labels != ""]).tolist(), n_voxels, "rois")
