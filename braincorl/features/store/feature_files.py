"""Feature files: one row per image, with the image's name and the features' provenance.

Four containers hold the same three things, `features` (n_images, n_features), `image_ids` (n_images,) and an optional
`provenance` (JSON): `.h5`, `.npz`, `.safetensors`, and `.npy` with the names in a text file beside it. `.h5` is for any
size: it is written block by block of rows, holds them in one run, and a large one is mapped, not read, so that only the
rows that are used come into memory (`.npy`, too). The others are for what fits there.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from braincorl.batching import working_memory
from braincorl.errors import FileFormatError, InputError
from braincorl.features.store.table import FeatureTable, join_tables, row_blocks, rows_of, take_rows
from braincorl.names import normal_name
from braincorl.storage.files import atomic_file, check_regular, json_text, read_text, reading, text_lines
from braincorl.storage.hdf5 import dataset_in, find_dataset, is_sealed, new_hdf5, open_hdf5
from braincorl.storage.tensorfile import read_metadata, read_tensors, write_tensors
from braincorl.validation import FloatArray

logger = logging.getLogger(__name__)

# A file beyond this share of the working memory is mapped, unless told otherwise.
_MAPPED_FROM = 1 / 4
ENDINGS = (".npz", ".h5", ".hdf5", ".safetensors")
KIND = "braincorl-features/1"  # of a `.safetensors` file of ours


def load_features(
    path: str | Path,
    image_ids: str | Path | None = None,
    only: Iterable[str] | None = None,
    mapped: bool | None = None,
) -> FeatureTable:
    """Read a feature file.

    Parameters
    ----------
    path
        `.npz`, `.h5`, `.safetensors` or `.npy`.
    image_ids
        Text file with one image name per line; needed for `.npy`, which holds no names.
    only
        Names of the images to keep, in this order; of a mapped file, only their rows are read.
    mapped
        Leave the features of a `.h5` or `.npy` file there and map them (read-only); by default beyond a quarter of
        the working memory (`braincorl.batching`).
        Chunked, compressed and half precision features are always read. Checksums are verified either way.

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
    reader = _READERS.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"{path} has an unknown ending: feature files end in {', '.join(_READERS)}.")
    path = check_regular(path, f"feature file ({', '.join(_READERS)}), as braincorl embed writes")
    with reading(path, "cannot be read as features"):
        large = path.stat().st_size >= _MAPPED_FROM * working_memory()
        features, stored, text, is_checked = reader(path, large if mapped is None else mapped)
        names = None if stored is None else _as_text(stored)
        provenance = _read_provenance(text)
        if not is_checked:
            logger.info("%s was written without a checksum, so damage to it would not be noticed", path)
        if names is not None and names.ndim == 1:
            names = np.asarray([normal_name(name) for name in names.tolist()], dtype=np.str_)
    if image_ids is not None:
        names = np.asarray(read_names(image_ids))
    if names is None:
        raise InputError(f"{path} holds no image_ids: pass a text file with one image name per line (--image-ids).")
    try:
        return _make_table(features, names, provenance, only)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_features(path: str | Path, table: FeatureTable) -> None:
    """Write features, whole or not at all, a block of rows at a time.

    Parameters
    ----------
    path
        Destination, ending in `.npz`, `.h5` or `.safetensors`.
    table
        What to write.

    Raises
    ------
    InputError
        If the name ends otherwise.
    OutputError
        If the file cannot be written.
    """
    blocks = row_blocks(table.features)
    shape = (len(table.image_ids), table.n_features)
    write_matrix(path, blocks, shape, table.image_ids.tolist(), table.provenance, table.features.dtype)


