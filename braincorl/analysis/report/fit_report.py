"""The report of one fit: how good it is and where, what its regions prefer, what it rests on, what to beware of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.analysis.benchmark_directory import Benchmark, find_benchmark
from braincorl.analysis.figures import new_figure, own_style, plot_accuracy, plot_scaling
from braincorl.analysis.maps.surface_plots import can_draw, plot_surface
from braincorl.analysis.maps.volume_plots import plot_glass_brain, plot_mosaic
from braincorl.analysis.question_figures import plot_partition
from braincorl.analysis.report import page
from braincorl.analysis.report.top_images import Thumbnails, rank_images
from braincorl.analysis.scaling import summarize_curve
from braincorl.datasets.surfaces.meshes import FSLR
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.limits import choices_at_limit, tell_limits
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.files import reading
from braincorl.fits import Fit
from braincorl.fits.folder import MAPS, read_maps
from braincorl.fits.localiser import likely_regions, region_probability
from braincorl.fits.maps import read_map
from braincorl.fits.scores import summarize_rois

Maps = Mapping[str, npt.NDArray[np.float64]]

LABELS = {
    "ev": "EV",
    "r": "r",
    "noiseceiling": "noise ceiling",
    "evnormalized": "EV / ceiling",
    "cvr2": "cross-validated R²",
    "signalfraction": "explained share",
}
MAIN_MAPS = ("ev", "cvr2", "signalfraction")  # the first that a fit has says where its encoder works
OUTLINED = 8  # more outlines than this hide the map
FEW_IMAGES = 20
N_BOOTSTRAP = 300
LOW_CEILING = 0.1
ABOVE_ONE = (
    "EV / ceiling is the share of what can be explained. EV and ceiling are both estimates from noisy responses, so "
    "the ratio of a single voxel can exceed 1, most of all where the ceiling is low, without meaning that more than "
    "everything is explained; it is not cut off at 1, because that would bias the mean."
)


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows beside the fit itself.

    Attributes
    ----------
    scores
        Folder of `braincorl score`; by default `scores` in the fit's folder, else the fit's own scores.
    features
        Images whose predicted responses are ranked; None for no ranking.
    images
        Folder or HDF5 file with these images, for thumbnails.
    in_mni
        Whether the voxels are in MNI space; by default as the names of the maps say.
    n_top
        Images per region.
    benchmark
        Folder of `braincorl benchmark` on the same person; by default `benchmark` in the fit's folder, if it is there.
    """

    scores: Path | None = None
    features: FeatureTable | None = None
    images: Path | None = None
    in_mni: bool | None = None
    n_top: int = 8
    benchmark: Path | None = None


def write_report(path: str | Path, fit: Fit, options: ReportOptions | None = None) -> None:
    """Write the report of a fit as one self-contained HTML file, whole or not at all.

    Parameters
    ----------
    path
        Destination, ending in `.html`.
    fit
        A fit on disk, from `Fit.load`.
    options
        What to show beside it.

    Raises
    ------
    InputError
        If the scores are of another fit, the features of another space, or the benchmark of another person.
    OutputError
        If the file cannot be written.
    """
    options = options or ReportOptions()
    maps = collect_maps(fit, options.scores)
    name, encoder = fit.config["subject"], fit.config.get("encoder", type(fit.encoder).__name__)
    sections = fit_sections(fit, maps, options)
    subtitle = f"Voxelwise encoder ({encoder}) from {page.plain(len(fit.context))} images · braincorl {__version__}"
    page.write_page(path, str(name), subtitle, page.notes(find_warnings(fit, maps)) + _tiles(fit, maps), sections)


def fit_sections(fit: Fit, maps: Maps, options: ReportOptions) -> dict[str, str]:
    """Make the sections of a fit's report, heading -> HTML, empty where there is nothing to say."""
    return {
        "Accuracy": _accuracy(maps),
        "Scaling": _scaling(fit, find_benchmark(fit, options.benchmark)),
        "Maps": _brain_maps(fit, maps, options.in_mni),
        "Regions": _regions(fit, maps),
        "Regions by likeness": _likely_regions(fit),
        "Feature spaces": _feature_spaces(fit, options.scores),
        "Preferred images": _preferred_images(fit, options),
        "Provenance": _provenance(fit),
    }


