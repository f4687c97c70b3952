import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from braincorl import InContextEncoder, load_checkpoint
from braincorl.checkpoint import read_checkpoint
from braincorl.cli.main import main
from braincorl.errors import FileFormatError, InputError
from braincorl.training.loop import CHECKPOINT, train
from braincorl.training.recipe import read_recipe
from braincorl.training.state import LOG, STATE

NATIVE = """
architecture = "native"
seed = 3
n_validation = 4
[network]
width = 16
depth = 1
[[stages]]
name = "synthetic"
people = {people}
people_per_step = 4
learning_rate = 5e-3
validate_every = 4
[stages.world]
n_images = [4, 20]
n_query = 16
n_voxels = [8, 32]
n_features = [4, 16]
"""


@pytest.fixture
def recipe(tmp_path):
    def write(text=NATIVE, people=32, name="recipe.toml"):
        path = tmp_path / name
        path.write_text(text.format(people=people))
        return path

    return write


def weights(folder):
    return load_checkpoint(folder / CHECKPOINT).state_dict()


def assert_same(first, second, **tolerance):
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}))


def test_a_run_gives_a_network_that_fits_people(recipe, tmp_path):
    path = train(read_recipe(recipe()), tmp_path / "run", n_workers=0)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 5)), rng.standard_normal((12, 3))
    assert InContextEncoder(path).fit(X, y).coef_.shape == (3, 5)
    _, header = read_checkpoint(path)
    assert header["training"]["people"] == 32
    assert header["backbone"] == "any"
    lines = (tmp_path / "run" / LOG).read_text().splitlines()
    assert lines[0].split("\t")[:4] == ["stage", "step", "loss", "network"]
    assert {"cross-validated ridge", "Bayesian ridge", "own-voxels"} <= set(lines[0].split("\t"))
    assert len(lines) == 3


def test_training_learns(recipe, tmp_path):
    """On the fixed validation people, some hundred episodes beat the start, which is Bayesian ridge."""
    text = NATIVE.replace("n_validation = 4", "n_validation = 16").replace("validate_every = 4", "validate_every = 40")
    train(read_recipe(recipe(text, people=320)), tmp_path / "run", n_workers=0)
    table = [line.split("\t") for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    last = dict(zip(table[0], table[-1], strict=True))
    assert float(last["network"]) > float(last["Bayesian ridge"]) + 0.002


def test_same_seed_same_network_and_workers_change_nothing(recipe, tmp_path):
    path = recipe()
    train(read_recipe(path), tmp_path / "one", n_workers=0)
    train(read_recipe(path), tmp_path / "two", n_workers=2)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    other = recipe(NATIVE.replace("seed = 3", "seed = 4"), name="other.toml")
    train(read_recipe(other), tmp_path / "three", n_workers=0)
    assert not torch.equal(weights(tmp_path / "three")["name"], weights(tmp_path / "one")["name"])


def test_a_killed_run_goes_on_to_the_same_network(recipe, tmp_path):
    path = recipe(people=160)
    train(read_recipe(path), tmp_path / "whole", n_workers=0)
    command = [sys.executable, "-m", "braincorl", "train", str(path), "--workers", "0", "--device", "cpu"]
    command += ["--output-dir", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / STATE).is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (tmp_path / "killed" / STATE).is_file()
    assert not (tmp_path / "killed" / CHECKPOINT).exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert "going on at stage 1" in done.stderr
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "killed"), rtol=0, atol=0)


def test_two_processes_give_the_network_of_one(recipe, tmp_path):
    """PyTorch's own launcher and its gloo engine, two processes on this machine."""
    path = recipe()
    train(read_recipe(path), tmp_path / "one", n_workers=0)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "--local-addr=127.0.0.1",
    ]
    command += ["-m", "braincorl", "train", str(path), "--workers", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [*command, "--output-dir", str(tmp_path / "two")], env=environment, check=True, capture_output=True, timeout=240
    )
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"), rtol=1e-3, atol=1e-4)


