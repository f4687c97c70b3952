"""`braincorl score`: a fitted person against responses to images that the fit has not seen."""

import argparse
from pathlib import Path

from braincorl.cli.common import (
    add_data_options,
    add_output_options,
    add_verb,
    non_negative,
    positive,
    progress_bar,
    read_responses,
)
from braincorl.features.store.feature_files import load_spaces
from braincorl.fits import Fit, describe_partition, describe_test
from braincorl.storage.result_folders import check_destination

N_BOOTSTRAP = 1000  # bounds at 95 % rest on 25 samples each side


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "score",
        "Score a fit on images that it has not seen: explained variance, R², r, noise ceiling, per voxel and region.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    add_data_options(parser)
    parser.add_argument(
        "--zscore", choices=("none", "session"), help="scaling of the responses (default: as in the fit)"
    )
    parser.add_argument(
        "--min-ceiling",
        type=float,
        default=0.1,
        metavar="NC",
        help="give noise-normalised scores where the noise ceiling of R² is at least this (default: 0.1)",
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="add 95 %% bootstrap intervals of the means over voxels to scores.tsv (voxels are not independent: they "
        "say nothing on other people)",
    )
    parser.add_argument(
        "--permutations",
        type=positive,
        metavar="N",
        help="test every voxel against N random orders of the images: maps of p (one-sided; the same for EV, R² and r) "
        "and of q (false discovery rate over voxels), and a p per region; 1000 is usual",
    )
    parser.add_argument(
        "--random-state", type=non_negative, default=0, metavar="S", help="seed of the permutations (default: 0)"
    )
    add_output_options(parser, required=False, default="FIT_DIR/scores")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Score and write maps and a table."""
    output_dir = options.output_dir or options.fit_dir / "scores"
    fit = Fit.load(options.fit_dir)
    check_destination(output_dir, overwrite=options.overwrite, kind="score")
    table = load_spaces(options.features, options.image_ids)
    subject = read_responses(options, table, fit.grid, options.zscore or fit.config["zscore"])
    with progress_bar("testing voxels") as progress:
        scored = fit.score(
            subject,
            table,
            min_ceiling=options.min_ceiling,
            any_scaling=options.zscore == subject.zscore,
            n_permutations=options.permutations or 0,
            random_state=options.random_state,
            notes={name: getattr(options, name) for name in ("features", "betas", "trials", "ncsnr")},
            progress=progress,
        )
    n_bootstrap = N_BOOTSTRAP if options.intervals else 0
    scored.save(output_dir, n_bootstrap=n_bootstrap, overwrite=options.overwrite, outside=options.outside)
    print(f"{fit.subject}: {scored} -> {output_dir}")
    if scored.partition is not None:
        print(f"{fit.subject}: {describe_partition(scored.partition)}")
    if scored.tested is not None:
        print(f"{fit.subject}: {describe_test(scored.tested)}")
