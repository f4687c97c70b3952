"""The report of one fit: how good it is and where, what its regions prefer, what it rests on, what to beware of."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from braincorl import __version__
from braincorl.analysis.benchmarking import Benchmark, find_benchmark
from braincorl.analysis.figures import new_figure, own_style, plot_accuracy, plot_scaling
from braincorl.analysis.maps.flatmap import plot_flatmap
from braincorl.analysis.maps.peaks import PLACE, find_clusters, region_peaks
from braincorl.analysis.maps.surface_plots import can_draw, plot_surface, share_in_cuts
from braincorl.analysis.maps.viewer import view_map
from braincorl.analysis.maps.volume_plots import plot_glass_brain, plot_mosaic
from braincorl.analysis.report.page import SIMULATION, Section, plain, write_page
from braincorl.analysis.report.question_sections import (
    OUTLINED,
    Maps,
    Shown,
    better_than_chance,
    draw_known,
    feature_spaces,
    largest_rois,
    which_image,
)
from braincorl.analysis.report.top_images import Thumbnails, rank_images
from braincorl.analysis.scaling import summarize_curve
from braincorl.datasets import VoxelSpace
from braincorl.datasets.betas.grids import read_volume
from braincorl.datasets.meshes import FSLR
from braincorl.datasets.subject import place_of
from braincorl.encoders.limits import choices_at_limit, tell_limits
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.fits import Fit
from braincorl.fits.folder import MAPS
from braincorl.fits.localiser import likely_regions, region_probability
from braincorl.fits.methods import MethodsText, collect_maps, describe_methods, scored_images
from braincorl.fits.scores import summarize_rois
from braincorl.fits.seen_images import check_features_fit
from braincorl.questions.permutation import FALSE_DISCOVERIES
from braincorl.storage.result_folders import check_destination, list_in_result

LABELS = {
    "ev": "EV",
    "r": "r",
    "noiseceiling": "noise ceiling",
    "evnormalized": "EV / ceiling",
    "cvr2": "cross-validated R²",
    "signalfraction": "explained share",
}
MAIN_MAPS = ("ev", "cvr2", "signalfraction")  # the first that a fit has says where its encoder works
FEW_IMAGES = 20  # below, a correlation of .4 is within chance (p > .05)
N_BOOTSTRAP = 300  # enough for what a bar shows; `score --intervals` draws more
BY_CHANCE = 0.001  # one-sided p of a voxel that counts as a peak where nothing was permuted: as in nilearn's reports
LOW_CEILING = 0.1  # as `metrics.normalize_by_ceiling`: below, dividing by it shows noise


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
    identification
        Folder of `braincorl identify` with this fit; by default `identification` in the fit's folder, if it is there.
    background
        NIfTI image of the anatomy, to draw slices on; by default nilearn's template for voxels in MNI space.
    interactive
        Also show the main map to turn or to click through, in a frame that runs nilearn's script and nothing else.
    command
        What the report is made by, to be shown.
    """

    scores: Path | None = None
    features: FeatureTable | None = None
    images: Path | None = None
    in_mni: bool | None = None
    n_top: int = 8
    benchmark: Path | None = None
    identification: Path | None = None
    background: Path | None = None
    interactive: bool = False
    command: str | None = None


