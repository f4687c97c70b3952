"""Values of voxels back into the brain: NIfTI, and on a surface GIFTI per hemisphere and CIFTI for both.

Maps are float32 with the mask's affine, never the mask's header: an integer header would round the values away.
For a map `sub-01_stat-ev_statmap` there are `sub-01_hemi-L_stat-ev_statmap.shape.gii` and the same with `hemi-R`, over
all vertices of a hemisphere, and `sub-01_stat-ev_statmap.dscalar.nii`, over the vertices, and voxels below the cortex,
that were looked at: on the axis of grayordinates that the betas came from, where they were CIFTI.
"""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.cifti2.cifti2_axes import ScalarAxis
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from nibabel.openers import Opener

from braincorl.datasets.betas.beta_files import as_float32
from braincorl.datasets.betas.nifti import NiftiFile
from braincorl.datasets.betas.safe_pickle import map_npy
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.surfaces.cifti import CiftiFile, brain_axis
from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.storage.files import atomic_file, write_json

Outside = Literal["nan", "zero"]

STRUCTURES = {"left": "CortexLeft", "right": "CortexRight"}

LARGEST_SERIES = 32_767  # a NIfTI-1 header counts in 16 bits


def unmask(values: npt.ArrayLike, space: VoxelSpace, outside: Outside = "nan") -> Any:
    """Put voxel values back into a volume.

    Parameters
    ----------
    values
        (n_voxels,) for a 3-D image, or (n_volumes, n_voxels) for a 4-D one.
    space
        Where the voxels are.
    outside
        What voxels outside the mask get. Voxels inside it without data get NaN either way.

    Returns
    -------
    nibabel.Nifti1Image
        float32, (X, Y, Z) or (X, Y, Z, n_volumes), with the mask's affine.

    Raises
    ------
    InputError
        If the space has no grid, or `values` does not match it.
    """
    values = np.asarray(values)
    if values.ndim not in (1, 2):
        raise InputError(f"values has {values.ndim} axes, expected (n_voxels,) or (n_volumes, n_voxels).")
    volumes = _fill(np.atleast_2d(values), space, outside)
    image = nib.Nifti1Image(volumes[..., 0] if values.ndim == 1 else volumes, space.affine)
    image.set_sform(space.affine, code=space.space_code)
    image.set_qform(space.affine, code=space.space_code, strip_shears=True)
    image.header.set_xyzt_units("mm")
    return image


def save_map(
    values: npt.ArrayLike,
    space: VoxelSpace,
    path: str | Path,
    sidecar: Mapping[str, Any] | None = None,
    outside: Outside = "nan",
) -> Path:
    """Write voxel values as a NIfTI map, with a JSON sidecar, and read it back.

    Without a grid the values go to a `.npy` file of the same name, over all voxels in their order.

    Parameters
    ----------
    values
        (n_voxels,) or (n_volumes, n_voxels).
    space
        Where the voxels are.
    path
        Destination, ending in `.nii.gz` or `.nii`.
    sidecar
        Content of the JSON file beside it, such as Description and Units.
    outside
        What voxels outside the mask get.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If `values` does not match the space.
    OutputError
        If a file cannot be written or does not read back the same.
    """
    array = np.atleast_2d(np.asarray(values))
    return save_series([array], array.shape[0], space, path, sidecar, outside, squeeze=np.ndim(values) == 1)


def save_series(
    chunks: Iterable[npt.NDArray[Any]],
    n_volumes: int,
    space: VoxelSpace,
    path: str | Path,
    sidecar: Mapping[str, Any] | None = None,
    outside: Outside = "nan",
    *,
    squeeze: bool = False,
) -> Path:
    """Write volumes one chunk after the other, so that a long series need not fit into memory.

    Parameters
    ----------
    chunks
        Arrays (n, n_voxels) that add up to `n_volumes`.
    n_volumes
        Volumes in all.
    space
        Where the voxels are.
    path
        Destination, ending in `.nii.gz` or `.nii`.
    sidecar
        Content of the JSON file beside it.
    outside
        What voxels outside the mask get.
    squeeze
        Write one volume as a 3-D image.

    Returns
    -------
    Path
        The file written; CIFTI if the space is a surface (with GIFTI files beside it), `.npy` if it has no grid.

    Raises
    ------
    OutputError
        If a file cannot be written or does not read back the same.
    """
    path = Path(path)
    _check_outside(outside)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path} must end in .nii.gz or .nii.")
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    if space.surface is not None:
        maps = np.concatenate([_of_space(chunk, space) for chunk in chunks])
        _check_count(path, len(maps), n_volumes)
        path = _save_surface_map(maps, space, path.parent, stem, np.nan if outside == "nan" else 0.0)
    elif space.mask is None:
        path = path.with_name(stem + ".npy")
        _write_npy(path, chunks, (n_volumes, space.included.size), space, squeeze)
    else:
        _write_nifti(path, chunks, n_volumes, space, outside, squeeze)
    if sidecar is not None:
        write_json(path.with_name(stem + ".json"), dict(sidecar))
    return path


