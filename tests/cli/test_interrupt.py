"""Ctrl-C: status 130 and one line that is true, whatever the verb keeps."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from braincorl.cli import main as main_module
from braincorl.features import load_features


def stopped(command, *, when):
    """Run the command line, press Ctrl-C as soon as `when()` holds, and give status and standard error."""
    process = subprocess.Popen([sys.executable, "-m", "braincorl", *map(str, command)], stderr=subprocess.PIPE)
    while not when() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    return process.returncode, err.decode().splitlines()


def test_a_stopped_embedding_says_what_is_kept_and_goes_on(braincorl, tmp_path):
    (tmp_path / "pictures").mkdir()
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (120, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{row:03d}.png")
    output = tmp_path / "f.npz"
    partial = Path(f"{output}.partial")
    command = ["embed", tmp_path / "pictures", "--backbone", "gabor", "--batch-size", 1, "--output", output]
    status, lines = stopped(command, when=lambda: partial.is_file() and partial.stat().st_size > 20_000)
    assert status == 130
    assert lines[-1] == (
        "braincorl embed: interrupted; what is done, if anything, is in OUTPUT.partial: the same command goes on from "
        "there."
    )
    assert partial.is_file()
    assert braincorl(*command).status == 0
    assert load_features(output).features.shape[0] == 120


def test_a_stopped_fit_leaves_nothing(inputs, tmp_path):
    out = tmp_path / "f"
    command = ["fit", *inputs.arguments(), "--encoder", "ridge", "--output-dir", out]
    status, lines = stopped(command, when=lambda: any(tmp_path.glob(".f.partial-*")))
    assert status == 130
    assert lines == ["braincorl fit: interrupted; nothing is half-written."]
    assert list(tmp_path.iterdir()) == []


def test_a_stop_while_libraries_load_is_one_line_too(braincorl, monkeypatch):
    def stop(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "import_module", stop)
    done = braincorl("predict", "fit", "--features", "f.npz")
    assert (done.status, done.err) == (130, "braincorl predict: interrupted; nothing is half-written.\n")


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["train", "recipe.toml"], "saved"),
        (["data", "fetch", "nsd"], "has arrived"),
        (["data", "prepare", "nsd", "root", "--subject", "1", "--output", "f.h5"], "FILE.parts"),
    ],
)
def test_verbs_that_go_on_say_so(arguments, kept):
    options = main_module.build_parser(arguments[0]).parse_args(arguments)
    assert kept in options.interrupted
    assert "the same command goes on from there" in options.interrupted
