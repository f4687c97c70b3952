"""`braincorl data prepare`: a person of a data set, read once into one file."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braincorl.cli.common import add_verb, parse_numbers, progress_bar
from braincorl.datasets import Recording, load_prepared, prepare
from braincorl.datasets.algonauts import open_algonauts2023
from braincorl.datasets.bids import open_bids
from braincorl.datasets.bold5000 import open_bold5000
from braincorl.datasets.laion_fmri import open_laion_fmri
from braincorl.datasets.mosaic import MosaicPerson, open_mosaic
from braincorl.datasets.nsd.person import open_nsd
from braincorl.errors import InputError


def _open_mosaic(root: Path, label: str, **options: Any) -> Recording:
    person = MosaicPerson.of_label(label)
    return open_mosaic(root, person.dataset, person.number, **options)


LABELLED = ("bids", "mosaic")  # whose people are not numbers
# Data set -> how to open a person, and which of the options it knows.
OPENERS: dict[str, tuple[Callable[..., Recording], tuple[str, ...]]] = {
    "nsd": (open_nsd, ("voxels", "sessions", "min_ceiling", "zscore", "space", "preparation")),
    "bold5000": (open_bold5000, ("voxels", "sessions", "zscore", "preparation")),
    "algonauts2023": (open_algonauts2023, ("voxels",)),
    "laion-fmri": (open_laion_fmri, ("voxels", "sessions", "min_ceiling", "zscore")),
    "mosaic": (_open_mosaic, ("voxels", "template")),
    "bids": (open_bids, ("zscore", "task", "space", "desc", "mask", "ncsnr")),
}
CHOICES = tuple(dict.fromkeys(option for _, known in OPENERS.values() for option in known))


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the action."""
    parser = add_verb(
        actions,
        "prepare",
        "Read a person of a data set once, session by session, into one HDF5 file, which fit and score take as\n"
        "--betas. A run that was stopped goes on when it is given again; a file that is up to date is kept.",
    )
    parser.add_argument("dataset", choices=tuple(OPENERS), metavar="DATASET", help=", ".join(OPENERS))
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder that the data set was downloaded to")
    parser.add_argument("--subject", required=True, metavar="N", help="number, BIDS label, or sub-01_NSD (mosaic)")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".h5 file to write")
    parser.add_argument(
        "--voxels",
        nargs="+",
        metavar="NAME",
        help="regions to keep (default: higher-visual for nsd, brain for bold5000, all for algonauts2023, the mask for "
        "laion-fmri and bids, visual for mosaic); nsd knows functional, cortex and all, too, laion-fmri all, mosaic "
        "cortex and all",
    )
    parser.add_argument(
        "--sessions", metavar="LIST", help="such as 1-10 or 1,2,5 (nsd, bold5000, laion-fmri; default: all)"
    )
    parser.add_argument(
        "--min-ceiling",
        type=float,
        metavar="NC",
        help="least noise ceiling of R²: for means of three trials (nsd), of four (laion-fmri)",
    )
    parser.add_argument(
        "--zscore",
        choices=("none", "session"),
        help="scaling (default: session for nsd, bold5000 and laion-fmri, none for bids; algonauts2023 is scaled)",
    )
    parser.add_argument("--task", metavar="LABEL", help="which betas, where there are several (bids)")
    parser.add_argument(
        "--space", metavar="LABEL", help="which betas, where there are several (bids; func1pt8mm, func1mm for nsd)"
    )
    parser.add_argument("--desc", metavar="LABEL", help="which betas, where there are several (bids)")
    parser.add_argument("--preparation", metavar="NAME", help="which betas (nsd: name of their folder; bold5000)")
    parser.add_argument("--mask", type=Path, metavar="NII", help="mask, where there are several (bids)")
    parser.add_argument(
        "--ncsnr", type=Path, metavar="NII", help="map of noise ceiling SNR, where there are several (bids)"
    )
    parser.add_argument(
        "--template",
        type=Path,
        metavar="NII",
        help="CIFTI file over all 91,282 grayordinates, for places below the cortex (mosaic with --voxels all)",
    )
    parser.add_argument("--half", action="store_true", help="store responses as float16: half the size")
    parser.set_defaults(
        run=run,
        interrupted="what was read, if anything, is in FILE.parts: the same command goes on from there.",
    )


def run(options: argparse.Namespace) -> None:
    """Prepare one person."""
    open_, known = OPENERS[options.dataset]
    given = {name: getattr(options, name) for name in CHOICES}
    unknown = [name for name, value in given.items() if value is not None and name not in known]
    if unknown:
        raise InputError(f"{options.dataset} knows no --{unknown[0].replace('_', '-')}: leave it out.")
    if given["sessions"] is not None:
        given["sessions"] = parse_numbers(given["sessions"])
    if given["voxels"] is not None and len(given["voxels"]) == 1:
        given["voxels"] = given["voxels"][0]
    subject = options.subject if options.dataset in LABELLED else _one_number(options.subject)
    recording = open_(options.root, subject, **{name: value for name, value in given.items() if value is not None})
    with progress_bar("preparing") as progress:
        prepare(recording, options.output, dtype="float16" if options.half else "float32", progress=progress)
    # One image and all voxels: what was made, without reading all of it again.
    made = load_prepared(options.output, images=recording.image_ids()[:1])
    print(
        f"{made.name}: {recording.image_ids().size} images, {recording.n_trials} trials, {made.n_voxels} voxels, "
        f"{len(made.rois)} regions, {'z-scored within sessions' if recording.zscore else 'not z-scored'} -> "
        f"{options.output}"
    )


def _one_number(text: str) -> int:
    numbers = parse_numbers(text)
    if len(numbers) != 1:
        raise InputError(f"--subject names {len(numbers)} subjects, but a file holds one: prepare them one by one.")
    return numbers[0]
