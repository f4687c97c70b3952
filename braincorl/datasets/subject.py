"""`SubjectData`: one person's responses, with the images that made them and the voxels they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from braincorl.cells import facts_html
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.metrics import noise_ceiling
from braincorl.names import check_names

ZScore = Literal["none", "session"]  # of responses: over the trials of each session, or not at all


@dataclass(frozen=True)
class SubjectData:
    """Responses of one person to distinct images, averaged over repeats.

    Attributes
    ----------
    responses
        (n_images, n_voxels), float; the voxels that the space includes.
    image_ids
        Distinct image names (n_images,).
    space
        Where the voxels are.
    n_repeats
        Trials behind each response (n_images,).
    rois
        Region name -> bool (n_voxels,).
    ncsnr
        Signal over noise standard deviation of a single trial (n_voxels,), or None where nothing tells.
    name
        BIDS label of the person, as in `sub-01`.
    n_sessions
        Sessions that the responses come from, or None where nothing tells.
    zscore
        How responses were scaled: "session", within each session, or "none".

    Raises
    ------
    InputError
        If the parts do not fit together.
    """

    responses: npt.NDArray[np.floating[Any]]
    image_ids: npt.NDArray[np.str_]
    space: VoxelSpace
    n_repeats: npt.NDArray[np.int64]
    rois: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    ncsnr: npt.NDArray[np.float64] | None = None
    name: str = "sub-new"
    n_sessions: int | None = None
    zscore: ZScore = "none"

    def __post_init__(self) -> None:
        expected = (self.image_ids.size, self.space.n_voxels)
        if self.responses.shape != expected:
            raise InputError(f"responses has shape {self.responses.shape}, expected (n_images, n_voxels) = {expected}.")
        if self.n_repeats.shape != self.image_ids.shape:
            raise InputError(f"n_repeats has shape {self.n_repeats.shape}, expected {self.image_ids.shape}.")
        if np.unique(self.image_ids).size != self.image_ids.size:
            raise InputError("image_ids must be distinct: average the repeats of an image first.")
        check_names(self.rois, "the region")
        per_voxel = {f"rois['{name}']": members for name, members in self.rois.items()}
        if self.ncsnr is not None:
            per_voxel["ncsnr"] = self.ncsnr  # type: ignore[assignment]
        for label, values in per_voxel.items():
            if values.shape != (self.space.n_voxels,):
                raise InputError(f"{label} has shape {values.shape}, expected (n_voxels,) = ({self.space.n_voxels},).")

    @property
    def n_images(self) -> int:
        """Number of distinct images."""
        return int(self.image_ids.size)

    @property
    def n_voxels(self) -> int:
        """Number of voxels with data."""
        return self.space.n_voxels

    def select_images(self, image_ids: Sequence[str] | npt.NDArray[np.str_]) -> "SubjectData":
        """Keep the named images, in the given order.

        Parameters
        ----------
        image_ids
            Names that this person saw.

        Returns
        -------
        SubjectData

        Raises
        ------
        InputError
            If a name is not among the images.
        """
        if np.array_equal(self.image_ids, np.asarray(image_ids)):
            return self  # the responses of a whole person are large
        position = {name: row for row, name in enumerate(self.image_ids.tolist())}
        missing = [str(name) for name in image_ids if str(name) not in position]
        if missing:
            raise InputError(f"{self.name} has no responses to {len(missing)} of the images, such as '{missing[0]}'.")
        rows = np.array([position[str(name)] for name in image_ids], dtype=np.intp)
        return replace(
            self, responses=self.responses[rows], image_ids=self.image_ids[rows], n_repeats=self.n_repeats[rows]
        )

    def noise_ceiling(self) -> npt.NDArray[np.float64] | None:
        """Noise ceiling of R² for these images' mean responses (n_voxels,); None where nothing tells."""
        return None if self.ncsnr is None else noise_ceiling(self.ncsnr, self.n_repeats)

    def _repr_html_(self) -> str:
        """Show a notebook what is in it."""
        return facts_html(f"SubjectData {self.name}", self.summary())

    def summary(self) -> dict[str, str]:
        """Say what is in it, name -> text: images, trials, sessions, voxels, ROIs, noise ceiling, place."""
        facts = {
            "images": f"{self.n_images}, {self._trials_each()}",
            "sessions": "unknown" if self.n_sessions is None else str(self.n_sessions),
            "voxels": f"{self.n_voxels:,}"
            + (f" ({self.space.n_excluded:,} without data)" * bool(self.space.n_excluded)),
            "ROIs": ", ".join(f"{name} {int(members.sum())}" for name, members in self.rois.items()) or "none",
            "noise ceiling": "unknown",
            "place": place_of(self.space),
        }
        ceiling = self.noise_ceiling()
        if ceiling is not None and np.isfinite(ceiling).any():
            facts["noise ceiling"] = (
                f"median {np.nanmedian(ceiling):.2f}; at least 0.1 in {np.mean(ceiling >= 0.1):.0%} of the voxels"
            )
        return facts

    def __repr__(self) -> str:
        parts = [f"{self.n_images} images, {self._trials_each()}", f"{self.n_voxels} voxels"]
        if self.n_sessions is not None:
            parts.insert(1, f"{self.n_sessions} session" + "s" * (self.n_sessions > 1))
        if self.rois:
            parts.append(f"{len(self.rois)} ROIs")
        ceiling = self.noise_ceiling()
        if ceiling is not None and np.isfinite(ceiling).any():
            parts.append(f"median noise ceiling {np.nanmedian(ceiling):.2f}")
        return f"SubjectData({self.name}: {', '.join(parts)})"

    def _trials_each(self) -> str:
        low, high = int(self.n_repeats.min()), int(self.n_repeats.max())
        return f"{low} trial{'s' * (low > 1)} each" if low == high else f"{low}-{high} trials each"


def place_of(space: VoxelSpace) -> str:
    """Say in a few words where voxels are: a grid and its edges, or a surface and its vertices."""
    if space.surface is not None:
        deep = "" if space.surface.subcortex is None else f", {space.surface.subcortex.structures.size} voxels below"
        return f"surface {space.surface.name}, {space.surface.left.size} + {space.surface.right.size} vertices{deep}"
    if space.mask is None or space.affine is None:
        return "unknown (no mask)"
    edges = np.linalg.norm(space.affine[:3, :3], axis=0)
    return f"grid {' x '.join(map(str, space.mask.shape))}, voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} mm"


def check_zscore(zscore: str) -> None:
    """Refuse a scaling that there is not.

    Raises
    ------
    InputError
        If it is neither "none" nor "session".
    """
    if zscore not in ("none", "session"):
        raise InputError(f"zscore must be 'none' or 'session', but is {zscore!r}.")
