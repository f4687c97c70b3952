"""Explained variance in images drawn again: what a score of the same voxels would be on other images of the same kind.

The bootstrap over images (Efron) gives each image a count w_i; with centred responses y and residuals e = y - ŷ

    EV* = 1 - (Σ w e² / n - (Σ w e / n)²) / (Σ w y² / n - (Σ w y / n)²)

so that all samples of all voxels are four matrix products. Voxels share images, and with them noise: the same counts
serve all voxels, and a region's mean is taken within each sample.

Letters: n images, v voxels, b samples.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.batching import batches
from braincorl.errors import InputError
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray

Array = npt.NDArray[np.float64]

ALL = "all"  # name of the region of all voxels

# Of the variance over all images: below is the rounding of a sample that is one image, drawn every time.
RESAMPLED_ROUNDING = 1e-12


def draw_counts(n_images: int, n_bootstrap: int, random_state: int = 0) -> Array:
    """Draw how often each image is counted (n_bootstrap, n_images); rows sum to n_images.

    Raises
    ------
    InputError
        If there are fewer than two images or one sample.
    """
    if n_images < 2 or isinstance(n_bootstrap, bool) or n_bootstrap < 1:
        raise InputError(
            f"{n_bootstrap} bootstrap samples of {n_images} images: pass at least 1, of at least 2 images."
        )
    rng = np.random.default_rng(random_state)
    return rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=n_bootstrap).astype(np.float64)


def resampled_ev(y: Array, residuals: Sequence[Array], counts: Array) -> list[Array]:
    """Explained variance of several models in every sample.

    Parameters
    ----------
    y
        Responses (n, v), of any mean.
    residuals
        y - ŷ of each model (n, v).
    counts
        Of `draw_counts` (b, n).

    Returns
    -------
    list of ndarray of shape (b, v)
        NaN where all images of a sample have the same response.
    """
    total = resampled_variance(y, counts)
    total[total <= RESAMPLED_ROUNDING * resampled_variance(y, np.ones((1, len(y))))] = np.nan
    return [1.0 - resampled_variance(residual, counts) / total for residual in residuals]


def resampled_variance(values: Array, counts: Array) -> Array:
    """Variance over images of columns (n, v) in every sample (b, v)."""
    return resampled_covariance(values, values, counts)


def resampled_covariance(first: Array, second: Array, counts: Array) -> Array:
    """Covariance over images of columns (n, v) with those of another array, in every sample (b, v)."""
    n = len(first)
    a, b = (values - values.mean(axis=0) for values in (first, second))
    mean_a = counts @ a / n
    mean_b = mean_a if first is second else counts @ b / n
    covariance: Array = counts @ (a * b) / n - mean_a * mean_b
    return covariance


def interval(samples: FloatArray, level: float) -> Array:
    """Percentiles (2, …) of samples (b, …), of those that are numbers; NaN where none is.

    As `numpy.nanpercentile`, many times as fast.
    """
    table = np.sort(np.ascontiguousarray(samples.reshape(len(samples), -1).T), axis=1)  # NaN come last
    known = (~np.isnan(table)).sum(axis=1)
    rows, bounds = np.arange(len(table)), []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.intp)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        value = table[rows, below] + (place - below) * (table[rows, above] - table[rows, below])
        bounds.append(value.reshape(samples.shape[1:]))
    return np.stack(bounds)


def check_level(level: float) -> None:
    """Refuse a confidence that is none.

    Raises
    ------
    InputError
        If it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, but is {level}: .95 is usual.")


def known_voxels(
    y: npt.NDArray[Any], bytes_each: int, progress: Progress | None = None
) -> Iterator[tuple[npt.NDArray[np.intp], Array]]:
    """Go through the voxels (n, v), some at a time: those that are finite and vary, and their responses."""
    for batch in batches(y.shape[1], bytes_each):
        measured = y[:, batch].astype(np.float64)
        known = np.isfinite(measured).all(axis=0) & (np.ptp(measured, axis=0) > 0)
        yield np.flatnonzero(known) + batch.start, measured[:, known]
        if progress is not None:
            progress(batch.stop, y.shape[1])


def name_regions(rois: Mapping[str, npt.NDArray[np.bool_]] | None, n_voxels: int) -> dict[str, npt.NDArray[np.bool_]]:
    """All voxels as a region, and those that are given.

    Raises
    ------
    InputError
        If one is of other voxels.
    """
    regions = {ALL: np.ones(n_voxels, dtype=bool), **(rois or {})}
    if any(chosen.shape != (n_voxels,) for chosen in regions.values()):
        raise InputError(f"every region must be bool (n_voxels,) = ({n_voxels},).")
    return regions


class RegionSamples:
    """Means over the voxels of regions, sample by sample, gathered batch after batch.

    Parameters
    ----------
    regions
        Name -> bool (n_voxels,).
    n_bootstrap
        Samples.
    """

    def __init__(self, regions: Mapping[str, npt.NDArray[np.bool_]], n_bootstrap: int) -> None:
        self._regions = np.stack(list(regions.values())).astype(np.float64)
        self._sums = np.zeros((n_bootstrap, len(regions)))
        self._counts = np.zeros((n_bootstrap, len(regions)))

    def add(self, voxels: npt.NDArray[np.intp], samples: Array) -> None:
        """Add the samples (b, n) of some voxels; NaN are left out."""
        members = self._regions[:, voxels].T
        finite = np.isfinite(samples)
        self._sums += np.where(finite, samples, 0.0) @ members
        self._counts += finite.astype(np.float64) @ members

    def interval(self, level: float) -> Array:
        """Percentiles of the means (2, n_regions), NaN for regions without voxels."""
        means = np.divide(self._sums, self._counts, out=np.full_like(self._sums, np.nan), where=self._counts > 0)
        return interval(means, level)
