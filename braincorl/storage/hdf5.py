"""HDF5 files, read with suspicion and written so that a full disk is an error and not a crash.

A dataset may live outside its file: behind an external link, in external storage, or as a virtual one put together
from other files. What is missing there reads as zeros, and what is there may be any file of whoever reads. So only
data in the file itself are read, and virtual datasets all of whose parts lie beside it.

A damaged file can lead the library anywhere, into an endless loop too. So a file that is read as a whole is written
with a seal: a checksum of all its bytes in its user block, 512 bytes before the content that HDF5 leaves to programs.
It is checked before the library sees the file.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

KIND = "HDF5 file"
_BLOCK, _SEAL, _READ = 512, b"braincorl sha256 ", 2**20


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; what the library raises while it is read becomes an error of ours.

    Yields
    ------
    h5py.File

    Raises
    ------
    InputError
        If it is missing, no regular file, or held by another program.
    FileFormatError
        If it is no HDF5 file, truncated or damaged.
    """
    import h5py

    path = check_regular(path, KIND)
    with reading(path, f"is not a readable {KIND}"), h5py.File(path, "r") as file:
        yield file


def dataset_in(file: Any, name: str, path: str | Path, *, may_be_virtual: bool = True) -> Any:
    """Dataset of an open file, if its data are where they seem to be.

    Parameters
    ----------
    file
        Of `open_hdf5`.
    name
        Of the dataset, groups before it separated by "/".
    path
        Of the file, for messages.
    may_be_virtual
        Whether it may be put together from files beside this one.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    InputError
        If there is no such dataset, or it leads out of the file.
    """
    found = find_dataset(file, name, path, may_be_virtual=may_be_virtual)
    if found is None:
        there = ", ".join(map(str, list(file.keys())[:20])) or "nothing"
        raise InputError(f"{path} holds {there} but no '{name}'.")
    return found


def find_dataset(file: Any, name: str, path: str | Path, *, may_be_virtual: bool = True) -> Any:
    """Dataset of an open file as `dataset_in` gives it, or None if there is nothing of that name.

    Raises
    ------
    FileFormatError
        If it leads out of the file, is not whole, or is no dataset.
    """
    import h5py

    here = file
    for part in name.strip("/").split("/"):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) and part in here.keys() else None  # noqa: SIM118
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            there = "another file" if isinstance(link, h5py.ExternalLink) else "other data"
            raise FileFormatError(f"{path}: '{name}' is a link to {there}, which is not followed: copy the data.")
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise FileFormatError(f"{path}: '{name}' is a group, expected an array.")
    if here.external is not None:
        raise FileFormatError(f"{path}: the data of '{name}' are in another file, which is not read: copy them.")
    if here.is_virtual and not may_be_virtual:
        raise FileFormatError(
            f"{path}: '{name}' is put together from other files: copy it into one file (h5repack, or h5py)."
        )
    if here.is_virtual:
        _check_virtual(here, name, Path(path))
    return here


