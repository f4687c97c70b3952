"""What several verbs share: options, progress, and the choice of encoder."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from braincorl.datasets import Grid, SubjectData, Surface, load_subject
from braincorl.datasets.subject import ZScore
from braincorl.encoders import LinearEncoder
from braincorl.encoders import choice as encoders
from braincorl.encoders.choice import ENCODERS, NETWORK_ENCODER, PRIOR_ENCODER, SPACES_ENCODER
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.progress import progress_bar as progress_bar
from braincorl.validation import PRECISIONS, SHORT

logger = logging.getLogger(__name__)

MOST_NUMBERS = 10_000  # of subjects or sessions


def add_verb(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help_: str
) -> argparse.ArgumentParser:
    """Add a verb's parser with the options that every verb has."""
    parser = subparsers.add_parser(
        name, help=help_, description=help_, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quiet", action="store_true", help="show errors only")
    return parser


def non_negative(text: str) -> int:
    """Read an option's whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"invalid value: {text!r}, expected a whole number of at least 0")
    return int(text)


def positive(text: str) -> int:
    """Read an option's whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"invalid value: {text!r}, expected a whole number of at least 1")
    return int(text)


def precision(text: str) -> str:
    """Read an option's precision; its choices say which there are."""
    return SHORT.get(text, text)


def parse_numbers(text: str) -> list[int]:
    """Numbers of a list such as "1-3,7"."""
    numbers: list[int] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        if not all(end.isdecimal() and len(end) < 20 for end in ends) or len(ends) > 2:
            raise InputError(f"'{text}' is no list of numbers: write them as in 1-10 or 1,2,5.")
        first, last = int(ends[0]), int(ends[-1])
        if last - first > MOST_NUMBERS:
            raise InputError(f"'{text}' lists more than {MOST_NUMBERS} numbers: is there a digit too many?")
        numbers.extend(range(first, last + 1))
    if not numbers:
        raise InputError(f"'{text}' is an empty list of numbers.")
    return numbers


def subject_label(text: str) -> str:
    """Read an option's BIDS label of a person, with or without `sub-`."""
    label = text.removeprefix("sub-")
    if not (label.isascii() and label.isalnum()):
        raise argparse.ArgumentTypeError(f"invalid value: {text!r}, expected letters and digits, as in sub-01")
    return f"sub-{label}"


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add `--encoder`, and the options of the encoder that is a network."""
    parser.add_argument(
        "--encoder",
        choices=(*ENCODERS, PRIOR_ENCODER, SPACES_ENCODER),
        help="in-context is the network that comes with braincorl, or another with --checkpoint; group-prior needs "
        "--prior; banded-ridge tells several feature spaces apart (default: in-context, or banded-ridge for several)",
    )
    parser.add_argument(
        "--prior",
        metavar="FILE",
        help="group-prior, in-context and banded-ridge: a file of braincorl prior, a shipped name (bold5000-resnet18), "
        "or hub:OWNER/NAME on the Hugging Face Hub",
    )
    network = parser.add_argument_group(f"options of --encoder {NETWORK_ENCODER}")
    network.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="another network: the authors' file, one of braincorl convert or train, or hub:OWNER/NAME (default: the "
        "one shipped)",
    )
    network.add_argument("--device", metavar="NAME", help="auto (a GPU if there is one), cpu, cuda, … (default: auto)")
    network.add_argument(
        "--precision",
        type=precision,
        choices=PRECISIONS,
        help="float32 or float64: of all arithmetic; bfloat16: of the large products of a published network; auto: "
        "that, for such a network, where the device multiplies it natively, else float32 (default: auto)",
    )


def make_encoder(options: argparse.Namespace) -> LinearEncoder:
    """Make the encoder that the options choose, not fitted yet."""
    several = isinstance(options.features, dict)
    options.encoder = options.encoder or (SPACES_ENCODER if several else NETWORK_ENCODER)
    if several and options.encoder != SPACES_ENCODER:
        logger.warning("%s reads several feature spaces as one; %s tells them apart", options.encoder, SPACES_ENCODER)
    if options.encoder == PRIOR_ENCODER and options.prior is None:
        raise InputError(f"--encoder {PRIOR_ENCODER} needs --prior: a file of braincorl prior, or a shipped name.")
    if options.prior is not None and options.encoder not in (PRIOR_ENCODER, NETWORK_ENCODER, SPACES_ENCODER):
        raise InputError(
            f"--prior is an option of --encoder {PRIOR_ENCODER}, {NETWORK_ENCODER} and {SPACES_ENCODER}, but it is "
            f"{options.encoder}: choose one of them, or leave the option out."
        )
    network = {name: getattr(options, name) for name in ("checkpoint", "device", "precision")}
    given = {name: value for name, value in network.items() if value is not None}
    if given and options.encoder != NETWORK_ENCODER:
        raise InputError(
            f"--{next(iter(given))} is an option of --encoder {NETWORK_ENCODER}, but the encoder is "
            f"{options.encoder}: pass --encoder {NETWORK_ENCODER}, or leave the option out."
        )
    return encoders.make_encoder(options.encoder, options.prior, **given)


class FeaturesOption(argparse.Action):
    """A feature file, or one NAME=FILE for each of several feature spaces."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        """Add a file; several need names."""
        before = getattr(namespace, self.dest, None)
        name, equals, file = str(values).partition("=")
        named = bool(equals) and re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None and not Path(values).exists()
        if named and not isinstance(before, Path):
            if name in (before or {}):
                parser.error(f"argument {option}: '{name}' is given twice: name every feature space once")
            setattr(namespace, self.dest, {**(before or {}), name: Path(file)})
        elif before is None:
            setattr(namespace, self.dest, Path(values))
        else:
            parser.error(f"argument {option}: several feature spaces need a name each: {option} NAME=FILE")


def add_features_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add `--features` and `--image-ids`."""
    parser.add_argument(
        "--features",
        action=FeaturesOption,
        required=required,
        metavar="[NAME=]FILE",
        help="features (n_images, n_features) with image_ids: .npz, .h5, .safetensors, or .npy with --image-ids; for "
        "several feature spaces give the option once for each, as in --features clip=clip.npz --features gabor=g.npz",
    )
    parser.add_argument("--image-ids", type=Path, metavar="TXT", help="image names of an .npy file, one per line")


def add_data_options(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add the options that say where a person's responses are."""
    add_features_options(parser, required=required)
    parser.add_argument(
        "--betas",
        type=Path,
        nargs="+",
        required=required,
        metavar="NII",
        help="4-D NIfTI images (X, Y, Z, trials), in any unit; CIFTI (.dtseries.nii, .dscalar.nii); .func.gii, .mgh or "
        ".mgz of both hemispheres; GLMsingle's .hdf5, .npy, .mat; .npy (n_trials, n_voxels) without a mask; or one "
        "file of braincorl data prepare, which needs nothing else",
    )
    parser.add_argument(
        "--trials",
        type=Path,
        nargs="+",
        default=[],
        metavar="TSV",
        help="one row per volume, columns 'image' and (optional) 'session': a table per betas file, or one for all",
    )
    parser.add_argument(
        "--ncsnr",
        type=Path,
        nargs="+",
        metavar="NII",
        help="3-D map of noise ceiling SNR, or as the betas on a surface; by default estimated from repeats",
    )


def add_person_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how a person's responses are to be read: `--mask`, `--rois`, `--zscore`."""
    parser.add_argument(
        "--mask",
        type=Path,
        nargs="+",
        metavar="NII",
        help="3-D NIfTI on the grid of the betas, or on a surface a CIFTI file or a file of each hemisphere; voxels "
        "above 0 are fitted",
    )
    parser.add_argument(
        "--rois",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="region masks or atlases on the same grid (on a surface .annot, .gii, .mgz, .dlabel.nii, …), or text "
        "files with one label per mask voxel",
    )
    parser.add_argument(
        "--subject",
        type=subject_label,
        metavar="LABEL",
        help="BIDS label of the person (default: the sub- in the name of the first betas file)",
    )
    parser.add_argument(
        "--zscore",
        choices=("none", "session"),
        default="none",
        help="session: scale each voxel to mean 0, sd 1 over the trials of each session (default: none)",
    )


def add_output_options(parser: argparse.ArgumentParser, *, required: bool = True, default: str = "") -> None:
    """Add `--output-dir`, `--overwrite` and `--outside`."""
    parser.add_argument(
        "--output-dir",
        type=Path,
        required=required,
        metavar="DIR",
        help="folder to write; must not exist yet" + (f" (default: {default})" if default else ""),
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result of braincorl")
    parser.add_argument(
        "--outside", choices=("nan", "zero"), default="nan", help="value of maps outside the mask (default: nan)"
    )


def read_responses(
    options: argparse.Namespace,
    table: FeatureTable,
    mask: list[Path] | Grid | Surface | None,
    zscore: ZScore,
    rois: Sequence[Path] = (),
) -> SubjectData:
    """Read the responses that the options name, to images that have features."""
    with progress_bar("reading trials") as progress:
        return load_subject(
            options.betas,
            options.trials,
            mask,
            rois=rois,
            zscore=zscore,
            images=table.image_ids.tolist(),
            ncsnr=options.ncsnr,
            name=getattr(options, "subject", None),
            progress=progress,
        )
