"""nilearn's `SurfaceImage`, in and out: the trials of a person in memory, and maps back on the same meshes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from braincorl.batching import at_a_time
from braincorl.datasets.betas.beta_files import as_float32
from braincorl.datasets.meshes import FSLR, hcp_file, surface_name
from braincorl.datasets.space import Surface, VoxelSpace
from braincorl.datasets.subject import SubjectData, ZScore, check_zscore
from braincorl.datasets.trials.recording import Recording
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError

SIDES = ("left", "right")


def load_surface_image(
    betas: Any,
    image_ids: Sequence[str],
    *,
    sessions: Sequence[str] | None = None,
    mask: Any = None,
    zscore: ZScore = "none",
    images: Iterable[str] | None = None,
    name: str = "sub-new",
) -> SubjectData:
    """Average the repeats of each image in a `nilearn.surface.SurfaceImage` of single trials.

    Parameters
    ----------
    betas
        Surface image of n_trials values per vertex.
    image_ids
        What each trial showed (n_trials,); "" for nothing.
    sessions
        Session of each trial (n_trials,).
    mask
        Surface image of one value per vertex, above 0 inside; by default every vertex.
    zscore, images
        As for `load_subject`.
    name
        BIDS label of the person.

    Returns
    -------
    SubjectData
        Voxels are vertices, left hemisphere first.

    Raises
    ------
    InputError
        If parts do not fit together.
    """
    check_zscore(zscore)
    parts = _parts(betas, "betas")
    chosen = {side: np.ones(len(part), dtype=bool) for side, part in parts.items()}
    if mask is not None:
        inside = _parts(mask, "mask")
        chosen = {side: np.nan_to_num(part).reshape(len(part), -1)[:, 0] > 0 for side, part in inside.items()}
    none = np.zeros(0, dtype=bool)
    name_of = surface_name(len(next(iter(parts.values()))))
    surface = Surface(chosen.get("left", none), chosen.get("right", none), name_of)
    source = _ImageBetas(parts, surface)
    table = TrialsTable(
        np.asarray(image_ids, dtype=np.str_),
        np.asarray([""] * source.n_trials if sessions is None else sessions, dtype=np.str_),
    )
    if len(table) != source.n_trials or table.sessions.size != source.n_trials:
        raise InputError(
            f"image_ids names {len(table)} trials and sessions {table.sessions.size}, but the surface image has "
            f"{source.n_trials}: one for each."
        )
    return Recording(name=name, sources=[source], tables=[table], zscore=zscore == "session", surface=surface).load(
        images
    )


def to_surface_image(values: npt.ArrayLike, space: VoxelSpace, mesh: Any = None) -> Any:
    """Put a map of vertices into a `nilearn.surface.SurfaceImage`.

    Parameters
    ----------
    values
        (n_voxels,), or (n_maps, n_voxels).
    space
        Where the voxels are; those below the cortex have no place in a surface image and are left out.
    mesh
        `nilearn.surface.PolyMesh`; by default fsaverage5 (pial), or fsLR32k (midthickness, needs `braincorl[hcp]`).

    Returns
    -------
    nilearn.surface.SurfaceImage
        NaN where there are no values.

    Raises
    ------
    InputError
        If the space is no surface, or no mesh of it is at hand.
    """
    from nilearn.surface import PolyMesh, SurfaceImage

    if space.surface is None:
        raise InputError("these voxels lie in a volume: use unmask or save_map for an image of it.")
    array = np.asarray(values)
    data = {side: half.T for side, half in space.surface.on_vertices(space.expand(array).astype(np.float32)).items()}
    meshes = (_mesh(space.surface) if mesh is None else mesh).parts
    return SurfaceImage(mesh=PolyMesh(**{side: meshes[side] for side in data}), data=data)


class _ImageBetas:
    """Trials of a surface image in memory."""

    def __init__(self, parts: dict[str, npt.NDArray[Any]], surface: Surface) -> None:
        self.path = Path("surface image")
        counts = {side: part.shape[1] if part.ndim == 2 else 1 for side, part in parts.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"the hemispheres of the surface image have different numbers of trials ({counts}).")
        for side, chosen in zip(SIDES, (surface.left, surface.right), strict=True):
            if len(parts.get(side, ())) != chosen.size:
                raise InputError(
                    f"the {side} hemisphere has {len(parts.get(side, ()))} vertices in the betas, but {chosen.size} in "
                    "the mask."
                )
        self._parts = [parts[side].reshape(chosen.size, -1)[chosen] for side, chosen in surface.parts.items()]
        self.n_trials, self.n_voxels = next(iter(counts.values())), surface.n_chosen

    def chunks(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        step = at_a_time(4 * self.n_voxels)
        for start in range(0, self.n_trials, step):
            yield start, as_float32(np.concatenate([part[:, start : start + step] for part in self._parts]).T)


def _parts(image: Any, name: str) -> dict[str, npt.NDArray[Any]]:
    parts = getattr(getattr(image, "data", None), "parts", None)
    if not parts or not set(parts) <= set(SIDES):
        raise InputError(
            f"{name} is a {type(image).__name__}, expected a nilearn SurfaceImage of one or both hemispheres."
        )
    return {side: np.asarray(parts[side]) for side in SIDES if side in parts}


def _mesh(surface: Surface) -> Any:
    from nilearn.datasets import load_fsaverage
    from nilearn.surface import InMemoryMesh, PolyMesh

    if surface.name == "fsaverage5":
        return load_fsaverage("fsaverage5")["pial"]
    if surface.name != FSLR:
        raise InputError(f"no mesh of the surface '{surface.name}' is at hand: pass one as mesh.")
    files = [hcp_file(f"S1200.{side}.midthickness_MSMAll.32k_fs_LR.surf.gii", "meshes") for side in "LR"]
    halves = [InMemoryMesh(*nib.load(file).agg_data(("pointset", "triangle"))) for file in files]  # type: ignore[attr-defined]
    return PolyMesh(left=halves[0], right=halves[1])
