"""Feature files without holding them in memory: where the numbers lie, and writing them row block by row block.

An uncompressed `.npz`, a `.npy`, a contiguous `.h5` and a `.safetensors` file all hold the matrix as one run of bytes.
`map_matrix` finds that run and maps it, so that only the rows that are used are read; `write_matrix` writes such
files from blocks of rows, so that no more than a block is ever held.
"""

import hashlib
import json
import mmap
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.files import atomic_file, json_text
from braincorl.hdf5 import find_dataset, new_hdf5, open_hdf5
from braincorl.validation import FloatArray, check_finite

BLOCK_BYTES = 16 * 2**20
ENDINGS = (".npz", ".h5", ".hdf5", ".safetensors")

Blocks = Iterable[FloatArray]


@dataclass(frozen=True)
class MatrixPlace:
    """Where a matrix lies in a file: `shape` numbers of `dtype` in C order, from byte `offset`."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def map_matrix(path: Path) -> npt.NDArray[Any] | None:
    """Map the `features` of a feature file into memory, read-only.

    Parameters
    ----------
    path
        `.npz`, `.npy`, `.h5` or `.safetensors`.

    Returns
    -------
    numpy.memmap or None
        None if the file is compressed, chunked, or in Fortran order, and must be read as a whole.
    """
    place = _LOCATORS[path.suffix.lower()](path)
    if place is None or 0 in place.shape or path.stat().st_size < place.offset + _n_bytes(place):
        return None
    return np.memmap(path, mode="r", dtype=place.dtype, shape=place.shape, offset=place.offset)


def row_blocks(matrix: FloatArray, block_bytes: int = BLOCK_BYTES) -> Iterator[FloatArray]:
    """Go through consecutive rows, at most `block_bytes` at a time; pages of a mapped file are let go after use."""
    per_block = max(1, block_bytes // max(1, matrix[:1].nbytes))
    for start in range(0, len(matrix), per_block):
        yield matrix[start : start + per_block]
        release_pages(matrix)


def release_pages(matrix: npt.NDArray[Any]) -> None:
    """Let the system forget the pages of a mapped file; they are read again when needed."""
    mapped = getattr(matrix, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def check_finite_in_blocks(matrix: FloatArray, name: str) -> None:
    """Refuse NaN and infinity, one block of rows at a time.

    Raises
    ------
    InputError
        Naming the array.
    """
    for block in row_blocks(matrix):
        check_finite(block, name)


def write_matrix(
    path: str | Path,
    blocks: Blocks,
    shape: tuple[int, int],
    image_ids: Sequence[str],
    provenance: Mapping[str, Any],
    dtype: npt.DTypeLike = np.float32,
) -> None:
    """Write a feature file from blocks of rows, whole or not at all.

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
    with atomic_file(path) as temporary:
        _WRITERS[path.suffix.lower()](temporary, blocks, shape, list(image_ids), text, kind)


def check_ending(path: str | Path) -> None:
    """Refuse a destination whose ending names no writable container, before any work is done.

    Raises
    ------
    InputError
        Naming the endings that can be written.
    """
    if Path(path).suffix.lower() not in ENDINGS:
        raise InputError(f"{path} must end in one of {', '.join(ENDINGS)}: those formats are written.")


