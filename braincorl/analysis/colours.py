"""Colour ranges that neither one wild voxel nor an empty map can spoil, and which voxels are worth a colour."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize

from braincorl.errors import InputError

# Okabe and Ito's colours, told apart by colour-blind readers; the baseline is grey.
COLOURS = ("#777777", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# An encoder has the same colour in every figure, whichever others stand beside it.
ENCODER_COLOURS = {
    "ridge": COLOURS[0],
    "bayesian-ridge": COLOURS[1],
    "in-context": COLOURS[2],
    "group-prior": COLOURS[3],
    "in-context-prior": COLOURS[4],
    "banded-ridge": COLOURS[6],
}
OTHER_COLOURS = (COLOURS[5], "#000000", "#8C564B", "#6A51A3")

# Outlines lie on dark, on bright and on grey ground: light colours that neither colour map contains.
OUTLINES = ("#00C8FF", "#3CFF3C", "#FF69E0", "#7B9CFF", "#00E6B0", "#FFFFFF", "#C6A0FF", "#9BE000")

SIGNED_MAP, UNSIGNED_MAP = "RdBu_r", "inferno"
SIGNED_SHARE = 0.25  # below this share of the positive range, negative values are taken for noise around zero


def encoder_colours(names: Iterable[str]) -> dict[str, str]:
    """Colours of encoders, known ones always alike.

    Parameters
    ----------
    names
        Of encoders, as on the command line or in prose ("Bayesian ridge").

    Returns
    -------
    dict
        Name -> colour.
    """
    colours, others = {}, 0
    for name in names:
        known = ENCODER_COLOURS.get(name.lower().replace(" ", "-").replace("_", "-"))
        colours[name] = known or OTHER_COLOURS[others % len(OTHER_COLOURS)]
        others += known is None
    return colours


def space_colours(names: Iterable[str]) -> dict[str, str]:
    """Colours of feature spaces: the same in bars and on the brain.

    Parameters
    ----------
    names
        Of the spaces, in the encoder's order.

    Returns
    -------
    dict
        Name -> colour.
    """
    colours = (*COLOURS[1:], COLOURS[0])
    return {name: colours[number % len(colours)] for number, name in enumerate(names)}


@dataclass(frozen=True)
class ColourScale:
    """Which value gets which colour.

    Attributes
    ----------
    low, high
        Values at the ends of the colour map; values beyond get the colour of the end.
    colormap
        Name of a matplotlib colour map, or one of its own for levels.
    """

    low: float
    high: float
    colormap: str | ListedColormap

    @property
    def signed(self) -> bool:
        """Whether zero is in the middle."""
        return self.low == -self.high

    @property
    def categorical(self) -> bool:
        """Whether the values are numbers of levels, which have no order and no mean."""
        return isinstance(self.colormap, ListedColormap)

    @property
    def mappable(self) -> ScalarMappable:
        """What a matplotlib colour bar is made from."""
        return ScalarMappable(Normalize(self.low, self.high), self.colormap)


def colour_scale(values: npt.ArrayLike, signed: bool | None = None, percentile: float = 99.0) -> ColourScale:
    """Choose a colour scale for a map.

    Parameters
    ----------
    values
        Any shape; values that are not finite are left out.
    signed
        True for a scale symmetric about 0, False for one that begins at 0; by default symmetric if negative values
        reach a quarter as far as positive ones.
    percentile
        The scale ends where 100 - `percentile` per cent of the values are stronger, so that outliers do not set it.

    Returns
    -------
    ColourScale

    Raises
    ------
    InputError
        If no value is finite, or the percentile is not between 50 and 100.
    """
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    if finite.size == 0:
        raise InputError("no voxel has a finite value: there is nothing to draw.")
    if not 50 < percentile <= 100:
        raise InputError(f"percentile must be above 50 and at most 100, but is {percentile}.")
    high, low = (float(np.percentile(finite, which)) for which in (percentile, 100 - percentile))
    if signed is None:
        signed = -low > SIGNED_SHARE * high
    if not signed and high <= 0:
        signed = low < 0  # nothing above 0: how far below is what can be seen
    if signed:
        reach = max(abs(high), abs(low)) or 1.0
        return ColourScale(-reach, reach, SIGNED_MAP)
    return ColourScale(0.0, high if high > 0 else 1.0, UNSIGNED_MAP)


def level_scale(values: npt.NDArray[np.float64], levels: Mapping[str, str]) -> ColourScale:
    """Give each level of a categorical map its colour.

    Parameters
    ----------
    values
        Number of the level from 1, in the order of `levels`; NaN for none.
    levels
        Name -> colour.

    Returns
    -------
    ColourScale

    Raises
    ------
    InputError
        If a value is the number of no level.
    """
    finite = values[np.isfinite(values)]
    wrong = finite[~np.isin(finite, np.arange(1, len(levels) + 1))]
    if wrong.size or not levels:
        found = f"but one is {wrong[0]:g}" if wrong.size else "but there are no levels"
        raise InputError(f"values must be numbers of levels, 1 to {len(levels)}, or NaN for none, {found}.")
    return ColourScale(0.5, len(levels) + 0.5, ListedColormap(list(levels.values())))


def reliable_values(
    values: npt.ArrayLike, ceiling: npt.ArrayLike | None, min_ceiling: float = 0.1
) -> npt.NDArray[np.float64]:
    """Blank the voxels whose noise ceiling is low or unknown.

    Parameters
    ----------
    values
        (n_voxels,).
    ceiling
        Noise ceiling of R² (n_voxels,); None blanks nothing.
    min_ceiling
        Voxels below it become NaN.

    Returns
    -------
    ndarray of shape (n_voxels,)

    Raises
    ------
    InputError
        If the shapes differ.
    """
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1:
        raise InputError(f"values has {array.ndim} axes, expected (n_voxels,): draw one map at a time.")
    if ceiling is None:
        return array
    limit: npt.NDArray[Any] = np.asarray(ceiling)
    if limit.shape != array.shape:
        raise InputError(f"ceiling has shape {limit.shape} but values {array.shape}: both are (n_voxels,).")
    array[~(limit >= min_ceiling)] = np.nan
    return array
