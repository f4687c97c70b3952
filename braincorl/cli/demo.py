"""`braincorl demo`: the whole road on simulated people, offline, in under a minute."""

import argparse
import time

from braincorl.analysis.demonstration import demonstrate
from braincorl.cli.common import add_output_options, add_verb, non_negative, positive, progress_bar


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "demo",
        "Simulate a person with a known truth, fit every encoder from few images, write maps and a report.",
    )
    parser.add_argument(
        "--n-draws", type=positive, default=5, metavar="N", help="random contexts per number of images (default: 5)"
    )
    parser.add_argument(
        "--random-state", type=non_negative, default=0, metavar="S", help="seed of the simulation (default: 0)"
    )
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Demonstrate, and print what came out."""
    start = time.perf_counter()
    with progress_bar("comparing encoders", "fit") as progress:
        shown = demonstrate(
            options.output_dir,
            n_draws=options.n_draws,
            random_state=options.random_state,
            overwrite=options.overwrite,
            outside=options.outside,
            progress=progress,
        )
    print(shown.note)
    print(shown.table().to_string(index=False))
    print(
        f"mean over {shown.n_voxels} voxels; ± spread over {options.n_draws} draws of context images\n"
        f"maps, inputs, figure and report.html in {options.output_dir} ({time.perf_counter() - start:.0f} s)"
    )
