"""`braincorl score`: a fitted person against responses to images that the fit has not seen."""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np

from braincorl import __version__
from braincorl.cli.common import (
    add_data_options,
    add_output_options,
    add_verb,
    grid_of,
    non_negative,
    positive,
    progress_bar,
    read_features,
    read_responses,
)
from braincorl.datasets import SubjectData
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.files import write_json
from braincorl.fits.folder import (
    FitDirectory,
    hash_responses,
    identify_fit,
    read_fit,
    write_description,
    write_maps,
)
from braincorl.fits.scores import Scores, encoder_significance, score_encoder, summarize_rois
from braincorl.fits.seen_images import check_same_images, seen_by
from braincorl.questions.permutation import PermutationTest, log10_orders
from braincorl.result_folders import check_destination, staged_directory

logger = logging.getLogger(__name__)

N_BOOTSTRAP = 1000
FALSE_DISCOVERIES = 0.05
UNNAMED = SubjectData.name  # of a person whose files do not say


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
    fit = read_fit(options.fit_dir)
    check_destination(output_dir, overwrite=options.overwrite, kind="score")
    table = read_features(options)
    check_features_fit(fit, table)
    chosen, expected = options.zscore, fit.config["zscore"]
    subject = read_responses(options, table, grid_of(fit.space, fit.path), chosen or expected, [])
    scaling = options.zscore or expected  # a prepared person says how it was scaled
    _check_same_person(fit, subject)
    _check_same_scaling(fit, scaling, wanted=scaling == chosen)
    unseen = subject.image_ids[~seen_by(fit, table, subject.image_ids)]
    if unseen.size < subject.n_images:
        logger.warning("%d images that the fit has seen are left out of the score", subject.n_images - unseen.size)
    if unseen.size < 2:
        raise InputError(
            f"{unseen.size} of {subject.n_images} images are new to the fit, but a score needs at least 2: "
            "score on other images, or fit on fewer with --n-context."
        )
    held_out = subject.select_images(unseen)
    scores = score_encoder(fit.encoder, fit.space, table.features[table.rows(unseen)], held_out, options.min_ceiling)
    summary = summarize_rois(scores, fit.rois, N_BOOTSTRAP if options.intervals else 0)
    tested = None
    if options.permutations is not None:
        tested = _test(fit, table, held_out, options.permutations, options.random_state)
        scores |= {"p": tested.p, "q": tested.q, "pfamilywise": tested.p_family}
        summary["r_p"] = [tested.p_regions[name] for name in summary["roi"]]
    with staged_directory(output_dir, overwrite=options.overwrite, kind="score") as folder:
        write_maps(folder, fit.config["prefix"], scores, fit.space, options.outside)
        summary.to_csv(folder / "scores.tsv", sep="\t", index=False, na_rep="n/a")
        write_json(folder / "config.json", _config(options, fit, table, subject, held_out, scaling))
        write_description(folder, "Scores of a voxelwise encoder")
    print(f"{fit.config['subject']}: {describe(scores, unseen.size)} -> {output_dir}")
    if tested is not None:
        print(f"{fit.config['subject']}: {describe_test(tested)}")


def _test(
    fit: FitDirectory, table: FeatureTable, held_out: SubjectData, n_permutations: int, random_state: int
) -> PermutationTest:
    """Permute images; say so where there are too few of them for a small p."""
    possible = log10_orders(held_out.n_repeats)
    if 10**possible < 1 + n_permutations:
        logger.warning(
            "the %d images, exchanged among those of as many trials, have only %.0f different orders: no p can be "
            "below %.2g",
            held_out.n_images,
            10**possible,
            10**-possible,
        )
    features = table.features[table.rows(held_out.image_ids)]
    with progress_bar("permuting images") as progress:
        return encoder_significance(
            fit.encoder, fit.space, features, held_out, n_permutations, fit.rois, random_state, progress=progress
        )


