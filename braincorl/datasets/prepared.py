"""A person prepared once, in bounded memory, into one compact file.

Forty sessions of a whole cortex do not fit into memory, and reading them takes minutes. `prepare` reads each file once:
its trials go to a part on disk, cut into blocks of voxels; then each block, all trials of some voxels, is z-scored
within sessions, averaged over repeats, and written to an HDF5 file chunked by voxel. A run that was killed goes on from
the parts it finished, and gives the same bytes. The file remembers a hash of its inputs and options, so that a changed
input is noticed.

Letters: T trials of all files, V voxels of the mask, B voxels of a block.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from braincorl.datasets.prepared_file import KIND, read_key, write_header
from braincorl.datasets.recording import Recording
from braincorl.datasets.volumes import BetasSource
from braincorl.datasets.zscoring import SessionMoments
from braincorl.errors import InputError, OutputError
from braincorl.files import Progress, ProgressCounter, atomic_file, check_free_space, check_new_file, flush_to_disk
from braincorl.metrics import ncsnr_from_sums

logger = logging.getLogger(__name__)

BLOCK_BYTES = 96 * 2**20
CHUNK_BYTES = 2**20


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
        If the disk is too small, the file cannot be written, or another program's file stands there.
    """
    path = Path(path).absolute()
    check_new_file(path, overwrite=True)
    key = input_key(recording, dtype)
    if path.exists():
        found = read_key(path)
        if found is None:
            raise OutputError(f"{path} is no prepared person of braincorl, so it is kept: choose another name.")
        if found == key:
            logger.info("%s is up to date", path)
            return path
        logger.info("%s was prepared from other inputs or options: preparing again", path)
    parts = _open_parts(path, key, recording)
    images = recording.image_ids()
    width = _block_width(recording.n_trials, images.size)
    counter = ProgressCounter(2 * recording.n_trials, progress)
    try:
        for number, source in enumerate(recording.sources):
            part = parts / f"{number:04d}"
            if not part.is_file():
                with atomic_file(part) as temporary:
                    _write_part(temporary, source, recording.tables[number].images != "", width, counter.add)
            else:
                counter.add(source.n_trials)
        assembled = parts / "assembled"
        _assemble(assembled, parts, recording, images, width, np.dtype(dtype), key, counter.add)
        flush_to_disk(assembled)
        assembled.replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path} was not written: {error.strerror or error}. Run again to go on.") from error
    shutil.rmtree(parts)
    return path


def input_key(recording: Recording, dtype: str) -> str:
    """Hash of everything that a prepared file depends on: files (path, size, time), trials, voxels, options."""
    digest = hashlib.sha256()
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in recording.files]
    header = [KIND, dtype, recording.name, recording.zscore, dict(recording.options), files, list(recording.rois)]
    digest.update(json.dumps(header, sort_keys=True).encode())
    arrays: list[npt.NDArray[Any]] = [text for t in recording.tables for text in (t.images, t.sessions)]
    arrays += list(recording.rois.values())
    if recording.grid is not None:
        arrays += [recording.grid.mask, recording.grid.affine]
    if recording.surface is not None:
        arrays += [recording.surface.left, recording.surface.right]
    if recording.ncsnr is not None:
        arrays.append(recording.ncsnr)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _open_parts(path: Path, key: str, recording: Recording) -> Path:
    """Folder of the parts, emptied if it belongs to other inputs."""
    parts = path.with_name(path.name + ".parts")
    stamp = parts / "key"
    for leftover in parts.glob(".partial-*"):  # of a run that was killed
        leftover.unlink()
    if parts.is_dir() and not (stamp.is_file() and stamp.read_text() == key):
        if any(parts.iterdir()) and not stamp.is_file():
            raise OutputError(f"{parts} holds files that braincorl did not write: choose another name.")
        logger.info("%s is of other inputs or options: starting again", parts)
        shutil.rmtree(parts)
    have = sum(file.stat().st_size for file in parts.iterdir()) if parts.is_dir() else 0
    n_images = recording.image_ids().size
    needed = 4 * recording.n_voxels * (recording.n_trials + n_images) - have
    check_free_space(path.parent, needed)
    parts.mkdir(exist_ok=True)
    if not stamp.is_file():
        with atomic_file(stamp) as temporary:
            temporary.write_text(key)
    return parts


