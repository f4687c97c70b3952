import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from braincorl import GroupPrior, InContextEncoder, load_checkpoint
from braincorl.checkpoint import read_checkpoint
from braincorl.cli.main import main
from braincorl.errors import FileFormatError, InputError
from braincorl.models import ReferenceConfig
from braincorl.training.loop import CHECKPOINT, train
from braincorl.training.processes import Processes
from braincorl.training.recipe import Recipe, StageConfig, read_recipe
from braincorl.training.state import LOG, STATE

TINY = """
architecture = "reference"
seed = 3
n_validation = 4
[network]
n_features = 8
width = 8
n_layers = 1
n_heads = 2
ffn_width = 16
n_learned_tokens = 2
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
"""


REAL = """
[[stages]]
name = "real"
people = 32
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


def write_people(folder, seed=0, only=None):
    """SIMULATION in the place of measured people: features of 60 images, responses of three people."""
    rng = np.random.default_rng(seed)
    X, directions = rng.standard_normal((60, 8)), rng.standard_normal((8, 2))
    if only in (None, "features.npz"):
        np.savez(folder / "features.npz", features=X, image_ids=[f"i{i}" for i in range(60)])
    for number in range(3):
        y = X @ directions @ rng.standard_normal((2, 20)) + 2 * rng.standard_normal((60, 20))
        if only in (None, f"person{number}.npy"):
            np.save(folder / f"person{number}.npy", y)


@pytest.fixture
def recipe(tmp_path):
    def write(text=TINY, people=32, name="recipe.toml"):
        path = tmp_path / name
        path.write_text(text.format(people=people))
        return path

    return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a recipe and its run, by a caller of one thread."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "recipe.toml").write_text(TINY.format(people=64))
    with threadpool_limits(1):
        train(read_recipe(folder / "recipe.toml"), folder / "run", n_workers=0)
    return folder


def weights(folder):
    return load_checkpoint(folder / CHECKPOINT).state_dict()


def assert_same(first, second, **tolerance):
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, **(tolerance or {"rtol": 0, "atol": 0}))


def test_a_run_gives_a_network_that_fits_people(whole):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 8)), rng.standard_normal((12, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    encoder = InContextEncoder(whole / "run" / CHECKPOINT)
    assert encoder.fit(X, y).coef_.shape == (3, 8)
    with pytest.raises(InputError, match="reads 8"):
        encoder.fit(np.ones((12, 5)), y)
    _, header = read_checkpoint(whole / "run" / CHECKPOINT)
    assert header["training"]["people"] == 64
    assert header["inputs"] == {"features": "unit norm", "responses": "z-scored"}
    lines = (whole / "run" / LOG).read_text().splitlines()
    assert lines[0].split("\t") == ["stage", "step", "loss", "network", "cross-validated ridge"]
    assert len(lines) == 5


def test_training_learns(recipe, tmp_path):
    """On the fixed validation people, whose signals point anywhere: only who reads the context explains any of them."""
    text = TINY.replace("n_features = 8", "n_features = 2").replace("n_validation = 4", "n_validation = 12")
    text = (
        text.replace("validate_every = 4", "validate_every = 20").replace("5e-3", "1e-2").replace("[4, 20]", "[20, 20]")
    )
    train(read_recipe(recipe(text + "brain_like = 0.0\n", people=240)), tmp_path / "run", n_workers=0)
    table = [line.split("\t") for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    scores = [dict(zip(table[0], row, strict=True)) for row in table[1:]]
    assert float(scores[-1]["network"]) > max(0.1, float(scores[0]["network"]))
    assert float(scores[-1]["loss"]) < 0.75 * float(scores[0]["loss"])


def test_same_seed_same_network_whatever_the_workers_and_the_callers_threads(whole, recipe, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # which PyTorch's own linear algebra keeps to, whatever threadpoolctl says
        with threadpool_limits(4):
            train(read_recipe(whole / "recipe.toml"), tmp_path / "two", n_workers=2)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert_same(weights(whole / "run"), weights(tmp_path / "two"))
    other = recipe(TINY.replace("seed = 3", "seed = 4"), people=8)
    train(read_recipe(other), tmp_path / "three", n_workers=0)
    assert not torch.equal(weights(tmp_path / "three")["cls_token"], weights(whole / "run")["cls_token"])


def test_a_killed_run_goes_on_to_the_same_network(whole, tmp_path, caplog):
    """The process is killed as it stands once it has saved; this one goes on."""
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "braincorl", "train", str(whole / "recipe.toml"), "--workers", "0"]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--output-dir", str(folder)], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (folder / STATE).is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / STATE).is_file()
    assert not (folder / CHECKPOINT).exists()
    caplog.set_level("INFO", logger="braincorl")
    train(read_recipe(whole / "recipe.toml"), folder, n_workers=0)
    assert "going on at stage 1" in caplog.text
    assert_same(weights(whole / "run"), weights(folder))


class StopError(Exception):
    pass


@pytest.mark.parametrize("last", [2, 7])
def test_log_and_checkpoint_do_not_tell_where_a_run_was_stopped(whole, tmp_path, last):
    """Stopped between validations: the losses of the steps before count in the next row, to the last bit."""

    def stop(done, _):
        if done > last:
            raise StopError

    recipe = read_recipe(whole / "recipe.toml")
    with pytest.raises(StopError):
        train(recipe, tmp_path, n_workers=0, save_seconds=0, progress=stop)
    assert torch.load(tmp_path / STATE)["state"]["step"] == last
    train(recipe, tmp_path, n_workers=0)
    for name in (LOG, CHECKPOINT):
        assert (tmp_path / name).read_bytes() == (whole / "run" / name).read_bytes()


def test_a_kill_between_the_last_state_and_its_log_leaves_no_log_behind(whole, tmp_path):
    """It leaves the state of a finished run, the log of a validation before, and a file half-way to its name."""
    shutil.copytree(whole / "run", tmp_path / "run")
    log = (tmp_path / "run" / LOG).read_text()
    (tmp_path / "run" / LOG).write_text("\n".join(log.splitlines()[:-1]) + "\n")
    (tmp_path / "run" / f".partial-0123456789-{LOG}").write_text(log)
    train(read_recipe(whole / "recipe.toml"), tmp_path / "run", n_workers=0)
    assert (tmp_path / "run" / LOG).read_text() == log
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in (whole / "run").iterdir()}


def test_two_processes_give_the_network_of_one(whole, tmp_path):
    """PyTorch's own launcher and its gloo engine, two processes on this machine."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        "--local-addr=127.0.0.1",
    ]
    command += ["-m", "braincorl", "train", str(whole / "recipe.toml"), "--workers", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [*command, "--output-dir", str(tmp_path / "two")], env=environment, check=True, capture_output=True, timeout=480
    )
    one, two = weights(whole / "run"), weights(tmp_path / "two")
    # The bias of keys adds the same to all logits of a query, so without effect: its gradient is rounding.
    for state in (one, two):
        state["transformer.0.attn.in_proj_bias"][8:16] = 0.0
    assert_same(one, two, rtol=1e-3, atol=1e-4)
    one, two = (read_checkpoint(folder / CHECKPOINT)[1]["training"] for folder in (whole / "run", tmp_path / "two"))
    assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-4)