def describe_test(test: PermutationTest) -> str:
    """One line on all voxels."""
    n_tested, n_found = int(np.isfinite(test.p).sum()), int((test.q < FALSE_DISCOVERIES).sum())
    return (
        f"{n_found} of {n_tested} voxels are predicted better than chance (q < {FALSE_DISCOVERIES}, "
        f"{test.n_permutations} permutations of the images)"
    )


def _check_same_person(fit: FitDirectory, subject: SubjectData) -> None:
    if UNNAMED not in (subject.name, fit.config["subject"]) and subject.name != fit.config["subject"]:
        logger.warning("the betas are of %s, but the fit is of %s", subject.name, fit.config["subject"])


def _check_same_scaling(fit: FitDirectory, scaling: str, *, wanted: bool) -> None:
    """Refuse responses in other units than the fit's, unless the command asks for them."""
    expected = fit.config["zscore"]
    if scaling == expected:
        return
    what = f"the responses are scaled '{scaling}', but the fit in {fit.path} was made from '{expected}' (--zscore)"
    if not wanted:
        raise InputError(f"{what}: score on responses that are scaled like those of the fit, or fit again.")
    logger.warning("%s", what)


def _config(
    options: argparse.Namespace,
    fit: FitDirectory,
    table: FeatureTable,
    subject: SubjectData,
    held_out: SubjectData,
    scaling: str,
) -> dict[str, Any]:
    return {
        "braincorl": __version__,
        **identify_fit(fit),
        "features": options.features,
        "features_provenance": dict(table.provenance),
        "betas": options.betas,
        "betas_subject": subject.name,
        "trials": options.trials,
        "ncsnr": options.ncsnr,
        "zscore": scaling,
        "min_ceiling": options.min_ceiling,
        "n_bootstrap": N_BOOTSTRAP if options.intervals else 0,
        "n_permutations": options.permutations or 0,
        "random_state": options.random_state if options.permutations else None,
        "n_images": held_out.n_images,
        "n_seen": subject.n_images - held_out.n_images,
        "responses_sha256": hash_responses(held_out.responses),
    }


def check_features_fit(fit: FitDirectory, table: FeatureTable) -> None:
    """Refuse features of another space than the fit's, or of other pictures under the names of its images.

    Raises
    ------
    InputError
        If their number, their provenance, or an image that the fit was made from differs.
    """
    check_space_fits(fit, table)
    check_same_images(fit, table)


def check_space_fits(fit: FitDirectory, table: FeatureTable) -> None:
    """Refuse features of another space than the fit's.

    Raises
    ------
    InputError
        If their number or their provenance differs.
    """
    check_same_space(table.provenance, fit.config["features_provenance"], f"the fit in {fit.path}")
    if table.n_features != fit.encoder.coef_.shape[1]:
        raise InputError(
            f"the features have {table.n_features} columns but the fit in {fit.path} was made with "
            f"{fit.encoder.coef_.shape[1]}: embed the images with the same backbone."
        )


def describe(scores: Scores, n_images: int) -> str:
    """One line on all voxels."""
    if not np.isfinite(scores["ev"]).any():
        return f"{n_images} held-out images: no scores, because the responses to them are constant in every voxel"
    parts = [
        f"mean {label} {np.nanmean(scores[name]):.3f}"
        for name, label in (("ev", "EV"), ("r2", "R²"), ("r", "r"))
        if np.isfinite(scores[name]).any()
    ]
    if "noiseceiling" in scores and np.isfinite(scores["noiseceiling"]).any():
        parts.append(f"noise ceiling {np.nanmean(scores['noiseceiling']):.3f}")
        reliable = np.isfinite(scores["evnormalized"])
        if reliable.any():
            normalized = np.nanmean(scores["evnormalized"])
            parts.append(f"EV / ceiling {normalized:.3f} in {int(reliable.sum())} reliable voxels")
    return f"{n_images} held-out images: " + ", ".join(parts)
