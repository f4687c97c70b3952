"""A person prepared once, in bounded memory, into one compact file.

Forty sessions of a whole cortex do not fit into memory, and reading them takes minutes. `prepare` reads each file once:
its trials go to a part on disk, cut into blocks of voxels; then each block, all trials of some voxels, is z-scored
within sessions, averaged over repeats, and written to an HDF5 file chunked by voxel. A run that was killed goes on from
the parts it finished, and gives the same bytes. The file remembers a hash of its inputs and options, so that a changed
input is noticed. One run at a time works on a file: it holds a lock in the folder of the parts, which the system takes
away when the process ends, however it ends.

Letter: B voxels of a block.
"""

import hashlib
import json
import logging
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import BetasSource
from braincorl.datasets.trials.averaging import Trials, average_block, refuse_empty, shown
from braincorl.datasets.trials.prepared import (
    KIND,
    checksums,
    chunk_width,
    is_prepared,
    is_whole,
    read_key,
    write_header,
)
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.same import FEWEST_NUMBERS, find_same, raise_same
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import FileFormatError, OutputError
from braincorl.storage.files import (
    Progress,
    ProgressCounter,
    atomic_file,
    check_free_space,
    check_new_file,
    flush_to_disk,
    lock_file,
    this_process,
)
from braincorl.storage.hdf5 import new_hdf5

logger = logging.getLogger(__name__)

OWN_START = re.compile(r"lock|\.partial-.*")  # before the key is there
OWN_PARTS = re.compile(r"lock|key|assembled|\d{4,}|\.partial-.*")
LAST = ("key", "lock")
BLOCK_SHARE = 1 / 4  # of the working memory: each part on disk is read once per block


def prepare(
    recording: Recording,
    path: str | Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    progress: Progress | None = None,
) -> Path:
    """Prepare a person into a file, unless the file is there and still up to date.

    Parameters
    ----------
    recording
        The person, as `open_nsd` and its like give it.
    path
        Destination, by convention ending in `.h5`. Beside it, while the work goes on, a folder `….parts` holds about as
        much as the chosen voxels' trials in float32.
    dtype
        "float16" halves the file; z-scored responses lose less than a thousandth of their noise by it.
    progress
        Called with (done, total); the first call says what an earlier, interrupted run has done.

    Returns
    -------
    Path
        The file, for `load_prepared`.

    Raises
    ------
    InputError
        If the inputs cannot be used.
    FileFormatError
        If an input is damaged.
    OutputError
        If the disk is too small, the file cannot be written, another run is at it, or another program's file stands
        there.
    """
    path = Path(path).absolute()
    check_new_file(path, overwrite=True)
    key = _input_key(recording, dtype)
    parts = path.with_name(path.name + ".parts")
    if _is_up_to_date(path, key) and not parts.exists():
        logger.info("%s is up to date", path)
        return path
    _check_parts(parts)
    try:
        with _alone(path, parts):
            if not _is_up_to_date(path, key):  # another run may have made it meanwhile
                _prepare(recording, path, parts, key, np.dtype(dtype), progress)
            _remove(parts)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path} was not written: {error.strerror or error}. Run again to go on.") from error
    return path


def _prepare(
    recording: Recording, path: Path, parts: Path, key: str, dtype: np.dtype[Any], progress: Progress | None
) -> None:
    """Do the work, in a folder that nobody else works in."""
    images = recording.image_ids()
    width = _block_width(images.size + max(source.n_trials for source in recording.sources), images.size)
    _open_parts(path, parts, f"{key} {width}", recording)
    counter = ProgressCounter(2 * recording.n_trials, progress)
    for number, source in enumerate(recording.sources):
        part = parts / f"{number:04d}"
        if not part.is_file():
            with atomic_file(part) as temporary:
                _write_part(temporary, source, recording.tables[number], width, counter.add)
        else:
            counter.add(source.n_trials)
    _check_parts_differ(recording, parts)
    assembled = parts / "assembled"
    _assemble(assembled, parts, recording, images, width, dtype, key, counter.add)
    flush_to_disk(assembled)
    assembled.replace(path)


