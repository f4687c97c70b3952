import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.features import FeatureTable, check_same_space, load_features, save_features
from braincorl.features.containers import map_matrix, row_blocks, write_matrix

PROVENANCE = {"backbone": "gabor", "weights": "w", "normalized": False, "n_features": 5}
ENDINGS = (".npz", ".h5", ".safetensors")


@pytest.fixture
def table(rng):
    features = rng.standard_normal((7, 5)).astype(np.float32)
    return FeatureTable(features, np.array([f"bild é {row}.png" for row in range(7)]), PROVENANCE)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mapped", [None, True, False])
def test_every_container_gives_back_what_was_put_in(ending, mapped, table, tmp_path):
    path = tmp_path / f"features{ending}"
    save_features(path, table)
    back = load_features(path, mapped=mapped)
    np.testing.assert_array_equal(back.features, table.features)
    assert back.image_ids.tolist() == table.image_ids.tolist()
    assert back.provenance == PROVENANCE
    assert isinstance(back.features, np.memmap) == (mapped is True)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
def test_other_programs_read_the_containers(ending, table, tmp_path):
    """Independent readers: NumPy, h5py and safetensors themselves."""
    path = tmp_path / f"features{ending}"
    save_features(path, table)
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:
            features, names = file["features"], file["image_ids"].tolist()
    elif ending == ".h5":
        with h5py.File(path) as file:
            features, names = file["features"][:], file["image_ids"].asstr()[:].tolist()
    else:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            features, names = file.get_tensor("features"), json.loads(file.metadata()["image_ids"])
    np.testing.assert_array_equal(features, table.features)
    assert names == table.image_ids.tolist()


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_features_make_equal_files(ending, table, tmp_path):
    for name in ("a", "b"):
        save_features(tmp_path / f"{name}{ending}", table)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.mark.parametrize("mapped", [True, False])
def test_only_keeps_the_named_rows_in_their_order(mapped, table, tmp_path):
    save_features(tmp_path / "f.npz", table)
    names = table.image_ids[[4, 0, 6]]
    some = load_features(tmp_path / "f.npz", only=names, mapped=mapped)
    np.testing.assert_array_equal(some.features, table.features[[4, 0, 6]])
    np.testing.assert_array_equal(some.features, table.select(names).features)
    assert not isinstance(some.features, np.memmap)
    with pytest.raises(InputError, match="1 of 1 images have no features"):
        load_features(tmp_path / "f.npz", only=["none"], mapped=mapped)


def test_compressed_and_chunked_files_are_read_though_they_cannot_be_mapped(table, tmp_path):
    np.savez_compressed(tmp_path / "c.npz", features=table.features, image_ids=table.image_ids)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("features", data=table.features, chunks=(2, 5), compression="gzip")
        file["image_ids"] = table.image_ids.tolist()
    fortran = np.asfortranarray(table.features)
    np.savez(tmp_path / "f.npz", features=fortran, image_ids=table.image_ids)
    for name in ("c.npz", "c.h5", "f.npz"):
        assert map_matrix(tmp_path / name) is None
        np.testing.assert_array_equal(load_features(tmp_path / name, mapped=True).features, table.features)


def test_numpys_own_npz_and_npy_can_be_mapped(table, tmp_path):
    np.savez(tmp_path / "f.npz", image_ids=table.image_ids, features=table.features)
    np.save(tmp_path / "f.npy", table.features)
    np.testing.assert_array_equal(map_matrix(tmp_path / "f.npz"), table.features)
    np.testing.assert_array_equal(map_matrix(tmp_path / "f.npy"), table.features)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mapped", [True, False])
def test_a_truncated_file_is_named_as_damaged(ending, mapped, table, tmp_path):
    path = tmp_path / f"features{ending}"
    save_features(path, table)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(FileFormatError, match="features"):
        load_features(path, mapped=mapped)


def test_a_failed_write_leaves_the_earlier_file(table, tmp_path):
    path = tmp_path / "features.npz"
    save_features(path, table)
    before = path.read_bytes()

    def blocks():
        yield table.features[:3]
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_matrix(path, blocks(), (7, 5), table.image_ids.tolist(), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_found_in_a_mapped_file(table, tmp_path):
    spoiled = table.features.copy()
    spoiled[6, 4] = np.nan
    np.savez(tmp_path / "f.npz", features=spoiled, image_ids=table.image_ids)
    with pytest.raises(InputError, match="NaN"):
        load_features(tmp_path / "f.npz", mapped=True)


def test_blocks_of_rows_make_up_the_matrix(rng):
    matrix = rng.standard_normal((23, 4))
    blocks = list(row_blocks(matrix, block_bytes=5 * 32))
    assert [len(block) for block in blocks] == [5, 5, 5, 5, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), matrix)


