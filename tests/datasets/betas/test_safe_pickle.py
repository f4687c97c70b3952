import os
import pickle
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from braincorl.datasets.betas.glmsingle import GlmsingleBetas
from braincorl.datasets.betas.safe_pickle import load_pickled_npy
from braincorl.errors import FileFormatError, InputError


def save(path, value):
    np.save(path, value, allow_pickle=True)
    return path


def test_plain_data_come_back_as_numpy_itself_reads_them(tmp_path, rng):
    content = {
        "betasmd": rng.standard_normal((2, 3, 1, 4)).astype("f4"),
        "fortran": np.asfortranarray(rng.standard_normal((3, 5))),
        "big-endian": np.arange(4, dtype=">i2"),
        "flags": np.array([True, False]),
        "text": np.array(["V1v", "hV4"]),
        "scalar": np.float64(2.5),
        "nested": {"list": [1, "a", None, (2.0, b"raw")], 3: np.zeros(0)},
        "objects": np.array([np.arange(2), "x", None], dtype=object),
        "ordered": OrderedDict(a=1),
    }
    path = save(tmp_path / "a.npy", content)
    trusted = np.load(path, allow_pickle=True).item()
    read = load_pickled_npy(path)
    assert list(read) == list(trusted)
    for name in ("betasmd", "fortran", "big-endian", "flags", "text"):
        np.testing.assert_array_equal(read[name], trusted[name])
        assert read[name].dtype.kind == trusted[name].dtype.kind
    assert (read["scalar"], type(read["scalar"])) == (2.5, np.float64)
    assert read["nested"]["list"] == content["nested"]["list"]
    np.testing.assert_array_equal(read["objects"][0], [0, 1])
    assert read["objects"][1:].tolist() == ["x", None]
    assert read["ordered"] == {"a": 1}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_that_numpy_has_written(tmp_path, protocol):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        wrapped = np.empty((), dtype=object)
        wrapped[()] = {0: "Unknown", 1: "V1v", "a": np.arange(3, dtype="f4")}
        # The wrapper is pickled as NumPy's own writer does it, whatever the protocol of the rest.
        pickle.dump(wrapped, file, protocol=protocol)
    read = load_pickled_npy(tmp_path / "a.npy")
    assert read[1] == "V1v"
    np.testing.assert_array_equal(read["a"], [0, 1, 2])


def test_an_ordinary_array_needs_no_pickle(tmp_path, rng):
    values = rng.standard_normal((3, 2))
    np.testing.assert_array_equal(load_pickled_npy(save(tmp_path / "a.npy", values)), values)


class Runs:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("call", [os.mkdir, eval, exec, getattr, np.load, np.fromfile])
def test_a_malicious_pickle_is_refused_and_does_not_run(tmp_path, call):
    target = tmp_path / "made"
    argument = str(target) if call is os.mkdir else f"__import__('os').mkdir({str(target)!r})"
    path = save(tmp_path / "a.npy", {"betasmd": np.zeros(3), "extra": Runs(call, argument)})
    with pytest.raises(FileFormatError, match="it was not run") as caught:
        load_pickled_npy(path)
    assert call.__name__ in str(caught.value)
    assert not target.exists()
    if call in (eval, os.mkdir):  # the same file does run where it is trusted: the test would notice
        np.load(path, allow_pickle=True)
        assert target.exists()


