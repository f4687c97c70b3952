"""The published in-context transformer, layer by layer, with the parameter names of its authors' checkpoints.

Context tokens are `[image features ; response]` of one voxel. Four learned tokens are put before them, a stack of
pre-norm blocks lets all tokens attend to one another, and the first token is read out as the weights and the intercept
of a linear encoder: `prediction = query features @ weights + intercept`. The context is a set of any length: there are
no positions.

Source: Yu et al., "Meta-Learning an In-Context Transformer Model of Human Higher Visual Cortex", arXiv 2505.15813.

Shapes
    V voxels, N context images, E features per image, D width, C learned tokens, S = C + N tokens
    features (N, E), shared by the voxels   responses (V, N)   tokens (V, S, D)   returned weights (V, E + 1)

This module is meant to be read; `braincorl.models.engine` computes the same function for whole brains, much faster.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from braincorl.errors import InputError

NEGATIVE_SLOPE = 0.1  # of every LeakyReLU
ArrayLike = Tensor | npt.NDArray[Any]


@dataclass(frozen=True)
class ReferenceConfig:
    """Sizes of a `ReferenceTransformer`.

    Parameters
    ----------
    n_features
        E, the number of features of one image.
    width
        D, the number of channels of a token; a multiple of `n_heads`.
    n_layers
        Number of transformer blocks, at least 1.
    n_heads
        Number of attention heads; the published networks have 10.
    ffn_width
        Channels inside the feed-forward layers; the published networks have 2048.
    n_learned_tokens
        C, the number of learned tokens before the context; the published networks have 4.

    Raises
    ------
    InputError
        If a size is not a positive integer, or `width` is no multiple of `n_heads`.
    """

    n_features: int
    width: int
    n_layers: int = 20
    n_heads: int = 10
    ffn_width: int = 2048
    n_learned_tokens: int = 4

    def __post_init__(self) -> None:
        """Refuse sizes that no network can have."""
        for name, value in vars(self).items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a positive integer, but is {value!r}: give the size of the network.")
        if self.width % self.n_heads:
            raise InputError(
                f"width must be a multiple of n_heads, but {self.width} is not one of {self.n_heads}: change either."
            )

    @classmethod
    def vis(cls) -> "ReferenceConfig":
        """CLIP features, three layers: the small network whose attention the authors draw."""
        return cls(n_features=512, width=560, n_layers=3)

    @classmethod
    def clip(cls) -> "ReferenceConfig":
        """CLIP ViT-B/16 features (512)."""
        return cls(n_features=512, width=560)

    @classmethod
    def dino(cls) -> "ReferenceConfig":
        """DINO ViT-B features (768)."""
        return cls(n_features=768, width=800)

    @classmethod
    def siglip(cls) -> "ReferenceConfig":
        """SigLIP features (1152)."""
        return cls(n_features=1152, width=1200)


class ResidualBlock(nn.Module):
    """Two pre-activated linear layers beside a linear bypass, n_in -> 2 D -> n_out."""

    def __init__(self, n_in: int, n_hidden: int, n_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.LayerNorm(n_in),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Identity(),  # dropout in training; it holds the place, so that the published names fit
            nn.Linear(n_in, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Identity(),
            nn.Linear(n_hidden, n_out),
        )
        self.bypass = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, n_in) to (…, n_out)."""
        result: Tensor = self.block(x) + self.bypass(x)
        return result


