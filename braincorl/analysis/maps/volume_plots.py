"""Maps of volumes as pictures: a mosaic of slices in any space, and a glass brain in MNI space.

Every function returns a matplotlib figure of its own; none opens a window or touches pyplot's state.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from braincorl.analysis.colours import OUTLINES, ColourScale, colour_scale, level_scale, reliable_values
from braincorl.analysis.figures import new_figure, own_style
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.fits.maps import unmask

Rois = Mapping[str, npt.NDArray[np.bool_]]

COLUMNS, WIDTH = 4, 6.8  # inches: also readable on a phone's screen
LEGEND_WIDTH, LONGEST_NAME = 6.0, 30
ANATOMY_MM = 1.5  # finer is not seen at the size of a slice
WHITEST = 1.25  # of the bright tissue: it is a light grey, on which light outlines are seen
FAINT = 0.05  # of the bright tissue: what is darker is outside the head, or a speck that resampling left


@own_style
def plot_mosaic(
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
    n_slices: int = 12,
    template: Any = None,
) -> Figure:
    """Draw axial slices of a map, voxel by voxel, left on the left.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are; any space, no template is assumed.
    title
        Above the slices.
    label
        Name of the values, at the colour bar.
    signed
        Whether the colours are symmetric about 0; see `colour_scale`.
    ceiling, min_ceiling
        Voxels with a noise ceiling (n_voxels,) below `min_ceiling` stay grey.
    rois
        Region name -> bool (n_voxels,), outlined.
    levels
        Name -> colour of a categorical map, whose values are numbers of these from 1, NaN for none: a legend of names
        takes the place of the colour bar.
    n_slices
        Slices at most, spread over those that have voxels.
    template
        nibabel image of the anatomy in the same space, drawn behind, on whichever grid; without one the mask is.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the space has no grid, no value is finite, shapes do not match, or a value is the number of no level.
    """
    shown = reliable_values(values, ceiling, min_ceiling)
    scale = level_scale(shown, levels) if levels else colour_scale(shown, signed)
    volume = _to_ras(unmask(shown, space))
    slices = _Slices(volume.affine, _to_ras(unmask(np.ones(space.n_voxels), space)).get_fdata() > 0, template)
    outlines = {name: _to_ras(unmask(members * 1.0, space, "zero")).get_fdata() for name, members in _named(rois)}
    chosen = slices.choose(n_slices)
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    width = WIDTH if columns == COLUMNS else WIDTH * (columns + 0.3) / (COLUMNS + 0.3)
    foot = key_height(levels) + legend_height(list(outlines))
    figure = new_figure(width, rows * width / columns * (slices.aspect + 0.06) + 0.45 + foot)
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, k in zip(panels, chosen, strict=False):
        slices.draw(axes, k, volume.get_fdata(), scale)
        for colour, outline in zip(_cycle(len(outlines)), outlines.values(), strict=True):
            slices.outline(axes, outline[:, :, k], colour)
    _finish(figure, panels, foot, title)
    add_key(figure, scale, label, levels, list(outlines))
    return figure


@own_style
def plot_glass_brain(
    values: npt.ArrayLike,
    space: VoxelSpace,
    *,
    title: str = "",
    label: str = "",
    signed: bool | None = None,
    ceiling: npt.ArrayLike | None = None,
    min_ceiling: float = 0.1,
    rois: Rois | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Draw a map of a person in MNI space through a glass brain.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are; its affine must be in MNI space.
    title, label, signed, ceiling, min_ceiling, rois
        As in `plot_mosaic`.
    axes
        matplotlib Axes to be replaced by the projections; by default those of a new figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the space has no grid, no value is finite, or shapes do not match.
    """
    from nilearn.plotting import plot_glass_brain as draw

    shown = reliable_values(values, ceiling, min_ceiling)
    scale = colour_scale(shown, signed)
    own = axes is None
    names = [name for name, _ in _named(rois)]
    if axes is None:
        foot = legend_height(names)
        height = 2.2 + foot
        axes = new_figure(WIDTH, height).add_axes((0.0, 0.02 + foot / height, 0.93, 0.97 - foot / height))
    figure: Figure = axes.get_figure()  # type: ignore[assignment]
    # Voxels that are not shown are 0, and so is the threshold: they leave no trace.
    image = unmask(np.nan_to_num(np.clip(shown, None if scale.signed else 0.0, None)), space, outside="zero")
    display = draw(
        nib.Nifti1Image(np.nan_to_num(image.get_fdata(dtype=np.float32)), image.affine),
        axes=axes,
        figure=figure,
        display_mode="lyrz",
        colorbar=True,
        cmap=scale.colormap,
        vmin=scale.low,
        vmax=scale.high,
        threshold=0.0,
        plot_abs=False,
        symmetric_cbar=scale.signed,
    )
    for colour, (_, members) in zip(_cycle(len(names)), _named(rois), strict=True):
        outline = unmask(members * 1.0, space, "zero").get_fdata(dtype=np.float32)
        display.add_contours(
            nib.Nifti1Image(np.nan_to_num(outline), space.affine), levels=[0.5], colors=[colour], linewidths=1.2
        )
    if title:
        display.title(" · ".join(part for part in (title, label) if part), size=11, color="black", bgcolor="white")
    if own and names:
        add_legend(figure, names)
    return figure


