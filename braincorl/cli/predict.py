"""`braincorl predict`: a fitted person's responses to new images."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.cli.common import add_features_options, add_output_options, add_verb, progress_bar, read_features
from braincorl.cli.score import check_features_fit
from braincorl.encoders import LinearEncoder
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.files import read_names
from braincorl.files import GENERATOR, Progress, write_json
from braincorl.fits.folder import FitDirectory, identify_fit, read_fit, write_description
from braincorl.fits.maps import LARGEST_SERIES, save_series
from braincorl.result_folders import check_destination, staged_directory

BYTES_AT_A_TIME = 64 * 2**20


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "predict",
        "Predict responses to images: a 4-D NIfTI in the units of the fitted betas, and its table.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    add_features_options(parser)
    parser.add_argument(
        "--images", type=Path, metavar="TXT", help="images to predict, one name per line (default: all)"
    )
    parser.add_argument("--std", action="store_true", help="also write the predictive standard deviation")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Predict and write, a few images at a time."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="prediction")
    fit = read_fit(options.fit_dir)
    table = read_features(options)
    check_features_fit(fit, table)
    names = table.image_ids if options.images is None else np.asarray(read_names(options.images))
    features = table.features[table.rows(names)]
    kinds = ["predicted", "predictedstd"] if options.std else ["predicted"]
    if fit.space.mask is not None and len(names) > LARGEST_SERIES:
        raise InputError(
            f"{len(names)} images exceed the {LARGEST_SERIES} volumes of a NIfTI file: pass some as --images."
        )
    if options.std:
        fit.encoder.predict(features[:1], return_std=True)  # an encoder without one says so before anything is written
    prefix, space = fit.config["prefix"], fit.space
    step = max(1, BYTES_AT_A_TIME // (8 * (space.included if space.mask is None else space.mask).size))
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="prediction") as folder:
        for kind in kinds:
            stem = f"{prefix}_stat-effect_desc-{kind}"
            with progress_bar(kind, "image") as progress:
                chunks = _chunks(fit.encoder, features, kind == "predictedstd", step, progress)
                path = folder / f"{stem}_statmap.nii.gz"
                save_series(chunks, len(names), space, path, _sidecar(kind, fit.config["zscore"]), options.outside)
            rows = "".join(f"{volume}\t{name}\n" for volume, name in enumerate(names))
            (folder / f"{stem}_trials.tsv").write_text("volume\timage\n" + rows, encoding="utf-8")
        write_json(folder / "config.json", _config(options, fit, table, len(names)))
        write_description(folder, "Predicted responses")
    print(
        f"{fit.config['subject']}: responses of {space.n_voxels} voxels to {len(names)} images -> {options.output_dir}"
    )


def _config(options: argparse.Namespace, fit: FitDirectory, table: FeatureTable, n_images: int) -> dict[str, Any]:
    return {
        "braincorl": __version__,
        **identify_fit(fit),
        "features": options.features,
        "features_provenance": dict(table.provenance),
        "images": options.images,
        "n_images": n_images,
        "std": options.std,
        "zscore": fit.config["zscore"],
    }


def _chunks(
    encoder: LinearEncoder, features: npt.NDArray[Any], std: bool, step: int, progress: Progress
) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(features), step):
        chunk = features[start : start + step]
        yield encoder.predict(chunk, return_std=True)[1] if std else encoder.predict(chunk)
        progress(min(start + step, len(features)), len(features))


def _sidecar(kind: str, zscore: str) -> dict[str, str]:
    what = (
        "Predicted responses"
        if kind == "predicted"
        else "Standard deviation of a measured response around its prediction"
    )
    unit = "standard deviations of a session's trials" if zscore == "session" else "unit of the fitted betas"
    return {
        "Description": f"{what}, one volume per row of the trials table",
        "Units": unit,
        "Software": f"{GENERATOR} {__version__}",
    }
