"""Figures of what encoders are asked: one encoder beside another, what each feature space explains, who is found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from braincorl.analysis.figures import new_figure, own_style
from braincorl.analysis.maps.colours import COLOURS

MOST_REGIONS = 16  # of a figure; the table has all
LONGEST_NAME = 28


@own_style
def plot_comparison(
    ev_a: npt.NDArray[np.float64], ev_b: npt.NDArray[np.float64], regions: pd.DataFrame, names: Sequence[str]
) -> Figure:
    """Draw every voxel's EV of two encoders against one another, and the mean difference of regions.

    Parameters
    ----------
    ev_a, ev_b
        Explained variance (n_voxels,), NaN where unknown.
    regions
        Of `braincorl.questions.comparison.Comparison`.
    names
        Of A and B.

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = largest_regions(regions)
    figure = new_figure(7.4, max(3.2, 1.2 + 0.24 * len(shown)))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    known = np.isfinite(ev_a) & np.isfinite(ev_b)
    both = np.concatenate([ev_a[known], ev_b[known], [0.0]])
    low, high = np.percentile(both, [0.5, 99.8])
    high = max(float(high), low + 1e-3)
    left.hexbin(
        ev_b[known], ev_a[known], gridsize=40, extent=(low, high, low, high), bins="log", mincnt=1, linewidths=0
    )
    left.plot([low, high], [low, high], color="black", linewidth=1)
    left.set(xlim=(low, high), ylim=(low, high), xlabel=f"EV, {_short(names[1])}", ylabel=f"EV, {_short(names[0])}")
    left.set_aspect("equal")
    rows = np.arange(len(shown))[::-1]
    mean = shown["difference"].to_numpy()
    right.hlines(rows, shown["low"], shown["high"], color=COLOURS[1], linewidth=2)
    right.plot(mean, rows, "o", color=COLOURS[1], markersize=5)
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(rows, [_short(name) for name in shown["roi"]])
    right.set_xlabel("difference in EV, first less second")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def largest_regions(regions: pd.DataFrame) -> pd.DataFrame:
    """Keep the row of all voxels and those of the largest regions, in their order."""
    some = regions[regions["n_voxels"] > 0]
    return some.loc[some["n_voxels"].nlargest(MOST_REGIONS).index.sort_values()]


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
