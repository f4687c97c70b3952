"""Ridge regression of every voxel at its own regularisation, as pure functions.

    ŵ(α) = argmin Σᵢ (yᵢ - b - xᵢᵀw)² + α |w|²,   intercept b free

With X_c = U S Vᵀ the solution is ŵ(α) = V diag(s / (s² + α)) Uᵀy. Leaving image i out changes its residual to
eᵢ(α) / mᵢ(α), where M = I - H is the residual-maker with the intercept in it (Allen's PRESS), so all n leave-one-out
fits at all α cost one small matrix product per α. K-fold cross-validation refits instead.

Letters: n images, p features, k rank, v voxels, a regularisation values.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.closed_forms.decomposition import Decomposition, centre, coefficients, decompose
from braincorl.validation import FloatArray

Folds = Iterable[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]

# In units of the mean squared length of a centred feature vector, the scale on which α = (1 - R²) / R² is right for
# features of equal variance. The upper end predicts the mean. The lower end is R² = .91, cleaner than any voxel: with
# about as many images as features, leave-one-out errors at smaller α are a lottery that a few voxels always win.
AUTO_ALPHAS = np.logspace(-1, 6, 22)


@dataclass(frozen=True)
class RidgeSolution:
    """One linear encoder per voxel.

    Attributes
    ----------
    coef
        Weights (v, p).
    intercept
        Intercepts (v,).
    alpha
        Chosen regularisation (v,).
    cv_r2
        R² of the left-out responses at the chosen `alpha` (v,); NaN for constant voxels.
    noise_variance
        Residual sum of squares over residual degrees of freedom (v,).
    alpha_limits
        Smallest and largest regularisation of the grid (2,).
    """

    coef: FloatArray
    intercept: FloatArray
    alpha: FloatArray
    cv_r2: FloatArray
    noise_variance: FloatArray
    alpha_limits: FloatArray


def auto_alphas(decomposition: Decomposition) -> npt.NDArray[np.float64]:
    """Grid of regularisation values on the scale of the features.

    Parameters
    ----------
    decomposition
        Of the context features.

    Returns
    -------
    ndarray of shape (22,)
    """
    n_images = decomposition.u.shape[0]
    scale = float((decomposition.s.astype(np.float64) ** 2).sum()) / n_images
    return AUTO_ALPHAS * (scale if scale > 0 else 1.0)


def solve_ridge(
    X: FloatArray,
    y: FloatArray,
    alphas: npt.NDArray[np.float64] | None = None,
    folds: Folds | None = None,
    voxel_batch_size: int | str = "auto",
) -> RidgeSolution:
    """Choose α for each voxel by cross-validation, then refit on all images.

    Parameters
    ----------
    X
        Features (n, p).
    y
        Responses (n, v), of the type of `X`.
    alphas
        Positive regularisation values to choose from (a,); by default `auto_alphas`.
    folds
        (train, test) indices of a K-fold cross-validation; by default every image is left out once.
    voxel_batch_size
        Voxels at a time, or "auto"; bounds memory and changes no result.

    Returns
    -------
    RidgeSolution
    """
    whole = decompose(X)
    grid = np.sort(auto_alphas(whole) if alphas is None else alphas)[
        ::-1
    ]  # of equal errors, argmin takes the largest α
    parts = None if folds is None else [(train, test, decompose(X[train])) for train, test in folds]
    n_images, n_voxels, n_features = X.shape[0], y.shape[1], X.shape[1]
    coef = np.empty((n_voxels, n_features), X.dtype)
    intercept, alpha, cv_r2, noise = (np.empty(n_voxels, X.dtype) for _ in range(4))
    # In float64 whatever the type of the data: errors at neighbouring α differ little, and rounding must not choose.
    for batch in batches(n_voxels, 4 * n_images * 8, voxel_batch_size):
        centred, mean = centre(y[:, batch])
        errors = loo_errors(whole, centred, grid) if parts is None else _fold_errors(parts, X, centred, grid)
        best = errors.argmin(axis=0)
        alpha[batch] = grid[best]
        variance = centred.var(axis=0)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that constant voxels get
            cv_r2[batch] = 1.0 - errors.min(axis=0) / variance
        weights, noise[batch] = _refit(whole, centred, grid[best])
        coef[batch] = weights
        intercept[batch] = mean - weights @ whole.mean
    return RidgeSolution(coef, intercept, alpha, cv_r2, noise, grid[[-1, 0]].astype(X.dtype))


def loo_errors(decomposition: Decomposition, y: FloatArray, alphas: npt.NDArray[np.float64]) -> FloatArray:
    """Leave-one-out mean squared errors in closed form.

    Parameters
    ----------
    decomposition
        Of the context features.
    y
        Centred responses (n, v).
    alphas
        Regularisation values (a,).

    Returns
    -------
    ndarray of shape (a, v)
    """
    u, s = decomposition.u, decomposition.s
    n_images = u.shape[0]
    projected = u.T @ y
    # The part of y that no feature reaches, and its share of diag(M), are the same at every α. With as many directions
    # as images leave (the usual few-shot case) both are exactly 0, and rounding in their place would swamp a small α.
    saturated = s.size == n_images - 1
    outside = np.zeros((1, 1), y.dtype) if saturated else y - u @ projected
    diagonal_outside = 0.0 if saturated else np.maximum(1.0 - 1.0 / n_images - (u**2).sum(axis=1), 0.0)
    errors = np.empty((alphas.size, y.shape[1]), y.dtype)
    for row, alpha in enumerate(alphas):
        shrunk = alpha / (s**2 + alpha)
        diagonal = diagonal_outside + (u**2) @ shrunk
        scale = (1.0 / np.maximum(diagonal, np.finfo(y.dtype).tiny))[:, None]
        left_out = (u * shrunk * scale) @ projected
        if not saturated:
            left_out += outside * scale
        errors[row] = np.einsum("nv,nv->v", left_out, left_out) / n_images
    return errors


def _fold_errors(
    parts: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Decomposition]],
    X: FloatArray,
    y: FloatArray,
    alphas: npt.NDArray[np.float64],
) -> FloatArray:
    """K-fold mean squared errors (a, v), every left-out image weighted equally."""
    errors = np.zeros((alphas.size, y.shape[1]), y.dtype)
    n_left_out = sum(len(test) for _, test, _ in parts)
    for train, test, fold in parts:
        mean = y[train].mean(axis=0)
        projected = fold.u.T @ (y[train] - mean)
        target = y[test] - mean
        coordinates = (X[test] - fold.mean) @ fold.vt.T
        for row, alpha in enumerate(alphas):
            shrinkage = fold.s / (fold.s**2 + alpha)
            residual = target - (coordinates * shrinkage) @ projected
            errors[row] += np.einsum("nv,nv->v", residual, residual) / n_left_out
    return errors


def _refit(decomposition: Decomposition, y: FloatArray, alpha: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weights (v, p) and noise variances (v,) at each voxel's own α."""
    s2 = (decomposition.s**2)[:, None]
    projected = decomposition.u.T @ y
    kept = s2 / (s2 + alpha)
    coef = coefficients(decomposition, kept / decomposition.s[:, None] * projected)
    inside = ((1.0 - kept) * projected) ** 2
    outside = np.maximum((y**2).sum(axis=0) - (projected**2).sum(axis=0), 0.0)
    freedom = y.shape[0] - 1 - kept.sum(axis=0)
    return coef, (inside.sum(axis=0) + outside) / np.maximum(freedom, 1e-3)
