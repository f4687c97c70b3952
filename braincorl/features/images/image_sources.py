"""Where images come from: files, folders, arrays, and HDF5 bricks, behind one small interface.

A source knows the images' names, reads one image by its row, and can say whether a run of rows is still what it was
(its `state`), which is how an interrupted embedding notices that its input changed.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.features.images.pictures import IMAGE_SUFFIXES, array_to_picture, open_picture
from braincorl.names import check_names, natural_order, normal_name
from braincorl.storage.files import reading, walk_files
from braincorl.storage.hdf5 import find_dataset, open_hdf5

if TYPE_CHECKING:
    from PIL import Image as PILImage

BRICK_SUFFIXES = (".h5", ".hdf5")
DEFAULT_DATASET = "imgBrick"  # the name in nsd_stimuli.hdf5


class ImageSource(Protocol):
    """Named images that can be read one by one, from several threads."""

    @property
    def image_ids(self) -> Sequence[str]:
        """One name per image."""

    def read(self, row: int, background: str) -> PILImage.Image:
        """Image of a row, RGB."""

    def state(self, start: int, stop: int) -> bytes:
        """Fingerprint (32 bytes) of rows from `start` to before `stop`, which changes when they do."""


@dataclass(frozen=True)
class _FileSource:
    """Image files, in order, with a distinct name each."""

    paths: Sequence[Path]
    image_ids: Sequence[str]

    def read(self, row: int, background: str) -> PILImage.Image:
        """Image of a row, RGB."""
        return open_picture(self.paths[row], background)

    def state(self, start: int, stop: int) -> bytes:
        """SHA-256 over the files' sizes and times of change; a file that cannot be read counts as of size -1."""
        digest = hashlib.sha256()
        for path in self.paths[start:stop]:
            try:
                stat = path.stat()
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(b"-1\n")
        return digest.digest()


@dataclass(frozen=True)
class _ArraySource:
    """Images in memory, uint8 (n_images, height, width[, 1, 3 or 4])."""

    pixels: npt.NDArray[np.uint8]
    image_ids: Sequence[str]

    def read(self, row: int, background: str) -> PILImage.Image:
        """Image of a row, RGB."""
        return array_to_picture(self.pixels[row], background, self.image_ids[row])

    def state(self, start: int, stop: int) -> bytes:
        """SHA-256 over shape and pixels."""
        digest = hashlib.sha256(f"{self.pixels.shape[1:]}".encode())
        for image in self.pixels[start:stop]:
            digest.update(np.ascontiguousarray(image).data)
        return digest.digest()


