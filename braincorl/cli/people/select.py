"""`braincorl select`: which images to show the next person."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_features_options, add_verb
from braincorl.features import check_same_space
from braincorl.features.store.feature_files import load_spaces
from braincorl.priors import GroupPrior
from braincorl.priors.image_selection import select_images
from braincorl.storage.files import atomic_file, check_new_file


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "select", "Choose the images that tell most about a new person, given a group prior.")
    add_features_options(parser)
    parser.add_argument("--n", type=int, required=True, metavar="N", help="number of images to choose")
    parser.add_argument("--prior", required=True, metavar="FILE", help="a file of braincorl prior, or a shipped name")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="TXT", help="list to write, one image name per line, best first"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Choose, and write the list at once."""
    check_new_file(options.output, options.overwrite)
    prior = GroupPrior.load(options.prior)
    table = load_spaces(options.features, options.image_ids)
    check_same_space(table.provenance, prior.provenance, "the prior")
    chosen = select_images(table.features, options.n, prior)
    with atomic_file(options.output) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in table.image_ids[chosen]), encoding="utf-8")
    print(f"{chosen.size} of {table.image_ids.size} images -> {options.output}")