def write_report(
    path: str | Path,
    fit: Fit,
    options: ReportOptions | None = None,
    *,
    figures: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the report of a fit as one self-contained HTML file, whole or not at all; in the fit's folder it is listed.

    Parameters
    ----------
    path
        Destination, ending in `.html`.
    fit
        A fit on disk, from `Fit.load`.
    options
        What to show beside it.
    figures
        Folder to write every figure (PNG, 200 dpi) and table (TSV) into besides; the page links to them.
    overwrite
        Replace an earlier such folder.

    Raises
    ------
    InputError
        If the scores are of another fit, the features of another space, or the benchmark of another person.
    OutputError
        If the file cannot be written.
    """
    path, options = Path(path), options or ReportOptions()
    if figures is not None:
        check_destination(figures, overwrite=overwrite, kind="figures")
    if options.features is not None:
        check_features_fit(fit, options.features)
    maps = collect_maps(fit, options.scores)
    encoder = fit.config.get("encoder", type(fit.encoder).__name__)
    subtitle = f"Voxelwise encoder ({encoder}) from {plain(len(fit.context))} images · braincorl {__version__}"
    sections = fit_sections(fit, maps, options)
    notes, numbers = find_warnings(fit, maps), _main_numbers(fit, maps)
    new = not path.exists()
    try:
        write_page(path, fit.subject, subtitle, sections, notes, numbers, figures=figures, overwrite=overwrite)
        if fit.path is not None and path.absolute().parent == fit.path.absolute():
            list_in_result(fit.path, path.name)
    except BaseException:  # an interrupt too: a page that is not listed would keep the fit from being replaced
        if new:
            path.unlink(missing_ok=True)
        raise


def fit_sections(fit: Fit, maps: Maps, options: ReportOptions) -> list[Section]:
    """Make the sections of a fit's report; those that have nothing to show are left out of the page."""
    anatomy = _anatomy(fit, options)
    return [
        Section("Accuracy", "fit/accuracy.html", _accuracy(maps)),
        Section("Scaling", "fit/scaling.html", _scaling(fit, find_benchmark(fit, options.benchmark))),
        Section("Maps", "fit/maps.html", _brain_maps(fit, maps, in_mni(fit, options), anatomy)),
        Section("Look around", "fit/viewer.html", _viewer(fit, maps, options)),
        Section("Better than chance", "fit/chance.html", better_than_chance(fit, maps, options.scores, anatomy)),
        Section("Peaks", "fit/peaks.html", _peaks(fit, maps, options)),
        Section("Regions", "fit/regions.html", _regions(fit, maps)),
        Section("Regions by likeness", "fit/likely_regions.html", _likely_regions(fit)),
        Section("Feature spaces", "fit/feature_spaces.html", feature_spaces(fit, maps, options.scores, anatomy)),
        Section("Which image was seen", "fit/which_image.html", which_image(fit, options.identification)),
        Section("Preferred images", "fit/preferred_images.html", _preferred_images(fit, options)),
        Section("Voxels", "fit/voxels.html", _voxels(fit)),
        Section("Methods", "fit/methods.html", _methods(describe_methods(fit, options.scores, maps))),
        Section("Provenance", "fit/provenance.html", _provenance(fit, options.command)),
    ]


def find_warnings(fit: Fit, maps: Maps) -> list[str]:
    """Say what a reader must know before trusting the numbers."""
    lines = []
    config, space = fit.config, fit.space
    if config.get("simulation"):
        lines.append(SIMULATION)
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


def _main_numbers(fit: Fit, maps: Maps) -> dict[str, float]:
    names = ("ev", "r", "noiseceiling", "evnormalized") if "ev" in maps else LABELS
    n_voxels, n_features = fit.encoder.coef_.shape
    counts = {"voxels": n_voxels, "context images": len(fit.context), "features": n_features}
    return counts | {
        f"mean {_labels(fit)[name]}": float(np.nanmean(maps[name])) for name in names if _known(maps, name)
    }


def _mesh_name(space: VoxelSpace) -> str:
    return FSLR if space.surface is not None and space.surface.name == FSLR else "fsaverage"


def _known(maps: Maps, name: str) -> bool:
    return name in maps and bool(np.isfinite(maps[name]).any())


def _labels(fit: Fit) -> dict[str, str]:
    """Names of the maps; a simulation also knows EV against the truth, so it says of which responses this one is."""
    return LABELS | ({"ev": "EV of measured responses"} if fit.config.get("simulation") else {})


def _accuracy(maps: Maps) -> Shown:
    if not _known(maps, "ev"):
        return None
    known = _known(maps, "noiseceiling")
    figure = plot_accuracy(maps["ev"], maps["noiseceiling"] if known else None)
    return {"figure": figure, "n_voxels": int(np.isfinite(maps["ev"]).sum()), "ceiling_known": known}


@own_style
def _scaling(fit: Fit, found: Benchmark | None) -> Shown:
    if found is None:
        return None
    figure, n_context = new_figure(6.8, 3.6), len(fit.context)
    axes = figure.subplots()
    plot_scaling(axes, found.curve.rename(columns={"ev": "score"}), "explained variance", found.ceiling)
    if marked := found.curve["n_context"].min() <= n_context <= found.curve["n_context"].max():
        axes.axvline(n_context, color="grey", linewidth=1, linestyle="--", zorder=0)
    figure.tight_layout()
    return {
        "figure": figure,
        "n_voxels": found.n_voxels,
        "n_draws": found.curve["draw"].nunique(),
        "n_context": n_context if marked else None,
        "table": summarize_curve(found.curve.rename(columns={"ev": "EV"}), "EV"),
        "note": found.note,
    }


def in_mni(fit: Fit, options: ReportOptions) -> bool:
    """Whether the voxels of a fit are in MNI space, as it was said or as the names of its maps say."""
    if options.in_mni is not None:
        return options.in_mni
    return "space-MNI" in fit.config["prefix"] or bool(fit.config.get("simulation"))


def _anatomy(fit: Fit, options: ReportOptions) -> Any:
    """Image to draw slices on: the one that is asked for, in MNI space the template, else None."""
    if options.background is not None:
        if fit.space.mask is None:
            raise InputError(f"{options.background} is drawn behind slices, but this fit has no grid: leave it out.")
        values, affine = read_volume(options.background)
        return nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine)
    if fit.space.mask is None or not in_mni(fit, options):
        return None
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=2)


