"""open_clip, timm and own networks against a plain loop over the libraries' own preprocessing and forward pass."""

import logging

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from braincorl.errors import FileFormatError, InputError
from braincorl.features import ImageEmbedder

TINY_VIT = "timm:test_vit"


def plain_loop(pixels, preprocess, encode):
    with torch.inference_mode():
        return torch.cat([encode(preprocess(Image.fromarray(image))[None]) for image in pixels]).numpy()


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def random_clip(name, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=None, pretrained_text=False)
    return model.eval(), preprocess


@pytest.fixture
def clip_file(tiny_clip, tmp_path):
    """A model of the user's own, its preprocessing, and its weights in a file."""
    model, preprocess = random_clip(tiny_clip, seed=11)
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "t.pt")
    return model, preprocess, tmp_path


@pytest.mark.parametrize("file", ["clip.safetensors", "clip.pt", "t.pt"])
def test_clip_weights_from_a_file_equal_the_plain_loop(file, clip_file, tiny_clip, pixels):
    model, preprocess, folder = clip_file
    embedder = ImageEmbedder(f"open_clip:{tiny_clip}", weights=folder / file, precision="float32")
    expected = unit(plain_loop(pixels, preprocess, model.encode_image))
    np.testing.assert_allclose(embedder.embed(pixels).features, expected, atol=1e-5)
    assert embedder.provenance["weights"] == file


def test_the_hash_is_of_the_weights_not_of_the_file(clip_file, tiny_clip):
    hashes = {
        ImageEmbedder(f"open_clip:{tiny_clip}", weights=clip_file[2] / file).provenance["weights_sha256"]
        for file in ("clip.safetensors", "clip.pt", "t.pt")
    }
    assert len(hashes) == 1
    other = ImageEmbedder(f"open_clip:{tiny_clip}", weights="random:5").provenance["weights_sha256"]
    assert other not in hashes


def test_clip_text_equals_the_library(clip_file, tiny_clip):
    model, _, folder = clip_file
    embedder = ImageEmbedder(f"open_clip:{tiny_clip}", weights=folder / "clip.pt", precision="float32")
    texts = ["a face", "two houses by the sea"]
    with torch.inference_mode():
        expected = unit(model.encode_text(open_clip.get_tokenizer(tiny_clip)(texts)).numpy())
    table = embedder.embed_text(texts)
    np.testing.assert_allclose(table.features, expected, atol=1e-5)
    assert table.image_ids.tolist() == texts


def test_a_tags_own_preprocessing_and_activation_are_used_with_a_local_file(clip_file, tiny_clip, pixels, monkeypatch):
    """The weights of a tag in a file of one's own, under the mean, resize and activation of that tag."""
    settings = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "resize_mode": "squash", "interpolation": "bilinear"}
    monkeypatch.setitem(
        open_clip.pretrained._PRETRAINED, tiny_clip, {"mine": {"hf_hub": "a/b/", "quick_gelu": True, **settings}}
    )
    embedder = ImageEmbedder(f"open_clip:{tiny_clip}/mine", weights=clip_file[2] / "clip.pt", precision="float32")
    model, _, preprocess = open_clip.create_model_and_transforms(
        tiny_clip,
        pretrained=str(clip_file[2] / "clip.pt"),
        force_quick_gelu=True,
        image_mean=settings["mean"],
        image_std=settings["std"],
        image_resize_mode="squash",
        image_interpolation="bilinear",
    )
    expected = unit(plain_loop(pixels, preprocess, model.eval().encode_image))
    np.testing.assert_allclose(embedder.embed(pixels).features, expected, atol=1e-5)
    assert "resize_mode squash" in embedder.provenance["preprocessing"]
    assert "mean 0.5,0.4,0.3" in embedder.provenance["preprocessing"]


def test_tags_that_differ_make_the_user_say_which(tiny_clip, clip_file, monkeypatch):
    tags = {"one": {"hf_hub": "a/b/", "mean": (0.5, 0.5, 0.5)}, "two": {"hf_hub": "a/b/", "mean": (0.4, 0.5, 0.5)}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_clip, tags)
    with pytest.raises(InputError, match=f"open_clip:{tiny_clip}/one"):
        ImageEmbedder(f"open_clip:{tiny_clip}", weights=clip_file[2] / "clip.pt")
    assert ImageEmbedder(f"open_clip:{tiny_clip}/two", weights=clip_file[2] / "clip.pt").n_features == 24


