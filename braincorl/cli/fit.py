"""`braincorl fit`: one person's betas and features to a voxelwise encoder, maps, and scores of left-out images."""

import argparse
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.cli.common import (
    add_data_options,
    add_encoder_options,
    add_output_options,
    add_person_options,
    add_verb,
    check_features_vary,
    make_encoder,
    non_negative,
    progress_bar,
    read_features,
    read_responses,
)
from braincorl.cli.score import describe
from braincorl.datasets import SubjectData
from braincorl.encoders import LinearEncoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable, check_same_space
from braincorl.features.files import read_names
from braincorl.features.table import take_rows
from braincorl.fits.folder import encoder_maps, hash_responses, write_description, write_fit, write_maps
from braincorl.fits.localiser import write_localiser
from braincorl.fits.scores import Scores, score_encoder, summarize_rois
from braincorl.fits.seen_images import without_copies
from braincorl.priors import GroupPrior
from braincorl.priors.regions import label_voxels
from braincorl.result_folders import check_destination, staged_directory

logger = logging.getLogger(__name__)


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
    chosen.add_argument("--n-context", type=int, metavar="N", help="fit on N images drawn at random; others are scored")
    parser.add_argument(
        "--random-state", type=non_negative, default=0, metavar="S", help="seed of that draw (default: 0)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Fit, score what was left out, and write everything at once."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="fit")
    encoder = make_encoder(options)
    table = read_features(options)
    subject = read_responses(options, table, options.mask, options.zscore, options.rois)
    context = choose_context(options, subject.image_ids)
    left_out = without_copies(table, context, subject.image_ids[~np.isin(subject.image_ids, context)])
    features = table.features[table.rows(context)]
    check_features_vary(features)
    responses = subject.select_images(context).responses
    if options.precision in ("float32", "float64"):
        # Encoders compute in the wider type of the two.
        features, responses = (array.astype(options.precision, copy=False) for array in (features, responses))
    pool = pool_without(table, left_out) if encoder.uses_pool else features
    more = prior_arguments(encoder, table, subject)
    encoder, seconds = fit_encoder(encoder, features, responses, pool, more)
    maps: dict[str, npt.NDArray[Any]] = dict(encoder_maps(encoder))
    scores: Scores = {}
    if left_out.size >= 2:
        held_out = subject.select_images(left_out)
        scores = score_encoder(encoder, subject.space, table.features[table.rows(left_out)], held_out)
    elif (ceiling := subject.noise_ceiling()) is not None:
        maps["noiseceiling"] = ceiling
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="fit") as folder:
        config = _config(options, table, subject, context, left_out)
        provenance = {**getattr(encoder, "provenance_", {}), "features": dict(table.provenance)}
        write_fit(folder, encoder, subject.space, subject.rois, config, context, provenance)
        write_maps(folder, config["prefix"], maps | scores, subject.space, options.outside)
        write_localiser(folder, config["prefix"], encoder, subject.space, options.outside)
        if scores:
            summarize_rois(scores, subject.rois).to_csv(folder / "scores.tsv", sep="\t", index=False, na_rep="n/a")
        write_description(folder, "Voxelwise encoder")
    print(
        f"{subject.name}: {options.encoder} encoder of {subject.n_voxels} voxels from {context.size} images "
        f"and {table.n_features} features in {seconds:.1f} s -> {options.output_dir}"
    )
    if scores:
        print(f"{subject.name}: {describe(scores, left_out.size)}")
    else:
        print(
            f"{subject.name}: not scored, as no 2 images are left out; fit fewer (--n-context), or score other images: "
            f"braincorl score {options.output_dir} --features … --betas … --trials …"
        )


def fit_encoder(
    encoder: LinearEncoder,
    features: npt.NDArray[np.floating[Any]],
    responses: npt.NDArray[np.floating[Any]],
    pool: npt.NDArray[np.floating[Any]],
    more: Mapping[str, Any] | None = None,
) -> tuple[LinearEncoder, float]:
    """Fit an encoder, giving it the pool of features if it wants one.

    Parameters
    ----------
    encoder
        Not fitted yet.
    features
        Of the context (n_images, n_features).
    responses
        (n_images, n_voxels).
    pool
        Features of any images but those to be scored (n_pool, n_features).
    more
        Further arguments of the encoder's `fit`.

    Returns
    -------
    encoder : LinearEncoder
    seconds : float
    """
    start = time.perf_counter()
    features = features.astype(responses.dtype, copy=False)  # this way round: responses are by far the larger
    with progress_bar("fitting voxels") as progress:
        arguments: dict[str, Any] = {"X_pool": pool} if encoder.uses_pool else {}
        arguments |= more or {}
        if encoder.reports_progress:
            arguments["progress"] = progress
        encoder.fit(features, responses, **arguments)
    return encoder, time.perf_counter() - start