def read_map(path: str | Path, space: VoxelSpace) -> npt.NDArray[np.float64]:
    """Read a map that `save_map` wrote.

    Parameters
    ----------
    path
        The file: NIfTI, CIFTI or `.npy`, whichever `save_map` returned.
    space
        Where its voxels are.

    Returns
    -------
    ndarray of shape (n_voxels,)

    Raises
    ------
    InputError
        If the file is missing or lies in another space.
    FileFormatError
        If it is damaged.
    """
    path = Path(path)
    if space.surface is not None:
        file = CiftiFile(path)
        if not file.surface.same_places(space.surface):
            raise InputError(f"{path} lies on other vertices than the fit: score again with this fit.")
        full: npt.NDArray[Any] = file.rows(0, 1)[0]
    elif space.mask is None:
        full = map_npy(path)
    else:
        image = NiftiFile(path)  # its header tells whether it is worth reading
        apart = np.inf if space.affine is None else np.abs(image.affine - space.affine).max()
        if image.shape != space.mask.shape or not apart <= 1e-4:  # NaN is no distance
            raise InputError(f"{path} lies on another grid than the fit: score again with this fit.")
        full = image.read()[space.mask]
    if full.shape != space.included.shape:
        raise InputError(f"{path} has {full.size} values, but the fit has {space.included.size} voxels.")
    if full.dtype.kind not in "fiub":
        raise FileFormatError(f"{path} holds values of type {full.dtype}, expected real numbers.")
    return np.asarray(full[space.included], dtype=np.float64)


def _check_outside(outside: str) -> None:
    if outside not in ("nan", "zero"):
        raise InputError(f"outside must be 'nan' or 'zero', but is {outside!r}.")


def _check_count(path: Path, written: int, n_volumes: int) -> None:
    if written != n_volumes:
        raise OutputError(
            f"{path} was to hold {n_volumes} volumes, but {written} came, so it was discarded: try again."
        )


def _of_space(chunk: npt.ArrayLike, space: VoxelSpace) -> npt.NDArray[np.float32]:
    """Volumes (n, n_voxels) in single precision, if they are numbers of these voxels."""
    volumes = np.atleast_2d(np.asarray(chunk))
    if volumes.dtype.kind not in "fiub" or volumes.shape[1] != space.n_voxels:
        raise InputError(
            f"values has shape {volumes.shape} and type {volumes.dtype}, expected real numbers of {space.n_voxels} "
            "voxels."
        )
    return as_float32(volumes)


def _fill(volumes: npt.NDArray[Any], space: VoxelSpace, outside: Outside) -> npt.NDArray[np.float32]:
    """Volumes (n, n_voxels) as (X, Y, Z, n), in the order of the file."""
    if space.mask is None:
        raise InputError("these voxels came without a mask, so there is no volume to put them in: pass a mask.")
    _check_outside(outside)
    background = np.float32(np.nan if outside == "nan" else 0.0)
    filled = np.full((*space.mask.shape, len(volumes)), background, dtype=np.float32, order="F")
    filled[space.mask] = space.expand(_of_space(volumes, space)).T
    return filled


