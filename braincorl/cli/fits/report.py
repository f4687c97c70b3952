"""`braincorl report`: one self-contained HTML file on a fit, to look at, mail, or keep with a paper."""

import argparse
import time
from pathlib import Path

from braincorl.analysis.report.fit_report import ReportOptions, write_report
from braincorl.analysis.report.page import check_page
from braincorl.cli.common import FeaturesOption, add_verb, positive
from braincorl.errors import InputError
from braincorl.features.store.feature_files import load_spaces
from braincorl.fits import Fit


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "report",
        "Write one HTML file on a fit: accuracy, maps, regions, preferred images, methods, provenance and warnings. It "
        "needs no network and no other file.",
    )
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    parser.add_argument("--output", type=Path, metavar="FILE", help="HTML file to write (default: FIT_DIR/report.html)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report, and its figures")
    parser.add_argument(
        "--score",
        type=Path,
        metavar="SCORE_DIR",
        help="folder of braincorl score (default: FIT_DIR/scores, or else the fit's own scores of left-out images)",
    )
    parser.add_argument(
        "--benchmark",
        type=Path,
        metavar="BENCHMARK_DIR",
        help="folder of braincorl benchmark on the same person, to draw accuracy against the number of context images "
        "(default: FIT_DIR/benchmark, if it is there)",
    )
    parser.add_argument(
        "--identification",
        type=Path,
        metavar="IDENTIFY_DIR",
        help="folder of braincorl identify with this fit (default: FIT_DIR/identification, if it is there)",
    )
    parser.add_argument(
        "--features",
        action=FeaturesOption,
        metavar="[NAME=]FILE",
        help="features (n_images, n_features) of images to rank by predicted response, per region",
    )
    parser.add_argument("--image-ids", type=Path, metavar="TXT", help="image names of an .npy file, one per line")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="folder or HDF5 file with these images, to show them (needs --features)",
    )
    parser.add_argument(
        "--background",
        type=Path,
        metavar="NII",
        help="anatomy to draw slices on, in the space of the betas (default: nilearn's template for MNI space)",
    )
    parser.add_argument("--n-top", type=positive, default=8, metavar="N", help="images to show per region (default: 8)")
    parser.add_argument(
        "--space",
        choices=("auto", "mni", "native"),
        default="auto",
        help="mni also draws a glass brain and the cortical surface, inflated and flat (default: auto, by the maps' "
        "names)",
    )
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="also show the main map to click through (MNI space) or to turn (surfaces): the page then holds a script, "
        "and is .6 or 3.3 MB larger",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="also write every figure (PNG, 200 dpi) and table (TSV) into this folder; the page links to them",
    )
    parser.add_argument(
        "--methods",
        action="store_true",
        help="only print the methods paragraph with the numbers of this fit and what to cite, as plain text",
    )
    parser.add_argument(
        "--format",
        choices=("markdown", "latex", "bibtex"),
        help="with --methods: for Pandoc or LaTeX, both with the keys of the entries that bibtex prints",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Read the fit and write its report."""
    start = time.perf_counter()
    output = options.output or options.fit_dir / "report.html"
    fit = Fit.load(options.fit_dir)
    if options.score is not None and not options.score.is_dir():
        raise InputError(f"--score {options.score} is not a folder: pass the --output-dir of braincorl score.")
    fit.check_result(options.score or options.fit_dir / "scores")
    if options.methods:
        methods = fit.methods(options.score)
        print(getattr(methods, options.format)() if options.format else methods)
        return
    if options.format is not None:
        raise InputError(f"--format {options.format} is a way to print --methods: pass that, too.")
    check_page(output, overwrite=options.overwrite)
    if options.images is not None and options.features is None:
        raise InputError("--images needs --features: the images are shown in order of their predicted responses.")
    table = None if options.features is None else load_spaces(options.features, options.image_ids)
    in_mni = None if options.space == "auto" else options.space == "mni"
    chosen = ReportOptions(
        options.score,
        table,
        options.images,
        in_mni,
        options.n_top,
        options.benchmark,
        options.identification,
        options.background,
        options.interactive,
        options.command,
    )
    write_report(output, fit, chosen, figures=options.figures, overwrite=options.overwrite)
    size = output.stat().st_size / 1e6
    print(f"{fit.config['subject']}: report, {size:.1f} MB, {time.perf_counter() - start:.1f} s -> {output}")