def test_real_people_and_early_stopping(recipe, tmp_path):
    """SIMULATION in the place of measured people: three stages of learning end on a held-out person."""
    rng = np.random.default_rng(0)
    X, directions = rng.standard_normal((60, 8)), rng.standard_normal((8, 2))
    np.savez(tmp_path / "features.npz", features=X, image_ids=[f"i{i}" for i in range(60)])
    for number in range(3):
        y = X @ directions @ rng.standard_normal((2, 20)) + 2 * rng.standard_normal((60, 20))
        np.save(tmp_path / f"person{number}.npy", y)
    stage = """
[[stages]]
name = "real"
people = 64
people_per_step = 4
learning_rate = 1e-3
validate_every = 2
patience = 2
[stages.real]
features = "features.npz"
responses = ["person0.npy", "person1.npy"]
held_out = ["person2.npy"]
n_images = [5, 20]
n_query = 16
"""
    path = train(read_recipe(recipe(NATIVE + stage)), tmp_path / "run", n_workers=0)
    rows = [line.split("\t") for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    real = [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row[0] == "real"]
    assert 1 <= len(real) <= 8
    best = max(real, key=lambda row: float(row["network"]))
    # The network of the best validation is the one that is kept.
    assert load_checkpoint(path) is not None
    assert float(best["network"]) >= float(real[-1]["network"])


def test_the_published_architecture_is_trained_too(recipe, tmp_path):
    text = """
architecture = "reference"
n_validation = 2
[network]
n_features = 6
width = 20
n_layers = 1
n_heads = 2
ffn_width = 16
n_learned_tokens = 2
[[stages]]
name = "synthetic"
people = {people}
people_per_step = 2
learning_rate = 1e-3
weight_decay = 0.1
validate_every = 2
[stages.world]
n_images = [4, 10]
n_query = 8
n_voxels = [4, 8]
n_features = [6, 6]
"""
    path = train(read_recipe(recipe(text, people=8)), tmp_path / "run", n_workers=0)
    network = load_checkpoint(path)
    assert network.config.n_features == 6
    lines = (tmp_path / "run" / LOG).read_text().splitlines()
    assert "cross-validated ridge" in lines[0]


def test_bfloat16_trains(recipe, tmp_path):
    train(read_recipe(recipe(people=8)), tmp_path / "run", n_workers=0, precision="bfloat16")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_the_recipe_of_the_shipped_network_is_the_one_in_its_header():
    _, header = read_checkpoint("default")
    recipe = read_recipe("encoders/native-2026-11/recipe.toml")
    assert header["training"]["digest"] == recipe.digest


MISTAKES = {
    "an unknown key": (NATIVE.replace("depth = 1", "dept = 1"), "'dept' is unknown"),
    "an unknown architecture": (NATIVE.replace('"native"', '"perceptron"'), "must be one of native, reference"),
    "no stages": ('architecture = "native"', r"no \[\[stages\]\]"),
    "no TOML": ("a = = 1", "is no TOML"),
    "too few people": (NATIVE.replace("people = {people}", "people = 2"), "fewer than one step"),
    "a wrong type": (NATIVE.replace("people = {people}", 'people = "many"'), "wrong type"),
    "a missing prior": ('priors = ["nosuch"]\n' + NATIVE, "nosuch is neither a file nor a shipped prior"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case, recipe, capsys):
    text, message = MISTAKES[case]
    assert main(["train", str(recipe(text))]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_other_runs_and_damaged_states_are_refused(recipe, tmp_path):
    train(read_recipe(recipe()), tmp_path / "run", n_workers=0)
    with pytest.raises(InputError, match="another recipe"):
        train(read_recipe(recipe(people=64, name="other.toml")), tmp_path / "run", n_workers=0)
    (tmp_path / "run" / STATE).write_bytes(b"damaged")
    with pytest.raises(FileFormatError, match="is damaged"):
        train(read_recipe(recipe()), tmp_path / "run", n_workers=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert main(["train", str(recipe()), "--output-dir", str(tmp_path / "mine")]) == 2
