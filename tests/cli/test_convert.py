import json

import numpy as np
import pytest
import torch
from published import make_network

from braincorl import load_checkpoint
from braincorl.cli.main import main
from braincorl.encoders import load_encoder
from braincorl.features import FeatureTable, save_features
from braincorl.models import ReferenceConfig


@pytest.fixture(scope="module")
def network():
    """A network of the published architecture for the simulated people's 24 features."""
    return make_network(ReferenceConfig(24, 20, n_layers=2, ffn_width=8), torch.float32)


@pytest.fixture(scope="module")
def reference(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("authors") / "trained_on_s125.pth"
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in network.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module")
def inputs(world, tmp_path_factory):
    """Arguments that name a simulated person's features, betas, trials and mask."""
    folder = tmp_path_factory.mktemp("inputs")
    paths = world.people[0].write(folder)
    features = world.features / np.linalg.norm(world.features, axis=1, keepdims=True)
    save_features(folder / "features.npz", FeatureTable(features, world.image_ids, {"normalized": True}))
    named = {"features": folder / "features.npz", **{name: paths[name] for name in ("betas", "trials", "mask")}}
    return [str(part) for name, path in named.items() for part in (f"--{name}", path)]


def test_convert_writes_the_same_network(reference, network, tmp_path, capsys):
    output = tmp_path / "x.safetensors"
    assert main(["convert", str(reference), "--output", str(output)]) == 0
    assert "published network for unknown features (24), 2 layers of width 20" in capsys.readouterr().out
    assert torch.equal(load_checkpoint(output).cls_token, network.cls_token)
    assert main(["convert", str(reference), "--output", str(output)]) == 2
    assert "exists: choose another name, or pass --overwrite" in capsys.readouterr().err
    assert main(["convert", str(reference), "--output", str(output), "--overwrite"]) == 0


def test_convert_refuses_in_one_line(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    assert main(["convert", str(tmp_path / "bad.pth"), "--output", str(tmp_path / "x.safetensors")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


def test_fit_with_the_network(reference, inputs, tmp_path, capsys):
    arguments = ["fit", *inputs, "--encoder", "in-context", "--checkpoint", str(reference), "--device", "cpu"]
    fit = tmp_path / "fit"
    assert main([*arguments, "--n-context", "30", "--precision", "float32", "--output-dir", str(fit)]) == 0
    assert "in-context encoder" in capsys.readouterr().out
    encoder = load_encoder(fit / "encoder.safetensors")
    assert encoder.coef_.shape[1] == 24
    assert encoder.provenance_["network"]["source"]["name"] == "trained_on_s125.pth"
    assert encoder.provenance_["network"]["precision"] == "float32"
    assert json.loads((fit / "config.json").read_text())["checkpoint"] == str(reference)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encoder", "in-context", "--checkpoint", "absent.pth"], "absent.pth does not exist"),
        (["--encoder", "ridge", "--device", "cpu"], "--device is an option of --encoder in-context"),
    ],
)
def test_options_of_the_network_are_checked_first(inputs, tmp_path, capsys, arguments, message):
    assert main(["fit", *inputs, *arguments, "--output-dir", str(tmp_path / "fit")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "fit").exists()
