"""Networks of open_clip: images and texts in one space."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from braincorl.errors import InputError
from braincorl.features.backbones.backbone import Backbone, BackboneOptions
from braincorl.features.backbones.network import (
    Placement,
    choose_placement,
    describe_readout,
    layer_readout,
    make_backbone,
)
from braincorl.features.backbones.preprocessing import Preprocessing, describe, from_transform
from braincorl.features.backbones.weights import (
    Published,
    find_published,
    library_versions,
    local_weights,
    reading_weights,
    weights_hash,
)
from braincorl.foreign_state import own_torch_state
from braincorl.storage.files import one_line
from braincorl.validation import FloatArray

if TYPE_CHECKING:
    import torch

# What a tag says about the pictures it was trained on; the weights are useless under any other preprocessing.
TAG_SETTINGS = ("mean", "std", "interpolation", "resize_mode", "quick_gelu")


@own_torch_state()
def clip_backbone(architecture: str, tag: str | None, options: BackboneOptions) -> Backbone:
    """Make a backbone of an open_clip network.

    Parameters
    ----------
    architecture
        As open_clip names it, such as "ViT-B-32".
    tag
        Pretrained tag, such as "openai": which weights, and which preprocessing they were trained with.
    options
        Weights, layer of the image tower (by default the embedding shared with text), pooling, device.

    Returns
    -------
    Backbone

    Raises
    ------
    InputError
        If the network, tag or layer is unknown, or the weights are not to be had.
    """
    import open_clip

    if architecture not in open_clip.list_models():
        raise InputError(f"open_clip has no model '{architecture}': {_near(architecture, open_clip.list_models())}.")
    if tag is not None and open_clip.get_pretrained_cfg(architecture, tag) in (None, {}):
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise InputError(f"{architecture} has no weights tagged '{tag}': its tags are {_some(tags)}.")
    settings = _tag_settings(architecture, tag)
    model, stated = _create(architecture, tag, options, settings)
    layer, pooling = options.layer, options.pooling
    provenance = {
        "backbone": f"open_clip:{architecture}",
        "weights": stated,
        "weights_sha256": weights_hash(model),
        **describe_readout(layer, pooling if layer else "projection"),
        "versions": library_versions("open_clip_torch", "torch", "torchvision", "pillow"),
    }
    readout: Callable[[torch.Tensor], torch.Tensor] = model.encode_image
    if layer is not None:
        own_prefix = int(getattr(model.visual, "class_embedding", None) is not None)
        prefix = getattr(getattr(model.visual, "trunk", None), "num_prefix_tokens", own_prefix)
        readout = layer_readout(model.visual, layer, pooling, prefix, channels_last=False)
    elif pooling != "auto":
        raise InputError(f"pooling is '{pooling}', but the image embedding is one vector: name a layer, or use 'auto'.")
    placement = choose_placement(options.device, options.precision)
    text = None if layer is not None else _text_encoder(model, architecture, placement)
    return make_backbone(model, readout, _preprocessing(model), placement, provenance, unit_norm=True, encode_text=text)


def _tag_settings(architecture: str, tag: str | None) -> dict[str, Any]:
    """Preprocessing and activation of a tag; without a tag, what all tags of the architecture agree on."""
    import open_clip

    tags = [tag] if tag else open_clip.list_pretrained_tags_by_model(architecture)
    every = [open_clip.get_pretrained_cfg(architecture, name) for name in tags]
    settings = [{key: config[key] for key in TAG_SETTINGS if key in config} for config in every]
    if any(other != settings[0] for other in settings[1:]):
        raise InputError(
            f"the tags of {architecture} differ in preprocessing or activation: say whose weights these are, as in "
            f"'open_clip:{architecture}/{tags[0]}' (tags: {_some(tags)})."
        )
    return settings[0] if settings else {}


def _create(
    architecture: str, tag: str | None, options: BackboneOptions, settings: Mapping[str, Any]
) -> tuple[Any, str]:
    """Network and the name of its weights."""
    import open_clip
    import torch

    creation = {
        "force_quick_gelu": bool(settings.get("quick_gelu", False)),
        "force_preprocess_cfg": {key: value for key, value in settings.items() if key != "quick_gelu"},
        "pretrained_text": False,
    }
    if options.seed is not None:
        with _quiet_root_logger(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return open_clip.create_model(architecture, pretrained=None, **creation), f"random:{options.seed}"
    if options.weights is not None:
        path = local_weights(options.weights)
    elif tag is not None:
        path = find_published(_published(architecture, tag), options.offline)
    else:
        tags = _some(open_clip.list_pretrained_tags_by_model(architecture))
        raise InputError(f"weights of {architecture} are not stated: add a tag ({tags}) or pass a local file.")
    with _quiet_root_logger(), reading_weights(path, architecture):
        model = open_clip.create_model(architecture, pretrained=str(path), weights_only=True, **creation)
    return model, path.name if options.weights is not None else str(tag)


def _published(architecture: str, tag: str) -> Published:
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture, tag)
    repository, _, file = str(config.get("hf_hub", "")).rpartition("/")
    files = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    if file.endswith((".bin", ".pth")):
        files.insert(0, file[:-4] + ".safetensors")
    return Published(f"{architecture}/{tag}", repository, files, str(config.get("url", "")))


def _preprocessing(model: Any) -> Preprocessing:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = model.visual.preprocess_cfg
    used = {key: config[key] for key in ("size", "mean", "std", "interpolation", "resize_mode")}
    if config["resize_mode"] == "longest":
        used["fill_color"] = config["fill_color"]
    return from_transform(image_transform_v2(PreprocessCfg(**config), is_train=False), "open_clip: " + describe(used))


def _text_encoder(model: Any, architecture: str, placement: Placement) -> Callable[[list[str]], FloatArray]:
    def encode(texts: list[str]) -> FloatArray:
        import open_clip
        import torch

        try:
            with _quiet_root_logger():
                tokenizer = open_clip.get_tokenizer(architecture)
        except (ImportError, OSError, RuntimeError, ValueError, AssertionError) as error:
            detail = one_line(error)[:160] or type(error).__name__
            raise InputError(
                f"the tokenizer of {architecture} cannot be had ({detail}): install transformers and fetch it once."
            ) from error
        with own_torch_state(), torch.inference_mode():
            tokens = tokenizer(texts).to(placement.device)
            features: FloatArray = model.encode_text(tokens).float().cpu().numpy()
            return features

    return encode


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip's remarks from configuring, and writing to, the root logger."""
    root, handler = logging.getLogger(), logging.NullHandler()

    def of_others(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addHandler(handler)
    root.addFilter(of_others)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(of_others)


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "none"


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=4, cutoff=0.4)
    return f"did you mean {', '.join(near)}" if near else "see open_clip.list_models()"
