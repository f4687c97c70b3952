"""The file of a prepared person: HDF5, opens in any language, chunked by voxel.

responses (n_images, n_mask_voxels), image_ids, n_repeats, included, ncsnr; mask and affine, or left and right vertices;
regions/0, regions/1 … with their names; attributes kind, key, name, zscore, options.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

from braincorl.datasets.recording import Recording
from braincorl.datasets.sources import open_hdf5
from braincorl.datasets.space import Surface, VoxelSpace
from braincorl.datasets.subject import SubjectData
from braincorl.errors import FileFormatError, InputError

KIND = "braincorl-prepared/1"
READ_BYTES = 64 * 2**20


def is_prepared(path: str | Path) -> bool:
    """Whether a file was made by `prepare`."""
    return Path(path).is_file() and h5py.is_hdf5(path) and read_key(Path(path)) is not None


def read_key(path: Path) -> str | None:
    """Hash of the inputs of a prepared file; None if it is another file.

    Raises
    ------
    FileFormatError
        If it is damaged.
    """
    with open_hdf5(path) as file:
        return str(file.attrs.get("key")) if file.attrs.get("kind") == KIND else None


def prepared_scaling(path: Path) -> Literal["none", "session"]:
    """How the responses of a prepared file were scaled."""
    with open_hdf5(path) as file:
        return "session" if file.attrs["zscore"] else "none"


def write_header(
    file: Any,
    recording: Recording,
    images: npt.NDArray[np.str_],
    n_repeats: npt.NDArray[np.integer[Any]],
    included: npt.NDArray[np.bool_],
    ncsnr: npt.NDArray[np.float64],
    key: str,
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
    """
    arrays: dict[str, npt.NDArray[Any]] = {
        "image_ids": np.char.encode(images, "utf-8"),
        "n_repeats": n_repeats.astype(np.int64),
        "included": included,
        "ncsnr": ncsnr,
    }
    if recording.grid is not None:
        arrays |= {"mask": recording.grid.mask, "affine": recording.grid.affine}
    if recording.surface is not None:
        arrays |= {"left": recording.surface.left, "right": recording.surface.right}
    for name, values in arrays.items():
        file.create_dataset(name, data=values, track_times=False)
    regions = file.create_group("regions", track_order=False)
    for number, (name, members) in enumerate(recording.rois.items()):
        regions.create_dataset(str(number), data=members, track_times=False).attrs["name"] = name
    file.attrs["kind"], file.attrs["key"], file.attrs["name"] = KIND, key, recording.name
    file.attrs["zscore"] = recording.zscore
    file.attrs["n_sessions"] = recording.n_sessions or 0  # 0 for unknown
    file.attrs["options"] = json.dumps(dict(recording.options), sort_keys=True)


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
        if file.attrs.get("kind") != KIND:
            raise FileFormatError(f"{path} is not a {KIND} file: prepare the person with braincorl data prepare.")
        names = np.char.decode(file["image_ids"][:], "utf-8")
        rows = _rows(names, images)
        rois = {str(region.attrs["name"]): region[:] for region in _in_order(file["regions"])}
        included: npt.NDArray[np.bool_] = file["included"][:]
        chosen = np.ones(included.size, dtype=bool) if voxels is None else _chosen(rois, voxels)
        space = _space(file, chosen, included[chosen])
        keep = chosen & included
        ncsnr = file["ncsnr"][:][keep]
        return SubjectData(
            responses=_read_responses(file["responses"], rows, keep),
            image_ids=names[rows],
            space=space,
            n_repeats=file["n_repeats"][:][rows],
            rois={name: members[keep] for name, members in rois.items() if members[keep].any()},
            ncsnr=None if np.isnan(ncsnr).all() else ncsnr,
            name=str(file.attrs["name"]),
            n_sessions=int(file.attrs.get("n_sessions", 0)) or None,
        )


def _in_order(regions: Any) -> list[Any]:
    return [regions[number] for number in sorted(regions, key=int)]


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


def _space(file: Any, chosen: npt.NDArray[np.bool_], included: npt.NDArray[np.bool_]) -> VoxelSpace:
    if "left" in file:
        left, right = file["left"][:], file["right"][:]
        n_left = int(left.sum())
        left[left], right[right] = chosen[:n_left], chosen[n_left:]
        return VoxelSpace(included, surface=Surface(left, right))
    if "mask" not in file:
        return VoxelSpace(included)
    mask = file["mask"][:]
    mask[mask] = chosen
    return VoxelSpace(included, mask, file["affine"][:])


def _read_responses(data: Any, rows: npt.NDArray[np.intp], keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    out = np.empty((rows.size, int(keep.sum())), dtype=np.float32)
    width = data.chunks[1]
    step = max(1, READ_BYTES // (4 * data.shape[0] * width)) * width
    column = 0
    for first in range(0, data.shape[1], step):
        wanted = keep[first : first + step]
        n = int(wanted.sum())
        if n:
            out[:, column : column + n] = data[:, first : first + step][np.ix_(rows, np.flatnonzero(wanted))]
            column += n
    return out
