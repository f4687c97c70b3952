"""Pickled dictionaries in `.npy` files, read without running what is in them.

Python's pickle is a program: reading it with `numpy.load(allow_pickle=True)` runs whatever code the file names.
GLMsingle and the Algonauts 2023 challenge store dictionaries that way. This reader admits dictionaries, lists, tuples,
text, numbers and NumPy arrays, and nothing else. Even NumPy's own constructors are replaced by stand-ins that check
what they are told before an array is made, and that cannot be altered by the file.

Nor can a file keep the reader busy for ever or fill the memory. Its instructions are followed by Python's own unpickler
in Python: the one in C sets aside memory for as many objects as a file of some bytes says it will number. Nothing is
read beyond the file's end, and keys are text or numbers, since the hash of nested tuples may take for ever.
"""

import pickle
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Never

import numpy as np
import numpy.typing as npt

from braincorl.errors import FileFormatError
from braincorl.storage.files import check_regular, one_line, reading, within_memory

PLAIN_TYPE = re.compile(r"[<>=|]?([?bBhHiIlLqQefdgFD]|b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,6}|O8?)")


def load_pickled_npy(path: str | Path) -> Any:
    """Read a `.npy` file that may hold a pickled dictionary.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    object
        The array, or for a pickled file the object in it, made of built-in containers and NumPy arrays.

    Raises
    ------
    InputError
        If the file is missing.
    FileFormatError
        If it is damaged, or its pickle names anything but plain data. Nothing of the file has run then.
    """
    path = check_regular(path, ".npy file")
    try:
        with within_memory(path), reading(path, "is not a readable .npy file"), path.open("rb") as file:
            if _is_pickled(file):
                return _resolve(_PlainUnpickler(_Whole(file, path.stat().st_size)).load(), {})
    except FileFormatError as error:
        if error.__cause__ is None:  # of the classes below, which do not know the file
            raise FileFormatError(f"{path}: {error}") from error
        raise
    return np.array(map_npy(path))


def map_npy(path: str | Path) -> npt.NDArray[Any]:
    """Map the array of a `.npy` file, without reading it.

    Raises
    ------
    InputError
        If the file is missing.
    FileFormatError
        If it is damaged, or holds objects.
    """
    path = check_regular(path, ".npy array")
    with reading(path, "is not a readable .npy array"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):  # an archive of several
            array.close()
            raise FileFormatError(f"{path} is not a readable .npy array: it is an .npz archive, pass one array of it.")
        return array


def _is_pickled(file: BinaryIO) -> bool:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read(file)
    return bool(dtype.hasobject)


class _Whole:
    """A file that refuses to be read beyond its end, before memory is set aside for what is not there."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline = file.readline

    def read(self, n: int) -> bytes:
        if n > self._size - self._file.tell():
            raise EOFError(f"{n} bytes where {self._size - self._file.tell()} are left")
        return self._file.read(n)


# Python's own, but for the instructions that are replaced below.
_Unpickler: Any = pickle._Unpickler


class _PlainUnpickler(_Unpickler):  # type: ignore[misc]
    """An unpickler that knows a handful of names, each of them a stand-in defined here."""

    dispatch: ClassVar = dict(_Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise FileFormatError(
                f"its pickle wants to use {one_line(f'{module}.{name}')[:100]}, which is not plain data; it was not "
                "run. Load it yourself if you trust it, and save the arrays as .npz or .hdf5."
            )
        return known

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _fill(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()
        _fill(self.stack[-1], items)

    def _make_dict(self) -> None:
        self.append(_fill({}, self.pop_mark()))

    def _make_bytearray(self) -> None:
        (n,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(n)))

    def _refuse(self) -> Never:
        raise FileFormatError("its pickle holds a set, expected arrays, text and numbers.")

    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.BYTEARRAY8[0]] = _make_bytearray
    for _code in (pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET):  # sets hash what they hold
        dispatch[_code[0]] = _refuse

    def persistent_load(self, pid: Any) -> Never:
        raise FileFormatError("its pickle refers to another file, which plain data do not.")


def _fill(made: Any, items: Sequence[Any]) -> dict[Any, Any]:
    """Put keys and values, one after the other, into a dictionary."""
    if not isinstance(made, dict):
        raise FileFormatError(f"its pickle fills a {type(made).__name__} as if it were a dictionary.")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str | bytes | int | float | np.generic | None):
            raise FileFormatError(f"its pickle holds a dictionary with a {type(key).__name__} as a key.")
        made[key] = value
    return made


class _DType:
    """What a pickled dtype says; becomes a dtype only if it is a plain one."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = _text(code, "type"), "|"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise FileFormatError("its pickle holds a structured or altered dtype.")
        self.order = _text(state[1], "byte order")

    def resolve(self) -> np.dtype[Any]:
        code = self.code if self.order in ("|", "=") else f"{self.order}{self.code}"
        if PLAIN_TYPE.fullmatch(code) is None:
            raise FileFormatError(f"its pickle holds an array of type {code!r:.60}, expected numbers or text.")
        return np.dtype(code)


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):  # which must not be shown either: lists of lists may be endless
        raise FileFormatError(f"its pickle says the {what} of numbers by a {type(value).__name__}.")
    return value


