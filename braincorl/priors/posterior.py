"""The posterior of every voxel under a mixture of Gaussians, exact in everything but one scalar integral.

One voxel, with a flat prior on the intercept and on log s, its response's standard deviation:

    y = s (√r Xu + √(1 - r) ε) + b,   u ~ N(μ_c, Σ_c),   ε ~ N(0, I)

In the statistics z = Rw + noise of `context`, and with R Σ_c Rᵀ = U Λ Uᵀ, z̃ = Uᵀz, m̃ = UᵀRμ_c, d_j = r λ_j + 1 - r,

    α = Σ z̃² / d + |y - Az|² / (1 - r),   β = √r Σ z̃ m̃ / d
    p(y | r, c) ∝ Π d_j^-½ (1 - r)^-(n-1-k)/2 exp(-½ r Σ m̃² / d) ∫ t^(n-2) exp(-½ α t² + β t) dt,   t = 1/s
    E[w | r, c] = √r E[s] μ_c + r Σ_c Rᵀ U diag(1/d) (z̃ - √r E[s] m̃)

The integral and E[s], E[s²] are taken by Laplace's method in log t (relative error of a few thousandths at ten images;
with a zero mean it is exact up to a factor common to all r and c). Every (r, c) is weighted by its evidence.

One eigendecomposition per component serves all voxels.

Letters: n images, p features, k rank, v voxels, c components, g levels of r.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.priors.components import LEVELS, Components
from braincorl.priors.context import Context
from braincorl.validation import FloatArray


@dataclass(frozen=True)
class Frame:
    """One component, seen through one context: everything that does not depend on the voxel.

    Attributes
    ----------
    eigenvalues
        Λ of R Σ_c Rᵀ (k,).
    vectors
        U (k, k).
    back
        Uᵀ R Σ_c (k, p): turns coordinates into weights.
    turned_mean
        m̃ = UᵀRμ_c (k,).
    marginal
        d at each level (g, k).
    """

    eigenvalues: npt.NDArray[np.float64]
    vectors: FloatArray
    back: FloatArray
    turned_mean: npt.NDArray[np.float64]
    marginal: npt.NDArray[np.float64]


@dataclass(frozen=True)
class LevelEvidence:
    """What one component makes of every voxel, at each level of r.

    Attributes
    ----------
    log_evidence
        log p(y | r, c) up to a constant of the voxel (g, v).
    alpha
        α (g, v).
    beta
        β (g, v).
    mode
        Most probable t = 1/s on the log scale (g, v).
    """

    log_evidence: FloatArray
    alpha: FloatArray
    beta: FloatArray
    mode: FloatArray


def make_frames(context: Context, components: Components) -> list[Frame]:
    """Decompose every component in one context.

    Parameters
    ----------
    context
        Of one person.
    components
        The mixture (c components).

    Returns
    -------
    list of Frame
    """
    rows = context.rows.astype(np.float64)
    toward = np.stack([components.covariance_times(rows, c) for c in range(components.n_components)])
    gram = toward @ rows.T
    values, vectors = np.linalg.eigh((gram + gram.transpose(0, 2, 1)) / 2)
    values = np.maximum(values, 0.0)
    turned_mean = np.einsum("ckj,ck->cj", vectors, components.mean @ rows.T)
    return [
        Frame(
            eigenvalues=values[c],
            vectors=vectors[c].astype(context.rows.dtype),
            back=(vectors[c].T @ toward[c]).astype(context.rows.dtype),
            turned_mean=turned_mean[c],
            marginal=LEVELS[:, None] * values[c] + (1.0 - LEVELS)[:, None],
        )
        for c in range(components.n_components)
    ]


def level_evidence(frame: Frame, context: Context, turned: FloatArray) -> LevelEvidence:
    """Evidence of every voxel under one component.

    Parameters
    ----------
    frame
        Of the component.
    context
        Of the person.
    turned
        z̃ = Uᵀz (k, v).

    Returns
    -------
    LevelEvidence
    """
    dtype = turned.dtype
    noise = 1.0 - LEVELS
    inverse = 1.0 / frame.marginal
    alpha = inverse.astype(dtype) @ turned**2 + (1.0 / noise).astype(dtype)[:, None] * context.outside
    beta = (np.sqrt(LEVELS)[:, None] * inverse * frame.turned_mean).astype(dtype) @ turned
    alpha += context.prior_energy
    n_outside = context.freedom - context.rows.shape[0]
    log_determinant = np.log(frame.marginal).sum(axis=1) + n_outside * np.log(noise)
    mean_energy = LEVELS * (inverse @ frame.turned_mean**2)
    power = context.freedom + context.prior_freedom
    mode = scale_mode(alpha, beta, max(power, 1))
    log_evidence = log_scale_integral(alpha, beta, power, mode)
    log_evidence -= (0.5 * (log_determinant + mean_energy)).astype(dtype)[:, None]
    return LevelEvidence(log_evidence, alpha, beta, mode)


def log_scale_integral(alpha: FloatArray, beta: FloatArray, power: float, mode: FloatArray | None = None) -> FloatArray:
    """Logarithm of ∫ t^(power - 1) exp(-½ α t² + β t) dt over t > 0, by Laplace's method in log t.

    Parameters
    ----------
    alpha
        Positive, of any shape.
    beta
        Of the same shape.
    power
        At least 0; at 0 the integral is that of the prior alone and 0 is returned.
    mode
        `scale_mode` of the same, where it is known.

    Returns
    -------
    ndarray of the same shape
    """
    if power <= 0:
        return np.zeros_like(alpha)
    t = scale_mode(alpha, beta, power) if mode is None else mode
    curvature = power + np.maximum(alpha, _tiny(alpha)) * t**2
    # At the mode α t² = power + β t, so the exponent is a single term in t.
    value: FloatArray = power * np.log(t) + 0.5 * (beta * t - power) - 0.5 * np.log(curvature / (2 * np.pi))
    return value


def scale_mode(alpha: FloatArray, beta: FloatArray, power: float) -> FloatArray:
    """Return the most probable t = 1/s on the log scale: the positive root of power + β t = α t²."""
    safe = np.maximum(alpha, _tiny(alpha))
    root = np.sqrt(beta**2 + 4 * safe * power)
    # The form without cancellation for either sign of β.
    mode: FloatArray = np.where(
        beta >= 0, (beta + root) / (2 * safe), 2 * power / np.maximum(root - beta, _tiny(alpha))
    )
    return mode


def expected_scale(alpha: FloatArray, beta: FloatArray, freedom: float, moment: int = 1) -> FloatArray:
    """E[s] or E[s²] as a ratio of two scale integrals.

    Parameters
    ----------
    alpha, beta
        As in `log_scale_integral`.
    freedom
        n - 1 + d₀. Below moment + 1 the moment does not exist under a flat prior; the smallest that does is used.
    moment
        1 or 2.

    Returns
    -------
    ndarray of the same shape
        In units of the context's standard deviation.
    """
    if freedom == 0:  # no image but the one that sets the intercept: the scale is the unit of the prior
        return np.ones_like(alpha)
    power = max(freedom, moment + 1)
    ratio: FloatArray = np.exp(log_scale_integral(alpha, beta, power - moment) - log_scale_integral(alpha, beta, power))
    return ratio


def mixture_evidence(
    log_evidence: FloatArray, log_weight: FloatArray, level_probability: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Weigh components and levels by their evidence.

    Parameters
    ----------
    log_evidence
        log p(y | r, c) (c, g, v); overwritten.
    log_weight
        log π of each component for each voxel (c, v) or (c, 1).
    level_probability
        p(r | c) (c, g).

    Returns
    -------
    probability : ndarray of shape (c, g, v)
        Posterior probability of every component and level; sums to 1 over both.
    log_marginal : ndarray of shape (v,)
        log p(y) under the whole mixture, up to a constant of the voxel.
    """
    with np.errstate(divide="ignore"):
        log_level = np.log(level_probability)
    joint = log_evidence
    joint += (log_weight[:, None, :] + log_level[:, :, None]).astype(log_evidence.dtype)
    largest = joint.max(axis=(0, 1))
    joint -= largest
    np.exp(joint, out=joint)
    total = joint.sum(axis=(0, 1))
    joint /= total
    return joint, largest + np.log(total)


def _tiny(like: FloatArray) -> FloatArray:
    return np.asarray(1e-20, dtype=like.dtype)
