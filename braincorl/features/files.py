"""Feature files: one row per image, with the image's name and the features' provenance.

Four containers hold the same three things, `features` (n_images, n_features), `image_ids` (n_images,) and an optional
`provenance` (JSON): `.npz`, `.h5`, `.safetensors`, and `.npy` with the names in a text file beside it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from braincorl.errors import FileFormatError, InputError
from braincorl.files import atomic_file
from braincorl.tensorfile import read_metadata
from braincorl.validation import FloatArray, check_finite

# What makes two feature files one space. Other keys of a provenance (dates, counts) may differ.
SPACE_KEYS = ("backbone", "weights", "preprocessing", "layer", "pooling", "normalized")


@dataclass(frozen=True)
class FeatureTable:
    """Features of named images.

    Attributes
    ----------
    features
        (n_images, n_features), float32 or float64.
    image_ids
        One distinct name per image (n_images,).
    provenance
        Where the features come from; empty if unknown.

    Raises
    ------
    InputError
        If the shapes do not match, a name occurs twice, or a value is not finite.
    """

    features: FloatArray
    image_ids: npt.NDArray[np.str_]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or 0 in self.features.shape:
            raise InputError(f"features has shape {self.features.shape}: expected (n_images, n_features), both ≥ 1.")
        if self.image_ids.shape != self.features.shape[:1]:
            raise InputError(
                f"image_ids has shape {self.image_ids.shape} but there are {self.features.shape[0]} rows of features: "
                "name every row once."
            )
        names, counts = np.unique(self.image_ids, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"image_ids names '{names[counts.argmax()]}' {counts.max()} times: names must differ.")
        check_finite(self.features, "features")

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return int(self.features.shape[1])

    def rows(self, image_ids: Iterable[str]) -> npt.NDArray[np.intp]:
        """Row of each named image.

        Parameters
        ----------
        image_ids
            Names, all of which must be in the table.

        Returns
        -------
        ndarray of shape (n_names,)

        Raises
        ------
        InputError
            If a name is missing.
        """
        position = {name: row for row, name in enumerate(self.image_ids.tolist())}
        names = [str(name) for name in image_ids]
        missing = [name for name in names if name not in position]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(names)} images have no features, such as '{missing[0]}': "
                "embed them, or leave them out."
            )
        return np.array([position[name] for name in names], dtype=np.intp)


def load_features(path: str | Path, image_ids: str | Path | None = None) -> FeatureTable:
    """Read a feature file.

    Parameters
    ----------
    path
        `.npz`, `.h5`, `.safetensors` or `.npy`.
    image_ids
        Text file with one image name per line; needed for `.npy`, which holds no names.

    Returns
    -------
    FeatureTable

    Raises
    ------
    InputError
        If the file is missing, of an unknown kind, or its content does not fit together.
    FileFormatError
        If it is truncated or damaged, or would run code when read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is not a file: pass a feature file (.npz, .h5, .safetensors, .npy)."
        )
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} has an unknown ending: feature files end in {', '.join(_READERS)}.")
    try:
        features, names, provenance = reader(path)
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        if isinstance(error, InputError):
            raise
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path} cannot be read as features ({detail}): it is damaged or of another kind."
        ) from error
    if image_ids is not None:
        names = np.asarray(read_names(image_ids))
    if names is None:
        raise InputError(f"{path} holds no image_ids: pass a text file with one image name per line (--image-ids).")
    try:
        return FeatureTable(_as_floats(features, path), names.astype(np.str_), provenance)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_features(path: str | Path, table: FeatureTable) -> None:
    """Write features as `.npz`, whole or not at all.

    Parameters
    ----------
    path
        Destination, ending in `.npz`.
    table
        What to write.

    Raises
    ------
    InputError
        If the name does not end in `.npz`.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path} must end in .npz: that is the format written.")
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            features=table.features,
            image_ids=table.image_ids,
            provenance=np.asarray(json.dumps(dict(table.provenance), sort_keys=True)),
        )


def check_same_space(provenance: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    """Refuse features of another backbone, weights or preprocessing than a model was made with.

    Only what both sides state is compared: files without provenance pass.

    Parameters
    ----------
    provenance
        Of the features at hand.
    expected
        Of the features that the model was made with.
    what
        Name of the model, for the message.

    Raises
    ------
    InputError
        Naming what differs, and both values.
    """
    for key in SPACE_KEYS:
        if key in provenance and key in expected and provenance[key] != expected[key]:
            raise InputError(
                f"the features have {key} '{provenance[key]}' but {what} was made with '{expected[key]}': "
                "embed the images the same way."
            )


def read_names(path: str | Path) -> list[str]:
    """Read a text file of one name per line; blank lines are skipped.

    Raises
    ------
    InputError
        If it cannot be read as text or holds no name.
    """
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a text file of one name per line: {error}.") from error
    if not names:
        raise InputError(f"{path} holds no names: write one image name per line.")
    return names


def _as_floats(features: npt.NDArray[Any], path: Path) -> FloatArray:
    if not (np.issubdtype(features.dtype, np.floating) or np.issubdtype(features.dtype, np.integer)):
        raise InputError(f"features in {path} are of type {features.dtype}, expected numbers.")
    return features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)


Parts = tuple[npt.NDArray[Any], npt.NDArray[Any] | None, dict[str, Any]]


def _read_npz(path: Path) -> Parts:
    # Opened here, because NumPy would leave a damaged archive open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        if "features" not in file:
            raise InputError(f"{path} holds {', '.join(sorted(file)) or 'nothing'} but no 'features'.")
        names = file.get("image_ids")
        provenance = json.loads(str(file["provenance"])) if "provenance" in file else {}
        return file["features"], names, provenance


def _read_npy(path: Path) -> Parts:
    return np.load(path, allow_pickle=False), None, {}


def _read_hdf5(path: Path) -> Parts:
    import h5py

    with h5py.File(path, "r") as file:
        if "features" not in file:
            raise InputError(f"{path} holds {', '.join(sorted(file)) or 'nothing'} but no 'features'.")
        names = file["image_ids"].asstr()[:] if "image_ids" in file else None
        provenance = file.attrs.get("provenance") or (file["provenance"].asstr()[()] if "provenance" in file else "{}")
        return file["features"][:], names, json.loads(provenance)


def _read_safetensors(path: Path) -> Parts:
    from safetensors import SafetensorError, safe_open

    metadata = read_metadata(path)
    try:
        with safe_open(path, framework="numpy") as file:
            features = file.get_tensor("features")
    except SafetensorError as error:
        raise FileFormatError(f"{path} holds no readable 'features': {error}.") from error
    names = np.asarray(json.loads(metadata["image_ids"])) if "image_ids" in metadata else None
    return features, names, json.loads(metadata.get("provenance", "{}"))


_READERS: dict[str, Callable[[Path], Parts]] = {
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".safetensors": _read_safetensors,
    ".npy": _read_npy,
}