def collect_maps(fit: Fit, scores: Path | None = None) -> dict[str, npt.NDArray[np.float64]]:
    """Read the maps of a fit, and over them those of a folder of scores.

    Raises
    ------
    InputError
        If the folder holds no scores of this fit.
    """
    prefix = fit.config["prefix"]
    own = fit.maps()
    if scores is None:
        scores = fit.beside("scores")
    if scores is None:
        return own
    scored = read_maps(scores, prefix, fit.space)
    if "ev" not in scored:
        raise InputError(f"{scores} holds no {prefix}_stat-ev map: pass the --output-dir of braincorl score.")
    unscored = {name: values for name, values in own.items() if name not in ("ev", "r", "r2")}
    return unscored | scored


def find_warnings(fit: Fit, maps: Maps) -> list[str]:
    """Say what a reader must know before trusting the numbers."""
    lines = []
    config, space = fit.config, fit.space
    if config.get("simulation"):
        lines.append("SIMULATION: these responses were drawn from known encoders; no brain was measured.")
    if space.n_excluded:
        lines.append(
            f"{space.n_excluded} of {space.included.size} voxels were constant or not finite: they were left out and "
            "are blank in the maps."
        )
    if len(fit.context) < FEW_IMAGES:
        lines.append(
            f"The encoder rests on {len(fit.context)} images: single voxels are uncertain, means over regions less so."
        )
    if limits := tell_limits(choices_at_limit(fit.encoder)):
        lines.append(limits)
    if "ev" in maps and not np.isfinite(maps["ev"]).any():
        lines.append("The responses to the images left out are constant in every voxel: there is nothing to score.")
    elif "ev" not in maps:
        lines.append("No image was left out of the fit, so its accuracy on new images is unknown: see braincorl score.")
    elif np.nanmean(maps["ev"]) <= 0:
        lines.append("On average the encoder predicts new responses no better than their mean (EV at or below 0).")
    n_scored = config.get("n_left_out", 0)
    if "ev" in maps and 0 < n_scored < FEW_IMAGES:
        lines.append(f"The fit left {n_scored} images out to be scored on: the score of a single voxel is noisy.")
    ceiling = maps.get("noiseceiling")
    if ceiling is None or not np.isfinite(ceiling).any():
        lines.append("No image was repeated and no noise ceiling was given: how much could be explained is unknown.")
    elif (low := float(np.mean(~(ceiling >= LOW_CEILING)))) > 0.5:
        lines.append(f"{low:.0%} of the voxels have a noise ceiling below {LOW_CEILING}: most responses are noise.")
    return lines


def _tiles(fit: Fit, maps: Maps) -> str:
    names = ("ev", "r", "noiseceiling", "evnormalized") if "ev" in maps else LABELS
    known = [name for name in names if name in maps and np.isfinite(maps[name]).any()]
    means = {f"mean {_labels(fit)[name]}": float(np.nanmean(maps[name])) for name in known}
    n_voxels, n_features = fit.encoder.coef_.shape
    counts = {"voxels": n_voxels, "context images": len(fit.context), "features": n_features}
    return page.tiles({name: page.plain(value) for name, value in (counts | means).items()})


def _labels(fit: Fit) -> dict[str, str]:
    """Names of the maps; a simulation also knows EV against the truth, so it says of which responses this one is."""
    return LABELS | ({"ev": "EV of measured responses"} if fit.config.get("simulation") else {})


def _accuracy(maps: Maps) -> str:
    if "ev" not in maps or not np.isfinite(maps["ev"]).any():
        return ""
    ev, ceiling = maps["ev"], maps.get("noiseceiling")
    known = ceiling is not None and np.isfinite(ceiling).any()
    n_voxels = page.plain(ev[np.isfinite(ev)].size)
    caption = f"Explained variance (EV) of measured responses to images that the fit has not seen, {n_voxels} voxels."
    caption += " Right: a perfect encoder would lie on the line." if known else ""
    return page.picture(plot_accuracy(ev, ceiling if known else None), caption)


