"""Images whose responses are off in all voxels at once (motion, a missed trial) count for less.

Every image is predicted from the others under one Gaussian, with K its covariance of responses over images and P = K⁻¹
- K⁻¹11ᵀK⁻¹ / 1ᵀK⁻¹1 its inverse with a flat intercept; the left-out residual of image i in units of its expected size
is [Py]_i / √P_ii, in closed form. Its mean square over voxels, e_i, is alike for all good images, since many voxels
are averaged, and many times larger for a spoilt one. The precision of an image is

    ω_i = min(1, tolerated · median(e) / e_i),

a Huber weight (Huber 1964) on whole images, so that one decomposition still serves all voxels.

Letters: n images, p features, v voxels, c components.
"""

import numpy as np
import numpy.typing as npt
import scipy.linalg

from braincorl.validation import FloatArray

# How far above the median an image may lie. Noise that voxels share scatters good images by factors of two or three.
_TOLERATED = 4.0
_FEWEST_IMAGES = 5  # of fewer, a spoilt one moves the median itself
_ROUNDS = 3  # spoilt images found, the others judged without them, and once more to settle
_FEWEST_VOXELS = 8  # a mean over fewer scatters too much to tell a spoilt image from a good one
_CHUNK = 4096  # voxels at a time: 33 MB of double precision at 1,000 images


def weights_under(signal: FloatArray, y: FloatArray) -> npt.NDArray[np.float64]:
    """Relative precision of every image.

    Parameters
    ----------
    signal
        Covariance of the signal over images (n, n), in units of the noise variance of a good image.
    y
        Responses (n, v), any unit.

    Returns
    -------
    ndarray of shape (n,)
        1 for good images, less for spoilt ones; all 1 for fewer than five images or eight varying voxels.
    """
    n_images = y.shape[0]
    weights = np.ones(n_images)
    varying = np.flatnonzero(np.ptp(y, axis=0) > 0) if n_images else np.zeros(0, dtype=np.intp)
    if n_images < _FEWEST_IMAGES or varying.size < _FEWEST_VOXELS:
        return weights
    moment = np.zeros((n_images, n_images))
    for start in range(0, varying.size, _CHUNK):
        standard = y[:, varying[start : start + _CHUNK]].astype(np.float64)
        standard = (standard - standard.mean(axis=0)) / standard.std(axis=0)
        moment += standard @ standard.T / varying.size
    for _ in range(_ROUNDS):  # a spoilt image spoils the predictions of the others, so weights are found in turns
        energy = left_out_energy(signal, moment, weights)
        limit = _TOLERATED * np.median(energy)
        # e_i is in units of the noise that the present weight expects.
        weights = np.minimum(1.0, weights * limit / np.maximum(energy, 1e-300))
    return weights


def left_out_energy(
    signal: FloatArray, moment: FloatArray, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Mean over voxels of squared, standardised left-out residuals.

    Parameters
    ----------
    signal
        Covariance of the signal over images (n, n), in units of the noise variance of a good image.
    moment
        Second moment of the responses over voxels, y yᵀ / v (n, n).
    weights
        Precision of each image (n,).

    Returns
    -------
    ndarray of shape (n,)
        In squared units of `y`, the same for all images if the model holds.
    """
    inverse = scipy.linalg.inv(signal + np.diag(1.0 / weights))
    ones = inverse.sum(axis=1)
    inverse -= np.outer(ones, ones) / ones.sum()
    return np.asarray(np.einsum("ij,jk,ik->i", inverse, moment, inverse, optimize=True) / np.diag(inverse))
