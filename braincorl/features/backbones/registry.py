"""Names of backbones: what `--backbone` takes.

"gabor"; "open_clip:ARCHITECTURE/TAG"; "timm:NAME.TAG"; or one of the short names below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from braincorl.errors import InputError
from braincorl.features.backbones import lite
from braincorl.features.backbones.backbone import Backbone, BackboneOptions
from braincorl.features.backbones.gabor import GaborConfig


@dataclass(frozen=True)
class Preset:
    """A short name's meaning.

    Attributes
    ----------
    backbone
        The full name.
    about
        In a few words.
    squash_to
        Pixels a side to which pictures are squashed, in place of the network's own resize and crop (timm).
    unit_norm
        Whether features are of unit length by default (timm; those of open_clip always are).
    packaged
        Where its weights are, for a network whose weights come as a package (timm).
    """

    backbone: str
    about: str
    squash_to: int | None = None
    unit_norm: bool = True
    packaged: Callable[[], Path] | None = None


PRESETS = {
    "clip-vit-b32": Preset("open_clip:ViT-B-32/openai", "CLIP ViT-B/32, 512 features"),
    "clip-vit-b16": Preset("open_clip:ViT-B-16/openai", "CLIP ViT-B/16, 512 features"),
    "siglip-so400m": Preset("open_clip:ViT-SO400M-14-SigLIP/webli", "SigLIP SO400M/14, 1,152 features"),
    "dino-vit-b16": Preset("timm:vit_base_patch16_224.dino", "DINO ViT-B/16, 768 features"),
    "dinov2-vit-b14": Preset("timm:vit_base_patch14_dinov2.lvd142m", "DINOv2 ViT-B/14, 768 features"),
    lite.NAME: Preset(
        f"timm:{lite.ARCHITECTURE}",
        f"EfficientNet-Lite0 of ImageNet, 1,280 features; offline: {lite.HOW_TO_GET}",
        packaged=lite.lite_weights,
    ),
    "resnet18-squash": Preset(
        "timm:resnet18.tv_in1k",
        "torchvision's ResNet-18, global average pool, pictures squashed to 224 x 224, 512 features",
        squash_to=224,
        unit_norm=False,
    ),
}


def make_named_backbone(name: str, options: BackboneOptions) -> Backbone:
    """Make a backbone by name.

    Parameters
    ----------
    name
        Short or full name.
    options
        Weights, layer, pooling, device.

    Returns
    -------
    Backbone
        Its provenance keeps the name as `made_by`: the tag in it says which preprocessing the weights were trained
        with, also where the weights themselves come from a file.

    Raises
    ------
    InputError
        If the name is unknown, or an option does not apply to it.
    """
    backbone = _make(name, options)
    return replace(backbone, provenance={**backbone.provenance, "made_by": name})


def _make(name: str, options: BackboneOptions) -> Backbone:
    preset = PRESETS.get(name, Preset(name, ""))
    kind, _, rest = preset.backbone.partition(":")
    if kind == "gabor" and not rest:
        return _make_gabor(options)
    if options.gabor is not None:
        raise InputError(f"gabor settings were given, but the backbone is '{name}': use the backbone 'gabor'.")
    if kind not in ("open_clip", "timm") or not rest:
        raise InputError(
            f"backbone '{name}' is unknown: use open_clip:ARCHITECTURE/TAG, timm:NAME.TAG or one of "
            f"{', '.join(('gabor', *PRESETS))}."
        )
    if kind == "open_clip":
        from braincorl.features.backbones.clip_backbone import clip_backbone

        architecture, _, tag = rest.partition("/")
        return clip_backbone(architecture, tag or None, options)
    from braincorl.features.backbones.timm_backbone import timm_backbone

    if preset.packaged is not None and options.weights is None:
        options = replace(options, weights=preset.packaged())
    return timm_backbone(rest, options, squash_to=preset.squash_to, unit_norm=preset.unit_norm)


def _make_gabor(options: BackboneOptions) -> Backbone:
    from braincorl.features.backbones.own_backbone import gabor_backbone

    if options.layer is not None or options.pooling != "auto" or options.weights is not None:
        raise InputError("the backbone 'gabor' has no weights, layers or pooling: leave those options out.")
    if options.device not in ("auto", "cpu") or options.precision not in ("auto", "float32"):
        raise InputError(
            f"the backbone 'gabor' runs on the processor in float32, not on {options.device!r} in "
            f"{options.precision!r}: leave device and precision out."
        )
    return gabor_backbone(options.gabor or GaborConfig())
