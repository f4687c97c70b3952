"""How well predictions match responses, per voxel, and how well they could.

Letters: y responses, ŷ predictions, both (n_images, n_voxels); σ²_s variance of a voxel's true response over images;
σ²_n variance of one trial around it; ncsnr = σ_s / σ_n; NC the noise ceiling of R².

    EV = 1 - Var(y - ŷ) / Var(y)        R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)²        r = corr(y, ŷ)
    NC = σ²_s / (σ²_s + σ²_n / n_repeats)

EV forgives a wrong mean, R² does not, r forgives a wrong scale too. None is corrected for noise: NC is the largest EV
or R² that a perfect encoder can reach, √NC the largest r. A voxel whose measured responses are constant gets NaN.

Numbers are as exact as the arrays that come in: float32 holds 7 digits, so a prediction near 1,000 that varies by less
than .0005 is mostly rounding. `r` is NaN there rather than the correlation of rounding errors; pass float64, or
predictions without the voxel's mean.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.validation import FloatArray, check_same_shape

# Units in the last place. Rounding alone has a standard deviation of .3 of them: at 8 it moves r by less than .001.
ROUNDING = 8


def explained_variance(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Explained variance of each voxel, 1 - Var(y - ŷ) / Var(y).

    Parameters
    ----------
    y_true
        Measured responses (n_images, n_voxels).
    y_pred
        Predicted responses (n_images, n_voxels).

    Returns
    -------
    ndarray of shape (n_voxels,)
        At most 1; negative where predicting the mean would be better; NaN for constant voxels.

    Raises
    ------
    InputError
        If the shapes differ or there are fewer than two images.
    """
    true, predicted = _pair(y_true, y_pred)
    return 1.0 - _squared_ratio(_deviation(true - predicted), _deviation(true))


def r2_score(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Coefficient of determination of each voxel, 1 - Σ(y - ŷ)² / Σ(y - ȳ)².

    Parameters and errors are those of `explained_variance`.

    Returns
    -------
    ndarray of shape (n_voxels,)
        At most the explained variance; NaN for constant voxels.
    """
    true, predicted = _pair(y_true, y_pred)
    return 1.0 - _squared_ratio(_root_mean_square(true - predicted), _deviation(true))


def pearson_r(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Pearson correlation of each voxel.

    Parameters and errors are those of `explained_variance`.

    Returns
    -------
    ndarray of shape (n_voxels,)
        In [-1, 1]; 0 where only the prediction is constant (it tells nothing); NaN for constant voxels, and where
        either varies, but by less than 8 units in the last place of its own type (that is rounding).
    """
    true, predicted = _pair(y_true, y_pred)
    true_scale, predicted_scale = _deviation(true), _deviation(predicted)
    rounding = _is_rounding(true_scale, y_true, true) | _is_rounding(predicted_scale, y_pred, predicted)
    standard_true = (true - true.mean(axis=0)) / np.where(true_scale > 0, true_scale, np.nan)
    standard_predicted = (predicted - predicted.mean(axis=0)) / np.where(predicted_scale == 0, np.inf, predicted_scale)
    r: npt.NDArray[np.float64] = np.clip((standard_true * standard_predicted).mean(axis=0), -1.0, 1.0)
    return np.where(rounding, np.nan, r)


def noise_ceiling(ncsnr: npt.ArrayLike, n_repeats: npt.ArrayLike = 1) -> npt.NDArray[np.float64]:
    """Noise ceiling of R² for responses that are means over repeats.

    NC = ncsnr² / (ncsnr² + mean(1 / n)), the mean taken over the images that are scored; for A, B, C images of 3, 2
    and 1 trials that is the Natural Scenes Dataset's (A/3 + B/2 + C) / (A + B + C).

    Parameters
    ----------
    ncsnr
        Noise ceiling signal-to-noise ratio of each voxel, σ_s / σ_n, (n_voxels,).
    n_repeats
        Trials averaged for each scored image: one number, or (n_images,).

    Returns
    -------
    ndarray of shape (n_voxels,)
        In [0, 1]; NaN where `ncsnr` is NaN. An infinite `ncsnr` (no noise) gives 1.

    Raises
    ------
    InputError
        If a repeat count is below 1 or an `ncsnr` is negative.

    References
    ----------
    Allen et al., A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence, Nature
    Neuroscience 25 (2022).
    """
    repeats = np.atleast_1d(np.asarray(n_repeats, dtype=np.float64))
    ratio = np.asarray(ncsnr, dtype=np.float64)
    if repeats.size == 0 or not (repeats >= 1).all():
        raise InputError("n_repeats must be at least 1 for every image: leave out images without a trial.")
    if (ratio < 0).any():
        raise InputError("ncsnr must not be negative: it is a standard deviation over another.")
    noise = (1.0 / repeats).mean()
    # Written with 1 / ncsnr² so that no noise (infinity) gives 1 and no signal (0) gives 0.
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / (1.0 + noise / ratio**2))


