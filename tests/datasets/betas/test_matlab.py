"""MATLAB files that somebody made: sizes, dimensions and types that contradict one another end in a line."""

import struct
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest

from braincorl.datasets.betas.beta_files import HDF5Betas
from braincorl.datasets.betas.glmsingle import GlmsingleBetas
from braincorl.datasets.betas.matlab import read_mat
from braincorl.errors import FileFormatError, InputError

VALUES = np.arange(12.0)


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name=b"modelmd", shape=(2, 2, 1, 3), values=VALUES, kind=9, of_class=6, dims=5):
    sizes = np.asarray(shape, "<i4" if dims == 5 else "<f8").tobytes()
    parts = [element(6, struct.pack("<II", of_class, 0)), element(dims, sizes), element(1, name)]
    return element(14, b"".join([*parts, element(kind, values.tobytes())]))


def packed(content, cut=0):
    data = zlib.compress(content, 9)[: -cut or None]
    return struct.pack("<II", 15, len(data)) + data


def mat(folder, *elements):
    path = folder / "a.mat"
    path.write_bytes(b"MATLAB".ljust(124) + struct.pack("<H", 0x100) + b"IM" + b"".join(elements))
    return path


def in_itself(times):
    content = matrix()
    for _ in range(times):
        content = packed(content)
    return content


CRAFTED = {
    "an axis that is left open": (matrix(shape=(2, 2, -1, 3)), "4 axes, one of them -1"),
    "axes below 0": (matrix(shape=(-2, -2, -1, -3)), "one of them -3"),
    "one axis": (matrix(shape=(12,)), "1 axes"),
    "no axis": (matrix(shape=(), values=VALUES[:1]), "0 axes"),
    "axes that are no whole numbers": (matrix(shape=(2.9, 2, 1, 3), dims=9), "axes"),
    "axes of another size": (matrix(shape=(2, 2, 1, 4)), "reshape"),
    "a class too small for the numbers": (matrix(values=VALUES * 100.5, of_class=8), "none of the class int8"),
    "a class without a sign": (matrix(values=VALUES - 5, of_class=11), "none of the class uint16"),
    "not a number in a class of whole ones": (matrix(values=VALUES * np.nan, of_class=12), "none of the class int32"),
    "one name twice": (matrix() + matrix(values=VALUES * 0), "'modelmd' twice"),
    "a compressed element in another": (in_itself(2), "type 15 in place of a matrix"),
    "compressed elements without end": (in_itself(1000), "type 15 in place of a matrix"),
    "a compressed element that is no matrix": (packed(element(9, bytes(80))), "type 9 in place of a matrix"),
    "a compressed element that ends early": (packed(matrix(), cut=9), "does not hold"),
    "a compressed element of more than it says": (packed(matrix() + bytes(64)), "does not hold"),
    "a compressed element of less than it says": (packed(matrix()[:-16]), "does not hold"),
    "a size that nothing unpacks to": (packed(struct.pack("<II", 14, 2**31) + matrix()[8:]), "said to be 2147483648"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_files_end_in_a_line(tmp_path, case):
    content, said = CRAFTED[case]
    with pytest.raises(FileFormatError, match=said) as caught:
        GlmsingleBetas(mat(tmp_path, content), None)
    assert "\n" not in str(caught.value)


def test_numbers_in_a_smaller_type_than_their_class_are_read(tmp_path):
    for values, kind, of_class in ((VALUES.astype("u1"), 2, 6), (VALUES.astype("u1"), 2, 8), (VALUES, 9, 12)):
        found = read_mat(mat(tmp_path, matrix(values=values, kind=kind, of_class=of_class)), ["modelmd"])["modelmd"]
        np.testing.assert_array_equal(found.ravel(order="F"), VALUES)


def test_what_is_not_wanted_is_not_unpacked(tmp_path):
    """A variable of 64 MB in 64 kB beside the betas, and one that is damaged behind its name."""
    large = packed(matrix(b"R2", (8, 2**20), np.zeros(2**23)))
    damaged = packed(matrix(b"other", (1, 10_000), np.random.default_rng(0).random(10_000)), cut=99)
    path = mat(tmp_path, large, damaged, packed(matrix()))
    tracemalloc.start()
    try:
        (values,) = read_mat(path, ["modelmd"]).values()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(values, VALUES.reshape((2, 2, 1, 3), order="F"))
    with pytest.raises(InputError, match="holds R2, other, modelmd but no masterordering"):
        read_mat(path, ["masterordering"])


def test_modelmd_comes_before_betasmd_as_in_the_other_containers(tmp_path):
    path = mat(tmp_path, matrix(b"betasmd", values=VALUES * 0), matrix())
    ((_, chunk),) = GlmsingleBetas(path, None).chunks()
    assert chunk.max() == 11


def test_names_of_a_file_do_not_break_the_line(tmp_path):
    path = mat(tmp_path, matrix(b"a\nb"), *[matrix(b"v%d" % n) for n in range(1000)])
    with pytest.raises(InputError, match=r"a b, v0, .* and 981 more but no modelmd or betasmd") as caught:
        GlmsingleBetas(path, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunks", [None, (2, 2, 2, 1)])
def test_betas_of_which_a_part_was_never_written_are_refused(tmp_path, chunks):
    """HDF5 reads it as zeros; so does a file that claims to be larger than any memory."""
    for shape in ((4, 4, 4, 3), (10_000, 10_000, 10_000, 1000)):
        with h5py.File(tmp_path / "a.hdf5", "w") as file:
            data = file.create_dataset("betasmd", shape, "f4", chunks=chunks)
            if chunks:
                data[:2, :2, :2, :1] = 1
        with pytest.raises(FileFormatError, match="never written, and would read as zeros"):
            HDF5Betas(tmp_path / "a.hdf5", "betasmd", "XYZT", None)
