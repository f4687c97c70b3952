"""Memories and networks by name: those that come with the package, in folders, and on a hub (a local server)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import COMMIT, local_hub
from published import TINY, make_network

import braincorl
from braincorl import GroupPrior, InContextEncoder, find_pretrained, load_pretrained, pretrained_names, save_pretrained
from braincorl.checkpoint import KIND as CHECKPOINT_KIND
from braincorl.checkpoint import save_checkpoint
from braincorl.encoders.pretrained import NETWORK
from braincorl.errors import FileFormatError, InputError
from braincorl.models import ReferenceTransformer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def memory(tmp_path, rng):
    """File of a small memory."""
    people = [(rng.standard_normal((30, 4)), rng.standard_normal((30, 9))) for _ in range(2)]
    GroupPrior.fit(people).save(tmp_path / "memory.safetensors")
    return tmp_path / "memory.safetensors"


@pytest.fixture
def network(tmp_path):
    """File of a small network of the published architecture."""
    save_checkpoint(tmp_path / "network.safetensors", make_network(TINY), {"backbone": "none"})
    return tmp_path / "network.safetensors"


@pytest.fixture
def hub(tmp_path, memory, monkeypatch):
    """A local hub with a memory, `lab/memory`, and an empty cache: the folder that it serves, and what was asked."""
    from huggingface_hub import constants

    save_pretrained(memory, tmp_path / "served" / "lab" / "memory", card="# A memory", license_="mit")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with local_hub(tmp_path / "served") as (address, asked):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield tmp_path / "served" / "lab", asked


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


def test_names_list_what_comes_with_the_package_each_with_its_hash_and_card():
    assert pretrained_names() == ("bold5000-resnet18",)
    for name in pretrained_names():
        found = find_pretrained(name)
        assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
        assert found.card == (ROOT / "encoders" / name / "README.md").read_text(encoding="utf-8")
        assert "MIT licence" in found.card
        np.testing.assert_array_equal(load_pretrained(name).weights, GroupPrior.load(name).weights)


def test_a_memory_and_a_network_come_back_from_a_folder_with_hash_and_card(memory, network, tmp_path):
    for file in (memory, network):
        folder = save_pretrained(file, tmp_path / file.stem, card="# What it is\n\nLimits.", license_="cc0-1.0")
        assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
        found = find_pretrained(folder)
        assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert "license: cc0-1.0" in found.card
        assert found.card.endswith("Limits.\n")
        with pytest.raises(braincorl.errors.OutputError):
            save_pretrained(file, folder, card="another", license_="mit")
    assert NETWORK == CHECKPOINT_KIND
    loaded = load_pretrained(tmp_path / "network")
    assert isinstance(loaded, ReferenceTransformer)
    for name, tensor in make_network(TINY).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    np.testing.assert_array_equal(load_pretrained(tmp_path / "memory").moment, GroupPrior.load(memory).moment)


def test_a_memory_is_fetched_from_a_hub_once_and_then_kept(hub, memory):
    _, asked = hub
    expected = GroupPrior.load(memory)
    found = find_pretrained("hub:lab/memory")
    assert COMMIT in str(found.path)
    assert "# A memory" in found.card
    np.testing.assert_array_equal(load_pretrained("hub:lab/memory").weights, expected.weights)
    assert sum(method == "GET" for method, _ in asked) == 3  # each file once
    asked.clear()
    np.testing.assert_array_equal(load_pretrained("hub:lab/memory", offline=True).weights, expected.weights)
    assert asked == []
    assert load_pretrained("hub:lab/memory@v1").weights.shape == expected.weights.shape
    # And wherever a memory is named.
    np.testing.assert_array_equal(GroupPrior.load("hub:lab/memory").weights, expected.weights)


def test_names_reach_encoders(hub, network, tmp_path, rng):
    served, _ = hub
    save_pretrained(network, served / "network", card="# A network", license_="mit")
    X, y = rng.standard_normal((20, TINY.n_features)), rng.standard_normal((20, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    by_name = InContextEncoder(checkpoint="hub:lab/network", device="cpu").fit(X, y)
    by_file = InContextEncoder(checkpoint=network, device="cpu").fit(X, y)
    np.testing.assert_array_equal(by_name.coef_, by_file.coef_)


def test_a_file_of_another_hash_is_refused_in_one_line(hub, memory, tmp_path):
    with pytest.raises(FileFormatError) as error:
        load_pretrained("hub:lab/memory", sha256="ab" * 32)
    one_line(error, "hub:lab/memory", "has the SHA-256", "expected abababababab", "get a new copy")
    with pytest.raises(FileFormatError, match=r"expected abab"):
        load_pretrained(memory, sha256="ab" * 32)
    assert load_pretrained(memory, sha256=hashlib.sha256(memory.read_bytes()).hexdigest().upper())
    # One that was replaced after its hash was stated; a memory that is whole, but another.
    folder = save_pretrained(memory, tmp_path / "folder", card="# A memory", license_="mit")
    rng = np.random.default_rng(5)
    GroupPrior.fit([(rng.standard_normal((9, 4)), rng.standard_normal((9, 5)))]).save(folder / "model.safetensors")
    with pytest.raises(FileFormatError) as error:
        load_pretrained(folder)
    one_line(error, str(folder), "has the SHA-256", "altered, damaged or replaced")


def test_what_is_not_there_is_refused_in_one_line(hub, memory, network, tmp_path):
    served, _ = hub
    for name, words in {
        "hub:lab/nobody": ("hub:lab/nobody could not be had", "Repository Not Found"),
        "hub:lab/memory@v9": ("could not be had", "Revision Not Found"),
        "hub:memory": ("expected hub:OWNER/NAME",),
        "hub:../../etc@x y": ("expected hub:OWNER/NAME",),
        "bold5000": ("neither a file nor a shipped name", "bold5000-resnet18", "hub:OWNER/NAME"),
        str(tmp_path): ("holds no model.safetensors",),
    }.items():
        with pytest.raises(InputError) as error:
            load_pretrained(name)
        one_line(error, *words)
    with pytest.raises(InputError) as error:
        load_pretrained("hub:lab/other", offline=True)
    one_line(error, "downloads are off", "fetch it where there is a network")
    (served / "memory" / "config.json").write_text(json.dumps({"format": "braincorl-prior/2"}))
    with pytest.raises(FileFormatError, match="does not state the sha256"):
        load_pretrained(served / "memory")


def test_what_cannot_be_read_by_others_is_not_laid_out(memory, tmp_path):
    for options, message in (
        ({"card": " ", "license_": "mit"}, "card is empty"),
        ({"card": "# A", "license_": "free for all"}, "expected one word"),
    ):
        with pytest.raises(InputError, match=message):
            save_pretrained(memory, tmp_path / "out", **options)
    (tmp_path / "bad.safetensors").write_bytes(memory.read_bytes()[:-5])
    with pytest.raises(FileFormatError):
        save_pretrained(tmp_path / "bad.safetensors", tmp_path / "out", card="# A", license_="mit")
    assert not (tmp_path / "out").exists()
