"""The methods paragraph of a fit: what was done to these responses, with its numbers and what to cite.

Every sentence says what this fit did, from its encoder and its config.json; what neither says is left out, so that
nothing has to be taken back. Numbers in brackets are the references, in the order of their first mention.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.encoders.attending import AttendingEncoder
from braincorl.encoders.banded_ridge import BandedRidgeEncoder
from braincorl.encoders.bayesian_ridge import BayesianRidgeEncoder
from braincorl.encoders.in_context import InContextEncoder
from braincorl.encoders.ridge import RidgeEncoder
from braincorl.errors import InputError
from braincorl.features.store.table import SPACES
from braincorl.fits.fitted import Fitted
from braincorl.fits.folder import read_maps
from braincorl.fits.references import REFERENCES
from braincorl.storage.files import read_json

CITED = re.compile(r"\[@([a-z_-]+)\]")

# The layers of `braincorl.models.attention.LAYERS`, in words.
LAYERS = {
    "alone": "of the voxel by itself",
    "components": "through the principal components of the person's voxels",
    "smoothed components": "through those of what a first pass predicts of the voxels",
    "own metric": "under the second moment of all voxels' weights",
}


# What these signs of a text become in LaTeX.
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "²": r"\textsuperscript{2}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class MethodsText:
    """What was done, in words.

    Attributes
    ----------
    paragraphs
        Plain text; numbers in brackets are places in `references`, from 1.
    references
        What is cited.
    sources
        The paragraphs before their citations were numbered: [@key], a key of `braincorl.fits.references.REFERENCES`.
    version
        Of braincorl, which is cited with it.
    """

    paragraphs: list[str]
    references: list[str]
    sources: list[str]
    version: str

    def __str__(self) -> str:
        """Lay it out as plain text."""
        cited = "\n".join(f"[{number}] {text}" for number, text in enumerate(self.references, start=1))
        return "\n\n".join([*self.paragraphs, cited])

    __repr__ = __str__

    def markdown(self) -> str:
        """Lay it out for Pandoc, which finds what [@key] cites in `bibtex`."""
        return self._written(lambda text: re.sub(r"([\\`*_<>\[\]#$^~|])", r"\\\1", text), "[@{}]")

    def latex(self) -> str:
        """Lay it out for LaTeX, which finds what it cites in `bibtex`."""
        return self._written(lambda text: "".join(LATEX.get(sign, sign) for sign in text), "\\cite{{{}}}")

    def bibtex(self) -> str:
        """Entries of what is cited, for a file ending in `.bib`."""
        return "\n\n".join(REFERENCES[key].bibtex.replace("{version}", self.version) for key in _cited(self.sources))

    def _written(self, escape: Callable[[str], str], citation: str) -> str:
        """Paragraphs in a language of marks: `escape` keeps their words from being taken for any."""

        def write(paragraph: str) -> str:
            words = CITED.split(paragraph)  # text and keys take turns
            words[::2] = map(escape, words[::2])
            words[1::2] = [
                citation.format(REFERENCES[key].key) if key in REFERENCES else escape(f"[@{key}]")
                for key in words[1::2]
            ]
            return "".join(words)

        return "\n\n".join(map(write, self.sources))


def describe_methods(
    fit: Fitted, scores: str | Path | None = None, maps: Mapping[str, npt.NDArray[Any]] | None = None
) -> MethodsText:
    """Write the paragraph for a paper: what this fit did, with its numbers, and what to cite.

    Parameters
    ----------
    fit
        In memory or on disk.
    scores
        Folder of `braincorl score`; by default `scores` in the fit's folder, else the fit's own scores.
    maps
        What `collect_maps` gives of both, where it was read already.

    Returns
    -------
    MethodsText
        Prints as plain text; has `paragraphs` and `references`.

    Raises
    ------
    InputError
        If the folder holds no scores of this fit.
    """
    scores = None if scores is None else Path(scores)
    scored = _read_scored(fit, scores)
    maps, config = collect_maps(fit, scores) if maps is None else maps, fit.config
    paragraphs = []
    if config.get("simulation"):
        paragraphs.append("SIMULATION: these responses were drawn from known encoders; no brain was measured.")
    made = config.get("braincorl", __version__)
    first = f"Voxelwise encoders of {fit.subject} were fitted with braincorl {made} [@braincorl]."
    sentences = [first, *_data(fit), *_features(config), *_encoder(fit)]
    paragraphs += [" ".join(sentences), " ".join(_accuracy(config, maps, scored))]
    return _with_references(paragraphs, str(made))


def _with_references(paragraphs: list[str], version: str) -> MethodsText:
    """Replace what is cited as [@key] by its number, in the order of first mention."""
    cited = _cited(paragraphs)
    numbers = {key: f"[{number}]" for number, key in enumerate(cited, start=1)}
    numbered = [CITED.sub(lambda found: numbers.get(found[1], found[0]), text) for text in paragraphs]
    texts = [REFERENCES[key].text.replace("{version}", version) for key in cited]
    return MethodsText(numbered, texts, paragraphs, version)


def _cited(paragraphs: Iterable[str]) -> list[str]:
    """Keys of what is cited, in the order of first mention."""
    return list(dict.fromkeys(key for text in paragraphs for key in CITED.findall(text) if key in REFERENCES))


def collect_maps(fit: Fitted, scores: Path | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read the maps of a fit, and over them those of a folder of scores, by default that in the fit's own.

    Raises
    ------
    InputError
        If the folder holds no scores of this fit.
    """
    prefix, own = fit.config["prefix"], fit.maps()
    scores = scores or fit.beside("scores")
    if scores is None:
        return own
    scored = read_maps(scores, prefix, fit.space)
    if "ev" not in scored:
        raise InputError(f"{scores} holds no {prefix}_stat-ev map: pass the --output-dir of braincorl score.")
    unscored = {name: values for name, values in own.items() if name not in ("ev", "r", "r2")}
    return unscored | scored


