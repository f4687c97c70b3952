"""`braincorl embed`: images, or words, to a feature file."""

import argparse
from pathlib import Path

import numpy as np

from braincorl.cli.common import add_verb, positive, precision, progress_bar
from braincorl.errors import InputError
from braincorl.features import PRESETS, ImageEmbedder, save_features
from braincorl.features.backbones.network import PRECISIONS
from braincorl.features.backbones.prompts import TEMPLATES
from braincorl.features.images.image_sources import DEFAULT_DATASET
from braincorl.features.store.feature_files import check_ending, read_names
from braincorl.storage.files import check_new_file

BACKBONES = """backbones:
  gabor                        local orientation and frequency (2,728 features); needs no weights; early visual cortex
{presets}
  open_clip:ARCHITECTURE/TAG   any network of open_clip, as in open_clip:ViT-L-14/openai
  timm:NAME.TAG                any network of timm, as in timm:vit_small_patch14_dinov2.lvd142m

Weights are looked for in --weights, then in the download caches, then downloaded (not with --offline). An interrupted
run goes on from OUTPUT.partial when the same command is given again."""

NORMALIZE: dict[str, bool | str] = {"auto": "auto", "yes": True, "no": False}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(
        subparsers, "embed", "Turn images, or words, into features (n_images, n_features), float32, with provenance."
    )
    parser.epilog = BACKBONES.format(presets="\n".join(f"  {name:<28} {p.about}" for name, p in PRESETS.items()))
    parser.add_argument(
        "images",
        nargs="*",
        type=Path,
        metavar="IMAGES",
        help="image files, folders (with their subfolders), or one HDF5 file of images (n, height, width, 3), uint8",
    )
    parser.add_argument("--backbone", required=True, metavar="NAME", help="which network; see below")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help=".npz, .h5 or .safetensors to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    _add_input_options(parser)
    _add_text_options(parser)
    _add_network_options(parser)
    parser.set_defaults(
        run=run,
        rest="images",
        rest_type=Path,
        interrupted="what is done, if anything, is in OUTPUT.partial: the same command goes on from there.",
    )


def run(options: argparse.Namespace) -> None:
    """Embed images or texts and write the features."""
    texts = [*(options.text or []), *(read_names(options.text_file) if options.text_file else [])]
    if bool(texts) == bool(options.images):
        raise InputError("pass either images or --text, one of them: they are different rows of features.")
    if not texts and options.template:
        raise InputError("--template applies to --text: leave it out for images.")
    check_ending(options.output)
    check_new_file(options.output, options.overwrite)
    embedder = ImageEmbedder(
        options.backbone,
        weights=options.weights,
        layer=options.layer,
        pooling=options.pooling,
        normalize=NORMALIZE[options.normalize],
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        background=options.background,
        offline=True if options.offline else None,
    )
    if texts:
        table = embedder.embed_text(texts, options.template or "plain")
        save_features(options.output, table)
        print(f"{len(texts)} texts, {table.n_features} features -> {options.output}")
        return
    rows = None if options.rows is None else _read_rows(options.rows)
    with progress_bar("embedding", "image") as progress:
        table = embedder.embed(
            options.images,
            None if options.image_ids is None else read_names(options.image_ids),
            output=options.output,
            dataset=options.dataset,
            rows=rows,
            skip_unreadable=options.skip_unreadable,
            restart=options.restart,
            progress=progress,
        )
    print(f"{len(table.image_ids)} images, {table.n_features} features -> {options.output}")


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("images")
    group.add_argument(
        "--image-ids", type=Path, metavar="TXT", help="names, one per line (default: file names or rows)"
    )
    group.add_argument(
        "--dataset", default=DEFAULT_DATASET, metavar="NAME", help=f"of an HDF5 file (default: {DEFAULT_DATASET})"
    )
    group.add_argument("--rows", type=Path, metavar="TXT", help="0-based rows of an HDF5 file, one per line")
    group.add_argument(
        "--background", default="white", metavar="COLOUR", help="behind transparent pixels: name or #rrggbb (white)"
    )
    group.add_argument("--skip-unreadable", action="store_true", help="leave out images that cannot be read")
    group.add_argument("--restart", action="store_true", help="throw away what an interrupted run has done")


def _add_text_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("words (CLIP-like backbones)")
    group.add_argument("--text", nargs="+", metavar="TEXT", help="texts to embed in place of images")
    group.add_argument("--text-file", type=Path, metavar="TXT", help="texts to embed, one per line")
    group.add_argument(
        "--template",
        action="append",
        metavar="TEMPLATE",
        help=f"sentence with {{}} for the text, or {', '.join(TEMPLATES)} (default: plain); several are averaged",
    )


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    plain = ["gabor", *(name for name, preset in PRESETS.items() if not preset.unit_norm)]
    group = parser.add_argument_group("network")
    group.add_argument(
        "--weights", metavar="FILE", help="local weights (.safetensors, .pt, .pth, .bin), or random:SEED to try things"
    )
    group.add_argument("--layer", metavar="NAME", help="layer to read, as in blocks.6 (default: final features)")
    group.add_argument(
        "--pooling", default="auto", metavar="HOW", help="auto, cls, mean or flatten: tokens to one vector (auto)"
    )
    group.add_argument(
        "--normalize",
        choices=NORMALIZE,
        default="auto",
        help=f"features of unit length (auto: yes, but for {' and '.join(plain)})",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 … (auto: a GPU if there is one)")
    group.add_argument(
        "--precision",
        type=precision,
        choices=PRECISIONS,
        default="auto",
        help="auto is bfloat16 where the hardware multiplies it",
    )
    group.add_argument(
        "--batch-size", type=_batch_size, default="auto", metavar="N", help="images at a time (auto: by free memory)"
    )
    group.add_argument("--offline", action="store_true", help="never download weights")


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def _read_rows(path: Path) -> list[int]:
    names = read_names(path)
    try:
        return np.array(names).astype(np.int64).tolist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} must hold one 0-based row number per line: {error}.") from error