def write_matrix(
    path: str | Path,
    blocks: Iterable[FloatArray],
    shape: tuple[int, int],
    image_ids: Sequence[str],
    provenance: Mapping[str, Any],
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Write a feature file from blocks of rows, whole or not at all; only `.h5` never holds more than a block.

    Parameters
    ----------
    path
        Destination, ending in `.npz`, `.h5` or `.safetensors`.
    blocks
        Arrays (n, n_features) that make up the rows, in order.
    shape
        (n_images, n_features).
    image_ids
        One name per row.
    provenance
        JSON-serialisable.
    dtype
        Floating type to write.

    Raises
    ------
    InputError
        If the ending is unknown.
    OutputError
        If the file cannot be written; nothing has changed then.
    """
    path = Path(path)
    check_ending(path)
    text = json_text(provenance, sort_keys=True)
    kind = np.dtype(dtype).newbyteorder("<")
    if path.suffix.lower() in (".h5", ".hdf5"):
        with atomic_file(path) as temporary:
            _write_hdf5(temporary, blocks, shape, list(image_ids), text, kind)
        return
    with atomic_file(path) as temporary:
        features = np.empty(shape, kind)
        _fill(features, blocks, lambda: None)
        if path.suffix.lower() == ".npz":
            with temporary.open("wb") as file:  # of a name NumPy makes another where it does not end in small letters
                np.savez(file, features=features, image_ids=np.asarray(image_ids), provenance=np.asarray(text))
        elif path.suffix.lower() == ".safetensors":
            write_tensors(temporary, KIND, {"features": features}, {"image_ids": list(image_ids), "provenance": text})


def _fill(target: Any, blocks: Iterable[FloatArray], check: Callable[[], None]) -> None:
    start = 0
    for block in blocks:
        target[start : start + len(block)] = block
        start += len(block)
        check()


def check_ending(path: str | Path) -> None:
    """Refuse a destination whose ending names no writable container, before any work is done.

    Raises
    ------
    InputError
        Naming the endings that can be written.
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise InputError(f"{path} must end in one of {', '.join(ENDINGS)}: those formats are written.")


def _write_hdf5(
    path: Path,
    blocks: Iterable[FloatArray],
    shape: tuple[int, int],
    names: list[str],
    provenance: str,
    dtype: np.dtype[Any],
) -> None:
    import h5py

    with new_hdf5(path, sealed=True) as (file, check):
        dataset = file.create_dataset("features", shape, dtype)  # in one run, so that it can be mapped
        _fill(dataset, blocks, check)
        file.create_dataset("image_ids", data=names, dtype=h5py.string_dtype())
        # A dataset, not an attribute: attributes end at 64 KiB.
        file.create_dataset("provenance", data=provenance, dtype=h5py.string_dtype())


def load_spaces(files: Path | Mapping[str, Path], image_ids: Path | None = None) -> FeatureTable:
    """Read one feature file, or those of several named spaces, joined; errors are those of `load_features`."""
    if isinstance(files, Mapping):
        return join_tables({name: load_features(path, image_ids) for name, path in files.items()})
    return load_features(files, image_ids)


def read_names(path: str | Path) -> list[str]:
    """Read a text file of one name per line; blank lines are skipped.

    Raises
    ------
    InputError
        If it cannot be read as text or holds no name.
    """
    text = read_text(path, "text file of one name per line")
    names = [normal_name(line.strip()) for line in text_lines(text) if line.strip()]
    if not names:
        raise InputError(f"{path} holds no names: write one image name per line.")
    return names


def _make_table(
    features: npt.NDArray[Any],
    names: npt.NDArray[np.str_],
    provenance: dict[str, Any],
    only: Iterable[str] | None,
) -> FeatureTable:
    if not (np.issubdtype(features.dtype, np.floating) or np.issubdtype(features.dtype, np.integer)):
        raise InputError(f"features are of type {features.dtype}, expected numbers.")
    if only is not None:
        if features.ndim != 2 or names.shape != features.shape[:1]:
            FeatureTable(features, names)  # says what does not fit
        rows = rows_of(names, only)
        return FeatureTable(_as_floats(take_rows(features, rows)), names[rows], provenance)
    return FeatureTable(_as_floats(features), names, provenance)


def _as_floats(features: npt.NDArray[Any]) -> FloatArray:
    return features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)


