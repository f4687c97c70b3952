"""A fitted person for those who do not use braincorl: plain arrays, himalaya's estimator, BERG's layout; and a card.

Every format holds weights, places and regions in one `.npz`, which opens with NumPy alone, without pickles. The card
bears the fields that the registry of the Brain Encoding Response Generator (BERG, github.com/gifale95/BERG) asks of a
model.

npz        encoder.npz, model_card.json
himalaya   encoder.npz with `coef_` and `intercept_` on himalaya's axes, load_encoder.py, model_card.json
berg       berg/models/model_cards/MODEL_ID.yaml, and the arrays where BERG keeps those of its models:
           encoding_models/modality-fmri/train_dataset-…/model-…/encoding_models_weights/weights_subject-XX.npz
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from braincorl import __version__
from braincorl.datasets.space import VoxelSpace
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError, OutputError
from braincorl.fits.fitted import Fitted
from braincorl.metrics import mean_over_voxels
from braincorl.storage.files import atomic_file
from braincorl.storage.result_folders import check_destination, staged_directory

Format = Literal["npz", "himalaya", "berg"]

FORMATS = ("npz", "himalaya", "berg")
ARRAYS = "encoder.npz"
CARD = "model_card.json"
SCRIPT = "load_encoder.py"
TEMPLATE = Path(__file__).parent / "templates" / "model_card.json"  # in the fields of BERG's registry
KIND = "export"
MEANINGS = {
    "ev": "explained variance",
    "r2": "R2",
    "r": "Pearson correlation",
    "noiseceiling": "noise ceiling of R2",
    "evnormalized": "explained variance over the noise ceiling",
    "rnormalized": "correlation over the root of the noise ceiling",
}

_SCRIPT = '''"""The encoder beside this file as himalaya's Ridge, on its NumPy backend."""

from pathlib import Path

import numpy as np
from himalaya.ridge import Ridge


def load(path=Path(__file__).with_name("encoder.npz")):
    """Give a Ridge that predicts and scores; `coef_` (n_features, n_voxels), `intercept_` (n_voxels,)."""
    with np.load(path, allow_pickle=False) as arrays:
        ridge = Ridge(fit_intercept=True)
        ridge.coef_, ridge.intercept_ = arrays["coef_"], arrays["intercept_"]
    ridge.n_features_in_, ridge.dtype_ = ridge.coef_.shape[0], str(ridge.coef_.dtype)
    return ridge
