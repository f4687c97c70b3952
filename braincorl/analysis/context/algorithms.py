"""What a network that learns in context may have learned to do: known algorithms, cut short after k steps.

With a context's features X (n, p) and responses y (n, v), centred, every algorithm gives weights w (p, v):

    gradient descent    w ← w + ρ Xᵀ(y - X w)            ρ = 1 / largest eigenvalue of X Xᵀ, from w = 0
    Newton (Schulz)     A ← 2A - A K A, w = Xᵀ A y       K = X Xᵀ, from A = K / |K|²: toward the pseudo-inverse
    posterior mean      w = Xᵀ (X Xᵀ + λ I)⁻¹ y          λ = noise variance over prior variance of a weight

Which of them transformers resemble: Garg et al., NeurIPS 2022; von Oswald et al., ICML 2023; Fu et al., NeurIPS 2024.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_pair

Array = npt.NDArray[np.float64]


def gradient_descent(X: FloatArray, y: FloatArray, steps: Sequence[int]) -> dict[int, Array]:
    """Weights after steps of gradient descent on the squared error.

    Parameters
    ----------
    X
        Features (n, p); centred here.
    y
        Responses (n, v); centred here.
    steps
        After which the weights are wanted, 0 or more.

    Returns
    -------
    dict
        Number of steps -> weights (p, v).

    Raises
    ------
    InputError
        If shapes do not match or a number of steps is negative.
    """
    X, y, gram = _centred(X, y, steps)
    rate = 1 / max(float(np.linalg.eigvalsh(gram)[-1]), np.finfo(np.float64).tiny)
    weights = np.zeros((X.shape[1], y.shape[1]))
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = weights.copy()
        weights += rate * X.T @ (y - X @ weights)
    return found


def newton(X: FloatArray, y: FloatArray, steps: Sequence[int]) -> dict[int, Array]:
    """Weights after Newton-Schulz iterations toward the pseudo-inverse of the Gram matrix.

    The error squares with every iteration. Parameters, results and errors are those of `gradient_descent`.
    """
    X, y, gram = _centred(X, y, steps)
    inverse = gram / max(float(np.linalg.eigvalsh(gram)[-1]) ** 2, np.finfo(np.float64).tiny)
    found = {}
    for step in range(max(steps) + 1):
        if step in steps:
            found[step] = np.asarray(X.T @ inverse @ y)
        inverse = 2 * inverse - inverse @ gram @ inverse
    return found


def posterior_mean(X: FloatArray, y: FloatArray, ratio: float) -> Array:
    """Posterior mean of weights under an isotropic Gaussian prior, of variance and noise known.

    Parameters
    ----------
    X, y
        As for `gradient_descent`.
    ratio
        λ, noise variance over the prior variance of a weight; above 0.

    Returns
    -------
    ndarray of shape (p, v)

    Raises
    ------
    InputError
        If shapes do not match or the ratio is not above 0.
    """
    if not ratio > 0:
        raise InputError(f"ratio must be above 0, but is {ratio}: noise variance over the prior variance of a weight.")
    X, y, gram = _centred(X, y, [0])
    return np.asarray(X.T @ np.linalg.solve(gram + ratio * np.eye(len(gram)), y))


def difference(predicted: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Mean squared difference of two predictions (m, v), over the mean of their variances.

    0 is the same, 2 unrelated; NaN if neither varies.
    """
    a, b = np.asarray(predicted, dtype=np.float64), np.asarray(other, dtype=np.float64)
    spread = float(a.var(axis=0).mean() + b.var(axis=0).mean()) / 2
    return float(((a - b) ** 2).mean()) / spread if spread > 0 else float("nan")


def nearest(predicted: npt.ArrayLike, candidates: Mapping[Any, npt.ArrayLike]) -> tuple[Any, float]:
    """Which candidate's predictions are nearest, by `difference`, and how near.

    Raises
    ------
    InputError
        If there is none.
    """
    if not candidates:
        raise InputError("candidates is empty: pass at least one prediction.")
    found = {name: difference(predicted, other) for name, other in candidates.items()}
    best = min(found, key=lambda name: np.nan_to_num(found[name], nan=np.inf))
    return best, found[best]


def _centred(X: FloatArray, y: FloatArray, steps: Sequence[int]) -> tuple[Array, Array, Array]:
    check_pair(X, y)
    if not steps or min(steps) < 0:
        raise InputError(f"steps is {list(steps)}: expected numbers of 0 or more.")
    features, responses = (np.asarray(values - values.mean(axis=0), dtype=np.float64) for values in (X, y))
    return features, responses, features @ features.T
