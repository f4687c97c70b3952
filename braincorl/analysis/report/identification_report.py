"""The page of an identification: accuracy, regions, what was seen beside what is likeliest, what lies near."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from braincorl.analysis.question_figures import plot_identification
from braincorl.analysis.report.page import SIMULATION, Section, write_page
from braincorl.analysis.report.top_images import Thumbnails
from braincorl.questions.identification import RANKINGS

if TYPE_CHECKING:
    from braincorl.analysis.image_identification import Decoded, ImagesTold

MOST_SHOWN = 24  # rows of pictures on a page


def write_identification_page(path: Path, told: "ImagesTold", thumbnails: Thumbnails | None = None) -> None:
    """Write one HTML file on what was identified.

    Parameters
    ----------
    path
        File to write.
    told
        Of `identify_images`.
    thumbnails
        Pictures of the images, to show them.
    """
    accuracy = told.accuracy
    curve = None if accuracy is None else accuracy_curve(accuracy, len(told.ranks))
    regions = None if accuracy is None else accuracy_of_regions(accuracy, told.found.ranking)
    pictures = {"responses": _pictures(told, thumbnails), "n_responses": len(told.ranks)}
    write_page(
        path,
        f"{told.fit.subject}: what was seen",
        str(told),
        [
            Section("Accuracy", "identification/accuracy.html", curve),
            Section("Regions", "identification/regions.html", regions),
            Section("Seen and best-ranked", "identification/seen.html", pictures),
            Section("Nearest", "identification/nearest.html", None if told.decoded is None else _nearest(told.decoded)),
        ],
        [SIMULATION] if told.fit.config.get("simulation") else [],
    )


def accuracy_curve(accuracy: pd.DataFrame, n_responses: int) -> dict[str, Any]:
    """Show the accuracy of all voxels against the number of candidates, by every ranking."""
    whole = accuracy[accuracy["roi"] == "all"]
    by_ranking = {str(name): rows for name, rows in whole.groupby("ranking", sort=False)}
    said = {str(name): what for name, what in RANKINGS.items() if name in by_ranking}
    return {"figure": plot_identification(by_ranking), "n_responses": n_responses, "rankings": said}


def accuracy_of_regions(accuracy: pd.DataFrame, ranking: str) -> dict[str, Any]:
    """Show the accuracy of every region among all candidates, by the ranking that was chosen."""
    last = accuracy[(accuracy["n_candidates"] == accuracy["n_candidates"].max()) & (accuracy["ranking"] == ranking)]
    columns = {"roi": "region", "n_voxels": "voxels", "top1": "first", "top1_low": "low", "top1_high": "high"}
    columns |= {"top1_chance": "chance", "top5": "best five", "median_rank": "median rank"}
    return {"table": last[list(columns)].rename(columns=columns)}


def _nearest(decoded: "Decoded") -> dict[str, Any]:
    """Show what lies nearest to what each of some responses speaks for, with uncertainty."""
    some = decoded.table.iloc[np.unique(np.linspace(0, len(decoded.table) - 1, MOST_SHOWN).astype(int))]
    shown = some[[column for column in ("trial", "image") if column in some]].copy()
    for place in (1, 2, 3):
        if f"nearest{place}" in some:
            values = zip(*(some[f"{name}{place}"] for name in ("nearest", "cosine", "low", "high")), strict=True)
            shown[str(place)] = [f"{name} {cosine:.2f} ({low:.2f} to {high:.2f})" for name, cosine, low, high in values]
    shown["first is nearest"] = [f"{share:.0%}" for share in some["probability1"]]
    return {"table": shown, "summary": str(decoded)}


def _pictures(told: "ImagesTold", thumbnails: Thumbnails | None) -> list[tuple[str, Any]]:
    """For every response what was seen, and the candidates that are likeliest; evenly from the best to the worst."""
    ranks, words = told.ranks, told.accuracy is None
    order = np.argsort(ranks["rank"].to_numpy(), kind="stable") if "rank" in ranks else np.arange(len(ranks))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(MOST_SHOWN, len(order))).astype(int))]
    found = []
    for row in ranks.iloc[chosen].to_dict("records"):
        best = [str(row[name]) for name in row if re.fullmatch(r"best\d+", str(name))]
        names = [("seen", str(row["image"])), *((str(place), name) for place, name in enumerate(best, start=1))]
        items = [
            (
                None if thumbnails is None or (words and place != "seen") else thumbnails.get(name),
                f"{place}: {name}{' ✓' if place != 'seen' and name == str(row['image']) else ''}",
            )
            for place, name in names
        ]
        rank = f"rank {int(row['rank'])} of {told.n_candidates}" if "rank" in row else "likeliest words"
        heading = f"{row['trial']}, {row['image']}" if "trial" in row else str(row["image"])
        found.append((f"{heading}: {rank}", items))
    return found
