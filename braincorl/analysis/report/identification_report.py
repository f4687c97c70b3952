"""Parts of pages on an identification: accuracy, regions, what was seen beside what is likeliest, what lies near."""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl.analysis.question_figures import plot_identification
from braincorl.analysis.report.top_images import Thumbnails
from braincorl.questions.identification import RANKINGS

MOST_SHOWN = 24  # rows of pictures on a page


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


def nearest_to_seen(nearest: pd.DataFrame, summary: str) -> dict[str, Any]:
    """Show what lies nearest to what each of some responses speaks for, with uncertainty."""
    some = nearest.iloc[_evenly(len(nearest))]
    shown = some[[column for column in ("trial", "image") if column in some]].copy()
    for place in (1, 2, 3):
        if f"nearest{place}" in some:
            values = zip(*(some[f"{name}{place}"] for name in ("nearest", "cosine", "low", "high")), strict=True)
            shown[str(place)] = [f"{name} {cosine:.2f} ({low:.2f} to {high:.2f})" for name, cosine, low, high in values]
    shown["first is nearest"] = [f"{share:.0%}" for share in some["probability1"]]
    return {"table": shown, "summary": summary}


def seen_beside_likeliest(ranks: pd.DataFrame, n_candidates: int, thumbnails: Thumbnails | None) -> dict[str, Any]:
    """Show for some responses what was seen, and the candidates that are likeliest; from the best to the worst.

    Parameters
    ----------
    ranks
        One row per response: `image`, `best1` and so on, and where what was seen is a candidate its `rank`.
    n_candidates
        Their number.
    thumbnails
        Pictures of the images, to show them.
    """
    words = "rank" not in ranks  # candidates are no images, which there are no pictures of
    order = np.arange(len(ranks)) if words else np.argsort(ranks["rank"].to_numpy(), kind="stable")
    shown = []
    for row in ranks.iloc[order[_evenly(len(order))]].to_dict("records"):
        best = [str(row[name]) for name in row if re.fullmatch(r"best\d+", str(name))]
        names = [("seen", str(row["image"])), *((str(place), name) for place, name in enumerate(best, start=1))]
        items = [
            (
                None if thumbnails is None or (words and place != "seen") else thumbnails.get(name),
                f"{place}: {name}{' ✓' if place != 'seen' and name == str(row['image']) else ''}",
            )
            for place, name in names
        ]
        rank = "likeliest words" if words else f"rank {int(row['rank'])} of {n_candidates}"
        heading = f"{row['trial']}, {row['image']}" if "trial" in row else str(row["image"])
        shown.append((f"{heading}: {rank}", items))
    return {"responses": shown, "n_responses": len(ranks)}


def _evenly(n: int) -> npt.NDArray[np.intp]:
    """Rows of a table of `n` to show, spread evenly over it."""
    return np.unique(np.linspace(0, n - 1, min(MOST_SHOWN, n)).astype(np.intp))
