"""`braincorl query`: ask a fit in words, or with example images, what its voxels respond to."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from braincorl.analysis.words.answers import ask_fit
from braincorl.analysis.words.questions_in_words import Query, choose_space, own_pool, query_images, query_words
from braincorl.cli.common import add_output_options, add_verb, positive
from braincorl.datasets.surfaces.hemispheres import read_rois_at
from braincorl.errors import InputError
from braincorl.features import FeatureTable, load_features
from braincorl.fits import Fit
from braincorl.fits.seen_images import check_features_fit
from braincorl.storage.result_folders import check_destination

EPILOG = """The words go to the fit's own backbone, which must be one that embeds text (its weights come from --weights,
the download caches, or the network); or their features are looked up in --text-features, a file of braincorl embed
--text, which needs no network. Other backbones are asked with example images (--like).

A map per text (selectivity in standard deviations of the voxel's predicted responses over images, its z, and its q);
selection.tsv: voxels that each text selects, per region; voxels.tsv: the voxels with the most evidence (z) of being
selective for each text; images.tsv: images that drive each region, and each text's voxels, most; words.tsv: of all
texts at hand, those that each region is most selective for; with --localizer, accuracy.tsv."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "query", "Ask a fit what its voxels respond to, in words or with example images.")
    parser.epilog = EPILOG
    parser.add_argument("fit_dir", type=Path, metavar="FIT_DIR", help="folder that braincorl fit wrote")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="words, such as face or 'a red car'")
    parser.add_argument(
        "--versus", nargs="+", default=[], metavar="TEXT", help="also contrast each text with these (their mean)"
    )
    parser.add_argument("--text-features", type=Path, metavar="FILE", help="features of many words, of the same space")
    parser.add_argument(
        "--like",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="in place of words, kinds of images: each a feature file, a .txt list of names in --features, a picture, "
        "or a folder of pictures; --versus then names such files, too",
    )
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="pool of images (default: the features of the fit)"
    )
    parser.add_argument("--image-ids", type=Path, metavar="TXT", help="image names of an .npy file, one per line")
    parser.add_argument(
        "--space",
        metavar="NAME",
        help="of a fit of several feature spaces, the one to ask (default: the one that has the words or features at "
        "hand, or that embeds text)",
    )
    parser.add_argument(
        "--rois", type=Path, nargs="+", default=[], metavar="FILE", help="more regions, on the mask of the fit"
    )
    parser.add_argument(
        "--localizer",
        nargs="+",
        default=[],
        metavar="TEXT=ROI[,ROI]",
        help="score how well texts find the regions of a localiser, as in place=PPA,OPA,RSC",
    )
    _add_numbers(parser)
    _add_backbone_options(parser)
    add_output_options(parser)
    parser.set_defaults(run=run, rest="texts", rest_type=str)


def run(options: argparse.Namespace) -> None:
    """Ask, write maps and tables at once, and print a line per text."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="query")
    _check(options)
    words = None if options.text_features is None else load_features(options.text_features)
    pool = None if options.features is None else load_features(options.features, options.image_ids)
    fit = choose_space(Fit.load(options.fit_dir), options.space, pool if words is None else words)
    if pool is None:
        pool = own_pool(fit, options.image_ids)
    else:
        check_features_fit(fit, pool)
    answers = ask_fit(
        fit,
        _read_query(options, fit, words, pool),
        pool,
        rois=_rois(options, fit),
        localizers=_localizers(options.localizer),
        q=options.q,
        top=options.top,
        words_by=options.words_by,
        significance=options.significance,
    )
    files = {"example_images": list(map(str, options.like)), "text_features": options.text_features}
    answers.save(options.output_dir, notes=files, overwrite=options.overwrite, outside=options.outside)
    print(answers)
    if "accuracy" in answers.tables:
        print(answers.tables["accuracy"].round(3).to_string(index=False))
    space = fit.config.get("feature_space")
    through = "" if space is None else f" through the feature space '{space}'"
    counts = f"{len(answers.query.texts)} texts{through}, {fit.space.n_voxels} voxels"
    print(f"{fit.subject}: {counts} -> {options.output_dir}")


def _add_numbers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--q", type=float, default=0.05, metavar="Q", help="share of wrongly selected voxels to accept (default: 0.05)"
    )
    parser.add_argument("--top", type=positive, default=20, metavar="N", help="voxels and images to list (default: 20)")
    parser.add_argument(
        "--words-by",
        choices=("selectivity", "specificity"),
        default="selectivity",
        help="order of words.tsv: what drives a region most, or what drives it more than the fit's other voxels, which "
        "finds the words of single voxels better (default: selectivity)",
    )
    parser.add_argument(
        "--significance",
        choices=("auto", "posterior", "directions"),
        default="auto",
        help="posterior: is the sign settled by the context; directions: more than a random text (default: auto, the "
        "first where the encoder has a posterior)",
    )


def _add_backbone_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("words that are embedded here")
    group.add_argument(
        "--template",
        action="append",
        metavar="TEMPLATE",
        help="sentence with {} for the text, or plain, photo, ensemble (default: ensemble); several are averaged",
    )
    group.add_argument(
        "--backbone",
        metavar="NAME",
        help="the fit's backbone with the tag of its weights, as in clip-vit-b32, where its features do not tell "
        "(default: the name that they were embedded under)",
    )
    group.add_argument("--weights", metavar="FILE", help="local weights of the fit's backbone")
    group.add_argument("--offline", action="store_true", help="never download weights")


def _check(options: argparse.Namespace) -> None:
    """Refuse options that say nothing together."""
    if not 0 < options.q < 1:
        raise InputError(f"--q must be between 0 and 1, but is {options.q}.")
    if bool(options.texts) == bool(options.like):
        raise InputError("pass either texts or --like with example images, one of them.")
    if options.like and options.text_features is not None:
        raise InputError("--text-features is for texts: leave it out with --like.")
    if options.template and options.text_features is not None:
        raise InputError("--template is for texts that are embedded here: leave it out with --text-features.")


def _read_query(options: argparse.Namespace, fit: Fit, words: FeatureTable | None, pool: FeatureTable | None) -> Query:
    backbone = {name: getattr(options, name) for name in ("backbone", "weights", "offline")}
    if options.like:
        return query_images(fit, options.like, [Path(name) for name in options.versus], pool=pool, **backbone)
    embedding = {} if words is not None else {"template": options.template, **backbone}
    return query_words(fit, options.texts, options.versus, words=words, **embedding)


def _rois(options: argparse.Namespace, fit: Fit) -> dict[str, npt.NDArray[np.bool_]]:
    """Regions of the fit, and those of --rois."""
    more = read_rois_at(options.rois, fit.grid, fit.space.included.size)
    twice = sorted(set(more) & set(fit.rois))
    if twice:
        raise InputError(f"--rois names region '{twice[0]}', which the fit has already: rename one, or leave it out.")
    return fit.rois | {name: members[fit.space.included] for name, members in more.items()}


def _localizers(given: list[str]) -> dict[str, list[str]]:
    localizers = {}
    for item in given:
        text, equals, names = item.rpartition("=")
        if not (text and equals and names):
            raise InputError(f"--localizer {item} must be TEXT=ROI or TEXT=ROI,ROI, as in place=PPA,OPA.")
        localizers[text] = names.split(",")
    return localizers
