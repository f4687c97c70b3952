"""A person prepared once, in bounded memory, into one compact file, and the file itself.

Forty sessions of a whole cortex do not fit into memory, and reading them takes minutes. `prepare` reads each file once:
its trials go to a part on disk, cut into blocks of voxels; then each block, all trials of some voxels, is z-scored
within sessions, averaged over repeats, and written to an HDF5 file chunked by voxel. A run that was killed goes on from
the parts it finished, and gives the same bytes. The file remembers a hash of its inputs and options, so that a changed
input is noticed. One run at a time works on a file: it holds a lock in the folder of the parts, which the system takes
away when the process ends, however it ends.

The file opens in any language: responses (n_images, n_mask_voxels), image_ids, n_repeats, included, ncsnr; mask and
affine, or left and right vertices (with voxels below the cortex, and the order of a CIFTI axis, where there are such);
regions/0, regions/1 … with their names; attributes kind, key, name, zscore, options. Everything is covered by a
checksum: each chunk of the responses by a number in `responses_crc32` (and by HDF5's own Fletcher-32, for other
programs), and all the rest, those numbers among it, by the attribute `sha256`. `load_prepared` reads all of it, or some
images and regions.

Letter: B voxels of a block.
"""

import hashlib
import json
import logging
import mmap
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import BetasSource
from braincorl.datasets.space import ALIGNED, Surface, VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.datasets.trials.averaging import Trials, average_block, refuse_empty, shown
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.same import FEWEST_NUMBERS, find_same, raise_same
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.datasets.trials.zscoring import ZScore
from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.storage.files import (
    Progress,
    ProgressCounter,
    atomic_file,
    check_free_space,
    check_new_file,
    check_regular,
    flush_to_disk,
    lock_file,
    reading,
    this_process,
)
from braincorl.storage.hdf5 import dataset_in, new_hdf5, open_hdf5

logger = logging.getLogger(__name__)

KIND = "braincorl-prepared/2"
WITHOUT_CHECKSUM = "braincorl-prepared/1"
HDF5_START = b"\x89HDF\r\n\x1a\n"

OWN_START = re.compile(r"lock|\.partial-.*")  # before the key is there
OWN_PARTS = re.compile(r"lock|key|assembled|\d{4,}|\.partial-.*")
LAST = ("key", "lock")
BLOCK_SHARE = 1 / 4  # of the working memory: each part on disk is read once per block
CHUNK_BYTES = 2**20  # of the file: what a reader of one voxel reads


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
    key = input_key(recording, dtype)
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
    """Whether a prepared file stands there, undamaged and of these inputs.

    Raises
    ------
    OutputError
        If another program's file stands there.
    """
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
    """Work in the folder of the parts while nobody else does.

    Raises
    ------
    OutputError
        Naming who does.
    """
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


def input_key(recording: Recording, dtype: str) -> str:
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


