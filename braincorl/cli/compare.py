"""`braincorl compare`: two fits of one person on images that neither has seen."""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.analysis.maps.surface_plots import plot_in_own_space
from braincorl.analysis.question_figures import plot_comparison
from braincorl.analysis.report.page import SIMULATION, Section, write_page
from braincorl.cli.common import (
    FeaturesOption,
    add_data_options,
    add_output_options,
    add_verb,
    non_negative,
    positive,
    progress_bar,
    read_responses,
)
from braincorl.datasets import SubjectData
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import load_spaces
from braincorl.files import write_json
from braincorl.fits import Fit
from braincorl.fits.folder import hash_responses, identify_fit, write_description, write_maps
from braincorl.fits.scores import common_voxels, predict_exactly
from braincorl.fits.seen_images import check_features_fit, seen_by
from braincorl.questions.comparison import Comparison, compare_predictions
from braincorl.questions.permutation import FALSE_DISCOVERIES
from braincorl.result_folders import check_destination, staged_directory

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 2  # of one image there is no variance to explain


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "compare",
        "Compare two fits of one person (two backbones, layers, encoders) on images that neither has seen: a paired "
        "test over images, a map of the difference, a table per region, a page. What is not given is read from where "
        "the fits read it.",
    )
    parser.add_argument("fit_a", type=Path, metavar="FIT_A", help="folder that braincorl fit wrote")
    parser.add_argument("fit_b", type=Path, metavar="FIT_B", help="another, of the same person and mask")
    add_data_options(parser, required=False)
    parser.add_argument(
        "--features-b",
        action=FeaturesOption,
        metavar="[NAME=]FILE",
        help="features of FIT_B; --features are those of FIT_A",
    )
    parser.add_argument(
        "--permutations",
        type=positive,
        default=1000,
        metavar="N",
        help="random changes of places of the two fits in images, for p and q (default: 1000)",
    )
    parser.add_argument("--random-state", type=non_negative, default=0, metavar="S", help="seed (default: 0)")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare and write maps, a table and a page."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="comparison")
    fits = Fit.load(options.fit_a), Fit.load(options.fit_b)
    _check_same_person(*fits)
    _complete(options, fits)
    tables = [load_spaces(files, options.image_ids) for files in (options.features, options.features_b)]
    for fit, table in zip(fits, tables, strict=True):
        check_features_fit(fit, table)
    held_out = _held_out(options, fits, tables)
    space = fits[0].space
    measured, predicted = _side_by_side(fits, tables, held_out)
    with progress_bar("comparing voxels") as progress:
        result = compare_predictions(
            measured, *predicted, rois=fits[0].rois, n_permutations=options.permutations,
            random_state=options.random_state, progress=progress,
        )  # fmt: skip
    names = [_name(fit) for fit in fits]
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="comparison") as folder:
        maps = {"evdifference": result.difference, "pdifference": result.p, "qdifference": result.q}
        write_maps(folder, fits[0].config["prefix"], maps, space, options.outside)
        result.regions.to_csv(folder / "comparison.tsv", sep="\t", index=False, na_rep="n/a")
        write_json(folder / "config.json", _config(options, fits, tables, held_out))
        _write_page(folder / "report.html", result, space, fits, names, held_out.n_images)
        write_description(folder, "Two voxelwise encoders compared")
    print(f"{fits[0].config['subject']}: {describe(result, held_out.n_images)} -> {options.output_dir}")


def _check_same_person(a: Fit, b: Fit) -> None:
    for key, what in (("subject", "people"), ("zscore", "scalings of the responses")):
        if a.config[key] != b.config[key]:
            raise InputError(
                f"{a.path} and {b.path} are of different {what} ('{a.config[key]}', '{b.config[key]}'): compare two "
                "fits of the same responses."
            )
    common_voxels(a.space, b.space)
    if a.encoder.coef_.shape == b.encoder.coef_.shape and np.array_equal(a.encoder.coef_, b.encoder.coef_):
        logger.warning("%s and %s hold the same encoder, so no difference will be found", a.path, b.path)


def _complete(options: argparse.Namespace, fits: tuple[Fit, Fit]) -> None:
    """Take what the command leaves out from where the fits took it."""
    options.as_fitted = options.betas is None and options.features is None
    for name, fit in (("features", fits[0]), ("features_b", fits[1])):
        if getattr(options, name) is None:
            setattr(options, name, recorded_features(fit, f"--{name.replace('_', '-')}"))
    if options.betas is None:
        options.betas = recorded(fits[0], "betas", "--betas")
        options.trials = options.trials or recorded(fits[0], "trials", "--trials")


def recorded_features(fit: Fit, option: str = "--features") -> Path | dict[str, Path]:
    """Feature file, or files by name, that a fit was made from."""
    stated = fit.config.get("features")
    paths = recorded(fit, "features", option)
    return dict(zip(stated, paths, strict=True)) if isinstance(stated, dict) else paths[0]


def recorded(fit: Fit, key: str, option: str) -> list[Path]:
    """Files that a fit was made from, if they are still there.

    Raises
    ------
    InputError
        If they are not, asking for the option.
    """
    stated = fit.config.get(key)
    stated = list(stated.values()) if isinstance(stated, dict) else stated
    paths = [Path(text) for text in ([stated] if isinstance(stated, str) else stated or [])]
    missing = [str(path) for path in paths if not path.exists()]
    if missing or (not paths and key != "trials"):
        raise InputError(
            f"the fit in {fit.path} was made from {missing[0] if missing else 'unknown ' + key}, which is not there "
            f"(any more): pass {option}."
        )
    return paths


