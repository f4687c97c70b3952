"""Files that may be compressed, read through to their end.

A gzip stream ends with a checksum of what was in it. Whoever reads exactly the bytes of an array never gets there, and
a flipped bit goes unseen: so every reader of images reads its stream from here, and lets it be verified.
"""

import bz2
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from braincorl.errors import FileFormatError
from braincorl.storage.files import check_regular, reading

BLOCK_BYTES = 2**20  # a read buffer
# Deflate packs at most 1,032 bytes into one; no image of the brain comes near what bzip2 could do.
LARGEST_RATIO = 1032

Stream = Any  # binary, readable, seekable


@contextmanager
def open_stream(path: str | Path, kind: str) -> Iterator[Stream]:
    """Open a file, decompressing it if it begins as gzip or bzip2 does, whatever its name.

    Parameters
    ----------
    path
        The file.
    kind
        What it should be, as in "NIfTI image", for messages.

    Yields
    ------
    binary file
        Seekable; going back in a compressed one means reading it again.

    Raises
    ------
    InputError
        If it is missing, no regular file, or cannot be opened.
    FileFormatError
        If what is read under `with` shows it to be damaged.
    """
    path = check_regular(path, kind)
    with reading(path, f"is not a readable {kind}"), path.open("rb") as raw:
        start = raw.read(3)
        raw.seek(0)
        if start[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=raw, mode="rb") as stream:
                yield stream
        elif start == b"BZh":
            with bz2.BZ2File(raw) as stream:
                yield stream
        else:
            yield raw


def read_to_end(stream: Stream) -> None:
    """Read what is left of a stream, so that the checksum at its end is compared.

    Raises
    ------
    OSError, EOFError, zlib.error
        If it is damaged; `open_stream` turns them into ours.
    """
    if isinstance(stream, gzip.GzipFile | bz2.BZ2File):
        while stream.read(BLOCK_BYTES):
            pass


def verify(path: str | Path, kind: str) -> None:
    """Read a compressed file through, for nothing but its checksum.

    Raises
    ------
    FileFormatError
        If it is damaged.
    """
    with open_stream(path, kind) as stream, reading(path, "is truncated or damaged"):
        read_to_end(stream)


def check_room(path: Path, kind: str, stream: Stream, needed: int) -> None:
    """Refuse a header that promises more bytes than the file can hold, before memory is asked for them.

    Parameters
    ----------
    path, kind
        For the message.
    stream
        Of `open_stream`.
    needed
        Bytes of header and data.

    Raises
    ------
    FileFormatError
        If the file is too short.
    """
    size = path.stat().st_size
    most = size * LARGEST_RATIO if isinstance(stream, gzip.GzipFile) else size
    if needed > most and not isinstance(stream, bz2.BZ2File):
        raise FileFormatError(
            f"{path} is truncated or damaged: as a {kind} it needs {needed} bytes by its header, but has {size}: "
            "get a new copy."
        )
