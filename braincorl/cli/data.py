"""`braincorl data`: look at public data sets on disk."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.datasets.check import check_dataset
from braincorl.errors import InputError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb and what it can do."""
    parser = add_verb(subparsers, "data", "Public data sets as they lie on disk: check them.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = add_verb(
        actions,
        "check",
        "Say what of a data set is in a folder, what is missing, and what looks wrong (sizes, grids, scaling, counts\n"
        "of trials). Knows NSD, BOLD5000, Algonauts 2023, GLMsingle output and BIDS derivatives.\n"
        "Exit status 2 if a part is unusable.",
    )
    check.add_argument("root", type=Path, metavar="ROOT", help="folder that the data set was downloaded to")
    check.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> None:
    """Print what was found."""
    kind, findings = check_dataset(options.root)
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