def _write_nifti(
    path: Path,
    chunks: Iterable[npt.NDArray[Any]],
    n_volumes: int,
    space: VoxelSpace,
    outside: Outside,
    squeeze: bool,
) -> None:
    assert space.mask is not None  # the caller looked
    if n_volumes > LARGEST_SERIES:
        raise InputError(
            f"a NIfTI file holds at most {LARGEST_SERIES} volumes, but {n_volumes} are to be written: split."
        )
    header = nib.Nifti1Header()
    header.set_data_dtype("<f4")
    header.set_data_shape(space.mask.shape if squeeze else (*space.mask.shape, n_volumes))
    header.set_sform(space.affine, code=space.space_code)
    header.set_qform(space.affine, code=space.space_code, strip_shears=True)
    header.set_xyzt_units("mm")
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    written, checksum = 0, 0
    with atomic_file(path) as temporary:
        with Opener(str(temporary), "wb") as file:
            file.write(header.binaryblock + b"\0\0\0\0")
            for chunk in chunks:
                data = _fill(np.atleast_2d(chunk), space, outside).tobytes(order="F")
                file.write(data)
                checksum = zlib.crc32(data, checksum)
                written += len(np.atleast_2d(chunk))
        _check_count(path, written, n_volumes)
        if _checksum(temporary) != checksum:
            raise OutputError(f"{path} did not read back as it was written, so it was discarded: try again.")


def _checksum(path: Path) -> int:
    """CRC-32 of an image's voxels as they read back, a volume at a time."""
    checksum = 0
    for _, volume in NiftiFile(path).volumes(1):
        checksum = zlib.crc32(volume.astype("<f4", copy=False).tobytes(order="F"), checksum)
    return checksum


def _write_npy(
    path: Path, chunks: Iterable[npt.NDArray[Any]], shape: tuple[int, int], space: VoxelSpace, squeeze: bool
) -> None:
    with atomic_file(path) as temporary:
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape[1:] if squeeze else shape)
        rows, start = out.reshape(shape), 0
        for chunk in chunks:
            full = space.expand(_of_space(chunk, space))
            if start + len(full) <= len(rows):
                rows[start : start + len(full)] = full
            start += len(full)
        _check_count(path, start, shape[0])
        out.flush()


def _save_surface_map(
    values: npt.NDArray[Any], space: VoxelSpace, folder: str | Path, stem: str, background: float = np.nan
) -> Path:
    """Write vertex values (n_maps, n_voxels) as two GIFTI files and one CIFTI file, read back; gives the latter.

    Vertices that were not looked at get `background` in the GIFTI files; those without data get NaN either way.
    """
    assert space.surface is not None  # the caller looked
    folder = Path(folder)
    full = space.expand(np.atleast_2d(values).astype(np.float32, copy=False)).astype(np.float32)
    for side, half in space.surface.on_vertices(full, background).items():
        _write_gifti(folder / f"{_hemisphere_stem(stem, side[0].upper())}.shape.gii", half, STRUCTURES[side])
    path = folder / f"{stem}.dscalar.nii"
    _write_cifti(path, full, space)
    return path


def _hemisphere_stem(stem: str, side: str) -> str:
    """Name of one hemisphere's file: the entity goes before the statistic, or to the end."""
    before, found, after = stem.partition("_stat-")
    return f"{before}_hemi-{side}{found}{after}" if found else f"{stem}_hemi-{side}"


def _write_gifti(path: Path, maps: npt.NDArray[np.float32], structure: str) -> None:
    arrays = [GiftiDataArray(values, intent="NIFTI_INTENT_SHAPE", datatype="NIFTI_TYPE_FLOAT32") for values in maps]
    image = GiftiImage(darrays=arrays, meta=GiftiMetaData({"AnatomicalStructurePrimary": structure}))
    with atomic_file(path) as temporary:
        image.to_filename(temporary)
        read: Any = nib.load(temporary)
        _check_same(path, np.stack([array.data for array in read.darrays]), maps)


def _write_cifti(path: Path, maps: npt.NDArray[np.float32], space: VoxelSpace) -> None:
    assert space.surface is not None  # the caller looked
    brain = brain_axis(space.surface)
    if space.surface.order is not None:
        maps = maps[:, space.surface.order]
    names = ScalarAxis([f"map {number}" for number in range(1, len(maps) + 1)])
    image = Cifti2Image(maps, header=(names, brain))
    with atomic_file(path) as temporary:
        image.to_filename(temporary)
        read: Any = nib.load(temporary)
        _check_same(path, np.asarray(read.dataobj), maps)


def _check_same(path: Path, read: npt.NDArray[Any], written: npt.NDArray[np.float32]) -> None:
    if not np.array_equal(read, written, equal_nan=True):
        raise OutputError(f"{path} did not read back as it was written, so it was discarded: try again.")
