"""The methods paragraph of a fit: what was done to these responses, with its numbers and what to cite.

Every sentence says what this fit did, from its encoder and its config.json; what neither says is left out, so that
nothing has to be taken back. Numbers in brackets are the references, in the order of their first mention.
"""

import re
from collections.abc import Mapping
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
from braincorl.storage.files import read_json

REFERENCES = {
    "braincorl": "The braincorl contributors. braincorl: voxelwise encoders of visual cortex for a new person, from "
    "few images. Version {version}.",
    "in-context": "Yu, M., et al. (2025). Meta-learning an in-context transformer model of human higher visual cortex. "
    "arXiv:2505.15813.",
    "ridge": "Hoerl, A. E., & Kennard, R. W. (1970). Ridge regression: biased estimation for nonorthogonal problems. "
    "Technometrics, 12(1), 55-67.",
    "evidence": "MacKay, D. J. C. (1992). Bayesian interpolation. Neural Computation, 4(3), 415-447.",
    "banded": "Dupré la Tour, T., Eickenberg, M., Nunez-Elizalde, A. O., & Gallant, J. L. (2022). Feature-space "
    "selection with banded ridge regression. NeuroImage, 264, 119728.",
    "ceiling": "Allen, E. J., et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial "
    "intelligence. Nature Neuroscience, 25, 116-126.",
    "discovery": "Benjamini, Y., & Hochberg, Y. (1995). Controlling the false discovery rate: a practical and powerful "
    "approach to multiple testing. Journal of the Royal Statistical Society B, 57(1), 289-300.",
    "open_clip": "Ilharco, G., et al. (2021). OpenCLIP. Zenodo. doi:10.5281/zenodo.5143773.",
    "timm": "Wightman, R. (2019). PyTorch image models. doi:10.5281/zenodo.4414861.",
    "gabor": "Kay, K. N., Naselaris, T., Prenger, R. J., & Gallant, J. L. (2008). Identifying natural images from "
    "human brain activity. Nature, 452, 352-355.",
}
CITED = re.compile(r"\[@([a-z_-]+)\]")

# The layers of `braincorl.models.attention.LAYERS`, in words.
LAYERS = {
    "alone": "of the voxel by itself",
    "components": "through the principal components of the person's voxels",
    "smoothed components": "through those of what a first pass predicts of the voxels",
    "own metric": "under the second moment of all voxels' weights",
}


@dataclass(frozen=True)
class MethodsText:
    """What was done, in words.

    Attributes
    ----------
    paragraphs
        Plain text; numbers in brackets are places in `references`, from 1.
    references
        What is cited.
    """

    paragraphs: list[str]
    references: list[str]

    def __str__(self) -> str:
        """Lay it out as plain text."""
        cited = "\n".join(f"[{number}] {text}" for number, text in enumerate(self.references, start=1))
        return "\n\n".join([*self.paragraphs, cited])

    __repr__ = __str__


def describe_methods(fit: Fitted, scores: Path | None = None) -> MethodsText:
    """Write the methods paragraph of a fit.

    Parameters
    ----------
    fit
        In memory or on disk.
    scores
        Folder of `braincorl score`; by default `scores` in the fit's folder, else the fit's own scores.

    Returns
    -------
    MethodsText

    Raises
    ------
    InputError
        If the folder holds no scores of this fit.
    """
    folder = scores or fit.beside("scores")
    scored = None
    if folder is not None:
        scored = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    maps, config = collect_maps(fit, folder), fit.config
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
    cited = dict.fromkeys(key for text in paragraphs for key in CITED.findall(text) if key in REFERENCES)
    numbers = {key: f"[{number}]" for number, key in enumerate(cited, start=1)}
    numbered = [CITED.sub(lambda found: numbers.get(found[1], found[0]), text) for text in paragraphs]
    return MethodsText(numbered, [REFERENCES[key].format(version=version) for key in cited])


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