def _brain_maps(fit: Fit, maps: Maps, in_mni: bool, anatomy: Any) -> Shown:
    main = next((name for name in MAIN_MAPS if _known(maps, name)), None)
    space = fit.space
    if main is None or (space.mask is None and space.surface is None):
        return None
    rois = largest_rois(fit.rois)
    scale = "The colours end where 1 % of the voxels are stronger."
    scale += f" Outlined: the {len(rois)} largest regions." if len(fit.rois) > OUTLINED else ""
    what = MAPS[main][0]
    look: dict[str, Any] = {"label": LABELS[main], "signed": False}
    shown = []
    if can_draw(space) and (space.surface is not None or in_mni):
        on = _mesh_name(space)
        figure = plot_surface(maps[main], space, rois=rois, **look)
        shown.append({"figure": figure, "what": what, "how": f"{scale} On {on}."})
        flat = f"{scale} On {on}, cut and laid flat, with the front on the outside."
        if hidden := share_in_cuts(maps[main], space):
            flat += f" {hidden:.1%} of the vertices with a value lie in the cuts and are not shown."
        shown.append({"figure": plot_flatmap(maps[main], space, rois=rois, **look), "what": what, "how": flat})
    if space.mask is not None:
        if in_mni:
            how = "The largest value along each line of sight."
            shown.append({"figure": plot_glass_brain(maps[main], space, **look), "what": what, "how": how})
        shown.append(
            {"figure": plot_mosaic(maps[main], space, rois=rois, template=anatomy, **look), "what": what, "how": scale}
        )
    for name in ("evnormalized", "noiseceiling"):
        if (drawn := draw_known(maps.get(name), space, label=LABELS[name], template=anatomy)) is not None:
            shown.append({"figure": drawn, "what": MAPS[name][0], "how": "Grey voxels have no value."})
    return {"shown": shown, "no_mesh": not can_draw(space), "native": space.surface is None and not in_mni}


