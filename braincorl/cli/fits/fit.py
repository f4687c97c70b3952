"""`braincorl fit`: one person's betas and features to a voxelwise encoder, maps, and scores of left-out images."""

import argparse
import time
from pathlib import Path
from typing import Any

from braincorl.cli.common import (
    add_data_options,
    add_encoder_options,
    add_output_options,
    add_person_options,
    add_verb,
    make_encoder,
    non_negative,
    progress_bar,
    read_responses,
)
from braincorl.features.store.feature_files import load_spaces, read_names
from braincorl.fits import describe, fit_person
from braincorl.fits.folder import bids_prefix
from braincorl.storage.result_folders import check_destination


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers, "fit", "Fit a voxelwise encoder to one person's responses, from the images that have features."
    )
    add_data_options(parser)
    add_person_options(parser)
    add_encoder_options(parser)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--context", type=Path, metavar="TXT", help="images to fit on, one name per line; others are scored"
    )
    chosen.add_argument(
        "--n-context",
        type=int,
        metavar="N",
        help="fit on N images drawn at random; others are scored (default: fit on all)",
    )
    parser.add_argument(
        "--random-state", type=non_negative, default=0, metavar="S", help="seed of that draw (default: 0)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Fit, score what was left out, and write everything at once."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="fit")
    encoder = make_encoder(options)
    table = load_spaces(options.features, options.image_ids)
    subject = read_responses(options, table, options.mask, options.zscore, options.rois)
    start = time.perf_counter()
    with progress_bar("fitting voxels") as progress:
        fit = fit_person(
            subject,
            table,
            encoder,
            context=options.n_context if options.context is None else read_names(options.context),
            random_state=options.random_state,
            prefix=bids_prefix(options.betas[0], subject.name),
            notes=_inputs(options),
            progress=progress,
        )
    seconds = time.perf_counter() - start
    fit.save(options.output_dir, overwrite=options.overwrite, outside=options.outside)
    print(
        f"{subject.name}: {options.encoder} encoder of {subject.n_voxels} voxels from {len(fit.context)} images "
        f"and {table.n_features} features in {seconds:.1f} s -> {options.output_dir}"
    )
    if fit.scores:
        print(f"{subject.name}: {describe(fit.scores, fit.config['n_left_out'])}")
    else:
        print(
            f"{subject.name}: not scored, as no 2 images are left out; fit fewer (--n-context), or score other images: "
            f"braincorl score {options.output_dir} --features … --betas … --trials …"
        )


def _inputs(options: argparse.Namespace) -> dict[str, Any]:
    """Files that the fit is made from, and the command itself."""
    names = ("command", "features", "betas", "trials", "mask", "rois", "prior", "checkpoint")
    return {name: getattr(options, name) for name in names}