@dataclass(frozen=True)
class _BrickSource:
    """Rows of an HDF5 dataset of images, uint8 (n_images, height, width, 3), read one by one."""

    path: Path
    dataset: str
    rows: npt.NDArray[np.intp]
    image_ids: Sequence[str]
    _open: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def read(self, row: int, background: str) -> PILImage.Image:
        """Image of a row, RGB."""
        import h5py

        with reading(self.path, f"is damaged at row {self.rows[row]}"):
            if not hasattr(self._open, "images"):  # one handle per thread, kept open: opening costs more than reading
                self._open.images = h5py.File(self.path, "r")[self.dataset]
            pixels = self._open.images[int(self.rows[row])]
        return array_to_picture(pixels, background, f"{self.path}, row {self.rows[row]}")

    def state(self, start: int, stop: int) -> bytes:
        """SHA-256 over the file's size and time of change, the dataset and the rows."""
        stat = self.path.stat()
        digest = hashlib.sha256(f"{self.dataset}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        digest.update(np.asarray(self.rows[start:stop], dtype="<i8").tobytes())
        return digest.digest()


def names_hash(source: ImageSource) -> str:
    """SHA-256 over the images' names, in order."""
    return hashlib.sha256("\n".join(source.image_ids).encode()).hexdigest()


def image_source(
    images: Any,
    image_ids: Sequence[str] | None = None,
    dataset: str = DEFAULT_DATASET,
    rows: Iterable[int] | None = None,
    *,
    missing_ok: bool = False,
) -> ImageSource:
    """Make a source of whatever holds the images.

    Parameters
    ----------
    images
        An array uint8 (n_images, height, width[, channels]); or one path or several: image files, folders (every image
        file in them, subfolders and links to folders included, hidden ones not, in natural order), or one HDF5 file.
    image_ids
        Names, one per image. By default a file's name (below its folder, for a folder), an HDF5 row's number, or an
        array's row number.
    dataset
        Dataset of an HDF5 file.
    rows
        0-based rows of an HDF5 file or array; all by default.
    missing_ok
        Let links that lead nowhere pass, to fail when they are read.

    Returns
    -------
    ImageSource

    Raises
    ------
    InputError
        If nothing is found, names repeat, or the array or dataset does not hold 8-bit images.
    """
    if isinstance(images, np.ndarray):
        return _array_source(images, image_ids, rows)
    paths = [Path(images)] if isinstance(images, str | Path) else [Path(path) for path in images]
    if len(paths) == 1 and paths[0].suffix.lower() in BRICK_SUFFIXES:
        return _brick_source(paths[0], dataset, rows, image_ids)
    if rows is not None:
        raise InputError("rows choose images of one HDF5 file or array: name the files instead.")
    return _file_source(paths, image_ids, missing_ok)


def _file_source(paths: Sequence[Path], image_ids: Sequence[str] | None, missing_ok: bool) -> _FileSource:
    named: list[tuple[str, Path]] = []
    for path in paths:
        if path.suffix.lower() in BRICK_SUFFIXES:
            raise InputError(f"{path} is an HDF5 file: embed it by itself, not together with other images.")
        if not path.exists() and not path.is_symlink():
            raise InputError(f"{path} does not exist: pass image files, folders, an HDF5 file or an array.")
        named.extend(_in_folder(path) if path.is_dir() else [(path.name, path)])
    if not named:
        raise InputError("images is empty: pass image files, folders, an HDF5 file or an array.")
    if not missing_ok and (missing := [path for _, path in named if not path.exists()]):
        raise InputError(
            f"{len(missing)} of {len(named)} images are links to files that do not exist, such as {missing[0]}: fetch "
            "them first (datalad get, git annex get), or leave out what cannot be read."
        )
    names = _names(image_ids, [name for name, _ in named], [str(path) for _, path in named])
    return _FileSource([path for _, path in named], names)


def _in_folder(folder: Path) -> list[tuple[str, Path]]:
    files = [path for path in walk_files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    named = [(path.relative_to(folder).as_posix(), path) for path in files]
    if not named:
        raise InputError(f"{folder} holds no image files ({', '.join(IMAGE_SUFFIXES)}).")
    return sorted(named, key=lambda pair: natural_order(pair[0]))


def _array_source(
    pixels: npt.NDArray[Any], image_ids: Sequence[str] | None, rows: Iterable[int] | None
) -> _ArraySource:
    _check_pixels(pixels.shape, pixels.dtype, "images")
    chosen = _check_rows(rows, len(pixels), "images")
    selected = pixels if rows is None else pixels[chosen]
    return _ArraySource(selected, _names(image_ids, [str(row) for row in chosen]))


def _brick_source(
    path: Path, dataset: str, rows: Iterable[int] | None, image_ids: Sequence[str] | None
) -> _BrickSource:
    with open_hdf5(path) as file:
        pixels = find_dataset(file, dataset, path, may_be_virtual=False)
        if pixels is None:
            raise InputError(f"{path} holds {', '.join(file) or 'nothing'} but no dataset '{dataset}': name one.")
        shape, dtype = pixels.shape, pixels.dtype
    _check_pixels(shape, dtype, f"{path}, dataset '{dataset}',")
    chosen = _check_rows(rows, shape[0], str(path))
    return _BrickSource(path, dataset, chosen, _names(image_ids, [str(row) for row in chosen]))


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any], what: str) -> None:
    layout_fits = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if not layout_fits or 0 in shape:
        hint = " Channels must come last." if len(shape) == 4 and shape[1] in (1, 3, 4) else ""
        raise InputError(f"{what} has shape {shape}, expected (n_images, height, width[, 1, 3 or 4 channels]).{hint}")
    if dtype != np.uint8:
        raise InputError(f"{what} has pixels of type {dtype}, expected uint8 (0 to 255): scale and convert them first.")


def _check_rows(rows: Iterable[int] | None, n_images: int, what: str) -> npt.NDArray[np.intp]:
    if rows is None:
        return np.arange(n_images)
    chosen = np.asarray(list(rows))
    if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError("rows must be 0-based row numbers, at least one.")
    if chosen.min() < 0 or chosen.max() >= n_images:
        raise InputError(f"rows reach from {chosen.min()} to {chosen.max()}, but {what} has rows 0 to {n_images - 1}.")
    return chosen.astype(np.intp)


def _names(given: Sequence[str] | None, default: list[str], origin: list[str] | None = None) -> list[str]:
    names = [normal_name(str(name)) for name in (default if given is None else given)]
    if len(names) != len(default):
        raise InputError(f"image_ids has {len(names)} names for {len(default)} images: name every image once.")
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        if not _is_text(name):
            raise InputError(f"the image name {name!r} is no valid UTF-8: rename that file, or pass image_ids.")
        if name in first:
            where = f" ({origin[first[name]]} and {origin[row]})" if origin else f" (rows {first[name]} and {row})"
            raise InputError(f"two images are named '{name}'{where}: rename one, or pass image_ids.")
        first[name] = row
    check_names(names, "the image name")
    return names


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
