"""What an embedder needs of a backbone, and how tokens become features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.features.backbones.gabor import GaborConfig
from braincorl.validation import FloatArray

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage

POOLINGS = ("auto", "cls", "mean", "flatten")


@dataclass(frozen=True)
class Backbone:
    """A network (or filter bank) that is ready to embed.

    Attributes
    ----------
    prepare
        Picture (RGB) -> array of one fixed shape; called from several threads.
    forward
        Arrays stacked (n_images, ...) -> features (n_images, n_features), float32.
    n_features
        Number of features of an image.
    provenance
        backbone, weights, weights_sha256, preprocessing, layer, pooling, precision, versions.
    unit_norm
        Whether its features are brought to unit length unless told otherwise.
    image_bytes
        Working memory that one image needs in `forward`, estimated.
    free_bytes
        Memory that is free where `forward` runs.
    max_batch
        Beyond this many images a batch gains nothing.
    encode_text
        Texts -> (n_texts, n_features), float32; None for backbones without language.
    """

    prepare: Callable[[PILImage.Image], npt.NDArray[Any]]
    forward: Callable[[npt.NDArray[Any]], FloatArray]
    n_features: int
    provenance: Mapping[str, Any]
    unit_norm: bool
    image_bytes: int
    free_bytes: Callable[[], int]
    max_batch: int
    encode_text: Callable[[list[str]], FloatArray] | None = None


@dataclass(frozen=True)
class BackboneOptions:
    """How a backbone is made; the fields are `ImageEmbedder`'s parameters of the same names.

    Raises
    ------
    InputError
        If the pooling is unknown, or random weights are asked for without a whole number as their seed.
    """

    weights: str | Path | None = None
    layer: str | None = None
    pooling: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    offline: bool | None = None
    gabor: GaborConfig | None = None

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise InputError(f"pooling is '{self.pooling}', but must be one of {', '.join(POOLINGS)}.")
        if str(self.weights).startswith("random:") and not str(self.weights)[7:].isdecimal():
            raise InputError(f"weights are '{self.weights}', but random ones are 'random' or 'random:SEED'.")

    @property
    def seed(self) -> int | None:
        """Seed of random weights, if `weights` asks for them."""
        kind, _, seed = str(self.weights).partition(":")
        return int(seed or 0) if kind == "random" else None


def pool_tokens(output: torch.Tensor, pooling: str, n_prefix: int, channels_last: bool = False) -> torch.Tensor:
    """Make one vector per image of a layer's output.

    Parameters
    ----------
    output
        (n_images, n_features), tokens (n_images, n_tokens, n_features), or a map (n_images, n_features, y, x).
    pooling
        "cls": the class token. "mean": over image tokens or positions. "flatten": everything. "auto": the class token
        where there is one, else the mean.
    n_prefix
        Number of tokens before the image's own (class and register tokens).
    channels_last
        Maps are (n_images, y, x, n_features).

    Returns
    -------
    torch.Tensor
        (n_images, n_features).

    Raises
    ------
    InputError
        If the output has no such thing as a class token, or is no array of a known kind.
    """
    if output.ndim not in (2, 3, 4):
        raise InputError(f"the layer's output has shape {tuple(output.shape)}: choose a layer with 2 to 4 axes.")
    if pooling == "flatten":
        return output.flatten(1)
    if output.ndim == 2:
        if pooling == "cls":
            raise InputError("pooling is 'cls', but the layer gives one vector per image: use pooling='auto'.")
        return output
    if pooling == "cls" or (pooling == "auto" and output.ndim == 3 and n_prefix):
        if output.ndim != 3 or not n_prefix:
            raise InputError(
                f"pooling is 'cls', but the layer's {tuple(output.shape)[1:]} has no class token: use 'mean'."
            )
        return output[:, 0]
    if output.ndim == 3:
        return output[:, n_prefix:].mean(dim=1)
    return output.mean(dim=(1, 2) if channels_last else (2, 3))


def to_unit_length(features: FloatArray) -> FloatArray:
    """Divide each row by its length; a row of zeros stays."""
    length = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    scaled: FloatArray = (features / np.where(length > 0, length, 1)).astype(np.float32)
    return scaled
