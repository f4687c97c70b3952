"""Weights that are not there, damaged, or would run code: one line each, and no use of the network."""

import pickle
import socket
import warnings

import pytest
import torch
from huggingface_hub import constants

from braincorl.errors import FileFormatError, InputError
from braincorl.features import ImageEmbedder
from braincorl.features.backbones.weights import Published, find_published, is_offline, local_weights, weights_hash


def test_the_network_is_off():
    with pytest.raises(AssertionError, match="use the network"):
        socket.create_connection(("localhost", 1))


SOURCE = Published("net/tag", "someone/net", ["model.safetensors", "model.bin"], "https://example.org/net-0123abcd.pth")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize("offline", [True, None])
def test_missing_weights_are_told_with_places_and_remedy(offline, caches):
    with pytest.raises(InputError) as caught:
        find_published(SOURCE, offline)
    line = str(caught.value)
    assert "\n" not in line
    for part in ("net/tag", "hub", "checkpoints", "model.safetensors or model.bin", "huggingface.co/someone/net"):
        assert part in line
    assert ("downloads are off" in line) == (offline is True)


def test_weights_in_torchs_cache_are_found(caches):
    folder = caches / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "net-0123abcd.pth").write_bytes(b"x")
    assert find_published(SOURCE, offline=True) == folder / "net-0123abcd.pth"


def test_weights_in_the_hubs_cache_are_found(caches):
    snapshot = caches / "hub" / "models--someone--net" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.bin").write_bytes(b"x")
    refs = caches / "hub" / "models--someone--net" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert find_published(SOURCE, offline=True) == snapshot / "model.bin"


def test_offline_is_as_said_or_as_the_environment_says(monkeypatch):
    assert not is_offline(None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert is_offline(None)
    assert not is_offline(False)


@pytest.mark.parametrize("backbone", ["clip-vit-b32", "timm:resnet18", "dinov2-vit-b14"])
def test_published_weights_that_are_not_there_end_in_one_line(backbone, caches):
    with pytest.raises(InputError, match=r"are not in .* pass the file as weights") as caught:
        ImageEmbedder(backbone, offline=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-33/openai", "did you mean ViT-B-32"),
        ("open_clip:ViT-B-32/nobody", "its tags are openai, laion400m_e31"),
        ("timm:resnt18", "did you mean resnet18"),
        ("timm:resnet18.nobody", "its tags are a1_in1k"),
        ("resnet18", "backbone 'resnet18' is unknown"),
        ("timm:", "is unknown"),
    ],
)
def test_unknown_names_come_with_the_known_ones(name, message):
    with pytest.raises(InputError, match=message):
        ImageEmbedder(name)


def test_a_folder_with_one_file_stands_for_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds no weights file"):
        local_weights(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"x")
    assert local_weights(tmp_path).name == "model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert local_weights(tmp_path).name == "model.safetensors"
    (tmp_path / "more.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="holds 2 weights files"):
        local_weights(tmp_path)


class Harmful:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize("backbone", ["timm:test_resnet", "open_clip:tiny-clip"])
def test_damaged_and_harmful_files_are_refused(backbone, tiny_clip, tmp_path, capsys):
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "junk.pt").write_bytes(b"junk")  # its first byte is an unpickler's command without its operand
    (tmp_path / "noise.safetensors").write_bytes(b"\1\2\3" * 50)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"w": Harmful()}, protocol=2))
    torch.save({"w": Harmful()}, tmp_path / "harmful.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript is on its way out; its files are still around
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pt")
    for name in ("empty.pt", "junk.pt", "noise.safetensors", "pickle.pt", "harmful.pt", "list.pt", "script.pt"):
        with pytest.raises(FileFormatError, match=name) as caught:
            ImageEmbedder(backbone, weights=tmp_path / name)
        assert "\n" not in str(caught.value)
    assert "code was run" not in capsys.readouterr().out
    for name, message in (("w.onnx", "no such file"), ("list.txt", "must be a weights file")):
        (tmp_path / "list.txt").write_text("x")
        with pytest.raises(InputError, match=message):
            ImageEmbedder(backbone, weights=tmp_path / name)


def test_the_hash_sees_every_bit_and_name():
    torch.manual_seed(0)
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    assert weights_hash(first) == weights_hash(second)
    with torch.no_grad():
        second.bias[1] = torch.nextafter(second.bias[1], torch.tensor(9.0))
    assert weights_hash(first) != weights_hash(second)
    assert weights_hash(torch.nn.Sequential(first)) != weights_hash(first)
