"""`braincorl-bids bids_dir output_dir {participant,group}`: `braincorl cohort` with the interface of a BIDS App.

References
----------
Gorgolewski et al., BIDS apps: improving ease of use, accessibility, and reproducibility of neuroimaging data analysis
methods, PLoS Computational Biology 13 (2017).
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from braincorl import __version__
from braincorl.cli.main import OneLineParser, run_program
from braincorl.errors import InputError

logger = logging.getLogger(__name__)

VALIDATORS = ("bids-validator-deno", "bids-validator")
FEATURES = ("features.npz", "features.h5", "features.safetensors")  # looked for in bids_dir/stimuli
SECONDS_TO_VALIDATE = 3600  # a tree of many people on a slow disk takes minutes; what takes longer hangs


def build_parser() -> argparse.ArgumentParser:
    """Parser of the app's options: those of every BIDS App, and those of `braincorl cohort`."""
    from braincorl.cli.people.cohort import add_fit_options, add_group_options, add_people_options, add_worker_options

    parser = OneLineParser(
        prog="braincorl-bids",
        description="Voxelwise encoders of visual cortex from single-trial betas in BIDS derivatives, as a BIDS App.",
        allow_abbrev=False,
    )
    parser.add_argument("people", type=Path, metavar="bids_dir", help="BIDS derivatives with *_stat-effect_*statmap")
    parser.add_argument("output_dir", type=Path, metavar="output_dir", help="BIDS derivatives to write, or go on with")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: a fit for each person; group: a memory, tables and a report of all fits in output_dir",
    )
    parser.add_argument("--version", action="version", version=f"braincorl-bids {__version__}")
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    parser.add_argument("--overwrite", action="store_true", help="fit again whoever is fitted already")
    parser.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="do not run bids-validator, where it is installed, over bids_dir first",
    )
    add_people_options(parser)
    add_fit_options(parser)
    add_group_options(parser)
    add_worker_options(parser)
    parser.set_defaults(run=run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app.

    Parameters
    ----------
    argv
        Arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 1 done for some people, 2 a mistake of the user's, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_program(arguments, "braincorl-bids", lambda: build_parser().parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Fit people, or make the group's products of those who are fitted."""
    from braincorl.cli.people.cohort import SOME_FAILED, fit_people, group_people, read_people

    if not options.people.is_dir():
        raise InputError(f"bids_dir {options.people} is not a folder.")
    if options.output_dir.resolve() == options.people.resolve():
        raise InputError("output_dir is bids_dir: choose a folder beside it, such as derivatives/braincorl.")
    if options.features is None:
        options.features = _find_features(options.people)
    if options.analysis_level == "group":
        return SOME_FAILED if group_people(options, read_people(options), {}).failed else 0
    if not options.skip_bids_validation:
        _validate(options.people)
    outcomes = fit_people(options, read_people(options))
    return SOME_FAILED if any(outcome.status == "failed" for outcome in outcomes) else 0


def _find_features(bids_dir: Path) -> Path:
    """Find the features of the stimuli in a dataset, where no option names them."""
    for name in FEATURES:
        if (bids_dir / "stimuli" / name).is_file():
            return bids_dir / "stimuli" / name
    raise InputError(f"{bids_dir / 'stimuli'} holds no {FEATURES[0]}: pass --features FILE, from braincorl embed.")


def _validate(bids_dir: Path) -> None:
    """Run the BIDS validator over a dataset, if there is one on this machine, and refuse one that has errors."""
    beside = [Path(sys.executable).parent / name for name in VALIDATORS]
    program = next((str(path) for path in beside if path.is_file()), None)
    program = program or next((found for name in VALIDATORS if (found := shutil.which(name))), None)
    if program is None:
        logger.info("no bids-validator is installed: %s is not validated", bids_dir)
        return
    try:
        command = [program, str(bids_dir), "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_TO_VALIDATE)
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        logger.warning("%s could not be validated (%s says %s)", bids_dir, Path(program).name, type(error).__name__)
        return
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        first = f"{errors[0].get('code')} at {errors[0].get('location', 'the dataset')}"
        raise InputError(
            f"{bids_dir} is not valid BIDS: {len(errors)} errors, the first {first}; mend them, list files beyond BIDS "
            "in .bidsignore, or pass --skip-bids-validation."
        )
    logger.info("%s is valid BIDS", bids_dir)


if __name__ == "__main__":
    sys.exit(main())
