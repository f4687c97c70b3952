"""Sections of a fit's report on what it was asked: better than chance, what a feature space explains, what was seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from braincorl.analysis.colours import space_colours
from braincorl.analysis.maps.surface_plots import plot_in_own_space
from braincorl.analysis.question_figures import largest_regions, plot_partition
from braincorl.analysis.report.identification_report import accuracy_curve, accuracy_of_regions
from braincorl.datasets import VoxelSpace
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.errors import InputError
from braincorl.fits import Fit
from braincorl.questions.permutation import FALSE_DISCOVERIES
from braincorl.storage.files import read_json, reading

Maps = Mapping[str, npt.NDArray[np.float64]]
Shown = dict[str, Any] | None  # what a section's template shows; None for no section

OUTLINED = 8  # more outlines than this hide the map


def better_than_chance(fit: Fit, maps: Maps, scores: Path | None, anatomy: Any = None) -> Shown:
    """Show p and q of voxels and regions, where the fit was scored with permutations.

    Parameters
    ----------
    fit
        A fit on disk.
    maps
        Its own and those of its scores.
    scores
        Folder of `braincorl score`; by default `scores` in the fit's folder.
    anatomy
        nibabel image to draw slices on.

    Returns
    -------
    dict or None
        What the template shows; None where nothing was tested.
    """
    if not all(name in maps and np.isfinite(maps[name]).any() for name in ("p", "q")):
        return None
    tested, found = np.isfinite(maps["p"]), maps["q"] < FALSE_DISCOVERIES
    logs = {name: -np.log10(maps[name]) for name in ("p", "q")}
    rois = largest_rois(fit.rois)
    members = {"all": np.ones(fit.space.n_voxels, dtype=bool), **fit.rois}
    rows = [(name, int((tested & of).sum()), int((found & of).sum())) for name, of in members.items()]
    table = pd.DataFrame(rows, columns=["region", "n_voxels", f"found at q < {FALSE_DISCOVERIES}"])
    p_regions = _p_of_regions(fit, scores)
    if p_regions is not None:
        table["p of the mean correlation"] = [p_regions.get(name) for name in table["region"]]
    return {
        "p": draw_known(logs["p"], fit.space, label="-log10 p", rois=rois, template=anatomy),
        "q": draw_known(np.where(found, logs["q"], np.nan), fit.space, label="-log10 q", rois=rois, template=anatomy),
        "n_found": int(found.sum()),
        "n_family": int((maps["pfamilywise"] < FALSE_DISCOVERIES).sum()) if "pfamilywise" in maps else None,
        "n_tested": int(tested.sum()),
        "level": FALSE_DISCOVERIES,
        "table": largest_regions(table).rename(columns={"n_voxels": "voxels tested"}),
    }


def feature_spaces(fit: Fit, maps: Maps, scores: Path | None, anatomy: Any = None) -> Shown:
    """Show what each feature space explains, where an encoder of several was scored; as `better_than_chance`."""
    folder = scores or fit.beside("scores")
    if folder is None or not (folder / "partition.tsv").is_file() or not isinstance(fit.encoder, BandedRidgeEncoder):
        return None
    with reading(folder / "partition.tsv", "is no table of what feature spaces explain"):
        table = pd.read_csv(
            folder / "partition.tsv", sep="\t", dtype={"roi": str, "space": str}, keep_default_na=False, na_values="n/a"
        )
        names = [name for name in fit.encoder.spaces_ if name in set(table["space"])]
        figure = plot_partition(table, names)
        whole = table[table["roi"] == "all"][["part", "space", "mean", "low", "high"]]
    winner = None
    if "winningspace" in maps:
        numbers = np.where(maps["winningspace"] > 0, maps["winningspace"], np.nan)
        look = {
            "label": "largest part",
            "levels": space_colours(names),
            "rois": largest_rois(fit.rois),
            "template": anatomy,
        }
        winner = draw_known(numbers, fit.space, **look)
    return {"figure": figure, "table": whole, "winner": winner}


def which_image(fit: Fit, identification: Path | None) -> Shown:
    """Show how often the image that was seen is found, where the fit was asked.

    Parameters
    ----------
    fit
        A fit on disk.
    identification
        Folder of `braincorl identify`; by default `identification` in the fit's folder.

    Returns
    -------
    dict or None
        What the template shows; None where nothing was asked, or words.

    Raises
    ------
    InputError
        If the folder is of another fit, or holds no answers.
    """
    folder = identification or fit.beside("identification")
    if folder is None:
        return None
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} is no identification: pass the --output-dir of braincorl identify.")
    fit.check_result(folder)
    if not (folder / "accuracy.tsv").is_file():
        return None
    with reading(folder / "accuracy.tsv", "is no table of how often seen images are found"):
        made = read_json(folder / "config.json")
        accuracy = pd.read_csv(
            folder / "accuracy.tsv", sep="\t", dtype={"roi": str}, keep_default_na=False, na_values="n/a"
        )
        curve = accuracy_curve(accuracy, made["n_responses"])
        return {"curve": curve, "regions": accuracy_of_regions(accuracy, made["ranking"])}


def largest_rois(rois: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, npt.NDArray[np.bool_]]:
    """Keep the regions that are outlined: the largest."""
    return dict(sorted(rois.items(), key=lambda item: -int(item[1].sum()))[:OUTLINED])


def draw_known(values: npt.NDArray[np.float64] | None, space: VoxelSpace, **look: Any) -> Figure | None:
    """Draw a map that is not signed, if it has values and there is something to draw on."""
    if values is None or not np.isfinite(values).any():
        return None
    return plot_in_own_space(values, space, signed=False, **look)


def _p_of_regions(fit: Fit, scores: Path | None) -> dict[str, float] | None:
    path = (scores or fit.beside("scores") or Path()) / "scores.tsv"
    if not path.is_file():
        return None
    with reading(path, "is no table of scores"):
        table = pd.read_csv(path, sep="\t", dtype={"roi": str}, keep_default_na=False, na_values="n/a")
        return dict(zip(table["roi"], table["r_p"], strict=True)) if "r_p" in table else None
