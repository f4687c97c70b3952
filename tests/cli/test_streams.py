"""Closed standard streams, and words before and after options."""

import shlex
import subprocess
import sys

import numpy as np
import pytest

from braincorl.cli.main import _read_options
from braincorl.features import save_features
from braincorl.features.store.table import FeatureTable

BRAINCORL = f"{shlex.quote(sys.executable)} -m braincorl"


@pytest.mark.parametrize(
    ("command", "status"),
    [("--version >&-", 0), ("--help >&- 2>&-", 0), ("dream 2>&-", 2), ("dream >&-", 2), ("dream <&- >&- 2>&-", 2)],
)
def test_a_closed_stream_changes_nothing_but_what_is_heard(command, status):
    done = subprocess.run(["bash", "-c", f"{BRAINCORL} {command}"], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert (done.stderr.count("\n") == 1) == (status == 2 and "2>&-" not in command)


def test_results_are_whole_where_nobody_listens(tmp_path):
    """With all streams closed, the first files that are opened would get the numbers of the streams."""
    rng = np.random.default_rng(0)
    features, ids = rng.standard_normal((12, 4)).astype("f4"), np.array([f"i{n}" for n in range(12)])
    save_features(tmp_path / "f.npz", FeatureTable(features, ids))
    np.save(tmp_path / "betas.npy", features @ rng.standard_normal((4, 3)))
    (tmp_path / "t.tsv").write_text("image\n" + "\n".join(ids) + "\n")
    fit = "fit --encoder ridge --features f.npz --betas betas.npy --trials t.tsv --n-context 8 --output-dir f"
    done = subprocess.run(["bash", "-c", f"{BRAINCORL} {fit} <&- >&- 2>&-"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert {"encoder.safetensors", "scores.tsv", "config.json", ".braincorl.json"} <= {
        path.name for path in (tmp_path / "f").iterdir()
    }


ORDERS = [
    "FIT face place --text-features w.npz --output-dir q",
    "FIT --text-features w.npz --output-dir q face place",
    "FIT face --text-features w.npz place --output-dir q",
    "--text-features w.npz FIT --output-dir q face place",
    "--text-features w.npz FIT face --output-dir q place",
]


@pytest.mark.parametrize("order", ORDERS)
def test_words_may_come_before_and_after_options(order):
    options = _read_options(["query", *order.split()], "query")
    assert str(options.fit_dir) == "FIT"
    assert options.texts == ["face", "place"]


@pytest.mark.parametrize(
    "order", ["a.png --backbone gabor --output f.npz b.png", "--backbone gabor --output f.npz a.png b.png"]
)
def test_pictures_may_come_before_and_after_options(order):
    options = _read_options(["embed", *order.split()], "embed")
    assert [str(path) for path in options.images] == ["a.png", "b.png"]


@pytest.mark.parametrize("order", ["FIT face --txt w.npz --output-dir q", "FIT --output-dir q face --typo"])
def test_an_unknown_option_is_still_a_mistake(braincorl, order):
    result = braincorl("query", *order.split())
    assert (result.status, "unrecognized arguments: " in result.err) == (2, True)


@pytest.mark.parametrize("verb", ["fit", "score", "predict"])
def test_a_stray_word_is_a_mistake_for_verbs_that_take_none(braincorl, verb):
    result = braincorl(verb, "a", "b", "c", "--features", "f.npz", "--betas", "b", "--output-dir", "o")
    assert result.status == 2