def scored_images(fit: Fitted, scores: Path | None = None) -> int | None:
    """Count the images that `collect_maps` gives the scores of; None where nobody noted it."""
    scored = _read_scored(fit, scores)
    stated = fit.config.get("n_left_out") if scored is None else scored.get("n_images")
    return stated if isinstance(stated, int) else None


def _read_scored(fit: Fitted, scores: Path | None) -> Mapping[str, Any] | None:
    """Read what a folder of scores says of itself; None where the scores are the fit's own."""
    folder = scores or fit.beside("scores")
    if folder is None:
        return None
    return read_json(folder / "config.json") if (folder / "config.json").is_file() else {}


def _data(fit: Fitted) -> list[str]:
    config, n_excluded = fit.config, fit.space.n_excluded
    trials = f" ({_count(config['n_trials'])} trials)" if "n_trials" in config else ""
    scaled = {
        "session": "Single-trial responses were z-scored per voxel over all trials of each session, those of images "
        "left out of the fit among them",
        "none": "Single-trial responses were not scaled",
    }[config["zscore"]]
    left_out = f"; {_count(n_excluded)} that were constant or not finite were left out" if n_excluded else ""
    drawn = ""
    if config.get("random_state") is not None:
        drawn = f", drawn at random (seed {config['random_state']})"
    return [
        f"{scaled}, and responses to the same image were averaged.",
        f"{_count(fit.space.n_voxels)} voxels entered{left_out}.",
        f"Encoders were fitted to {_count(len(fit.context))} images{trials}{drawn}.",
    ]


def _features(config: Mapping[str, Any]) -> list[str]:
    """How images became numbers, in as many words as the features' provenance allows."""
    made = config["features_provenance"]
    n_features = config.get("n_features")
    spaces = made.get(SPACES)
    if isinstance(spaces, Mapping) and spaces:
        each = "; ".join(f"{name} ({_backbone(of, of.get('n_features'))})" for name, of in spaces.items())
        return [f"Images were described by {len(spaces)} feature spaces: {each}."]
    return [f"Images were described by {_backbone(made, n_features)}."]