def estimate_ncsnr(responses: npt.ArrayLike, image_ids: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Estimate σ_s / σ_n of each voxel from images shown more than once.

    Parameters
    ----------
    responses
        Single-trial responses (n_trials, n_voxels), usually z-scored within each session.
    image_ids
        Which image each trial showed (n_trials,).

    Returns
    -------
    ndarray of shape (n_voxels,)
        0 where repeats differ as much as images do; NaN for constant voxels.

    Raises
    ------
    InputError
        If the lengths differ or no image was repeated.
    """
    y = np.asarray(responses, dtype=np.float64)
    ids = np.asarray(image_ids)
    if y.ndim != 2 or ids.shape != (y.shape[0],):
        raise InputError(
            f"responses has shape {y.shape} and image_ids {ids.shape}: expected (n_trials, n_voxels) and (n_trials,)."
        )
    _, index, counts = np.unique(ids, return_inverse=True, return_counts=True)
    size = np.abs(y).max(axis=0)
    centred = (y - y.mean(axis=0)) / np.where(size > 0, size, 1.0)  # the ratio has no unit, and squares stay finite
    sums = np.zeros((counts.size, y.shape[1]))
    np.add.at(sums, index, centred)
    return ncsnr_from_sums((centred**2).sum(axis=0), sums, counts)


def ncsnr_from_sums(
    total_squares: FloatArray, image_sums: FloatArray, counts: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float64]:
    """`estimate_ncsnr` from sums over trials, for data that are read piece by piece.

    One-way random-effects analysis of variance with images as groups: σ²_n is the mean square within images, and
    σ²_s = (MS_total - σ²_n) / c with c = (N - Σ nᵢ²/N) / (N - 1), so that both are unbiased for any pattern of repeats.
    With session-wise z-scored trials and many images c and MS_total tend to 1, the definition of the Natural Scenes
    Dataset.

    Parameters
    ----------
    total_squares
        Σ over trials of squared, centred responses (n_voxels,).
    image_sums
        Σ over each image's trials of centred responses (n_distinct_images, n_voxels).
    counts
        Trials of each image (n_distinct_images,).

    Returns
    -------
    ndarray of shape (n_voxels,)

    Raises
    ------
    InputError
        If no image was repeated.
    """
    n_trials, n_images = int(counts.sum()), counts.size
    if n_trials == n_images or n_images < 2:
        raise InputError(
            f"{n_trials} trials of {n_images} images hold no repeats to estimate noise from: "
            "pass an ncsnr map, or trials with repeated images of at least two images."
        )
    between = (np.asarray(image_sums, dtype=np.float64) ** 2 / counts[:, None]).sum(axis=0)
    noise = np.maximum(total_squares - between, 0.0) / (n_trials - n_images)
    spread = (n_trials - (counts.astype(np.float64) ** 2).sum() / n_trials) / (n_trials - 1)
    signal = np.maximum(total_squares / (n_trials - 1) - noise, 0.0) / spread
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total_squares > 0, np.sqrt(signal / noise), np.nan))


def normalize_by_ceiling(
    score: npt.ArrayLike, ceiling: npt.ArrayLike, min_ceiling: float = 0.1
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Divide a score by its ceiling, for the voxels whose ceiling is worth dividing by.

    Pass EV or R² with NC, or r with √NC. Values above 1 are kept: ceilings and scores are estimates, and clipping would
    bias their mean; a voxel of low ceiling is left out instead.

    Parameters
    ----------
    score
        Score of each voxel (n_voxels,).
    ceiling
        Largest value that a perfect encoder could reach (n_voxels,).
    min_ceiling
        Voxels below this ceiling get NaN.

    Returns
    -------
    normalized : ndarray of shape (n_voxels,)
        score / ceiling, NaN outside the mask.
    mask : bool ndarray of shape (n_voxels,)
        Voxels with a finite score and a ceiling of at least `min_ceiling`.

    Raises
    ------
    InputError
        If the shapes differ or `min_ceiling` is not in (0, 1].
    """
    scores, ceilings = np.asarray(score, dtype=np.float64), np.asarray(ceiling, dtype=np.float64)
    if scores.shape != ceilings.shape:
        raise InputError(f"score has shape {scores.shape} but ceiling has {ceilings.shape}: both are (n_voxels,).")
    if not 0 < min_ceiling <= 1:
        raise InputError(f"min_ceiling must be in (0, 1], but is {min_ceiling}.")
    mask = np.isfinite(scores) & (ceilings >= min_ceiling)
    normalized = np.full(scores.shape, np.nan)
    normalized[mask] = scores[mask] / ceilings[mask]
    return normalized, mask


def trials_per_image(n_repeats: npt.ArrayLike) -> float:
    """Trials whose mean is as noisy as these means are on average: the harmonic mean of their numbers (n_images,)."""
    return float(1.0 / np.mean(1.0 / np.asarray(n_repeats, dtype=np.float64)))


def mean_over_voxels(values: npt.ArrayLike) -> float:
    """Mean of the voxels whose value is known (finite), of any shape; NaN, without a warning, if there are none."""
    array = np.asarray(values, dtype=np.float64)
    known = array[np.isfinite(array)]
    return float(known.mean()) if known.size else float("nan")


def _pair(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    true, predicted = np.asarray(y_true, dtype=np.float64), np.asarray(y_pred, dtype=np.float64)
    if true.ndim == 1 and predicted.ndim == 1:
        true, predicted = true[:, None], predicted[:, None]
    check_same_shape(true, predicted)
    if true.ndim != 2 or true.shape[0] < 2:
        raise InputError(f"y_true has shape {true.shape}: expected (n_images, n_voxels) with at least two images.")
    return true, predicted


def _root_mean_square(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Root mean square over images, for numbers whose squares would overflow or vanish, too."""
    largest = np.abs(values).max(axis=0)
    scale = np.where(largest > 0, largest, 1.0)
    rms: npt.NDArray[np.float64] = scale * np.sqrt(((values / scale) ** 2).mean(axis=0))
    return rms


def _deviation(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Take the standard deviation over images, 0 for constant columns (rounding of the mean would leave a trace)."""
    return np.where(np.ptp(values, axis=0) == 0, 0.0, _root_mean_square(values - values.mean(axis=0)))


def _is_rounding(
    deviation: npt.NDArray[np.float64], given: npt.ArrayLike, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether a column varies by so little that the type it came in may have made most of it."""
    dtype = np.asarray(given).dtype
    resolution = np.finfo(dtype).eps if np.issubdtype(dtype, np.floating) else 0.0
    return np.asarray((deviation > 0) & (deviation < ROUNDING * resolution * np.abs(values).max(axis=0)))


def _squared_ratio(numerator: FloatArray, denominator: FloatArray) -> npt.NDArray[np.float64]:
    """(numerator / denominator)², NaN where the denominator is 0, infinite where it is beyond all numbers."""
    out = np.full(denominator.shape, np.nan)
    with np.errstate(over="ignore"):
        np.divide(numerator, denominator, out=out, where=denominator > 0)
        return out**2
