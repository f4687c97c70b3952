"""Figures: how accuracy grows with the number of images, and where in the brain."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from braincorl.analysis.maps import unmask
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.files import atomic_file

# Okabe and Ito's colours, told apart by colour-blind readers; the baseline is grey.
COLOURS = ("#777777", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


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


def plot_glass_brain(axes: Any, values: npt.ArrayLike, space: VoxelSpace, title: str) -> None:
    """Draw voxel values of a person in MNI space through a glass brain.

    Parameters
    ----------
    axes
        matplotlib Axes, replaced by three projections.
    values
        (n_voxels,).
    space
        Where the voxels are; its affine must be in MNI space.
    title
        Text above the brain.

    Raises
    ------
    InputError
        If no value is finite and positive, so that there is nothing to draw.
    """
    from nilearn.plotting import plot_glass_brain as draw

    finite = np.asarray(values)[np.isfinite(values)]
    top = float(np.percentile(finite, 99)) if finite.size else 0.0
    if top <= 0:
        raise InputError("no voxel has a positive value: there is nothing to draw in the brain.")
    # The scale begins at 0, so that voxels without signal vanish, and ends where 1 % of voxels are brighter.
    display = draw(
        unmask(values, space, outside="zero"),
        axes=axes,
        figure=axes.figure,
        display_mode="lyrz",
        colorbar=True,
        cmap="inferno",
        vmin=0.0,
        vmax=top,
        threshold=1e-6,
        plot_abs=False,
    )
    display.title(title, size=11, color="black", bgcolor="white")


def new_figure(width: float, height: float) -> Figure:
    """Make a figure without a window (inches)."""
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", facecolor="white")