def _held_out(options: argparse.Namespace, fits: tuple[Fit, Fit], tables: list[FeatureTable]) -> SubjectData:
    """Responses to the images that have features in both spaces and that neither fit has seen."""
    subject = read_responses(options, tables[0], fits[0].grid, fits[0].config["zscore"])
    stated = fits[0].config.get("responses_sha256")
    if options.as_fitted and stated is not None and stated != hash_responses(subject.responses):
        raise InputError(
            f"{options.betas[0]} and its trials are not what the fit in {fits[0].path} was made from: they changed, "
            "or other files bear these names here; pass --features, --betas and --trials."
        )
    both = subject.image_ids[np.isin(subject.image_ids, tables[1].image_ids)]
    seen = np.zeros(both.size, dtype=bool)
    for fit, table in zip(fits, tables, strict=True):
        seen |= seen_by(fit, table, both)
    if both.size - int(seen.sum()) < FEWEST_IMAGES:
        raise InputError(
            f"{both.size - int(seen.sum())} of {subject.n_images} images have features of both fits and are new to "
            f"both, but a comparison needs at least {FEWEST_IMAGES}: fit both on the same --context list, leaving "
            "images out."
        )
    if seen.any():
        logger.info("%d images that a fit has seen are left out of the comparison", int(seen.sum()))
    return subject.select_images(both[~seen])


def _side_by_side(
    fits: tuple[Fit, Fit], tables: list[FeatureTable], held_out: SubjectData
) -> tuple[npt.NDArray[Any], list[npt.NDArray[np.float64]]]:
    """Measured responses and both predictions over the voxels of the first fit, NaN where one has none."""
    space = fits[0].space
    measured = np.full((held_out.n_images, space.n_voxels), np.nan)
    ours, theirs = common_voxels(space, held_out.space)
    measured[:, ours] = held_out.responses[:, theirs]
    shared, of_b = common_voxels(space, fits[1].space)
    alone = np.setdiff1d(np.arange(space.n_voxels), shared)
    measured[:, alone] = np.nan
    features = [table.features[table.rows(held_out.image_ids)] for table in tables]
    first = predict_exactly(fits[0].encoder, features[0])
    second = np.zeros_like(first)
    second[:, shared] = predict_exactly(fits[1].encoder, features[1], of_b)
    return measured, [first, second]


def describe(result: Comparison, n_images: int) -> str:
    """One line on all voxels."""
    row = result.regions.iloc[0]
    return (
        f"{n_images} held-out images: mean EV {row['ev_a']:.3f} and {row['ev_b']:.3f}, difference "
        f"{row['difference']:.3f} (95 % interval {row['low']:.3f} to {row['high']:.3f}, p = {row['p']:.2g}); at q < "
        f"{FALSE_DISCOVERIES}, the first is better in {row['n_a_better']} voxels and the second in {row['n_b_better']}"
    )


def _name(fit: Fit) -> str:
    """Name of a fit's folder, and of what it was made with."""
    name = fit.subject if fit.path is None else fit.path.resolve().name
    return f"{name} ({fit.config.get('encoder', type(fit.encoder).__name__)})"


def _config(
    options: argparse.Namespace,
    fits: tuple[Fit, Fit],
    tables: list[FeatureTable],
    held_out: SubjectData,
) -> dict[str, Any]:
    return {
        "braincorl": __version__,
        **identify_fit(fits[0]),
        "other_fit": identify_fit(fits[1]),
        "features": [options.features, options.features_b],
        "features_provenance": [dict(table.provenance) for table in tables],
        "betas": options.betas,
        "trials": options.trials,
        "n_images": held_out.n_images,
        "n_permutations": options.permutations,
        "random_state": options.random_state,
        "responses_sha256": hash_responses(held_out.responses),
    }


def _write_page(
    path: Path,
    result: Comparison,
    space: VoxelSpace,
    fits: tuple[Fit, Fit],
    names: list[str],
    n_images: int,
) -> None:
    figure = plot_comparison(result.ev_a, result.ev_b, result.regions, names)
    drawn = plot_in_own_space(result.difference, space, label="difference in EV", signed=True, rois=fits[0].rois)
    difference = None if drawn is None else {"figure": drawn, "names": names}
    table = result.regions.rename(columns={"roi": "region", "n_voxels": "voxels"})
    paths = {"First": f"{names[0]}, {fits[0].path}", "Second": f"{names[1]}, {fits[1].path}"}
    write_page(
        path,
        f"{fits[0].subject}: two encoders",
        describe(result, n_images),
        [
            Section("Difference", "comparison/difference.html", {"figure": figure, "n_images": n_images}),
            Section("Map", "comparison/map.html", difference),
            Section("Regions", "comparison/regions.html", {"table": table, "false_discoveries": FALSE_DISCOVERIES}),
            Section("Fits", "comparison/fits.html", {"fits": paths}),
        ],
        [SIMULATION] if fits[0].config.get("simulation") else [],
    )