def chunk_width(n_images: int) -> int:
    """Voxels of one chunk of the file, each chunk holding all images."""
    return max(1, CHUNK_BYTES // (4 * n_images))


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


# -- the file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """Everything in a prepared file but the responses, as it was checked.

    Attributes
    ----------
    attributes
        kind, key, name, zscore, n_sessions, options, space_code.
    arrays
        image_ids, n_repeats, included, ncsnr; mask and affine, or left, right and what else `Surface.to_arrays` gives.
    rois
        Region name -> bool over the voxels of the mask.
    """

    attributes: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]
    rois: dict[str, npt.NDArray[np.bool_]]

    @property
    def zscore(self) -> ZScore:
        """How the responses were scaled."""
        return "session" if self.attributes["zscore"] else "none"


def is_prepared(path: str | Path) -> bool:
    """Whether a file says that it was made by `prepare`; it may be damaged.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = check_regular(path, "file of betas")
    with reading(path, "is not readable"), path.open("rb") as raw:
        if raw.read(len(HDF5_START)) != HDF5_START:
            return False
    with open_hdf5(path) as file:
        return str(file.attrs.get("kind", "")).startswith("braincorl-prepared/")


def read_key(path: Path) -> str:
    """Hash of the inputs of a prepared file.

    Raises
    ------
    FileFormatError
        If it is damaged, or another file.
    """
    with open_hdf5(path) as file:
        return str(read_header(file, path).attributes["key"])


def is_whole(path: Path) -> bool:
    """Whether a prepared file is undamaged; reads all of it."""
    try:
        with open_hdf5(path) as file:
            header = read_header(file, path)
            if "responses_crc32" not in header.arrays:
                return False
            nothing, everything = np.zeros(0, dtype=np.intp), np.ones(file["responses"].shape[1], dtype=bool)
            _read_responses(file["responses"], nothing, everything, header.arrays["responses_crc32"], path)
    except FileFormatError:
        return False
    return True


def write_header(
    file: Any,
    recording: Recording,
    images: npt.NDArray[np.str_],
    n_repeats: npt.NDArray[np.integer[Any]],
    included: npt.NDArray[np.bool_],
    ncsnr: npt.NDArray[np.float64],
    key: str,
    crc32: npt.NDArray[np.uint32],
) -> None:
    """Write everything but the responses.

    Parameters
    ----------
    file
        Open HDF5 file.
    recording
        What was prepared.
    images, n_repeats
        Of each row of the responses.
    included, ncsnr
        Of each voxel of the mask.
    key
        Hash of the inputs.
    crc32
        Of the bytes of each chunk of the responses, in order.
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "responses_crc32": crc32,
        "image_ids": np.char.encode(images, "utf-8"),
        "n_repeats": n_repeats.astype(np.int64),
        "included": included,
        "ncsnr": ncsnr,
    }
    if recording.grid is not None:
        arrays |= {"mask": recording.grid.mask, "affine": recording.grid.affine}
    if recording.surface is not None:
        arrays |= recording.surface.to_arrays()
    for name, values in arrays.items():
        file.create_dataset(name, data=values, track_times=False)
    regions = file.create_group("regions", track_order=False)
    for number, (name, members) in enumerate(recording.rois.items()):
        regions.create_dataset(str(number), data=members, track_times=False).attrs["name"] = name
    file.attrs["kind"], file.attrs["key"], file.attrs["name"] = KIND, key, recording.name
    file.attrs["zscore"] = recording.zscore
    file.attrs["n_sessions"] = recording.n_sessions or 0  # 0 for unknown
    if recording.surface is not None:
        file.attrs["surface"] = recording.surface.name
    file.attrs["space_code"] = ALIGNED if recording.grid is None else recording.grid.space_code
    file.attrs["options"] = json.dumps(dict(recording.options), sort_keys=True)
    file.attrs["sha256"] = _digest(file, recording.name)


def read_header(file: Any, path: Path) -> Header:
    """Read everything but the responses, and check it.

    Parameters
    ----------
    file
        Open HDF5 file.
    path
        Its path, for messages.

    Raises
    ------
    FileFormatError
        If it is no prepared person, fails its checksum, or its parts do not fit together.
    """
    kind = file.attrs.get("kind")
    if kind not in (KIND, WITHOUT_CHECKSUM):
        raise FileFormatError(f"{path} is not a {KIND} file: prepare the person with braincorl data prepare.")
    if kind == WITHOUT_CHECKSUM:
        logger.warning("%s is of an earlier version and has no checksum, so damage goes unseen: prepare it again", path)
    elif str(file.attrs.get("sha256")) != _digest(file, path):
        raise FileFormatError(f"{path} fails its checksum: it was altered or damaged, prepare it again.")
    needed = ("responses", "image_ids", "n_repeats", "included", "ncsnr", *(("responses_crc32",) * (kind == KIND)))
    names = [*needed, *(name for name in file if name in ("mask", "affine") or Surface.is_part(name))]
    datasets = {name: dataset_in(file, name, path) for name in names}
    responses = datasets.pop("responses")
    arrays = {name: dataset[()] for name, dataset in datasets.items()}
    regions = file["regions"]
    rois = {
        str(regions[number].attrs["name"]): dataset_in(file, f"regions/{number}", path)[()]
        for number in sorted(regions, key=int)
    }
    attributes = {"n_sessions": 0, "space_code": ALIGNED} | dict(file.attrs)
    header = Header(attributes, arrays, rois)
    _check_fit(header, responses, path)
    return header


def _check_fit(header: Header, responses: Any, path: Path) -> None:
    """Refuse arrays of another shape or type than they must have."""
    n_images, n_voxels = responses.shape if responses.ndim == 2 else (0, 0)
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "image_ids": ((n_images,), "S"),
        "n_repeats": ((n_images,), "iu"),
        "included": ((n_voxels,), "b"),
        "ncsnr": ((n_voxels,), "f"),
        "affine": ((4, 4), "f"),
    }
    arrays = {**header.arrays, **{f"region '{name}'": members for name, members in header.rois.items()}}
    expected |= {name: ((n_voxels,), "b") for name in arrays if name.startswith("region ")}
    wrong = [
        name
        for name, (shape, kinds) in expected.items()
        if name in arrays and (arrays[name].shape != shape or arrays[name].dtype.kind not in kinds)
    ]
    if not wrong and (arrays["n_repeats"] < 1).any():
        wrong.append("n_repeats")
    places = [name for name in ("mask", "left", "right") if name in arrays]
    wrong += [name for name in places if arrays[name].dtype.kind != "b"]
    deep = arrays["deep_structure"].size if "deep_structure" in arrays else 0
    if places and sum(int(np.count_nonzero(arrays[name])) for name in places) + deep != n_voxels:
        wrong += places
    if responses.dtype.kind != "f" or responses.chunks is None or responses.chunks[0] != n_images or not n_images:
        wrong.insert(0, "responses")
    if ("mask" in arrays) != ("affine" in arrays) or ("left" in arrays) != ("right" in arrays):
        wrong.append("mask and affine, or left and right")
    if wrong or not {"key", "name", "zscore"} <= header.attributes.keys():
        raise FileFormatError(
            f"{path} is no prepared person as braincorl writes it ({', '.join(wrong) or 'an attribute'} cannot be "
            "used): prepare it again."
        )


def _digest(file: Any, path: str | Path) -> str:
    """SHA-256 over all attributes, and over all arrays but the responses, in order of name."""
    digest = hashlib.sha256()
    names: list[str] = []
    file.visit(names.append)
    for name in ["/", *sorted(names)]:
        item = file[name]
        for key in sorted(item.attrs):
            if key != "sha256":
                digest.update(f"{name} {key} {item.attrs[key]}\n".encode(errors="surrogateescape"))
        if isinstance(item, h5py.Dataset):
            dataset = dataset_in(file, name, path)
            digest.update(f"{name} {dataset.dtype.str} {dataset.shape} {dataset.chunks}\n".encode())
            if name != "responses":
                digest.update(np.ascontiguousarray(dataset[()]).tobytes())
    return digest.hexdigest()


def load_prepared(
    path: str | Path, *, images: Iterable[str] | None = None, voxels: str | Sequence[str] | None = None
) -> SubjectData:
    """Read a prepared person, or some of the images and regions; memory holds what is asked for.

    Parameters
    ----------
    path
        File of `prepare`.
    images
        Images to keep; by default all.
    voxels
        A region's name or several; by default every voxel.

    Returns
    -------
    SubjectData

    Raises
    ------
    InputError
        If the file is missing, or nothing is left.
    FileFormatError
        If it is damaged or another kind of file.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        header = read_header(file, path)
        arrays, rois = header.arrays, header.rois
        names = np.char.decode(arrays["image_ids"], "utf-8")
        rows = _rows(names, images)
        included: npt.NDArray[np.bool_] = arrays["included"]
        chosen = np.ones(included.size, dtype=bool) if voxels is None else _chosen(rois, voxels)
        keep = chosen & included
        ncsnr = arrays["ncsnr"][keep]
        responses = _read_responses(file["responses"], rows, keep, arrays.get("responses_crc32"), path)
        try:
            return SubjectData(
                responses=responses,
                image_ids=names[rows],
                space=_space(header, chosen, included[chosen]),
                n_repeats=arrays["n_repeats"][rows],
                rois={name: members[keep] for name, members in rois.items() if members[keep].any()},
                ncsnr=None if np.isnan(ncsnr).all() else ncsnr,
                name=str(header.attributes["name"]),
                n_sessions=int(header.attributes["n_sessions"]) or None,
                zscore=header.zscore,
            )
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from error


def _rows(names: npt.NDArray[np.str_], images: Iterable[str] | None) -> npt.NDArray[np.intp]:
    if images is None:
        return np.arange(names.size)
    rows = np.flatnonzero(np.isin(names, np.asarray([str(image) for image in images])))
    if rows.size == 0:
        raise InputError(f"none of the images is among those of the prepared file, such as '{names[0]}'.")
    return rows


def _chosen(rois: dict[str, npt.NDArray[np.bool_]], voxels: str | Sequence[str]) -> npt.NDArray[np.bool_]:
    wanted = [voxels] if isinstance(voxels, str) else list(voxels)
    unknown = [name for name in wanted if name not in rois]
    if unknown or not wanted:
        raise InputError(f"voxels names {', '.join(unknown) or 'nothing'}, expected regions among {', '.join(rois)}.")
    return np.asarray(np.any([rois[name] for name in wanted], axis=0))


def _space(header: Header, chosen: npt.NDArray[np.bool_], included: npt.NDArray[np.bool_]) -> VoxelSpace:
    arrays = header.arrays
    if "left" in arrays:
        surface = Surface.from_arrays(arrays, str(header.attributes.get("surface", "fsaverage")))
        return VoxelSpace(included, surface=surface.select(chosen))
    if "mask" not in arrays:
        return VoxelSpace(included)
    mask = arrays["mask"].copy()
    mask[mask] = chosen
    return VoxelSpace(included, mask, arrays["affine"], space_code=int(header.attributes["space_code"]))


def checksums(block: npt.NDArray[Any], width: int) -> npt.NDArray[np.uint32]:
    """CRC-32 of each chunk of some responses, `width` voxels each but the last."""
    starts = range(0, block.shape[1], width)
    parts = (np.ascontiguousarray(block[:, start : start + width]) for start in starts)
    return np.array([zlib.crc32(part.view(np.uint8).data) for part in parts], dtype=np.uint32)


def _read_responses(
    data: Any,
    rows: npt.NDArray[np.intp],
    keep: npt.NDArray[np.bool_],
    crc32: npt.NDArray[np.uint32] | None,
    path: Path,
) -> npt.NDArray[np.float32]:
    out = np.empty((rows.size, int(keep.sum())), dtype=np.float32)
    width = data.chunks[1]
    step = at_a_time(4 * data.shape[0] * width) * width
    column = 0
    for first in range(0, data.shape[1], step):
        wanted = keep[first : first + step]
        n = int(wanted.sum())
        if n:
            block = data[:, first : first + step]
            if crc32 is not None:
                number = first // width
                known = crc32[number : number + -(-block.shape[1] // width)]
                if not np.array_equal(checksums(block, width), known):
                    raise FileFormatError(f"{path} fails its checksum: it was damaged after it was written.")
            out[:, column : column + n] = block[np.ix_(rows, np.flatnonzero(wanted))]
            column += n
    return out
