"""`braincorl prior`: remember the voxels of earlier people, from their fits."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.features import load_features
from braincorl.fits.earlier.one_by_one import load_fits
from braincorl.fits.earlier.remembering import remember_fits
from braincorl.storage.files import check_new_file


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "prior", "Remember the voxels of earlier people, for fit --prior.")
    parser.add_argument(
        "people", type=Path, nargs="+", metavar="PERSON_DIR", help="folders of braincorl fit, one per person"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="prior to write (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--rois",
        action="store_true",
        help="remember in which region each voxel lies, from the regions that the fits were given",
    )
    parser.add_argument(
        "--pool",
        type=Path,
        metavar="FILE",
        help="features of any images, over which a voxel's signal has unit variance; needed for ridge fits "
        "(default: the people's own images)",
    )
    parser.add_argument(
        "--places",
        action="store_true",
        help="remember where each voxel lies (mm): for people in one common space, such as MNI152NLin2009cAsym",
    )
    parser.add_argument(
        "--max-items",
        type=int,
        metavar="N",
        help="merge voxels that are alike until about N are left (default: 4096; with --places 65536)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Learn, and write the file at once."""
    check_new_file(options.output, options.overwrite)
    prior = remember_fits(
        load_fits(options.people),
        rois=options.rois,
        places=options.places,
        pool=None if options.pool is None else load_features(options.pool),
        max_items="auto" if options.max_items is None else options.max_items,
    )
    prior.save(options.output)
    regions = f", regions {', '.join(prior.regions)}" if prior.regions else ""
    places = ", places" if prior.positions is not None else ""
    print(f"{prior}{regions}{places} -> {options.output}")
