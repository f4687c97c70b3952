"""`braincorl data fetch`: the files of a public data set that a person needs, downloaded."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from braincorl.cli.common import add_verb, parse_numbers, positive, progress_bar
from braincorl.datasets.download.downloads import Downloads
from braincorl.datasets.download.public_fetch import LAION_TERMS, MOSAIC_TERMS, plan_laion_fmri, plan_mosaic
from braincorl.datasets.nsd.fetching import CONTAINERS, TERMS, NsdSelection, plan_nsd
from braincorl.datasets.nsd.layout import PREPARATION, SPACES
from braincorl.errors import InputError

# Data sets with doors of their own, and where these are.
BY_HAND = {
    "bold5000": "get the betas of release 2.0 from figshare (10.1184/R1/14456124) and the region masks from OpenNeuro "
    "ds001499 (derivatives/spm), into one folder",
    "algonauts2023": "fill in the form on https://algonautsproject.com/2023, whose answer links to the archives, and "
    "unpack subj01 to subj08 into one folder",
}


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the action."""
    parser = add_verb(
        actions,
        "fetch",
        "Download just the files that a person needs, after showing the data set's terms and asking for consent.\n"
        "A download that was stopped goes on when the command is given again; what is complete is left alone.\n"
        "nsd, laion-fmri, mosaic come from public buckets (pip install braincorl[fetch]); for others, says where\n"
        "to get them.",
    )
    known = (*DATA_SETS, *BY_HAND)
    parser.add_argument("dataset", choices=known, metavar="DATASET", help=", ".join(known))
    parser.add_argument("--subject", metavar="LIST", help="subjects, such as 1 or 1,2,5,7; sub-01_NSD (mosaic)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder to mirror the bucket in")
    parser.add_argument("--sessions", metavar="LIST", help="such as 1-10 or 1,2,5 (default: all)")
    parser.add_argument("--space", choices=SPACES, help=f"grid of the betas (nsd; default: {SPACES[0]})")
    parser.add_argument("--preparation", metavar="NAME", help=f"betas (nsd; default: {PREPARATION})")
    parser.add_argument(
        "--container",
        choices=CONTAINERS,
        help=".nii.gz is smaller, .hdf5 is read faster (nsd; default: .nii.gz)",
    )
    parser.add_argument("--images", action="store_true", help="the 73,000 images, too (nsd; 37 GB)")
    parser.add_argument("--accept-terms", action="store_true", help="say yes to the data set's terms, for scripts")
    parser.add_argument("--dry-run", action="store_true", help="list files and bytes, and download nothing")
    parser.add_argument("--parallel", type=positive, default=4, metavar="N", help="files at a time (default: 4)")
    parser.add_argument("--endpoint-url", metavar="URL", help="another server that speaks S3, such as a mirror")
    parser.set_defaults(run=run, interrupted="what has arrived is kept: the same command goes on from there.")


def run(options: argparse.Namespace) -> None:
    """Ask, then download."""
    if options.dataset in BY_HAND:
        raise InputError(f"{options.dataset} is not downloaded by braincorl: {BY_HAND[options.dataset]}.")
    if options.subject is None or options.output is None:
        raise InputError("the following arguments are required: --subject, --output")
    if options.dataset == "nsd":
        _nsd_selection(options)  # a mistake in it is told before terms are asked
    else:
        _refuse_nsd_options(options)
    plan, terms, question = DATA_SETS[options.dataset]
    if not options.dry_run:
        _ask(terms, question, options.accept_terms)
    downloads = plan(options)
    if options.dry_run:
        _list(downloads)
        return
    with progress_bar("downloading", "MB") as progress:
        downloads.run(
            parallel=options.parallel, progress=lambda done, total: progress(done // 10**6, -(-total // 10**6))
        )
    print(
        f"{len(downloads.transfers)} files, {_size(downloads.n_bytes)}, of which {_size(downloads.n_bytes_there)} were "
        f"there before -> {options.output}\nnext: braincorl data check {options.output}"
    )


def _refuse_nsd_options(options: argparse.Namespace) -> None:
    for name in ("space", "preparation", "container", "images"):
        if getattr(options, name):
            raise InputError(f"{options.dataset} knows no --{name}: leave it out.")


def _plan_nsd(options: argparse.Namespace) -> Downloads:
    return plan_nsd(
        options.output, _nsd_selection(options), parallel=options.parallel, endpoint_url=options.endpoint_url
    )


def _nsd_selection(options: argparse.Namespace) -> NsdSelection:
    return NsdSelection(
        tuple(parse_numbers(options.subject)),
        None if options.sessions is None else tuple(parse_numbers(options.sessions)),
        options.space or SPACES[0],
        options.preparation or PREPARATION,
        options.container or CONTAINERS[0],
        options.images,
    )


def _plan_laion_fmri(options: argparse.Namespace) -> Downloads:
    return plan_laion_fmri(
        options.output,
        parse_numbers(options.subject),
        None if options.sessions is None else parse_numbers(options.sessions),
        parallel=options.parallel,
        endpoint_url=options.endpoint_url,
    )


def _plan_mosaic(options: argparse.Namespace) -> Downloads:
    if options.sessions is not None:
        raise InputError("mosaic knows no --sessions: leave it out.")
    people = [label.strip() for label in options.subject.split(",")]
    return plan_mosaic(options.output, people, parallel=options.parallel, endpoint_url=options.endpoint_url)


# Data set -> how its files are looked up, its terms, and what is asked after them.
DATA_SETS: dict[str, tuple[Callable[[argparse.Namespace], Downloads], str, str]] = {
    "nsd": (_plan_nsd, TERMS, "Have you handed in the form, and do you accept these terms?"),
    "laion-fmri": (_plan_laion_fmri, LAION_TERMS, "Do you accept these terms?"),
    "mosaic": (_plan_mosaic, MOSAIC_TERMS, "Do you accept these terms?"),
}


def _ask(terms: str, question: str, accepted: bool) -> None:
    """Show the terms, and go on only with consent."""
    print(terms, flush=True)
    if accepted:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody is here to accept these terms: read them, and pass --accept-terms if you accept them.")
    print(f"{question} [yes/no] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InputError("without consent to the terms nothing is downloaded.")


def _list(downloads: Downloads) -> None:
    """Show what a run would download."""
    for transfer in downloads.transfers:
        state = transfer.state if transfer.state != "partial" else f"{transfer.have:,} there"
        print(f"{transfer.file.size:>15,}  {state:<10}  {transfer.file.key}")
    left = downloads.n_bytes - downloads.n_bytes_there
    print(f"{len(downloads.transfers)} files, {_size(downloads.n_bytes)}; {_size(left)} to download")


def _size(n_bytes: int) -> str:
    """Bytes in a unit that is easy to read."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 10**9 else f"{n_bytes / 1e6:.2f} MB"
