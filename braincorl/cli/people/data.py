"""`braincorl data`: fetch public data sets, check them on disk, and prepare people of them."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.cli.people import data_fetch, data_prepare, data_split
from braincorl.datasets.check import KINDS, check_dataset
from braincorl.errors import InputError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb and what it can do."""
    parser = add_verb(
        subparsers, "data", "Public data sets: fetch them, check them on disk, and prepare people of them."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    data_fetch.add_parser(actions)
    data_split.add_parser(actions)
    check = add_verb(
        actions,
        "check",
        "Say what of a data set is in a folder, what is missing, and what looks wrong (sizes, grids, scaling, counts\n"
        "of trials, checksums of compressed images). Exit status 2 if a part is unusable.\n"
        f"Knows {', '.join(KINDS)}.",
    )
    check.add_argument("root", type=Path, metavar="ROOT", help="folder that the data set was downloaded to")
    check.add_argument(
        "--quick",
        action="store_true",
        help="do not read compressed images through: faster, but damage inside them goes unseen",
    )
    check.set_defaults(run=_run_check)
    data_prepare.add_parser(actions)


def _run_check(options: argparse.Namespace) -> None:
    """Print what was found."""
    kind, findings = check_dataset(options.root, quick=options.quick)
    print(f"{kind} in {options.root}")
    for finding in findings:
        if finding.level != "ok" or not options.quiet:
            print(f"{finding.level:<8} {' '.join(finding.text.split())}")
    wrong = sum(finding.level == "wrong" for finding in findings)
    if wrong:
        raise InputError(
            f"{wrong} of {len(findings)} findings make a part unusable: see the lines that begin with 'wrong'."
        )
    if not any(finding.level == "ok" for finding in findings):
        raise InputError(f"{options.root} holds nothing that can be read.")
