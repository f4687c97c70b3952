"""Running a torch network over batches: device, precision, layer, normalisation.

`make_backbone` turns a module and its preprocessing into a `Backbone`. The module is owned from then on: it is moved,
cast and put into evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import Backbone, pool_tokens
from braincorl.features.backbones.preprocessing import Preprocessing
from braincorl.foreign_state import own_torch_state
from braincorl.validation import FloatArray, spell_precision

if TYPE_CHECKING:
    import torch

    Readout = Callable[[torch.Tensor], torch.Tensor]

PRECISIONS = ("auto", "float32", "bfloat16")

# Larger batches were not faster: on a CPU they only leave its caches, on a GPU they are full by then.
MAX_BATCH = {"cpu": 32, "cuda": 512}

# A layer's input, output, a few temporaries and the residual stream are alive at once.
LIVE_ACTIVATIONS = 6


@dataclass(frozen=True)
class Placement:
    """Where and in which number type a network runs.

    Attributes
    ----------
    device
        As torch names it, such as "cpu" or "cuda:0".
    precision
        "float32" or "bfloat16".
    """

    device: str
    precision: str


def choose_placement(device: str = "auto", precision: str = "auto") -> Placement:
    """Choose a device, and half the number width where the hardware multiplies it.

    Parameters
    ----------
    device
        "auto" (a GPU if there is one), or a name that torch knows.
    precision
        "auto" (bfloat16 on a GPU or CPU with matrix units for it, else float32), "float32" or "bfloat16".

    Returns
    -------
    Placement

    Raises
    ------
    InputError
        If the device is not there, or the precision unknown.
    """
    import torch

    from braincorl.models.hardware import resolve_device, resolve_precision

    name, resolved = spell_precision(precision, PRECISIONS), resolve_device(device)
    half = resolve_precision(name, resolved) == torch.bfloat16
    return Placement(str(resolved), "bfloat16" if half else "float32")


def make_backbone(
    module: torch.nn.Module,
    readout: Readout,
    preprocessing: Preprocessing,
    placement: Placement,
    provenance: Mapping[str, Any],
    *,
    unit_norm: bool,
    encode_text: Callable[[list[str]], FloatArray] | None = None,
) -> Backbone:
    """Make a backbone of a network.

    Parameters
    ----------
    module
        The network; it is moved, cast and put into evaluation mode.
    readout
        Normalised pictures (n, 3, y, x) -> features (n, n_features), by running `module`.
    preprocessing
        Picture -> input.
    placement
        Device and precision.
    provenance
        What is known of weights, layer and pooling.
    unit_norm
        Whether features are of unit length by default.
    encode_text
        Texts -> features, if the network has language.

    Returns
    -------
    Backbone
    """
    import torch

    from braincorl.models.hardware import available_memory

    device = torch.device(placement.device)
    dtype = torch.bfloat16 if placement.precision == "bfloat16" else torch.float32
    module.eval().requires_grad_(False).to(device=placement.device, dtype=dtype)
    forward = _Forward(readout, preprocessing, placement.device, dtype)
    from PIL import Image

    example = preprocessing.prepare(Image.new("RGB", (64, 64), "gray"))
    with _largest_activation(module) as largest:
        n_features = forward(np.stack([example])).shape[1]
    return Backbone(
        prepare=preprocessing.prepare,
        forward=forward,
        n_features=n_features,
        provenance={**provenance, "preprocessing": preprocessing.text, "precision": placement.precision},
        unit_norm=unit_norm,
        image_bytes=LIVE_ACTIVATIONS * max(largest) + 4 * example.size,
        free_bytes=lambda: available_memory(device),
        max_batch=MAX_BATCH.get(device.type, 64),
        encode_text=encode_text,
    )


def layer_readout(module: torch.nn.Module, layer: str, pooling: str, n_prefix: int, channels_last: bool) -> Readout:
    """Make a readout that runs a network up to a named layer and pools its output.

    Parameters
    ----------
    module
        The network.
    layer
        Name of a submodule, as in `module.named_modules()`.
    pooling, n_prefix, channels_last
        See `pool_tokens`.

    Returns
    -------
    callable

    Raises
    ------
    InputError
        If there is no such layer.
    """
    layers = dict(module.named_modules())
    if layer not in layers or not layer:
        raise InputError(f"layer '{layer}' is not in the network: {_some_names(list(layers), layer)}.")

    def read(batch: torch.Tensor) -> torch.Tensor:
        handle = layers[layer].register_forward_hook(_stop_here)
        try:
            module(batch)
        except _LayerReached as reached:
            return pool_tokens(_as_batch(reached.output, len(batch), layer), pooling, n_prefix, channels_last)
        finally:
            handle.remove()
        raise InputError(f"layer '{layer}' is in the network but is not run for images: choose another.")

    return read


# -- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Forward:
    """Stacked arrays to features: what a transform's ToTensor and Normalize do, then the network."""

    readout: Readout
    preprocessing: Preprocessing
    device: str
    dtype: torch.dtype

    def __call__(self, arrays: npt.NDArray[Any]) -> FloatArray:
        import torch

        with own_torch_state(), torch.inference_mode():
            batch = torch.from_numpy(arrays).to(self.device)
            if self.preprocessing.mean is not None:
                # (n, y, x, 3) seen as (n, 3, y, x): the layout in which convolutions are fastest.
                batch = batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)
                mean, std = (
                    torch.tensor(value, dtype=torch.float32, device=self.device)[:, None, None]
                    for value in (self.preprocessing.mean, self.preprocessing.std)
                )
                batch = batch.sub_(mean).div_(std)
            output = self.readout(batch.to(self.dtype))
            if not isinstance(output, torch.Tensor) or output.ndim != 2 or len(output) != len(arrays):
                raise InputError(
                    f"the backbone gave {_kind(output)} for {len(arrays)} images: choose a layer and pooling."
                )
            features: FloatArray = output.float().cpu().numpy()
            return features


class _LayerReached(Exception):  # noqa: N818 - not an error: it ends the forward pass early
    def __init__(self, output: Any) -> None:
        self.output = output


def _stop_here(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
    raise _LayerReached(output)


def _as_batch(output: Any, n_images: int, layer: str) -> torch.Tensor:
    import torch

    output = output[0] if isinstance(output, tuple) and output else output
    if not isinstance(output, torch.Tensor):
        raise InputError(f"layer '{layer}' gives {_kind(output)}, expected one tensor: choose another.")
    if output.ndim == 3 and output.shape[0] != n_images and output.shape[1] == n_images:
        return output.transpose(0, 1)  # tokens first, as some transformers have it
    return output


def _kind(output: Any) -> str:
    shape = getattr(output, "shape", None)
    return f"an output of shape {tuple(shape)}" if shape is not None else f"a {type(output).__name__}"


def _some_names(names: list[str], wanted: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(wanted, names, n=4, cutoff=0.4) or [name for name in names if name.count(".") <= 1][1:9]
    return "try " + ", ".join(near)


@contextmanager
def _largest_activation(module: torch.nn.Module) -> Iterator[list[int]]:
    """Collect the size in bytes of every layer's output while the block runs."""
    import torch

    sizes = [0]

    def note(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.nbytes)

    handles = [part.register_forward_hook(note) for part in module.modules()]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def describe_readout(layer: str | None, pooling: str) -> Mapping[str, str]:
    """Provenance of a readout."""
    return {"layer": layer or "output", "pooling": pooling}