def test_a_layer_of_the_image_tower_is_read_as_the_library_runs_it(tiny_clip, pixels):
    embedder = ImageEmbedder(
        f"open_clip:{tiny_clip}",
        weights="random:11",
        precision="float32",
        layer="transformer.resblocks.1",
        normalize=False,
    )
    model, preprocess = random_clip(tiny_clip, seed=11)
    kept = []
    model.visual.transformer.resblocks[1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    plain_loop(pixels, preprocess, model.encode_image)
    np.testing.assert_allclose(embedder.embed(pixels).features, torch.cat(kept)[:, 0].numpy(), atol=1e-5)
    with pytest.raises(InputError, match="embeds no text"):
        embedder.embed_text(["a"])


def test_nothing_is_written_to_the_root_logger(tiny_clip, caplog):
    with caplog.at_level(logging.INFO):
        ImageEmbedder(f"open_clip:{tiny_clip}", weights="random")
    assert not [record for record in caplog.records if "open_clip" in record.pathname]


# -- timm --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def timm_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return timm.create_model("test_vit", pretrained=False, depth=2).eval()


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return timm.create_model("test_resnet", pretrained=False).eval()


@pytest.mark.parametrize("file", ["w.safetensors", "w.pth", "nested.pth"])
def test_timm_weights_from_a_file_equal_the_plain_loop(file, resnet, tmp_path, pixels):
    state = resnet.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    torch.save({"model": state}, tmp_path / "nested.pth")
    embedder = ImageEmbedder("timm:test_resnet", weights=tmp_path / file, precision="float32", normalize=False)
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(resnet))
    with torch.inference_mode():
        expected = plain_loop(pixels, preprocess, lambda x: resnet.forward_features(x).mean(dim=(2, 3)))
    np.testing.assert_allclose(embedder.embed(pixels).features, expected, atol=1e-5 * np.abs(expected).max())


def test_the_resnet_preset_is_torchvisions_network_on_squashed_pictures(tmp_path, pixels):
    """Torchvision's own network, file and steps: 224 x 224, ImageNet normalisation, the last map's mean as it is."""
    from torchvision.models import resnet18

    torch.manual_seed(2)
    original = resnet18(weights=None).eval()
    state = {key: value for key, value in original.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18-abcdef.pth")
    embedder = ImageEmbedder("resnet18-squash", weights=tmp_path / "resnet18-abcdef.pth", precision="float32")
    trunk = torch.nn.Sequential(*list(original.children())[:-1], torch.nn.Flatten())
    preprocess = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    expected = plain_loop(pixels[:3], preprocess, trunk)
    np.testing.assert_allclose(embedder.embed(pixels[:3]).features, expected, atol=1e-5 * np.abs(expected).max())
    assert embedder.n_features == 512
    assert embedder.provenance["normalized"] is False


@pytest.mark.parametrize("pooling", ["auto", "cls", "mean", "flatten"])
@pytest.mark.parametrize("layer", [None, "blocks.1"])
def test_layers_and_poolings_of_a_transformer(pooling, layer, pixels):
    embedder = ImageEmbedder(
        TINY_VIT, weights="random:4", precision="float32", normalize=False, layer=layer, pooling=pooling
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def tokens(x):
        if layer is None:
            return model.forward_features(x)
        return model.forward_intermediates(
            x, indices=[1], norm=False, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
        )[0]

    def encode(x):
        out = tokens(x)
        prefix, patches = (out[:, :1], out[:, 1:]) if layer is None else (out[1], out[0])
        wanted = {"cls": prefix[:, 0], "mean": patches.mean(1), "flatten": torch.cat([prefix, patches], 1).flatten(1)}
        return wanted.get(pooling, prefix[:, 0])

    expected = plain_loop(pixels[:3], preprocess, encode)
    np.testing.assert_allclose(embedder.embed(pixels[:3]).features, expected, atol=1e-4)


def test_weights_of_another_network_are_refused_by_what_differs(timm_model, resnet, tmp_path):
    save_file(timm_model.state_dict(), tmp_path / "two-blocks.safetensors")
    with pytest.raises(FileFormatError, match=r"two-blocks\.safetensors does not fit test_vit.*lacks"):
        ImageEmbedder(TINY_VIT, weights=tmp_path / "two-blocks.safetensors")
    more = {**resnet.state_dict(), "layer5.0.conv1.weight": torch.zeros(1)}
    torch.save(more, tmp_path / "more.pth")
    with pytest.raises(FileFormatError, match=r"besides 1 weights, such as 'layer5"):
        ImageEmbedder("timm:test_resnet", weights=tmp_path / "more.pth")
    torch.save({**resnet.state_dict(), "bn1.weight": torch.zeros(1)}, tmp_path / "shape.pth")
    with pytest.raises(FileFormatError, match="in another shape 1 weights, such as 'bn1"):
        ImageEmbedder("timm:test_resnet", weights=tmp_path / "shape.pth")


def test_channels_last_networks_are_pooled_over_space(pixels):
    """This network's maps are (n, y, x, features)."""
    embedder = ImageEmbedder(
        "timm:test_mambaout", weights="random:1", precision="float32", pooling="mean", normalize=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = timm.create_model("test_mambaout", pretrained=False, num_classes=0).eval()
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    expected = plain_loop(pixels[:3], preprocess, lambda x: model.forward_features(x).mean(dim=(1, 2)))
    assert expected.shape == (3, 64)
    np.testing.assert_allclose(embedder.embed(pixels[:3]).features, expected, atol=1e-5)


# -- a network of one's own --------------------------------------------------------------------------------------------


class Own(torch.nn.Module):
    def __init__(self, ndim=4):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 5, 3, stride=2)
        self.norm = torch.nn.BatchNorm2d(5)
        self.ndim = ndim

    def forward(self, x):
        maps = self.norm(self.first(x))
        return {"maps": maps} if self.ndim == 0 else maps.flatten(2).transpose(1, 2) if self.ndim == 3 else maps


TO_TENSOR = transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor()])


