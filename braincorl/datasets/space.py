"""`VoxelSpace`: where a person's voxels are, so that data never travel without it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.validation import FloatArray

SINGULAR = 1e-6  # volume of a voxel whose edges have length one, about
SPACE_CODES = range(1, 6)  # xform codes of the NIfTI standard, without 0 (unknown)
ALIGNED = 2  # NIfTI's code of a space that is some other image's
SUBCORTEX_ARRAYS = ("deep_structure", "deep_structure_names", "deep_voxels", "deep_shape", "deep_affine")


@dataclass(frozen=True)
class Subcortex:
    """Voxels of structures below the cortex, which CIFTI files list after the vertices.

    Attributes
    ----------
    structures
        CIFTI's name of the structure of each voxel (n,), such as "CIFTI_STRUCTURE_THALAMUS_LEFT".
    voxels
        Indices into the grid (n, 3).
    shape
        Of the grid.
    affine
        (4, 4), voxel indices to millimetres.

    Raises
    ------
    InputError
        If the parts do not fit together.
    """

    structures: npt.NDArray[np.str_]
    voxels: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        check_affine(self.affine, "the affine of the voxels below the cortex")
        whole = self.voxels.dtype.kind in "iu"
        if self.voxels.shape != (self.structures.size, 3) or len(self.shape) != 3 or not whole:
            raise InputError(
                f"voxels has shape {self.voxels.shape}, expected indices (n, 3) for {self.structures.size} voxels."
            )
        if (self.voxels < 0).any() or (self.voxels >= np.asarray(self.shape)).any():
            raise InputError(f"voxels below the cortex lie outside their grid {self.shape}.")

    def same_grid(self, other: "Subcortex") -> bool:
        """Whether equal indices are equal places: a mirrored grid has the same shape."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-3)

    def select(self, chosen: npt.NDArray[np.bool_]) -> "Subcortex | None":
        """Keep some voxels; None where none is left."""
        if not chosen.any():
            return None
        return Subcortex(self.structures[chosen], self.voxels[chosen], self.shape, self.affine)

    @property
    def flat(self) -> npt.NDArray[np.int64]:
        """Number of each voxel in its grid (n,)."""
        return np.asarray(np.ravel_multi_index(tuple(self.voxels.T), self.shape), dtype=np.int64)


