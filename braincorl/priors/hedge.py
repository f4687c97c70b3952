"""Two encoders rather than one: a prior from other people may not hold for this person, and the evidence cannot tell.

With few images the evidence of a mixture is quick to trust the kinds of voxel that other people have, and slow to
notice that these fail on new images. Part of the encoder therefore comes from a method that knows nobody else: Bayesian
ridge, or the in-context network. The two err in different ways, so that their mean is better than either nearly
everywhere.

What no feature explains about an image is shared by people, and bends the prior to the images that it was learned from.
Of the m images of the context that the earlier people saw too, the prior learns that residual a second time: its part
therefore falls as m comes near the M images that they saw. The share of the method without a prior is

    max(lowest, m / (m + κ M)).

`lowest` and κ were set on three data sets, scored on images that nobody had seen (object2vec, actions, and BOLD5000's
weights with simulated noise, 5 to 100 images of context): .3 to .6 and, with regions, .2 to .3 were best where the
context's images were new to all, at any number of images; .7 and .6 where it was all of the 40 images that anybody saw.
"""

import numpy as np
import numpy.typing as npt

from braincorl.validation import FloatArray

# Lowest share of the encoder that knows no prior and κ, in voxels of unknown and of known region.
_LOWEST = 0.4, 0.25
_KAPPA = 3 / 8, 2 / 3
# Share of the in-context network in the metric of the prior, of what remains; where regions are known it adds nothing.
_METRIC = 1 / 3


def share_without_prior(known: npt.NDArray[np.bool_], n_seen: int = 0, n_taught: int = 0) -> npt.NDArray[np.float64]:
    """How much of each voxel's encoder comes from one that knows no prior.

    Parameters
    ----------
    known
        Whether the voxel's region is known to the prior (v,).
    n_seen
        Images of the context that the prior was learned from, m.
    n_taught
        Images that the prior was learned from, M.

    Returns
    -------
    ndarray of shape (v,)
    """
    unknown, inside = (
        max(lowest, n_seen / (n_seen + kappa * n_taught)) if n_seen else lowest
        for lowest, kappa in zip(_LOWEST, _KAPPA, strict=True)
    )
    return np.where(known, inside, unknown)


def share_in_metric(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """How much of that part of an in-context encoder that knows the prior is the network's, not the posterior mean.

    Parameters
    ----------
    known
        Whether the voxel's region is known to the prior (v,).

    Returns
    -------
    ndarray of shape (v,)
    """
    return np.where(known, 0.0, _METRIC)


def blend(with_prior: FloatArray, without: FloatArray, share: npt.NDArray[np.float64]) -> FloatArray:
    """Average two encoders.

    Parameters
    ----------
    with_prior, without
        Weights (v, p) or intercepts (v,).
    share
        Part of the second (v,).

    Returns
    -------
    ndarray of the same shape and type
    """
    part = share.astype(with_prior.dtype).reshape(-1, *[1] * (with_prior.ndim - 1))
    mean: FloatArray = with_prior + part * (without - with_prior)
    return mean