class _SwiGLU(nn.Module):
    """Gated feed-forward layer: linear2(SiLU(first half of linear1) * second half)."""

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 2 * ffn_width)
        self.linear2 = nn.Linear(ffn_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, D) to (…, D)."""
        gate, value = self.linear1(x).chunk(2, dim=-1)
        result: Tensor = self.linear2(nn.functional.silu(gate) * value)
        return result


class Block(nn.Module):
    """Pre-norm transformer block whose attention stays equally peaked at any context length."""

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.layer_norm_1 = nn.LayerNorm(config.width)
        self.attn = nn.MultiheadAttention(config.width, config.n_heads, batch_first=True)
        self.layer_norm_2 = nn.LayerNorm(config.width)
        self.ffn = _SwiGLU(config.width, config.ffn_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (V, S, D) to (V, S, D)."""
        normed = self.layer_norm_1(tokens)
        # Attention over more tokens is flatter; log(S) counteracts it. It scales the input of the query projection
        # and not the query, so the query's bias stays as it is.
        query = math.log(tokens.shape[1]) * normed
        attended, _ = self.attn(query, normed, normed, need_weights=False)
        tokens = tokens + attended
        result: Tensor = tokens + self.ffn(self.layer_norm_2(tokens))
        return result


class ReferenceTransformer(nn.Module):
    """The published network.

    Parameters
    ----------
    config
        Sizes; `ReferenceConfig.clip()` and its siblings are the published ones.

    Notes
    -----
    `load_state_dict` takes the names of the published checkpoints, strictly. The inputs that the published weights
    expect are unit-norm features and z-scored responses. Dropout, which only training uses, is left out.
    """

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.config = config
        self.early_layers = nn.Sequential(ResidualBlock(config.n_features + 1, 2 * config.width, config.width))
        # Filled in place, so that `without_values` needs no arithmetic on it.
        tokens = torch.empty(1, config.n_learned_tokens, config.width)
        self.cls_token = nn.Parameter(nn.init.normal_(tokens, std=1 / math.sqrt(config.width)))
        self.transformer = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.weight_pred = nn.Sequential(ResidualBlock(config.width, 2 * config.width, config.n_features + 1))

    def forward(self, features: ArrayLike, responses: ArrayLike) -> Tensor:
        """Weights and intercept of every voxel's linear encoder.

        Parameters
        ----------
        features
            (N, E), unit norm; tensor or array, cast to the type of the network.
        responses
            (V, N), z-scored: the responses of V voxels to the same N images.

        Returns
        -------
        Tensor
            (V, E + 1): E weights, then the intercept, for z-scored responses.

        Raises
        ------
        InputError
            If the shapes do not fit the network or one another.
        """
        token = self.cls_token
        features, responses = check_context(self.config, features, responses, token.dtype, token.device)
        n_voxels = responses.shape[0]
        shared = features.expand(n_voxels, -1, -1)
        context = self.early_layers(torch.cat([shared, responses[:, :, None]], dim=-1))
        tokens = torch.cat([self.cls_token.expand(n_voxels, -1, -1), context], dim=1)
        for block in self.transformer:
            tokens = block(tokens)
        weights: Tensor = self.weight_pred(tokens[:, 0])
        return weights


@contextmanager
def without_values() -> Iterator[None]:
    """Build networks of shapes alone, for weights that are assigned afterwards: no memory, no random numbers.

    PyTorch's own way is its "meta" device alone. There, drawing first values imports a compiler, which takes seconds.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.endswith(("uniform_", "normal_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def check_context(
    config: ReferenceConfig, features: ArrayLike, responses: ArrayLike, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cast a context to a type and device, and refuse shapes that do not fit the network or one another."""
    features = torch.as_tensor(features, device=device).to(dtype)
    responses = torch.as_tensor(responses, device=device).to(dtype)
    if features.ndim != 2 or features.shape[1] != config.n_features or features.shape[0] < 1:
        raise InputError(
            f"features must be (n_context, {config.n_features}), but is {tuple(features.shape)}: "
            f"embed the images with the backbone that this network was trained on."
        )
    if responses.ndim != 2 or responses.shape[1] != features.shape[0]:
        raise InputError(
            f"responses must be (n_voxels, {features.shape[0]}), but is {tuple(responses.shape)}: "
            f"voxels on axis 0, the images of features on axis 1."
        )
    return features, responses
