import sys

import numpy as np
import pytest

from braincorl.errors import InputError, OutputError
from braincorl.features.store.journal import Journal

JOB = {"backbone": "gabor", "images": "abc", "n_images": 9, "versions": {"numpy": "2"}}


def state(start, stop):
    return f"rows {start} to {stop}".encode().ljust(32)


@pytest.fixture
def rows(rng):
    return rng.standard_normal((9, 4)).astype(np.float32)


def fill(output, rows, *sizes):
    with Journal(output, JOB, 4, state) as journal:
        for size in sizes:
            journal.append(rows[journal.n_done : journal.n_done + size])
        return journal.path


def test_rows_survive_the_end_of_the_run(rows, tmp_path):
    fill(tmp_path / "f.npz", rows, 4, 3)
    with Journal(tmp_path / "f.npz", JOB, 4, state) as journal:
        assert journal.n_done == 7
        journal.append(rows[7:])
        np.testing.assert_array_equal(np.concatenate(list(journal.blocks())), rows)
        journal.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lost", [1, 47, 49, 81, 87])
def test_a_torn_end_is_cut_off_and_done_again(lost, rows, tmp_path):
    """A record of 3 rows of 4 numbers is 40 + 48 bytes: whatever is missing of it, the records before it count."""
    path = fill(tmp_path / "f.npz", rows, 4, 3)
    path.write_bytes(path.read_bytes()[:-lost])
    with Journal(tmp_path / "f.npz", JOB, 4, state) as journal:
        assert journal.n_done == 4
        journal.append(rows[4:])
        np.testing.assert_array_equal(np.concatenate(list(journal.blocks())), rows)


def test_a_damaged_record_is_not_believed(rows, tmp_path):
    path = fill(tmp_path / "f.npz", rows, 4, 3)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(bytes(content))
    with Journal(tmp_path / "f.npz", JOB, 4, state) as journal:
        assert journal.n_done == 4


def test_images_that_are_done_must_not_have_changed(rows, tmp_path):
    fill(tmp_path / "f.npz", rows, 4, 3)

    def later(start, stop):
        return state(start, stop) if stop <= 4 else b"changed".ljust(32)

    with pytest.raises(InputError, match="images 5 to 7 one or more changed"):
        Journal(tmp_path / "f.npz", JOB, 4, later)


def test_a_header_torn_at_birth_is_started_over(tmp_path):
    (tmp_path / "f.npz.partial").write_bytes(b'{"backbone": "ga')
    with Journal(tmp_path / "f.npz", JOB, 4, state) as journal:
        assert journal.n_done == 0


@pytest.mark.parametrize(("key", "value"), [("images", "abd"), ("backbone", "clip"), ("extra", 1)])
def test_another_job_is_noticed_by_name(key, value, rows, tmp_path):
    fill(tmp_path / "f.npz", rows, 4)
    with pytest.raises(InputError, match=f"another {key} .*now {value}.*restart"):
        Journal(tmp_path / "f.npz", {**JOB, key: value}, 4, state)
    with Journal(tmp_path / "f.npz", {**JOB, key: value}, 4, state, restart=True) as journal:
        assert journal.n_done == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_a_second_run_into_the_same_output_is_refused(tmp_path):
    with (
        Journal(tmp_path / "f.npz", JOB, 4, state),
        pytest.raises(OutputError, match="being written by another run"),
    ):
        Journal(tmp_path / "f.npz", JOB, 4, state)


def test_a_run_that_did_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Journal(tmp_path / "f.npz", JOB, 4, state) as journal:
        journal.append(np.ones((1 // 0, 4), dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        Journal(tmp_path / "none" / "f.npz", JOB, 4, state)


@pytest.mark.parametrize("content", [b"my notes\n", b"[1, 2]\n", b"\x00\x01 no newline"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_file_of_somebody_else_is_kept(content, restart, tmp_path):
    path = tmp_path / "f.npz.partial"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="no unfinished run of braincorl"):
        Journal(tmp_path / "f.npz", JOB, 4, state, restart=restart)
    assert path.read_bytes() == content
