"""`braincorl predict`: a fitted person's responses to new images."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_features_options, add_output_options, add_verb, progress_bar
from braincorl.features.store.feature_files import load_spaces, read_names
from braincorl.fits import Fit
from braincorl.storage.result_folders import check_destination


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
    fit = Fit.load(options.fit_dir)
    table = load_spaces(options.features, options.image_ids)
    with progress_bar("predicting", "image") as progress:
        n_images = fit.save_predictions(
            options.output_dir,
            table,
            None if options.images is None else read_names(options.images),
            std=options.std,
            notes={"features": options.features, "images": options.images},
            overwrite=options.overwrite,
            outside=options.outside,
            progress=progress,
        )
    print(f"{fit.subject}: responses of {fit.space.n_voxels} voxels to {n_images} images -> {options.output_dir}")
