"""What `braincorl query` asks: words from a file or through the fit's backbone, or example images."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.encoders.one_space import in_one_space
from braincorl.errors import InputError
from braincorl.features import FeatureTable, ImageEmbedder, check_same_space, load_features
from braincorl.features.backbones.prompts import COMMON_WORDS
from braincorl.features.backbones.weights import WEIGHT_SUFFIXES
from braincorl.features.store.feature_files import read_names
from braincorl.features.store.table import SPACES
from braincorl.fits import Fit
from braincorl.fits.seen_images import check_features_fit, check_space_fits
from braincorl.names import check_names, normal_name

logger = logging.getLogger(__name__)

FEATURE_FILES = (".npz", ".h5", ".hdf5", ".safetensors")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Query:
    """Texts, or kinds of images, as features.

    Attributes
    ----------
    texts
        Their names.
    features
        (n_texts, n_features).
    versus
        Names of what they are contrasted with; none for no contrast.
    versus_features
        (n_versus, n_features), or None.
    background
        Texts of all kinds, or the pool of images (n_background, n_features).
    background_names
        Names of the texts of all kinds; None for images.
    source
        Where the features come from, for config.json.
    """

    texts: list[str]
    features: Array
    versus: list[str]
    versus_features: Array | None
    background: Array
    background_names: npt.NDArray[np.str_] | None
    source: Mapping[str, Any]


def choose_space(options: argparse.Namespace, fit: Fit) -> tuple[Fit, str | None]:
    """Of a fit of several feature spaces, the one that the question is of, and its name; other fits as they are.

    That is the one that --space names; or the only one that has the features of --text-features or --features; or the
    only one whose backbone embeds text.

    Raises
    ------
    InputError
        If that leaves none or more than one, naming all.
    """
    made = fit.config["features_provenance"]
    spaces = made.get(SPACES) if isinstance(made, Mapping) else None
    if not isinstance(spaces, Mapping) or len(spaces) < 2:
        if options.space is not None:
            raise InputError(f"--space is for fits of several feature spaces, but {fit.title} has one: leave it out.")
        return fit, None
    name = options.space or _only_space(options, fit, spaces)
    sizes = {space: int(stated["n_features"]) for space, stated in spaces.items()}
    encoder = in_one_space(fit.encoder, sizes, name)
    stated, files = {key: value for key, value in spaces[name].items() if key != "n_features"}, fit.config["features"]
    config = {"features_provenance": stated, "features": files.get(name) if isinstance(files, Mapping) else None}
    return replace(fit, encoder=encoder, config=fit.config | config), name


def _only_space(options: argparse.Namespace, fit: Fit, spaces: Mapping[str, Mapping[str, Any]]) -> str:
    file = options.text_features or options.features
    if file is not None:
        table = load_features(file, options.image_ids if file == options.features else None)
        fitting = [name for name, stated in spaces.items() if _is_of(table, stated)]
        what = f"{file} fits"
    else:
        fitting = [name for name, stated in spaces.items() if str(stated.get("backbone", "")).startswith("open_clip:")]
        what = "backbones that embed text are those of"
    if len(fitting) != 1:
        raise InputError(
            f"{fit.title} has the feature spaces {', '.join(spaces)}, and {what} {', '.join(fitting) or 'none'}: pass "
            "--space with the name of one, and words of that space as --text-features."
        )
    return fitting[0]


def _is_of(table: FeatureTable, stated: Mapping[str, Any]) -> bool:
    try:
        check_same_space(table.provenance, stated, "the fit")
    except InputError:
        return False
    return bool(table.n_features == stated["n_features"])


def read_pool(options: argparse.Namespace, fit: Fit) -> FeatureTable | None:
    """Features of the pool of images: those named, or the fit's own if they are still where they were."""
    if options.features is None:
        return _read_own_pool(options, fit)
    table = load_features(options.features, options.image_ids)
    check_features_fit(fit, table)
    return table


def _read_own_pool(options: argparse.Namespace, fit: Fit) -> FeatureTable | None:
    """Features that the fit names, if they prove to be its own: config.json is data, and may name any file."""
    path = Path(str(fit.config.get("features") or ""))
    why = "are no longer at hand"
    if path.is_file():
        try:
            table = load_features(path, options.image_ids)
            table.rows(fit.context)
            check_features_fit(fit, table)
            return table
        except InputError as error:
            why = f"are not used ({' '.join(str(error).split())})"
    logger.warning(
        "the fit's features %s: selectivity is scaled over all directions of feature space alike, and no images are "
        "listed; pass a pool of images as --features",
        why,
    )
    return None


