"""`braincorl prior`: learn a group prior from the fits of earlier people."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.analysis.fit_directory import FitDirectory, read_fit
from braincorl.cli.common import add_verb
from braincorl.errors import InputError
from braincorl.features import check_same_space, load_features
from braincorl.files import check_new_file
from braincorl.priors import GroupPrior
from braincorl.priors.regions import label_voxels


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers, "prior", "Learn what voxels are like from earlier people, for fit --encoder group-prior."
    )
    parser.add_argument(
        "people", type=Path, nargs="+", metavar="PERSON_DIR", help="folders of braincorl fit, one per person"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="prior to write (.safetensors)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--rois", action="store_true", help="learn one prior per region, from the regions that the fits were given"
    )
    parser.add_argument(
        "--pool",
        type=Path,
        metavar="FILE",
        help="features of any images, over which a voxel's signal has unit variance; needed for ridge fits "
        "(default: the people's own images)",
    )
    parser.add_argument("--components", type=int, metavar="N", help="kinds of voxel (default: chosen on the people)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Learn, and write the file at once."""
    check_new_file(options.output, options.overwrite)
    fits = [read_fit(path) for path in options.people]
    space: dict[str, Any] = {}
    for fit in fits:
        provenance = fit.config.get("features_provenance", {})
        check_same_space(provenance, space, f"the fit {fits[0].path}")
        space |= provenance
    pool = None
    if options.pool is not None:
        table = load_features(options.pool)
        check_same_space(table.provenance, space, "the first fit")
        pool = table.features
    prior = GroupPrior.fit(
        [fit.encoder for fit in fits],
        [_labels(fit) for fit in fits] if options.rois else None,
        X_pool=pool,
        n_components="auto" if options.components is None else options.components,
        provenance={**space, "people": [str(fit.config.get("subject", fit.path.name)) for fit in fits]},
    )
    prior.save(options.output)
    regions = f", regions {', '.join(prior.regions)}" if prior.regions else ""
    print(f"{prior}: {prior.summary['n_components']} kinds of voxel{regions} -> {options.output}")


def _labels(fit: FitDirectory) -> npt.NDArray[np.str_]:
    if not fit.rois:
        raise InputError(f"{fit.path} was fitted without regions: leave --rois out, or fit it again with --rois.")
    return label_voxels(fit.rois, fit.space.n_voxels)
