"""`VoxelSpace`: where a person's voxels are, so that data never travel without it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.validation import FloatArray

SINGULAR = 1e-6  # volume of a voxel whose edges have length one, about
SPACE_CODES = range(1, 6)
ALIGNED = 2  # NIfTI's code of a space that is some other image's


@dataclass(frozen=True)
class Surface:
    """Which vertices of a cortical surface are looked at, in both hemispheres.

    Attributes
    ----------
    left, right
        Bool over all vertices of the hemisphere's surface (n_vertices,).
    name
        Which surface, such as "fsaverage".

    Raises
    ------
    InputError
        If a hemisphere is not a vector of bool.
    """

    left: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    name: str = "fsaverage"

    def __post_init__(self) -> None:
        for side, vertices in (("left", self.left), ("right", self.right)):
            if vertices.ndim != 1 or vertices.dtype != np.bool_:
                raise InputError(
                    f"{side} has shape {vertices.shape} and type {vertices.dtype}, expected bool (n_vertices,)."
                )

    @property
    def n_chosen(self) -> int:
        """Number of vertices that are looked at."""
        return int(self.left.sum() + self.right.sum())


def check_affine(affine: npt.NDArray[np.float64], name: str) -> None:
    """Refuse an affine that puts no voxel anywhere, or all of them into one plane.

    Raises
    ------
    InputError
        If it is not (4, 4), finite and invertible.
    """
    affine = np.asarray(affine)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
        raise InputError(f"{name} is no affine of finite numbers (4, 4) ending in 0 0 0 1: set the image's transform.")
    edges = np.abs(affine[:3, :3]).max(axis=0)
    if not edges.all() or abs(np.linalg.det(affine[:3, :3] / np.where(edges, edges, 1))) < SINGULAR:
        raise InputError(
            f"{name} is singular, so it says of no voxel where it is (an sform with rows of zeros?): set the image's "
            "transform (fslorient, 3drefit, or nibabel)."
        )


@dataclass(frozen=True)
class VoxelSpace:
    """A mask, and which of its voxels carry data.

    The mask's voxels are in C order of the grid, as `image[mask]` and nilearn's `apply_mask` give them. Voxels that
    were constant or not finite are in the mask but not included: arrays over voxels skip them, maps show NaN there.
    On a surface the "voxels" are its chosen vertices, left hemisphere first.

    Attributes
    ----------
    included
        Which voxels of the mask carry data (n_mask_voxels,), bool.
    mask
        3-D bool grid, or None for responses that came as an array without a grid.
    affine
        Voxel indices to millimetres (4, 4), or None without a grid.
    surface
        Chosen vertices, for data on a surface; excludes `mask` and `affine`.
    space_code
        NIfTI's code of the space that the affine leads to, for maps: 1 scanner, 2 aligned, 3 Talairach, 4 MNI,
        5 another template. Programs overlay only images that say the same.

    Raises
    ------
    InputError
        If nothing is included, the mask and `included` do not fit together, or the affine is no transform.
    """

    included: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.bool_] | None = None
    affine: npt.NDArray[np.float64] | None = None
    surface: Surface | None = None
    space_code: int = ALIGNED

    def __post_init__(self) -> None:
        if self.affine is not None:
            check_affine(self.affine, "the affine")
        if self.space_code not in SPACE_CODES:
            raise InputError(f"space_code is {self.space_code!r}, expected one of NIfTI's: 1 to 5.")
        if not self.included.any():
            raise InputError(f"none of {self.included.size} voxels varies and is finite: check the mask and the betas.")
        if (self.mask is None) != (self.affine is None):
            raise InputError("mask and affine belong together: pass both, or neither.")
        if self.mask is not None and int(self.mask.sum()) != self.included.size:
            raise InputError(
                f"the mask has {int(self.mask.sum())} voxels but included has {self.included.size}: they must match."
            )
        if self.surface is not None and self.mask is not None:
            raise InputError("a space is a volume or a surface: pass mask and affine, or surface.")
        if self.surface is not None and self.surface.n_chosen != self.included.size:
            raise InputError(
                f"the surface has {self.surface.n_chosen} chosen vertices but included has {self.included.size}: "
                "they must match."
            )

    @property
    def n_voxels(self) -> int:
        """Number of voxels that carry data."""
        return int(self.included.sum())

    @property
    def n_excluded(self) -> int:
        """Number of voxels of the mask that are constant or not finite."""
        return int(self.included.size - self.included.sum())

    def expand(self, values: npt.NDArray[Any]) -> FloatArray:
        """Put values of the included voxels back among all voxels of the mask.

        Parameters
        ----------
        values
            (..., n_voxels).

        Returns
        -------
        ndarray of shape (..., n_mask_voxels)
            Floating; NaN at the voxels that are not included.

        Raises
        ------
        InputError
            If the last axis is not the included voxels.
        """
        values = np.asarray(values)
        if values.shape[-1:] != (self.n_voxels,):
            raise InputError(f"values has shape {values.shape}, but this space has {self.n_voxels} voxels with data.")
        dtype = values.dtype if np.issubdtype(values.dtype, np.floating) else np.float32
        full = np.full((*values.shape[:-1], self.included.size), np.nan, dtype=dtype)
        full[..., self.included] = values
        return full

    def coordinates(self) -> npt.NDArray[np.float64]:
        """Millimetre coordinates of the included voxels (n_voxels, 3).

        Raises
        ------
        InputError
            If there is no grid.
        """
        if self.mask is None or self.affine is None:
            raise InputError("these voxels came without a mask, so they have no coordinates: pass a mask.")
        indices = np.argwhere(self.mask)[self.included]
        return np.asarray(indices @ self.affine[:3, :3].T + self.affine[:3, 3])
