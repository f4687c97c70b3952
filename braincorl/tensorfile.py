"""Arrays and a JSON header in one safetensors file, with a checksum over both.

Every binary result (encoder, prior, checkpoint) is such a file. The format runs no code when it is read, and opens in
any language. The metadata block holds one JSON object under `braincorl`, with three strings: `format` (kind and
version, as in `braincorl-encoder/1`), `header` (JSON) and `sha256` (over the header and every array's name, type,
shape and bytes). The same content always gives the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.files import atomic_file, json_text

Arrays = Mapping[str, npt.NDArray[Any]]


def write_tensors(path: str | Path, kind: str, arrays: Arrays, header: Mapping[str, Any]) -> None:
    """Write arrays and a header, whole or not at all, and read them back.

    Parameters
    ----------
    path
        Destination, by convention ending in `.safetensors`.
    kind
        Format name and version, such as `braincorl-encoder/1`.
    arrays
        Name -> array of any shape (float16/32/64, integers, bool).
    header
        JSON-serialisable description.

    Raises
    ------
    OutputError
        If the file cannot be written, or does not read back as written.
    """
    text = json_text(header, sort_keys=True)
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    digest = content_hash(contiguous, kind, text)
    # One entry, because safetensors writes several in random order.
    metadata = {"braincorl": json.dumps({"format": kind, "header": text, "sha256": digest})}
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
            read_tensors(temporary, kind)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        except FileFormatError as error:
            raise OutputError(f"{path} did not read back as it was written, so it was discarded: {error}") from error


def read_tensors(path: str | Path, kind: str) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a file of `write_tensors`, strictly.

    Parameters
    ----------
    path
        The file.
    kind
        Format name and version that the file must carry.

    Returns
    -------
    arrays : dict
        Name -> array.
    header : dict
        The description that was written with them.

    Raises
    ------
    InputError
        If the file does not exist.
    FileFormatError
        If it is no safetensors file, is truncated, is of another kind or version, or fails its checksum.
    """
    path = Path(path)
    metadata = read_metadata(path)
    found = metadata.get("format", "a safetensors file of another program")
    if found != kind:
        raise FileFormatError(f"{path} is not a {kind} file: it is {found}.")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError, TypeError) as error:
        raise FileFormatError(
            f"{path} cannot be read ({error}): it is truncated or damaged, get a new copy."
        ) from error
    text = metadata.get("header", "")
    if content_hash(arrays, kind, text) != metadata.get("sha256"):
        raise FileFormatError(f"{path} fails its checksum: it was altered or damaged after it was written.")
    header: dict[str, Any] = json.loads(text)
    return arrays, header


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata strings of any safetensors file, without its arrays.

    Returns
    -------
    dict
        As stored; for a file of `write_tensors` its `format`, `header` and `sha256`.

    Raises
    ------
    InputError
        If the file does not exist.
    FileFormatError
        If it is no safetensors file or is truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path} is not a readable safetensors file ({error}): it is truncated, damaged or of another kind."
        ) from error
    own = metadata.get("braincorl")
    return metadata if own is None else json.loads(own)


def content_hash(arrays: Arrays, kind: str, text: str) -> str:
    """SHA-256 over the format, the header text and every array (name, type, shape, bytes), in order of name."""
    digest = hashlib.sha256()
    digest.update(f"{kind}\n{text}\n".encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
