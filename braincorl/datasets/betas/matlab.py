"""Arrays of numbers in MATLAB's `.mat` files of versions 5 to 7; from 7.3 on they are HDF5 (`storage/hdf5.py`).

SciPy reads such files, too, but takes types and sizes from the file as they are, and a damaged one ends the process.
So this reader checks each tag before it follows it. A file is a header of 128 bytes and elements: a tag of type and
number of bytes, the bytes, and zeros up to a multiple of eight. A matrix is made of elements itself: flags with its
class, dimensions, name, numbers. A compressed element holds another one, and zlib's checksum of it.

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

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

KIND = "MATLAB file"
HDF5_START = b"\x89HDF"
HDF5_OFFSET = 512  # MATLAB 7.3 puts its own header before the HDF5 content
HEADER_BYTES = 128  # of a MATLAB 5 file; the last two tell the byte order
MATRIX, COMPRESSED = 14, 15
# Type of an element, and class of a matrix, as they are numbered.
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX_FLAG = 0x0800


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
    with reading(path, f"is not a readable {KIND}"):
        content = path.read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(content[126:HEADER_BYTES])
        if order is None:
            raise ValueError("no header of versions 5 to 7; save it with -v7")
        for kind, data in _elements(memoryview(content)[HEADER_BYTES:], order):
            if kind != MATRIX:
                continue
            name, array = _matrix(data, order, names)
            there.append(name)
            if name in names:
                if array is None:
                    raise FileFormatError(f"{path}: '{name}' is no array of real numbers.")
                found[name] = array
    if not found:
        raise InputError(f"{path} holds {', '.join(there) or 'nothing'} but no {' or '.join(names)}.")
    return found


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and bytes of one element after the other; compressed ones as what is in them."""
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
        if kind == COMPRESSED:
            yield from _elements(memoryview(zlib.decompress(data[start : start + size])), order)
        elif kind in TYPES or kind in (MATRIX, 16, 17, 18):
            yield kind, data[start : start + size]
        else:
            raise ValueError(f"an element of the unknown type {kind}")
        position = after


def _numbers(kind: int, data: memoryview, order: str) -> npt.NDArray[Any]:
    if kind not in TYPES:
        raise ValueError(f"an element of type {kind} in place of numbers")
    return np.frombuffer(data, np.dtype(order + TYPES[kind]))


def _matrix(data: memoryview, order: str, names: Sequence[str]) -> tuple[str, npt.NDArray[Any] | None]:
    """Name of a matrix, and its numbers if it is wanted and has real ones."""
    parts = _elements(data, order)
    flags, shape, name = _numbers(*next(parts), order), _numbers(*next(parts), order), bytes(next(parts)[1]).decode()
    kind = CLASSES.get(int(flags[0]) & 0xFF)
    if name not in names or kind is None or int(flags[0]) & COMPLEX_FLAG:
        return name, None
    values = _numbers(*next(parts), order)
    # MATLAB stores whole numbers in the smallest type that holds them.
    return name, values.astype(kind).reshape(tuple(map(int, shape)), order="F")