@own_style
def _scaling(fit: Fit, found: Benchmark | None) -> str:
    if found is None:
        return ""
    figure = new_figure(6.8, 3.6)
    axes = figure.subplots()
    plot_scaling(axes, found.curve.rename(columns={"ev": "score"}), "explained variance", found.ceiling)
    caption = f"Accuracy by number of context images, mean over {page.plain(found.n_voxels)} voxels; the shade is the "
    caption += f"spread over {found.curve['draw'].nunique()} random draws of them."
    if found.curve["n_context"].min() <= len(fit.context) <= found.curve["n_context"].max():
        axes.axvline(len(fit.context), color="grey", linewidth=1, linestyle="--", zorder=0)
        caption += f" Dashed: the {len(fit.context)} images of this fit."
    figure.tight_layout()
    table = summarize_curve(found.curve.rename(columns={"ev": "EV"}), "EV")
    return page.picture(figure, caption) + page.data_table(table) + page.paragraph(found.note, "soft")


def _brain_maps(fit: Fit, maps: Maps, in_mni: bool | None) -> str:
    main = next((name for name in MAIN_MAPS if name in maps and np.isfinite(maps[name]).any()), None)
    if main is None or (fit.space.mask is None and fit.space.surface is None):
        return ""
    if in_mni is None:
        in_mni = "space-MNI" in fit.config["prefix"] or bool(fit.config.get("simulation"))
    rois = dict(sorted(fit.rois.items(), key=lambda item: -int(item[1].sum()))[:OUTLINED])
    outlined = f" Outlined: the {len(rois)} largest regions." if len(fit.rois) > OUTLINED else ""
    shown: dict[str, Any] = {"label": LABELS[main], "signed": False, "rois": rois}
    caption = f"{MAPS[main][0]}. The colours end where 1 % of the voxels are stronger.{outlined}"
    parts = []
    if not can_draw(fit.space):
        parts.append(page.paragraph("No mesh of this surface is at hand to draw maps on; the maps are files.", "soft"))
    elif fit.space.surface is not None or in_mni:
        on = FSLR if fit.space.surface is not None and fit.space.surface.name == FSLR else "fsaverage"
        parts.append(page.picture(plot_surface(maps[main], fit.space, **shown), f"{caption} On {on}."))
    if fit.space.mask is not None:
        if in_mni:
            glass = plot_glass_brain(maps[main], fit.space, signed=False, label=LABELS[main])
            parts.append(page.picture(glass, f"{MAPS[main][0]}. The largest value along each line of sight."))
        parts.append(page.picture(plot_mosaic(maps[main], fit.space, **shown), caption))
        for name in ("evnormalized", "noiseceiling"):
            if name in maps and np.isfinite(maps[name]).any():
                figure = plot_mosaic(maps[name], fit.space, label=LABELS[name], signed=False)
                parts.append(page.picture(figure, f"{MAPS[name][0]}. Grey voxels have no value."))
    return "".join(parts)


def _regions(fit: Fit, maps: Maps) -> str:
    shown = {name: maps[name] for name in LABELS if name in maps}
    if not shown:
        return ""
    main = next(iter(shown))
    summary = summarize_rois(shown, fit.rois)
    bounds = summarize_rois({main: shown[main]}, fit.rois, N_BOOTSTRAP)[[f"{main}_low", f"{main}_high"]].to_numpy()
    table = summary[["roi", "n_voxels", *(f"{name}_mean" for name in shown)]]
    labels = _labels(fit)
    table = table.rename(columns={"roi": "region", "n_voxels": "voxels"} | {f"{n}_mean": labels[n] for n in shown})
    table.insert(3, "95 % interval", [f"{low:.3f} to {high:.3f}" if low == low else "n/a" for low, high in bounds])
    what = "Means over voxels."
    if "evnormalized" in shown:
        what = f"Means over voxels; EV / ceiling where the ceiling is at least {LOW_CEILING}. {ABOVE_ONE}"
    what += (
        f" The interval is that of {labels[main]}, a bootstrap over voxels. Voxels are not independent: it says how "
    )
    what += "much the mean hangs on which of them were counted, and nothing on other people."
    return page.data_table(table) + page.paragraph(what, "soft")


