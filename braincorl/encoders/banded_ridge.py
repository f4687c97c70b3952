"""`BandedRidgeEncoder`: ridge regression over several named feature spaces, each with its own share of the signal."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.linalg
from sklearn.utils.validation import check_is_fitted

from braincorl.closed_forms.evidence import pool_scale
from braincorl.closed_forms.feature_spaces import (
    MOST_SPACES,
    SpacesPosterior,
    Subset,
    explained_shares,
    fit_spaces,
    spaces_noise_variance,
    spaces_predictive_std,
    standard_subsets,
)
from braincorl.closed_forms.stored import posterior_arrays, restore_posterior
from braincorl.encoders.attending import read_prior
from braincorl.encoders.base import LinearEncoder, unknown_if_constant
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray, as_float, check_batch_size, check_finite

Spaces = npt.ArrayLike | Mapping[str, npt.ArrayLike]

ONLY_SPACE = "features"  # name of the one space of features that come without names


class BandedRidgeEncoder(LinearEncoder):
    """Voxelwise ridge over several feature spaces, averaged over their shares of the signal by evidence.

    Banded ridge regression gives each feature space a regularisation of its own. Here the shares of the spaces in a
    voxel's signal, and the share of the signal in its responses, are averaged over a grid by the evidence of the
    voxel's own responses: no cross-validation, usable from ten images. See `braincorl.closed_forms.feature_spaces` for
    the equations.

    With a memory of earlier people, weights of each space are expected to vary as theirs did. Let M_s be the second
    moment of the remembered weights in space s, and C_s the covariance of its features over the pool,

        w_s ~ N(0, r π_s σ² F_s F_sᵀ)        F_s F_sᵀ = ½ I / tr(C_s) + ½ M_s / tr(M_s C_s)

    so that half of a space's signal is expected along what mattered to earlier people, and half anywhere. That is the
    same model for features X_s F_s.

    Parameters
    ----------
    spaces : dict, optional
        Name -> number of features, in the order of the columns of an array `X`; without effect where `fit` is given
        named features.
    partition : bool
        Also make the encoders of all spaces but one and of each space alone (`parts_`), which unique and shared
        parts are made of (`partition_variance`).
    voxel_batch_size : "auto" or int
        Voxels at a time; bounds memory and changes no result.
    prior : GroupPrior, path or str, optional
        Earlier people's voxels over the same spaces, side by side in this order; of `braincorl prior`.

    Attributes
    ----------
    coef_ : ndarray of shape (n_voxels, n_features)
        Posterior mean weights; the features of all spaces side by side, in the order of `spaces_`.
    intercept_ : ndarray of shape (n_voxels,)
        Posterior mean intercepts.
    noise_variance_ : ndarray of shape (n_voxels,)
        Posterior mean noise variance of one response.
    shares_ : ndarray of shape (n_voxels, n_spaces)
        Posterior mean of the share of response variance that each space explains.
    signal_fraction_ : ndarray of shape (n_voxels,)
        Their sum.
    spaces_ : dict
        Name -> number of features.
    parts_ : dict
        Names of some spaces (tuple) -> weights over their features (n_voxels, n) and intercepts (n_voxels,) of an
        encoder that knows only these; empty without `partition`.
    posterior_ : SpacesPosterior
        What `predict(return_std=True)` reads, over features times `factors_`.
    factors_ : dict
        Name -> F of the space (n, n), symmetric; empty without a prior.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = {"clip": rng.standard_normal((40, 8)), "gabor": rng.standard_normal((40, 100))}
    >>> y = X["clip"] @ rng.standard_normal((8, 3))
    >>> encoder = BandedRidgeEncoder().fit(X, y)
    >>> bool((encoder.shares_[:, 0] > encoder.shares_[:, 1]).all())
    True
    """

    uses_pool = True
    reports_progress = True
    _array_names = ("coef_", "intercept_", "noise_variance_", "shares_")

    def __init__(
        self,
        spaces: Mapping[str, int] | None = None,
        partition: bool = True,
        voxel_batch_size: int | str = "auto",
        prior: Any = None,
    ) -> None:
        self.spaces = spaces
        self.partition = partition
        self.voxel_batch_size = voxel_batch_size
        self.prior = prior

    def fit(
        self, X: Spaces, y: npt.ArrayLike, X_pool: Spaces | None = None, *, progress: Progress | None = None
    ) -> Self:
        """Fit every voxel.

        Parameters
        ----------
        X
            Features of the context: name -> (n_images, n_features) for each space, two to six of them, any of them
            wider than the number of images; or all side by side (n_images, n_features), with `spaces` to say which are
            which.
        y
            Responses (n_images, n_voxels), any unit.
        X_pool
            Features of any images, given like `X`, no responses needed: the scale of each space is set so that
            responses to these vary as measured. By default the context itself.
        progress
            Called with (voxels done, voxels).

        Returns
        -------
        self

        Raises
        ------
        InputError
            If shapes do not match, values are not finite, there are more than six spaces, or the prior is of others.
        """
        check_batch_size(self.voxel_batch_size)
        named = _by_name(X)
        joined, sizes = (X, None) if named is None else _join_spaces(named)
        features, responses = self._check_fit(joined, y)  # type: ignore[arg-type]
        self.spaces_ = self._sizes(features.shape[1]) if sizes is None else sizes
        pool = self._check_pool(None if X_pool is None else self._joined(X_pool), features)
        edges = np.cumsum(list(self.spaces_.values()))[:-1]
        self.factors_ = self._factors(pool, X_pool is not None)
        features, pool = self._turned(features), self._turned(pool)
        scales = [pool_scale(part) for part in np.split(pool, edges, axis=1)]
        subsets = standard_subsets(len(self.spaces_)) if self.partition else []
        solution = fit_spaces(
            np.split(features, edges, axis=1),
            responses,
            scales,
            subsets=subsets,
            voxel_batch_size=self.voxel_batch_size,
            progress=progress,
        )
        self.coef_, self.intercept_, self.posterior_ = (
            self._turned(solution.coef),
            solution.intercept,
            solution.posterior,
        )
        self.noise_variance_ = unknown_if_constant(spaces_noise_variance(self.posterior_))
        self.shares_ = explained_shares(self.posterior_)
        self.signal_fraction_ = self.shares_.sum(axis=1)
        names = {subset: self._names(subset) for subset in solution.parts}
        self.parts_ = {
            names[subset]: (self._turned(coef, names[subset]), intercept)
            for subset, (coef, intercept) in solution.parts.items()
        }
        return self

    def _factors(self, pool: FloatArray, own_pool: bool) -> dict[str, FloatArray]:
        """F of every space, from the prior."""
        if self.prior is None:
            return {}
        prior = read_prior(self.prior, pool.shape[1])
        covariance = prior.covariance_of(pool if own_pool else None)
        factors = {}
        for name, columns in self.columns_.items():
            learned, spread = prior.moment[columns, columns], covariance[columns, columns]
            signal, trace = float(np.sum(learned * spread)), float(np.trace(spread))
            half = 0.5 / trace * np.eye(len(spread)) if trace > 0 else np.eye(len(spread))
            values, vectors = scipy.linalg.eigh(half + (0.5 / signal * learned if signal > 0 else 0.0))
            factors[name] = ((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T).astype(pool.dtype)
        return factors

    def _turned(self, rows: FloatArray, names: Sequence[str] | None = None, *, back: bool = False) -> FloatArray:
        """Rows over the features of some spaces times F of each, or its inverse; themselves without a prior."""
        if not self.factors_:
            return rows
        out, start = np.empty_like(rows), 0
        for name in self.spaces_ if names is None else names:
            columns = slice(start, start + self.spaces_[name])
            F = self.factors_[name]
            out[:, columns] = np.linalg.solve(F, rows[:, columns].T).T if back else rows[:, columns] @ F
            start = columns.stop
        return out

    @property
    def n_context_(self) -> int:
        """Number of images of the context."""
        return int(self.posterior_.n_images)

    @property
    def context_mean_(self) -> FloatArray:
        """Mean features of the context (n_features,)."""
        return np.asarray(self._turned(self.posterior_.mean[None], back=True)[0])

    @property
    def context_rows_(self) -> FloatArray:
        """Rows whose second moment, summed, is that of the context's centred features (k, n_features)."""
        scale = np.repeat(np.sqrt(self.posterior_.scales), self.posterior_.sizes)
        return self._turned(self.posterior_.to_rows.T / scale, back=True)

    def predict(self, X: Spaces, return_std: bool = False) -> Any:
        """Predict responses to images.

        Parameters
        ----------
        X
            Features, given as to `fit`: by name in any order, or side by side in the order of `spaces_`.
        return_std
            Also return the predictive standard deviation.

        Returns
        -------
        y : ndarray of shape (n_images, n_voxels)
            Predicted responses, in the units of the context's; (n_images,) if the encoder was fitted on a 1-D y.
        std : ndarray of the same shape
            Only with `return_std`: standard deviation of a new measured response around `y`.

        Raises
        ------
        InputError
            If a space is missing, unknown, or has another number of features than the context's.
        """
        check_is_fitted(self)
        return super().predict(self._joined(X), return_std)

    def predict_parts(self, X: Spaces) -> dict[str, FloatArray]:
        """Split predictions into what each space adds to them.

        Parameters
        ----------
        X
            Features, as to `predict`.

        Returns
        -------
        dict
            Name of the space -> (n_images, n_voxels); they and the intercepts sum to the prediction.
        """
        check_is_fitted(self)
        features = self._check_features(self._joined(X), reset=False)
        return {name: features[:, columns] @ self.coef_[:, columns].T for name, columns in self.columns_.items()}

    @property
    def columns_(self) -> dict[str, slice]:
        """Columns of each space, name -> slice."""
        ends = np.cumsum(list(self.spaces_.values())).tolist()
        return {name: slice(end - size, end) for (name, size), end in zip(self.spaces_.items(), ends, strict=True)}

    def _sizes(self, n_features: int) -> dict[str, int]:
        """Names and numbers of features for an array."""
        sizes = {ONLY_SPACE: n_features} if self.spaces is None else dict(self.spaces)
        _check_names(sizes)
        if sum(sizes.values()) != n_features or min(sizes.values()) < 1:
            raise InputError(
                f"spaces says {', '.join(f'{name}: {size}' for name, size in sizes.items())}, but X has {n_features} "
                "features: the numbers must sum to that, none below 1."
            )
        return sizes

    def _joined(self, X: Spaces) -> npt.ArrayLike:
        """Features of all spaces side by side, in the order of the fit."""
        named = _by_name(X)
        if named is None:
            return X  # type: ignore[return-value]
        if set(named) != set(self.spaces_):
            raise InputError(
                f"the features have the spaces {', '.join(sorted(named))}, but the encoder has "
                f"{', '.join(self.spaces_)}: pass each of these."
            )
        joined, sizes = _join_spaces({name: named[name] for name in self.spaces_})
        for name, size in sizes.items():
            if size != self.spaces_[name]:
                raise InputError(
                    f"the space '{name}' has {size} features, but the encoder was fitted with {self.spaces_[name]}: "
                    "pass features of the same backbone."
                )
        return joined

    def _names(self, subset: Subset) -> tuple[str, ...]:
        names = list(self.spaces_)
        return tuple(names[s] for s in subset)

    def _predictive_std(self, X: FloatArray) -> FloatArray:
        return spaces_predictive_std(self.posterior_, self._turned(X))

    def _header_parameters(self) -> dict[str, Any]:
        # Pairs, since the keys of a header are sorted: the order of spaces is that of the weights.
        sizes = [[name, size] for name, size in self.spaces_.items()]
        return super()._header_parameters() | {"spaces": sizes, "prior": None}

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays = super()._arrays() | posterior_arrays(self.posterior_)
        names = list(self.spaces_)
        arrays |= {f"factor.{names.index(name)}": factor for name, factor in self.factors_.items()}
        for subset, (coef, intercept) in self.parts_.items():
            label = "-".join(str(names.index(name)) for name in subset)
            arrays |= {f"part.{label}.coef": coef, f"part.{label}.intercept": intercept}
        return arrays

    def _restore(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        super()._restore(arrays)
        self.posterior_ = restore_posterior(SpacesPosterior, arrays)
        self.spaces = None if self.spaces is None else dict(self.spaces)
        self.spaces_ = self._sizes(self.coef_.shape[1])
        if list(self.spaces_.values()) != np.asarray(self.posterior_.sizes).tolist():
            raise FileFormatError("The encoder file lists its spaces in another order than its weights: fit again.")
        self.signal_fraction_ = self.shares_.sum(axis=1)
        found = {name: arrays.get(f"factor.{number}") for number, name in enumerate(self.spaces_)}
        self.factors_ = {name: factor for name, factor in found.items() if factor is not None}
        for name, factor in self.factors_.items():
            if factor.shape != (self.spaces_[name],) * 2 or len(self.factors_) < len(self.spaces_):
                raise FileFormatError(f"The encoder file's factor of space '{name}' is of no use: fit again.")
        self.parts_ = {}
        for name in arrays:
            if name.startswith("part.") and name.endswith(".coef"):
                label = name.split(".")[1]
                if f"part.{label}.intercept" not in arrays:
                    raise FileFormatError(f"The encoder file holds no 'part.{label}.intercept': it is incomplete.")
                subset = self._names(tuple(int(s) for s in label.split("-")))
                self.parts_[subset] = arrays[name], arrays[f"part.{label}.intercept"]


def _by_name(X: Spaces) -> Mapping[str, npt.ArrayLike] | None:
    """Features by name, None where they are an array: some sparse matrices are mappings, too."""
    return X if isinstance(X, Mapping) and not hasattr(X, "shape") else None


def _join_spaces(spaces: Mapping[str, npt.ArrayLike]) -> tuple[FloatArray, dict[str, int]]:
    """Put named features side by side (n_images, n_features of all), and say how many each space has."""
    _check_names(spaces)
    arrays = {name: as_float(np.asarray(array)) for name, array in spaces.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] == 0:
            raise InputError(f"the space '{name}' has shape {array.shape}, expected (n_images, n_features).")
        check_finite(array, f"the space '{name}'")
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise InputError(
            f"the spaces have {', '.join(f'{name}: {n}' for name, n in rows.items())} images: all need the same images "
            "in the same order."
        )
    return np.concatenate(list(arrays.values()), axis=1), {name: array.shape[1] for name, array in arrays.items()}


def _check_names(spaces: Mapping[str, Any]) -> None:
    """Refuse no spaces, too many, and names that are no text."""
    if not 1 <= len(spaces) <= MOST_SPACES:
        raise InputError(f"there are {len(spaces)} feature spaces: pass one to {MOST_SPACES}.")
    for name in spaces:
        if not isinstance(name, str) or not name:
            raise InputError(f"the name of a feature space is {name!r}: expected a text, such as 'clip'.")
