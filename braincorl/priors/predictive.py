"""Weights, noise and predictive spread of every voxel under the whole mixture: sums over `posterior`'s components.

With q(r, c) the posterior probability of a level and a component,

    E[w] = Σ_c μ_c Σ_r q √r E[s]  +  Σ_c Σ_c Rᵀ U Σ_r q (r / d) (z̃ - √r E[s] m̃)

and the variance of a new response is the mean over (r, c) of noise, weight uncertainty and scale uncertainty, plus the
variance over (r, c) of the predicted mean.

Letters: n images, p features, k rank, v voxels, c components, g levels of r, q queries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.priors.components import LEVELS, Components
from braincorl.priors.context import Context
from braincorl.priors.posterior import (
    Frame,
    LevelEvidence,
    expected_scale,
    level_evidence,
    make_frames,
    mixture_evidence,
)
from braincorl.validation import FloatArray

# Bytes of temporaries in one batch of voxels.
_BATCH_BYTES = 96 * 2**20
# Components and levels that are less probable than this for a voxel are left out of its predictive variance.
_NEGLIGIBLE = 1e-5


@dataclass(frozen=True)
class VoxelPosterior:
    """Posterior of every voxel, in response units.

    Attributes
    ----------
    coef
        Mean weights (v, p).
    intercept
        Mean intercept (v,).
    noise_variance
        Mean variance of one response around the encoder (v,).
    signal_fraction
        Mean of r (v,).
    responsibility
        Probability of each component (v, c).
    """

    coef: FloatArray
    intercept: FloatArray
    noise_variance: FloatArray
    signal_fraction: FloatArray
    responsibility: FloatArray


def solve_mixture(
    context: Context,
    components: Components,
    log_weight: FloatArray,
    feature_mean: FloatArray,
    voxel_batch_size: int | str = "auto",
) -> VoxelPosterior:
    """Posterior of every voxel.

    Parameters
    ----------
    context
        Of the person.
    components
        The mixture.
    log_weight
        log π of each component for each voxel (c, v) or (c, 1).
    feature_mean
        Mean feature vector (p,) at which an encoder without any image predicts 0.
    voxel_batch_size
        Voxels at a time, or "auto"; bounds memory and changes no result.

    Returns
    -------
    VoxelPosterior
    """
    dtype = context.rows.dtype
    n_voxels, n_components = context.n_voxels, components.n_components
    frames = make_frames(context, components)
    coef = np.empty((n_voxels, context.n_features), dtype)
    noise, signal = np.empty(n_voxels, dtype), np.empty(n_voxels, dtype)
    responsibility = np.empty((n_voxels, n_components), dtype)
    for batch in voxel_batches(n_voxels, n_components, context.rows.shape[0], dtype, voxel_batch_size):
        part = context.voxels(batch)
        probability, evidences, turned = _weigh(frames, part, components, log_weight, batch)
        coef[batch], noise[batch] = _moments(frames, part, components, probability, evidences, turned)
        signal[batch] = np.einsum("g,cgv->v", LEVELS.astype(dtype), probability)
        responsibility[batch] = probability.sum(axis=1).T
    unit = _unit(context)
    coef *= unit[:, None]
    centre = context.feature_mean if context.n_images else feature_mean.astype(dtype)
    return VoxelPosterior(
        coef=coef,
        intercept=context.response_mean - coef @ centre,
        noise_variance=noise * unit**2,
        signal_fraction=signal,
        responsibility=responsibility,
    )


def predictive_std(
    context: Context,
    components: Components,
    log_weight: FloatArray,
    feature_mean: FloatArray,
    X: FloatArray,
    voxel_batch_size: int | str = "auto",
) -> FloatArray:
    """Predict the standard deviation of new responses.

    Parameters
    ----------
    context, components, log_weight, feature_mean, voxel_batch_size
        As in `solve_mixture`.
    X
        Features of new images (q, p).

    Returns
    -------
    ndarray of shape (q, v)
        In response units.
    """
    dtype = context.rows.dtype
    frames = make_frames(context, components)
    query = X - (context.feature_mean if context.n_images else feature_mean.astype(dtype))
    variance = np.empty((X.shape[0], context.n_voxels), dtype)
    bytes_rank = max(context.rows.shape[0], 4 * X.shape[0])
    for batch in voxel_batches(context.n_voxels, components.n_components, bytes_rank, dtype, voxel_batch_size):
        part = context.voxels(batch)
        probability, evidences, turned = _weigh(frames, part, components, log_weight, batch)
        variance[:, batch] = _variance(frames, part, components, probability, evidences, turned, query)
    std: FloatArray = np.sqrt(variance) * _unit(context)
    return std


def voxel_batches(
    n_voxels: int, n_components: int, rank: int, dtype: npt.DTypeLike, voxel_batch_size: int | str
) -> Iterator[slice]:
    """Cut voxels into batches whose temporaries, over all components, stay bounded.

    Returns
    -------
    iterator of slice
        Consecutive ranges of voxels.
    """
    per_voxel = np.dtype(dtype).itemsize * n_components * (rank + 6 * LEVELS.size)
    return batches(n_voxels, per_voxel, voxel_batch_size, _BATCH_BYTES)


def _unit(context: Context) -> FloatArray:
    """Response units per unit of the posterior: without two images, the prior's own unit signal-plus-noise."""
    return context.scale if context.freedom else np.ones_like(context.scale)


