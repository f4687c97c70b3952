"""The state of a training run on disk: kept where a new one cannot be written, and refused in one line if damaged."""

import subprocess
import sys

import pytest
import torch
from recipes import SMALL_RECIPE

from braincorl.checkpoint import read_checkpoint
from braincorl.cli.main import main
from braincorl.errors import FileFormatError, OutputError
from braincorl.storage.files import atomic_file
from braincorl.training import state
from braincorl.training.loop import CHECKPOINT
from braincorl.training.state import LOG, STATE, read_state, write_state

CONTENT = {"recipe": "a", "network": {}, "best": {}, "optimizer": {}, "state": {}}

# Files as small as 1 KiB, as on a full disk; PyTorch's shared memory counts as files.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
from braincorl.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def large():
    return CONTENT | {"network": {"w": torch.arange(10_000.0)}}


def test_a_worker_and_a_full_disk_end_in_one_line(tmp_path):
    """Workers do not need shared memory: where there was none of it, both processes waited for ever."""
    (tmp_path / "r.toml").write_text(SMALL_RECIPE)
    command = [sys.executable, "-c", LIMITED, "train", "r.toml", "--quiet", "--device", "cpu", "--workers", "1"]
    done = subprocess.run(
        [*command, "--output-dir", "run"], capture_output=True, cwd=tmp_path, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        f"braincorl train: run/{STATE} cannot be written: free some space, and give the same command again to go on "
        "from what was saved before."
    ]
    assert list((tmp_path / "run").iterdir()) == []


def test_a_run_killed_in_the_midst_of_its_first_save_is_begun_again(tmp_path):
    (tmp_path / "r.toml").write_text(SMALL_RECIPE)
    (tmp_path / "run").mkdir()
    with atomic_file(tmp_path / "run" / STATE) as torn:
        pass
    (tmp_path / "run" / STATE).rename(torn)  # as a killed process leaves it
    command = ["train", tmp_path / "r.toml", "--device", "cpu", "--workers", "0", "--output-dir", tmp_path / "run"]
    assert main([str(argument) for argument in command]) == 0
    assert read_checkpoint(tmp_path / "run" / CHECKPOINT)


def test_what_was_saved_before_is_kept(tmp_path, monkeypatch):
    write_state(tmp_path, large(), [{"step": 1}])
    before = {name: (tmp_path / name).read_bytes() for name in (STATE, LOG)}

    def full(_content, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 128 vs 0")

    monkeypatch.setattr(state.torch, "save", full)
    with pytest.raises(OutputError, match="cannot be written: free some space"):
        write_state(tmp_path, large(), [{"step": 2}])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damage_is_named(tmp_path):
    write_state(tmp_path, large(), [])
    whole = (tmp_path / STATE).read_bytes()
    assert set(read_state(tmp_path, "a")) == set(CONTENT)
    for content in (
        b"",
        whole[:10],
        whole[: len(whole) // 2],
        whole[:-1],
        b"\x80\x02",
        b"\x80\x02M\x00",
        b"\x80\x02G\x00",
    ):
        (tmp_path / STATE).write_bytes(content)
        with pytest.raises(FileFormatError, match="is damaged"):
            read_state(tmp_path, "a")
