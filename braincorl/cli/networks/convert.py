"""`braincorl convert`: the authors' checkpoint to a file that is safe to read, checked, and describes itself."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.storage.files import check_new_file


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers,
        "convert",
        "Convert the authors' checkpoint of the published network, in either of its two shapes, to a checked "
        "safetensors file. The network reads features (n_images, n_features) of length 1 and z-scored responses, "
        "and writes weights and an intercept for every voxel.",
    )
    parser.add_argument("reference", type=Path, metavar="REFERENCE.pth", help="state dict or Lightning checkpoint")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE.safetensors", help="file to write; must not exist yet"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace that file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Convert and say what it was."""
    check_new_file(options.output, options.overwrite)
    from braincorl.checkpoint import convert_reference_checkpoint  # PyTorch takes seconds to import

    header = convert_reference_checkpoint(options.reference, options.output)
    config = header["config"]
    print(
        f"{options.reference.name}: published network for {header['backbone']} features ({config['n_features']}), "
        f"{config['n_layers']} layers of width {config['width']} -> {options.output}"
    )
