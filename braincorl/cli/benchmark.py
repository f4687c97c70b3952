"""`braincorl benchmark`: accuracy and speed of every encoder side by side, on simulated people or on one's own."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from braincorl.analysis.benchmarking import COUNTS, Benchmark, benchmark_person, benchmark_simulation
from braincorl.cli.common import (
    add_data_options,
    add_encoder_options,
    add_output_options,
    add_person_options,
    add_verb,
    make_encoder,
    non_negative,
    positive,
    progress_bar,
    read_responses,
)
from braincorl.encoders import LinearEncoder
from braincorl.encoders.choice import ENCODERS, NETWORK_ENCODER, PRIOR_ENCODER
from braincorl.errors import InputError
from braincorl.features.store.feature_files import load_spaces
from braincorl.storage.result_folders import check_destination


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "benchmark",
        "Compare encoders by accuracy (EV, r) and time at growing numbers of images.\n"
        "With no data, on simulated people, offline; with --features, --betas and --trials, on a person of yours.",
    )
    add_data_options(parser, required=False)
    add_person_options(parser)
    add_encoder_options(parser)
    parser.add_argument(
        "--encoders",
        nargs="+",
        choices=(*ENCODERS, PRIOR_ENCODER),
        metavar="NAME",
        help=f"what to compare: {', '.join((*ENCODERS, PRIOR_ENCODER))} (default: all that the other options allow)",
    )
    parser.add_argument(
        "--counts",
        type=positive,
        nargs="+",
        metavar="N",
        help=f"numbers of context images (default: {', '.join(map(str, COUNTS))} and all)",
    )
    parser.add_argument("--n-draws", type=positive, default=5, metavar="N", help="random contexts each (default: 5)")
    parser.add_argument(
        "--test",
        type=Path,
        metavar="TXT",
        help="images to score on, one name per line (default: those shown more than once if others were not, else a "
        "random quarter)",
    )
    parser.add_argument("--random-state", type=non_negative, default=0, metavar="S", help="seed (default: 0)")
    add_output_options(parser, required=False, default="none, the table is only printed")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Compare, print, and write table and figure at once."""
    if options.output_dir is not None:
        check_destination(options.output_dir, overwrite=options.overwrite, kind="benchmark")
    found = _on_person(options) if _has_data(options) else _on_simulation(options)
    print(found.note)
    for table in found.tables().values():
        print(table.to_string(index=False))
    ceiling = "" if found.ceiling is None else f"; mean noise ceiling of EV {found.ceiling:.3f}"
    print(f"means over {found.n_voxels} voxels, ± spread over {options.n_draws} draws of context images{ceiling}")
    if options.output_dir is not None:
        found.save(options.output_dir, overwrite=options.overwrite)
        print(f"tables and figure in {options.output_dir}")


def _on_person(options: argparse.Namespace) -> Benchmark:
    table = load_spaces(options.features, options.image_ids)
    subject = read_responses(options, table, options.mask, options.zscore, options.rois)
    names = options.encoders or [*ENCODERS, *([PRIOR_ENCODER] if options.prior is not None else [])]
    with progress_bar("comparing encoders", "fit") as progress:
        return benchmark_person(
            subject,
            table,
            _makers(names, options),
            test=options.test,
            counts=options.counts,
            n_draws=options.n_draws,
            random_state=options.random_state,
            notes=_inputs(options),
            progress=progress,
        )


def _on_simulation(options: argparse.Namespace) -> Benchmark:
    names = options.encoders or [*ENCODERS, PRIOR_ENCODER]
    learns = PRIOR_ENCODER in names and options.prior is None
    with progress_bar("comparing encoders", "fit") as progress:
        return benchmark_simulation(
            _makers([name for name in names if not (learns and name == PRIOR_ENCODER)], options),
            counts=options.counts,
            n_draws=options.n_draws,
            random_state=options.random_state,
            learn_prior=learns,
            notes=_inputs(options),
            progress=progress,
        )


def _inputs(options: argparse.Namespace) -> dict[str, Any]:
    """Files and options that another run needs to find the same."""
    names = (
        "features",
        "image_ids",
        "betas",
        "trials",
        "mask",
        "rois",
        "ncsnr",
        "zscore",
        "prior",
        "checkpoint",
        "test",
    )
    return {name: getattr(options, name) for name in names}


def _has_data(options: argparse.Namespace) -> bool:
    """Whether a person was given; half of one is a mistake."""
    if options.features is None and options.betas is None:
        given = {"--trials": options.trials, "--mask": options.mask, "--rois": options.rois, "--test": options.test}
        extra = [name for name, value in given.items() if value]
        if extra:
            raise InputError(
                f"{extra[0]} belongs to a person's data: pass --features and --betas too, or none of them."
            )
        return False
    if options.features is None or options.betas is None:
        raise InputError("--features and --betas belong together: pass both, or neither for simulated people.")
    return True


def _makers(names: list[str], options: argparse.Namespace) -> dict[str, Callable[[], LinearEncoder]]:
    return {name: partial(_make, name, options) for name in names}


def _make(name: str, options: argparse.Namespace) -> LinearEncoder:
    """Make one of the encoders, with the options that are its own."""
    own = dict(vars(options), encoder=name)
    if name != PRIOR_ENCODER:
        own["prior"] = None
    if name != NETWORK_ENCODER:
        own |= dict.fromkeys(("checkpoint", "device", "precision"))
    return make_encoder(argparse.Namespace(**own))