def pool_without(table: FeatureTable, left_out: npt.NDArray[np.str_]) -> npt.NDArray[np.floating[Any]]:
    """Features of all images but those left out; the table's own, not a copy, if all stay."""
    if left_out.size == 0:
        return table.features
    return take_rows(table.features, np.flatnonzero(~np.isin(table.image_ids, left_out)))


def prior_arguments(encoder: LinearEncoder, table: FeatureTable, subject: SubjectData) -> dict[str, Any]:
    """Check the prior's feature space; say where voxels are and in which region, if the prior knows such."""
    prior: GroupPrior | None = getattr(encoder, "prior", None)
    if prior is None:
        return {}
    check_same_space(table.provenance, prior.provenance, "the prior")
    more: dict[str, Any] = {}
    if prior.positions is not None:
        more["positions"] = subject.space.coordinates()
    if not subject.rois or not prior.regions:
        return more
    if not set(subject.rois) & set(prior.regions):
        logger.warning(
            "the prior knows the regions %s but not %s: fitting without regions",
            ", ".join(prior.regions),
            ", ".join(sorted(subject.rois)),
        )
    known = {name: members for name, members in subject.rois.items() if name in prior.regions}
    return more | {"rois": label_voxels(known, subject.n_voxels)}


def choose_context(options: argparse.Namespace, image_ids: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    """Images to fit on: those of a list, a random draw, or all."""
    if options.context is not None:
        wanted = list(dict.fromkeys(read_names(options.context)))
        missing = sorted(set(wanted) - set(image_ids.tolist()))
        if missing:
            raise InputError(
                f"--context names {len(missing)} images without both responses and features, such as '{missing[0]}': "
                "remove them from the list."
            )
        return _at_least_two(np.asarray(wanted))
    if options.n_context is None:
        return _at_least_two(image_ids)
    if not 2 <= options.n_context <= image_ids.size:
        raise InputError(
            f"--n-context must be between 2 and {image_ids.size}, the images at hand, but is {options.n_context}."
        )
    # Drawn from the sorted names, so that the order of trials does not decide who is drawn.
    names = np.sort(image_ids)
    return names[np.sort(np.random.default_rng(options.random_state).permutation(names.size)[: options.n_context])]


def bids_prefix(betas: Path, name: str) -> str:
    """BIDS entities for maps: those of the betas file that are not about one session or run."""
    entities = dict(re.findall(r"(task|acq|space|res)-([A-Za-z0-9]+)", betas.name))
    order = ("task", "acq", "space", "res")
    return "_".join([name, *(f"{key}-{entities[key]}" for key in order if key in entities)])


def _at_least_two(context: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    if context.size < 2:
        raise InputError(f"there is {context.size} image to fit on, but an encoder needs at least 2: add images.")
    return context


def _config(
    options: argparse.Namespace,
    table: FeatureTable,
    subject: SubjectData,
    context: npt.NDArray[np.str_],
    left_out: npt.NDArray[np.str_],
) -> dict[str, Any]:
    return {
        "subject": subject.name,
        "prefix": bids_prefix(options.betas[0], subject.name),
        "encoder": options.encoder,
        "prior": options.prior,
        "checkpoint": None if options.checkpoint is None else str(options.checkpoint),
        "zscore": options.zscore,
        "features": str(options.features),
        "features_provenance": dict(table.provenance),
        "n_features": table.n_features,
        "betas": [str(path) for path in options.betas],
        "trials": [str(path) for path in options.trials],
        "mask": None if options.mask is None else [str(path) for path in options.mask],
        "rois": [str(path) for path in options.rois],
        "random_state": options.random_state if options.n_context is not None else None,
        "n_context": int(context.size),
        "n_left_out": int(left_out.size),
        "n_voxels": subject.n_voxels,
        "n_excluded_voxels": subject.space.n_excluded,
        "responses_sha256": hash_responses(subject.responses),
    }