def test_an_unknown_ending_is_refused(table, tmp_path):
    with pytest.raises(InputError, match=r"must end in one of .npz"):
        save_features(tmp_path / "features.csv", table)


MEASURE = """
import resource, sys
import numpy as np
from braincorl.features import load_features
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = load_features(sys.argv[1], mapped=True)
some = table.select(table.image_ids[np.random.default_rng(0).permutation(40_000)[:1000]])
assert np.isfinite(some.features).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured as Linux counts it")
def test_a_large_file_is_read_in_bounded_memory(tmp_path):
    """160 MB of features, checked and read in part, take a fraction of that."""
    path = tmp_path / "large.npz"
    block = np.ones((1000, 1000), dtype=np.float32)
    write_matrix(path, (block for _ in range(40)), (40_000, 1000), [str(row) for row in range(40_000)], {})
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50


# -- one space ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("backbone", "timm:resnet18"),
        ("weights", "laion"),
        ("preprocessing", "squash"),
        ("layer", "blocks.3"),
        ("pooling", "cls"),
        ("normalized", False),
        ("n_features", 768),
    ],
)
def test_every_difference_in_the_space_is_refused_naming_both_sides(key, other):
    made = {
        "backbone": "open_clip:ViT-B-32",
        "weights": "openai",
        "preprocessing": "crop",
        "layer": "output",
        "pooling": "projection",
        "normalized": True,
        "n_features": 512,
    }
    check_same_space(made, dict(made), "the encoder")
    with pytest.raises(InputError, match="the encoder was made with") as caught:
        check_same_space({**made, key: other}, made, "the encoder")
    assert str(other) in str(caught.value)
    assert str(made[key]) in str(caught.value)


def test_the_hash_of_the_weights_decides_over_their_name():
    tag = {"weights": "openai", "weights_sha256": "1"}
    check_same_space({"weights": "clip.safetensors", "weights_sha256": "1"}, tag, "the encoder")
    with pytest.raises(InputError, match="weights"):
        check_same_space({"weights": "openai", "weights_sha256": "2"}, tag, "the encoder")


def test_features_without_provenance_pass():
    check_same_space({}, {"backbone": "gabor"}, "the encoder")


def npz(path, table, **changes):
    np.savez(path, **{"features": table.features, "image_ids": table.image_ids, **changes})


def hdf5(path, table, **changes):
    with h5py.File(path, "w") as file:
        for name, value in {"features": table.features, "image_ids": table.image_ids.tolist(), **changes}.items():
            file.create_group(name) if value is None else file.create_dataset(name, data=value)


def tensors(path, table, **metadata):
    names = json.dumps(table.image_ids.tolist())
    save_file({"features": table.features}, path, metadata={"image_ids": names, **metadata})


@pytest.mark.parametrize(
    ("write", "changes", "message"),
    [
        (npz, {"provenance": "[1]"}, "provenance is a list, expected a JSON object"),
        (npz, {"provenance": 3}, "provenance is a int"),
        (npz, {"image_ids": np.array([b"\xff"] * 7)}, "can't decode"),
        (hdf5, {"provenance": 3}, "provenance is a int"),
        (hdf5, {"features": None}, "no array 'features'"),
        (hdf5, {"image_ids": None}, "holds no image_ids"),
        (tensors, {"provenance": "[]"}, "provenance is a list"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_by_name(write, changes, message, table, tmp_path):
    path = tmp_path / {npz: "f.npz", hdf5: "f.h5", tensors: "f.safetensors"}[write]
    write(path, table, **changes)
    with pytest.raises(InputError, match=message) as error:
        load_features(path)
    assert str(path) in str(error.value)


def test_numbers_and_bytes_are_names_in_every_container(table, tmp_path):
    hdf5(tmp_path / "f.h5", table, image_ids=np.arange(7))
    npz(tmp_path / "f.npz", table, image_ids=np.arange(7))
    assert load_features(tmp_path / "f.h5").image_ids.tolist() == load_features(tmp_path / "f.npz").image_ids.tolist()
    npz(tmp_path / "b.npz", table, image_ids=np.char.encode(table.image_ids, "utf-8"))
    assert load_features(tmp_path / "b.npz").image_ids.tolist() == table.image_ids.tolist()