def _as_text(names: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names.astype(np.str_)


def _read_provenance(text: str) -> dict[str, Any]:
    provenance = json.loads(text)
    if not isinstance(provenance, dict):
        raise ValueError(f"its provenance is a {type(provenance).__name__}, expected a JSON object")
    return provenance


Parts = tuple[npt.NDArray[Any], npt.NDArray[Any] | None, str, bool]
"""Features, names, provenance as JSON text, and whether the container is checked by a checksum (or never has one)."""


@contextmanager
def _no_objects(path: Path) -> Iterator[None]:
    """Say what arrays of Python objects are, such as names that were no text when they were saved."""
    try:
        yield
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{path} holds Python objects, which are not read, as that could run code: save numbers as float32, names "
            "as text, np.asarray(image_ids, dtype=str)."
        ) from error


def _read_npz(path: Path, mapped: bool) -> Parts:
    # Opened here, because NumPy would leave a damaged archive open.
    with path.open("rb") as raw:
        with ZipFile(raw) as archive:
            damaged = archive.testzip()  # first, as a damaged shape may ask for any amount of memory
        if damaged is not None:
            raise BadZipFile(f"{damaged} fails its checksum")
        raw.seek(0)
        with _no_objects(path), np.load(raw, allow_pickle=False) as file:
            if "features" not in file:
                raise InputError(f"{path} holds {', '.join(sorted(file)) or 'nothing'} but no 'features'.")
            provenance = str(file["provenance"]) if "provenance" in file else "{}"
            return file["features"], file.get("image_ids"), provenance, True


def _read_npy(path: Path, mapped: bool) -> Parts:
    # Mapped first, as NumPy then refuses a shape that the file cannot hold.
    with _no_objects(path):
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    return features if mapped else np.array(features), None, "{}", True


def _read_hdf5(path: Path, mapped: bool) -> Parts:
    sealed = is_sealed(path)  # first, as the library may never come back from a damaged file
    with open_hdf5(path) as file:
        dataset = dataset_in(file, "features", path, may_be_virtual=False)
        names, stored = (_read_hdf5_text(file, name, path) for name in ("image_ids", "provenance"))
        provenance = file.attrs.get("provenance") or ("{}" if stored is None else str(stored))
        offset = dataset.id.get_offset() if mapped and dataset.chunks is None else None
        if offset is None or dataset.size == 0:
            return dataset[()], names, provenance, sealed
        return np.memmap(path, dataset.dtype, "r", offset, dataset.shape), names, provenance, sealed


def _read_hdf5_text(file: Any, name: str, path: Path) -> npt.NDArray[Any] | None:
    import h5py

    dataset = find_dataset(file, name, path, may_be_virtual=False)
    if dataset is None:
        return None
    return np.asarray(dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()])


def _read_safetensors(path: Path, mapped: bool) -> Parts:
    from safetensors import safe_open

    metadata = read_metadata(path)
    if metadata.get("format") == KIND:
        arrays, header = read_tensors(path, KIND)
        return arrays["features"], np.asarray(header["image_ids"]), header["provenance"], True
    with safe_open(path, framework="numpy") as file:
        if "features" not in file.keys():  # noqa: SIM118  (it is no dictionary)
            raise InputError(f"{path} holds {', '.join(sorted(file.keys())) or 'nothing'} but no 'features'.")
        kind = file.get_slice("features").get_dtype()
        if kind not in ("F64", "F32", "F16") and kind[0] in "BF" and kind != "BOOL":
            raise InputError(f"{path} holds features of type {kind}, which NumPy does not know: save them as float32.")
        features = file.get_tensor("features")
    names = json.loads(metadata["image_ids"]) if "image_ids" in metadata else None
    provenance, stated = metadata.get("provenance", "{}"), metadata.get("sha256")
    if stated is not None and stated != _earlier_hash(features, names or [], provenance):
        raise FileFormatError(f"{path} cannot be read as features: it fails its checksum, get a new copy.")
    return features, None if names is None else np.asarray(names), provenance, stated is not None


def _earlier_hash(features: npt.NDArray[Any], names: list[str], provenance: str) -> str:
    """Checksum that earlier versions kept with a `.safetensors` file, over all that it holds."""
    facts = json.dumps([list(features.shape), features.dtype.str, names, provenance])
    content = hashlib.sha256(facts.encode())
    content.update(np.ascontiguousarray(features).data)
    return content.hexdigest()


_READERS: dict[str, Callable[[Path, bool], Parts]] = {
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".safetensors": _read_safetensors,
    ".npy": _read_npy,
}