def test_every_process_has_people_to_learn_from_and_to_judge_on(recipe, tmp_path, monkeypatch):
    """Otherwise one fails, and the others wait for it."""
    for count, message in ((3, "people_per_step is 4"), (8, "n_validation is 4, but must be at least 1 for each of")):
        monkeypatch.setattr(Processes, "current", lambda device, count=count: Processes(device, 0, count))
        with pytest.raises(InputError, match=message):
            train(read_recipe(recipe()), tmp_path / "run", n_workers=0)


def test_real_people_and_early_stopping(recipe, tmp_path):
    """SIMULATION in the place of measured people: three stages of learning end on a held-out person."""
    write_people(tmp_path)
    path = train(read_recipe(recipe(TINY + REAL, people=8)), tmp_path / "run", n_workers=0)
    rows = [line.split("\t") for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    real = [dict(zip(rows[0], row, strict=True)) for row in rows[1:] if row[0] == "real"]
    assert 1 <= len(real) <= 4
    best = max(real, key=lambda row: float(row["network"]))
    # The network of the best validation is the one that is kept.
    assert load_checkpoint(path) is not None
    assert float(best["network"]) >= float(real[-1]["network"])


def test_synthetic_people_see_real_images(recipe, tmp_path):
    write_people(tmp_path)
    text = TINY + 'features = ["features.npz"]\nreal_images = 1.0\n'
    train(read_recipe(recipe(text, people=8)), tmp_path / "one", n_workers=0)
    train(read_recipe(recipe(text, people=8)), tmp_path / "two", n_workers=1)
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    train(read_recipe(recipe(people=8)), tmp_path / "without", n_workers=0)
    assert not torch.equal(weights(tmp_path / "without")["cls_token"], weights(tmp_path / "one")["cls_token"])


def damage(path):
    path.write_bytes(path.read_bytes()[:100])


def several(path):
    np.savez(path.with_suffix(".npz"), a=np.ones(3))
    path.with_suffix(".npz").rename(path)


FILES = {
    "features of the first stage": ("images.npz", lambda path: path.unlink(), "images.npz does not exist"),
    "features of the last stage": ("features.npz", lambda path: path.unlink(), "features.npz does not exist"),
    "responses": ("person1.npy", lambda path: path.unlink(), "person1.npy does not exist"),
    "responses held out": ("person2.npy", damage, "person2.npy cannot be read"),
    "empty responses": ("person1.npy", lambda path: path.write_bytes(b""), "person1.npy is empty"),
    "many responses in one": ("person1.npy", several, "person1.npy cannot be read"),
    "responses that are words": (
        "person1.npy",
        lambda path: np.save(path, np.array(["a"])),
        "person1.npy cannot be read",
    ),
    "other images": ("person0.npy", lambda path: np.save(path, np.ones((3, 5))), "but there are 60 images"),
    "images of another backbone": (
        "images.npz",
        lambda path: np.savez(path, features=np.eye(60), image_ids=[f"i{i}" for i in range(60)]),
        "stage 'synthetic': .*images.npz has 60 features an image, but the network reads 8",
    ),
    "features of another backbone": (
        "features.npz",
        lambda path: np.savez(path, features=np.eye(60), image_ids=[f"i{i}" for i in range(60)]),
        "stage 'real': .*features.npz has 60 features an image, but the network reads 8",
    ),
    "too few images": (
        "images.npz",
        lambda path: np.savez(path, features=np.eye(5), image_ids=list("abcde")),
        "images.npz has 5 images",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_files_are_looked_for_before_anything_is_learned(case, recipe, tmp_path, capsys):
    name, change, message = FILES[case]
    write_people(tmp_path)
    (tmp_path / "images.npz").write_bytes((tmp_path / "features.npz").read_bytes())
    change(tmp_path / name)
    path = recipe(TINY + 'features = ["images.npz"]\n' + REAL)
    assert main(["train", str(path), "--output-dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_files(recipe, tmp_path):
    write_people(tmp_path)
    text = TINY + 'features = ["features.npz"]\n' + REAL
    before = read_recipe(recipe(text))
    digest = before.digest
    (tmp_path / "elsewhere").mkdir()
    write_people(tmp_path / "elsewhere")
    assert read_recipe(recipe(text, name="elsewhere/same.toml")).digest == digest

    def stop(done, _):
        if done > 1:
            raise StopError

    with pytest.raises(StopError):
        train(before, tmp_path / "run", n_workers=0, save_seconds=0, progress=stop)
    for name in ("features.npz", "person1.npy", "person2.npy"):
        write_people(tmp_path, seed=1, only=name)
        with pytest.raises(InputError, match="its files have changed"):
            train(read_recipe(recipe(text)), tmp_path / "run", n_workers=0)
        write_people(tmp_path, only=name)
    with pytest.raises(StopError):  # the same files again: it goes on
        train(read_recipe(recipe(text)), tmp_path / "run", n_workers=0, progress=stop)


def test_synthetic_people_are_like_those_of_a_prior(recipe, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 8))
    y = X @ rng.standard_normal((8, 30)) + rng.standard_normal((40, 30))
    GroupPrior.fit([(X, y)]).save(tmp_path / "prior.safetensors")
    text = 'priors = ["prior.safetensors"]\n' + TINY + "brain_like = 1.0\nfrom_prior = {share}\n"
    for share in ("1.0", "0.0"):
        train(read_recipe(recipe(text.replace("{share}", share), people=8)), tmp_path / share, n_workers=0)
    assert not torch.equal(weights(tmp_path / "1.0")["cls_token"], weights(tmp_path / "0.0")["cls_token"])
    digest = read_recipe(recipe(text.replace("{share}", "1.0"), people=8)).digest
    GroupPrior.fit([(X, y + X[:, :1])]).save(tmp_path / "prior.safetensors")
    assert read_recipe(recipe(text.replace("{share}", "1.0"), people=8)).digest != digest


def test_no_native_transformer_is_trained(recipe, capsys):
    text = 'architecture = "native"\n[network]\nwidth = 48\ndepth = 2\n[[stages]]\nname = "synthetic"\npeople = 9600\n'
    assert main(["train", str(recipe(text))]) == 2
    error = capsys.readouterr().err
    assert "architecture 'native' cannot be trained, since nothing in it is: use InContextEncoder() as it is" in error
    assert error.count("\n") == 1
    with pytest.raises(InputError, match="cannot be trained"):
        Recipe(ReferenceConfig(8, 20), (StageConfig("synthetic", 8),), architecture="native")


def test_bfloat16_trains(recipe, tmp_path):
    train(read_recipe(recipe(people=8)), tmp_path / "run", n_workers=0, precision="bfloat16")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path / "run").values())


def test_the_recipe_beside_the_card_is_one():
    recipe = read_recipe("encoders/published/recipe.toml")
    assert recipe.network.n_features == 512
    assert recipe.priors


MISTAKES = {
    "an unknown key": (TINY.replace("n_layers = 1", "n_layer = 1"), "'n_layer' is unknown"),
    "an unknown architecture": (TINY.replace('"reference"', '"perceptron"'), "must be 'reference', the published"),
    "no stages": (TINY.partition("[[stages]]")[0], r"no \[\[stages\]\]"),
    "no TOML": ("a = = 1", "is no TOML"),
    "too few people": (TINY.replace("people = {people}", "people = 2"), "fewer than one step"),
    "text for a number": (
        TINY.replace("people = {people}", 'people = "many"'),
        "stages 1: people must be a whole num",
    ),
    "a fraction for a count": (TINY.replace("width = 8\n", "width = 1.5\n"), "network: width must be a whole number"),
    "true for a number": (TINY.replace("5e-3", "true"), "learning_rate must be a number, but is True"),
    "no number": (TINY.replace("5e-3", "nan"), "learning_rate must be a number, but is nan"),
    "a number for text": (TINY.replace('"synthetic"', "3"), "name must be text in quotes, but is 3"),
    "text in a range": (TINY.replace("[4, 20]", '[4, "20"]'), "world: n_images 2 must be a whole number"),
    "half a range": (TINY.replace("[4, 20]", "[4]"), "world: n_images must be a list of 2 values"),
    "text for a list": ('priors = "bold"\n' + TINY, "priors must be a list, but is 'bold'"),
    "text for a list of files": (TINY + 'features = "f.npz"', "world: features must be a list, but is 'f.npz'"),
    "a list for a table": (
        TINY.partition("[stages.world]")[0] + "world = [1]",
        "world must be a table, but is \\[1\\]",
    ),
    "a list of numbers for stages": (
        "stages = [1]\n[network]\nn_features = 8\nwidth = 8",
        "stages 1 must be a table, but is 1",
    ),
    "a table for stages": (TINY.replace("[[stages]]", "[stages]"), "stages must be a list"),
    "a list for the network": ("network = []\nstages = []", "network must be a table"),
    "a list for the architecture": ("architecture = []", "must be 'reference', the published"),
    "no network": ("seed = 3\n[[stages]]\nname = 'a'\npeople = 8", "'network' is missing"),
    "a missing key": (TINY.replace("people = {people}", ""), "stages 1: 'people' is missing"),
    "a missing prior": ('priors = ["nosuch"]\n' + TINY, "nosuch is neither a file nor a shipped name"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case, recipe, capsys):
    text, message = MISTAKES[case]
    assert main(["train", str(recipe(text))]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1


def test_other_runs_and_damaged_states_are_refused(whole, recipe, tmp_path):
    shutil.copytree(whole / "run", tmp_path / "run")
    with pytest.raises(InputError, match="another recipe"):
        train(read_recipe(recipe(people=32)), tmp_path / "run", n_workers=0)
    (tmp_path / "run" / STATE).write_bytes(b"damaged")
    with pytest.raises(FileFormatError, match="is damaged"):
        train(read_recipe(whole / "recipe.toml"), tmp_path / "run", n_workers=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    assert main(["train", str(recipe()), "--output-dir", str(tmp_path / "mine")]) == 2
