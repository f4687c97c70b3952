import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from braincorl.errors import OutputError
from braincorl.storage import leftovers, result_folders
from braincorl.storage.files import atomic_file
from braincorl.storage.result_folders import check_destination, staged_directory


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
    for place in (out / "notes.txt", out / "mine" / "notes.txt"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("mine")
        with pytest.raises(OutputError, match=r"notes\.txt, which this result does not list"):
            check_destination(out, overwrite=True)
        place.unlink()


@pytest.mark.parametrize("place", ["scores", "a/b/scores", ".hidden", "with space", "fit"])
@pytest.mark.parametrize("kind", ["score", "fit", "benchmark"])
def test_a_result_inside_another_is_not_deleted_with_it(tmp_path, place, kind):
    out = tmp_path / "out"
    make_result(out)
    make_result(out / place, kind)
    with pytest.raises(OutputError, match=f"a {kind} that would be deleted with it") as caught:
        check_destination(out, overwrite=True)
    assert str(out / place) in str(caught.value)
    assert (out / place / "numbers.txt").is_file()


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{", '{"generator": "braincorl", "kind": 3, "files": []}', '{"generator": "braincorl"}',
                 '{"generator": "braincorl", "kind": "result", "files": null}',
                 '{"generator": "braincorl", "kind": "result", "files": [1]}',
                 '{"generator": "braincorl", "kind": "result", "files": {"a": 1}}'],
)  # fmt: skip
def test_a_manifest_of_another_form_makes_no_result(tmp_path, manifest):
    make_result(tmp_path / "out")
    (tmp_path / "out" / ".braincorl.json").write_text(manifest)
    with pytest.raises(OutputError, match="did not write"):
        check_destination(tmp_path / "out", overwrite=True)


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

    monkeypatch.setattr(result_folders, "_exchange", lambda *_: False)
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
        "import sys, time; from pathlib import Path; from braincorl.storage.result_folders import staged_directory\n"
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
    with staged_directory(out, overwrite=True) as folder:
        (folder / "new").write_text("")
    assert list(tmp_path.iterdir()) == [out], "what the killed run left is removed"


class KilledError(BaseException):
    """In place of a signal that cannot be caught: nothing cleans up after it in these tests."""


