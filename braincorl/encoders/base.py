"""What every encoder shares: checked input, linear prediction, score, and a file that opens anywhere.

An encoder is a scikit-learn multi-output regressor whose fitted state is `coef_` (n_voxels, n_features) and
`intercept_` (n_voxels,), the transpose of himalaya's `coef_`. A subclass supplies `_fit_arrays`.
"""

import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from braincorl.errors import FileFormatError, InputError
from braincorl.metrics import r2_score
from braincorl.priors.image_digests import NO_IMAGES, image_digests
from braincorl.storage.files import reading
from braincorl.storage.tensorfile import read_metadata, read_tensors, write_tensors
from braincorl.validation import FloatArray, as_float, check_finite, check_not_tiny, check_pair, check_pool, check_real

KIND = "braincorl-encoder/1"


class LinearEncoder(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the voxelwise encoders; see `RidgeEncoder` for one to use.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Weights, in response units per feature unit.
    intercept_ : ndarray of shape (n_voxels,)
        Responses to an image whose features are 0.
    noise_variance_ : ndarray of shape (n_voxels,)
        Variance of a response around the encoder, in squared response units; NaN for voxels whose context was
        constant, of which it is unknown.
    provenance_ : dict
        What the encoder was made from, as given to `save`; only after `load`.
    """

    # Whether `fit` takes X_pool: features of any images, from which the feature space's scale is learned.
    uses_pool: ClassVar[bool] = False
    # Whether `fit` takes progress: a function that is told (voxels done, voxels).
    reports_progress: ClassVar[bool] = False
    # Axis of voxels in each stored array that has one, where voxels are fitted each by itself; None where they are not.
    voxel_axes: ClassVar[Mapping[str, int] | None] = None

    coef_: FloatArray
    intercept_: FloatArray
    noise_variance_: FloatArray
    image_digests_: npt.NDArray[np.int64]

    def predict(self, X: npt.ArrayLike, return_std: bool = False) -> Any:
        """Predict responses to images.

        Parameters
        ----------
        X
            Features (n_images, n_features).
        return_std
            Also return the predictive standard deviation, for encoders that have one.

        Returns
        -------
        y : ndarray of shape (n_images, n_voxels)
            Predicted responses, in the units of the context's; (n_images,) if the encoder was fitted on a 1-D y.
        std : ndarray of the same shape
            Only with `return_std`: standard deviation of a new measured response around `y`; NaN for voxels whose
            context was constant, of which it is unknown.

        Raises
        ------
        InputError
            If the number of features differs from the context's, or `return_std` is not to be had.
        """
        check_is_fitted(self)
        features = self._check_features(X, reset=False)
        y = features @ self.coef_.T + self.intercept_
        y = y[:, 0] if self._one_voxel else y
        if not return_std:
            return y
        std = unknown_if_constant(self._predictive_std(features))
        return y, std[:, 0] if self._one_voxel else std

    def score(self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: None = None) -> float:
        """Mean R² over voxels; voxels of constant response are left out.

        Parameters
        ----------
        X
            Features (n_images, n_features).
        y
            Measured responses (n_images, n_voxels).
        sample_weight
            Not supported; there because scikit-learn's scorers name it.

        Returns
        -------
        float
        """
        if sample_weight is not None:
            raise InputError("sample_weight is not supported: every image counts the same; pass None.")
        per_voxel = r2_score(y, self.predict(X))
        return float(np.nanmean(per_voxel)) if np.isfinite(per_voxel).any() else float("nan")

    def save(self, path: str | Path, provenance: Mapping[str, Any] | None = None) -> None:
        """Write the encoder to a safetensors file, whole or not at all.

        Parameters
        ----------
        path
            Destination, by convention ending in `.safetensors`.
        provenance
            JSON-serialisable notes on where it comes from: features, images, person.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        check_is_fitted(self)
        header = {
            "class": type(self).__name__,
            "parameters": self._header_parameters(),
            "one_voxel": self._one_voxel,
            "feature_names": list(getattr(self, "feature_names_in_", [])),
            "provenance": dict(provenance or getattr(self, "provenance_", {})),
        }
        write_tensors(path, KIND, self._arrays(), header)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an encoder that `save` wrote.

        Parameters
        ----------
        path
            The file.

        Returns
        -------
        The encoder, fitted.

        Raises
        ------
        InputError
            If the file is missing or holds another class of encoder.
        FileFormatError
            If it is damaged, altered, or no encoder.
        """
        arrays, header = read_tensors(path, KIND)
        name = str(header.get("class"))
        if name != cls.__name__:
            raise InputError(f"{path} holds a {name}, not a {cls.__name__}: load it with {name}.load.")
        # Whole, with its checksum, it may still be of somebody else's making.
        with reading(path, "is no encoder of this version"), np.errstate(all="ignore"):
            encoder = cls(**header["parameters"])
            encoder._one_voxel = bool(header["one_voxel"])
            if header["feature_names"]:
                encoder.feature_names_in_ = np.asarray([str(name) for name in header["feature_names"]], dtype=object)
            encoder.provenance_ = dict(header["provenance"])
            encoder._restore(arrays)
            encoder._check_restored()
            encoder.n_features_in_ = encoder.coef_.shape[1]
        return encoder

    # -- for subclasses -----------------------------------------------------------------------------------------------

    _array_names: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "noise_variance_")
    _one_voxel: bool = False

    def _forget(self) -> None:
        """Be unfitted, so that a fit that fails leaves nothing that could be mixed with another."""
        for cls in type(self).__mro__:
            for name in inspect.get_annotations(cls):
                if name.endswith("_"):
                    self.__dict__.pop(name, None)

    def __sklearn_is_fitted__(self) -> bool:
        """Say to scikit-learn whether a fit was finished."""
        return hasattr(self, "coef_")

    def _header_parameters(self) -> dict[str, Any]:
        """Parameters as a file's header stores them."""
        return {name: _jsonable(value) for name, value in self.get_params(deep=False).items()}

    def _check_fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Features (n, p) and responses (n, v) as one floating type; remembers whether y was 1-D."""
        if y is None:
            raise InputError(
                "an encoder requires y to be passed, but the target y is None: pass responses (n_images, n_voxels)."
            )
        self._forget()
        features = self._check_features(X, reset=True)
        raw = np.asarray(y)
        if raw.ndim == 2 and raw.shape[1] == 1 and raw.shape[0] == 1 < features.shape[0]:
            raw = raw[0]
        if raw.ndim not in (1, 2):
            raise InputError(f"y has {raw.ndim} axes, but must be (n_images, n_voxels).")
        check_real(raw, "y")
        self._one_voxel = raw.ndim == 1
        responses = as_float(raw[:, None] if raw.ndim == 1 else raw)
        check_pair(features, responses)
        return self._checked_pair(features, responses)

    def _checked_pair(self, features: FloatArray, responses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Features (n, p), finite, and responses (n, v) as one floating type; remembers which images they are of."""
        if responses.shape[1] == 0:
            raise InputError("y has no voxels: its shape must be (n_images, n_voxels) with n_voxels ≥ 1.")
        check_finite(responses, "y")
        check_not_tiny(features, "X")
        check_not_tiny(responses, "y", axis=0)
        self.image_digests_ = image_digests(features)
        dtype = np.result_type(features, responses)
        return features.astype(dtype, copy=False), responses.astype(dtype, copy=False)

    def _check_pool(self, X_pool: npt.ArrayLike | None, X: FloatArray) -> FloatArray:
        """Pool features (n_pool, p) in the type of the context's; the context itself if there is no pool."""
        if X_pool is None:
            return X
        pool = as_float(np.asarray(X_pool))
        check_pool(pool, X.shape[1])
        check_finite(pool, "X_pool")
        check_not_tiny(pool, "X_pool")
        return pool.astype(X.dtype, copy=False)

    def _check_features(self, X: npt.ArrayLike, *, reset: bool) -> FloatArray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DataConversionWarning)
                features = validate_data(
                    self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=2 if reset else 1
                )
        except ValueError as error:
            first, *rest = str(error).splitlines()
            # scikit-learn's advice on NaN is a paragraph about imputation; its other advice is worth keeping.
            raise InputError(first if "NaN" in first else " ".join([first, *rest])) from error
        checked: FloatArray = features
        check_finite(checked, "X")
        return checked

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        raise InputError(
            f"{type(self).__name__} has no predictive distribution: use BayesianRidgeEncoder for return_std=True."
        )

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {name.rstrip("_"): getattr(self, name) for name in (*self._array_names, "image_digests_")}

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._restore_named(arrays, self._array_names)
        self.noise_variance_ = unknown_if_constant(self.noise_variance_)  # earlier versions wrote 0
        self.image_digests_ = arrays.get("image_digests", NO_IMAGES)

    def _check_restored(self) -> None:
        """Refuse arrays that do not agree with one another, before anybody predicts with them."""
        if self.coef_.ndim != 2 or self.coef_.dtype.kind != "f" or not np.isfinite(self.coef_).all():
            raise ValueError(f"its weights are {self.coef_.dtype} {self.coef_.shape}, expected finite numbers")
        n_voxels, n_features = self.coef_.shape
        if self._one_voxel and n_voxels != 1:
            raise ValueError(f"it says that it has one voxel, but has weights of {n_voxels}")
        for name in self._array_names:
            values = getattr(self, name)
            if values.dtype.kind != "f" or values.shape[:1] != (n_voxels,):
                raise ValueError(f"{name.rstrip('_')} is {values.dtype} {values.shape} for {n_voxels} voxels")
        if self.image_digests_.dtype.kind != "i" or self.image_digests_.ndim != 1:
            raise ValueError(f"its image digests are {self.image_digests_.dtype} {self.image_digests_.shape}")
        try:
            found = self._predictive_std(np.zeros((1, n_features), self.coef_.dtype)).shape
        except InputError:  # it has no posterior
            return
        if found != (1, n_voxels):
            raise ValueError(f"its posterior gives a deviation of shape {found} for {n_voxels} voxels")

    def _restore_named(self, arrays: Mapping[str, npt.NDArray[Any]], names: Sequence[str]) -> None:
        for name in names:
            if name.rstrip("_") not in arrays:
                raise FileFormatError(f"The encoder file holds no '{name.rstrip('_')}': it is incomplete.")
            setattr(self, name, arrays[name.rstrip("_")])

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn that y may have many columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def unknown_if_constant(spread: FloatArray) -> FloatArray:
    """Give noise or deviations as they are, but NaN for 0: the context did not vary there.

    A voxel that was constant in the context may vary in other images: by how much, nothing says.
    """
    return np.where(spread > 0, spread, np.asarray(np.nan, spread.dtype))


def saved_class(path: str | Path) -> str:
    """Name of the class of a saved encoder.

    Raises
    ------
    FileFormatError
        If the file holds no encoder.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != KIND:
        raise FileFormatError(f"{path} is not a {KIND} file: pass an encoder.safetensors that braincorl wrote.")
    with reading(path, "is no encoder of this version"):
        return str(json.loads(metadata["header"])["class"])


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    return value
