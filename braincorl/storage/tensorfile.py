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

from braincorl.errors import FileFormatError, OutputError
from braincorl.storage.files import atomic_file, check_regular, json_text, reading

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
    with reading(path, "is truncated or damaged"), safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    text = metadata.get("header", "")
    if content_hash(arrays, kind, text) != metadata.get("sha256"):
        raise FileFormatError(f"{path} fails its checksum: it was altered or damaged after it was written.")
    with reading(path, "holds a damaged header"):
        header = json.loads(text)
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} has a {type(header).__name__} for a header, expected a JSON object.")
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
    path = check_regular(path, "safetensors file")
    with (
        reading(path, "is not a readable safetensors file: it is truncated, damaged or of another kind"),
        safe_open(path, framework="numpy") as file,
    ):
        metadata: dict[str, str] = dict(file.metadata() or {})
    if "braincorl" not in metadata:
        return metadata
    with reading(path, "holds damaged metadata"):
        own = json.loads(metadata["braincorl"])
    parts = ("format", "header", "sha256")
    if not isinstance(own, dict) or not all(isinstance(own.get(part), str) for part in parts):
        raise FileFormatError(f"{path} holds metadata of another form than braincorl writes: get a new copy.")
    return own


def content_hash(arrays: Arrays, kind: str, text: str) -> str:
    """SHA-256 over the format, the header text and every array (name, type, shape, bytes), in order of name."""
    digest = hashlib.sha256()
    digest.update(f"{kind}\n{text}\n".encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