def legend_height(names: Sequence[str]) -> float:
    """Height that `add_legend` needs (inches)."""
    return 0.2 * -(-len(names) // _legend_columns(names)) + 0.04 if names else 0.0


def key_height(levels: Mapping[str, str] | None) -> float:
    """Height of what says the colours' meaning: a bar, or the names of levels (inches)."""
    return legend_height(list(levels)) + 0.12 if levels else 0.5


def add_legend(figure: Figure, names: Sequence[str]) -> None:
    """Name the outlines' colours at the foot of a figure."""
    _legend(figure, dict(zip(names, _cycle(len(names)), strict=True)), 0.0)


def add_key(
    figure: Figure, scale: ColourScale, label: str, levels: Mapping[str, str] | None, outlined: Sequence[str]
) -> None:
    """Say what the colours mean, and below it what is outlined.

    Parameters
    ----------
    figure
        With `key_height` and `legend_height` inches free at its foot.
    scale
        Of the values.
    label
        Their name.
    levels
        Name -> colour of a categorical map.
    outlined
        Names of the regions.
    """
    height = figure.get_size_inches()[1]
    below = legend_height(outlined)
    if levels:
        _legend(figure, levels, below / height, label)
    else:
        axes = figure.add_axes((0.3, (below + 0.25) / height, 0.4, 0.1 / height))
        bar = figure.colorbar(scale.mappable, cax=axes, orientation="horizontal")
        bar.ax.tick_params(labelsize=8)
        if label:
            bar.ax.text(-0.03, 0.5, label, transform=bar.ax.transAxes, ha="right", va="center", fontsize=9)
    if outlined:
        add_legend(figure, outlined)


def _legend(figure: Figure, colours: Mapping[str, str], bottom: float, title: str = "") -> None:
    handles = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.5, label=_shorten(name))
        for name, colour in colours.items()
    ]
    if title:
        handles.insert(0, Patch(alpha=0, label=f"{title}:"))
    spacing = {"handlelength": 1.2, "columnspacing": 1.2, "labelspacing": 0.3, "borderpad": 0.2, "borderaxespad": 0.2}
    legend = figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, bottom),
        ncols=_legend_columns(list(colours)) + bool(title),
        frameon=False,
        fontsize=8,
        **spacing,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name is a $


