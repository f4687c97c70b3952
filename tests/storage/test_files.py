import errno
import logging
import os
import socket
import stat
import zlib
from pathlib import Path

import pytest

from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.storage.files import (
    atomic_file,
    check_new_file,
    check_regular,
    read_json,
    read_text,
    reading,
    walk_files,
    write_json,
)


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


def test_a_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a.txt"
    check_new_file(path, overwrite=False)
    path.write_text("old")
    check_new_file(path, overwrite=True)
    for wrong, words in ((path, "--overwrite"), (tmp_path, "is a folder"), (tmp_path / "no" / "a", "does not exist")):
        with pytest.raises(OutputError, match=words):
            check_new_file(wrong, overwrite=False)


def test_a_link_to_nothing_is_not_replaced(tmp_path):
    for target in ("nothing", "link"):
        link = tmp_path / "link"
        link.symlink_to(tmp_path / target)
        with pytest.raises(OutputError, match="is a link to nothing"):
            check_new_file(link, overwrite=True)
        link.unlink()


def test_half_characters_are_kept_in_json(tmp_path):
    """As in the provenance of a file whose name is no UTF-8."""
    content = {"weights": "a\udcff", "é": ["\ud800"]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def make_fifo(path):
    os.mkfifo(path)
    return path


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return path


NOT_FILES = {
    "a pipe": (lambda f: make_fifo(f / "pipe"), "pipe or device"),
    "a device": (lambda f: Path("/dev/zero"), "pipe or device"),
    "a terminal's end": (lambda f: Path("/dev/null"), "pipe or device"),
    "a socket": (lambda f: make_socket(f / "socket"), "pipe or device"),
    "the memory of this process": (lambda f: Path("/proc/self/mem"), "empty"),
    "a folder": (lambda f: f, "it is a folder"),
    "nothing": (lambda f: f / "none", "does not exist"),
    "a file below a file": (lambda f: f / "empty" / "none", "does not exist"),
    "a link to nothing": (lambda f: link(f / "link", f / "none"), "a link to a file that does not exist"),
    "a link to a pipe": (lambda f: link(f / "link", make_fifo(f / "pipe")), "pipe or device"),
    "an empty file": (lambda f: f / "empty", "empty"),
    "a zero byte in the name": (lambda f: f"{f}/a\0b", "no file name"),
    "a name that is too long": (lambda f: f / ("a" * 300), "File name too long"),
}


def link(path, target):
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("case", NOT_FILES)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, case):
    (tmp_path / "empty").touch()
    make, words = NOT_FILES[case]
    path = make(tmp_path)
    for read in (check_regular, read_text, read_json):
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "Too many open files.*ulimit -n"),
        (errno.EACCES, "Permission denied.*chmod"),
        (errno.EAGAIN, "temporarily unavailable.*another program"),
        (errno.ESTALE, "Stale file handle.*not the file"),
        (errno.EIO, "Input/output error.*not the file"),
        (errno.ENOLCK, "No locks available.*HDF5_USE_FILE_LOCKING"),
    ],
)
def test_a_condition_of_the_system_is_not_called_damage(number, words):
    with pytest.raises(InputError, match=words) as caught, reading("a.nii", "is not a readable NIfTI image"):
        raise OSError(number, "from a library")
    assert not isinstance(caught.value, FileFormatError)
    assert "new copy" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError("a.gz ends early"), EOFError(), KeyError("x"), AssertionError(), zlib.error()]
)
def test_what_a_library_raises_on_bad_content_is_damage(error):
    with (
        pytest.raises(FileFormatError, match=r"a\.nii is not a readable NIfTI image") as caught,
        reading("a.nii", "is not a readable NIfTI image"),
    ):
        raise error
    assert "\n" not in str(caught.value)


def test_json_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text('{"Name": "ä"}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"Name": "ä"}
    (tmp_path / "b.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid JSON"):
        read_json(tmp_path / "b.json")


def test_walking_follows_links_and_tells_what_it_leaves_out(tmp_path, caplog):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "a", root / ".git", root / ".ipynb_checkpoints", elsewhere / "deep"):
        folder.mkdir(parents=True)
        (folder / "x.txt").write_text("x")
    (root / "linked").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(root)
    (root / "dangling").symlink_to("nowhere")
    (root / "._x.txt").write_text("x")
    with caplog.at_level(logging.INFO, logger="braincorl"):
        found = [str(path.relative_to(root)) for path in walk_files(root)]
    assert found == ["a/x.txt", "dangling", "linked/deep/x.txt"]
    assert "3 hidden files or folders are left out, such as ._x.txt, .git, .ipynb_checkpoints" in caplog.text
