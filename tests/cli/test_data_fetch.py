"""`braincorl data fetch`: consent, a dry run, then files that `data check` and `load_nsd` take."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moto", reason="moto, the local S3 server, is not installed (uv sync installs it)")

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "datasets"))

from layouts import TinyNsd
from nsd_writer import write_nsd_design

from braincorl.datasets import load_nsd

TERMS = "Terms of the Natural Scenes Dataset"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    return TinyNsd(root, write_nsd_design(root), sessions=(1, 2))


@pytest.fixture
def fetch(source, bucket, braincorl, tmp_path):
    bucket.fill(source.root)

    def run(*more, **changes):
        options = {"subject": 1, "sessions": "1-2", "output": tmp_path / "out", "endpoint-url": bucket.url} | changes
        named = [part for name, value in options.items() for part in (f"--{name}", value)]
        return braincorl("data", "fetch", "nsd", *named, *more)

    return run


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that somebody types into."""
    keyboard, screen = os.openpty()
    with os.fdopen(keyboard, "wb", buffering=0) as typed, os.fdopen(screen) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield typed


def test_what_was_fetched_is_checked_and_loaded(fetch, source, braincorl, tmp_path):
    result = fetch("--accept-terms")
    assert result.status == 0, result.err
    assert result.out.startswith(TERMS)
    assert "of which 0.00 MB were there before" in result.out
    checked = braincorl("data", "check", tmp_path / "out")
    assert checked.status == 0, checked.out
    assert "1500 trials of" in checked.out
    assert "wrong" not in checked.out
    fetched, direct = (load_nsd(root, 1, sessions=[1, 2]) for root in (tmp_path / "out", source.root))
    np.testing.assert_array_equal(fetched.responses, direct.responses)
    (tmp_path / "out" / "mine.txt").write_text("a file of the user's")
    again = fetch("--accept-terms")
    assert again.status == 0
    assert "MB were there before" in again.out
    assert "0.00 MB were" not in again.out
    assert (tmp_path / "out" / "mine.txt").read_text() == "a file of the user's"


def test_a_dry_run_asks_nothing_lists_all_and_writes_nothing(fetch, source, tmp_path):
    result = fetch("--dry-run")
    assert result.status == 0
    assert TERMS not in result.out
    *lines, total = result.out.splitlines()
    listed = {line.split()[2]: int(line.split()[0].replace(",", "")) for line in lines}
    assert listed == {key: (source.root / key).stat().st_size for key in listed}
    assert sum("betas_session" in key for key in listed) == 2
    assert total.startswith(f"{len(listed)} files, ")
    assert not (tmp_path / "out").exists()
    fetch("--accept-terms")
    *lines, total = fetch("--dry-run").out.splitlines()
    assert all(line.split()[1] == "complete" for line in lines)
    assert total.endswith("; 0.00 MB to download")


@pytest.mark.parametrize(("answer", "status"), [(b"yes\n", 0), (b"no\n", 2), (b"\n", 2)])
def test_consent_is_asked_for_on_a_terminal(fetch, terminal, tmp_path, answer, status):
    terminal.write(answer)
    result = fetch()
    assert result.status == status, result.err
    assert result.out.startswith(TERMS)
    assert "do you accept these terms? [yes/no]" in result.out
    assert (tmp_path / "out").exists() == (status == 0)
    if status:
        assert "without consent to the terms nothing is downloaded" in result.err


@pytest.mark.parametrize(
    ("more", "changes", "words"),
    [
        ((), {}, "pass --accept-terms if you accept them"),
        (("--accept-terms",), {"subject": "0"}, "subject must be 1 to 8"),
        (("--accept-terms",), {"sessions": "3"}, "has no .nii.gz betas of subj01's sessions 3"),
        (("--accept-terms",), {"preparation": "betas_new"}, "check space and preparation"),
        (("--accept-terms",), {"endpoint-url": "http://127.0.0.1:9"}, "cannot be read"),
    ],
)
def test_mistakes_get_one_line_and_write_nothing(fetch, tmp_path, more, changes, words):
    result = fetch("--quiet", *more, **changes)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_boto3_one_line_says_what_to_install(fetch, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "boto3", None)
    result = fetch("--accept-terms")
    assert result.status == 2
    assert result.err == (
        "braincorl data: downloads need boto3, which is not installed: pip install braincorl[fetch]\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bold5000",), "figshare"),
        (("algonauts2023", "--subject", "1"), "form"),
        (("nsd",), "required: --subject, --output"),
    ],
)
def test_data_sets_with_doors_of_their_own_say_where(braincorl, arguments, words):
    result = braincorl("data", "fetch", *arguments)
    assert result.status == 2
    assert words in result.err
    assert len(result.err.splitlines()) == 1
