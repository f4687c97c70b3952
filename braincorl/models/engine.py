"""The published network on whole brains: batches of voxels sized to the memory, on any device, in any precision.

`InferenceEngine` is a shell around `braincorl.models.inference`: it casts the weights once, encodes the context once,
moves batches of voxels through the network and the results back to NumPy arrays. The result does not depend on the size
of the batches.

    V voxels, N context images, E features, S tokens (learned + context), L layers, H heads, Q query tokens
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from braincorl.errors import InputError, OutOfMemoryError
from braincorl.foreign_state import own_torch_state
from braincorl.models import hardware
from braincorl.models.inference import EAGER, Capture, Layers, NetworkWeights, SharedContext, encode_context, forward
from braincorl.models.reference import ArrayLike, ReferenceConfig, ReferenceTransformer, check_context
from braincorl.storage.files import Progress
from braincorl.validation import check_batch_size

logger = logging.getLogger(__name__)

# Rows (voxels x tokens) of one batch. On processors more rows no longer fit the caches, and fewer starve the matrix
# units (measured on two AMX cores); on GPUs it takes more of them to fill the chip.
ROWS_PER_BATCH = {"cpu": 3328, "cuda": 131072}
MEMORY_SHARE = 0.5  # of what is free, so that others and fragments find room


class InferenceEngine:
    """Runs a `ReferenceTransformer` over any number of voxels.

    Parameters
    ----------
    network
        The network; its weights are copied, so later changes to it have no effect here.
    device
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", …
    precision
        Of the large matrix products: "auto" (bfloat16 where the device multiplies it natively, else float32),
        "float32", "bfloat16", "float64". Tokens are kept in float32 (float64 with "float64") in any case.
    voxel_batch_size
        Largest number of voxels at a time; "auto" takes what is fastest and fits into half of the free memory. A batch
        that does not fit is halved until it does.
    compile_blocks
        Compile the layers with `torch.compile` on first use (needs a C++ compiler; on GPUs, Triton). Worth it for many
        voxels: compilation takes tens of seconds.

    Raises
    ------
    InputError
        If an option is unknown or the device is not there.
    OutOfMemoryError
        If the weights do not fit on the device.
    """

    def __init__(
        self,
        network: ReferenceTransformer,
        *,
        device: str = "auto",
        precision: str = "auto",
        voxel_batch_size: int | str = "auto",
        compile_blocks: bool = False,
    ) -> None:
        self.config = network.config
        self.device = hardware.resolve_device(device)
        self.dtype = hardware.resolve_precision(precision, self.device)
        self.voxel_batch_size = check_batch_size(voxel_batch_size)
        self._layers = Layers.compiled() if compile_blocks else EAGER
        try:
            self._weights = NetworkWeights.of(network, self.dtype, self.device)
        except (RuntimeError, MemoryError) as error:
            if not hardware.is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the weights of the network do not fit into the memory of {self.device}: "
                f'free some memory there, or pass device="cpu".'
            ) from error

    @property
    def precision(self) -> str:
        """The type of the large matrix products, such as "bfloat16"."""
        return str(self.dtype).removeprefix("torch.")

    @own_torch_state()
    def __call__(
        self, features: ArrayLike, responses: ArrayLike, progress: Progress | None = None
    ) -> npt.NDArray[np.floating[Any]]:
        """Weights and intercept of every voxel's linear encoder.

        Parameters
        ----------
        features
            (N, E), unit norm.
        responses
            (V, N), z-scored.
        progress
            Called with (voxels done, V) after every batch.

        Returns
        -------
        array
            (V, E + 1): E weights, then the intercept. float32, or float64 with precision "float64".

        Raises
        ------
        InputError
            If the shapes do not fit the network or one another, or a value is not finite.
        OutOfMemoryError
            If not even one voxel fits into the memory.
        """
        host_features, host_responses = self._check(features, responses)
        n_voxels = len(host_responses)
        output = self._host_tensor(n_voxels, self.config.n_features + 1)
        if self.device.type == "cuda":
            host_responses = host_responses.pin_memory()  # so that copies run beside the computation
        with torch.inference_mode():
            context = self._encode(host_features, n_voxels)
            batch, start = self._batch_size(n_voxels, len(host_features)), 0
            while start < n_voxels:
                chunk = host_responses[start : start + batch]
                result = self._try(context, chunk)
                if result is None:
                    batch = self._halve(len(chunk), n_voxels, len(host_features))
                    continue
                output[start : start + len(chunk)].copy_(result, non_blocking=True)
                start += len(chunk)
                if progress is not None:
                    progress(start, n_voxels)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return output.numpy()

    @own_torch_state()
    def attention(
        self,
        features: ArrayLike,
        responses: ArrayLike,
        *,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        query_tokens: Sequence[int] | None = (0,),
    ) -> npt.NDArray[np.floating[Any]]:
        """Attention maps of chosen voxels (pass only their responses), layers and heads.

        Parameters
        ----------
        features
            (N, E), unit norm.
        responses
            (V, N), z-scored: the chosen voxels.
        layers, heads
            Indices, negative ones counting from the end; None for all.
        query_tokens
            Whose attention to return; token 0 is read out, tokens from `config.n_learned_tokens` on are the context
            images. None for all, which takes S times the memory.

        Returns
        -------
        array
            (V, L, H, Q, S): each row over the S tokens sums to 1.

        Raises
        ------
        InputError
            If an index is out of range, or the context is no valid one.
        OutOfMemoryError
            If not even one voxel fits into the memory.
        """
        host_features, host_responses = self._check(features, responses)
        n_tokens = self.config.n_learned_tokens + len(host_features)
        chosen_layers = _indices("layers", layers, self.config.n_layers)
        chosen_heads = _indices("heads", heads, self.config.n_heads)
        queries = _indices("query_tokens", query_tokens, n_tokens)
        shape = (len(host_responses), len(chosen_layers), len(chosen_heads), len(queries), n_tokens)
        maps = self._host_tensor(*shape)
        position = {layer: index for index, layer in enumerate(chosen_layers)}

        with torch.inference_mode():
            context = self._encode(host_features, len(host_responses))
            for voxel, response in enumerate(host_responses):

                def capture(layer: int, query: Tensor, key: Tensor, scale: float, voxel: int = voxel) -> None:
                    if layer in position:
                        rows = query[0, chosen_heads][:, queries].to(maps.dtype)
                        columns = key[0, chosen_heads].to(maps.dtype)
                        maps[voxel, position[layer]] = torch.softmax(scale * rows @ columns.mT, dim=-1).cpu()

                if self._try(context, response[None], capture) is None:
                    self._halve(1, len(host_responses), len(host_features))
        return maps.numpy()

    def _check(self, features: ArrayLike, responses: ArrayLike) -> tuple[Tensor, Tensor]:
        """Both inputs on the host, in the type of the tokens, of fitting shapes, finite."""
        stream = self._weights.stream
        host_features, host_responses = check_context(self.config, features, responses, stream, torch.device("cpu"))
        for name, tensor in (("features", host_features), ("responses", host_responses)):
            if not torch.isfinite(tensor).all():
                raise InputError(f"{name} must be finite, but holds NaN or infinity: leave those images or voxels out.")
        return host_features, host_responses.contiguous()

    def _host_tensor(self, *shape: int) -> Tensor:
        """Room for results on the host; page-locked where a GPU writes into it."""
        return torch.empty(shape, dtype=self._weights.stream, pin_memory=self.device.type == "cuda")

    def _encode(self, features: Tensor, n_voxels: int) -> SharedContext:
        try:
            return encode_context(self._weights, features.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not hardware.is_out_of_memory(error):
                raise
            raise self._out_of_memory(n_voxels, len(features)) from error

    def _batch_size(self, n_voxels: int, n_context: int) -> int:
        n_tokens = self.config.n_learned_tokens + n_context
        voxel = bytes_per_voxel(self.config, n_tokens, self.dtype, self.device)
        free = hardware.available_memory(self.device)
        if voxel > free:  # a process that asks for more than the host has is killed, not told
            raise self._out_of_memory(n_voxels, n_context)
        rows = ROWS_PER_BATCH.get(self.device.type, ROWS_PER_BATCH["cpu"])
        wanted = rows // n_tokens if self.voxel_batch_size is None else self.voxel_batch_size
        batch = max(1, min(wanted, int(MEMORY_SHARE * free / voxel), n_voxels))
        logger.info("%d voxels at a time on %s in %s", batch, self.device, self.precision)
        return batch

    def _try(self, context: SharedContext, responses: Tensor, capture: Capture | None = None) -> Tensor | None:
        """One batch, or None if the memory did not suffice."""
        try:
            return forward(self._weights, context, responses.to(self.device, non_blocking=True), capture, self._layers)
        except (RuntimeError, MemoryError) as error:
            if not hardware.is_out_of_memory(error):
                raise
            return None

    def _halve(self, batch: int, n_voxels: int, n_context: int) -> int:
        """Half of a batch that did not fit."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if batch == 1:
            raise self._out_of_memory(n_voxels, n_context)
        logger.info("%d voxels at a time do not fit into memory: going on with %d", batch, batch // 2)
        return batch // 2

    def _out_of_memory(self, n_voxels: int, n_context: int) -> OutOfMemoryError:
        n_tokens = self.config.n_learned_tokens + n_context
        needed = bytes_per_voxel(self.config, n_tokens, self.dtype, self.device) / 2**20
        free = hardware.available_memory(self.device) / 2**20
        return OutOfMemoryError(
            f"not even one of {n_voxels} voxels fits into memory with {n_context} context images in {self.precision}: "
            f"it takes about {needed:.0f} MiB, and {free:.0f} MiB are free on {self.device}. "
            f"Use fewer context images, free some memory, or choose another device."
        )


def bytes_per_voxel(config: ReferenceConfig, n_tokens: int, dtype: torch.dtype, device: torch.device) -> int:
    """Memory that one voxel of a batch takes at the widest place of the network.

    Parameters
    ----------
    config
        Sizes of the network.
    n_tokens
        S, learned tokens plus context images.
    dtype
        Type of the large products.
    device
        Where they run: attention in float64 is not fused on a GPU and holds its (H, S, S) maps there.
    """
    product = dtype.itemsize
    stream = 8 if dtype == torch.float64 else 4
    embedding = (2 * stream + product) * config.n_features + (2 * stream + product) * 2 * config.width
    attention = (2 * stream + 6 * product) * config.width
    feed_forward = (2 * stream + 2 * product) * config.width + 3 * product * config.ffn_width
    maps = 2 * config.n_heads * n_tokens * product if dtype == torch.float64 and device.type != "cpu" else 0
    return n_tokens * (max(embedding, attention, feed_forward) + maps)


def _indices(name: str, chosen: Sequence[int] | None, length: int) -> list[int]:
    """Non-negative indices of `chosen`, all of them for None."""
    if chosen is None:
        return list(range(length))
    for index in chosen:
        if not -length <= index < length:
            raise InputError(f"{name} must lie between {-length} and {length - 1}, but {index} is among them.")
    return [index % length for index in chosen]
