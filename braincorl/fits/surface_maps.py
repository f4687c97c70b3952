"""Values of vertices back onto the surface: GIFTI per hemisphere, and CIFTI for both.

For a map `sub-01_stat-ev_statmap` there are `sub-01_hemi-L_stat-ev_statmap.shape.gii` and the same with `hemi-R`, over
all vertices of a hemisphere, and `sub-01_stat-ev_statmap.dscalar.nii`, over the vertices, and voxels below the cortex,
that were looked at: on the axis of grayordinates that the betas came from, where they were CIFTI.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.cifti2.cifti2 import Cifti2Image
from nibabel.cifti2.cifti2_axes import ScalarAxis
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.surfaces.cifti import brain_axis
from braincorl.errors import OutputError
from braincorl.storage.files import atomic_file

STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}


def save_surface_map(
    values: npt.NDArray[Any], space: VoxelSpace, folder: str | Path, stem: str, background: float = np.nan
) -> Path:
    """Write vertex values as two GIFTI files and one CIFTI file, and read them back.

    Parameters
    ----------
    values
        (n_maps, n_voxels).
    space
        Its surface says which vertices they are.
    folder, stem
        Destination; the name without an ending.
    background
        Value of vertices that were not looked at, in the GIFTI files. Vertices without data get NaN either way.

    Returns
    -------
    Path
        The CIFTI file.

    Raises
    ------
    OutputError
        If a file cannot be written or does not read back the same.
    """
    assert space.surface is not None  # the caller looked
    folder = Path(folder)
    full = space.expand(np.atleast_2d(values).astype(np.float32, copy=False)).astype(np.float32)
    left, right, _ = space.surface.split(full)
    halves = {"L": (space.surface.left, left), "R": (space.surface.right, right)}
    for side, (chosen, half) in halves.items():
        if chosen.size == 0:
            continue
        filled = np.full((len(half), chosen.size), background, dtype=np.float32)
        filled[:, chosen] = half
        _write_gifti(folder / f"{hemisphere_stem(stem, side)}.shape.gii", filled, STRUCTURES[side])
    path = folder / f"{stem}.dscalar.nii"
    _write_cifti(path, full, space)
    return path


def hemisphere_stem(stem: str, side: str) -> str:
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
