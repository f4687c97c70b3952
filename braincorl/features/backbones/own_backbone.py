"""Backbones without a model zoo: a user's own torch module, and the Gabor pyramid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from threadpoolctl import ThreadpoolController

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import Backbone, BackboneOptions, pool_tokens
from braincorl.features.backbones.gabor import GaborConfig, gabor_features, make_bank, to_luminance
from braincorl.features.backbones.network import choose_placement, describe_readout, layer_readout, make_backbone
from braincorl.features.backbones.preprocessing import from_transform
from braincorl.features.backbones.weights import library_versions, weights_hash
from braincorl.foreign_state import own_torch_state
from braincorl.validation import FloatArray

if TYPE_CHECKING:
    import torch
    from PIL import Image as PILImage


@own_torch_state()
def module_backbone(
    module: torch.nn.Module,
    transform: Callable[[PILImage.Image], torch.Tensor] | None,
    options: BackboneOptions,
    *,
    name: str | None = None,
    preprocessing: str | None = None,
) -> Backbone:
    """Make a backbone of a copy of a user's network.

    Parameters
    ----------
    module
        Pictures (n, channels, y, x) -> features (n, n_features), tokens (n, n_tokens, n_features) or maps (n,
        n_features, y, x). A `num_prefix_tokens` attribute says how many tokens are not of the image.
    transform
        Picture (PIL, RGB) -> tensor (channels, y, x), all of one size.
    options
        Layer, pooling, device, precision. In "auto", the precision is float32: a network of unknown habits is not run
        in half precision unless its owner says so.
    name
        For the provenance; by default the class's name.
    preprocessing
        What the transform does, for the provenance; by default its own description, or a function's name.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        If the transform is missing or the output of an unknown kind.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise InputError(f"backbone is a {type(module).__name__}, but must be a name or a torch.nn.Module.")
    if transform is None:
        raise InputError("a network of your own needs its transform: a function from a PIL picture to a tensor.")
    if options.weights is not None or options.gabor is not None:
        raise InputError("weights and gabor are for named backbones: load the weights into your module first.")
    layer, pooling = options.layer, options.pooling
    placement = choose_placement(options.device, "float32" if options.precision == "auto" else options.precision)
    own = copy.deepcopy(module)  # the user's stays where it is, in its mode and precision
    prefix = int(getattr(own, "num_prefix_tokens", 0))

    def read(batch: torch.Tensor) -> torch.Tensor:
        output = own(batch)
        # Anything but a tensor is refused, with its type, where the network is run.
        return pool_tokens(output, pooling, prefix) if hasattr(output, "ndim") else output

    provenance = {
        "backbone": f"module:{name or type(module).__name__}",
        "weights": "as given",
        "weights_sha256": weights_hash(own),
        **describe_readout(layer, pooling),
        "versions": library_versions("torch", "torchvision", "pillow"),
    }
    readout = read if layer is None else layer_readout(own, layer, pooling, prefix, channels_last=False)
    text = " ".join(repr(transform).split()) if hasattr(transform, "transforms") else _function_name(transform)
    steps = from_transform(transform, preprocessing or text)
    return make_backbone(own, readout, steps, placement, provenance, unit_norm=False)


def gabor_backbone(config: GaborConfig) -> Backbone:
    """Make a backbone of a Gabor pyramid, on the CPU in float32.

    Parameters
    ----------
    config
        Which filters there are.

    Returns
    -------
    Backbone
    """
    import psutil

    banks = [make_bank(int(frequency), config) for frequency in config.frequencies]
    largest = config.n_orientations * max(int(frequency) for frequency in config.frequencies) * config.image_size
    provenance = {
        "backbone": "gabor",
        "weights": config.text,
        "preprocessing": f"luminance: IEC 61966-2-1; short side {config.image_size} bicubic; centre crop",
        **describe_readout(None, config.output),
        "precision": "float32",
        "versions": library_versions("numpy", "pillow"),
    }
    return Backbone(
        prepare=partial(to_luminance, size=config.image_size),
        forward=partial(_in_one_thread, partial(gabor_features, config=config, banks=banks)),
        n_features=config.n_features,
        provenance=provenance,
        unit_norm=False,
        image_bytes=8 * 4 * largest + 8 * config.n_features,
        free_bytes=lambda: int(psutil.virtual_memory().available),
        max_batch=64,
    )


def _in_one_thread(forward: Callable[[FloatArray], FloatArray], pictures: FloatArray) -> FloatArray:
    """Run NumPy's products in one thread: they are too small for several, which would only wait for each other."""
    with _thread_control().limit(limits=1, user_api="blas"):
        return forward(pictures)


@cache
def _thread_control() -> ThreadpoolController:
    return ThreadpoolController()


def _function_name(transform: Callable[..., object]) -> str:
    kind = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{kind.__module__}.{kind.__qualname__}"
