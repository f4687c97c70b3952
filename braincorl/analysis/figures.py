"""Figures: how accuracy grows with the number of images; figures made and saved without a window."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from braincorl.analysis.colours import COLOURS
from braincorl.files import atomic_file


def plot_scaling(axes: Any, scores: pd.DataFrame, ylabel: str) -> None:
    """Draw score against number of context images, one line per encoder, spread over draws shaded.

    Parameters
    ----------
    axes
        matplotlib Axes.
    scores
        Columns `encoder`, `n_context`, `score`, one row per draw.
    ylabel
        Label of the score.
    """
    for colour, (name, rows) in zip(COLOURS, scores.groupby("encoder", sort=False), strict=False):
        spread = rows.groupby("n_context")["score"].agg(["mean", "std"])
        x, mean = spread.index.to_numpy(), spread["mean"].to_numpy()
        deviation = np.nan_to_num(spread["std"].to_numpy())
        axes.plot(x, mean, "o-", color=colour, label=name, linewidth=2)
        axes.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    ticks = sorted(scores["n_context"].unique())
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("context images")
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def new_figure(width: float, height: float) -> Figure:
    """Make a figure without a window (inches)."""
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", facecolor="white")
