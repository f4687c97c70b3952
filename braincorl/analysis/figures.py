"""Figures: how accuracy grows with the number of images; figures made, shown and saved without a window."""

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from braincorl.analysis.colours import COLOURS, encoder_colours
from braincorl.storage.files import atomic_file

DPI = 110  # sharp on a page of usual width
FINE_DPI = 200  # of files and notebooks: sharp in print and on a screen with small pixels

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def own_style(draw: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Make a drawing function blind to the user's matplotlib style.

    Our figures have a white ground, in files and pages alike: under a dark style their text would be white on white.
    """

    @wraps(draw)
    def wrapper(*args: Arguments.args, **options: Arguments.kwargs) -> Result:
        with style.context("default"):
            return draw(*args, **options)

    return wrapper


class ShownFigure(Figure):
    """A figure that Jupyter shows where it is a cell's last line.

    Jupyter knows how to show matplotlib's own figures only once pyplot was imported, which nothing here does. What is
    added to it is in our style too, as its ground is.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Fine pixels, and the size (CSS pixels) at which they are shown."""
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        return png_bytes(self, dpi=FINE_DPI), {"width": width, "height": height}


for _name in ("add_axes", "add_subplot", "legend", "suptitle"):
    setattr(ShownFigure, _name, own_style(getattr(Figure, _name)))


@own_style
def plot_scaling(axes: Any, scores: pd.DataFrame, ylabel: str, ceiling: float | None = None) -> None:
    """Draw score against number of context images, one line per encoder, spread over draws shaded.

    Parameters
    ----------
    axes
        matplotlib Axes.
    scores
        Columns `encoder`, `n_context`, `score`, one row per draw.
    ylabel
        Label of the score.
    ceiling
        Noise ceiling, drawn as a dotted line.
    """
    colours = encoder_colours(scores["encoder"].unique())
    for name, rows in scores.groupby("encoder", sort=False):
        colour = colours[str(name)]
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
    if ceiling is not None:
        axes.axhline(ceiling, color="black", linestyle=":", linewidth=1.5, label="noise ceiling")
        # Above the axes: inside, one of the lines would cross it.
        axes.legend(frameon=False, ncols=3, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    else:
        axes.legend(frameon=False)


@own_style
def plot_accuracy(ev: npt.NDArray[np.floating[Any]], ceiling: npt.NDArray[np.floating[Any]] | None = None) -> Figure:
    """Draw the spread of explained variance over voxels, and how it relates to the noise ceiling.

    Parameters
    ----------
    ev
        Explained variance (n_voxels,), NaN where unknown.
    ceiling
        Noise ceiling (n_voxels,), or None.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(6.8 if ceiling is not None else 4.0, 2.8)
    panels = figure.subplots(1, 2 if ceiling is not None else 1, squeeze=False)[0]
    finite = ev[np.isfinite(ev)]
    low, high = np.percentile(finite, [0.5, 99.5])
    top = high if ceiling is None else max(high, float(np.nanpercentile(ceiling, 99.5)))
    bins = np.linspace(min(low, 0.0), max(top, 1e-3), 41)
    panels[0].hist(np.clip(finite, bins[0], bins[-1]), bins, color=COLOURS[1], alpha=0.8, label="EV")
    panels[0].axvline(finite.mean(), color="black", linewidth=1, label=f"mean EV {finite.mean():.3f}")
    panels[0].set(xlabel="explained variance", ylabel="voxels")
    if ceiling is not None:
        panels[0].hist(ceiling[np.isfinite(ceiling)], bins, histtype="step", color=COLOURS[2], label="noise ceiling")
        both = np.isfinite(ev) & np.isfinite(ceiling)
        extent = (0.0, bins[-1], bins[0], bins[-1])
        panels[1].hexbin(
            ceiling[both], ev[both], gridsize=35, extent=extent, bins="log", mincnt=1, cmap="viridis", linewidths=0
        )
        panels[1].plot([0, bins[-1]], [0, bins[-1]], color="black", linewidth=1)
        panels[1].set(xlabel="noise ceiling", ylabel="explained variance", xlim=(0, bins[-1]), ylim=(bins[0], bins[-1]))
    panels[0].legend(frameon=False, fontsize=8)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


@own_style
def new_figure(width: float, height: float) -> Figure:
    """Make a figure without a window (inches), which shows itself in Jupyter."""
    figure = ShownFigure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


@own_style
def png_bytes(figure: Figure, **options: Any) -> bytes:
    """Render a figure as PNG on white ground; `options` are those of matplotlib's `savefig`."""
    buffer = io.BytesIO()
    settings: dict[str, Any] = {"format": "png", "dpi": DPI, "facecolor": "white"} | options
    figure.savefig(buffer, **settings)
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = png_bytes(figure, bbox_inches="tight", dpi=FINE_DPI)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
