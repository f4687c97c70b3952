"""Real people as arrays, from files outside the repository (BRAINCORL_SHARED)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.vq import kmeans2

Array = npt.NDArray[Any]
BOLD5000_REGIONS = ("EarlyVis", "LOC", "OPA", "PPA", "RSC")


def data_folder() -> Path:
    """Folder of the real data: `$BRAINCORL_SHARED/data`, or beside the repository."""
    root = Path(os.environ.get("BRAINCORL_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
    folder = root / "data"
    if not folder.is_dir():
        raise SystemExit(f"the real data are not at {folder}: set BRAINCORL_SHARED to the folder that holds data/.")
    return folder


@dataclass(frozen=True)
class ActionsPerson:
    """One person of actions_fmri: session 1 to fit on, session 2 to test on, and features made from the others."""

    features: dict[int, Array]  # session -> (60, 15)
    responses: dict[int, Array]  # session -> (60, 8125)


def load_actions() -> tuple[list[ActionsPerson], Array]:
    """Six people, and grid coordinates (8125, 3). All saw the same clips in the same order."""
    folder = data_folder() / "actions_fmri"
    mask = np.asanyarray(nib.load(folder / "mask.nii.gz").dataobj) > 0
    people = []
    for number in range(1, 7):
        stem = folder / f"sub-{number:02d}"
        table = np.load(f"{stem}_features.npz")
        row = {name: i for i, name in enumerate(table["image_ids"].tolist())}
        features, responses = {}, {}
        for session in (1, 2):
            trials = pd.read_csv(f"{stem}_ses-{session}_trials.tsv", sep="\t")["image"]
            features[session] = table["features"][[row[name] for name in trials]].astype(np.float64)
            betas = np.asanyarray(nib.load(f"{stem}_ses-{session}_betas.nii.gz").dataobj)[mask]
            responses[session] = betas.T.astype(np.float64)
        people.append(ActionsPerson(features, responses))
    return people, np.argwhere(mask)


def parcels(coordinates: Array, n_parcels: int) -> Array:
    """Compact parcels of a common grid, as labels (n_voxels,): anatomy without names."""
    points = coordinates.astype(np.float64)
    start = points[np.linspace(0, len(points) - 1, n_parcels).astype(int)]
    _, index = kmeans2(points, start, minit="matrix", iter=30)
    return np.array([f"parcel-{i:03d}" for i in index])


def load_object2vec(features: str) -> tuple[Array, list[Array], list[Array]]:
    """Features (81, p) by name, responses (81, 200) of four people, region labels."""
    data = np.load(data_folder() / "object2vec" / "object2vec.npz")
    responses = [data[f"subj{s:03d}_betas"].astype(np.float64) for s in range(1, 5)]
    rois = [data[f"subj{s:03d}_roinames"][data[f"subj{s:03d}_roi"].astype(int) - 1] for s in range(1, 5)]
    return data[features].astype(np.float64), responses, rois


@dataclass(frozen=True)
class WeightsPerson:
    """One person of bold5000_resnet18: voxel weights, region labels, grid positions."""

    coef: Array
    rois: Array
    positions: Array


def load_bold5000() -> tuple[Array, list[WeightsPerson]]:
    """Features of 1,100 images (1100, 512), and the voxel weights of two people."""
    folder = data_folder() / "bold5000_resnet18"
    weights = np.load(folder / "voxel_weights_subj1_subj2.npz")
    places = np.load(folder / "voxel_positions_subj1_subj2.npz")
    features = np.load(folder / "image_features.npz")["features"].astype(np.float64)
    people = []
    for s in (1, 2):
        coef = [weights[f"subj{s}_{name}_coef"].astype(np.float64) for name in BOLD5000_REGIONS]
        positions = [places[f"subj{s}_{name}_ijk"].astype(np.float64) for name in BOLD5000_REGIONS]
        rois = np.repeat(BOLD5000_REGIONS, [len(part) for part in coef])
        people.append(WeightsPerson(np.concatenate(coef), rois, np.concatenate(positions)))
    return features, people


class PublishedWeights:
    """Weights of an encoder that was fitted elsewhere."""

    def __init__(self, coef: Array) -> None:
        self.coef_ = coef


def draw_noise(rng: np.random.Generator, n_images: int, positions: Array, shared: bool) -> Array:
    """Draw unit noise (n_images, n_voxels); if shared, half of it is smooth over voxels (Gaussian, sd 1.5 voxels)."""
    own = rng.standard_normal((n_images, len(positions)))
    if not shared:
        return own
    distance = ((positions[:, None] - positions[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distance / (2 * 1.5**2))
    smooth = rng.standard_normal(own.shape) @ (kernel / np.linalg.norm(kernel, axis=0))
    return np.sqrt(0.5) * smooth + np.sqrt(0.5) * own