@dataclass(frozen=True)
class Surface:
    """Which vertices of a cortical surface are looked at, in both hemispheres, and voxels below it.

    Attributes
    ----------
    left, right
        Bool over all vertices of the hemisphere's surface (n_vertices,); (0,) where there is only the other one.
    name
        Which surface, such as "fsaverage".
    subcortex
        Voxels below the cortex, as of a CIFTI file; None where there are none.
    order
        For a CIFTI axis in another order than left, right, subcortex: which of ours each grayordinate of the axis is
        (n_chosen,), so that maps go back onto the same axis.

    Raises
    ------
    InputError
        If a hemisphere is not a vector of bool, or the order is none.
    """

    left: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    name: str = "fsaverage"
    subcortex: Subcortex | None = None
    order: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for side, vertices in (("left", self.left), ("right", self.right)):
            if vertices.ndim != 1 or vertices.dtype != np.bool_:
                raise InputError(
                    f"{side} has shape {vertices.shape} and type {vertices.dtype}, expected bool (n_vertices,)."
                )
        if self.order is not None and not np.array_equal(np.sort(self.order), np.arange(self.n_chosen)):
            raise InputError(f"order is no order of {self.n_chosen} grayordinates.")

    @property
    def n_chosen(self) -> int:
        """Number of vertices, and of voxels below the cortex, that are looked at."""
        deep = 0 if self.subcortex is None else self.subcortex.structures.size
        return int(self.left.sum() + self.right.sum()) + deep

    @property
    def parts(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Vertices of each hemisphere that there is: "left" and "right", or one of them -> bool (n_vertices,)."""
        return {side: half for side, half in (("left", self.left), ("right", self.right)) if half.size}

    def on_vertices(self, values: npt.NDArray[Any], background: float = np.nan) -> dict[str, npt.NDArray[Any]]:
        """Put floating values (..., n_chosen) onto all vertices, hemisphere by hemisphere.

        Parameters
        ----------
        values
            Of what is looked at; those below the cortex have no vertex.
        background
            What the other vertices get.

        Returns
        -------
        dict
            "left" and "right", or the one that there is -> (..., n_vertices), of the type of `values`.
        """
        halves = {}
        for side, chosen, part in zip(("left", "right"), (self.left, self.right), self.split(values), strict=False):
            if chosen.size:
                halves[side] = np.full((*values.shape[:-1], chosen.size), background, dtype=values.dtype)
                halves[side][..., chosen] = part
        return halves

    def split(self, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Cut values (..., n_chosen) into those of the left hemisphere, the right one, and below the cortex."""
        left, right = int(self.left.sum()), int(self.right.sum())
        return values[..., :left], values[..., left : left + right], values[..., left + right :]

    def coordinates(self) -> npt.NDArray[np.float64]:
        """Places of what is looked at (n_chosen, 3), in millimetres.

        Raises
        ------
        InputError
            If the vertices are of no surface whose places are known, or the package that knows them is missing.
        """
        from braincorl.datasets.meshes import vertex_places  # nibabel, which most spaces do without

        parts = [vertex_places(self.name, side, half.size)[half] for side, half in self.parts.items() if half.any()]
        if self.subcortex is not None:
            affine = self.subcortex.affine
            parts.append(self.subcortex.voxels @ affine[:3, :3].T + affine[:3, 3])
        return np.concatenate(parts)

    def select(self, chosen: npt.NDArray[np.bool_]) -> "Surface":
        """Keep some of what is looked at (n_chosen,)."""
        parts = self.split(chosen)
        left, right = self.left.copy(), self.right.copy()
        left[left], right[right] = parts[0], parts[1]
        order = None
        if self.order is not None:
            kept = self.order[chosen[self.order]]
            order = np.searchsorted(np.sort(kept), kept)
        return Surface(left, right, self.name, self.subcortex and self.subcortex.select(parts[2]), order)

    def same_places(self, other: "Surface") -> bool:
        """Whether another surface looks at the same vertices and voxels."""
        if not (np.array_equal(self.left, other.left) and np.array_equal(self.right, other.right)):
            return False
        if self.subcortex is None or other.subcortex is None:
            return self.subcortex is other.subcortex
        return self.subcortex.same_grid(other.subcortex) and np.array_equal(
            self.subcortex.voxels, other.subcortex.voxels
        )

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Everything but the name, as arrays for a file; `from_arrays` reads them."""
        arrays: dict[str, npt.NDArray[Any]] = {"left": self.left, "right": self.right}
        if self.subcortex is not None:
            names, number = np.unique(self.subcortex.structures, return_inverse=True)
            text = "\n".join(names.tolist()).encode()
            arrays |= {
                "deep_structure": number.astype(np.int64),
                "deep_structure_names": np.frombuffer(text, dtype=np.uint8).copy(),
                "deep_voxels": np.ascontiguousarray(self.subcortex.voxels, dtype=np.int64),
                "deep_shape": np.asarray(self.subcortex.shape, dtype=np.int64),
                "deep_affine": np.asarray(self.subcortex.affine, dtype=np.float64),
            }
        if self.order is not None:
            arrays["axis_order"] = self.order.astype(np.int64)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> "Surface":
        """Make a surface of what `to_arrays` gave.

        Raises
        ------
        InputError
            If the arrays do not fit together.
        """
        subcortex = None
        if any(key in arrays for key in SUBCORTEX_ARRAYS):
            missing = [key for key in SUBCORTEX_ARRAYS if key not in arrays]
            if missing:
                raise InputError(f"voxels below the cortex lack '{missing[0]}'.")
            names = np.asarray(arrays["deep_structure_names"].astype(np.uint8).tobytes().decode().split("\n"))
            number, shape = arrays["deep_structure"], arrays["deep_shape"]
            if (
                number.ndim != 1
                or number.size == 0
                or shape.shape != (3,)
                or not 0 <= number.min() <= number.max() < names.size
            ):
                raise InputError("voxels below the cortex name structures that are not in their list.")
            size = (int(shape[0]), int(shape[1]), int(shape[2]))
            subcortex = Subcortex(names[number], arrays["deep_voxels"], size, arrays["deep_affine"])
        return cls(arrays["left"], arrays["right"], name, subcortex, arrays.get("axis_order"))

    @staticmethod
    def is_part(name: str) -> bool:
        """Whether an array of this name is one of `to_arrays`."""
        return name in ("left", "right", "axis_order", *SUBCORTEX_ARRAYS)


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
    On a surface the "voxels" are its chosen vertices, left hemisphere first, then voxels below the cortex.

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

        Vertices lie where they do on the average of many people, which is known for fsaverage5 and fsLR32k, and for
        fsaverage6 and fsaverage where their files are at hand.

        Raises
        ------
        InputError
            If there is no grid, or nobody knows where the vertices of the surface lie.
        """
        if self.surface is not None:
            return self.surface.coordinates()[self.included]
        if self.mask is None or self.affine is None:
            raise InputError("these voxels came without a mask, so they have no coordinates: pass a mask.")
        indices = np.argwhere(self.mask)[self.included]
        return np.asarray(indices @ self.affine[:3, :3].T + self.affine[:3, 3])