def _viewer(fit: Fit, maps: Maps, options: ReportOptions) -> Shown:
    """Page of nilearn's viewer, where one knows the space."""
    main = next((name for name in MAIN_MAPS if _known(maps, name)), None)
    if not options.interactive or main is None or (fit.space.surface is None and not in_mni(fit, options)):
        return None
    shown = view_map(maps[main], fit.space, title=LABELS[main], signed=False, on_surface=fit.space.surface is not None)
    return None if isinstance(shown, Figure) else {"page": shown.html, "what": MAPS[main][0]}


def _peaks(fit: Fit, maps: Maps, options: ReportOptions) -> Shown:
    """Where the encoder is best among voxels that are not so by chance."""
    space, n_images = fit.space, scored_images(fit, options.scores)
    if not _known(maps, "ev") or (space.mask is None and not (space.surface is not None and can_draw(space))):
        return None
    if _known(maps, "q"):
        found, how = maps["q"] < FALSE_DISCOVERIES, f"at a false discovery rate below {FALSE_DISCOVERIES}"
    elif _known(maps, "r") and n_images is not None and n_images > 2:
        t = stats.t.isf(BY_CHANCE, n_images - 2)
        r = t / np.sqrt(n_images - 2 + t**2)
        found = maps["r"] > r
        how = f"whose correlation over {n_images} images is above {r:.2f} (p < {BY_CHANCE}, uncorrected)"
    else:
        return None
    clusters = find_clusters(maps["ev"], space, found, fit.rois)
    shown = clusters.table.astype({"size": object}).fillna({"size": ""})
    regions = region_peaks(maps["ev"], space, fit.rois)
    for table in (shown, regions):
        for axis in {*PLACE} & {*table.columns}:
            table[axis] = [f"{millimetres:.1f}".removesuffix(".0") for millimetres in table[axis]]
    unit = "vertices" if space.surface is not None else "mm³"
    label = _labels(fit)["ev"]
    names = {"x_mm": "x", "y_mm": "y", "z_mm": "z", "peak": label, "size": unit, "roi": "region"}
    where = "x, y, z are millimetres of the betas' own space, by their affine"
    joined = "Voxels of a cluster share a face; 1a, 1b … are further peaks of cluster 1, at least 8 mm apart."
    if space.surface is not None:
        where = f"x, y, z are millimetres of the vertex on the average cortex of {_mesh_name(space)}"
        joined = "Vertices of a cluster are neighbours on the mesh."
    elif in_mni(fit, options):
        where = "x, y, z are millimetres in MNI space"
    return {
        "clusters": shown.rename(columns=names) if len(shown) else None,
        "n_shown": len(set(shown["cluster"].str.rstrip("abc"))),
        "n_clusters": clusters.n_clusters,
        "how": how,
        "what": label,
        "where": where,
        "joined": joined,
        "regions": regions.rename(columns=names) if len(regions) else None,
    }


def _regions(fit: Fit, maps: Maps) -> Shown:
    shown = {name: maps[name] for name in LABELS if name in maps}
    if not shown:
        return None
    main, labels = next(iter(shown)), _labels(fit)
    summary = summarize_rois(shown, fit.rois)
    bounds = summarize_rois({main: shown[main]}, fit.rois, N_BOOTSTRAP)[[f"{main}_low", f"{main}_high"]].to_numpy()
    table = summary[["roi", "n_voxels", *(f"{name}_mean" for name in shown)]]
    table = table.rename(columns={"roi": "region", "n_voxels": "voxels"} | {f"{n}_mean": labels[n] for n in shown})
    table.insert(3, "95 % interval", [f"{low:.3f} to {high:.3f}" if low == low else "n/a" for low, high in bounds])
    normalized = "evnormalized" in shown
    return {"table": table, "main": labels[main], "normalized": normalized, "low_ceiling": LOW_CEILING}


