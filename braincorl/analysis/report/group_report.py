"""The report of a group: how well its people are predicted, where, from how many images, and who is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from braincorl import __version__
from braincorl.analysis.colours import COLOURS
from braincorl.analysis.figures import new_figure, own_style, plot_scaling
from braincorl.analysis.report.page import SIMULATION, Section, plain, write_page
from braincorl.analysis.scaling import summarize_curve

MOST_REGIONS = 16  # more do not fit on one axis


@dataclass(frozen=True)
class GroupFacts:
    """What a group's report shows.

    Attributes
    ----------
    people
        Labels of those who are fitted.
    encoder
        Of their fits.
    missing
        Who failed -> why.
    scores
        Rows per person and region: `subject`, `roi`, `n_voxels`, `NAME_mean` …; empty without scores.
    regions
        Rows per region: `roi`, `n_people`, `NAME_mean`, `NAME_low`, `NAME_high` …, over people; empty without scores.
    curves
        Rows per person, encoder, number of images and draw: `subject`, `encoder`, `n_context`, `draw`, `ev`, `r`;
        empty if they were not asked for.
    memory
        The memory in one line.
    provenance
        Of the features, and who is remembered.
    simulation
        Whether the people are simulated.
    """

    people: Sequence[str]
    encoder: str
    missing: Mapping[str, str] = field(default_factory=dict)
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    regions: pd.DataFrame = field(default_factory=pd.DataFrame)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    memory: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    simulation: bool = False


def write_group_report(path: str | Path, facts: GroupFacts) -> None:
    """Write the report as one self-contained HTML file, whole or not at all.

    Parameters
    ----------
    path
        Destination, ending in `.html`.
    facts
        What it shows.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    notes = [SIMULATION] if facts.simulation else []
    notes += [f"{name}: {reason}" for name, reason in facts.missing.items()]
    if not len(facts.scores):
        notes.append("There are no scores: all images were fitted. Keep some for scoring, by --test or --n-context.")
    numbers: dict[str, object] = {"people": len(facts.people)}
    if len(facts.regions):
        whole = facts.regions.iloc[0]
        numbers |= {label: float(whole[f"{name}_mean"]) for name, label in _known(facts.regions).items()}
    sections = [
        Section("Accuracy", "group/accuracy.html", _accuracy(facts)),
        Section("Few images", "group/few_shot.html", _few_shot(facts)),
        Section("People and regions", "group/people.html", _people(facts)),
        Section("Memory", "group/memory.html", {"text": facts.memory, "facts": facts.provenance}),
    ]
    subtitle = f"{plain(len(facts.people))} people · encoder {facts.encoder} · braincorl {__version__}"
    write_page(path, "Cohort", subtitle, sections, notes, numbers)


def _known(table: pd.DataFrame) -> dict[str, str]:
    labels = {"ev": "EV", "r": "r", "noiseceiling": "noise ceiling", "evnormalized": "EV / ceiling"}
    return {name: label for name, label in labels.items() if f"{name}_mean" in table}


def _accuracy(facts: GroupFacts) -> dict[str, Any] | None:
    if not len(facts.regions):
        return None
    known = _known(facts.regions)
    shown = facts.regions[["roi", "n_people"]].rename(columns={"roi": "region", "n_people": "people"})
    for name, label in known.items():
        low, high = facts.regions[f"{name}_low"], facts.regions[f"{name}_high"]
        shown[label] = facts.regions[f"{name}_mean"]
        shown[f"{label}, 95 %"] = [f"{plain(a)} to {plain(b)}" for a, b in zip(low, high, strict=True)]
    return {"figure": _plot_people(facts.scores), "table": shown, "n": len(facts.people)}


def _few_shot(facts: GroupFacts) -> dict[str, Any] | None:
    if not len(facts.curves):
        return None
    # A person's draws are averaged first: what varies in the figure is people.
    each = facts.curves.groupby(["encoder", "n_context", "subject"], sort=False)["ev"].mean().reset_index()
    figure = new_figure(7, 4)
    plot_scaling(figure.subplots(), each.rename(columns={"ev": "score"}), "explained variance")
    table = summarize_curve(each.rename(columns={"ev": "EV"}), "EV")
    return {"figure": figure, "table": table, "n": int(each["subject"].nunique())}


def _people(facts: GroupFacts) -> dict[str, Any] | None:
    if not len(facts.scores):
        return None
    wide = facts.scores.pivot_table(index="subject", columns="roi", values="ev_mean", sort=False).reset_index()
    return {"table": wide}


@own_style
def _plot_people(scores: pd.DataFrame) -> Figure:
    """Draw each region's explained variance: a dot for a person, a line for their mean."""
    regions = list(dict.fromkeys(scores["roi"]))[:MOST_REGIONS]
    figure = new_figure(max(4.0, 1.0 + 0.7 * len(regions)), 3.6)
    axes = figure.subplots()
    for number, roi in enumerate(regions):
        values = scores.loc[scores["roi"] == roi, "ev_mean"].to_numpy(dtype=float)
        values = values[np.isfinite(values)]
        # Beside each other in the order of their values, so that no dot hides another.
        beside = number + np.linspace(-0.25, 0.25, values.size) if values.size > 1 else np.full(values.size, number)
        axes.plot(beside, np.sort(values), "o", color=COLOURS[0], markersize=4, alpha=0.7)
        if values.size:
            axes.hlines(values.mean(), number - 0.35, number + 0.35, color="black", linewidth=1.5)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(regions)), regions, rotation=30, ha="right")
    axes.set_ylabel("explained variance")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure
