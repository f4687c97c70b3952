"""Bayesian ridge in coordinates in which the prior is diagonal: the share r of signal in a response is averaged over.

A response z (k,) of a voxel is signal of prior variances r λ plus noise of variance 1 - r, both times a variance that
is estimated at each level of r. The evidence of the levels weights the factors r λ / (r λ + 1 - r) of ridge.

    k coordinates, V voxels, g levels of r
"""

import torch
from torch import Tensor

# Share of response variance that features explain: from none to what the cleanest voxels show.
LEVELS = torch.linspace(0.0, 0.8, 17, dtype=torch.float64)


def signal_levels(values: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Evidence of every level of r.

    Parameters
    ----------
    values
        Prior variances along the rows of `z`, in units of the signal (k,).
    z
        Responses (k, V).

    Returns
    -------
    probability : Tensor of shape (g, V)
    variance : Tensor of shape (g, V)
        Response variance at each level.
    """
    levels = LEVELS.to(values)[:, None]
    marginal = levels * values + 1 - levels
    variance = ((1 / marginal).to(z) @ z.square()) / len(values)
    log_evidence = (
        -0.5 * marginal.log().sum(1, keepdim=True).to(z) - 0.5 * len(values) * variance.clamp_min(1e-30).log()
    )
    return log_evidence.softmax(0), variance


def shrinkage(values: Tensor, z: Tensor) -> Tensor:
    """Give the factors by which Bayesian ridge shrinks responses, averaged over r by the evidence.

    Parameters
    ----------
    values
        Prior variances along the rows of `z` (k,).
    z
        Responses (k, V).

    Returns
    -------
    Tensor of shape (k, V)
    """
    probability, _ = signal_levels(values, z)
    return shrinkage_factors(values).to(z).T @ probability


def shrinkage_factors(values: Tensor) -> Tensor:
    """Give the factors of ridge at every level of r, for prior variances (k,): a tensor of shape (g, k)."""
    levels = LEVELS.to(values)[:, None]
    return levels * values / (levels * values + 1 - levels)
