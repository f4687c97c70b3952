"""The road of a cluster node: weights as files, no network, words asked of the fit's own backbone."""

import json
import shutil
import socket

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from braincorl.errors import InputError
from braincorl.features import load_features
from braincorl.features.backbones.weights import Published, find_published, local_weights

ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
# Two tags whose weights want other pictures: a local file alone does not say which of them it is.
TAGS = {"dark": {"mean": (0.4, 0.4, 0.4), "quick_gelu": True}, "light": {"mean": (0.6, 0.6, 0.6)}}
NAME = "open_clip:offline-clip/dark"


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Folder with `offline-clip.pt`, weights of a small CLIP that open_clip knows under two tags; no network."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "offline-clip.json").write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(folder / "offline-clip.json")
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(2)
        model = open_clip.create_model("offline-clip", pretrained=None, force_quick_gelu=True)
        torch.save(model.state_dict(), folder / "offline-clip.pt")
        patch.setitem(open_clip.pretrained._PRETRAINED, "offline-clip", TAGS)

        def refuse(*_args, **_kwargs):
            raise AssertionError("a test tried to use the network")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield folder


@pytest.fixture(scope="module")
def pictures(offline, inputs):
    folder = offline / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in load_features(inputs.features).image_ids.tolist():
        coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        coarse.resize((32, 32)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def fitted(offline, pictures, inputs):
    """A fit to features that were embedded with the local weights, under the name that has the tag."""
    from braincorl.cli.main import main

    ids, features = offline / "ids.txt", offline / "clip.npz"
    ids.write_text("\n".join(sorted(load_features(inputs.features).image_ids.tolist())))
    embed = ["embed", pictures, "--backbone", NAME, "--weights", offline / "offline-clip.pt", "--precision", "float32"]
    assert main([str(a) for a in (*embed, "--image-ids", ids, "--output", features, "--quiet")]) == 0
    arguments = [*inputs.arguments(features=features), "--encoder", "bayesian-ridge", "--n-context", 30]
    assert main([str(a) for a in ("fit", *arguments, "--output-dir", offline / "fit", "--quiet")]) == 0
    return offline / "fit"


def text_features(folder):
    return json.loads((folder / "config.json").read_text())["text_provenance"]


def test_local_weights_are_queried_under_the_name_that_the_features_keep(fitted, offline, braincorl, tmp_path):
    weights = ("--weights", offline / "offline-clip.pt", "--offline")
    result = braincorl("query", fitted, "face", "house", *weights, "--output-dir", tmp_path / "q")
    assert result.status == 0, result.err
    made = load_features(offline / "clip.npz").provenance
    assert made["made_by"] == NAME
    assert text_features(tmp_path / "q")["weights_sha256"] == made["weights_sha256"]


@pytest.mark.parametrize("template", ["plain", "photo", "ensemble", "a drawing of a {}"])
def test_named_templates_mean_their_sentences(fitted, offline, braincorl, tmp_path, template):
    weights = ("--weights", offline / "offline-clip.pt")
    asked = ("face", "house", *weights, "--template", template, "--output-dir", tmp_path / "q")
    result = braincorl("query", fitted, *asked)
    assert result.status == 0, result.err
    words = tmp_path / "words.npz"
    embed = ("--text", "face", "house", "--template", template, "--backbone", NAME, *weights, "--output", words)
    result = braincorl("embed", *embed)
    assert result.status == 0, result.err
    assert load_features(words).provenance["templates"] == text_features(tmp_path / "q")["templates"]


def change_provenance(fit, copy, **changes):
    shutil.copytree(fit, copy)
    config = json.loads((copy / "config.json").read_text())
    stated = {**config["features_provenance"], **changes}
    config["features_provenance"] = {key: value for key, value in stated.items() if value is not None}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_features_that_do_not_keep_the_name_are_queried_with_backbone(fitted, offline, braincorl, tmp_path):
    old = change_provenance(fitted, tmp_path / "old", made_by=None)
    asked = ("query", old, "face", "--output-dir", tmp_path / "q")
    result = braincorl(*asked)
    assert result.status == 2
    assert "weights file 'offline-clip.pt': pass it as --weights, and as --backbone" in result.err
    weights = ("--weights", offline / "offline-clip.pt")
    result = braincorl(*asked, *weights)
    assert (result.status, "say whose weights these are" in result.err) == (2, True)
    result = braincorl(*asked, *weights, "--backbone", NAME)
    assert result.status == 0, result.err


@pytest.mark.parametrize("seed", [1, 5])
def test_weights_of_another_network_are_refused_when_queried(fitted, offline, braincorl, tmp_path, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.save(open_clip.create_model("offline-clip", pretrained=None).state_dict(), tmp_path / "other.pt")
    result = braincorl("query", fitted, "face", "--weights", tmp_path / "other.pt", "--output-dir", tmp_path / "q")
    assert result.status == 2
    assert "weights 'other.pt' but the fit in" in result.err
    assert not (tmp_path / "q").exists()


def test_weights_that_lack_some_and_have_others_show_both_sides(offline, braincorl, tmp_path):
    state = torch.load(offline / "offline-clip.pt", weights_only=True)
    state["stranger"] = state.pop("text_projection")
    torch.save(state, tmp_path / "mixed.pt")
    embed = ("--text", "face", "--backbone", NAME, "--weights", tmp_path / "mixed.pt", "--output", tmp_path / "w.npz")
    result = braincorl("embed", *embed)
    assert result.status == 2
    assert "missing: 1 weights, such as 'text_projection'; unexpected: 1 weights, such as 'stranger'" in result.err


def test_a_user_without_a_home_has_weights_all_the_same(tmp_path, monkeypatch):
    """As in a container that runs under a number which no list of users knows."""
    pwd = pytest.importorskip("pwd")

    def nobody(_number):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    (tmp_path / "n.pt").write_bytes(b"x")
    assert local_weights(tmp_path / "n.pt") == tmp_path / "n.pt"
    with pytest.raises(InputError, match="downloads are off"):
        find_published(Published("n", "", ["n.pt"], "https://example.org/n.pt"), offline=True)