def _is_up_to_date(path: Path, key: str) -> bool:
    """Whether a prepared file stands there, undamaged and of these inputs; another program's file is refused."""
    if not path.exists():
        return False
    try:
        ours = is_prepared(path)
    except FileFormatError:  # so damaged that it does not open: does it at least hold our name?
        ours = path.stat().st_size > 0 and _holds(path, KIND.split("/")[0].encode())
    if not ours:
        raise OutputError(f"{path} is no prepared person of braincorl, so it is kept: choose another name.")
    try:
        if read_key(path) != key:
            logger.info("%s was prepared from other inputs or options: preparing again", path)
            return False
    except FileFormatError as error:
        logger.warning("%s", error)
        return False
    if not is_whole(path):
        logger.warning("%s is damaged or has no checksum: preparing again", path)
        return False
    return True


def _holds(path: Path, text: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def _check_parts(parts: Path) -> None:
    """Refuse a folder of parts in which there is something else."""
    names = {entry.name for entry in parts.iterdir()} if parts.is_dir() else set()
    own = OWN_PARTS if "key" in names else OWN_START
    if any(own.fullmatch(name) is None for name in names):
        raise OutputError(f"{parts} holds files that braincorl did not write: choose another name.")


@contextmanager
def _alone(path: Path, parts: Path) -> Iterator[None]:
    """Work in the folder of the parts while nobody else does."""
    lock = parts / "lock"
    while True:
        parts.mkdir(exist_ok=True)
        try:
            handle = lock.open("a+b")
        except FileNotFoundError:  # whoever worked here has just cleaned up
            continue
        try:
            lock_file(handle, lock)
            if lock.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                break
            handle.close()
        except FileNotFoundError:
            handle.close()
        except OutputError as error:
            handle.seek(0)
            who = handle.read().decode(errors="replace") or "another run"
            handle.close()
            raise OutputError(f"{path} is being prepared by {who}: wait for it, or stop it.") from error
    with handle:
        handle.truncate(0)
        handle.write(this_process().encode())
        handle.flush()
        yield


def _remove(parts: Path) -> None:
    """Remove the folder of the parts, what tells that it is ours last, so that a run killed here leaves no riddle."""
    own = sorted(parts.iterdir(), key=lambda entry: LAST.index(entry.name) if entry.name in LAST else -1)
    for entry in own:
        entry.unlink(missing_ok=True)
    with suppress(OSError):  # another run may have begun in here
        parts.rmdir()


def _check_parts_differ(recording: Recording, parts: Path) -> None:
    """Refuse two files of betas with the same trials, as when one was saved under two names."""
    written = {
        parts / f"{number:04d}": source.path
        for number, source in enumerate(recording.sources)
        if source.n_trials * source.n_voxels >= FEWEST_NUMBERS
    }
    twice = find_same(list(written))
    if twice is not None:
        raise_same(written[twice[0]], written[twice[1]], "betas")


def _input_key(recording: Recording, dtype: str) -> str:
    """Hash of everything that a prepared file depends on: files (path, size, time), trials, voxels, options."""
    digest = hashlib.sha256()
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in recording.files]
    header = [KIND, dtype, recording.name, recording.zscore, dict(recording.options), files, list(recording.rois)]
    digest.update(json.dumps(header, sort_keys=True).encode())
    arrays: list[npt.NDArray[Any]] = [text for t in recording.tables for text in (t.images, t.sessions)]
    arrays += list(recording.rois.values())
    if recording.grid is not None:
        arrays += [recording.grid.mask, recording.grid.affine, np.array(recording.grid.space_code)]
    if recording.surface is not None:
        arrays += [np.array(recording.surface.name), *recording.surface.to_arrays().values()]
    if recording.ncsnr is not None:
        arrays.append(recording.ncsnr)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _open_parts(path: Path, parts: Path, key: str, recording: Recording) -> None:
    """Empty the folder of the parts of what belongs to other inputs or to a run that was killed while writing it."""
    stamp = parts / "key"
    same = stamp.is_file() and stamp.read_bytes() == key.encode()
    if stamp.is_file() and not same:
        logger.info("%s is of other inputs or options: starting again", parts)
    for entry in parts.iterdir():
        if entry.name != "lock" and not (same and (entry == stamp or entry.name.isdecimal())):
            entry.unlink()
    have = sum(file.stat().st_size for file in parts.iterdir())
    needed = 4 * recording.n_voxels * (recording.n_trials + recording.image_ids().size) - have
    try:
        check_free_space(path.parent, needed)
    except OutputError:
        if not same:
            _remove(parts)
        raise
    if not same:
        with atomic_file(stamp) as temporary:
            temporary.write_text(key)


