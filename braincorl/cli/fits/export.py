"""`braincorl export`: a fit for those who do not use braincorl."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.fits import Fit
from braincorl.fits.exchange import FORMATS, KIND
from braincorl.storage.result_folders import check_destination


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "export",
        "Write a fit for those who do not use braincorl: weights (n_voxels, n_features), places and regions of its "
        "voxels in one .npz file without pickles, and a model card in the fields of BERG's registry.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="npz",
        help="npz: for NumPy alone; himalaya: coef_ (n_features, n_voxels), with ten lines of Python that make a "
        "himalaya Ridge of it; berg: in the folders of the Brain Encoding Response Generator, the card as YAML "
        "(default: npz)",
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    about = parser.add_argument_group("for the card, since nothing in a fit says it")
    about.add_argument("--creator", default="", metavar="NAME", help="who made the encoders")
    about.add_argument("--training-dataset", default="", metavar="NAME", help="what they were fitted on, such as NSD")
    about.add_argument("--license", default="", metavar="NAME", help="terms of their use, such as CC-BY-4.0")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the fit and write it anew."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind=KIND)
    fit = Fit.load(options.fit_dir)
    fit.export(
        options.output_dir,
        format=options.format,
        overwrite=options.overwrite,
        creator=options.creator,
        training_dataset=options.training_dataset,
        license_=options.license,
    )
    n_voxels, n_features = fit.encoder.coef_.shape
    print(f"{fit.subject}: {n_voxels} voxels x {n_features} features as {options.format} -> {options.output_dir}")