def check_written(dataset: Any, name: str, path: str | Path) -> None:
    """Refuse a dataset of which a part was never written, as by a program that was stopped: it would read as zeros.

    Raises
    ------
    FileFormatError
        Saying how much there is.
    """
    if dataset.is_virtual or not dataset.size:
        return
    wanted, there = 1, int(dataset.id.get_storage_size() > 0)
    if dataset.chunks is not None:
        wanted = math.prod(-(-n // step) for n, step in zip(dataset.shape, dataset.chunks, strict=True))
        there = dataset.id.get_num_chunks()
    if there < wanted:
        raise FileFormatError(
            f"{path}: {wanted - there} of {wanted} parts of '{name}' were never written, and would read as zeros: get "
            "a new copy."
        )


def names_in(file: Any, name: str, path: str | Path) -> list[str]:
    """Names of what a group of an open file holds, in the file's order, none of it elsewhere; none without the group.

    Parameters
    ----------
    file
        Of `open_hdf5`.
    name
        Of the group.
    path
        Of the file, for messages.

    Raises
    ------
    FileFormatError
        If it is an array, or it or what is in it is a link to other data.
    """
    import h5py

    link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118
    if link is None:
        return []
    if not isinstance(link, h5py.HardLink):
        raise FileFormatError(f"{path}: '{name}' is a link to other data, which is not followed: copy the data.")
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise FileFormatError(f"{path}: '{name}' is an array, expected a group of arrays.")
    for part in group:
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise FileFormatError(f"{path}: '{name}/{part}' is a link to other data, which is not followed: copy them.")
    return list(group)


def _check_virtual(dataset: Any, name: str, path: Path) -> None:
    """Refuse a virtual dataset that is not whole: what is missing of it would read as zeros."""
    covered = 0
    for part in dataset.virtual_sources():
        other = Path(part.file_name)
        if part.file_name != "." and (other.is_absolute() or ".." in other.parts or "%" in part.file_name):
            raise FileFormatError(
                f"{path}: '{name}' is put together from {other}, outside its folder, which is not read: copy the data."
            )
        source = path if part.file_name == "." else path.parent / other
        if not source.is_file():
            raise FileFormatError(
                f"{path}: '{name}' is put together from {source}, which does not exist: get that file too."
            )
        with open_hdf5(source) as file:
            shape = dataset_in(file, part.dset_name, source, may_be_virtual=False).shape
        points = int(part.vspace.get_select_npoints())
        extent = part.src_space.get_simple_extent_dims()
        if extent == () and math.prod(shape) == points:  # nothing was selected, so all of it is meant
            extent = shape
        if len(extent) != len(shape) or any(need > have for need, have in zip(extent, shape, strict=True)):
            raise FileFormatError(
                f"{path}: '{name}' wants {extent} of {source}, which has {shape}: get a new copy of both."
            )
        covered += points
    if covered < dataset.size:
        raise FileFormatError(
            f"{path}: '{name}' is put together from other data that give {covered} of its {dataset.size} values: "
            "get a new copy."
        )


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


@contextmanager
def new_hdf5(path: Path, *, sealed: bool = False) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Write an HDF5 file.

    HDF5 keeps what it could not write and tries again when the file is closed and when the process ends, which then
    ends in a crash. So it is never told of a failure: from the first one on nothing is written any more, and the
    failure is raised when the file is closed.

    Parameters
    ----------
    path
        The file, usually one of `braincorl.storage.files.atomic_file`; what it holds is replaced.
    sealed
        Whether to put a checksum before the content, which `is_sealed` compares.

    Yields
    ------
    file : h5py.File
    check : callable
        Raises the failure, if there was one: call it now and then, to stop early.

    Raises
    ------
    OSError
        If the disk is full, or a file may not grow so large. The file is useless then.
    """
    import h5py

    with path.open("w+b", buffering=0) as raw:
        sink = _Sink(raw)
        file = h5py.File(sink, "w", userblock_size=_BLOCK if sealed else 0)
        try:
            yield file, sink.check
        except Exception as error:
            if sink.failure is not None:  # what was not written cannot be read back, and HDF5 complains of that
                raise sink.failure from error
            raise
        finally:
            with suppress(*((Exception,) if sink.failure else ())):
                file.close()
        sink.check()
        if sealed:
            seal = _SEAL + _hash_after_block(raw).encode()
            raw.seek(0)
            raw.write(seal)


class _Sink(io.RawIOBase):
    """A file that remembers the first failure and takes everything after it without writing it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: BaseException | None = None

    def check(self) -> None:
        """Raise the first failure."""
        if self.failure is not None:
            raise self.failure

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.failure is None:
            try:
                done += self._file.write(view[done:])
            except BaseException as error:  # an interrupt too: it is raised when the library is done
                self.failure = error
        return len(view)

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        if self.failure is None:
            try:
                self._file.truncate(size)
            except BaseException as error:
                self.failure = error
        return size or 0

    def flush(self) -> None:
        """Nothing is kept here."""
