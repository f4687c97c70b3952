"""From an RGB picture to a network's input, and the same in words.

The libraries' own transforms are used, so that features equal theirs. Where a transform ends in "to tensor, subtract
mean, divide by standard deviation", that end is taken off and done for the whole batch where the network runs: the
same arithmetic, faster, and a quarter of the bytes to move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

    Transform = Callable[[PILImage.Image], torch.Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before a network sees it.

    Attributes
    ----------
    prepare
        Picture -> array: uint8 (height, width, 3) if `mean` is set, else float (channels, height, width).
    mean, std
        Of the three channels on a scale of 0 to 1; None if `prepare` has normalised already.
    text
        One canonical line that says all of it; equal lines mean equal input.
    """

    prepare: Callable[[PILImage.Image], npt.NDArray[Any]]
    mean: Sequence[float] | None
    std: Sequence[float] | None
    text: str


def from_transform(transform: Transform, text: str) -> Preprocessing:
    """Split a torchvision-style transform into its part on pictures and its normalisation.

    Parameters
    ----------
    transform
        Picture -> tensor (channels, height, width).
    text
        What it does, in one line.

    Returns
    -------
    Preprocessing
    """
    from torchvision.transforms import Normalize, ToTensor

    steps = list(getattr(transform, "transforms", []))
    if len(steps) >= 2 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize):
        on_pictures, last = steps[:-2], steps[-1]
        mean, std = (np.asarray(value, dtype=np.float64).tolist() for value in (last.mean, last.std))
        return Preprocessing(_PictureSteps(on_pictures), mean, std, text)
    return Preprocessing(_WholeTransform(transform), None, None, text)


def describe(settings: Mapping[str, Any]) -> str:
    """Write settings as one canonical line: sorted, numbers to six digits, no nulls."""
    return "; ".join(f"{key} {_plain(settings[key])}" for key in sorted(settings) if settings[key] is not None)


def squash(size: int, mean: Sequence[float], std: Sequence[float], interpolation: str = "bilinear") -> Transform:
    """Make a transform that resizes both sides to `size`, whatever the aspect ratio, then normalises."""
    from torchvision import transforms

    mode = transforms.InterpolationMode(interpolation)
    steps = [transforms.Resize((size, size), mode), transforms.ToTensor(), transforms.Normalize(mean, std)]
    composed: Transform = transforms.Compose(steps)
    return composed


@dataclass(frozen=True)
class _PictureSteps:
    steps: Sequence[Callable[[Any], Any]]

    def __call__(self, picture: PILImage.Image) -> npt.NDArray[np.uint8]:
        for step in self.steps:
            picture = step(picture)
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8:
            raise InputError(f"transform makes pixels of type {pixels.dtype} before ToTensor, expected 8-bit ones.")
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


@dataclass(frozen=True)
class _WholeTransform:
    transform: Transform

    def __call__(self, picture: PILImage.Image) -> npt.NDArray[Any]:
        import torch

        tensor = self.transform(picture)
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"transform gave a {type(tensor).__name__}, but must turn a picture into one torch.Tensor."
            )
        array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
        return array


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ("x" if all(isinstance(part, int) for part in value) else ",").join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