def _legend_columns(names: Sequence[str]) -> int:
    widest = 0.35 + 0.06 * min(max(map(len, names)), LONGEST_NAME)  # inches, at the legend's size of letters
    most = max(1, min(8, len(names), int(LEGEND_WIDTH / widest)))
    rows = -(-len(names) // most)
    return -(-len(names) // rows)  # rows of equal length, where the last would hold one name


class _Slices:
    """Axial slices of a grid that points right, front, up, cropped to the mask."""

    def __init__(self, affine: npt.NDArray[Any], mask: npt.NDArray[np.bool_], template: Any) -> None:
        self._mask = mask
        inside = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        low = [max(int(axis[0]) - 1, 0) for axis in inside[:2]]
        high = [min(int(axis[-1]) + 1, size - 1) for axis, size in zip(inside[:2], mask.shape, strict=False)]
        self._window = tuple(slice(start, stop + 1) for start, stop in zip(low, high, strict=True))
        self._levels = inside[2]
        zooms = nib.affines.voxel_sizes(affine)
        straight = np.allclose(affine[:3, :3], np.diag(zooms), atol=1e-3 * zooms.min())
        origin = affine[:3, 3] if straight else np.zeros(3)
        self._bottom, self._thickness = float(origin[2]), float(zooms[2])
        self._straight = straight
        edges = [(origin[a] + (low[a] - 0.5) * zooms[a], origin[a] + (high[a] + 0.5) * zooms[a]) for a in range(2)]
        self._extent = (*edges[0], *edges[1])
        self._anatomy = None if template is None else _resample(template, affine, mask.shape)
        self.aspect = (edges[1][1] - edges[1][0]) / (edges[0][1] - edges[0][0])

    def _height(self, k: int) -> float:
        return self._bottom + k * self._thickness

    def choose(self, n_slices: int) -> list[int]:
        """Slices spread evenly over those with voxels."""
        if n_slices < 1:
            raise InputError(f"n_slices must be at least 1, but is {n_slices}.")
        positions = np.linspace(0, self._levels.size - 1, min(n_slices, self._levels.size)).round().astype(int)
        return [int(level) for level in self._levels[positions]]

    def draw(self, axes: Any, k: int, volume: npt.NDArray[Any], scale: ColourScale) -> None:
        """Draw one slice, the anatomy or else the mask in grey behind it."""
        place = {"origin": "lower", "extent": self._extent, "interpolation": "nearest"}
        if self._anatomy is not None:
            finer = [round(fine / size) for fine, size in zip(self._anatomy.shape, self._mask.shape, strict=True)]
            window = tuple(slice(w.start * n, w.stop * n) for w, n in zip(self._window, finer, strict=False))
            shown = self._anatomy[:, :, k][window].T
            axes.imshow(np.where(shown > FAINT, shown, np.nan), cmap="gray", vmin=0, vmax=WHITEST, **place)
        else:
            ground = np.where(self._mask[:, :, k], 0.75, np.nan)
            axes.imshow(ground[self._window].T, cmap="gray", vmin=0, vmax=1, **place)
        axes.imshow(volume[:, :, k][self._window].T, cmap=scale.colormap, vmin=scale.low, vmax=scale.high, **place)
        axes.set_xlim(self._extent[:2])
        axes.set_ylim(self._extent[2:])
        text = f"z = {self._height(k):.0f} mm" if self._straight else f"slice {k}"
        axes.set_title(text, fontsize=8, pad=2)

    def outline(self, axes: Any, region: npt.NDArray[Any], colour: str) -> None:
        """Draw a region's border around its voxels."""
        inside = np.nan_to_num(region[self._window].T) > 0.5
        if not inside.any():
            return
        # Each voxel is drawn as 8 x 8 points, so that the border follows its edges.
        fine = np.kron(np.pad(inside, 1), np.ones((8, 8)))
        left, right, bottom, top = self._extent
        width, height = (right - left) / inside.shape[1], (top - bottom) / inside.shape[0]
        x = left - width + (np.arange(fine.shape[1]) + 0.5) * width / 8
        y = bottom - height + (np.arange(fine.shape[0]) + 0.5) * height / 8
        axes.contour(x, y, fine, levels=[0.5], colors=[colour], linewidths=1.5)


def _resample(template: Any, affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Bring an anatomy to slices of a grid, finer within them, with its bright tissue at 1."""
    from nilearn.image import resample_img

    finer = [*np.maximum(1, np.rint(nib.affines.voxel_sizes(affine)[:2] / ANATOMY_MM)).astype(int).tolist(), 1]
    # The outer edges of both grids are the same, so the first centre moves outwards by what a voxel shrinks, halved.
    target = affine @ np.diag([*(1 / n for n in finer), 1.0])
    target[:3, 3] += affine[:3, :3] @ [(1 / n - 1) / 2 for n in finer]
    size = [n * edge for n, edge in zip(finer, shape, strict=True)]
    known = nib.Nifti1Image(np.nan_to_num(template.get_fdata(dtype=np.float32)), template.affine)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Resampling binary images")  # a mask may be drawn on, too
        image = resample_img(known, target, size, interpolation="linear", copy_header=True, force_resample=True)
    data = image.get_fdata(dtype=np.float32)
    if not (data > 0).any():
        raise InputError(
            "the image to draw on has nothing where the voxels are: pass one in the same space, such as the T1w "
            "image that the betas are aligned to."
        )
    return np.asarray(data / np.percentile(data[data > 0], 99), dtype=np.float32)


def _shorten(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _to_ras(image: Any) -> Any:
    return nib.as_closest_canonical(image)


def _named(rois: Rois | None) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    return [(name, np.asarray(members)) for name, members in (rois or {}).items() if np.any(members)]


def _cycle(n: int) -> list[str]:
    return [OUTLINES[index % len(OUTLINES)] for index in range(n)]


def _finish(figure: Figure, panels: npt.NDArray[Any], foot: float, title: str) -> None:
    """Add title, left and right, and leave `foot` inches free below."""
    height = figure.get_size_inches()[1]
    top, bottom = 1 - (0.5 if title else 0.2) / height, foot / height
    figure.subplots_adjust(left=0.01, right=0.99, top=top, bottom=bottom, wspace=0.04, hspace=0.2)
    for side, x in (("L", 0.02), ("R", 0.98)):
        panels[0].text(x, 0.02, side, transform=panels[0].transAxes, fontsize=8, ha="left" if side == "L" else "right")
    if title:
        figure.suptitle(title, fontsize=11, y=1 - 0.08 / height, va="top", parse_math=False)
