import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from braincorl.errors import OutputError
from braincorl.files import atomic_file, check_destination, staged_directory, write_json

OWN = {"GeneratedBy": [{"Name": "braincorl"}]}


def die_after_writing(path):
    path.write_text("half")
    raise RuntimeError("died")


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="died"), atomic_file(path) as temporary:
        die_after_writing(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_get_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    (tmp_path / "b.txt").write_text("usual")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")}
    assert len(modes) == 1


def test_a_staged_folder_appears_whole(tmp_path):
    with staged_directory(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failed_replacement_keeps_the_earlier_result(tmp_path):
    out = tmp_path / "out"
    with staged_directory(out) as folder:
        write_json(folder / "dataset_description.json", OWN)
    with pytest.raises(RuntimeError, match="died"), staged_directory(out, overwrite=True) as folder:
        die_after_writing(folder / "half")
    assert [path.name for path in out.iterdir()] == ["dataset_description.json"]
    assert list(tmp_path.iterdir()) == [out]


def test_only_own_results_are_ever_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="did not write"):
        check_destination(tmp_path, overwrite=True)
    own = tmp_path / "own"
    own.mkdir()
    write_json(own / "dataset_description.json", OWN)
    with pytest.raises(OutputError, match="--overwrite"):
        check_destination(own)
    with staged_directory(own, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert [path.name for path in own.iterdir()] == ["new"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_destination(tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_unwritable_place_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="not writable"):
        check_destination(tmp_path / "out")
    tmp_path.chmod(0o700)


def test_a_killed_run_leaves_the_earlier_result(tmp_path):
    out = tmp_path / "out"
    with staged_directory(out) as folder:
        write_json(folder / "dataset_description.json", OWN)
    code = (
        "import sys, time; from pathlib import Path; from braincorl.files import staged_directory\n"
        "with staged_directory(sys.argv[1], overwrite=True) as folder:\n"
        "    (folder / 'half').write_text('x'); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.01)
    assert [path.name for path in out.iterdir()] == ["dataset_description.json"]