def test_a_module_of_ones_own_equals_the_plain_loop_and_is_left_alone(pixels):
    torch.manual_seed(0)
    module = Own().train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    embedder = ImageEmbedder(module, transform=TO_TENSOR, name="mine")
    features = embedder.embed(pixels).features
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    expected = plain_loop(pixels, TO_TENSOR, lambda x: module.eval()(x).mean(dim=(2, 3)))
    np.testing.assert_allclose(features, expected, atol=1e-5)
    assert embedder.provenance["backbone"] == "module:mine"
    assert "Resize" in embedder.provenance["preprocessing"]


def test_tokens_and_layers_of_a_module_are_pooled(pixels):
    torch.manual_seed(0)
    maps, tokens = Own().eval(), Own(ndim=3).eval()
    tokens.load_state_dict(maps.state_dict())
    pooled = ImageEmbedder(maps, transform=TO_TENSOR).embed(pixels).features
    np.testing.assert_allclose(ImageEmbedder(tokens, transform=TO_TENSOR).embed(pixels).features, pooled, atol=1e-5)
    first = ImageEmbedder(maps, transform=TO_TENSOR, layer="first").embed(pixels).features
    expected = plain_loop(pixels, TO_TENSOR, lambda x: maps.first(x).mean(dim=(2, 3)))
    np.testing.assert_allclose(first, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (Own(), {}, "needs its transform"),
        (Own(ndim=0), {"transform": TO_TENSOR}, "gave a dict"),
        (Own(), {"transform": TO_TENSOR, "layer": "second"}, "layer 'second' is not in the network"),
        (Own(), {"transform": TO_TENSOR, "weights": "x.pt"}, "for named backbones"),
        (Own(), {"transform": lambda picture: np.zeros(3)}, "must turn a picture into one torch.Tensor"),
        ("gabor", {"transform": TO_TENSOR}, "for a torch.nn.Module of your own"),
        ("gabor", {"pooling": "cls"}, "no weights, layers or pooling"),
        ("gabor", {"normalize": "yes"}, "normalize is 'yes'"),
        ("gabor", {"background": "x"}, "no colour"),
        (3, {}, "must be a name or a torch.nn.Module"),
        (TINY_VIT, {"weights": "random:x"}, "random:SEED"),
        (TINY_VIT, {"weights": "random", "pooling": "max"}, "must be one of auto, cls"),
        (TINY_VIT, {"weights": "random", "device": "cuda:77"}, "cannot be used"),
        (
            TINY_VIT,
            {"weights": "random", "precision": "half"},
            "precision must be one of auto, float32, bfloat16, but is 'half'",
        ),
        ("timm:test_resnet", {"weights": "random", "pooling": "cls"}, "has no class token"),
    ],
)
def test_options_that_do_not_apply_are_refused(module, options, message):
    with pytest.raises(InputError, match=message):
        ImageEmbedder(module, **options)
