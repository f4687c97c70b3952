"""Which images to show a new person: those that leave least uncertainty under the prior.

A new voxel's weights are taken to be Gaussian with covariance r S, as the attending heads suppose of what differs from
a remembered voxel: S is .6 of the remembered voxels' second moment and .4 isotropic, r the share of signal. A measured
image x adds one noisy linear observation of the weights. The expected posterior variance of responses to the pool,
tr(C V) with C the pool's second moment, does not depend on what is measured, so images can be chosen before anybody is
scanned (Bayesian A-optimal design; Chaloner & Verdinelli, Bayesian experimental design: a review, 1995). The intercept
is a weight of a constant feature with a large prior variance. Image by image, the one is taken that lowers it most:

    gain(x) = xᵀ V C V x / (1 - r + xᵀ V x),   V ← V - V x xᵀ V / (1 - r + xᵀ V x)

Letters: m images of the pool, p features.
"""

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.bases import Metric
from braincorl.errors import InputError
from braincorl.models.attention import AttentionConfig
from braincorl.priors.group_prior import GroupPrior
from braincorl.validation import FloatArray, check_finite

_INTERCEPT_VARIANCE = 100.0  # of responses of variance 1: nothing is known of the baseline
_SIGNAL = 0.3  # r of a typical voxel
_MOST_CANDIDATES = 20_000  # the variance over all their pairs is held in memory: 8 bytes each


def select_images(X: FloatArray, n_images: int, prior: GroupPrior) -> npt.NDArray[np.intp]:
    """Choose images greedily by how much they lower the expected posterior variance over the pool.

    Parameters
    ----------
    X
        Features of the candidates (m, p), which are also the pool to be predicted.
    n_images
        How many to choose, at most m.
    prior
        Of earlier people, in the same feature space.

    Returns
    -------
    ndarray of shape (n_images,)
        Rows, in order of choice; equal gains go to the earlier row.

    Raises
    ------
    InputError
        If shapes do not match or there are too few candidates.
    """
    pool = np.asarray(X, dtype=np.float64)
    if pool.ndim != 2 or pool.shape[1] != prior.n_features:
        raise InputError(f"X has shape {pool.shape}: expected (n_images, {prior.n_features}), as in the prior.")
    if pool.shape[0] > _MOST_CANDIDATES:
        raise InputError(f"X has {pool.shape[0]} images: choose from at most {_MOST_CANDIDATES}.")
    if not 1 <= n_images <= pool.shape[0]:
        raise InputError(f"n_images must be between 1 and the {pool.shape[0]} candidates, but is {n_images}.")
    check_finite(pool, "X")
    # All that is needed of V are its products with the pool: X V Xᵀ over images, so p does not matter.
    covariance = _prior_covariance(pool, prior)
    chosen: list[int] = []
    free = np.ones(pool.shape[0], dtype=bool)
    for _ in range(n_images):
        gain = (covariance**2).sum(axis=0) / (1.0 - _SIGNAL + np.diag(covariance))
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column) / (1.0 - _SIGNAL + column[best])
        chosen.append(best)
        free[best] = False
    return np.array(chosen, dtype=np.intp)


def expected_variance(X: FloatArray, chosen: npt.NDArray[np.intp], prior: GroupPrior) -> float:
    """Mean posterior variance of noise-free responses to the pool once some of its images are measured.

    Parameters
    ----------
    X
        Features of the pool (m, p).
    chosen
        Rows that are measured.
    prior
        Of earlier people, in the same feature space.

    Returns
    -------
    float
        In units of a voxel's response variance; the intercept's part included.
    """
    covariance = _prior_covariance(np.asarray(X, dtype=np.float64), prior)
    observed = covariance[np.ix_(chosen, chosen)] + (1.0 - _SIGNAL) * np.eye(len(chosen))
    cross = covariance[:, chosen]
    return float(np.mean(np.diag(covariance) - (cross @ np.linalg.inv(observed) * cross).sum(axis=1)))


def _prior_covariance(pool: npt.NDArray[np.float64], prior: GroupPrior) -> npt.NDArray[np.float64]:
    """Covariance of noise-free responses to the pool (m, m) before anything is measured."""
    centred = pool - pool.mean(axis=0)
    metric = Metric(prior.moment, AttentionConfig().attended_metric, prior.scale)
    covariance: npt.NDArray[np.float64] = _SIGNAL * centred @ (metric @ centred.T) + _INTERCEPT_VARIANCE
    return covariance
