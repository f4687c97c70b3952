import numpy as np
import pytest
from safetensors.numpy import save_file

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.tensorfile import read_tensors, write_tensors

KIND = "test/1"


@pytest.fixture
def file(tmp_path, rng):
    path = tmp_path / "a.safetensors"
    arrays = {"w": rng.standard_normal((3, 4)).astype(np.float32), "flag": np.array(True), "n": np.array(7)}
    write_tensors(path, KIND, arrays, {"név": ["a", 1]})
    return path, arrays


def test_arrays_and_header_come_back_exactly(file):
    path, arrays = file
    read, header = read_tensors(path, KIND)
    assert header == {"név": ["a", 1]}
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


def test_the_same_content_gives_the_same_bytes(file, tmp_path):
    path, arrays = file
    write_tensors(tmp_path / "b.safetensors", KIND, dict(reversed(arrays.items())), {"név": ["a", 1]})
    assert (tmp_path / "b.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 40, 0.5, 0.99])
def test_truncation_is_one_clear_line(file, keep):
    path, _ = file
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(FileFormatError, match=r"truncated|is empty") as caught:
        read_tensors(path, KIND)
    assert "\n" not in str(caught.value)


def test_one_changed_bit_is_noticed(file):
    path, _ = file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="checksum"):
        read_tensors(path, KIND)


def test_other_kinds_are_named(file, tmp_path):
    path, _ = file
    with pytest.raises(FileFormatError, match="not a test/2 file: it is test/1"):
        read_tensors(path, "test/2")
    save_file({"a": np.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(FileFormatError, match="another program"):
        read_tensors(tmp_path / "foreign.safetensors", KIND)
    with pytest.raises(InputError, match="does not exist"):
        read_tensors(tmp_path / "none.safetensors", KIND)


def test_a_name_that_is_no_text_does_not_stop_a_file_from_being_written(tmp_path):
    write_tensors(tmp_path / "a.safetensors", KIND, {"w": np.zeros(2)}, {"weights": "a\udcff", "é": 1})
    assert read_tensors(tmp_path / "a.safetensors", KIND)[1] == {"weights": "a\udcff", "é": 1}