def read_query(options: argparse.Namespace, fit: Fit, pool: FeatureTable | None) -> Query:
    """Features of what the options ask.

    Raises
    ------
    InputError
        If words and images are mixed, a word is unknown, or features are of another space than the fit's.
    """
    if bool(options.texts) == bool(options.like):
        raise InputError("pass either texts or --like with example images, one of them.")
    if options.like:
        if options.text_features is not None:
            raise InputError("--text-features is for texts: leave it out with --like.")
        return _query_images(options, fit, pool)
    asked, versus = (list(dict.fromkeys(map(normal_name, texts))) for texts in (options.texts, options.versus))
    if any(not text.strip() for text in (*asked, *versus)):
        raise InputError("a text is empty: pass words, such as face.")
    if options.text_features is None:
        table = _embed_texts(options, fit, list(dict.fromkeys([*asked, *versus, *COMMON_WORDS])))
        others = table.select(COMMON_WORDS)
    else:
        if options.template:
            raise InputError("--template is for texts that are embedded here: leave it out with --text-features.")
        table = others = load_features(options.text_features)
    check_same_space(table.provenance, fit.config["features_provenance"], fit.title)
    _check_width(table, fit)
    rows = [_rows(table, names) for names in (asked, versus)]
    opposite = table.features[rows[1]] if versus else None
    return Query(
        asked, table.features[rows[0]], versus, opposite, others.features, others.image_ids, dict(table.provenance)
    )


def _rows(table: FeatureTable, names: Sequence[str]) -> npt.NDArray[np.intp]:
    known = table.image_ids.tolist()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "embed it with braincorl embed --text."
            raise InputError(f"'{name}' is not among the {len(known)} texts with features: {hint}")
    return table.rows(names)


def _query_images(options: argparse.Namespace, fit: Fit, pool: FeatureTable | None) -> Query:
    """Kinds of images, each the mean of its examples."""
    if pool is None:
        raise InputError("--like needs --features, a pool of images of all kinds to compare the examples with.")
    names = [path.name.partition(".")[0] for path in (*options.like, *map(Path, options.versus))]
    check_names(names, "the kind of images")
    if len(set(names)) < len(names):
        raise InputError(f"--like and --versus name {len(names)} kinds of images, but some names are the same.")
    kinds = [_mean_image(path, options, fit, pool) for path in (*options.like, *map(Path, options.versus))]
    n, features = len(options.like), np.stack(kinds)
    return Query(names[:n], features[:n], names[n:], features[n:] if names[n:] else None, pool.features, None, {})


def _mean_image(path: Path, options: argparse.Namespace, fit: Fit, pool: FeatureTable) -> Array:
    """Mean features of example images: a list of names in the pool, a feature file, or pictures."""
    if path.suffix == ".txt":
        return np.asarray(pool.features[pool.rows(read_names(path))].mean(axis=0))
    if path.suffix in FEATURE_FILES:
        table = load_features(path)
    elif path.exists():
        table = make_embedder(options, fit).embed([path])
    else:
        raise InputError(f"{path} does not exist: pass a feature file, a .txt list of image names, or pictures.")
    check_space_fits(fit, table)  # whatever the examples are called
    return np.asarray(table.features.mean(axis=0))


def _embed_texts(options: argparse.Namespace, fit: Fit, texts: list[str]) -> FeatureTable:
    return make_embedder(options, fit).embed_text(texts, options.template or "ensemble")


def make_embedder(options: argparse.Namespace, fit: Fit) -> ImageEmbedder:
    """Backbone that the fit's features were made with.

    Raises
    ------
    InputError
        If the fit does not say which, or its weights are not to be had.
    """
    stated = fit.config["features_provenance"]
    backbone, weights = str(stated.get("backbone", "")), str(stated.get("weights", ""))
    kind = backbone.partition(":")[0]
    if kind not in ("open_clip", "timm", "gabor"):
        raise InputError(
            f"{fit.title} names no backbone that can be loaded here ('{backbone or 'none'}'): pass the "
            "features of the words as --text-features, or of example images as --like."
        )
    local = options.weights or (weights if weights.startswith("random:") else None)
    named = options.backbone or stated.get("made_by")
    if named is None and kind != "gabor" and local is None:  # features of before names were kept
        if weights.endswith(WEIGHT_SUFFIXES):
            raise InputError(
                f"the fit's features were made with the weights file '{weights}': pass it as --weights, and as "
                f"--backbone what {backbone} was called then, tag included, as in clip-vit-b32."
            )
        named = backbone + ("/" if kind == "open_clip" else ".") + weights
    layer = None if kind == "gabor" or stated.get("layer") == "output" else stated.get("layer")
    return ImageEmbedder(
        str(named or backbone),
        weights=local,
        layer=layer,
        pooling="auto" if layer is None else str(stated.get("pooling", "auto")),
        normalize=stated.get("normalized", "auto"),
        offline=True if options.offline else None,
    )


def _check_width(table: FeatureTable, fit: Fit) -> None:
    if table.n_features != fit.encoder.coef_.shape[1]:
        raise InputError(
            f"the texts have {table.n_features} features but {fit.title} was made with "
            f"{fit.encoder.coef_.shape[1]}: embed the texts with the fit's backbone."
        )
