"""A fitted person for those who do not use braincorl: himalaya's estimator, one plain `.npz`, and a model card.

The `.npz` opens with NumPy alone, without pickles. The card bears the fields that the registry of the Brain Encoding
Response Generator (BERG, github.com/gifale95/BERG) asks of a model.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.datasets.space import VoxelSpace
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError, OutputError
from braincorl.files import atomic_file
from braincorl.result_folders import check_destination, staged_directory

ARRAYS = "encoder.npz"
CARD = "model_card.json"
KIND = "export"


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


def export_arrays(fit: Any) -> dict[str, npt.NDArray[Any]]:
    """Everything that predicting and placing voxels takes, as plain arrays.

    Parameters
    ----------
    fit
        `braincorl.fits.Fit`.

    Returns
    -------
    dict
        `weights` (n_voxels, n_features), `intercept`, `noise_variance` where it is known; `voxel` (n_voxels, 3) with
        `affine` and `shape`, or `vertex` (n_voxels,), from 0 in each hemisphere, with `hemisphere` ("L", "R", "" below
        the cortex); `regions` (n_regions,) and `in_region` (n_voxels, n_regions); `context` (n_images,), names.
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


def model_card(fit: Any, *, creator: str = "", training_dataset: str = "", license_: str = "") -> dict[str, Any]:
    """Describe a fit in the fields of BERG's registry.

    Parameters
    ----------
    fit
        `braincorl.fits.Fit`.
    creator, training_dataset, license_
        What nothing in a fit says; "" where it is not to be said.

    Returns
    -------
    dict
        JSON-serialisable: `model_id`, `modality`, `training_dataset`, `species`, `stimuli`, `model_type`, `creator`,
        `description`, `metadata`, `input`, `output`, `parameters`, `performance`, `references`.
    """
    config, encoder = fit.config, fit.encoder
    features = config["features_provenance"]
    backbone = str(features.get("backbone", "unknown"))
    n_voxels, n_features = encoder.coef_.shape
    kind = str(config.get("encoder", type(encoder).__name__))
    known = [name for name in (training_dataset, backbone.partition(":")[2] or backbone, kind) if name]
    scored = {
        name: round(float(np.nanmean(values)), 4) for name, values in fit.scores.items() if np.isfinite(values).any()
    }
    return {
        "model_id": "fmri-" + "-".join("".join(c if c.isalnum() else "_" for c in name.lower()) for name in known),
        "modality": "fMRI",
        "training_dataset": training_dataset,
        "species": "Human",
        "stimuli": "Images",
        "model_type": f"{kind} over features of {backbone}",
        "creator": creator,
        "license": license_,
        "description": (
            f"Voxelwise encoders of {fit.subject}: {n_voxels} voxels, linear in {n_features} features of {backbone}, "
            f"fitted by braincorl {__version__} from {len(fit.context)} images."
        ),
        "metadata": {
            "subject": fit.subject,
            "n_voxels": n_voxels,
            "n_features": n_features,
            "train_stimuli": len(fit.context),
            "response_scaling": config["zscore"],
            "features": features,
            "roi": {name: int(members.sum()) for name, members in fit.rois.items()},
        },
        "input": {
            "type": "numpy.ndarray",
            "shape": ["batch_size", n_features],
            "description": f"Features of images, of {backbone}, prepared as metadata.features says.",
            "constraints": [],
        },
        "output": {
            "type": "numpy.ndarray",
            "shape": ["batch_size", n_voxels],
            "description": f"features @ weights.T + intercept, of {ARRAYS}, in the units of the fitted responses.",
            "dimensions": [
                {"name": "batch_size", "description": "Number of images."},
                {"name": "n_voxels", "description": "Voxels or vertices, whose places the file says."},
            ],
        },
        "parameters": {},
        "performance": {"held_out_mean": scored, "n_held_out": int(config.get("n_left_out", 0) or 0)},
        "references": ["https://arxiv.org/abs/2505.15813"],
    }


def export(fit: Any, path: str | Path, *, overwrite: bool = False, **about: str) -> Path:
    """Write a fit for others: arrays in `encoder.npz`, and `model_card.json`.

    Parameters
    ----------
    fit
        `braincorl.fits.Fit`.
    path
        Folder that does not exist yet, or (with `overwrite`) holds an earlier export.
    overwrite
        Replace that.
    **about
        As for `model_card`: `creator`, `training_dataset`, `license_`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OutputError
        If the folder is taken or cannot be written, or does not read back the same.
    """
    check_destination(path, overwrite=overwrite, kind=KIND)
    arrays, card = export_arrays(fit), model_card(fit, **about)
    with staged_directory(path, overwrite=overwrite, kind=KIND) as folder:
        with atomic_file(folder / ARRAYS) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        with np.load(folder / ARRAYS, allow_pickle=False) as read:
            for name, values in arrays.items():
                if not np.array_equal(read[name], values, equal_nan=values.dtype.kind == "f"):
                    raise OutputError(f"{folder / ARRAYS} did not read back as it was written: try again.")
        text = json.dumps(card, indent=2, ensure_ascii=False, default=str)
        (folder / CARD).write_text(text + "\n", encoding="utf-8")
    return Path(path)


def _places(space: VoxelSpace) -> dict[str, npt.NDArray[Any]]:
    if space.mask is not None and space.affine is not None:
        voxels = np.argwhere(space.mask)[space.included]
        return {"voxel": voxels, "affine": space.affine, "shape": np.asarray(space.mask.shape)}
    if space.surface is None:
        return {}
    left, right = np.flatnonzero(space.surface.left), np.flatnonzero(space.surface.right)
    deep = space.surface.n_chosen - left.size - right.size
    vertex = np.concatenate([left, right, np.full(deep, -1)])
    side = np.concatenate([np.full(left.size, "L"), np.full(right.size, "R"), np.full(deep, "")])
    return {"vertex": vertex[space.included], "hemisphere": side[space.included]}
