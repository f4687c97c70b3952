"""`InContextEncoder`: reads images and responses of a person and writes down every voxel's encoder at once.

Two kinds of transformer serve: the native one, attention to remembered voxels and among the person's own, for features
of any backbone (`braincorl.encoders.by_attention`), and the published ones, for features of theirs
(`braincorl.encoders.published`).

Shapes: X (n_images, n_features), y (n_images, n_voxels).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.evidence import pool_scale
from braincorl.encoders.attending import AttendingEncoder, read_prior, remembered
from braincorl.encoders.base import LinearEncoder, unknown_if_constant
from braincorl.encoders.published import check_feature_count, check_query_length, feature_length, fit_published
from braincorl.errors import InputError
from braincorl.names import NATIVE
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray, check_batch_size

if TYPE_CHECKING:  # PyTorch takes seconds to import, and predicting needs none
    from braincorl.models import InferenceEngine, ReferenceTransformer


class InContextEncoder(AttendingEncoder):
    """Voxelwise encoder written by an in-context transformer.

    Parameters
    ----------
    checkpoint : name or path
        "default" (the native transformer: features of any backbone, any number of images ≥ 2; nothing in it is
        trained), or the file of a published network: of `braincorl train`, of `braincorl convert`, or the authors' own
        checkpoint.
    prior : GroupPrior, path or name, optional
        Earlier people's voxels in the same feature space, to which the native transformer attends; the encoder is then
        that of `GroupPriorEncoder`.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", …
    precision : str
        Of a published network: "auto" (bfloat16 where the device multiplies it natively, else float32), "float32",
        "bfloat16" or "float64". With random network weights, bfloat16 changed weights and predictions by 3 to 9 % in
        norm and an explained variance of .300 by less than .004, and another batch size changed them by 1 to 4 %;
        float32 is within 1e-5. The native transformer computes in the type of the responses.
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
    feature_length_ : float
        Published network: length by which the features are divided; `predict` refuses features of more than twice it.

    Notes
    -----
    The attributes of `AttendingEncoder` are those of the native transformer.

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

    feature_length_: float | None = None

    def __init__(
        self,
        checkpoint: str | Path = NATIVE,
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
            into one call: the native transformer reads what they share.
        X_pool
            Features of any images (n_pool, n_features), no responses needed, from which the scale of the feature space
            is learned. By default the context itself.
        rois
            One region label per voxel (n_voxels,), "" where unknown; only with a prior that knows regions.
        positions
            Places of the voxels in the prior's common space (n_voxels, 3), or numbers of grayordinates (n_voxels,);
            without effect where the prior knows no places.
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
        if str(self.checkpoint) == NATIVE:
            self._fit_native(features, responses, pool, X_pool, rois, positions, progress)
            return self
        if self.prior is not None:
            raise InputError("prior is for the native transformer: leave it out, or pass checkpoint='default'.")
        from braincorl.checkpoint import read_checkpoint

        network, header = read_checkpoint(self.checkpoint)
        self._fit_published(network, header, features, responses, pool, progress)
        return self

    def _check_features(self, X: npt.ArrayLike, *, reset: bool) -> FloatArray:
        features = super()._check_features(X, reset=reset)
        if not reset and self.feature_length_ is not None:
            check_query_length(features, self.feature_length_)
        return features

    def _fit_published(
        self,
        network: "ReferenceTransformer",
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
        self.noise_variance_ = unknown_if_constant(np.mean(residuals**2, axis=0))
        self.feature_length_ = length
        self.provenance_ = {"network": {**header, "precision": engine.precision}}

    def _engine(self, network: "ReferenceTransformer", header: Mapping[str, Any], n_features: int) -> "InferenceEngine":
        from braincorl.models import InferenceEngine

        check_feature_count(network, header, n_features, self.checkpoint)
        return InferenceEngine(
            network, device=self.device, precision=self.precision, voxel_batch_size=self.voxel_batch_size
        )

    def published_engine(self, n_features: int) -> "InferenceEngine | None":
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
        if str(self.checkpoint) == NATIVE:
            return None
        from braincorl.checkpoint import read_checkpoint

        return self._engine(*read_checkpoint(self.checkpoint), n_features)

    def _fit_native(
        self,
        features: FloatArray,
        responses: FloatArray,
        pool: FloatArray,
        X_pool: npt.ArrayLike | None,
        rois: npt.ArrayLike | None,
        positions: npt.ArrayLike | None,
        progress: Progress | None,
    ) -> None:
        if self.precision not in ("auto", "float32", "float64"):
            raise InputError(
                f"precision {self.precision!r} is for published networks; the native transformer computes in the type "
                'of the responses: pass "auto".'
            )
        if self.prior is None and rois is not None:
            raise InputError("rois say which remembered voxels to attend to: pass prior=…, or leave rois out.")
        from braincorl.encoders.by_attention import fit_by_attention
        from braincorl.models.attention import AttentionConfig
        from braincorl.models.hardware import resolve_device

        config, prior = AttentionConfig(), None
        known: dict[str, Any] = {"scale": pool_scale(pool)}
        if self.prior is not None:
            prior = read_prior(self.prior, features.shape[1])
            known = remembered(prior, X_pool, rois, positions, responses.shape[1])
        fitted = fit_by_attention(
            config,
            features,
            responses,
            **known,
            device=resolve_device(self.device),
            voxel_batch_size=self.voxel_batch_size,
            progress=progress,
        )
        self._keep(fitted, () if prior is None else prior.regions)
        about = {"architecture": "attention", "config": asdict(config), "precision": str(responses.dtype)}
        self.provenance_ = {"network": about}

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        if self.feature_length_ is not None:
            return LinearEncoder._predictive_std(self, X)
        return super()._predictive_std(X)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        if self.feature_length_ is None:
            return super()._arrays()
        return LinearEncoder._arrays(self) | {"feature_length": np.asarray(self.feature_length_)}

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        if "feature_length" not in arrays:
            super()._restore(arrays)
            return
        LinearEncoder._restore(self, arrays)
        self.feature_length_ = float(arrays["feature_length"])