def _weigh(
    frames: Sequence[Frame], part: Context, components: Components, log_weight: FloatArray, batch: slice
) -> tuple[FloatArray, list[LevelEvidence], list[FloatArray]]:
    turned: list[FloatArray] = [frame.vectors.T @ part.projected for frame in frames]
    evidences = [level_evidence(frame, part, z) for frame, z in zip(frames, turned, strict=True)]
    weight = log_weight[:, batch] if log_weight.shape[1] > 1 else log_weight
    stack = np.stack([evidence.log_evidence for evidence in evidences])
    probability, _ = mixture_evidence(stack, weight, components.level_probability)
    return probability, evidences, turned


def _moments(
    frames: Sequence[Frame],
    part: Context,
    components: Components,
    probability: FloatArray,
    evidences: Sequence[LevelEvidence],
    turned: Sequence[FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Mean weights (v, p) and noise variances (v,), in units of each voxel's scale."""
    dtype = part.rows.dtype
    root, r = np.sqrt(LEVELS).astype(dtype)[:, None], LEVELS[:, None]
    along_mean = np.empty((len(frames), part.n_voxels), dtype)
    coef = np.zeros((part.n_voxels, part.n_features), dtype)
    noise = np.zeros(part.n_voxels, dtype)
    for c, (frame, evidence, z) in enumerate(zip(frames, evidences, turned, strict=True)):
        shrink = (r / frame.marginal).astype(dtype)  # (g, k)
        first = expected_scale(evidence.alpha, evidence.beta, part.freedom + part.prior_freedom)
        pulled = probability[c] * root * first
        along_mean[c] = pulled.sum(axis=0)
        coordinates = (shrink.T @ probability[c]) * z
        coordinates -= (shrink * frame.turned_mean.astype(dtype)).T @ pulled
        coef += coordinates.T @ frame.back
        second = expected_scale(evidence.alpha, evidence.beta, part.freedom + part.prior_freedom, moment=2)
        noise += (1.0 - LEVELS).astype(dtype) @ (probability[c] * second)
    coef += along_mean.T @ components.mean.astype(dtype)
    return coef, noise


def _variance(
    frames: Sequence[Frame],
    part: Context,
    components: Components,
    probability: FloatArray,
    evidences: Sequence[LevelEvidence],
    turned: Sequence[FloatArray],
    query: FloatArray,
) -> FloatArray:
    """Predictive variance (q, v), in squared units of each voxel's scale."""
    dtype = part.rows.dtype
    shape = (query.shape[0], part.n_voxels)
    within, mean, square = np.zeros(shape, dtype), np.zeros(shape, dtype), np.zeros(shape, dtype)
    intercept = 1.0 / part.n_images if part.n_images else 0.0
    for c, (frame, evidence, z) in enumerate(zip(frames, evidences, turned, strict=True)):
        prior_variance = (components.covariance_times(query, c) * query).sum(axis=1)
        inside = query @ frame.back.T  # (q, k)
        along_mean = query @ components.mean[c].astype(dtype)
        first = expected_scale(evidence.alpha, evidence.beta, part.freedom + part.prior_freedom)
        second = expected_scale(evidence.alpha, evidence.beta, part.freedom + part.prior_freedom, moment=2)
        for g, level in enumerate(LEVELS):
            chance = np.where(probability[c, g] < _NEGLIGIBLE, 0, probability[c, g])
            if not chance.any():
                continue
            shrunk = (inside * (level / frame.marginal[g])).astype(dtype)
            latent = level * np.maximum(prior_variance - (shrunk * inside).sum(axis=1), 0.0)
            per_scale = np.sqrt(level) * (along_mean - shrunk @ frame.turned_mean.astype(dtype))
            expected = shrunk @ z + per_scale[:, None].astype(dtype) * first[g]
            within += (latent + (1.0 - level) * (1.0 + intercept))[:, None].astype(dtype) * (chance * second[g])
            spread = chance * np.maximum(second[g] - first[g] ** 2, 0.0)
            within += (per_scale**2)[:, None].astype(dtype) * spread
            mean += chance * expected
            square += chance * expected**2
    variance: FloatArray = within + np.maximum(square - mean**2, 0.0)
    return variance
