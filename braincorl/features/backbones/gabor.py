r"""Gabor pyramid: local orientation and spatial frequency of a picture's luminance, without any learned weights.

A filter at position c, of frequency f (cycles per image) and orientation θ, is

    g(x) = w(x - c) · [exp(2πi f u·(x - c)) - d],   u = (cos θ, sin θ),   Σ w = 1,   d so that Σ g = 0,

with a round Gaussian envelope w whose width is in proportion to 1/f. Its response to a picture is 2 Σ g(x) L(x). The
real and imaginary parts are the two quadrature phases (simple cells); their length is the contrast energy (complex
cells), which does not depend on the phase of a grating and equals its amplitude at the filter's own frequency and
orientation. Filters of frequency f sit on an f x f grid. This is the kind of wavelet model that Kay et al. (2008,
Nature 452:352) and Nishimoto et al. (2011, Current Biology 21:1641) fitted to early visual cortex; the sizes and the
normalisation are this module's own.

A round Gaussian times a plane wave is a product of a function of x and one of y, so a response is two small matrix
products. Axes: b pictures, y and x pixels, p positions along one side, o orientations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.validation import FloatArray

if TYPE_CHECKING:
    from PIL import Image as PILImage

ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]

PIXELS_PER_CYCLE = 4  # fewer, and a cosine on the pixel grid is no longer a cosine at every orientation


@dataclass(frozen=True)
class GaborConfig:
    """Which filters there are.

    Attributes
    ----------
    image_size
        The picture is brought to this many pixels a side (short side resized, centre cropped).
    frequencies
        Cycles per image side. Frequency f has f x f positions.
    n_orientations
        Orientations, evenly spaced from 0 (vertical stripes) over 180 degrees.
    bandwidth
        Full width of a filter at half of its maximum, in octaves of spatial frequency.
    output
        "energy", "quadrature" (both phases, signed) or "both".

    Raises
    ------
    InputError
        If a value is impossible, or a frequency too high for the image size.
    """

    image_size: int = 128
    frequencies: Sequence[int] = (1, 2, 4, 8, 16)
    n_orientations: int = 8
    bandwidth: float = 1.0
    output: str = "energy"

    def __post_init__(self) -> None:
        if not self.frequencies or min(self.frequencies) < 1 or any(f != int(f) for f in self.frequencies):
            raise InputError(f"frequencies are {self.frequencies}, but must be whole cycles per image, 1 or more.")
        if self.image_size < PIXELS_PER_CYCLE * max(self.frequencies):
            raise InputError(
                f"image_size is {self.image_size}, but {max(self.frequencies)} cycles per image need "
                f"{PIXELS_PER_CYCLE * max(self.frequencies)} pixels or more: lower the frequency or raise image_size."
            )
        if self.n_orientations < 1 or not self.bandwidth > 0:
            raise InputError(
                f"n_orientations is {self.n_orientations} and bandwidth {self.bandwidth}: both must be above 0."
            )
        if self.output not in ("energy", "quadrature", "both"):
            raise InputError(f"output is '{self.output}', but must be 'energy', 'quadrature' or 'both'.")

    @property
    def n_features(self) -> int:
        """Number of features of a picture."""
        per_filter = {"energy": 1, "quadrature": 2, "both": 3}[self.output]
        return per_filter * self.n_orientations * sum(int(f) ** 2 for f in self.frequencies)

    @property
    def text(self) -> str:
        """The settings in one line, for the provenance."""
        frequencies = ",".join(str(int(f)) for f in self.frequencies)
        return (
            f"{self.image_size} px; {frequencies} cycles/image; {self.n_orientations} orientations; "
            f"{self.bandwidth:g} octaves; {self.output}"
        )


@dataclass(frozen=True)
class _FilterBank:
    """The filters of one frequency, as factors over x and y.

    Attributes
    ----------
    along_x, along_y
        Envelope times wave (o, p, n_pixels), complex.
    envelope
        Envelope alone (p, n_pixels), the same along x and y; sums to 1 over pixels.
    offset
        Mean of the wave under the envelope (o, p, p), y before x; taken out so that a uniform picture gives 0.
    """

    along_x: ComplexArray
    along_y: ComplexArray
    envelope: FloatArray
    offset: ComplexArray


def envelope_width(frequency: float, bandwidth: float) -> float:
    """Compute the standard deviation of the envelope, in image sides.

    The filter's spectrum is a Gaussian around f; at half height it reaches from f - s to f + s with
    (f + s) / (f - s) = 2^bandwidth, and its standard deviation over frequency is 1 / (2π σ).

    Parameters
    ----------
    frequency
        Cycles per image side.
    bandwidth
        Octaves, full width at half height.

    Returns
    -------
    float
    """
    half_width = frequency * (2**bandwidth - 1) / (2**bandwidth + 1)
    return math.sqrt(2 * math.log(2)) / (2 * math.pi * half_width)


def make_bank(frequency: int, config: GaborConfig) -> _FilterBank:
    """Make the filters of one frequency.

    Parameters
    ----------
    frequency
        Cycles per image side, which is also the number of positions along a side.
    config
        The other settings.

    Returns
    -------
    _FilterBank
    """
    pixels = (np.arange(config.image_size) + 0.5) / config.image_size
    centres = (np.arange(frequency) + 0.5) / frequency
    distance = pixels - centres[:, None]  # (p, n_pixels)
    envelope = np.exp(-0.5 * (distance / envelope_width(frequency, config.bandwidth)) ** 2)
    envelope[envelope < 1e-12] = 0  # such tails count for nothing, but numbers below 1e-38 make products very slow
    envelope /= envelope.sum(axis=1, keepdims=True)  # also where the border cuts it off
    angles = np.pi * np.arange(config.n_orientations) / config.n_orientations
    phase = 2j * np.pi * frequency * distance
    along_x = envelope * np.exp(phase * np.cos(angles)[:, None, None])
    along_y = envelope * np.exp(phase * np.sin(angles)[:, None, None])
    offset = along_y.sum(axis=2)[:, :, None] * along_x.sum(axis=2)[:, None, :]
    return _FilterBank(
        along_x.astype(np.complex64),
        along_y.astype(np.complex64),
        envelope.astype(np.float32),
        offset.astype(np.complex64),
    )


def _bank_responses(luminance: FloatArray, bank: _FilterBank) -> ComplexArray:
    """Complex responses (n_images, o, p, p), y before x, of one frequency's filters to luminance (n_images, y, x)."""
    n_orientations, n_positions, n_pixels = bank.along_x.shape
    waves = bank.along_x.reshape(-1, n_pixels).T
    # A real picture times a complex filter is two real products, half the work of a complex one. Only arrays without
    # gaps are multiplied by the fast library, hence the copies.
    rows = np.empty((*luminance.shape[:2], waves.shape[1]), dtype=np.complex64)  # (b, y, o p)
    rows.real = luminance @ np.ascontiguousarray(waves.real)
    rows.imag = luminance @ np.ascontiguousarray(waves.imag)
    rows = rows.reshape(*rows.shape[:2], n_orientations, n_positions)
    rows = np.ascontiguousarray(rows.transpose(0, 2, 1, 3))  # (b, o, y, p)
    local_mean = bank.envelope @ (luminance @ np.ascontiguousarray(bank.envelope.T))  # (b, p, p)
    responses: ComplexArray = 2 * (bank.along_y @ rows - bank.offset * local_mean[:, None])
    return responses