def raw(path, program):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(program)
    return path


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy\ndtype\n(V\x66\x34\ntR(I3\nV<\nVx\nNNI-1\nI-1\nI0\ntb.",  # a dtype with a subtype
        b"cnumpy\ndtype\n}Vresolve\nI1\nsb.",  # rewrites a stand-in
        b"cnumpy\ndtype\n(N}Vresolve\nI1\nstb.",  # the same through slots
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I9999999\ntcnumpy\ndtype\n(Vf4\ntRI00\nVab\ntb.",  # wrong size
        b"cnumpy\ndtype\n(VV9999\ntR.",
        b"P1\n.",
        b"cnumpy\nndarray\n(tR.",
        b"garbage",
        b"",
    ],
)
def test_crafted_programs_end_in_an_error_of_ours(tmp_path, program):
    with pytest.raises(FileFormatError):
        load_pickled_npy(raw(tmp_path / "a.npy", program))


P = b"\x80\x04"
# A tuple of two tuples of two tuples …, and such lists: small in the file and in memory, endless to hash or to show.
TUPLES = b"K\x01\x85q\x00" + 60 * b"0h\x00h\x00\x86q\x00"
LISTS = b"]K\x01aq\x00" + 60 * b"0](h\x00h\x00eq\x00"
WITHOUT_END = {
    "a tuple for a key": (P + b"}" + TUPLES + b"K\x01s.", "a tuple as a key"),
    "a tuple for a key, many at once": (P + b"}(" + TUPLES + b"K\x01u.", "a tuple as a key"),
    "a tuple for a key, in the oldest way": (P + b"(" + TUPLES + b"K\x01d.", "a tuple as a key"),
    "a tuple for a key of an ordered dictionary": (
        P + b"ccollections\nOrderedDict\n](" + TUPLES + b"K\x01\x86e\x85R.",
        "a tuple as a key",
    ),
    "a set": (P + b"\x8f(" + TUPLES + b"\x90.", "holds a set"),
    "a set that stays": (P + b"(" + TUPLES + b"\x91.", "holds a set"),
    "a type": (P + b"cnumpy\ndtype\n" + LISTS + b"\x85R.", "the type of numbers by a list"),
    "a byte order": (
        P + b"cnumpy\ndtype\nU\x02f4\x85R(K\x03" + LISTS + b"NNNK\xffK\xffK\x00tb.",
        "the byte order of numbers by a list",
    ),
    "an encoding": (P + b"c_codecs\nencode\nX\x01\x00\x00\x00a" + LISTS + b"\x86R.", "by a list"),
    "a list in itself": (P + b"]q\x00h\x00a.", "recursion"),
    "lists in lists in lists": (P + b"]" * 20_000 + b"a" * 19_999 + b".", "recursion"),
}


@pytest.mark.parametrize("case", WITHOUT_END)
def test_what_would_be_read_for_ever_is_refused_at_once(tmp_path, case):
    program, said = WITHOUT_END[case]
    with pytest.raises(FileFormatError, match=said) as caught:
        load_pickled_npy(raw(tmp_path / "a.npy", program))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "program",
    [
        P + b"\x8e" + (2**40).to_bytes(8, "little") + b"abc.",  # bytes
        P + b"\x8d" + (2**40).to_bytes(8, "little") + b"abc.",  # text
        P + b"\x96" + (2**34).to_bytes(8, "little") + b"abc.",  # bytes that can be changed
        P + b"\x95" + (2**40).to_bytes(8, "little") + b"N.",  # a frame
        P + b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"abc.",  # a number
    ],
)
def test_what_is_not_in_the_file_takes_no_memory(tmp_path, program):
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="are left"):
            load_pickled_npy(raw(tmp_path / "a.npy", program))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_number_for_an_object_sets_no_memory_aside(tmp_path):
    """Objects are numbered as a file likes; C's unpickler keeps room for as many as the largest number."""
    assert load_pickled_npy(raw(tmp_path / "a.npy", P + b"K\x07r\xff\xff\xff\x7f.")) == 7


def test_lists_of_one_length_in_an_array_of_objects(tmp_path):
    objects = np.empty(2, dtype=object)
    objects[0], objects[1] = [1, 2], [3, 4]
    assert load_pickled_npy(save(tmp_path / "a.npy", objects)).tolist() == [[1, 2], [3, 4]]


def test_names_of_a_file_do_not_break_the_line(tmp_path):
    path = save(tmp_path / "a.npy", {"a\nb" * 50: 1} | dict.fromkeys(range(1000), 1))
    with pytest.raises(InputError, match=r"a ba ba .*<int> and 981 more but no 'betasmd'") as caught:
        GlmsingleBetas(path, None)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileFormatError, match=r"wants to use a b\.c d,"):
        load_pickled_npy(raw(path, P + b"\x8c\x03a\nb\x8c\x03c\nd\x93."))


def test_missing_and_truncated_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_pickled_npy(tmp_path / "nothing.npy")
    path = save(tmp_path / "a.npy", {"betasmd": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileFormatError, match="not a readable"):
        load_pickled_npy(path)
