"""The published network again, arranged for whole brains: the same function, with everything shared computed once.

Two pure functions. `encode_context` computes what depends on the images alone, once per context. `forward` computes the
rest for a batch of voxels. Shapes as in `braincorl.models.reference`:

    V voxels, N context images, E features, D width, F feed-forward width, H heads, C learned tokens, S = C + N tokens

What can be shared. The response enters the very first layer, through a LayerNorm over [features ; response], so no
hidden activation belongs to an image alone: LeakyReLU after a per-voxel scale is the barrier. What is linear before
that barrier is shared: the features' part of the LayerNorm statistics (the response updates them, equation below), the
centred and scaled features, and the bypass product. The response's column of the bypass is a rank-one update.

    mean_vn = m_n + d_vn,  d_vn = (r_vn - m_n) / (E + 1)                    m_n, q_n: mean and sum of squared deviations
    var_vn = (q_n + (r_vn - m_n)^2 E / (E + 1)) / (E + 1)                   of the features of image n

Other rearrangements, all exact: log(S) moves from the query's input into the softmax scale, softmax(log(S) / sqrt(d)
(x W + b / log(S)) . k), so that one product gives queries, keys and values; the last block computes keys and values of
all tokens but everything else for token 0 alone. The residual stream stays float32 (or float64) in every precision.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from braincorl.models.reference import NEGATIVE_SLOPE, Block, ReferenceConfig, ReferenceTransformer, ResidualBlock

Capture = Callable[[int, Tensor, Tensor, float], None]
"""Called with (layer, queries, keys, scale): (V, H, S, D / H) each; attention is softmax(scale * queries @ keys')."""

COLUMN_MULTIPLE = 32  # matrix units read rows in blocks of 64 bytes; a 513th column alone would slow the whole product


@dataclass(frozen=True)
class _Affine:
    """Weight and bias of one layer. Matrices are (n_out, n_in)."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> "_Affine":
        """Copy the parameters of a linear layer or LayerNorm, cast once."""
        assert isinstance(layer, (nn.Linear, nn.LayerNorm))
        return cls(_cast(layer.weight, dtype, device), _cast(layer.bias, dtype, device))

    def linear(self, x: Tensor) -> Tensor:
        """X @ weight' + bias."""
        return functional.linear(x, self.weight, self.bias)

    def norm(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """LayerNorm over the last axis, returned in `dtype`."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias).to(dtype)


@dataclass(frozen=True)
class _BlockWeights:
    """One transformer block: matrices in the product type, LayerNorms in the type of the residual stream."""

    norm_1: _Affine
    qkv: _Affine
    out: _Affine
    norm_2: _Affine
    ffn_in: _Affine
    ffn_out: _Affine


@dataclass(frozen=True)
class NetworkWeights:
    """A network cast for one device and precision.

    `dtype` is the type of the large matrix products, `stream` that of tokens, LayerNorms, and the two small ends.
    """

    config: ReferenceConfig
    dtype: torch.dtype
    stream: torch.dtype
    first_norm: _Affine
    first: _Affine  # columns padded with zeros to a multiple of COLUMN_MULTIPLE
    second_norm: _Affine
    second: _Affine
    bypass: _Affine
    learned_tokens: Tensor
    blocks: tuple[_BlockWeights, ...]
    readout: ResidualBlock

    @classmethod
    def of(cls, network: ReferenceTransformer, dtype: torch.dtype, device: torch.device) -> "NetworkWeights":
        """Copy and cast the parameters of a network."""
        stream = torch.float64 if dtype == torch.float64 else torch.float32
        early = network.early_layers[0]
        assert isinstance(early, ResidualBlock)
        norm, _, _, first, second_norm, _, _, second = early.block
        first_weight = _Affine.of(first, dtype, device)
        padding = -first_weight.weight.shape[1] % COLUMN_MULTIPLE
        readout = copy.deepcopy(network.weight_pred[0])
        assert isinstance(readout, ResidualBlock)
        return cls(
            config=network.config,
            dtype=dtype,
            stream=stream,
            first_norm=_Affine.of(norm, stream, device),
            first=_Affine(functional.pad(first_weight.weight, (0, padding)), first_weight.bias),
            second_norm=_Affine.of(second_norm, stream, device),
            second=_Affine.of(second, dtype, device),
            bypass=_Affine.of(early.bypass, stream, device),
            learned_tokens=_cast(network.cls_token[0], stream, device),
            blocks=tuple(_block_weights(block, dtype, stream, device) for block in network.transformer),
            readout=readout.to(device, stream).requires_grad_(False),
        )


@dataclass(frozen=True)
class SharedContext:
    """What depends on the context images alone.

    Shapes: `mean`, `squares` (N,), the features' mean and sum of squared deviations; `centred` (N, E), the features
    minus their mean, times the first LayerNorm's weight; `bypass` (N, D), the bypass product of the features.
    """

    mean: Tensor
    squares: Tensor
    centred: Tensor
    bypass: Tensor


def encode_context(weights: NetworkWeights, features: Tensor) -> SharedContext:
    """Everything that the context images (N, E) determine without a response."""
    n_features = weights.config.n_features
    features = features.to(weights.stream)
    mean = features.mean(dim=1)
    deviations = features - mean[:, None]
    return SharedContext(
        mean=mean,
        squares=deviations.square().sum(dim=1),
        centred=deviations * weights.first_norm.weight[:n_features],
        bypass=functional.linear(features, weights.bypass.weight[:, :n_features], weights.bypass.bias),
    )


def embed(weights: NetworkWeights, context: SharedContext, responses: Tensor) -> Tensor:
    """Tokens (V, S, D) before the first block: the learned tokens, then one token per context image."""
    config, norm = weights.config, weights.first_norm
    n_voxels, n_context = responses.shape
    n_features, n_learned = config.n_features, config.n_learned_tokens

    gap = responses - context.mean
    offset = gap / (n_features + 1)
    variance = (context.squares + gap.square() * (n_features / (n_features + 1))) / (n_features + 1)
    scale = torch.rsqrt(variance + 1e-5)  # PyTorch's LayerNorm epsilon
    normed = torch.addcmul(norm.bias[:n_features], context.centred, scale[:, :, None])
    normed.addcmul_((scale * offset)[:, :, None], norm.weight[:n_features], value=-1.0)

    columns = responses.new_zeros((n_voxels * n_context, weights.first.weight.shape[1]), dtype=weights.dtype)
    columns[:, :n_features] = functional.leaky_relu_(normed, NEGATIVE_SLOPE).flatten(0, 1)
    last = (gap - offset) * scale * norm.weight[n_features] + norm.bias[n_features]
    columns[:, n_features] = functional.leaky_relu(last, NEGATIVE_SLOPE).flatten()
    del normed

    hidden = weights.second_norm.norm(weights.first.linear(columns).to(weights.stream), weights.dtype)
    second = weights.second.linear(functional.leaky_relu_(hidden, NEGATIVE_SLOPE))

    tokens = responses.new_empty((n_voxels, n_learned + n_context, config.width))
    tokens[:, :n_learned] = weights.learned_tokens
    images = tokens[:, n_learned:]
    torch.addcmul(context.bypass, responses[:, :, None], weights.bypass.weight[:, n_features], out=images)
    images += second.view(n_voxels, n_context, -1)
    return tokens


def attend(
    query_tokens: Tensor,
    tokens: Tensor,
    block: _BlockWeights,
    n_heads: int,
    log_length: float,
    capture: Callable[[Tensor, Tensor, float], None] | None = None,
) -> None:
    """Add attention over `tokens` (V, S, D) to `query_tokens` (V, Q, D) in place; Q is S, or 1 in the last block."""
    n_voxels, n_tokens, width = tokens.shape
    n_queries = query_tokens.shape[1]
    scale = log_length / math.sqrt(width // n_heads)
    normed = block.norm_1.norm(tokens, block.qkv.weight.dtype)
    bias = torch.cat([block.qkv.bias[:width] / log_length, block.qkv.bias[width:]])
    qkv = functional.linear(normed, block.qkv.weight, bias).view(n_voxels, n_tokens, 3, n_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    query = query[:, :, :n_queries]
    if capture is not None:
        capture(query, key, scale)
    attended = functional.scaled_dot_product_attention(query, key, value, scale=scale)
    query_tokens += block.out.linear(attended.transpose(1, 2).reshape(n_voxels, n_queries, width))


def feed_forward(tokens: Tensor, block: _BlockWeights) -> None:
    """Add the gated feed-forward layer to `tokens` in place."""
    gate, value = block.ffn_in.linear(block.norm_2.norm(tokens, block.ffn_in.weight.dtype)).chunk(2, dim=-1)
    tokens += block.ffn_out.linear(functional.silu(gate).mul_(value))


@dataclass(frozen=True)
class Layers:
    """The two halves of a block, as they are or compiled."""

    attend: Callable[..., None] = attend
    feed_forward: Callable[..., None] = feed_forward

    @classmethod
    def compiled(cls) -> "Layers":
        """Have `torch.compile` fuse the passes between the matrix products, on first use."""
        return cls(torch.compile(attend), torch.compile(feed_forward))


EAGER = Layers()


def forward(
    weights: NetworkWeights,
    context: SharedContext,
    responses: Tensor,
    capture: Capture | None = None,
    layers: Layers = EAGER,
) -> Tensor:
    """Weights and intercepts (V, E + 1) of a batch of voxels.

    Parameters
    ----------
    weights, context
        From `NetworkWeights.of` and `encode_context`.
    responses
        (V, N), z-scored, in the type `weights.stream`.
    capture
        Receives queries and keys of every layer; all tokens of the last block are then computed.
    layers
        The two halves of a block, as they are or compiled.
    """
    tokens = embed(weights, context, responses)
    n_heads, log_length = weights.config.n_heads, math.log(tokens.shape[1])
    *blocks, last = weights.blocks
    for layer, block in enumerate(blocks):
        layers.attend(tokens, tokens, block, n_heads, log_length, partial(capture, layer) if capture else None)
        layers.feed_forward(tokens, block)
    if capture is None:
        readout = tokens[:, :1].clone()  # nothing reads the other tokens of the last block
        attend(readout, tokens, last, n_heads, log_length)
    else:
        attend(tokens, tokens, last, n_heads, log_length, partial(capture, len(blocks)))
        readout = tokens[:, :1].clone()
    feed_forward(readout, last)
    result: Tensor = weights.readout(readout[:, 0])
    return result


def _block_weights(block: nn.Module, dtype: torch.dtype, stream: torch.dtype, device: torch.device) -> _BlockWeights:
    assert isinstance(block, Block)
    attention = block.attn
    return _BlockWeights(
        norm_1=_Affine.of(block.layer_norm_1, stream, device),
        qkv=_Affine(_cast(attention.in_proj_weight, dtype, device), _cast(attention.in_proj_bias, dtype, device)),
        out=_Affine.of(attention.out_proj, dtype, device),
        norm_2=_Affine.of(block.layer_norm_2, stream, device),
        ffn_in=_Affine.of(block.ffn.linear1, dtype, device),
        ffn_out=_Affine.of(block.ffn.linear2, dtype, device),
    )


def _cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return tensor.detach().to(device, dtype, copy=True).contiguous()