def kill_at(monkeypatch, step, exchange):
    """Stop at a step of a replacement, and keep every clean-up of the stopped run from happening."""
    rename, names = Path.rename, []

    def renaming(self, target):
        if len(names) == step:
            raise KilledError
        names.append(self.name)
        return rename(self, target)

    if not exchange:
        monkeypatch.setattr(result_folders, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", renaming)
    monkeypatch.setattr(result_folders.shutil, "rmtree", lambda *_args, **_options: None)


def replace(out):
    with staged_directory(out, overwrite=True) as folder:
        (folder / "new").write_text("2")


def died_between_the_renames(tmp_path):
    """What a run leaves that is killed when the earlier result is aside and the new one not in its place yet."""
    out = tmp_path / "out"
    make_result(out)
    aside = tmp_path / ".out.previous-abc"
    aside.mkdir()
    out.rename(aside / "out")
    (tmp_path / ".out.partial-abc").mkdir()
    return out


def test_a_kill_between_two_renames_is_put_right_by_the_next_run(tmp_path, caplog):
    out = died_between_the_renames(tmp_path)
    with pytest.raises(OutputError, match="holds an earlier result"):
        check_destination(out)
    assert (out / "numbers.txt").read_text() == "1"
    assert "is put back, which a run that was stopped had moved aside" in caplog.text
    replace(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_reader_finds_a_result_that_was_moved_aside(tmp_path):
    out = died_between_the_renames(tmp_path)
    result_folders.recover(out)
    assert (out / "numbers.txt").read_text() == "1"


def test_a_result_aside_is_left_alone_while_a_run_works_there(tmp_path):
    out = died_between_the_renames(tmp_path)
    with leftovers.at_work(tmp_path, lambda _: False):
        result_folders.recover(out)
        assert not out.exists()


@pytest.mark.parametrize("name", [".out.previous-abc/out", ".out.previous-abc/other", ".other.previous-abc/out"])
def test_only_a_result_of_that_name_is_put_back(tmp_path, name):
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "mine").write_text("")
    result_folders.recover(tmp_path / "out")
    assert (tmp_path / name / "mine").is_file()


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_whenever_a_replacement_dies_one_whole_result_is_there_afterwards(tmp_path, monkeypatch, step, exchange):
    out = tmp_path / "out"
    make_result(out)
    with monkeypatch.context() as patch:
        kill_at(patch, step, exchange)
        with contextlib.suppress(KilledError):
            replace(out)
    result_folders.recover(out)
    names = sorted(path.name for path in out.iterdir())
    assert names in ([".braincorl.json", "numbers.txt"], [".braincorl.json", "new"])
    replace(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(path.name for path in out.iterdir()) == [".braincorl.json", "new"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names here")
def test_names_are_exchanged_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")
    if not result_folders._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    assert (tmp_path / "a" / "b").is_file()
    assert (tmp_path / "b" / "a").is_file()


def test_the_temporary_files_of_a_killed_run_are_removed_by_the_next(tmp_path):
    (tmp_path / ".partial-abc-a.txt").write_text("half")
    (tmp_path / ".partial-abc-b.txt").write_text("half of another file")
    (tmp_path / "my.partial-abc-a.txt").write_text("mine")
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-abc-b.txt", "a.txt", "my.partial-abc-a.txt"]


def test_the_temporary_file_of_a_run_that_goes_on_is_kept(tmp_path):
    with atomic_file(tmp_path / "a.txt") as first:
        first.write_text("1")
        with atomic_file(tmp_path / "a.txt") as second:
            second.write_text("2")
        assert first.is_file()
    assert (tmp_path / "a.txt").read_text() == "1"


# -- links and mount points ------------------------------------------------------------------------------------------


def test_a_link_to_a_folder_stays_and_the_work_is_done_beside_what_it_leads_to(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir()
    out = tmp_path / "home" / "out"
    out.symlink_to(tmp_path / "disk" / "real")
    (tmp_path / "disk" / "real").mkdir()
    with staged_directory(out) as folder:
        assert folder.parent == tmp_path / "disk", "another file system may lie there"
        (folder / "a").write_text("1")
    assert out.is_symlink()
    assert (tmp_path / "disk" / "real" / "a").is_file()
    with staged_directory(out, overwrite=True) as folder:
        (folder / "b").write_text("1")
    assert out.is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["real"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_file_stays(tmp_path, exists):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.txt", tmp_path / "link.txt"
    if exists:
        real.write_text("old")
    link.symlink_to(real)
    with atomic_file(link) as temporary:
        assert temporary.parent == tmp_path / "disk"
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize("path", ["/proc", "/dev", "/sys", "/"])
def test_a_mount_point_is_refused_before_any_work(path):
    if not Path(path).is_mount():
        pytest.skip(f"{path} is no mount point here")
    with pytest.raises(OutputError, match="is a mount point, which cannot be replaced: choose a folder inside it"):
        check_destination(path)


@pytest.mark.parametrize("option", [["-t", "tmpfs", "tmpfs"], ["--bind", "."]])
def test_a_folder_that_something_is_mounted_on_is_refused(tmp_path, option, monkeypatch):
    (tmp_path / "source").mkdir()
    (tmp_path / "with space").mkdir()
    monkeypatch.chdir(tmp_path / "source")
    mount = ["mount", *option, str(tmp_path / "with space")]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OutputError, match="is a mount point"):
            check_destination(tmp_path / "with space")
        check_destination(tmp_path / "with space" / "fit")
    finally:
        subprocess.run(["umount", str(tmp_path / "with space")], check=True)