def _block_width(n_rows: int, n_images: int) -> int:
    """Voxels of a block: whole chunks of the file, as many as keep a block of `n_rows` trials and images small."""
    chunk = chunk_width(n_images)
    return at_a_time(4 * n_rows * chunk, BLOCK_SHARE) * chunk


def _write_part(path: Path, source: BetasSource, table: TrialsTable, width: int, done: Callable[[int], None]) -> None:
    """Write the trials of one file block by block: for each block (n_trials, B), float32."""
    with path.open("wb") as file:
        for start, chunk in source.chunks():
            refuse_empty(source, table, start, chunk)
            for first in range(0, source.n_voxels, width):
                block = np.ascontiguousarray(chunk[:, first : first + width])
                file.seek(4 * (first * source.n_trials + start * block.shape[1]))
                file.write(block.data)
            done(len(chunk))


def _read_block(parts: Path, recording: Recording, first: int, width: int) -> Trials:
    """Trials of one block of voxels, from all parts; those that showed an image."""
    for number, (source, table) in enumerate(zip(recording.sources, recording.tables, strict=True)):
        part, count = parts / f"{number:04d}", source.n_trials * width
        values = np.fromfile(part, dtype=np.float32, count=count, offset=4 * first * source.n_trials)
        if values.size != count:
            raise OutputError(f"{part} is damaged: remove the folder {parts} and run again.")
        yield from shown(table, 0, values.reshape(-1, width))


def _assemble(
    path: Path,
    parts: Path,
    recording: Recording,
    images: npt.NDArray[np.str_],
    width: int,
    dtype: np.dtype[Any],
    key: str,
    done: Callable[[int], None],
) -> None:
    """Average the trials of each image, block by block, into the file."""
    included = np.zeros(recording.n_voxels, dtype=bool)
    ncsnr = np.full(recording.n_voxels, np.nan)
    told = 0
    crc32: list[npt.NDArray[np.uint32]] = []
    with new_hdf5(path) as (file, check):
        shape = (images.size, recording.n_voxels)
        chunks = (images.size, min(chunk_width(images.size), recording.n_voxels))
        out = file.create_dataset("responses", shape, dtype, chunks=chunks, fletcher32=True, track_times=False)
        for first in range(0, recording.n_voxels, width):
            last = min(first + width, recording.n_voxels)
            trials = partial(_read_block, parts, recording, first, last - first)
            block = average_block(trials, images, last - first, zscore=recording.zscore)
            included[first:last] = block.included
            if block.ncsnr is not None:
                ncsnr[first:last] = block.ncsnr
            stored = block.responses.astype(dtype, copy=False)
            out[:, first:last] = stored
            check()
            crc32.append(checksums(stored, chunks[1]))
            progress = round(last / recording.n_voxels * recording.n_trials)
            done(progress - told)
            told = progress
        signal = recording.ncsnr if recording.ncsnr is not None else ncsnr
        write_header(file, recording, images, block.n_repeats, included, signal, key, np.concatenate(crc32))
