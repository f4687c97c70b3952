import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.hdf5 import dataset_in, new_hdf5, open_hdf5


@pytest.fixture
def source(tmp_path):
    """Another file with an array, beside the one that is read."""
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["x"] = np.arange(24.0).reshape(4, 6)
    return tmp_path / "source.h5"


def read(path, name="x"):
    with open_hdf5(path) as file:
        return dataset_in(file, name, path)[()]


def virtual(path, sources, shape=(4, 6), fillvalue=0):
    layout = h5py.VirtualLayout(shape=shape, dtype="f8")
    for rows, source in sources:
        layout[rows] = source
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout, fillvalue=fillvalue)


def test_a_virtual_dataset_is_read_if_all_of_it_lies_beside(tmp_path, source):
    virtual(tmp_path / "a.h5", [(slice(0, 2), h5py.VirtualSource("source.h5", "x", (4, 6))[:2]),
                                (slice(2, 4), h5py.VirtualSource("source.h5", "x", (4, 6))[2:])])  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), np.arange(24.0).reshape(4, 6))
    source.unlink()
    with pytest.raises(InputError, match=r"put together from .*source\.h5, which does not exist"):
        read(tmp_path / "a.h5")


def cut_source(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((2, 6))


def loop(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["x"] = h5py.SoftLink("/a")


def external_storage(path, source):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (4, 6), "f8", external=[(str(source), 0, h5py.h5f.UNLIMITED)])


def linked(path, link):
    with h5py.File(path, "w") as file:
        file["x"] = link


def grouped(path):
    with h5py.File(path, "w") as file:
        file.create_group("x")


WHOLE = slice(None)
LEADS_ELSEWHERE = {
    "a virtual dataset with a part that is missing": (
        lambda p, s: virtual(p, [(slice(0, 2), h5py.VirtualSource("source.h5", "x", (4, 6))[:2])]), "give 12 of"),
    "one that wants more than its source has": (
        lambda p, s: (virtual(p, [(WHOLE, h5py.VirtualSource("source.h5", "x", (4, 6)))]), cut_source(s)), "which has"),
    "one without its dataset": (
        lambda p, s: virtual(p, [(WHOLE, h5py.VirtualSource("source.h5", "y", (4, 6)))]), "holds x but no 'y'"),
    "one of a file that is no HDF5": (
        lambda p, s: (virtual(p, [(WHOLE, h5py.VirtualSource("source.h5", "x", (4, 6)))]), s.write_text("hello")),
        "not a readable HDF5"),
    "one from the folder above": (
        lambda p, s: virtual(p, [(WHOLE, h5py.VirtualSource("../source.h5", "x", (4, 6)))]), "outside its folder"),
    "one from anywhere": (
        lambda p, s: virtual(p, [(WHOLE, h5py.VirtualSource(str(s), "x", (4, 6)))]), "outside its folder"),
    "one of itself": (
        lambda p, s: virtual(p, [(WHOLE, h5py.VirtualSource(".", "x", (4, 6)))]), "put together from other files"),
    "external storage": (external_storage, "in another file"),
    "an external link": (lambda p, s: linked(p, h5py.ExternalLink("source.h5", "x")), "is a link"),
    "an external link to nothing": (lambda p, s: linked(p, h5py.ExternalLink("none.h5", "x")), "is a link"),
    "an external link to a device": (lambda p, s: linked(p, h5py.ExternalLink("/dev/zero", "x")), "is a link"),
    "a soft link": (lambda p, s: linked(p, h5py.SoftLink("/y")), "is a link"),
    "links in a circle": (lambda p, s: loop(p), "is a link"),
    "a group": (lambda p, s: grouped(p), "is a group"),
    "nothing": (lambda p, s: linked(p, np.zeros(3)), "holds x but no 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEADS_ELSEWHERE)
def test_data_that_are_elsewhere_or_not_there_are_refused(tmp_path, source, case):
    path = tmp_path / "a.h5"
    make, words = LEADS_ELSEWHERE[case]
    make(path, source)
    with pytest.raises(InputError, match=words) as caught:
        read(path, "y" if case == "nothing" else "x")
    assert "\n" not in str(caught.value)


def test_any_byte_of_a_small_file_may_be_wrong(tmp_path):
    """Every byte flipped: read, or one line."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(6.0), chunks=(3,), fletcher32=True)
    content = path.read_bytes()
    used = [i for i, byte in enumerate(content) if byte]
    for position in used[::3]:
        changed = bytearray(content)
        changed[position] ^= 0xFF
        path.write_bytes(changed)
        try:
            read(path)
        except InputError as error:
            line = str(error)
            assert "\n" not in line


def write(path, n=40):
    with new_hdf5(path) as (file, check):
        out = file.create_dataset("x", (50, 50 * n), "f4", chunks=(50, 50), fletcher32=True, track_times=False)
        for start in range(0, 50 * n, 200):
            out[:, start : start + 200] = np.random.default_rng(start).random((50, 200), dtype="f4")
            check()
        for number in range(3):
            file.create_dataset(f"g/{number}", data=np.arange(1000), track_times=False)
        file.attrs["name"] = "x" * 100


def test_the_same_content_gives_the_same_bytes_and_reads_back(tmp_path):
    write(tmp_path / "a.h5")
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    first = np.random.default_rng(0).random((50, 200), dtype="f4")
    np.testing.assert_array_equal(read(tmp_path / "a.h5")[:, :200], first)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_hdf5 import write
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write(Path(sys.argv[2]))
    except OSError as error:
        print(limit, error.errno, flush=True)
"""


def test_a_full_disk_is_an_error_and_no_crash_later(tmp_path):
    """At forty sizes in one process, which must also end well."""
    write(tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").stat().st_size
    limits = [int(whole * share) for share in np.linspace(0.001, 0.999, 40)]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, os.path.dirname(__file__), str(tmp_path / "a.h5"), *map(str, limits)],  # noqa: PTH120
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.split() == [word for limit in limits for word in (str(limit), str(errno.EFBIG))]


def test_a_failure_within_stops_the_writing_and_stays_itself(tmp_path):
    with pytest.raises(KeyError, match="mine"), new_hdf5(tmp_path / "a.h5"):
        raise KeyError("mine")


def test_a_truncated_or_foreign_file_is_damage(tmp_path, source):
    content = source.read_bytes()
    for part in (content[:100], content[:-1], b"hello", content[:8]):
        source.write_bytes(part)
        with pytest.raises(FileFormatError, match="not a readable HDF5 file"):
            read(source)