class _Array:
    """What a pickled array says; becomes an array only if shape, type and bytes agree."""

    __slots__ = ("values",)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        kind = dtype.resolve()
        if kind.hasobject:
            items = np.empty(len(data), dtype=object)
            items[:] = [_Held(item) for item in data]
            flat: npt.NDArray[Any] = items
        else:
            flat = np.frombuffer(data, dtype=kind)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


class _Held:
    """An element of an object array, kept from NumPy until it is resolved."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


class _Maker:
    """A callable without attributes, so that a pickle's BUILD instruction finds nothing to change."""

    __slots__ = ()


class _Reconstruct(_Maker):
    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _MakeDType(_Maker):
    def __call__(self, code: str, *_: Any) -> _DType:
        return _DType(code)


class _Scalar(_Maker):
    def __call__(self, dtype: _DType, data: bytes) -> Any:
        kind = dtype.resolve()
        if kind.hasobject:
            raise FileFormatError("its pickle holds an object scalar.")
        return np.frombuffer(data, dtype=kind, count=1)[0]


class _Latin1(_Maker):
    def __call__(self, text: str, encoding: str = "latin1") -> bytes:
        if _text(encoding, "encoding") != "latin1":
            raise FileFormatError(f"its pickle encodes text as {encoding!r:.60}, expected latin1.")
        return text.encode("latin1")


class _FromBuffer(_Maker):
    def __call__(self, data: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", data))
        return array


class _OrderedDict(_Maker):
    def __call__(self, pairs: Sequence[Any] = ()) -> dict[Any, Any]:
        return _fill({}, [part for pair in pairs for part in pair])


_STAND_INS: dict[tuple[str, str], _Maker] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy.core.multiarray", "scalar"): _Scalar(),
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): _Maker(),
    ("numpy", "dtype"): _MakeDType(),
    ("_codecs", "encode"): _Latin1(),
    ("collections", "OrderedDict"): _OrderedDict(),
}


def _resolve(value: Any, seen: dict[int, Any]) -> Any:
    """Replace stand-ins by arrays, once each, whatever shares them."""
    if id(value) in seen:
        return seen[id(value)]
    result: Any
    if isinstance(value, _Array):
        result = value.values
        if result.dtype == object:
            flat = [_resolve(held.item, seen) for held in result.ravel()]
            result = flat[0] if result.ndim == 0 else _object_array(flat, result.shape)
    elif isinstance(value, dict):
        result = {key: _resolve(item, seen) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_resolve(item, seen) for item in value)
    elif isinstance(value, _DType):
        result = value.resolve()
    elif isinstance(value, str | bytes | int | float | complex | np.generic | None):
        result = value
    else:
        raise FileFormatError(f"its pickle holds a {type(value).__name__}, expected arrays, text and numbers.")
    seen[id(value)] = result
    return result


def _object_array(items: list[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    array = np.empty(len(items), dtype=object)
    for row, item in enumerate(items):  # at once, NumPy would look for a shape within lists
        array[row] = item
    return array.reshape(shape)
