"""Arrays of numbers in MATLAB's `.mat` files of versions 5 to 7; from 7.3 on they are HDF5 (`storage/hdf5.py`).

SciPy reads such files, too, but takes types and sizes from the file as they are, and a damaged one ends the process.
So this reader checks each tag before it follows it. A file is a header of 128 bytes and elements: a tag of type and
number of bytes, the bytes, and zeros up to a multiple of eight. A matrix is made of elements itself: flags with its
class, dimensions, name, numbers. A compressed element holds one matrix, and zlib's checksum of it; it is unpacked
only as far as its name, unless it is wanted, and never beyond the size that it states.

References
----------
MathWorks, MAT-File Format, chapter 1: Level 5 MAT-File Format.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.streams import LARGEST_RATIO
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, listed, reading, within_memory

KIND = "MATLAB file"
HDF5_START = b"\x89HDF"
HDF5_OFFSET = 512  # MATLAB 7.3 puts its own header before the HDF5 content
HEADER_BYTES = 128  # of a MATLAB 5 file; the last two tell the byte order
MATRIX, COMPRESSED = 14, 15
# Type of an element, and class of a matrix, as they are numbered.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX_FLAG = 0x0800  # in the flags of a matrix; real and imaginary parts follow one another
START_BYTES = 4096  # flags, dimensions and name of a matrix, with room


def is_hdf5_mat(path: Path) -> bool:
    """Whether a `.mat` file is of version 7.3, which is HDF5 behind 512 bytes of MATLAB's own."""
    check_regular(path, KIND)
    with reading(path, f"is not a readable {KIND}"), path.open("rb") as file:
        file.seek(HDF5_OFFSET)
        return file.read(len(HDF5_START)) == HDF5_START


def read_mat(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of numbers from a `.mat` file.

    Parameters
    ----------
    path
        The file.
    names
        Variables to read, those that are there.

    Returns
    -------
    dict
        Name -> array, as MATLAB showed it: two axes at least.

    Raises
    ------
    InputError
        If the file is missing, or none of the variables is in it.
    FileFormatError
        If it is damaged, of another kind or version, or a variable is no array of real numbers.
    """
    check_regular(path, KIND)
    there: list[str] = []
    found: dict[str, npt.NDArray[Any]] = {}
    with within_memory(path), reading(path, f"is not a readable {KIND}"):
        content = np.memmap(path, np.uint8, mode="r").data
        order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:HEADER_BYTES]))
        if order is None:
            raise ValueError("no header of versions 5 to 7; save it with -v7")
        for kind, data in _elements(content[HEADER_BYTES:], order):
            if kind not in (MATRIX, COMPRESSED):
                continue
            name, array = _matrix(_unpacked(data, order, names) if kind == COMPRESSED else data, order, names)
            there.append(name)
            if name in names:
                if array is None:
                    raise FileFormatError(f"{path}: '{name}' is no array of real numbers.")
                if name in found:
                    raise FileFormatError(f"{path} holds '{name}' twice: get a new copy, or save one of them.")
                found[name] = array
    if not found:
        raise InputError(f"{path} holds {listed(there)} but no {' or '.join(names)}.")
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of one element after the other; compressed ones as they are."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        if kind >> 16:  # up to four bytes lie within the tag
            kind, size, start, after = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            after = start + size + (0 if kind == COMPRESSED else -size % 8)
        if start + size > len(data) or (start == position + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
        if kind in TYPES or kind in (MATRIX, COMPRESSED, 16, 17, 18):
            yield kind, data[start : start + size]
        else:
            raise ValueError(f"an element of the unknown type {kind}")
        position = after


def _unpacked(data: memoryview, order: str, names: Sequence[str]) -> memoryview:
    """Matrix in a compressed element; of one that is not wanted, no more than its beginning."""
    start = memoryview(zlib.decompressobj().decompress(data, START_BYTES))
    kind, size = struct.unpack_from(f"{order}II", start)
    if kind != MATRIX:
        raise ValueError(f"a compressed element of type {kind} in place of a matrix")
    if size > len(data) * LARGEST_RATIO:
        raise ValueError(f"{len(data)} compressed bytes that are said to be {size}")
    if _described(_elements(start[8:], order), order)[2] not in names:
        return start[8:]
    engine = zlib.decompressobj()
    whole = memoryview(engine.decompress(data, size + 16))  # of an end that is filled up, too
    if not engine.eof or not size + 8 <= len(whole) < size + 16:
        raise ValueError(f"a compressed element that does not hold the {size} bytes that it states")
    return whole[8 : size + 8]


def _described(parts: Iterator[tuple[int, memoryview]], order: str) -> tuple[int, npt.NDArray[Any], str]:
    """Read flags, dimensions and name of a matrix, its first three elements."""
    flags, shape, name = _numbers(*next(parts), order), _numbers(*next(parts), order), bytes(next(parts)[1]).decode()
    if shape.dtype.kind not in "iu" or shape.size < 2 or shape.min() < 0:
        raise ValueError(f"a matrix of {shape.size} axes, one of them {shape.min() if shape.size else 'none'}")
    return int(flags[0]), shape, name


def _numbers(kind: int, data: memoryview, order: str) -> npt.NDArray[Any]:
    if kind not in TYPES:
        raise ValueError(f"an element of type {kind} in place of numbers")
    return np.frombuffer(data, np.dtype(order + TYPES[kind]))


def _matrix(data: memoryview, order: str, names: Sequence[str]) -> tuple[str, npt.NDArray[Any] | None]:
    """Name of a matrix, and its numbers if it is wanted and has real ones."""
    parts = _elements(data, order)
    flags, shape, name = _described(parts, order)
    kind = CLASSES.get(flags & 0xFF)
    if name not in names or kind is None or flags & COMPLEX_FLAG:
        return name, None
    values = _numbers(*next(parts), order)
    # MATLAB stores whole numbers in the smallest type that holds them, never in one that holds more than their class.
    with np.errstate(invalid="ignore"):
        converted = values.astype(kind, copy=False)
    if not np.can_cast(values.dtype, kind) and not np.array_equal(values, converted):
        raise ValueError(f"numbers of type {values.dtype} that are none of the class {np.dtype(kind)}")
    return name, converted.reshape(tuple(map(int, shape)), order="F")