class ContentHash:
    """SHA-256 over what a feature file holds, for a container without a checksum of its own.

    Parameters
    ----------
    shape
        (n_images, n_features).
    dtype
        As stored.
    image_ids
        One name per row.
    provenance
        JSON text as stored.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], image_ids: Sequence[str], provenance: str) -> None:
        facts = json.dumps([list(shape), dtype.str, list(image_ids), provenance])
        self._digest = hashlib.sha256(facts.encode())

    def through(self, blocks: Blocks) -> Iterator[FloatArray]:
        """Pass blocks of rows on, counting them in."""
        for block in blocks:
            self._digest.update(np.ascontiguousarray(block).data)
            yield block

    def text(self) -> str:
        """Hexadecimal digits of what has gone through."""
        return self._digest.hexdigest()


def hash_of(matrix: FloatArray, image_ids: Sequence[str], provenance: str) -> str:
    """Hash of a whole matrix (n_images, n_features) and what is stored with it."""
    content = ContentHash(matrix.shape, matrix.dtype, image_ids, provenance)
    for _ in content.through(row_blocks(matrix)):
        pass
    return content.text()


def _n_bytes(place: MatrixPlace) -> int:
    return int(np.prod(place.shape)) * place.dtype.itemsize


# -- finding the matrix -----------------------------------------------------------------------------------------------


def _locate_npy(path: Path, start: int = 0) -> MatrixPlace | None:
    with path.open("rb") as file:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if fortran or dtype.hasobject:
            return None
        return MatrixPlace(file.tell(), shape, dtype)


def _locate_npz(path: Path) -> MatrixPlace | None:
    with zipfile.ZipFile(path) as archive:
        if "features.npy" not in archive.namelist():
            return None
        member = archive.getinfo("features.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            return None
    with path.open("rb") as file:  # the member's bytes follow its local header: 30 bytes, its name, an extra field
        file.seek(member.header_offset)
        name_length, extra_length = struct.unpack("<26x2H", file.read(30))
    return _locate_npy(path, member.header_offset + 30 + name_length + extra_length)


def _locate_hdf5(path: Path) -> MatrixPlace | None:
    with open_hdf5(path) as file:
        dataset = find_dataset(file, "features", path, may_be_virtual=False)
        offset = dataset.id.get_offset() if dataset is not None and dataset.chunks is None else None
        return None if offset is None else MatrixPlace(offset, dataset.shape, dataset.dtype)


def _locate_safetensors(path: Path) -> MatrixPlace | None:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length)).get("features")
    types = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
    if entry is None or entry["dtype"] not in types:
        return None
    return MatrixPlace(8 + length + entry["data_offsets"][0], tuple(entry["shape"]), np.dtype(types[entry["dtype"]]))


_LOCATORS = {
    ".npz": _locate_npz,
    ".npy": _locate_npy,
    ".h5": _locate_hdf5,
    ".hdf5": _locate_hdf5,
    ".safetensors": _locate_safetensors,
}


# -- writing it -------------------------------------------------------------------------------------------------------


def _write_npz(
    path: Path, blocks: Blocks, shape: tuple[int, int], names: list[str], provenance: str, dtype: np.dtype[Any]
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        # Without a time, so that equal features make equal files.
        with archive.open(zipfile.ZipInfo("features.npy"), "w", force_zip64=True) as member:
            header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            _write_rows(member, blocks, dtype)
        for name, value in (("image_ids", np.asarray(names)), ("provenance", np.asarray(provenance))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)


def _write_hdf5(
    path: Path, blocks: Blocks, shape: tuple[int, int], names: list[str], provenance: str, dtype: np.dtype[Any]
) -> None:
    import h5py

    with new_hdf5(path, sealed=True) as (file, check):
        dataset = file.create_dataset("features", shape, dtype)  # in one run, so that it can be mapped
        start = 0
        for block in blocks:
            dataset[start : start + len(block)] = block
            start += len(block)
            check()
        file.create_dataset("image_ids", data=names, dtype=h5py.string_dtype())
        # A dataset, not an attribute: attributes end at 64 KiB.
        file.create_dataset("provenance", data=provenance, dtype=h5py.string_dtype())


def _write_safetensors(
    path: Path, blocks: Blocks, shape: tuple[int, int], names: list[str], provenance: str, dtype: np.dtype[Any]
) -> None:
    kind = {"<f8": "F64", "<f4": "F32", "<f2": "F16"}[dtype.str]
    entry = {"dtype": kind, "shape": list(shape), "data_offsets": [0, int(np.prod(shape)) * dtype.itemsize]}
    content = ContentHash(shape, dtype, names, provenance)
    blank = "0" * len(content.text())  # known when the rows are written
    metadata = {"sha256": blank, "image_ids": json.dumps(names), "provenance": provenance}
    header = json.dumps({"__metadata__": metadata, "features": entry}).encode()
    header += b" " * (-len(header) % 8)  # the format asks for aligned numbers
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        _write_rows(file, content.through(block.astype(dtype, copy=False) for block in blocks), dtype)
        file.seek(8 + header.index(blank.encode()))
        file.write(content.text().encode())


def _write_rows(file: Any | BinaryIO, blocks: Blocks, dtype: np.dtype[Any]) -> None:
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=dtype).data)


_WRITERS = {".npz": _write_npz, ".h5": _write_hdf5, ".hdf5": _write_hdf5, ".safetensors": _write_safetensors}