def _likely_regions(fit: Fit) -> str:
    found = region_probability(fit.encoder)
    if found is None:
        return ""
    table = likely_regions(*found)[["name", "n_voxels", "probability_mean"]]
    table = table.rename(columns={"name": "region", "n_voxels": "voxels", "probability_mean": "mean probability"})
    what = (
        "Voxels whose responses make them more like the remembered voxels of a region than like those of all others "
        "together. This is likeness of tuning and knows no anatomy; regions given to the fit took part in it."
    )
    return page.data_table(table) + page.paragraph(what, "soft")


def _feature_spaces(fit: Fit, scores: Path | None) -> str:
    folder = scores or fit.beside("scores")
    if folder is None or not (folder / "partition.tsv").is_file() or not isinstance(fit.encoder, BandedRidgeEncoder):
        return ""
    with reading(folder / "partition.tsv", "is no table of what feature spaces explain"):
        table = pd.read_csv(
            folder / "partition.tsv", sep="\t", dtype={"roi": str, "space": str}, keep_default_na=False, na_values="n/a"
        )
        names = [name for name in fit.encoder.spaces_ if name in set(table["space"])]
        figure = plot_partition(table, names)
        whole = table[table["roi"] == "all"][["part", "space", "mean", "low", "high"]]
    caption = (
        "Explained variance of new images, mean over voxels. Left: what is lost without a space (unique), and what "
        "more than one could explain. Right: the product measure, whose parts sum to the whole. The line is a 95 % "
        "interval of the whole, a bootstrap over images."
    )
    parts = page.picture(figure, caption)
    winners = folder / f"{fit.config['prefix']}_stat-winningspace_statmap.nii.gz"
    if fit.space.mask is not None and winners.is_file():
        winner = read_map(winners, fit.space)
        legend = ", ".join(f"{number} {name}" for number, name in enumerate(names, start=1))
        shown = plot_mosaic(np.where(winner > 0, winner, np.nan), fit.space, label="largest part", signed=False)
        parts += page.picture(shown, f"The feature space with the largest part where EV is positive: {legend}.")
    return parts + page.data_table(whole)


def _preferred_images(fit: Fit, options: ReportOptions) -> str:
    if options.features is None:
        return ""
    everywhere = {"all voxels": np.ones(fit.space.n_voxels, dtype=bool)}
    ranked = rank_images(fit.encoder, options.features, everywhere | fit.rois, options.n_top)
    thumbnails = None if options.images is None else Thumbnails.of(options.images)
    context = set(fit.context)
    parts = [
        page.paragraph(
            f"The images of {page.plain(len(options.features.image_ids))} with the highest predicted response, mean "
            "over a region's voxels, in the unit of the responses. A * marks images that the encoder was fitted on.",
            "soft",
        )
    ]
    for region, rows in ranked.groupby("roi", sort=False):
        items = [
            (thumbnails.get(image) if thumbnails else None, f"{image}{'*' if image in context else ''} {response:.2f}")
            for image, response in zip(rows["image"], rows["response"], strict=True)
        ]
        parts.append(f"<h3>{page.escape(region)}</h3>{page.picture_list(items)}")
    if thumbnails is not None and thumbnails.unreadable:
        parts.append(page.paragraph(f"{len(thumbnails.unreadable)} image files could not be read.", "note"))
    return "".join(parts)


def _provenance(fit: Fit) -> str:
    config = fit.config
    libraries = ("numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "matplotlib")
    facts = {
        "Fit": fit.subject if fit.path is None else fit.path.name,
        "Made with": f"braincorl {config.get('braincorl', 'unknown')}",
        "Reported with": f"braincorl {__version__}; " + ", ".join(f"{name} {version(name)}" for name in libraries),
    }
    if fit.path is not None:
        files = ("encoder.safetensors", "space.safetensors")
        facts |= {f"SHA-256 of {name}": _hash(fit.path / name) for name in files}
    for name, value in config.get("features_provenance", {}).items():
        facts[f"Features: {name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    chosen = {name: value for name, value in config.items() if name not in ("features_provenance", "braincorl")}
    for name, value in chosen.items():
        if value is not None and value != []:
            facts[name.replace("_", " ")] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return page.facts_table(facts) + page.details("Images of the context", "\n".join(fit.context))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