def gabor_features(
    luminance: FloatArray, config: GaborConfig, banks: Sequence[_FilterBank] | None = None
) -> FloatArray:
    """Features of pictures.

    Parameters
    ----------
    luminance
        (n_images, image_size, image_size), by convention 0 (black) to 1 (white).
    config
        Which filters there are.
    banks
        The filters, one bank per frequency, if they are made already.

    Returns
    -------
    ndarray of shape (n_images, n_features), float32
        Frequency by frequency, each (kind, orientation, position row, position column); the kinds are the even and the
        odd phase, then the energy, as far as the configuration asks for them. In units of luminance: a grating of
        amplitude a has energy a in the filter that matches it.

    Raises
    ------
    InputError
        If the pictures are not of the configured size.
    """
    if luminance.ndim != 3 or luminance.shape[1:] != (config.image_size, config.image_size):
        raise InputError(
            f"luminance has shape {luminance.shape}, expected (n_images, {config.image_size}, {config.image_size})."
        )
    pictures = luminance.astype(np.float32, copy=False)
    parts = []
    for bank in banks if banks is not None else [make_bank(int(f), config) for f in config.frequencies]:
        response = _bank_responses(pictures, bank)
        if config.output in ("quadrature", "both"):
            parts += [response.real, response.imag]
        if config.output in ("energy", "both"):
            parts.append(np.abs(response))
    return np.concatenate([part.reshape(len(pictures), -1) for part in parts], axis=1).astype(np.float32)


def to_luminance(picture: PILImage.Image, size: int) -> FloatArray:
    """Relative luminance of an sRGB picture, short side resized to `size`, centre cropped.

    The display's non-linearity (IEC 61966-2-1) is undone first, because contrast is a matter of light.

    Parameters
    ----------
    picture
        Mode RGB.
    size
        Pixels a side.

    Returns
    -------
    ndarray of shape (size, size), float32
        0 (black) to 1 (white).
    """
    from PIL import Image

    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC) if picture.size != (width, height) else picture
    left, top = (width - size) // 2, (height - size) // 2
    values = np.asarray(resized.crop((left, top, left + size, top + size)))
    light: FloatArray = _light_of_value()[values] @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    return light


@cache
def _light_of_value() -> FloatArray:
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)