def _likely_regions(fit: Fit) -> Shown:
    found = region_probability(fit.encoder)
    if found is None:
        return None
    table = likely_regions(*found)[["name", "n_voxels", "probability_mean"]]
    columns = {"name": "region", "n_voxels": "voxels", "probability_mean": "mean probability"}
    return {"table": table.rename(columns=columns)}


def _preferred_images(fit: Fit, options: ReportOptions) -> Shown:
    if options.features is None:
        return None
    everywhere = {"all voxels": np.ones(fit.space.n_voxels, dtype=bool)}
    ranked = rank_images(fit.encoder, options.features, everywhere | fit.rois, options.n_top)
    thumbnails = None if options.images is None else Thumbnails.of(options.images)
    context = set(fit.context)
    regions = {
        region: [
            (thumbnails.get(image) if thumbnails else None, f"{image}{'*' if image in context else ''} {response:.2f}")
            for image, response in zip(rows["image"], rows["response"], strict=True)
        ]
        for region, rows in ranked.groupby("roi", sort=False)
    }
    unreadable = thumbnails.unreadable if thumbnails else []
    return {"n_images": len(options.features.image_ids), "regions": regions, "n_unreadable": len(unreadable)}


def _voxels(fit: Fit) -> Shown:
    """Where the fit has voxels: a mask that is shifted or cut shows at a glance."""
    space = fit.space
    if space.mask is None and space.surface is None:
        return None
    facts = {"Place": place_of(space), "Voxels with data": f"{space.n_voxels} of {space.included.size} in the mask"}
    facts |= {"Regions": ", ".join(f"{name} {int(members.sum())}" for name, members in fit.rois.items()) or "none"}
    if space.mask is None or space.affine is None:
        return {"figure": None, "facts": facts, "n_excluded": space.n_excluded}
    facts["Volume"] = f"{space.n_voxels * abs(np.linalg.det(space.affine[:3, :3])) / 1000:.1f} cm³"
    everything = VoxelSpace(np.ones_like(space.included), space.mask, space.affine)
    noise = np.full(space.included.size, np.nan)
    noise[space.included] = fit.encoder.noise_variance_
    figure = plot_mosaic(noise, everything, label="noise variance", signed=False)
    return {"figure": figure, "facts": facts, "n_excluded": space.n_excluded}


def _methods(methods: MethodsText) -> Shown:
    written = {
        "Plain text": str(methods),
        "Markdown": methods.markdown(),
        "LaTeX": methods.latex(),
        "BibTeX": methods.bibtex(),
    }
    return {"methods": methods, "written": written}


def _provenance(fit: Fit, command: str | None) -> Shown:
    config = fit.config
    libraries = ("numpy", "scipy", "scikit-learn", "nibabel", "nilearn", "matplotlib")
    facts: dict[str, Any] = {
        "Fit": fit.subject if fit.path is None else fit.path.name,
        "Made with": f"braincorl {config.get('braincorl', 'unknown')}",
        "Reported with": f"braincorl {__version__}; " + ", ".join(f"{name} {version(name)}" for name in libraries),
    }
    if command is not None:
        facts["Reported by"] = command
    if fit.path is not None:
        files = ("encoder.safetensors", "space.safetensors")
        facts |= {f"SHA-256 of {name}": _hash(fit.path / name) for name in files}
    for name, value in fit.encoder.get_params(deep=False).items():
        if isinstance(value, str | int | float):
            facts[f"Encoder: {name}"] = value
    network = getattr(fit.encoder, "provenance_", {}).get("network", {})
    for name, value in {**network, **network.get("config", {})}.items():
        if name != "config":
            facts[f"Network: {name}"] = _listed(value)
    for name, value in config.get("features_provenance", {}).items():
        facts[f"Features: {name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    chosen = {name: value for name, value in config.items() if name not in ("features_provenance", "braincorl")}
    for name, value in chosen.items():
        if value is not None and value != []:
            facts[name.replace("_", " ")] = _listed(value)
    return {"facts": facts, "context": fit.context}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