def _backbone(made: Mapping[str, Any], n_features: Any) -> str:
    count = f"{_count(n_features)} features" if isinstance(n_features, int) else "features"
    backbone = str(made.get("backbone") or "")
    if not backbone:
        return f"{count} of unstated origin"
    key = backbone.partition(":")[0]
    cited = f" [@{key}]" if key in ("open_clip", "timm", "gabor") else ""
    parts = [f"{count} of {backbone}{cited}"]
    weights = str(made.get("weights") or "")
    if weights and weights != "none":
        parts.append(f"weights {weights}")
    if made.get("layer") not in (None, "", "output"):
        parts.append(f"layer {made['layer']}")
    if made.get("normalized") is True:
        parts.append("each image's brought to unit length")
    return ", ".join(parts)


def _encoder(fit: Fitted) -> list[str]:
    encoder = fit.encoder
    if isinstance(encoder, RidgeEncoder):
        return [_ridge(encoder)]
    if isinstance(encoder, BandedRidgeEncoder):
        return [
            f"Ridge regression over {len(encoder.spaces_)} feature spaces, each with a share of the signal of its own "
            f"(as in banded ridge [@banded]), was averaged over a grid of these shares by the evidence "
            f"[@evidence] of each voxel's responses; nothing was cross-validated."
        ]
    if isinstance(encoder, BayesianRidgeEncoder):
        return [
            f"Ridge regression [@ridge] was averaged over {_grid(encoder)} of the share of a voxel's response "
            f"variance that the features explain, weighted by the evidence [@evidence] of the voxel's own "
            f"responses; nothing was cross-validated. The mean of that share over voxels was "
            f"{_mean(encoder.signal_fraction_)}."
        ]
    if isinstance(encoder, InContextEncoder) and encoder.feature_length_ is not None:
        return [_published(encoder)]
    if isinstance(encoder, AttendingEncoder):
        return _attention(fit, encoder)
    return [f"The encoder was a {type(encoder).__name__}."]


def _ridge(encoder: RidgeEncoder) -> str:
    how = "leave-one-out cross-validation in closed form" if encoder.cv == "loo" else f"{encoder.cv} folds of images"
    limits = encoder.alpha_limits_
    grid = f" among values from {limits[0]:.3g} to {limits[1]:.3g}" if limits is not None else ""
    return (
        f"The encoder was ridge regression [@ridge] with a free intercept; the regularisation of each voxel was "
        f"chosen by {how}{grid}, and the voxel refitted on all these images."
    )


def _grid(encoder: BayesianRidgeEncoder) -> str:
    grid = np.asarray(encoder.posterior_.signal_grid)
    return f"a grid of {grid.size} values ({grid.min():.3g} to {grid.max():.3g})"


def _published(encoder: InContextEncoder) -> str:
    network = getattr(encoder, "provenance_", {}).get("network", {})
    backbone = f" for features of {network['backbone']}" if network.get("backbone") else ""
    precision = f", computed in {network['precision']}" if network.get("precision") else ""
    return (
        f"The weights of each voxel were written by a meta-trained in-context transformer [@in-context]"
        f"{backbone}{precision}, which read the features, divided by their root mean square length, and the voxel's "
        "responses, z-scored over these images; no weight of the network was changed."
    )


