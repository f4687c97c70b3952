"""The in-context encoder of a person for whom a prior is given: a mean of three, after `braincorl.priors.hedge`."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from braincorl.encoders.group_prior import GroupPriorEncoder
from braincorl.encoders.native import NativeFit
from braincorl.priors.components import Components
from braincorl.priors.hedge import blend, share_in_metric
from braincorl.validation import FloatArray


def mean_of_three(
    closed: GroupPriorEncoder,
    network: NativeFit,
    write: Callable[[float, Components], NativeFit],
    known: npt.NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray]:
    """Average the posterior mean under a prior with what the network writes, without the prior and in its metric.

    Parameters
    ----------
    closed
        Fitted, not hedged.
    network
        What the network wrote without the prior.
    write
        Lets the network write in the metric of the prior: `fit_native` with all other arguments.
    known
        Whether each voxel's region is known to the prior (v,).

    Returns
    -------
    coef : ndarray of shape (v, p)
    intercept : ndarray of shape (v,)
    """
    inside, share = share_in_metric(known), closed.share_without_prior(known)
    encoder = closed.coef_, closed.intercept_
    if inside.any():
        metric = write(closed.scale_, closed.components_)
        encoder = blend(encoder[0], metric.coef, inside), blend(encoder[1], metric.intercept, inside)
    return blend(encoder[0], network.coef, share), blend(encoder[1], network.intercept, share)
