"""Networks of timm (DINO, DINOv2, ResNet, SigLIP towers …): image features from any layer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import Backbone, BackboneOptions, pool_tokens
from braincorl.features.backbones.lite import as_timm_names, is_lite
from braincorl.features.backbones.network import choose_placement, describe_readout, layer_readout, make_backbone
from braincorl.features.backbones.preprocessing import Preprocessing, describe, from_transform, squash
from braincorl.features.backbones.weights import (
    Published,
    find_published,
    library_versions,
    load_strictly,
    local_weights,
    reading_weights,
    weights_hash,
)
from braincorl.foreign_state import own_torch_state

if TYPE_CHECKING:
    import torch


@own_torch_state()
def timm_backbone(
    name: str, options: BackboneOptions, *, squash_to: int | None = None, unit_norm: bool = True
) -> Backbone:
    """Make a backbone of a timm network, without its classifier.

    Parameters
    ----------
    name
        As timm names it, with or without a tag: "resnet18.tv_in1k", "vit_base_patch14_dinov2.lvd142m".
    options
        Weights, layer (such as "blocks.6" or "layer3"; by default the network's own final features), pooling ("auto"
        is the network's own at its end), device.
    squash_to
        Resize both sides to this many pixels, in place of timm's resize and centre crop.
    unit_norm
        Whether features are of unit length unless told otherwise.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        If the network, tag or layer is unknown, or the weights are not to be had.
    """
    _check_name(name)
    model, stated = _create(name, options)
    layer, pooling = options.layer, options.pooling
    provenance = {
        "backbone": f"timm:{name.partition('.')[0]}",
        "weights": stated,
        "weights_sha256": weights_hash(model),
        **describe_readout(layer, pooling),
        "versions": library_versions("timm", "torch", "torchvision", "pillow"),
    }
    preprocessing = _preprocessing(model, squash_to)
    readout = _readout(model, layer, pooling)
    placement = choose_placement(options.device, options.precision)
    return make_backbone(model, readout, preprocessing, placement, provenance, unit_norm=unit_norm)


def _check_name(name: str) -> None:
    import timm

    if timm.is_model(name.partition(".")[0]) and timm.is_model(name):
        architecture, _, tag = name.partition(".")
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        if not tag or tag in tags:
            return
        raise InputError(f"{architecture} has no weights tagged '{tag}': its tags are {', '.join(tags) or 'none'}.")
    from difflib import get_close_matches

    near = get_close_matches(name.partition(".")[0], timm.list_models(), n=4, cutoff=0.4)
    raise InputError(f"timm has no model '{name}': did you mean {', '.join(near) or 'one of timm.list_models()'}?")


def _create(name: str, options: BackboneOptions) -> tuple[Any, str]:
    """Network and the name of its weights."""
    import timm
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed or 0)
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    config = model.pretrained_cfg
    if options.seed is not None:
        return model, f"random:{options.seed}"
    if options.weights is not None:
        path = local_weights(options.weights)
    else:
        path = find_published(_published(name, config), options.offline)
    with reading_weights(path, name):
        load_strictly(model, _state(path, model, config), path, name)
    return model, path.name if options.weights is not None else str(config.get("tag") or name)


def _published(name: str, config: Mapping[str, Any]) -> Published:
    repository = str(config.get("hf_hub_id") or "").split("@")[0]
    files = [str(config.get("hf_hub_filename") or ""), "model.safetensors", "pytorch_model.bin"]
    return Published(name, repository, [file for file in files if file], str(config.get("url") or ""))


def _state(path: Path, model: torch.nn.Module, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read weights as the network names them, less the classifier's."""
    from timm.models import load_state_dict

    state = load_state_dict(str(path), weights_only=True)
    if is_lite(state):
        state = as_timm_names(state)
    # The network's own module knows how to read the original authors' names and shapes.
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    state = dict(state if convert is None else convert(state, model))
    classifiers = config.get("classifier") or ()
    for classifier in (classifiers,) if isinstance(classifiers, str) else classifiers:
        for key in (f"{classifier}.weight", f"{classifier}.bias"):
            state.pop(key, None)
    return state


def _preprocessing(model: torch.nn.Module, squash_to: int | None) -> Preprocessing:
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    config = resolve_model_data_config(model)
    if squash_to is not None:
        used = {"resize": "squash", "size": squash_to, **{key: config[key] for key in ("interpolation", "mean", "std")}}
        transform = squash(squash_to, config["mean"], config["std"], config["interpolation"])
        return from_transform(transform, "torchvision: " + describe(used))
    used = {key: config.get(key) for key in ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")}
    return from_transform(create_transform(**config, is_training=False), "timm: " + describe(used))


def _readout(model: Any, layer: str | None, pooling: str) -> Callable[[torch.Tensor], torch.Tensor]:
    n_prefix = int(getattr(model, "num_prefix_tokens", 0))
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    if layer is not None:
        return layer_readout(model, layer, pooling, n_prefix, channels_last)
    if pooling == "auto":
        forward: Callable[[torch.Tensor], torch.Tensor] = model
        return forward

    def read(batch: torch.Tensor) -> torch.Tensor:
        return pool_tokens(model.forward_features(batch), pooling, n_prefix, channels_last)

    return read