def _attention(fit: Fitted, encoder: AttendingEncoder) -> list[str]:
    share = f"The mean share of response variance that the features explain was {_mean(encoder.signal_fraction_)}."
    spoilt = int((np.asarray(encoder.image_weight_) < 1).sum())
    if spoilt:
        share += f" Images to which the responses of all voxels were off counted for less ({_count(spoilt)})."
    averaged = (
        "suppositions on how much of a response is signal and how alike voxels are were averaged by the tempered "
        "evidence [@evidence] of the voxel's own responses"
    )
    inspired = "an in-context transformer in closed form, after [@in-context], in which nothing is trained"
    if not encoder.posterior_.moment.size:
        layers = _layers(encoder)
        of = f"the plain mean of {len(layers)} estimates of each voxel's weights" if len(layers) > 1 else "one estimate"
        return [
            f"The encoder was {inspired}, made of ridge regressions [@ridge]: {of} ({'; '.join(layers)}). "
            "Each was averaged over suppositions on how much of a response, or of a component, is signal, by their "
            "tempered evidence [@evidence].",
            share,
        ]
    memory = fit.config.get("memory", {})
    known = f"{_count(memory['n_voxels'])} voxels of {_people(memory['n_people'])}" if memory else ""
    known = known or "voxels of earlier people"
    named = f" (prior {_name(fit.config['prior'])})" if fit.config.get("prior") else ""
    regions = ""
    if len(encoder.region_names_):
        regions = f" The memory knew the regions {', '.join(encoder.region_names_)}."
    return [
        f"The encoder was {inspired}: each voxel attended to {known}{named}, remembered as weights in the same feature "
        "space; its responses were the queries, what the remembered voxels would have said to the same images the "
        f"keys, and the attention is the posterior over them. What they leave was ridge regression's [@ridge]; "
        f"{averaged}.{regions}",
        share,
    ]


def _layers(encoder: AttendingEncoder) -> list[str]:
    """Name the layers of an encoder without a memory, as far as it says which it has."""
    made = getattr(encoder, "provenance_", {}).get("network", {}).get("config", {})
    return [LAYERS[name] for name in made.get("layers", LAYERS) if name in LAYERS]


def _accuracy(
    config: Mapping[str, Any], maps: Mapping[str, npt.NDArray[Any]], scored: Mapping[str, Any] | None
) -> list[str]:
    if "ev" not in maps or not np.isfinite(maps["ev"]).any():
        return ["Accuracy on images outside the fit was not measured."]
    n_images = (scored or {}).get("n_images", config.get("n_left_out") if scored is None else None)
    images = f"{_count(n_images)} images" if n_images else "images"
    lines = [
        f"Accuracy was measured on {images} that the fit had not seen, as the explained variance (EV) of each voxel, "
        f"1 - Var(y - prediction) / Var(y): {_mean(maps['ev'])} on average over voxels"
        + (f", with a mean correlation of {_mean(maps['r'])}." if "r" in maps else ".")
    ]
    if "noiseceiling" in maps and np.isfinite(maps["noiseceiling"]).any():
        lines.append(f"The mean noise ceiling of explained variance was {_mean(maps['noiseceiling'])} [@ceiling].")
        normalized = maps.get("evnormalized")
        if normalized is not None and np.isfinite(normalized).any():
            floor = (scored or {}).get("min_ceiling", 0.1)
            lines.append(
                f"Where it was at least {floor:g} ({_count(int(np.isfinite(normalized).sum()))} voxels), EV over the "
                f"ceiling was {_mean(normalized)} on average."
            )
    if "q" in maps and (scored or {}).get("n_permutations"):
        tested = np.isfinite(maps["q"])
        lines.append(
            f"{_count(int((maps['q'][tested] < 0.05).sum()))} of {_count(int(tested.sum()))} voxels were predicted "
            f"better than by {_count((scored or {})['n_permutations'])} random orders of the images, at a false "
            f"discovery rate of .05 [@discovery]."
        )
    return lines


def _mean(values: npt.NDArray[Any]) -> str:
    return f"{float(np.nanmean(values)):.3f}"


def _count(value: Any) -> str:
    return f"{int(value):,}"


def _people(count: int) -> str:
    return "one earlier person" if count == 1 else f"{_count(count)} earlier people"


def _name(path: Any) -> str:
    return PurePath(str(path)).name
