"""HDF5 files that are written without the library ever seeing a failure, and read without leaving the file.

When a write fails below it, on a full disk or at a limit of file sizes, the HDF5 library cannot close the file any
more, and brings the process down when it ends. So it writes through a layer here, which keeps the first failure to
itself; it is raised when the file is closed.

A damaged file can lead the library anywhere, into an endless loop too. So a file written here carries a checksum of all
its bytes in its user block, 512 bytes before the content that HDF5 leaves to programs, and it is checked before the
library sees the file.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from braincorl.errors import FileFormatError

_BLOCK, _SEAL, _READ = 512, b"braincorl sha256 ", 2**20


@contextmanager
def writing_hdf5(path: Path) -> Iterator[Any]:
    """Write an HDF5 file, with a checksum.

    Parameters
    ----------
    path
        The file, usually one of `braincorl.files.atomic_file`; what it holds is replaced.

    Yields
    ------
    h5py.File

    Raises
    ------
    OSError
        When the file is closed, if a write failed.
    """
    import h5py

    with path.open("w+b", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w", userblock_size=_BLOCK) as file:
            yield file
        if sink.failure is not None:
            raise sink.failure
        digest = _hash_after_block(raw)
        raw.seek(0)
        raw.write(_SEAL + digest.encode())


def is_sealed(path: Path) -> bool:
    """Whether a file carries a checksum, which is then compared.

    Raises
    ------
    FileFormatError
        If the file's bytes are not those that were written.
    """
    with path.open("rb") as raw:
        block = raw.read(_BLOCK)
        if not block.startswith(_SEAL):
            return False
        if block[len(_SEAL) :].rstrip(b"\0").decode("ascii", "replace") != _hash_after_block(raw):
            raise FileFormatError(f"{path} fails its checksum: it was altered or damaged after it was written.")
    return True


def _hash_after_block(raw: BinaryIO) -> str:
    digest = hashlib.sha256()
    raw.seek(_BLOCK)
    while content := raw.read(_READ):
        digest.update(content)
    return digest.hexdigest()


def own_dataset(file: Any, name: str, path: Path) -> Any:
    """Find a dataset whose numbers are in the file itself; None if there is no dataset of that name.

    Parameters
    ----------
    file
        Open HDF5 file.
    name
        Of the dataset.
    path
        The file's name, for the message.

    Raises
    ------
    FileFormatError
        If it is a link into another file, or put together from others: those that are missing would read as zeros.
    """
    import h5py

    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise FileFormatError(f"{path}: '{name}' is a link into another file ({link.filename}): pass that file.")
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.is_virtual or dataset.external is not None:
        raise FileFormatError(
            f"{path}: '{name}' is put together from other files: copy it into one file (h5repack, or h5py)."
        )
    return dataset


class _Sink:
    """A file that takes everything, and remembers the first write that failed."""

    def __init__(self, raw: BinaryIO) -> None:
        self.failure: BaseException | None = None
        self._raw, self._at = raw, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        end = os.fstat(self._raw.fileno()).st_size if whence == os.SEEK_END else 0
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: end}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        """Read; the library asks for this method, and calls `readinto`."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        self._raw.seek(self._at)
        content = self._raw.read(len(buffer)) or b""
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        length = len(left)
        if self.failure is None:
            try:
                self._raw.seek(self._at)
                while left:
                    left = left[self._raw.write(left) :]
            except BaseException as error:  # an interrupt too: it is raised when the library is done
                self.failure = error
        self._at += length
        return length

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        if self.failure is None:
            try:
                self._raw.truncate(size)
            except BaseException as error:
                self.failure = error
        return size

    def flush(self) -> None:
        """Nothing is held back here."""
