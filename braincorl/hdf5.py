"""HDF5 files, read with suspicion and written so that a full disk is an error and not a crash.

A dataset may live outside its file: behind an external link, in external storage, or as a virtual one put together
from other files. What is missing there reads as zeros, and what is there may be any file of whoever reads. So only
data in the file itself are read, and virtual datasets all of whose parts lie beside it.
"""

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from braincorl.errors import FileFormatError, InputError
from braincorl.files import check_regular, reading

KIND = "HDF5 file"


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
    here = file
    for part in name.strip("/").split("/"):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) and part in here.keys() else None  # noqa: SIM118
        if link is None:
            there = ", ".join(map(str, list(file.keys())[:20])) or "nothing"
            raise InputError(f"{path} holds {there} but no '{name}'.")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: '{name}' is a link to other data, which is not followed: copy the data into it.")
        here = here[part]
    if not isinstance(here, h5py.Dataset):
        raise InputError(f"{path}: '{name}' is a group, expected an array.")
    if here.external is not None:
        raise InputError(f"{path}: the data of '{name}' are in another file, which is not read: copy them into it.")
    if here.is_virtual and not may_be_virtual:
        raise InputError(f"{path}: '{name}' is put together from other data itself: copy the data into it.")
    if here.is_virtual:
        _check_virtual(here, name, Path(path))
    return here


def _check_virtual(dataset: Any, name: str, path: Path) -> None:
    """Refuse a virtual dataset that is not whole: what is missing of it would read as zeros."""
    covered = 0
    for part in dataset.virtual_sources():
        other = Path(part.file_name)
        if part.file_name != "." and (other.is_absolute() or ".." in other.parts or "%" in part.file_name):
            raise InputError(
                f"{path}: '{name}' is put together from {other}, outside its folder, which is not read: copy the data."
            )
        source = path if part.file_name == "." else path.parent / other
        if not source.is_file():
            raise InputError(
                f"{path}: '{name}' is put together from {source}, which does not exist: get that file too."
            )
        with open_hdf5(source) as file:
            shape = dataset_in(file, part.dset_name, source, may_be_virtual=False).shape
        points = int(part.vspace.get_select_npoints())
        extent = part.src_space.get_simple_extent_dims()
        if extent == () and math.prod(shape) == points:  # nothing was selected, so all of it is meant
            extent = shape
        if len(extent) != len(shape) or any(need > have for need, have in zip(extent, shape, strict=True)):
            raise InputError(f"{path}: '{name}' wants {extent} of {source}, which has {shape}: get a new copy of both.")
        covered += points
    if covered < dataset.size:
        raise FileFormatError(
            f"{path}: '{name}' is put together from other data that give {covered} of its {dataset.size} values: "
            "get a new copy."
        )


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[Any, Callable[[], None]]]:
    """Write an HDF5 file.

    HDF5 keeps what it could not write and tries again when the file is closed and when the process ends, which then
    ends in a crash. So it is never told of a failure: from the first one on nothing is written any more, and the
    failure is raised when the file is closed.

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
    with path.open("w+b", buffering=0) as raw:
        sink = _Sink(raw)
        file = h5py.File(sink, "w")
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


class _Sink(io.RawIOBase):
    """A file that remembers the first failure and takes everything after it without writing it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: OSError | None = None

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
            except OSError as error:
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
            except OSError as error:
                self.failure = error
        return size or 0

    def flush(self) -> None:
        """Nothing is kept here."""
