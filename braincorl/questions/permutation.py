"""Is a voxel predicted better than chance? Images are permuted, and voxels are counted with a false discovery rate.

The predictions are fixed: they come from images that are not tested. If they told nothing of the responses, any other
order of the test images would do as well, so the observed correlation is one among those of all orders,

    p = (1 + #{b : r_b ≥ r}) / (1 + B)        r_b = Σ_i z(y)_i z(ŷ)_π_b(i)

EV and R² grow with the covariance of y and ŷ, whose variances no order changes: their p is the same number. The same
orders serve all voxels, so that the maximum over voxels, and the mean over a region, are tested with the dependence
between voxels as it is.

Repeats of an image are one row, their mean, and so stay together. Where images differ in their number of trials their
means differ in noise, and are exchanged only among those of as many trials.

Letters: n images, v voxels, b permutations.

References
----------
Phipson & Smyth, Permutation p-values should never be zero, Statistical Applications in Genetics 9 (2010); Benjamini &
Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical Society B 57 (1995); Nichols & Holmes,
Nonparametric permutation tests for functional neuroimaging, Human Brain Mapping 15 (2002).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import false_discovery_control

from braincorl.batching import at_a_time, batches
from braincorl.errors import InputError
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray, check_same_shape

FALSE_DISCOVERIES = 0.05  # the share among the voxels found at which they are counted, as is usual

# Sums of the same numbers in another order differ by rounding; an order as good as the observed one counts as such.
_TIE = 1e-10
# A batch's rows are gathered once per permutation, so they should stay in the processor's cache.
_CACHE_BYTES = 2**19


@dataclass(frozen=True)
class PermutationTest:
    """What permuted images say.

    Attributes
    ----------
    p
        One-sided p of each voxel (n_voxels,); NaN where the responses are constant or not finite.
    q
        The smallest false discovery rate at which a voxel is found (Benjamini and Hochberg) (n_voxels,).
    p_family
        p of each voxel with the chance of any error over all voxels controlled (n_voxels,).
    p_regions
        p of the mean correlation of each region's voxels.
    n_permutations
        B.
    """

    p: npt.NDArray[np.float64]
    q: npt.NDArray[np.float64]
    p_family: npt.NDArray[np.float64]
    p_regions: dict[str, float]
    n_permutations: int


def permutation_test(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    n_permutations: int = 1000,
    *,
    strata: npt.ArrayLike | None = None,
    rois: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> PermutationTest:
    """Test each voxel's predictions against permuted images.

    Parameters
    ----------
    y_true
        Measured responses (n_images, n_voxels), one row per image: average repeats first.
    y_pred
        Predicted responses (n_images, n_voxels), of an encoder that was not fitted on these images.
    n_permutations
        Orders to draw; no p is below 1 / (1 + n_permutations).
    strata
        Images are exchanged only with those of the same value (n_images,): pass the number of trials, or sessions.
    rois
        Region name -> bool (n_voxels,), to be tested as a whole.
    random_state
        Seed; the same seed gives the same orders, whatever the voxels.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    PermutationTest

    Raises
    ------
    InputError
        If shapes do not match, or there are fewer than two images or one permutation.
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    check_same_shape(true, predicted)
    if true.ndim != 2 or true.shape[0] < 2:
        raise InputError(f"y_true has shape {true.shape}: expected (n_images, n_voxels) with at least two images.")
    orders = draw_orders(true.shape[0], n_permutations, strata, random_state)
    regions = {"all": np.ones(true.shape[1], dtype=bool), **(rois or {})}
    for name, members in regions.items():
        if members.shape != true.shape[1:]:
            raise InputError(f"rois['{name}'] has shape {members.shape}, expected (n_voxels,) = {true.shape[1:]}.")
    p = np.full(true.shape[1], np.nan)
    r = np.full(true.shape[1], np.nan)
    largest = np.full(n_permutations, -np.inf)
    observed, permuted = np.zeros(len(regions)), np.zeros((n_permutations, len(regions)))
    size = max(16, min(_CACHE_BYTES // (8 * true.shape[0]), at_a_time(24 * int(n_permutations))))
    for batch in batches(true.shape[1], 1, size):
        measured, known = _standardize(true[:, batch])
        expected, told = _standardize(predicted[:, batch])
        known &= told | np.isfinite(predicted[:, batch]).all(axis=0)  # a constant prediction tells nothing: r is 0
        r_observed, r_permuted = _correlations(measured, expected, orders)
        exceeding = 1 + (r_permuted >= r_observed - _TIE).sum(axis=0)
        p[batch] = np.where(known, exceeding / (1 + n_permutations), np.nan)
        r[batch] = np.where(known, r_observed, np.nan)
        r_permuted[:, ~known] = 0.0
        members = np.stack([members[batch] & known for members in regions.values()], axis=1).astype(np.float64)
        observed += np.where(known, r_observed, 0.0) @ members
        permuted += r_permuted @ members
        if known.any():
            largest = np.maximum(largest, r_permuted[:, known].max(axis=1))
        if progress is not None:
            progress(batch.stop, true.shape[1])
    return PermutationTest(p, fdr(p), _family(r, largest), _regions(regions, r, observed, permuted), n_permutations)


def draw_orders(
    n_images: int, n_permutations: int, strata: npt.ArrayLike | None = None, random_state: int = 0
) -> npt.NDArray[np.int32]:
    """Draw orders of images (n_permutations, n_images), within strata where there are any.

    Raises
    ------
    InputError
        If there is no permutation to draw, or `strata` is not one value per image.
    """
    if isinstance(n_permutations, bool) or not isinstance(n_permutations, int | np.integer) or n_permutations < 1:
        raise InputError(f"n_permutations must be a whole number of at least 1, but is {n_permutations!r}.")
    labels = np.zeros(n_images) if strata is None else np.asarray(strata)
    if labels.shape != (n_images,):
        raise InputError(f"strata has shape {labels.shape}, expected one value per image, ({n_images},).")
    rng = np.random.default_rng(random_state)
    orders = np.tile(np.arange(n_images, dtype=np.int32), (int(n_permutations), 1))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        orders[:, rows] = rng.permuted(orders[:, rows], axis=1)
    return orders


def log10_orders(strata: npt.ArrayLike) -> float:
    """Decimal logarithm of the number of different orders that strata leave: no p is below one over that number."""
    _, counts = np.unique(np.asarray(strata), return_counts=True)
    return float(sum(math.lgamma(count + 1) for count in counts.tolist()) / math.log(10))


def fdr(p: FloatArray) -> npt.NDArray[np.float64]:
    """Benjamini and Hochberg's q of each voxel (n_voxels,), NaN where p is; those do not count as tests."""
    q = np.full(p.shape, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def _standardize(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Columns of mean 0 and length 1, 0 for those that are constant or not finite, and which are neither."""
    array = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        array -= array.mean(axis=0)
        known = np.isfinite(array).all(axis=0) & (np.ptp(values, axis=0) > 0)
        array[:, ~known] = 0.0
        array /= np.where(known, np.abs(array).max(axis=0), 1.0)  # the squares of large and small numbers stay finite
    length = np.sqrt(np.einsum("nv,nv->v", array, array))
    return np.asarray(array / np.where(length > 0, length, 1.0)), known


def _correlations(
    measured: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], orders: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Correlation (v,), and r in each order (b, v)."""
    permuted = np.empty((len(orders), measured.shape[1]))
    gathered = np.empty_like(expected)
    for order, out in zip(orders, permuted, strict=True):
        np.take(expected, order, axis=0, out=gathered, mode="clip")
        np.einsum("nv,nv->v", measured, gathered, out=out)
    return np.einsum("nv,nv->v", measured, expected), permuted


def _family(r: FloatArray, largest: FloatArray) -> npt.NDArray[np.float64]:
    """Share of orders, the observed one included, in which some voxel is as well predicted as this one."""
    ascending = np.sort(largest)
    as_large = largest.size - np.searchsorted(ascending, r - _TIE, side="left")
    return np.where(np.isfinite(r), (1 + as_large) / (1 + largest.size), np.nan)


def _regions(
    regions: Mapping[str, npt.NDArray[np.bool_]], r: FloatArray, observed: FloatArray, permuted: FloatArray
) -> dict[str, float]:
    as_large = 1 + (permuted >= observed - _TIE * np.maximum(1, np.abs(observed))).sum(axis=0)
    return {
        name: float(count / (1 + len(permuted))) if np.isfinite(r[members]).any() else float("nan")
        for (name, members), count in zip(regions.items(), as_large, strict=True)
    }
