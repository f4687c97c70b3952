"""Several runs of `prepare` on one output, and runs that are killed or find the disk full."""

import multiprocessing
import os
import resource
import shutil
import signal
import threading

import numpy as np
import pytest

from braincorl.datasets import load_prepared, prepare
from braincorl.datasets.load import open_subject
from braincorl.datasets.trials.prepared import is_whole
from braincorl.errors import InputError, OutputError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """Three sessions on disk, and the file that a run on its own makes of them."""
    folder, rng = tmp_path_factory.mktemp("person"), np.random.default_rng(0)
    betas = [folder / f"ses-{number}.npy" for number in range(3)]
    for path in betas:
        np.save(path, rng.standard_normal((20, 200)).astype("f4"))
    (folder / "t.tsv").write_text("image\n" + "".join(f"img{n % 25}\n" for n in range(60)))
    recording = open_subject(betas, folder / "t.tsv", zscore="session")
    return recording, prepare(recording, folder / "alone.h5").read_bytes()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", f"{4 * 60 * 4 * 50} B")
    monkeypatch.setattr("braincorl.datasets.trials.prepared.CHUNK_BYTES", 25 * 4 * 20)


def attempt(recording, path, answers):
    try:
        prepare(recording, path)
        answers.put("done")
    except OutputError as error:
        answers.put(str(error))


def test_three_at_once_end_with_the_file_whole(person, tmp_path):
    recording, alone = person
    answers = FORK.SimpleQueue()
    for number in range(8):
        path = tmp_path / f"{number}.h5"
        runs = [FORK.Process(target=attempt, args=(recording, path, answers)) for _ in range(3)]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
            assert run.exitcode == 0
        found = [answers.get() for _ in runs]
        assert "done" in found, found
        assert all(answer == "done" or "is being prepared by" in answer for answer in found), found
        assert is_whole(path)
        assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(f"{number}.h5")] == [path.name]
    assert load_prepared(path).n_images == 25
    assert len(alone) > 0


def test_the_second_run_says_who_is_at_it_and_finds_the_file_afterwards(person, tmp_path):
    recording, path = person[0], tmp_path / "p.h5"
    begun, go_on = threading.Event(), threading.Event()

    def wait(done, total):
        begun.set()
        go_on.wait()

    first = threading.Thread(target=prepare, args=(recording, path), kwargs={"progress": wait})
    first.start()
    begun.wait()
    try:
        with pytest.raises(
            OutputError, match=rf"is being prepared by process {os.getpid()} on .*: wait for it, or stop"
        ):
            prepare(recording, path)
    finally:
        go_on.set()
        first.join()
    stamp = path.stat().st_mtime_ns
    prepare(recording, path)
    assert path.stat().st_mtime_ns == stamp


def killed(recording, path, when):
    def stop(done, total):
        if done >= when * total:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare(recording, path, progress=stop)


@pytest.mark.parametrize("when", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_a_killed_run_leaves_no_lock(person, tmp_path, when):
    recording, path = person[0], tmp_path / "p.h5"
    run = FORK.Process(target=killed, args=(recording, path, when))
    run.start()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    prepare(recording, path)
    assert is_whole(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("left", [(), ("lock",), ("key",), ("key", "lock", "0001"), ("lock", ".partial-x-key")])
def test_what_a_run_killed_while_cleaning_up_has_left_goes_with_the_next(person, tmp_path, left):
    recording, path = person[0], tmp_path / "p.h5"
    prepare(recording, path)
    stamp = path.stat().st_mtime_ns
    parts = tmp_path / "p.h5.parts"
    parts.mkdir()
    for name in left:
        (parts / name).write_text("x")
    prepare(recording, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["0001", "assembled", "thesis.txt", "keys"])
def test_a_folder_of_parts_that_is_not_ours_is_kept(person, tmp_path, name):
    parts = tmp_path / "p.h5.parts"
    parts.mkdir()
    (parts / name).write_text("mine")
    with pytest.raises(OutputError, match="did not write"):
        prepare(person[0], tmp_path / "p.h5")
    assert [(entry.name, entry.read_text()) for entry in parts.iterdir()] == [(name, "mine")]


def limited(recording, path, limit, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    attempt(recording, path, answers)


def test_a_full_disk_is_one_line_and_the_earlier_file_stays(person, tmp_path):
    recording = person[0]
    other = open_subject([source.path for source in recording.sources], recording.sources[0].path.parent / "t.tsv")
    path = tmp_path / "p.h5"
    earlier = prepare(other, path).read_bytes()
    answers = FORK.SimpleQueue()
    for limit in (0, 10, 1000, 15_000, 16_500, 18_000, 20_000, 25_000, len(earlier) - 1):
        run = FORK.Process(target=limited, args=(recording, path, limit, answers))
        run.start()
        run.join()
        assert run.exitcode == 0
        answer = answers.get()
        assert "was not written: File too large" in answer, (limit, answer)
        assert "\n" not in answer
        assert path.read_bytes() == earlier
    prepare(recording, path)
    assert load_prepared(path).n_images == 25


def test_betas_that_hold_the_same_trials_are_refused(person, tmp_path):
    """A session that was saved again under another name, and so is not the same file."""
    first = person[0].sources[0].path
    values = np.load(first)
    np.save(tmp_path / "ses-8.npy", values.astype("f8"))
    shutil.copy(first, tmp_path / "ses-9.npy")
    (tmp_path / "t.tsv").write_text("image\n" + "".join(f"img{n}\n" for n in range(40)))
    recording = open_subject([tmp_path / "ses-8.npy", tmp_path / "ses-9.npy"], tmp_path / "t.tsv")
    with pytest.raises(InputError, match=r"same data in .*ses-8\.npy and .*ses-9\.npy"):
        prepare(recording, tmp_path / "p.h5")
    with pytest.raises(InputError, match=r"same data in .*ses-8\.npy and .*ses-9\.npy"):
        recording.load()
