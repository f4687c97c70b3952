"""What all voxels of one person say together about scales and ceilings: two numbers a voxel cannot know by itself.

*Scale.* With few images a voxel's variance is a poor estimate, but variances over voxels are alike (after z-scoring,
nearly equal). An inverse-χ² distribution with d₀ degrees of freedom around s₀² is fitted to the variances of all voxels
by the moments of their logarithms (Smyth, Linear models and empirical Bayes methods, 2004) and acts on each voxel as d₀
more images of variance s₀² would.

*Ceilings.* How much of the responses is signal differs between people, scanners and numbers of repeats. The prior's
distribution of r is therefore updated by EM on the person's own voxels, which count for `effective_voxels` because they
share noise.

Letters: v voxels, c components, g levels of r.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.special import digamma, polygamma

from braincorl.priors.components import Components
from braincorl.priors.context import Context, effective_voxels
from braincorl.priors.posterior import level_evidence, make_frames, mixture_evidence
from braincorl.validation import FloatArray

_MOST_FREEDOM = 200.0
# Fewer voxels than this tell too little about how variances spread.
_FEWEST_VOXELS = 20
# Effective voxels for which the prior's distribution of r counts.
_LEVEL_STRENGTH = 10.0
_LEVEL_ROUNDS = 8
# Enough to estimate fifteen probabilities; spread evenly over the voxels sorted by what they measured.
_MOST_VOXELS = 1500


def with_shared_scale(context: Context) -> Context:
    """Let the person's voxels lend each other degrees of freedom for their scale.

    Parameters
    ----------
    context
        Of one person.

    Returns
    -------
    Context
        With `prior_freedom` and `prior_energy`; unchanged for fewer than 20 varying voxels or 2 images.
    """
    varying = context.scale > 0
    freedom = context.freedom
    if context.noise_free or int(varying.sum()) < _FEWEST_VOXELS or freedom < 1:
        return context
    log_variance = 2 * np.log(context.scale[varying].astype(np.float64)) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = float(log_variance.var(ddof=1) - polygamma(1, freedom / 2))
    prior_freedom = 2 * inverse_trigamma(excess) if excess > 0 else _MOST_FREEDOM
    prior_freedom = min(prior_freedom, _MOST_FREEDOM)
    log_center = float(log_variance.mean() + digamma(prior_freedom / 2) - np.log(prior_freedom / 2))
    energy = np.zeros(context.n_voxels)
    energy[varying] = prior_freedom * np.exp(log_center) / context.scale[varying].astype(np.float64) ** 2
    return replace(context, prior_freedom=prior_freedom, prior_energy=energy.astype(context.rows.dtype))


def inverse_trigamma(value: float) -> float:
    """Solve trigamma(x) = value for positive x, by Newton's method on 1 / trigamma.

    Parameters
    ----------
    value
        Positive.

    Returns
    -------
    float
    """
    if value > 1e7:
        return float(1.0 / np.sqrt(value))
    if value < 1e-6:
        return 1.0 / value
    x = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1.0 - trigamma / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x


def update_levels(context: Context, components: Components, log_weight: FloatArray) -> Components:
    """Update the distribution of r with a person's own voxels.

    Parameters
    ----------
    context
        Of the person.
    components
        The prior's mixture.
    log_weight
        log π of each component for each voxel (c, v) or (c, 1).

    Returns
    -------
    Components
        The same mixture, with p(r | c) multiplied by one factor per level for all components.
    """
    varying = np.flatnonzero(context.scale > 0)
    if context.rows.shape[0] < 2 or varying.size < _FEWEST_VOXELS:
        return components
    strength = effective_voxels(context)
    order = varying[np.argsort(context.projected[0, varying], kind="stable")]
    chosen = order[np.linspace(0, order.size - 1, min(order.size, _MOST_VOXELS)).astype(np.intp)]
    part = context.voxels(chosen)
    weight = log_weight[:, chosen] if log_weight.shape[1] > 1 else log_weight
    frames = make_frames(part, components)
    stack = np.stack([level_evidence(f, part, f.vectors.T @ part.projected).log_evidence for f in frames])
    prior = components.weight @ components.level_probability
    level = components.level_probability
    for _ in range(_LEVEL_ROUNDS):
        probability, _ = mixture_evidence(stack.copy(), weight, level)
        count = probability.sum(axis=(0, 2)).astype(np.float64) * strength / part.n_voxels
        posterior = (count + _LEVEL_STRENGTH * prior) / (strength + _LEVEL_STRENGTH)
        level = _tilted(components.level_probability, posterior / np.maximum(prior, 1e-300))
    return replace(components, level_probability=level)


def _tilted(level_probability: npt.NDArray[np.float64], factor: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    tilted = level_probability * factor
    return np.asarray(tilted / tilted.sum(axis=1, keepdims=True))
