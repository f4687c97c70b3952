"""A fitted person on disk: the encoder, the space its voxels live in, and everything to repeat it.

dataset_description.json   BIDS derivative, with README.md
encoder.safetensors        weights, intercepts, noise, provenance
space.safetensors          mask, affine, voxels with data, regions
config.json                options, versions, counts
context.txt                images that the encoder was fitted on
sub-XX_stat-*_statmap.nii.gz and .json
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.analysis.maps import Outside, read_map, save_map
from braincorl.datasets.space import Surface, VoxelSpace
from braincorl.encoders import load_encoder
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import InputError
from braincorl.files import GENERATOR, atomic_file, read_json, write_json
from braincorl.tensorfile import read_tensors, write_tensors

SPACE_KIND = "braincorl-space/1"
BIDS_VERSION = "1.9.0"

README = """# {name}

Written by braincorl {version}. What may be here:

- `*_statmap.nii.gz` (or `.dscalar.nii` with `.shape.gii`, or `.npy`): maps, each described by the JSON file beside it
- `encoder.safetensors`: weights, intercepts, noise, provenance; read it with `braincorl.load_encoder`
- `space.safetensors`: mask, affine, regions
- `config.json`: options and counts; `context.txt`: the images that the encoder was fitted on
- `scores.tsv`: scores of images that were left out, per region
"""

# Map name -> (what it is, unit).
MAPS = {
    "alpha": ("Regularisation of each voxel's ridge regression, chosen by cross-validation", "arbitrary"),
    "cvr2": ("Cross-validated R² over the context images, at the regularisation chosen on it", "1"),
    "ev": ("Explained variance of held-out responses, 1 - Var(y - prediction) / Var(y)", "1"),
    "evnormalized": (
        "Explained variance of held-out responses over its noise ceiling; both are estimates, so it can exceed 1",
        "1",
    ),
    "noiseceiling": ("Largest explained variance that a perfect encoder could reach, given the noise", "1"),
    "noisevariance": ("Variance of a response around the encoder's prediction", "squared response unit"),
    "r": ("Pearson correlation of held-out and predicted responses", "1"),
    "r2": ("Coefficient of determination of held-out responses", "1"),
    "rnormalized": ("Pearson correlation of held-out responses over the square root of the noise ceiling", "1"),
    "signalfraction": ("Posterior mean of the share of response variance that the features explain", "1"),
}


@dataclass(frozen=True)
class FitDirectory:
    """What a fit left on disk.

    Attributes
    ----------
    path
        The folder.
    encoder
        Fitted encoder.
    space
        Its voxels.
    rois
        Region name -> bool (n_voxels,).
    config
        Content of config.json.
    context
        Images that the encoder was fitted on.
    """

    path: Path
    encoder: LinearEncoder
    space: VoxelSpace
    rois: dict[str, npt.NDArray[np.bool_]]
    config: dict[str, Any]
    context: list[str]


def write_fit(
    folder: Path,
    encoder: LinearEncoder,
    space: VoxelSpace,
    rois: Mapping[str, npt.NDArray[np.bool_]],
    config: Mapping[str, Any],
    context: npt.NDArray[np.str_],
    provenance: Mapping[str, Any],
) -> None:
    """Write everything but maps into an existing folder.

    Parameters
    ----------
    folder
        Usually one that `braincorl.result_folders.staged_directory` gave.
    encoder
        Fitted on the space's voxels.
    space
        Where the voxels are.
    rois
        Region name -> bool (n_voxels,).
    config
        JSON-serialisable options and counts.
    context
        Images that the encoder was fitted on.
    provenance
        Of the features, kept in the encoder's file.
    """
    write_description(folder, "Voxelwise encoder")
    encoder.save(folder / "encoder.safetensors", provenance)
    write_space(folder / "space.safetensors", space, rois)
    write_json(folder / "config.json", {"braincorl": __version__, **config})
    with atomic_file(folder / "context.txt") as temporary:
        temporary.write_text("".join(f"{image}\n" for image in context), encoding="utf-8")


def read_fit(path: str | Path) -> FitDirectory:
    """Read a folder that `braincorl fit` wrote.

    Raises
    ------
    InputError
        If it is not such a folder.
    FileFormatError
        If a file in it is damaged.
    """
    path = Path(path)
    if not (path / "encoder.safetensors").is_file():
        raise InputError(f"{path} is no fit: it holds no encoder.safetensors; pass the --output-dir of braincorl fit.")
    space, rois = read_space(path / "space.safetensors")
    encoder = load_encoder(path / "encoder.safetensors")
    if encoder.coef_.shape[0] != space.n_voxels:
        raise InputError(
            f"{path} mixes two fits: its encoder has {encoder.coef_.shape[0]} voxels, its space {space.n_voxels}."
        )
    config = read_json(path / "config.json")
    missing = {"subject", "prefix", "zscore", "features_provenance"} - config.keys()
    if missing or not (path / "context.txt").is_file():
        what = f"config.json lacks {', '.join(sorted(missing))}" if missing else "it holds no context.txt"
        raise InputError(f"{path} is incomplete: {what}; fit again.")
    context = (path / "context.txt").read_text(encoding="utf-8").splitlines()
    return FitDirectory(path, encoder, space, rois, config, context)


def write_maps(
    folder: Path, prefix: str, maps: Mapping[str, npt.NDArray[Any]], space: VoxelSpace, outside: Outside = "nan"
) -> list[Path]:
    """Write maps with BIDS names and sidecars.

    Parameters
    ----------
    folder
        Existing folder.
    prefix
        BIDS entities that the names begin with, such as `sub-01_task-images`.
    maps
        Name among `MAPS` -> (n_voxels,).
    space
        Where the voxels are.
    outside
        What voxels outside the mask get.

    Returns
    -------
    list of Path
    """
    paths = []
    for name, values in maps.items():
        description, unit = MAPS[name]
        sidecar = {"Description": description, "Units": unit, "Software": f"{GENERATOR} {__version__}"}
        path = folder / f"{prefix}_stat-{name}_statmap.nii.gz"
        paths.append(save_map(values, space, path, sidecar, outside))
    return paths


def read_maps(folder: Path, prefix: str, space: VoxelSpace) -> dict[str, npt.NDArray[np.float64]]:
    """Read the maps that `write_maps` wrote, those among `MAPS` that are there, as name -> (n_voxels,).

    Raises
    ------
    InputError
        If a map lies in another space.
    FileFormatError
        If a map is damaged.
    """
    ending = ".dscalar.nii" if space.surface is not None else ".nii.gz" if space.mask is not None else ".npy"
    paths = {name: folder / f"{prefix}_stat-{name}_statmap{ending}" for name in MAPS}
    return {name: read_map(path, space) for name, path in paths.items() if path.is_file()}


def encoder_maps(encoder: LinearEncoder) -> dict[str, npt.NDArray[Any]]:
    """Collect the maps that an encoder itself gives, among `MAPS`."""
    attributes = {
        "noisevariance": "noise_variance_",
        "alpha": "alpha_",
        "cvr2": "cv_r2_",
        "signalfraction": "signal_fraction_",
    }
    return {name: getattr(encoder, attr) for name, attr in attributes.items() if hasattr(encoder, attr)}


def write_description(folder: Path, name: str) -> None:
    """Write the `dataset_description.json` of a BIDS derivative, and tell validators which files are beyond BIDS."""
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": GENERATOR, "Version": __version__}],
    }
    write_json(folder / "dataset_description.json", description)
    (folder / "README.md").write_text(README.format(name=name, version=__version__), encoding="utf-8")
    # BIDS has no name for statistical maps yet, and these folders are derivatives of their own; its validator asks for
    # such files to be listed here.
    ignored = ["*.safetensors", "config.json", "context.txt", "*.tsv", "*.png", "*.html", "*.npy", "*statmap*"]
    ignored += ["scores", "benchmark", "fit", "simulated"]
    (folder / ".bidsignore").write_text("\n".join(ignored) + "\n")


def write_space(path: Path, space: VoxelSpace, rois: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Write a voxel space and its regions to one checked file."""
    arrays: dict[str, npt.NDArray[Any]] = {"included": space.included}
    if space.mask is not None and space.affine is not None:
        arrays |= {"mask": space.mask, "affine": space.affine}
    if space.surface is not None:
        arrays |= {"left": space.surface.left, "right": space.surface.right}
    names = list(rois)
    arrays |= {f"roi{number}": rois[name] for number, name in enumerate(names)}
    header = {"rois": names} | ({} if space.surface is None else {"surface": space.surface.name})
    write_tensors(path, SPACE_KIND, arrays, header)


def read_space(path: Path) -> tuple[VoxelSpace, dict[str, npt.NDArray[np.bool_]]]:
    """Read what `write_space` wrote.

    Raises
    ------
    InputError
        If the file is missing.
    FileFormatError
        If it is damaged.
    """
    arrays, header = read_tensors(path, SPACE_KIND)
    surface = Surface(arrays["left"], arrays["right"], header["surface"]) if "surface" in header else None
    space = VoxelSpace(arrays["included"], arrays.get("mask"), arrays.get("affine"), surface)
    return space, {name: arrays[f"roi{number}"] for number, name in enumerate(header["rois"])}
