"""Two encoders rather than one: a prior from other people may not hold for this person, and the evidence cannot tell.

With few images the evidence of a mixture is quick to trust the kinds of voxel that other people have, the more so where
they saw the same images as the context's, and slow to notice that these fail on new ones. Part of the encoder therefore
comes from a method that knows nobody else: Bayesian ridge, or the in-context network. The two err in different ways, so
that their mean is better than either nearly everywhere.

How large that part should be was measured on three data sets (new images of object2vec, actions and BOLD5000, 5 to 100
images of context, see README): .3 to .5 without regions and .1 to .3 with them, at any number of images.
"""

import numpy as np
import numpy.typing as npt

from braincorl.validation import FloatArray

# Share of the encoder that knows no prior, in voxels of unknown and of known region.
_UNKNOWN, _KNOWN = 0.4, 0.25
# Share of the in-context network in the metric of the prior, of what remains; where regions are known it adds nothing.
_METRIC = 1 / 3


def share_without_prior(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """How much of each voxel's encoder comes from one that knows no prior.

    Parameters
    ----------
    known
        Whether the voxel's region is known to the prior (v,).

    Returns
    -------
    ndarray of shape (v,)
    """
    return np.where(known, _KNOWN, _UNKNOWN)


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