def _block_width(n_trials: int, n_images: int) -> int:
    """Voxels of a block: whole chunks of the file, as many as keep a block small."""
    chunk = chunk_width(n_images)
    return max(1, BLOCK_BYTES // (4 * n_trials) // chunk) * chunk


def chunk_width(n_images: int) -> int:
    """Voxels of one chunk of the file, each chunk holding all images."""
    return max(1, CHUNK_BYTES // (4 * n_images))


def _write_part(
    path: Path,
    source: BetasSource,
    shown: npt.NDArray[np.bool_],
    width: int,
    done: Callable[[int], None],
) -> None:
    """Write the trials of one file block by block: for each block (n_trials, B), float32."""
    with path.open("wb") as file:
        for start, chunk in source.chunks():
            empty = ~np.isfinite(chunk).any(axis=1) & shown[start : start + len(chunk)]
            if empty.any():
                raise InputError(
                    f"{source.path}, volume {start + int(np.flatnonzero(empty)[0])} (counting from 0) holds no finite "
                    "value in the mask: write n/a for its image in the trials table to leave it out."
                )
            for first in range(0, source.n_voxels, width):
                block = np.ascontiguousarray(chunk[:, first : first + width])
                file.seek(4 * (first * source.n_trials + start * block.shape[1]))
                block.tofile(file)
            done(len(chunk))


def _read_block(parts: Path, recording: Recording, first: int, width: int) -> npt.NDArray[np.float32]:
    """All trials of one block of voxels (T, B)."""
    width = min(width, recording.n_voxels - first)
    out = np.empty((recording.n_trials, width), dtype=np.float32)
    row = 0
    for number, source in enumerate(recording.sources):
        count = source.n_trials * width
        with (parts / f"{number:04d}").open("rb") as file:
            values = np.fromfile(file, dtype=np.float32, count=count, offset=4 * first * source.n_trials)
        if values.size != count:
            raise OutputError(f"{parts / f'{number:04d}'} is damaged: remove the folder {parts} and run again.")
        out[row : row + source.n_trials] = values.reshape(-1, width)
        row += source.n_trials
    return out


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
    shown = np.concatenate([table.images for table in recording.tables])
    sessions = np.concatenate([table.sessions for table in recording.tables])
    row_of = {image: row for row, image in enumerate(images.tolist())}
    row = np.array([row_of.get(image, -1) for image in shown.tolist()])
    counts = np.bincount(row[row >= 0], minlength=images.size)
    included = np.zeros(recording.n_voxels, dtype=bool)
    ncsnr = np.full(recording.n_voxels, np.nan)
    told = 0
    with h5py.File(path, "w") as file:
        shape = (images.size, recording.n_voxels)
        chunks = (images.size, min(chunk_width(images.size), recording.n_voxels))
        out = file.create_dataset("responses", shape, dtype, chunks=chunks, track_times=False)
        for first in range(0, recording.n_voxels, width):
            y = _read_block(parts, recording, first, width)
            last = first + y.shape[1]
            means, sums, squares = _average(y, row, sessions if recording.zscore else None, counts)
            if counts.max() > 1 and counts.size > 1 and recording.ncsnr is None:
                ncsnr[first:last] = _ncsnr(sums, squares, counts)
            varies = np.ptp(means, axis=0) > 0 if counts.size > 1 else True
            included[first:last] = np.isfinite(squares) & varies
            out[:, first:last] = means
            progress = round(last / recording.n_voxels * recording.n_trials)
            done(progress - told)
            told = progress
        signal = recording.ncsnr if recording.ncsnr is not None else ncsnr
        write_header(file, recording, images, counts, included, signal, key)


def _average(
    y: npt.NDArray[np.float32],
    row: npt.NDArray[np.intp],
    sessions: npt.NDArray[np.str_] | None,
    counts: npt.NDArray[np.intp],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Average each image's trials (n_images, B), after z-scoring.

    Beside the means come, around the first trial of all, each image's sum (n_images, B) and the sum of squares (B,): so
    a large baseline costs no digits and a constant voxel stays constant, as in `braincorl.datasets.averaging`.
    """
    y[~np.isfinite(y)] = np.nan
    if sessions is not None:
        _zscore_sessions(y, sessions, row >= 0)
    order = np.argsort(row, kind="stable")[np.count_nonzero(row < 0) :]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ordered = y[order]
    origin = y[np.argmax(row >= 0)]
    distance = ordered - origin
    squares = np.einsum("tb,tb->b", distance, distance, dtype=np.float64)
    sums = np.add.reduceat(distance, starts, axis=0)
    means = np.where(counts[:, None] == 1, ordered[starts], sums / counts[:, None].astype(np.float32) + origin)
    return means, sums, squares


def _zscore_sessions(y: npt.NDArray[np.float32], sessions: npt.NDArray[np.str_], shown: npt.NDArray[np.bool_]) -> None:
    """Scale in place, within each session, the trials that showed an image."""
    for session in np.unique(sessions[shown]).tolist():
        members = np.flatnonzero((sessions == session) & shown)
        moments = SessionMoments(y[members[0]])
        moments.add(y[members])
        y[members] = moments.scaling(session).apply(y[members])


def _ncsnr(
    sums: npt.NDArray[np.float32], squares: npt.NDArray[np.float64], counts: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    n_trials = int(counts.sum())
    image_sums = sums.astype(np.float64)
    mean = image_sums.sum(axis=0) / n_trials
    centred = np.maximum(squares - n_trials * mean**2, 0.0)
    return ncsnr_from_sums(centred, image_sums - counts[:, None] * mean, counts)
