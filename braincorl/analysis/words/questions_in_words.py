"""What a fit is asked: words from a file of text features or through the fit's backbone, or kinds of example images."""

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


def choose_space(fit: Fit, name: str | None = None, features: FeatureTable | None = None) -> Fit:
    """Of a fit of several feature spaces, the one that a question is of; other fits as they are.

    Parameters
    ----------
    fit
        The fit.
    name
        Of the space; by default the only one that has `features`, or else whose backbone embeds text.
    features
        Of words or images that the question is of.

    Returns
    -------
    Fit
        To be asked; `config["feature_space"]` is the name, where there are several.

    Raises
    ------
    InputError
        If that leaves no space or more than one, naming all.
    """
    made = fit.config["features_provenance"]
    spaces = made.get(SPACES) if isinstance(made, Mapping) else None
    if not isinstance(spaces, Mapping) or len(spaces) < 2:
        if name is not None:
            raise InputError(f"--space is for fits of several feature spaces, but {fit.title} has one: leave it out.")
        return fit
    name = name or _only_space(fit, spaces, features)
    sizes = {space: int(stated["n_features"]) for space, stated in spaces.items()}
    encoder = in_one_space(fit.encoder, sizes, name)
    stated, files = {key: value for key, value in spaces[name].items() if key != "n_features"}, fit.config["features"]
    file = files.get(name) if isinstance(files, Mapping) else None
    config = {"feature_space": name, "features_provenance": stated, "features": file}
    return replace(fit, encoder=encoder, config=fit.config | config)


def _only_space(fit: Fit, spaces: Mapping[str, Mapping[str, Any]], features: FeatureTable | None) -> str:
    if features is not None:
        fitting = [name for name, stated in spaces.items() if _is_of(features, stated)]
        what = "the features that the question is of fit"
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


def own_pool(fit: Fit, image_ids: Path | None = None) -> FeatureTable | None:
    """Features that the fit names, if they prove to be its own: config.json is data, and may name any file.

    Parameters
    ----------
    fit
        On disk.
    image_ids
        Names of the images of an .npy file.

    Returns
    -------
    FeatureTable or None
        None, with a warning, where they are not to be had.
    """
    path = Path(str(fit.config.get("features") or ""))
    why = "are no longer at hand"
    if path.is_file():
        try:
            table = load_features(path, image_ids)
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


def query_words(
    fit: Fit, texts: Sequence[str], versus: Sequence[str] = (), *, words: FeatureTable | None = None, **embedding: Any
) -> Query:
    """Ask in words.

    Parameters
    ----------
    fit
        Whose feature space the words must be in.
    texts
        Words, such as "face".
    versus
        Words to contrast them with.
    words
        Features of many words, these among them; by default they are embedded through the fit's backbone.
    **embedding
        `template` and the options of `fit_backbone`, for words that are embedded.

    Returns
    -------
    Query

    Raises
    ------
    InputError
        If a text is empty or unknown, or features are of another space than the fit's.
    """
    asked, opposed = (list(dict.fromkeys(map(normal_name, names))) for names in (texts, versus))
    if any(not text.strip() for text in (*asked, *opposed)):
        raise InputError("a text is empty: pass words, such as face.")
    if words is None:
        template = embedding.pop("template", None) or "ensemble"
        backbone = fit_backbone(fit, **embedding)
        words = backbone.embed_text(list(dict.fromkeys([*asked, *opposed, *COMMON_WORDS])), template)
        others = words.select(COMMON_WORDS)
    else:
        others = words
    check_same_space(words.provenance, fit.config["features_provenance"], fit.title)
    if words.n_features != fit.encoder.coef_.shape[1]:
        raise InputError(
            f"the texts have {words.n_features} features but {fit.title} was made with "
            f"{fit.encoder.coef_.shape[1]}: embed the texts with the fit's backbone."
        )
    rows = [_rows(words, names) for names in (asked, opposed)]
    opposite = words.features[rows[1]] if opposed else None
    return Query(
        asked, words.features[rows[0]], opposed, opposite, others.features, others.image_ids, dict(words.provenance)
    )


