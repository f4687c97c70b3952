"""`braincorl query`: ask a fit in words, or with example images, what its voxels respond to."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from braincorl import __version__
from braincorl.analysis.words.answers import write_query_maps
from braincorl.analysis.words.query_selection import (
    localizer_accuracy,
    preferred_images,
    preferred_texts,
    selection_by_roi,
    top_voxels,
)
from braincorl.analysis.words.questions_in_words import Query, choose_space, read_pool, read_query
from braincorl.analysis.words.selectivity import TextSelectivity, text_selectivity
from braincorl.cli.common import add_output_options, add_verb, positive
from braincorl.datasets.surfaces.hemispheres import read_rois_at
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.files import write_json
from braincorl.fits import Fit
from braincorl.fits.folder import identify_fit, write_description
from braincorl.result_folders import check_destination, staged_directory

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
    """Ask, and write maps and tables at once."""
    check_destination(options.output_dir, overwrite=options.overwrite, kind="query")
    if not 0 < options.q < 1:
        raise InputError(f"--q must be between 0 and 1, but is {options.q}.")
    fit, space = choose_space(options, Fit.load(options.fit_dir))
    pool = read_pool(options, fit)
    rois = _rois(options, fit)
    localizers = _localizers(options.localizer)
    query = read_query(options, fit, pool)
    plain = _ask(options, fit, query, pool, contrast=False)
    accuracy = localizer_accuracy(plain, localizers, rois, options.q) if localizers else None
    results = [(plain, "")]
    if query.versus:
        results.append((_ask(options, fit, query, pool, contrast=True), ", ".join(query.versus)))
    selection = pd.concat([_with_versus(selection_by_roi(r, rois, options.q), versus) for r, versus in results])
    voxels = pd.concat([_with_versus(top_voxels(r, rois, fit.space, options.top), v) for r, v in results])
    with staged_directory(options.output_dir, overwrite=options.overwrite, kind="query") as folder:
        for result, versus in results:
            write_query_maps(
                folder, fit.config["prefix"], result, fit.space, query.versus if versus else (), options.outside
            )
        tables = {"selection": selection, "voxels": voxels, "accuracy": accuracy}
        if pool is not None:
            tables["images"] = _images(fit, pool, plain, rois, options)
        if query.background_names is not None:
            tables["words"] = _words(fit, query, pool, rois, options)
        for name, table in tables.items():
            if table is not None:
                table.to_csv(folder / f"{name}.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.5g")
        write_json(folder / "config.json", _config(options, fit, query, plain, space))
        write_description(folder, "Selectivity of voxels for texts")
    for result, versus in results:
        _describe(result, versus, rois, options.q)
    if accuracy is not None:
        print(accuracy.round(3).to_string(index=False))
    through = "" if space is None else f" through the feature space '{space}'"
    counts = f"{len(query.texts)} texts{through}, {fit.space.n_voxels} voxels"
    print(f"{fit.config['subject']}: {counts} -> {options.output_dir}")


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


def _ask(
    options: argparse.Namespace, fit: Fit, query: Query, pool: FeatureTable | None, *, contrast: bool
) -> TextSelectivity:
    return text_selectivity(
        fit.encoder,
        query.features,
        None if pool is None else pool.features,
        versus=query.versus_features if contrast else None,
        background=query.background,
        texts=query.texts,
        significance=options.significance,
    )


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


def _with_versus(table: pd.DataFrame, versus: str) -> pd.DataFrame:
    table.insert(1, "versus", versus or "n/a")
    return table


def _images(
    fit: Fit,
    pool: FeatureTable,
    result: TextSelectivity,
    rois: dict[str, npt.NDArray[np.bool_]],
    options: argparse.Namespace,
) -> pd.DataFrame:
    """Images that drive each region most, and the voxels that each text selects."""
    selected = result.selected(options.q)
    groups = {f"selected by {text}": selected[:, column] for column, text in enumerate(result.texts)}
    return preferred_images(fit.encoder, pool.features, pool.image_ids, rois | groups, options.top)


def _words(
    fit: Fit,
    query: Query,
    pool: FeatureTable | None,
    rois: dict[str, npt.NDArray[np.bool_]],
    options: argparse.Namespace,
) -> pd.DataFrame:
    """Of all texts at hand, those that each region is most selective for."""
    assert query.background_names is not None
    images = None if pool is None else pool.features
    names, order = query.background_names, options.words_by
    return preferred_texts(fit.encoder, query.background, names, rois, images, options.top, order)


def _config(
    options: argparse.Namespace, fit: Fit, query: Query, result: TextSelectivity, space: str | None
) -> dict[str, object]:
    return {
        "braincorl": __version__,
        **identify_fit(fit),
        "feature_space": space,
        "texts": query.texts,
        "versus": query.versus,
        "example_images": [str(path) for path in options.like],
        "text_features": None if options.text_features is None else str(options.text_features),
        "text_provenance": dict(query.source),
        "n_background": len(query.background),
        "significance": result.significance,
        "q": options.q,
    }


def _describe(result: TextSelectivity, versus: str, rois: dict[str, npt.NDArray[np.bool_]], q: float) -> None:
    """One line per text: how many voxels it selects, and the regions with the largest share of them."""
    selected = result.selected(q)
    for column, text in enumerate(result.texts):
        shares = {name: float(selected[members, column].mean()) for name, members in rois.items() if members.any()}
        best = sorted((name for name in shares if shares[name] > 0), key=lambda name: -shares[name])[:3]
        where = f", most of {', '.join(f'{name} ({shares[name]:.0%})' for name in best)}" if best else ""
        asked = f"{text} versus {versus}" if versus else text
        print(f"{asked}: {int(selected[:, column].sum())} of {len(selected)} voxels selected (q < {q:g}){where}")
