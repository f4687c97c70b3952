"""People on a surface, from a list of files: which of them belong together, and what they say of vertices.

On the command line files come as a shell sorts them. Which hemisphere a file is of is read from the file or its name,
never from its place in the list; two files are a pair if their names differ in nothing but the hemisphere. CIFTI files
hold both hemispheres. Files of one hemisphere alone are fine: the other then has no vertices.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from braincorl.datasets.betas.beta_files import BetasSource
from braincorl.datasets.betas.grids import Grid, as_labels, as_mask, check_ncsnr
from braincorl.datasets.file_names import entities
from braincorl.datasets.meshes import surface_name
from braincorl.datasets.space import Surface
from braincorl.datasets.surfaces.cifti import CiftiBetas, CiftiFile, is_cifti
from braincorl.datasets.surfaces.surface_file import ENDINGS, SurfaceBetas, SurfaceFile, n_vertices
from braincorl.datasets.trials.rois import Rois, labels_to_rois, read_label_lines, read_rois
from braincorl.errors import InputError

logger = logging.getLogger(__name__)

# What tables of regions call the vertices that are in none.
NOWHERE = ("", "???", "unknown", "medial_wall", "medial wall", "medialwall", "unlabelled", "unlabeled")
SIDE_IN_NAME = re.compile(r"(?:(?<=_)|^)hemi-[LRlr][A-Za-z]*_?|(?:(?<=[._-])|^)[lr]h[._-]|(?<=[._])[LR]\.(?=.*gii$)")


def is_on_surface(path: str | Path) -> bool:
    """Whether a file is of a surface: of one hemisphere by its ending, or CIFTI by its header."""
    path = Path(path)
    return path.name.endswith(ENDINGS) or (".nii" in path.suffixes and path.is_file() and is_cifti(path))


Pair = tuple[Path | None, Path | None]


def _pair_hemispheres(paths: Sequence[Path], what: str) -> list[Pair]:
    """Pair files of the left and the right hemisphere, in the order of the left ones; with None if all are of one."""
    sides: dict[str, list[Path]] = {"left": [], "right": []}
    for path in paths:
        side = SurfaceFile(path).side
        if side is None:
            raise InputError(
                f"{path} says neither in AnatomicalStructurePrimary nor in its name of which hemisphere it is: rename "
                "it to lh.… or rh.…, or with hemi-L or hemi-R."
            )
        sides[side].append(path)
    left, right = sides["left"], sides["right"]
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    if not left or not right:
        logger.info(
            "%s: all files are of the %s hemisphere, which is looked at alone", what, "left" if left else "right"
        )
        return [(path, None) if left else (None, path) for path in paths]
    partners = {_without_side(path): path for path in right}
    if len(partners) < len(right):
        raise InputError(f"{what} names two files of the right hemisphere that differ in nothing but their folder.")
    pairs: list[Pair] = []
    for path in left:
        partner = partners.pop(_without_side(path), None)
        if partner is None:
            raise InputError(
                f"{what}: {path} is of the left hemisphere and has no partner of the right one, whose name differs "
                "from it in that alone: pass both hemispheres of each."
            )
        pairs.append((path, partner))
    if partners:
        raise InputError(
            f"{what}: {next(iter(partners.values()))} is of the right hemisphere and has no partner of the left one: "
            "pass both hemispheres of each."
        )
    return pairs


def open_surface_betas(paths: Sequence[Path], mask: Surface | None) -> tuple[list[BetasSource], Surface, list[Path]]:
    """Open betas on a surface and check that they are of one.

    Parameters
    ----------
    paths
        Files of both hemispheres, or CIFTI files.
    mask
        What to look at; by default everything.

    Returns
    -------
    sources : list of BetasSource
    surface : Surface
    first : list of Path
        A file of each source, for its name.

    Raises
    ------
    InputError
        If files do not belong together.
    FileFormatError
        If a file is damaged.
    """
    kinds = [is_cifti(path) for path in paths]
    if all(kinds):
        surface = mask or CiftiBetas(paths[0]).surface
        cifti = [CiftiBetas(path, surface) for path in paths]
        return list(cifti), surface, list(paths)
    if any(kinds):
        raise InputError("the betas are of different kinds (CIFTI, and files of a hemisphere): pass one kind only.")
    pairs = _pair_hemispheres(paths, "betas")
    first = [left or right for left, right in pairs]
    if mask is None:
        left, right = (np.ones(n_vertices(path), dtype=bool) for path in pairs[0])
        mask = _surface(left, right, pairs[0])
    return [SurfaceBetas(one, two, mask) for one, two in pairs], mask, [path for path in first if path is not None]


def read_surface_mask(paths: Sequence[Path]) -> Surface:
    """Read a mask of both hemispheres: two files of a value per vertex, or one CIFTI file; above 0 is inside.

    Raises
    ------
    InputError
        If files are missing, do not belong together, or nothing is inside.
    FileFormatError
        If a file is damaged.
    """
    if len(paths) == 1 and is_cifti(paths[0]):
        file = CiftiFile(paths[0])
        if file.n_maps != 1:
            raise InputError(f"{paths[0]} holds {file.n_maps} maps, expected one: the mask.")
        return file.surface.select(as_mask(file.rows(0, 1)[0], paths[0]))
    pairs = _pair_hemispheres(paths, "mask")
    if len(pairs) != 1:
        raise InputError(f"mask names {len(paths)} files, expected one of each hemisphere, or one CIFTI file.")
    left, right = (
        np.zeros(0, dtype=bool) if path is None else as_mask(_values(SurfaceFile(path)), path, may_be_empty=True)
        for path in pairs[0]
    )
    if not (left.any() or right.any()):
        raise InputError(f"{' and '.join(map(str, paths))} are an empty mask: every vertex is 0.")
    return _surface(left, right, pairs[0])


def _read_surface_map(paths: Sequence[Path], surface: Surface, what: str) -> npt.NDArray[np.float64]:
    """Read one value per place that is looked at (n_chosen,): two files of a hemisphere each, or one CIFTI file."""
    if len(paths) == 1 and is_cifti(paths[0]):
        file = CiftiFile(paths[0])
        if file.n_maps != 1:
            raise InputError(f"{paths[0]} holds {file.n_maps} maps, expected one for {what}.")
        return _map_at(file, 0, surface)
    pairs = _pair_hemispheres(paths, what)
    if len(pairs) != 1:
        raise InputError(f"{what} names {len(paths)} files, expected one of each hemisphere, or one CIFTI file.")
    deep = 0 if surface.subcortex is None else surface.subcortex.structures.size
    parts = []
    for path, chosen in zip(pairs[0], (surface.left, surface.right), strict=True):
        if path is None and chosen.any():
            raise InputError(f"{paths[0]} is of one hemisphere, but both are looked at: pass {what} of both.")
        parts.append(
            np.zeros(0) if path is None or not chosen.any() else _values(SurfaceFile(path), chosen.size)[chosen]
        )
    return np.concatenate([*parts, np.full(deep, np.nan)]).astype(np.float64)


def read_surface_ncsnr(paths: Sequence[Path], surface: Surface) -> npt.NDArray[np.float64]:
    """Read a map of noise ceiling signal-to-noise ratios (n_chosen,)."""
    return check_ncsnr(_read_surface_map(paths, surface, "ncsnr"), paths[0])


def read_surface_rois(paths: Iterable[Path], surface: Surface) -> Rois:
    """Read regions on a surface.

    Parameters
    ----------
    paths
        `.annot`, GIFTI or FreeSurfer files of a hemisphere, with a mask, or labels named by a table in them; parts of
        the same name in both hemispheres are one region. CIFTI: `.dlabel.nii`, or a mask per map. Or text files with
        one label per place that is looked at.
    surface
        What is looked at.

    Returns
    -------
    dict
        Name -> bool (n_chosen,).

    Raises
    ------
    InputError
        If a file is missing or of another surface, or names a region that another file named.
    """
    rois: Rois = {}
    from_side: dict[str, str] = {}
    for path in paths:
        if not is_on_surface(path):
            found, side = labels_to_rois(read_label_lines(path), surface.n_chosen, str(path)), "both"
        elif is_cifti(path):
            found, side = _regions_of_cifti(CiftiFile(path), surface), "both"
        else:
            found, side = _regions_of_hemisphere(SurfaceFile(path), surface)
            if not found and not (surface.left if side == "left" else surface.right).any():
                logger.info("%s is of the %s hemisphere, which is not looked at: left out", path, side)
                continue
        if not found:
            raise InputError(f"{path} labels no place that is looked at: check that it belongs to this surface.")
        for name, members in found.items():
            if name == "all":
                raise InputError(f"{path} names a region 'all', which tables use for all voxels: rename it.")
            if name not in rois:
                rois[name], from_side[name] = members, side
            elif "both" not in (side, from_side[name]) and side != from_side[name]:
                rois[name], from_side[name] = rois[name] | members, "both"
            else:
                raise InputError(f"{path} names region '{name}', which an earlier file named too: rename one.")
    return rois


def read_rois_at(paths: Iterable[str | Path], where: Grid | Surface | None, n_voxels: int) -> Rois:
    """Read regions in a volume or on a surface, as bool over all voxels of the mask (n_voxels,)."""
    if isinstance(where, Surface):
        return read_surface_rois(map(Path, paths), where)
    return read_rois(paths, where, n_voxels)


def _regions_of_cifti(file: CiftiFile, surface: Surface) -> Rois:
    rois: Rois = {}
    for number in range(file.n_maps):
        values = _map_at(file, number, surface)
        name = file.names[number] if file.n_maps > 1 else _region_name(file.path)
        rois |= _named(values, file.labels[number] if file.labels else {}, name or _region_name(file.path), file.path)
    return rois


def _regions_of_hemisphere(file: SurfaceFile, surface: Surface) -> tuple[Rois, str]:
    if file.side is None:
        raise InputError(f"{file.path} does not say of which hemisphere it is: rename it to lh.… or rh.…, or hemi-L.")
    chosen = surface.left if file.side == "left" else surface.right
    if not chosen.any():
        return {}, file.side
    parts = list(surface.split(np.zeros(surface.n_chosen)))
    parts[0 if file.side == "left" else 1] = _values(file, chosen.size)[chosen]
    return _named(np.concatenate(parts), file.labels, _region_name(file.path), file.path), file.side


def _named(values: npt.NDArray[Any], names: Any, alone: str, path: Path) -> Rois:
    """Regions of whole numbers, by a table of names or as a mask."""
    finite = np.where(np.isfinite(values), values, 0)
    if not names and np.unique(finite[finite > 0]).size == 1 and not (finite < 0).any():
        return {alone: finite > 0}
    labels = as_labels(values, path)
    rois: Rois = {}
    for label in np.unique(labels[labels > 0]).tolist():
        name = names.get(label, "") if names else f"{alone}-{label}"
        if name.strip().lower() not in NOWHERE:
            rois[name.strip()] = rois.get(name.strip(), False) | (labels == label)
    return rois


def _map_at(file: CiftiFile, number: int, surface: Surface) -> npt.NDArray[np.float64]:
    columns = file.columns_of(surface)
    values = file.rows(number, number + 1, np.maximum(columns, 0))[0].astype(np.float64)
    values[columns < 0] = np.nan
    return np.asarray(values)


def _surface(left: npt.NDArray[np.bool_], right: npt.NDArray[np.bool_], pair: Pair) -> Surface:
    stated = next(entities(path).get("space") for path in pair if path is not None)
    return Surface(left, right, surface_name(left.size or right.size, stated))


def _values(file: SurfaceFile, n_vertices: int | None = None) -> npt.NDArray[Any]:
    if file.n_trials != 1:
        raise InputError(f"{file.path} has {file.n_trials} values per vertex, expected one.")
    if n_vertices is not None and file.n_vertices != n_vertices:
        raise InputError(f"{file.path} has {file.n_vertices} vertices, but the surface has {n_vertices}.")
    values: npt.NDArray[Any] = next(iter(file.trials(1)))[0]
    return values


def _without_side(path: Path) -> str:
    return SIDE_IN_NAME.sub("", path.name, count=1)


def _region_name(path: Path) -> str:
    label = entities(path).get("label")
    if label is not None:
        return label
    stem = re.sub(r"(\.(func|shape|label))?\.(gii|mgh|mgz|annot)$|\.d(scalar|label|tseries)\.nii$", "", path.name)
    return _without_side(Path(stem + ".")).strip("._") or stem