def _rows(table: FeatureTable, names: Sequence[str]) -> npt.NDArray[np.intp]:
    known = table.image_ids.tolist()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "embed it with braincorl embed --text."
            raise InputError(f"'{name}' is not among the {len(known)} texts with features: {hint}")
    return table.rows(names)


def query_images(
    fit: Fit, like: Sequence[Path], versus: Sequence[Path] = (), *, pool: FeatureTable | None, **embedding: Any
) -> Query:
    """Ask with kinds of images, each the mean of its examples.

    Parameters
    ----------
    fit
        Whose feature space the images must be in.
    like
        For each kind a feature file, a .txt list of names in the pool, a picture, or a folder of pictures.
    versus
        Kinds to contrast them with.
    pool
        Images of all kinds.
    **embedding
        Options of `fit_backbone`, for pictures.

    Returns
    -------
    Query

    Raises
    ------
    InputError
        If there is no pool, two kinds have one name, a file is missing, or features are of another space.
    """
    if pool is None:
        raise InputError("--like needs --features, a pool of images of all kinds to compare the examples with.")
    paths = [*like, *versus]
    names = [path.name.partition(".")[0] for path in paths]
    check_names(names, "the kind of images")
    if len(set(names)) < len(names):
        raise InputError(f"--like and --versus name {len(names)} kinds of images, but some names are the same.")
    n, features = len(like), np.stack([_mean_image(path, fit, pool, embedding) for path in paths])
    return Query(names[:n], features[:n], names[n:], features[n:] if names[n:] else None, pool.features, None, {})


def _mean_image(path: Path, fit: Fit, pool: FeatureTable, embedding: Mapping[str, Any]) -> Array:
    """Mean features of example images: a list of names in the pool, a feature file, or pictures."""
    if path.suffix == ".txt":
        return np.asarray(pool.features[pool.rows(read_names(path))].mean(axis=0))
    if path.suffix in FEATURE_FILES:
        table = load_features(path)
    elif path.exists():
        table = fit_backbone(fit, **embedding).embed([path])
    else:
        raise InputError(f"{path} does not exist: pass a feature file, a .txt list of image names, or pictures.")
    check_space_fits(fit, table)  # whatever the examples are called
    return np.asarray(table.features.mean(axis=0))


def fit_backbone(
    fit: Fit, *, backbone: str | None = None, weights: str | None = None, offline: bool = False
) -> ImageEmbedder:
    """Open the backbone that the fit's features were made with.

    Parameters
    ----------
    fit
        The fit.
    backbone
        Its name with the tag of its weights, as in "clip-vit-b32", where its features do not tell.
    weights
        Local weights.
    offline
        Never download weights.

    Returns
    -------
    ImageEmbedder

    Raises
    ------
    InputError
        If the fit does not say which, or its weights are not to be had.
    """
    stated = fit.config["features_provenance"]
    network, tag = str(stated.get("backbone", "")), str(stated.get("weights", ""))
    kind = network.partition(":")[0]
    if kind not in ("open_clip", "timm", "gabor"):
        raise InputError(
            f"{fit.title} names no backbone that can be loaded here ('{network or 'none'}'): pass the "
            "features of the words as --text-features, or of example images as --like."
        )
    local = weights or (tag if tag.startswith("random:") else None)
    named = backbone or stated.get("made_by")
    if named is None and kind != "gabor" and local is None:  # features of before names were kept
        if tag.endswith(WEIGHT_SUFFIXES):
            raise InputError(
                f"the fit's features were made with the weights file '{tag}': pass it as --weights, and as "
                f"--backbone what {network} was called then, tag included, as in clip-vit-b32."
            )
        named = network + ("/" if kind == "open_clip" else ".") + tag
    layer = None if kind == "gabor" or stated.get("layer") == "output" else stated.get("layer")
    return ImageEmbedder(
        str(named or network),
        weights=local,
        layer=layer,
        pooling="auto" if layer is None else str(stated.get("pooling", "auto")),
        normalize=stated.get("normalized", "auto"),
        offline=True if offline else None,
    )
