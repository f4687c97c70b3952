"""`braincorl train`: meta-train a published network after a recipe, and go on after a kill."""

import argparse
import os
import time
from pathlib import Path

from braincorl.cli.common import add_verb, non_negative, precision, progress_bar


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "train",
        "Meta-train a network of the published architecture on synthetic and real people. Run again to go on after an "
        "interruption; start with torchrun to use several processes.",
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.toml", help="sizes, stages (see encoders/published/)")
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="for checkpoint, log and state (default: the recipe's name)"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, … (default: auto)")
    parser.add_argument(
        "--precision",
        type=precision,
        choices=("float32", "bfloat16"),
        default="float32",
        help="of matrix products (default: float32)",
    )
    parser.add_argument(
        "--workers", type=non_negative, default=1, metavar="N", help="processes that draw episodes (default: 1)"
    )
    parser.set_defaults(run=run, interrupted="what was saved is kept: the same command goes on from there.")


def run(options: argparse.Namespace) -> None:
    """Train, or go on."""
    from braincorl.training.loop import train  # PyTorch takes seconds to import
    from braincorl.training.recipe import read_recipe

    recipe = read_recipe(options.recipe)
    folder = options.output_dir or options.recipe.with_suffix("")
    start = time.perf_counter()
    with progress_bar("training", "step") as progress:
        checkpoint = train(
            recipe,
            folder,
            device=options.device,
            precision=options.precision,
            n_workers=options.workers,
            progress=progress,
        )
    if os.environ.get("RANK", "0") == "0":
        print(f"network trained in {time.perf_counter() - start:.0f} s -> {checkpoint}")
