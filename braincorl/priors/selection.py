"""Which images to show a new person: those that leave least uncertainty under the prior.

Under one Gaussian that stands for the whole memory, weights of covariance r S with S the residual metric of the
attending heads and r the share of signal, a measured image x adds one noisy linear observation of the weights. The
expected posterior variance of responses to the pool, tr(S V), does not depend on what is measured, so images can be
chosen before anybody is scanned (Bayesian A-optimal design; Chaloner & Verdinelli, Bayesian experimental design: a
review, 1995). The intercept is a weight of a constant feature with a large prior variance. Image by image, the one is
taken that lowers it most:

    gain(x) = xᵀ V S V x / (noise + xᵀ V x),   V ← V - V x xᵀ V / (noise + xᵀ V x)

Letters: m images of the pool, p features.
"""

import numpy as np
import numpy.typing as npt

from braincorl.closed_forms.bases import Metric
from braincorl.errors import InputError
from braincorl.priors.group_prior import GroupPrior
from braincorl.validation import FloatArray, check_finite

_INTERCEPT_VARIANCE = 100.0
# What an image is expected to tell hangs little on how strong a voxel is; this is the r of a good one.
_SIGNAL = 0.3
# Share of isotropic weights in S, as in `braincorl.models.attention`, which is not imported since it needs PyTorch.
_ISOTROPIC = 0.4


def select_images(X: FloatArray, n_images: int, prior: GroupPrior) -> npt.NDArray[np.intp]:
    """Choose images greedily by how much they lower the expected posterior variance over the pool.

    Parameters
    ----------
    X
        Features of the candidates (m, p), which are also the pool to be predicted.
    n_images
        How many to choose, at most m.
    prior
        In the same feature space.

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
    if not 1 <= n_images <= pool.shape[0]:
        raise InputError(f"n_images must be between 1 and the {pool.shape[0]} candidates, but is {n_images}.")
    check_finite(pool, "X")
    r = _SIGNAL
    # All that is needed of V are its products with the pool: C = X V Xᵀ over images, so p does not matter.
    covariance = r * _response_moment(pool, prior) + _INTERCEPT_VARIANCE
    chosen: list[int] = []
    free = np.ones(pool.shape[0], dtype=bool)
    for _ in range(n_images):
        gain = (covariance**2).sum(axis=0) / (1.0 - r + np.diag(covariance))
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        column = covariance[:, best].copy()
        covariance -= np.outer(column, column) / (1.0 - r + column[best])
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
        In the same feature space.

    Returns
    -------
    float
        In units of a voxel's response variance; the intercept's part included.
    """
    r = _SIGNAL
    covariance = r * _response_moment(np.asarray(X, dtype=np.float64), prior) + _INTERCEPT_VARIANCE
    observed = covariance[np.ix_(chosen, chosen)] + (1.0 - r) * np.eye(len(chosen))
    cross = covariance[:, chosen]
    return float(np.mean(np.diag(covariance) - (cross @ np.linalg.inv(observed) * cross).sum(axis=1)))


def _response_moment(X: npt.NDArray[np.float64], prior: GroupPrior) -> npt.NDArray[np.float64]:
    """Covariance X S Xᵀ of unit signals over images (m, m)."""
    centred = X - X.mean(axis=0)
    return np.asarray(centred @ (Metric(prior.moment, _ISOTROPIC, prior.scale) @ centred.T))