'''


def to_himalaya(encoder: LinearEncoder) -> Any:
    """Give a fitted encoder as himalaya's `Ridge`, on its NumPy backend.

    Parameters
    ----------
    encoder
        Fitted.

    Returns
    -------
    himalaya.ridge.Ridge
        `coef_` (n_features, n_voxels), the transpose of ours; `predict` and `score` work as on a fitted one.

    Raises
    ------
    InputError
        If himalaya is not installed.
    """
    try:
        from himalaya.ridge import Ridge
    except ImportError as error:
        raise InputError("this needs himalaya, which is not installed: pip install himalaya") from error
    made = Ridge(fit_intercept=True)
    made.coef_ = np.ascontiguousarray(encoder.coef_.T)
    made.intercept_ = np.array(encoder.intercept_)
    made.n_features_in_ = made.coef_.shape[0]
    made.dtype_ = str(made.coef_.dtype)
    return made


def _arrays(fit: Fitted) -> dict[str, npt.NDArray[Any]]:
    """Everything that predicting and placing voxels takes, as plain arrays.

    `weights` (n_voxels, n_features), `intercept`, `noise_variance` where it is known; `regions` (n_regions,) and
    `in_region` (n_voxels, n_regions); `context` (n_images,), names. In a volume `voxel` (n_voxels, 3), `affine` (4, 4),
    `shape` (3,). On a surface `surface`, its name; `n_vertices` (2,) of the left and the right hemisphere; `vertex`
    (n_voxels,), from 0 in each, -1 below the cortex; `hemisphere`, "L", "R" or "". Of the last n_deep voxels, which lie
    below the cortex, `deep_structure` (n_deep,), CIFTI's name, `deep_voxel` (n_deep, 3), `affine` and `shape`. If the
    betas came on an axis of another order, `axis_order` (n_voxels,): which voxel of these arrays each of the axis's
    grayordinates is.
    """
    encoder, names = fit.encoder, list(fit.rois)
    arrays: dict[str, npt.NDArray[Any]] = {
        "weights": np.asarray(encoder.coef_),
        "intercept": np.asarray(encoder.intercept_),
        "context": np.asarray(fit.context, dtype=np.str_),
        "regions": np.asarray(names, dtype=np.str_),
        "in_region": np.stack([fit.rois[name] for name in names], axis=1)
        if names
        else np.zeros((fit.space.n_voxels, 0), dtype=bool),
    }
    if hasattr(encoder, "noise_variance_"):
        arrays["noise_variance"] = np.asarray(encoder.noise_variance_)
    return arrays | _places(fit.space)


def model_card(fit: Fitted, *, creator: str = "", training_dataset: str = "", license_: str = "") -> dict[str, Any]:
    """Describe a fit in the fields of BERG's registry.

    Parameters
    ----------
    fit
        The fit.
    creator, training_dataset, license_
        What nothing in a fit says; "" where it is not to be said.

    Returns
    -------
    dict
        JSON-serialisable: `model_id`, `modality`, `training_dataset`, `species`, `stimuli`, `model_type`, `creator`,
        `description`, `metadata`, `input`, `output`, `parameters`, `performance`, `references`.
    """
    from jinja2 import Environment, StrictUndefined  # a tenth of a second, which other verbs need not wait

    features = fit.config["features_provenance"]
    backbone = str(features.get("backbone", "unknown"))
    n_voxels, n_features = fit.encoder.coef_.shape
    kind = str(fit.config.get("encoder", type(fit.encoder).__name__))
    named = [_plain(name) for name in (training_dataset, backbone.partition(":")[2] or backbone, kind) if name]
    environment = Environment(undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {}  # keys stay in their order
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        fit=fit,
        model_id="-".join(["fmri", *named]),
        kind=kind,
        backbone=backbone,
        features=_plain_values(features),
        n_voxels=n_voxels,
        n_features=n_features,
        regions={name: int(members.sum()) for name, members in fit.rois.items()},
        scored={name: round(mean_over_voxels(v), 4) for name, v in fit.scores.items() if np.isfinite(v).any()},
        meanings=MEANINGS,
        n_left_out=int(fit.config.get("n_left_out", 0) or 0),
        creator=creator,
        training_dataset=training_dataset,
        license=license_,
        version=__version__,
        arrays=ARRAYS,
    )
    card: dict[str, Any] = json.loads(text)
    return card


def export(fit: Fitted, path: str | Path, *, format: Format = "npz", overwrite: bool = False, **about: str) -> Path:
    """Write a fit for others.

    Parameters
    ----------
    fit
        The fit.
    path
        Folder that does not exist yet, or (with `overwrite`) holds an earlier export.
    format
        "npz" (plain arrays), "himalaya" (and a script that makes its estimator of them) or "berg" (in BERG's folders).
    overwrite
        Replace that.
    **about
        `creator`, `training_dataset`, `license_`: what the card is to say and nothing in a fit does.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If there is no such format.
    OutputError
        If the folder is taken or cannot be written, or does not read back the same.
    """
    if format not in FORMATS:
        raise InputError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    check_destination(path, overwrite=overwrite, kind=KIND)
    arrays, card = _arrays(fit), model_card(fit, **about)
    where = Path(ARRAYS)
    if format == "himalaya":
        arrays["coef_"], arrays["intercept_"] = arrays.pop("weights").T, arrays.pop("intercept")
        card["output"]["description"] = f"features @ coef_ + intercept_, of {ARRAYS}: load() of {SCRIPT}."
    elif format == "berg":
        data = _plain(about.get("training_dataset", "")) or "own"
        model = card["model_id"].removeprefix("fmri-").removeprefix(f"{data}-")
        where = Path("encoding_models", "modality-fmri", f"train_dataset-{data}", f"model-{model}")
        where = where / "encoding_models_weights" / f"weights_subject-{fit.subject.removeprefix('sub-')}.npz"
        card["output"]["description"] = f"features @ weights.T + intercept, of {where.as_posix()}."
    with staged_directory(path, overwrite=overwrite, kind=KIND) as folder:
        _write_arrays(folder / where, arrays)
        if format == "berg":
            text = yaml.safe_dump(_plain_values(card), sort_keys=False, allow_unicode=True, width=120)
            _write(folder / "berg" / "models" / "model_cards" / f"{card['model_id']}.yaml", text)
        else:
            _write(folder / CARD, json.dumps(card, indent=2, ensure_ascii=False, default=str) + "\n")
        if format == "himalaya":
            _write(folder / SCRIPT, _SCRIPT)
    return Path(path)


def _write_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    with np.load(path, allow_pickle=False) as read:
        for name, values in arrays.items():
            if not np.array_equal(read[name], values, equal_nan=values.dtype.kind == "f"):
                raise OutputError(f"{path} did not read back as it was written: try again.")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _plain(name: str) -> str:
    """Name as BERG writes parts of a model's name: words joined by `_`, since `-` joins the parts."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def _plain_values(value: Any) -> Any:
    """Give what JSON would hold: provenance has tuples and numbers of NumPy, which YAML would tag as Python's own."""
    return json.loads(json.dumps(value, default=str))


def _places(space: VoxelSpace) -> dict[str, npt.NDArray[Any]]:
    if space.mask is not None and space.affine is not None:
        voxels = np.argwhere(space.mask)[space.included]
        return {"voxel": voxels, "affine": space.affine, "shape": np.asarray(space.mask.shape)}
    if space.surface is None:
        return {}
    surface = space.surface.select(space.included)
    left, right = np.flatnonzero(surface.left), np.flatnonzero(surface.right)
    deep = surface.n_chosen - left.size - right.size
    places: dict[str, npt.NDArray[Any]] = {
        "surface": np.asarray(surface.name),
        "n_vertices": np.asarray([surface.left.size, surface.right.size]),
        "vertex": np.concatenate([left, right, np.full(deep, -1)]),
        "hemisphere": np.concatenate([np.full(left.size, "L"), np.full(right.size, "R"), np.full(deep, "")]),
    }
    if surface.subcortex is not None:
        below = surface.subcortex
        places |= {"deep_structure": below.structures, "deep_voxel": below.voxels}
        places |= {"affine": below.affine, "shape": np.asarray(below.shape)}
    if surface.order is not None:
        places["axis_order"] = surface.order
    return places
