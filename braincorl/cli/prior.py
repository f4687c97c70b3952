"""`braincorl prior`: remember the voxels of earlier people, from their fits."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.cli.common import add_verb
from braincorl.errors import InputError
from braincorl.features import check_same_space, load_features
from braincorl.files import check_new_file
from braincorl.fits import Fit
from braincorl.fits.seen_images import check_same_across
from braincorl.priors import GroupPrior
from braincorl.priors.regions import label_voxels


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
    fits = [Fit.load(path) for path in options.people]
    _check_different(fits)
    check_same_across(fits)
    space: dict[str, Any] = {}
    for fit in fits:
        provenance = fit.config.get("features_provenance", {})
        check_same_space(provenance, space, fits[0].title)
        space |= provenance
    pool = None
    if options.pool is not None:
        table = load_features(options.pool)
        check_same_space(table.provenance, space, "the first fit")
        pool = table.features
    prior = GroupPrior.fit(
        [fit.encoder for fit in fits],
        [_labels(fit) for fit in fits] if options.rois else None,
        [fit.space.coordinates() for fit in fits] if options.places else None,
        X_pool=pool,
        max_items="auto" if options.max_items is None else options.max_items,
        provenance={**space, "people": [fit.subject for fit in fits]},
    )
    prior.save(options.output)
    regions = f", regions {', '.join(prior.regions)}" if prior.regions else ""
    places = ", places" if prior.positions is not None else ""
    print(f"{prior}{regions}{places} -> {options.output}")


def _check_different(fits: Sequence[Fit]) -> None:
    """Refuse one person given twice, which would be remembered as two who agree."""
    for number, fit in enumerate(fits):
        for other in fits[:number]:
            if np.array_equal(fit.encoder.coef_, other.encoder.coef_):
                raise InputError(f"{other.title} and {fit.title} hold the same encoder: give each person once.")


def _labels(fit: Fit) -> npt.NDArray[np.str_]:
    if not fit.rois:
        raise InputError(f"{fit.title} was made without regions: leave --rois out, or fit it again with --rois.")
    return label_voxels(fit.rois, fit.space.n_voxels)
