"""`braincorl data split`: the published split of a person's images, as two lists for `fit --context` and `score`."""

import argparse
from pathlib import Path

from braincorl.cli.common import add_verb
from braincorl.datasets.laion_fmri import SHARED, split_laion_fmri
from braincorl.datasets.mosaic import MosaicPerson, split_mosaic
from braincorl.datasets.splits import Split
from braincorl.datasets.trials.prepared import load_prepared
from braincorl.storage.result_folders import check_destination, staged_directory


def add_parser(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the action."""
    parser = add_verb(
        actions,
        "split",
        "Write the images to learn from and to test on, as a data set's authors published them: train.txt, for fit\n"
        "--context, and test.txt.",
    )
    parser.add_argument("dataset", choices=("laion-fmri", "mosaic"), metavar="DATASET", help="laion-fmri, mosaic")
    parser.add_argument(
        "person",
        type=Path,
        metavar="FILE",
        help="person of braincorl data prepare; for mosaic the data set's own file, sub-01_NSD.hdf5",
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result of braincorl")
    parser.add_argument(
        "--name", default="tau", metavar="SPLIT", help="tau, ood, cluster_k5_0 … 4, random_0 … 4 (default: tau)"
    )
    parser.add_argument(
        "--pool", default=SHARED, metavar="POOL", help=f"{SHARED}, or the person's own such as sub-01 (default: shared)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        metavar="KIND",
        help="of the split ood: kinds of test images, such as gabor (default: all)",
    )
    parser.add_argument(
        "--splits", type=Path, metavar="FOLDER", help="folder of split files (default: of the package laion_fmri)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write both lists at once."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="split")
    if options.dataset == "mosaic":
        label = options.person.name.split("_crc32-")[0].removesuffix(".hdf5")
        person = MosaicPerson.of_label(label)
        split, name = split_mosaic(options.person, person.dataset, person.number), person.label
    else:
        prepared = load_prepared(options.person)
        name = prepared.name
        split = split_laion_fmri(prepared, options.name, pool=options.pool, kinds=options.kinds, splits=options.splits)
    _write(split, options.output_dir, options.overwrite)
    print(f"{name}: {split.own.size} images to learn from, {split.test.size} to test on -> {options.output_dir}")


def _write(split: Split, folder: Path, overwrite: bool) -> None:
    with staged_directory(folder, overwrite=overwrite, kind="split") as staged:
        for name, images in (("train.txt", split.own), ("test.txt", split.test)):
            (staged / name).write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
