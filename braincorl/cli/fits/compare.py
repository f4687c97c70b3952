"""`braincorl compare`: two fits of one person on images that neither has seen."""

import argparse
from pathlib import Path

from braincorl.analysis.fit_comparison import check_same_person, compare_fits
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
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import load_spaces
from braincorl.fits import Fit
from braincorl.fits.recorded import recorded_features, recorded_responses
from braincorl.storage.result_folders import check_destination


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
    """Compare, write maps, a table and a page, and print what holds for all voxels."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="comparison")
    a, b = Fit.load(options.fit_a), Fit.load(options.fit_b)
    check_same_person(a, b)
    table_a = _features(options.features, options.image_ids, a, "--features")
    table_b = _features(options.features_b, options.image_ids, b, "--features-b")
    subject = _responses(options, a, table_a)
    with progress_bar("comparing voxels") as progress:
        found = compare_fits(
            a,
            b,
            subject,
            table_a,
            table_b,
            n_permutations=options.permutations,
            random_state=options.random_state,
            notes={
                "features": [
                    options.features or a.config.get("features"),
                    options.features_b or b.config.get("features"),
                ],
                "betas": options.betas or a.config.get("betas"),
                "trials": options.trials or a.config.get("trials"),
            },
            progress=progress,
        )
    found.save(options.output_dir, overwrite=options.overwrite, outside=options.outside)
    print(f"{a.subject}: {found} -> {options.output_dir}")


def _features(given: Path | dict[str, Path] | None, image_ids: Path | None, fit: Fit, option: str) -> FeatureTable:
    return recorded_features(fit, option, image_ids) if given is None else load_spaces(given, image_ids)


def _responses(options: argparse.Namespace, fit: Fit, table: FeatureTable) -> SubjectData:
    if options.betas is not None:
        return read_responses(options, table, fit.grid, fit.config["zscore"])
    with progress_bar("reading trials") as progress:
        return recorded_responses(fit, table, "--betas", as_fitted=options.features is None, progress=progress)
