"""`braincorl identify`: which image was seen, of some candidates, told from a person's responses."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from braincorl.analysis.image_identification import identify_images
from braincorl.cli.common import (
    add_data_options,
    add_output_options,
    add_verb,
    progress_bar,
    read_responses,
)
from braincorl.datasets import SubjectData
from braincorl.datasets.load import open_subject
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features
from braincorl.features.store.feature_files import load_spaces
from braincorl.fits import Fit
from braincorl.fits.seen_images import check_features_fit
from braincorl.questions.identification import RANKINGS
from braincorl.storage.result_folders import check_destination


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "identify",
        "Rank candidate images, or words, by how likely they make each measured response: tables of ranks and of "
        "accuracy against the number of candidates, with chance levels and intervals, by region, and a page.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    add_data_options(parser)
    parser.add_argument(
        "--text-features",
        type=Path,
        metavar="FILE",
        help="rank these words in place of images (features of the same space, from braincorl embed --text)",
    )
    parser.add_argument(
        "--nearest",
        type=Path,
        metavar="FILE",
        help="also tell what these words or images have in common with what was seen, which need not be among them: "
        "nearest.tsv, by cosine to the features that the response speaks for, with 95 %% intervals, and "
        "decoded_features.npz, those features",
    )
    parser.add_argument(
        "--single-trials",
        action="store_true",
        help="ask for every trial, not for the mean over each image's trials; noise is scaled by their number",
    )
    parser.add_argument(
        "--ranking",
        choices=tuple(RANKINGS),
        default="independent",
        help="; ".join(f"{name}: {what}" for name, what in RANKINGS.items()) + " (default: independent)",
    )
    parser.add_argument(
        "--spread",
        choices=("mean", "candidate"),
        default="mean",
        help="predictive deviations of voxels: their mean over candidates, or each candidate's own (default: mean)",
    )
    parser.add_argument("--images", type=Path, metavar="PATH", help="folder or HDF5 file with the images, to show them")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Identify, write tables and a page, and print what holds for all voxels."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="identification")
    fit = Fit.load(options.fit_dir)
    table = load_spaces(options.features, options.image_ids)
    check_features_fit(fit, table)
    words, nearest = (
        None if path is None else load_features(path) for path in (options.text_features, options.nearest)
    )
    subject, shown = _read(options, fit, table)
    told = identify_images(
        fit,
        subject,
        table,
        words=words,
        nearest=nearest,
        shown=shown,
        ranking=options.ranking,
        spread=options.spread,
        notes={name: getattr(options, name) for name in ("features", "text_features", "nearest", "betas", "trials")},
    )
    told.save(options.output_dir, images=options.images, overwrite=options.overwrite)
    print(f"{fit.subject}: {told} -> {options.output_dir}")
    if told.decoded is not None:
        print(f"{fit.subject}: {told.decoded}")


def _read(options: argparse.Namespace, fit: Fit, table: FeatureTable) -> tuple[SubjectData, Mapping[str, str] | None]:
    """Responses of images, or of single trials and what each showed."""
    zscore = fit.config["zscore"]
    if not options.single_trials:
        return read_responses(options, table, fit.grid, zscore), None
    if not options.trials:
        raise InputError("--single-trials needs the betas with --trials: a prepared person holds means over trials.")
    known = set(table.image_ids.tolist())
    opened = open_subject(options.betas, options.trials, fit.grid, zscore=zscore)
    recording, shown = opened.named_as(known).trial_by_trial()
    with progress_bar("reading trials") as progress:
        subject = recording.load([name for name, image in shown.items() if image in known], progress)
    return subject, shown
