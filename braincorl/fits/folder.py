"""The parts of a folder of results: maps with BIDS names, the voxels' space, options, and a description of it all.

`braincorl.fits.Fit` puts them together for a fit; scores, predictions and answers to queries use them, too.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from fnmatch import filter as filter_names
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl import __version__
from braincorl.datasets.space import ALIGNED, Surface, VoxelSpace
from braincorl.encoders.base import LinearEncoder
from braincorl.errors import FileFormatError, InputError
from braincorl.fits.maps import Outside, read_map, save_map
from braincorl.names import check_names, file_labels
from braincorl.questions.partition import VariancePartition
from braincorl.storage.files import GENERATOR, read_json, write_json
from braincorl.storage.tensorfile import read_tensors, write_tensors

SPACE_KIND = "braincorl-space/1"
BIDS_VERSION = "1.9.0"

# What config.json must hold, and of which type.
_CONFIG = {"subject": str, "prefix": str, "zscore": str, "features_provenance": dict}

README = """# {name}

Written by braincorl {version}.
"""

# What a file is, for the README of the folder that holds it.
CONTENTS = {
    "*_statmap.*": "maps, each described by the JSON file beside it",
    "*_trials.tsv": "which image each volume of the maps is of",
    "encoder.safetensors": "weights, intercepts, noise, provenance; read it with `braincorl.load_encoder`",
    "space.safetensors": "mask, affine, regions",
    "config.json": "inputs, options and counts",
    "context.txt": "the images that the encoder was fitted on",
    "scores.tsv": "scores of images that the encoder had not seen",
    "*_dseg.*": "the region that each voxel is most like, where the prior knows regions",
    "partition.tsv": "what each feature space explains, uniquely and shared, per region, with intervals over images",
    "identification.tsv": "rank of the image that was seen, and the likeliest candidates, for each response",
    "comparison.tsv": "explained variance of both fits and their difference per region",
    "regions.tsv": "explained variance per region",
    "selection.tsv": "voxels that each text selects, per region",
    "voxels.tsv": "the voxels with the most evidence (z) of being selective for each text",
    "images.tsv": "images that drive each region, and each text's voxels, most",
    "words.tsv": "of all texts at hand, those that each region is most selective for",
    "accuracy.tsv": "how well texts find the regions of the localiser, or responses the image that was seen",
    "figure.png": "the figure of the tables",
    "report.html": "everything at a glance",
    "fit": "a fit, as `braincorl fit` writes it",
    "simulated": "the inputs, in the formats that measured data would have",
}

# Map name -> (what it is, unit).
MAPS = {
    "alpha": ("Regularisation of each voxel's ridge regression, chosen by cross-validation", "arbitrary"),
    "cvr2": ("Cross-validated R² over the context images, at the regularisation chosen on it", "1"),
    "ev": ("Explained variance of held-out responses, 1 - Var(y - prediction) / Var(y)", "1"),
    "evlow": ("Lower end of the 95 % bootstrap interval over images of ev, of several feature spaces", "1"),
    "evhigh": ("Upper end of the 95 % bootstrap interval over images of ev, of several feature spaces", "1"),
    "evnormalized": (
        "Explained variance of held-out responses over its noise ceiling; both are estimates, so it can exceed 1",
        "1",
    ),
    "evdifference": ("Explained variance of held-out responses by the first fit less that by the second", "1"),
    "evshared": ("Explained variance that is not unique to one feature space", "1"),
    "evsharedlow": ("Lower end of the 95 % bootstrap interval over images of evshared", "1"),
    "evsharedhigh": ("Upper end of the 95 % bootstrap interval over images of evshared", "1"),
    "winningspace": ("Number of the feature space with the largest part of the explained variance, 0 for none", "1"),
    "noiseceiling": ("Largest explained variance that a perfect encoder could reach, given the noise", "1"),
    "noisevariance": ("Variance of a response around the encoder's prediction", "squared response unit"),
    "p": ("One-sided p of the held-out responses being no better predicted than in another order of the images", "1"),
    "pfamilywise": ("That p, with the chance of any false finding over all voxels controlled (largest statistic)", "1"),
    "pdifference": ("Two-sided p of two fits predicting the held-out responses equally well (paired over images)", "1"),
    "q": ("Smallest false discovery rate over voxels at which a voxel is found (Benjamini and Hochberg)", "1"),
    "qdifference": ("Smallest false discovery rate over voxels at which the difference of two fits is found", "1"),
    "r": ("Pearson correlation of held-out and predicted responses", "1"),
    "r2": ("Coefficient of determination of held-out responses", "1"),
    "rnormalized": ("Pearson correlation of held-out responses over the square root of the noise ceiling", "1"),
    "signalfraction": ("Posterior mean of the share of response variance that the features explain", "1"),
}


def check_prefix(prefix: Any) -> str:
    """Refuse what maps' names cannot begin with: a path would lead out of the folder of results.

    Raises
    ------
    InputError
        If it is anything but letters, digits, `_` and `-`.
    """
    if not (isinstance(prefix, str) and re.fullmatch(r"[A-Za-z0-9_-]+", prefix)):
        raise InputError(f"the prefix of maps is {prefix!r}, but must be letters, digits, '_' and '-' only.")
    return prefix


def bids_prefix(betas: Path, name: str) -> str:
    """BIDS entities for maps: those of the betas file that are not about one session or run."""
    entities = dict(re.findall(r"(task|acq|space|res)-([A-Za-z0-9]+)", betas.name))
    order = ("task", "acq", "space", "res")
    return "_".join([name, *(f"{key}-{entities[key]}" for key in order if key in entities)])


def hash_responses(responses: npt.NDArray[Any]) -> str:
    """SHA-256 over responses (n_images, n_voxels) and their shape, to tell which betas a result comes from."""
    return hash_rows([responses], responses.shape, responses.dtype)


def hash_rows(parts: Iterable[npt.NDArray[Any]], shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """`hash_responses` of responses that are given some images at a time."""
    digest = hashlib.sha256(f"{shape} {dtype.str}".encode())
    for part in parts:
        for row in part:
            digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()


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
    check_prefix(prefix)
    paths = []
    for name, values in maps.items():
        description, unit = MAPS[name]
        sidecar = {"Description": description, "Units": unit, "Software": f"{GENERATOR} {__version__}"}
        path = folder / f"{prefix}_stat-{name}_statmap.nii.gz"
        paths.append(save_map(values, space, path, sidecar, outside))
    return paths


# Maps of each feature space, with desc-NAME in their names: (part, bound) -> (name, what it is).
SPACE_MAPS = {
    ("share", "values"): ("evshare", "Part of the explained variance that a feature space has (product measure)"),
    ("share", "low"): ("evsharelow", "Lower end of the 95 % bootstrap interval over images of evshare"),
    ("share", "high"): ("evsharehigh", "Upper end of the 95 % bootstrap interval over images of evshare"),
    ("unique", "values"): ("evunique", "Explained variance that is lost without a feature space"),
    ("unique", "low"): ("evuniquelow", "Lower end of the 95 % bootstrap interval over images of evunique"),
    ("unique", "high"): ("evuniquehigh", "Upper end of the 95 % bootstrap interval over images of evunique"),
    ("alone", "values"): ("evalone", "Explained variance of an encoder that knows one feature space alone"),
}


def write_partition(
    folder: Path, prefix: str, partition: VariancePartition, space: VoxelSpace, outside: Outside = "nan"
) -> None:
    """Write what each feature space explains: maps of every space, the winner, and partition.tsv.

    Parameters are those of `write_maps`.
    """
    maps = {"evshared": partition.values["shared", "all"], "winningspace": partition.winner}
    for part, name in (("ev", "ev"), ("shared", "evshared")):
        maps |= {f"{name}low": partition.low[part, "all"], f"{name}high": partition.high[part, "all"]}
    write_maps(folder, prefix, maps, space, outside)
    described = read_json(folder / f"{prefix}_stat-winningspace_statmap.json")
    levels = {"0": "none: EV is not positive", **{str(n): name for n, name in enumerate(partition.spaces, start=1)}}
    write_json(folder / f"{prefix}_stat-winningspace_statmap.json", described | {"Levels": levels})
    for name, label in zip(partition.spaces, file_labels(partition.spaces, "space"), strict=True):
        for (part, bound), (stat, description) in SPACE_MAPS.items():
            sidecar = {"Description": description, "Units": "1", "FeatureSpace": name}
            sidecar["Software"] = f"{GENERATOR} {__version__}"
            values = getattr(partition, bound)[part, name]
            save_map(values, space, folder / f"{prefix}_stat-{stat}_desc-{label}_statmap.nii.gz", sidecar, outside)
    partition.regions.to_csv(folder / "partition.tsv", sep="\t", index=False, na_rep="n/a")


def read_maps(folder: Path, prefix: str, space: VoxelSpace) -> dict[str, npt.NDArray[np.float64]]:
    """Read the maps that `write_maps` wrote, those among `MAPS` that are there, as name -> (n_voxels,).

    Raises
    ------
    InputError
        If a map lies in another space.
    FileFormatError
        If a map is damaged.
    """
    check_prefix(prefix)
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


def read_config(path: Path) -> dict[str, Any]:
    """Read the options of a fit, and check those that other verbs go by: somebody's script may have changed them.

    Raises
    ------
    InputError
        If one is missing or impossible.
    """
    config = read_json(path / "config.json")
    missing = sorted(_CONFIG.keys() - config.keys())
    if missing:
        raise InputError(f"{path} is incomplete: config.json lacks {', '.join(missing)}; fit again.")
    for name, kind in {**_CONFIG, "n_context": int}.items():
        if name in config and not isinstance(config[name], kind):
            raise InputError(
                f"{path}, config.json: '{name}' is {config[name]!r}, expected a {kind.__name__}; get a whole copy."
            )
    if config["zscore"] not in ("none", "session"):
        raise InputError(f"{path}, config.json: 'zscore' is '{config['zscore']}', expected none or session.")
    try:
        check_prefix(config["prefix"])
    except InputError as error:
        raise InputError(f"{path}, config.json: {error}") from error
    return config


def write_description(folder: Path, name: str, note: str = "") -> None:
    """Describe a folder of results, once its files are there.

    That is the `dataset_description.json` of a BIDS derivative, which files are beyond BIDS, and a README.

    Parameters
    ----------
    folder
        The folder.
    name
        What it holds.
    note
        What a reader must know.
    """
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": GENERATOR, "Version": __version__}],
    }
    write_json(folder / "dataset_description.json", description)
    # BIDS has no name for statistical maps yet, and these folders are derivatives of their own; its validator asks for
    # such files to be listed here.
    ignored = [
        "*.safetensors",
        "config.json",
        "context.txt",
        "*.tsv",
        "*.png",
        "*.html",
        "*.npy",
        "*statmap*",
        "*dseg*",
    ]
    ignored += ["scores", "benchmark", "fit", "simulated"]
    (folder / ".bidsignore").write_text("\n".join(ignored) + "\n")
    _write_readme(folder, name, note)


def _write_readme(folder: Path, name: str, note: str) -> None:
    lines = [README.format(name=name, version=__version__), *([f"{note}\n"] if note else [])]
    names = [path.name for path in folder.iterdir()]
    lines += [f"- `{pattern}`: {what}" for pattern, what in CONTENTS.items() if filter_names(names, pattern)]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_space(path: Path, space: VoxelSpace, rois: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    """Write a voxel space and its regions to one checked file."""
    arrays: dict[str, npt.NDArray[Any]] = {"included": space.included}
    if space.mask is not None and space.affine is not None:
        arrays |= {"mask": space.mask, "affine": space.affine}
    if space.surface is not None:
        arrays |= space.surface.to_arrays()
    names = list(rois)
    arrays |= {f"roi{number}": rois[name] for number, name in enumerate(names)}
    header: dict[str, Any] = {"rois": names, "space_code": space.space_code}
    header |= {} if space.surface is None else {"surface": space.surface.name}
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
    names = header.get("rois")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FileFormatError(f"{path} lists its regions as {names!r}, expected names: get a new copy.")
    check_names(names, f"{path}: the region")
    regions = [f"roi{number}" for number in range(len(names))]
    for name in ("included", *regions, *(("left", "right") if "surface" in header else ())):
        if name not in arrays:
            raise FileFormatError(f"{path} holds no '{name}': get a new copy.")
    for name in {"included", "mask", "left", "right", *regions} & arrays.keys():
        shape, n_axes = arrays[name].shape, 3 if name == "mask" else 1
        if arrays[name].dtype != np.bool_ or len(shape) != n_axes:
            raise FileFormatError(f"{path}, '{name}': {arrays[name].dtype} {shape}, expected bool with {n_axes} axes.")
    affine = arrays.get("affine")
    if affine is not None and (affine.shape != (4, 4) or not np.isfinite(affine).all()):
        raise FileFormatError(f"{path} holds an affine of shape {affine.shape}, expected finite numbers (4, 4).")
    try:
        surface = Surface.from_arrays(arrays, str(header["surface"])) if "surface" in header else None
        code = header.get("space_code", ALIGNED)
        space = VoxelSpace(arrays["included"], arrays.get("mask"), affine, surface, code)
    except InputError as error:
        raise FileFormatError(f"{path}: {error}") from error
    rois = {name: arrays[f"roi{number}"] for number, name in enumerate(names)}
    for name, members in rois.items():
        if members.shape != (space.n_voxels,):
            raise FileFormatError(f"{path}: region '{name}' has {members.size} voxels, the space {space.n_voxels}.")
    return space, rois
