import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braincorl.errors import OutputError
from braincorl.result_folders import check_destination, staged_directory


def make_result(folder, kind="result"):
    with staged_directory(folder, kind=kind) as staging:
        (staging / "numbers.txt").write_text("1")


def die_after_writing(path):
    path.write_text("half")
    raise RuntimeError("died")


def test_a_staged_folder_appears_whole(tmp_path):
    with staged_directory(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failed_replacement_keeps_the_earlier_result(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    with pytest.raises(RuntimeError, match="died"), staged_directory(out, overwrite=True) as folder:
        die_after_writing(folder / "half")
    assert sorted(path.name for path in out.iterdir()) == [".braincorl.json", "numbers.txt"]
    assert list(tmp_path.iterdir()) == [out]


def test_only_own_results_are_ever_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="did not write"):
        check_destination(tmp_path, overwrite=True)
    own = tmp_path / "own"
    make_result(own)
    with pytest.raises(OutputError, match="--overwrite"):
        check_destination(own)
    with staged_directory(own, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert sorted(path.name for path in own.iterdir()) == [".braincorl.json", "new"]


def test_a_result_with_a_file_of_the_users_is_kept(tmp_path):
    out = tmp_path / "out"
    make_result(out)
    make_result(out / "scores")
    check_destination(out, overwrite=True)  # scores inside a fit are results too
    for place in (out / "notes.txt", out / "scores" / "notes.txt", out / "mine" / "notes.txt"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
        with pytest.raises(OutputError, match=r"notes\.txt, which this result does not list"):
            check_destination(out, overwrite=True)
        place.unlink()


def test_a_result_of_another_kind_is_kept(tmp_path):
    make_result(tmp_path / "out", kind="fit")
    with pytest.raises(OutputError, match="holds a fit, not a prediction"):
        check_destination(tmp_path / "out", overwrite=True, kind="prediction")


def fill_while_working(out):
    with staged_directory(out) as folder:
        (folder / "a").write_text("")
        out.mkdir()
        (out / "notes.txt").write_text("mine")


def test_a_folder_that_fills_while_the_work_goes_on_is_kept(tmp_path):
    with pytest.raises(OutputError, match="did not write"):
        fill_while_working(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "notes.txt"]


def test_an_interrupt_while_swapping_keeps_the_earlier_result(tmp_path, monkeypatch):
    out = tmp_path / "out"
    make_result(out)
    original = Path.rename

    def interrupted(self, target):
        if ".partial-" in self.name:
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), staged_directory(out, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert sorted(path.name for path in out.iterdir()) == [".braincorl.json", "numbers.txt"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="current folder"):
        check_destination(".")


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
    make_result(out)
    code = (
        "import sys, time; from pathlib import Path; from braincorl.result_folders import staged_directory\n"
        "with staged_directory(sys.argv[1], overwrite=True) as folder:\n"
        "    (folder / 'half').write_text('x'); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    time.sleep(0.01)
    assert sorted(path.name for path in out.iterdir()) == [".braincorl.json", "numbers.txt"]
