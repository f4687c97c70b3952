"""Flat maps through pycortex, for those who have a subject in its database: `pip install "braincorl[pycortex]"`."""

from typing import Any

import numpy.typing as npt
from matplotlib.figure import Figure

from braincorl.analysis.figures import own_style
from braincorl.analysis.maps.colours import colour_scale, reliable_values
from braincorl.datasets.space import VoxelSpace
from braincorl.errors import InputError
from braincorl.fits.maps import unmask


@own_style
def plot_flatmap(
    values: npt.ArrayLike,
    space: VoxelSpace,
    subject: str,
    transform: str,
    *,
    signed: bool | None = None,
    ceiling: npt.ArrayLike | None = None,
    min_ceiling: float = 0.1,
    **options: Any,
) -> Figure:
    """Draw a map on a person's flattened cortex.

    Parameters
    ----------
    values
        (n_voxels,).
    space
        Where the voxels are; the volume that `transform` starts from.
    subject, transform
        Names in pycortex's database.
    signed, ceiling, min_ceiling
        As in `plot_mosaic`.
    **options
        For `cortex.quickflat.make_figure`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If pycortex is not installed, the space has no grid, or shapes do not match.
    """
    shown = reliable_values(values, ceiling, min_ceiling)
    scale = colour_scale(shown, signed)
    image = unmask(shown, space)
    try:
        import cortex
    except ImportError as error:
        raise InputError(
            'flat maps need pycortex, which is not installed: pip install "braincorl[pycortex]", or use plot_surface.'
        ) from error
    # pycortex has z on the first axis.
    volume = cortex.Volume(
        image.get_fdata().T, subject, transform, vmin=scale.low, vmax=scale.high, cmap=scale.colormap
    )
    figure: Figure = cortex.quickflat.make_figure(volume, **options)
    return figure
