"""Does one encoder of a person predict better than another? A paired test over images, per voxel and region.

With centred residuals e of two encoders A and B on the same images,

    EV_A - EV_B = Σ_i l_i        l_i = (e_B,i² - e_A,i²) / Σ_j (y_j - ȳ)²

If neither were better, A and B could change places in any image, which turns the sign of its l_i. All changes of places
of all voxels are one matrix product; the same ones serve all voxels, so that the mean over a region is tested with the
dependence between voxels as it is. Intervals are a bootstrap over images (`braincorl.questions.resampling`).

Letters: n images, v voxels, b random changes of places or samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.errors import InputError
from braincorl.metrics import mean_over_voxels
from braincorl.questions.permutation import FALSE_DISCOVERIES, fdr
from braincorl.questions.resampling import (
    RegionSamples,
    check_level,
    draw_counts,
    interval,
    known_voxels,
    name_regions,
    resampled_ev,
)
from braincorl.storage.files import Progress
from braincorl.validation import FloatArray

Array = npt.NDArray[np.float64]

_TIE = 1e-10  # sums of the same numbers in another order differ by rounding, and count as equal


@dataclass(frozen=True)
class Comparison:
    """Two encoders beside each other.

    Attributes
    ----------
    ev_a, ev_b
        Explained variance of each voxel (n_voxels,).
    difference
        EV of A less that of B (n_voxels,); NaN where responses are constant or not finite.
    low, high
        Its bootstrap interval over images (n_voxels,).
    p
        Two-sided p of no difference (n_voxels,).
    q
        The smallest false discovery rate at which a voxel's difference is found (n_voxels,).
    regions
        One row for all voxels and one per region: `roi`, `n_voxels`, `ev_a`, `ev_b`, `difference` (means over voxels),
        `low`, `high`, `p` (of the mean difference), `n_a_better`, `n_b_better` (voxels at q < .05).
    """

    ev_a: Array
    ev_b: Array
    difference: Array
    low: Array
    high: Array
    p: Array
    q: Array
    regions: pd.DataFrame


def compare_predictions(
    y_true: npt.ArrayLike,
    y_a: npt.ArrayLike,
    y_b: npt.ArrayLike,
    *,
    rois: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    random_state: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two sets of predictions of the same responses.

    Parameters
    ----------
    y_true
        Measured responses (n_images, n_voxels), one row per image, that neither encoder was fitted on.
    y_a, y_b
        Predicted responses of encoders A and B (n_images, n_voxels).
    rois
        Region name -> bool (n_voxels,).
    n_permutations
        Random changes of places; no p is below 1 / (1 + n_permutations).
    n_bootstrap
        Samples of the images for intervals.
    level
        Confidence of these.
    random_state
        Seed; the same seed gives the same numbers, whatever the voxels.
    progress
        Called with (voxels done, voxels).

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If shapes do not match or an option is impossible.
    """
    y, a, b = (np.asarray(array) for array in (y_true, y_a, y_b))
    if not y.shape == a.shape == b.shape or y.ndim != 2:
        raise InputError(f"y_true, y_a, y_b have shapes {y.shape}, {a.shape}, {b.shape}: all are (n_images, n_voxels).")
    if n_permutations < 1:
        raise InputError(f"n_permutations must be at least 1, but is {n_permutations}.")
    check_level(level)
    n_images, n_voxels = y.shape
    regions = name_regions(rois, n_voxels)
    counts = draw_counts(n_images, n_bootstrap, random_state)
    signs = np.random.default_rng(random_state).choice([-1.0, 1.0], size=(n_permutations, n_images))
    samples, losses = RegionSamples(regions, n_bootstrap), np.zeros((n_images, len(regions)))
    ev = np.full((2, n_voxels), np.nan)
    bounds, p = np.full((2, n_voxels), np.nan), np.full(n_voxels, np.nan)
    for columns, measured in known_voxels(y, 8 * 8 * (n_bootstrap + n_permutations), progress):
        residuals = [measured - array[:, columns].astype(np.float64) for array in (a, b)]
        squares = [np.square(residual - residual.mean(axis=0)) for residual in residuals]
        total = np.square(measured - measured.mean(axis=0)).sum(axis=0)
        ev[:, columns] = [1.0 - square.sum(axis=0) / total for square in squares]
        loss = (squares[1] - squares[0]) / total
        p[columns] = _two_sided(loss, signs)
        losses += np.stack([loss[:, chosen[columns]].sum(axis=1) for chosen in regions.values()], axis=1)
        first, second = resampled_ev(measured, residuals, counts)
        drawn = first - second
        bounds[:, columns] = interval(drawn, level)
        samples.add(columns, drawn)
    difference, q = ev[0] - ev[1], fdr(p)
    table = _table(regions, ev, difference, q)
    table["low"], table["high"] = samples.interval(level)
    empty = ~np.array([np.isfinite(difference[chosen]).any() for chosen in regions.values()])
    table["p"] = np.where(empty, np.nan, _two_sided(losses, signs))
    order = ["roi", "n_voxels", "ev_a", "ev_b", "difference", "low", "high", "p", "n_a_better", "n_b_better"]
    return Comparison(ev[0], ev[1], difference, bounds[0], bounds[1], p, q, table[order])


def _two_sided(losses: FloatArray, signs: FloatArray) -> Array:
    observed, changed = np.abs(losses.sum(axis=0)), np.abs(signs @ losses)
    scale = np.abs(losses).sum(axis=0)
    return np.asarray((1 + (changed >= observed - _TIE * scale).sum(axis=0)) / (1 + len(signs)))


def _table(regions: Mapping[str, npt.NDArray[np.bool_]], ev: Array, difference: Array, q: Array) -> pd.DataFrame:
    found = q < FALSE_DISCOVERIES
    return pd.DataFrame(
        {
            "roi": name,
            "n_voxels": int(chosen.sum()),
            "ev_a": mean_over_voxels(ev[0, chosen]),
            "ev_b": mean_over_voxels(ev[1, chosen]),
            "difference": mean_over_voxels(difference[chosen]),
            "n_a_better": int((found & (difference > 0))[chosen].sum()),
            "n_b_better": int((found & (difference < 0))[chosen].sum()),
        }
        for name, chosen in regions.items()
    )
