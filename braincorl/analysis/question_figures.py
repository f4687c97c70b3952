"""Figures of what encoders are asked: one encoder beside another, what each feature space explains, who is found."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from braincorl.analysis.colours import COLOURS, space_colours
from braincorl.analysis.figures import new_figure, own_style

MOST_REGIONS = 16  # of a figure; the table has all
LONGEST_NAME = 28  # letters beside an axis, before names take the room of the bars


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


@own_style
def plot_identification(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw accuracy against the number of candidates, one line per way of ranking, with chance.

    Parameters
    ----------
    tables
        Name -> table of `braincorl.questions.identification.Identification`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(7.2, 3.4)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, top, title in zip(panels, (1, 5), ("seen image ranked first", "among the best five"), strict=True):
        for colour, (name, table) in zip(COLOURS[1:], tables.items(), strict=False):
            x = table["n_candidates"]
            axes.plot(x, table[f"top{top}"], "o-", color=colour, linewidth=2, markersize=4, label=name)
            axes.fill_between(x, table[f"top{top}_low"], table[f"top{top}_high"], color=colour, alpha=0.18, linewidth=0)
        axes.plot(x, table[f"top{top}_chance"], color="black", linestyle=":", linewidth=1.5, label="chance")
        axes.set(xscale="log", ylim=(0, 1.02), xlabel="candidates", title=title)
        ticks = _spread_out(x[:: max(1, len(x) // 5)].tolist())
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of responses")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    return figure


def _spread_out(numbers: list[int]) -> list[int]:
    """Leave out the numbers, in ascending order, whose labels would run into the next on a logarithmic axis."""
    room = (numbers[-1] / numbers[0]) ** 0.08
    return [a for a, b in pairwise(numbers) if b > room * a] + numbers[-1:]


@own_style
def plot_partition(regions: pd.DataFrame, spaces: Sequence[str]) -> Figure:
    """Draw what each feature space explains of regions: unique parts and the rest stacked, the whole as a line.

    Parameters
    ----------
    regions
        Of `braincorl.questions.partition.VariancePartition`.
    spaces
        Names of the spaces.

    Returns
    -------
    matplotlib.figure.Figure
    """
    whole = largest_regions(regions[regions["part"] == "ev"])
    values = regions.set_index(["roi", "part", "space"])["mean"]
    rows = np.arange(len(whole))[::-1]
    figure = new_figure(7.4, max(2.8, 1.3 + 0.3 * len(whole)))
    left, right = figure.subplots(1, 2, sharey=True)
    colours = space_colours(spaces)
    stacks = {
        left: [(name, "unique", name) for name in spaces] + [("not unique to one", "shared", "all")],
        right: [(name, "share", name) for name in spaces],
    }
    for axes, parts in stacks.items():
        ends = {1: np.zeros(len(whole)), -1: np.zeros(len(whole))}  # negative parts go to the left of zero
        for label, part, space in parts:
            width = np.array([values.get((roi, part, space), np.nan) for roi in whole["roi"]])
            start = np.where(width >= 0, ends[1], ends[-1])
            axes.barh(rows, width, left=start, height=0.7, color=colours.get(label, "#BBBBBB"), label=_short(label))
            ends[1] += np.maximum(np.nan_to_num(width), 0)
            ends[-1] += np.minimum(np.nan_to_num(width), 0)
        axes.errorbar(
            whole["mean"],
            rows,
            xerr=np.abs(whole[["low", "high"]].to_numpy().T - whole["mean"].to_numpy()),
            fmt="|",
            color="black",
            markersize=9,
            linewidth=1,
            label="EV of all",
        )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    left.set_yticks(rows, [_short(name) for name in whole["roi"]])
    left.set_xlabel("EV, unique parts and the rest")
    right.set_xlabel("EV, parts that sum to the whole")
    figure.tight_layout()
    return figure
