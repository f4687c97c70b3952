"""Maps to turn and to click through in a notebook: nilearn's viewers, as one HTML page.

`view_map(fit.maps()["ev"], fit.space)` as a cell's last line. Where no viewer fits the space, the static picture of
`plot_surface` stands in its place. Such a page loads nothing but nilearn's icon. Reports hold
static pictures, and one such page on request, in a frame that sees nothing of them.
"""

import html
import warnings
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.colors import ListedColormap

from braincorl.analysis.colours import colour_scale
from braincorl.analysis.maps.surface_plots import FINER, on_fsaverage, plot_surface
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.fits.maps import unmask

NIIVUE_COLOURS = 255
NOTHING = 1e-12  # what is not above it is not drawn: voxels without a value are 0 in viewers


def view_map(
    values: npt.ArrayLike, space: VoxelSpace, *, title: str = "", signed: bool | None = None, on_surface: bool = True
) -> Any:
    """Show a map to turn or to click through.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are: vertices of fsaverage5, 6 or 7, or a volume. Only one in MNI space should be shown on the
        surface.
    title
        Above the map.
    signed
        As in `plot_mosaic`.
    on_surface
        On the inflated cortex of fsaverage5; otherwise, for a volume, in slices on the MNI template.

    Returns
    -------
    nilearn.plotting.html_document.HTMLDocument, or matplotlib.figure.Figure
        The first shows itself in a notebook, and has `open_in_browser` and `save_as_html`; the second is the static
        picture of a surface that no viewer knows.

    Raises
    ------
    InputError
        If the voxels have no places, or no value is finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if space.surface is None and space.mask is None:
        raise InputError("the voxels have no places: give the person a mask or a surface to see maps of it.")
    scale = colour_scale(array, signed)
    look: dict[str, Any] = {
        "cmap": scale.colormap,
        "vmin": scale.low,
        "vmax": scale.high,
        "symmetric_cmap": scale.signed,
    }
    if space.surface is None and not on_surface:
        from nilearn.datasets import load_mni152_template
        from nilearn.plotting import view_img

        shown = unmask(array, space, "zero")
        look |= {"bg_img": load_mni152_template(resolution=2), "title": html.escape(title) or None}
        with warnings.catch_warnings():
            # nilearn takes the median of a masked array, which warns of the mask.
            warnings.filterwarnings("ignore", message="Warning: 'partition' will ignore the 'mask'")
            return view_img(shown, threshold=NOTHING, resampling_interpolation="nearest", **look)
    if space.surface is not None and {half.size for half in space.surface.parts.values()} - {*FINER}:
        return plot_surface(array, space, title=title, signed=signed)
    from nilearn.datasets import load_fsaverage, load_fsaverage_data
    from nilearn.plotting import view_surf
    from nilearn.surface import SurfaceImage

    halves = on_fsaverage(array, space)
    mesh = load_fsaverage("fsaverage5")["inflated"]
    # NaN would paint the whole cortex black, in niivue; 0 is below the threshold, so the folds show.
    data = {side: np.nan_to_num(halves.get(side, np.zeros(FINER[0]))) for side in ("left", "right")}
    image = SurfaceImage(mesh, data)
    folds = SurfaceImage(mesh, load_fsaverage_data(mesh="fsaverage5", data_type="sulcal").data)
    if "engine" in signature(view_surf).parameters:  # newer nilearn: the viewer that it brings itself
        look["engine"] = "niivue"
        if not scale.signed:
            # It gives the upper half of a colour map to what is above 0, and takes no lower end.
            whole = colormaps[str(scale.colormap)](np.linspace(0, 1, NIIVUE_COLOURS))
            look["cmap"] = ListedColormap([*np.tile(whole[0], (NIIVUE_COLOURS, 1)), *whole])
    return view_surf(
        mesh, image, bg_map=folds, hemi="both", threshold=NOTHING, title=html.escape(title) or None, **look
    )
