"""The file of a prepared person, which `prepare` makes and `load_prepared` reads.

It opens in any language: responses (n_images, n_mask_voxels), image_ids, n_repeats, included, ncsnr; mask and
affine, or left and right vertices (with voxels below the cortex, and the order of a CIFTI axis, where there are such);
regions/0, regions/1 … with their names; attributes kind, key, name, zscore, options. Everything is covered by a
checksum: each chunk of the responses by a number in `responses_crc32` (and by HDF5's own Fletcher-32, for other
programs), and all the rest, those numbers among it, by the attribute `sha256`. `load_prepared` reads all of it, or some
images and regions.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.datasets.file_names import without_endings
from braincorl.datasets.space import ALIGNED, Surface, VoxelSpace
from braincorl.datasets.subject import SubjectData, ZScore
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.rois import names_among
from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import (
    check_regular,
    reading,
)
from braincorl.storage.hdf5 import dataset_in, open_hdf5

logger = logging.getLogger(__name__)

KIND = "braincorl-prepared/2"
WITHOUT_CHECKSUM = "braincorl-prepared/1"
HDF5_START = b"\x89HDF\r\n\x1a\n"
CHUNK_BYTES = 2**20  # of the file: what a reader of one voxel reads


def chunk_width(n_images: int) -> int:
    """Voxels of one chunk of the file, each chunk holding all images."""
    return max(1, CHUNK_BYTES // (4 * n_images))


@dataclass(frozen=True)
class _Header:
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
        return str(_read_header(file, path).attributes["key"])


def is_whole(path: Path) -> bool:
    """Whether a prepared file is undamaged; reads all of it."""
    try:
        with open_hdf5(path) as file:
            header = _read_header(file, path)
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


def _read_header(file: Any, path: Path) -> _Header:
    """Read everything of an open file but the responses, and check it."""
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
    header = _Header(attributes, arrays, rois)
    _check_fit(header, responses, path)
    return header


def _check_fit(header: _Header, responses: Any, path: Path) -> None:
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
    path: str | Path, *, images: Iterable[str] | None = None, voxels: str | Sequence[str] | slice | None = None
) -> SubjectData:
    """Read a prepared person, or some of the images and voxels; memory holds what is asked for.

    Parameters
    ----------
    path
        File of `prepare`.
    images
        Images to keep; by default all.
    voxels
        A region's name or several, or a slice of the voxels with data; by default every voxel.

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
        header = _read_header(file, path)
        arrays, rois = header.arrays, header.rois
        names, rows = _rows(arrays["image_ids"], images)
        included: npt.NDArray[np.bool_] = arrays["included"]
        chosen = _chosen(rois, included, voxels)
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


@dataclass(frozen=True)
class Outline:
    """What a prepared file says of a person's voxels, without their responses.

    Attributes
    ----------
    space
        Where the voxels are.
    rois
        Region name -> bool (n_voxels,).
    n_images
        All that were prepared.
    key
        Hash of the inputs that the file was made from.
    """

    space: VoxelSpace
    rois: dict[str, npt.NDArray[np.bool_]]
    n_images: int
    key: str


def outline_prepared(path: Path) -> Outline:
    """Read what a prepared file says of the voxels that `load_prepared` reads; errors are those of `load_prepared`."""
    with open_hdf5(path) as file:
        header = _read_header(file, path)
    keep: npt.NDArray[np.bool_] = header.arrays["included"]
    rois = {name: members[keep] for name, members in header.rois.items() if members[keep].any()}
    space = _space(header, np.ones(keep.size, dtype=bool), keep)
    return Outline(space, rois, len(header.arrays["image_ids"]), str(header.attributes["key"]))


def read_rows(path: Path, images: Iterable[str]) -> Iterator[npt.NDArray[np.float32]]:
    """Give the responses that `load_prepared` reads, a few images at a time, of all voxels with data (m, n_voxels).

    The file is read as often as its responses are larger than a quarter of the working memory. No checksum is read.
    """
    with open_hdf5(path) as file:
        header, data = _read_header(file, path), file["responses"]
        (_, rows), keep = _rows(header.arrays["image_ids"], images), header.arrays["included"]
        width = data.chunks[1]
        for part in np.split(rows, range(0, rows.size, at_a_time(4 * keep.size, share=1 / 4)))[1:]:
            slab = np.empty((part.size, keep.size), dtype=np.float32)
            for first in range(0, keep.size, width):
                slab[:, first : first + width] = data[:, first : first + width][part]
            yield slab[:, keep]


def _rows(encoded: npt.NDArray[Any], images: Iterable[str] | None) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.intp]]:
    """Names of all images, as those that are asked for are spelled, and the rows of these."""
    names = np.char.decode(encoded, "utf-8")
    if images is None:
        return names, np.arange(names.size)
    images = list(map(str, images))
    found = without_endings(names.tolist(), images)
    names = np.asarray([found.get(name, name) for name in names.tolist()])
    rows = np.flatnonzero(np.isin(names, np.asarray(images)))
    if rows.size == 0:
        raise InputError(f"none of the images is among those of the prepared file, such as '{names[0]}'.")
    return names, rows


def _chosen(
    rois: dict[str, npt.NDArray[np.bool_]], included: npt.NDArray[np.bool_], voxels: str | Sequence[str] | slice | None
) -> npt.NDArray[np.bool_]:
    if voxels is None:
        return np.ones(included.size, dtype=bool)
    if isinstance(voxels, slice):
        chosen = np.zeros(included.size, dtype=bool)
        chosen[np.flatnonzero(included)[voxels]] = True
        return chosen
    names = names_among(voxels, rois, f"regions among {', '.join(rois)}")
    return np.asarray(np.any([rois[name] for name in names], axis=0))


def _space(header: _Header, chosen: npt.NDArray[np.bool_], included: npt.NDArray[np.bool_]) -> VoxelSpace:
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
    column, there = 0, np.flatnonzero(keep)
    # Whole chunks, from the first that is wanted to the last.
    begin, end = (there[0] // width * width, there[-1] + 1) if there.size else (0, 0)
    end = min(-(-end // width) * width, data.shape[1])
    for first in range(begin, end, step):
        last = min(first + step, end)
        wanted = keep[first:last]
        n = int(wanted.sum())
        if n:
            block = data[:, first:last]
            if crc32 is not None:
                number = first // width
                known = crc32[number : number + -(-block.shape[1] // width)]
                if not np.array_equal(checksums(block, width), known):
                    raise FileFormatError(f"{path} fails its checksum: it was damaged after it was written.")
            out[:, column : column + n] = block[np.ix_(rows, np.flatnonzero(wanted))]
            column += n
    return out
