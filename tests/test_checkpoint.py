import dataclasses
import hashlib
import os
import pickle

import numpy as np
import pytest
import torch
from published import TINY, golden_inputs, make_context, make_network
from safetensors.torch import load_file, save_file

from braincorl.checkpoint import KIND, convert_reference_checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.models import ReferenceConfig
from braincorl.storage.tensorfile import write_tensors


@pytest.fixture(scope="module")
def state():
    return make_network(TINY, torch.float32).state_dict()


def saved(tmp_path, content, name="authors.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def lightning(state, prefix="model."):
    """The shape of a Lightning checkpoint: prefixed names beside hyper-parameters and the optimiser."""
    return {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "2.2.0",
        "state_dict": {prefix + name: tensor for name, tensor in state.items()},
        "hyper_parameters": {"lr": 1e-3, "sizes": [512, 560]},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    }


def test_both_shapes_of_the_authors_file_convert_to_the_same_network(tmp_path, state):
    context = make_context(TINY.n_features, 9, n_voxels=3)
    expected = make_network(TINY, torch.float32)(*context)
    contents = [state, {"state_dict": state}, lightning(state), lightning(state, "net._orig_mod.")]
    for i, content in enumerate(contents):
        source, output = saved(tmp_path, content), tmp_path / f"{i}.safetensors"
        convert_reference_checkpoint(source, output)
        for path in (source, output):
            network = load_checkpoint(path)
            assert network.config == TINY
            torch.testing.assert_close(network(*context), expected, rtol=0, atol=0)


def test_tensors_beside_the_network_are_left_out(tmp_path, state):
    content = lightning(state)
    content["state_dict"]["metric.total"] = torch.zeros(1)
    assert load_checkpoint(saved(tmp_path, content)).config == TINY


@pytest.mark.parametrize(
    ("kind", "kept"),
    [(torch.float64, torch.float64), (torch.float16, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_precision_of_the_file(tmp_path, state, kind, kept):
    source = saved(tmp_path, {name: tensor.to(kind) for name, tensor in state.items()})
    convert_reference_checkpoint(source, tmp_path / "x.safetensors")
    assert load_checkpoint(tmp_path / "x.safetensors").cls_token.dtype == kept


def test_the_header_says_what_and_whence(tmp_path, state):
    source = saved(tmp_path, state, "CLIP_trained_on_s125.pth")
    header = convert_reference_checkpoint(source, tmp_path / "x.safetensors")
    assert header["config"]["n_features"] == 6
    assert header["backbone"] == "unknown"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert header["source"] == {"name": "CLIP_trained_on_s125.pth", "sha256": digest}
    assert read_checkpoint(tmp_path / "x.safetensors")[1] == header


@pytest.mark.parametrize(("size", "backbone"), [("clip", "CLIP ViT-B/16"), ("dino", "DINO"), ("siglip", "SigLIP")])
def test_published_sizes_are_recognised(tmp_path, size, backbone):
    config = dataclasses.replace(getattr(ReferenceConfig, size)(), n_layers=1)
    source = saved(tmp_path, make_network(config, torch.float32).state_dict())
    header = convert_reference_checkpoint(source, tmp_path / "x.safetensors")
    assert header["backbone"] == backbone
    assert load_checkpoint(tmp_path / "x.safetensors").config == config


def test_a_converted_file_gives_the_golden_outputs(published, tmp_path):
    source = saved(tmp_path, published.network("vis").state_dict())
    convert_reference_checkpoint(source, tmp_path / "x.safetensors")
    features, responses, _ = golden_inputs(512, 30)
    golden = published.golden["vis_n30_weights"]
    weights = load_checkpoint(tmp_path / "x.safetensors")(features, responses).numpy()
    assert np.linalg.norm(weights - golden) <= 1e-9 * np.linalg.norm(golden)


def test_a_saved_network_is_read_as_it_was(tmp_path, state):
    network = make_network(TINY, torch.float32)
    save_checkpoint(tmp_path / "x.safetensors", network, {"backbone": "mine"})
    again, header = read_checkpoint(tmp_path / "x.safetensors")
    assert header == {"architecture": "reference", "config": dataclasses.asdict(TINY), "backbone": "mine"}
    assert not any(parameter.requires_grad for parameter in again.parameters())
    for name, tensor in again.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


# -- files that must not be taken --------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.mark.parametrize("protocol", ["torch", "bare pickle"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path, state, protocol):
    path = tmp_path / "evil.pth"
    content = {**state, "extra": Malicious(f"touch {tmp_path / 'ran'}")}
    if protocol == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["extra"]))
    for attempt in (load_checkpoint, lambda p: convert_reference_checkpoint(p, tmp_path / "x.safetensors")):
        with pytest.raises(FileFormatError) as caught:
            attempt(path)
        assert "\n" not in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evil.pth"]


def test_objects_that_could_run_code_are_named_as_the_reason(tmp_path, state):
    with pytest.raises(FileFormatError, match="reading that could run code"):
        load_checkpoint(saved(tmp_path, {**state, "extra": Malicious("true")}))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("converted", [False, True])
def test_truncated_files(tmp_path, state, keep, converted):
    path = saved(tmp_path, state)
    if converted:
        convert_reference_checkpoint(path, tmp_path / "x.safetensors")
        path = tmp_path / "x.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(FileFormatError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(tmp_path, state):
    convert_reference_checkpoint(saved(tmp_path, state), tmp_path / "x.safetensors")
    data = bytearray((tmp_path / "x.safetensors").read_bytes())
    data[-100] ^= 1
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(FileFormatError, match="fails its checksum"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_other_safetensors_files(tmp_path, state):
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match="another program"):
        load_checkpoint(tmp_path / "other.safetensors")
    with pytest.raises(FileFormatError, match="is a safetensors file"):
        convert_reference_checkpoint(tmp_path / "other.safetensors", tmp_path / "x.safetensors")
    assert load_file(tmp_path / "other.safetensors").keys() == state.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: t for n, t in s.items() if n != "transformer.1.attn.out_proj.bias"}, "out_proj.bias is missing"),
        (lambda s: {**s, "head.weight": torch.zeros(2)}, "head.weight is not part of the network"),
        (lambda s: {**s, "transformer.2.layer_norm_2.bias": torch.zeros(3)}, r"\(3,\) instead of \(20,\)"),
        (lambda s: {**s, "cls_token": torch.zeros(1, 4, 21)}, "other names or shapes"),
        (lambda s: {**s, "cls_token": torch.full((1, 4, 20), torch.nan)}, "NaN or infinity in 'cls_token'"),
        (lambda s: {**s, "cls_token": torch.zeros(1, 4, 20, dtype=torch.int64)}, "no floating-point tensor"),
        (lambda s: {"layer1.weight": torch.zeros(2, 2)}, "another model"),
        (lambda s: [1, 2, 3], "holds a list"),
        (lambda s: torch.zeros(3), "holds a Tensor"),
    ],
)
def test_other_networks(tmp_path, state, change, message):
    source = saved(tmp_path, change(state))
    with pytest.raises(FileFormatError, match=message):
        convert_reference_checkpoint(source, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "native"}, "of the kind 'native', which this version cannot run"),
        ({"architecture": None}, "of the kind None"),
        ({"config": {}}, "does not describe its network"),
        ({"config": {"n_features": 6, "width": 7}}, "does not describe its network .width must be a multiple"),
        ({"config": {"depth": 2}}, "does not describe its network"),
        ({"config": {"n_features": 6, "width": 20}}, "does not hold the network that it describes"),
    ],
)
def test_files_of_other_networks_of_this_program(tmp_path, state, change, message):
    header = {"architecture": "reference", "config": dataclasses.asdict(TINY)} | change
    write_tensors(tmp_path / "x.safetensors", KIND, {name: tensor.numpy() for name, tensor in state.items()}, header)
    with pytest.raises(FileFormatError, match=message) as caught:
        load_checkpoint(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


def test_the_native_transformer_has_no_checkpoint():
    with pytest.raises(InputError, match="nothing is trained"):
        load_checkpoint("default")


def test_paths_that_cannot_be(tmp_path, state):
    with pytest.raises(InputError, match="does not exist"):
        load_checkpoint(tmp_path / "absent.pth")
    source = saved(tmp_path, state)
    with pytest.raises(InputError, match="is the file to convert"):
        convert_reference_checkpoint(source, source)
    with pytest.raises(OutputError):
        convert_reference_checkpoint(source, tmp_path / "no such folder" / "x.safetensors")
