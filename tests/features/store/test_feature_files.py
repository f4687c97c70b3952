import contextlib
import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hdf5 import elsewhere
from safetensors.numpy import save_file

from braincorl.errors import FileFormatError, InputError, OutputError
from braincorl.features import FeatureTable, check_same_space, load_features, save_features
from braincorl.features.store.feature_files import read_names, write_matrix
from braincorl.features.store.table import row_blocks

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
    assert isinstance(back.features, np.memmap) == (mapped is True and ending == ".h5")
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
            header = json.loads(json.loads(file.metadata()["braincorl"])["header"])
            features, names = file.get_tensor("features"), header["image_ids"]
    np.testing.assert_array_equal(features, table.features)
    assert names == table.image_ids.tolist()


@pytest.mark.parametrize("ending", ENDINGS)
def test_equal_features_make_equal_files(ending, table, tmp_path):
    for name in ("a", "b"):
        save_features(tmp_path / f"{name}{ending}", table)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


@pytest.mark.parametrize("mapped", [True, False])
def test_only_keeps_the_named_rows_in_their_order(mapped, table, tmp_path):
    save_features(tmp_path / "f.h5", table)
    names = table.image_ids[[4, 0, 6]]
    some = load_features(tmp_path / "f.h5", only=names, mapped=mapped)
    np.testing.assert_array_equal(some.features, table.features[[4, 0, 6]])
    np.testing.assert_array_equal(some.features, table.select(names).features)
    assert not isinstance(some.features, np.memmap)
    with pytest.raises(InputError, match="1 of 1 images have no features"):
        load_features(tmp_path / "f.h5", only=["none"], mapped=mapped)


def test_files_of_other_programs_are_mapped_where_they_can_be(table, tmp_path):
    np.savez_compressed(tmp_path / "c.npz", features=table.features, image_ids=table.image_ids)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("features", data=table.features, chunks=(2, 5), compression="gzip")
        file["image_ids"] = table.image_ids.tolist()
    hdf5(tmp_path / "m.h5", table)
    np.savez(tmp_path / "f.npz", features=np.asfortranarray(table.features), image_ids=table.image_ids)
    np.save(tmp_path / "f.npy", table.features)
    (tmp_path / "ids.txt").write_text("\n".join(table.image_ids))
    for name, is_mapped in (("c.npz", False), ("c.h5", False), ("m.h5", True), ("f.npz", False), ("f.npy", True)):
        names = tmp_path / "ids.txt" if name == "f.npy" else None
        features = load_features(tmp_path / name, names, mapped=True).features
        assert isinstance(features, np.memmap) == is_mapped
        np.testing.assert_array_equal(features, table.features)


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
    hdf5(tmp_path / "f.h5", table, features=spoiled)
    with pytest.raises(InputError, match="NaN"):
        load_features(tmp_path / "f.h5", mapped=True)


def test_blocks_of_rows_make_up_the_matrix(rng, monkeypatch):
    monkeypatch.setenv("BRAINCORL_MEMORY", f"{64 * 5 * 32} B")
    matrix = rng.standard_normal((23, 4))
    blocks = list(row_blocks(matrix))
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
    path = tmp_path / "large.h5"
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
        (hdf5, {"features": None}, "'features' is a group, expected an array"),
        (hdf5, {"image_ids": None}, "'image_ids' is a group, expected an array"),
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


# -- damage, and files that reach for others ---------------------------------------------------------------------------


def same(back, table):
    return (
        np.array_equal(back.features, table.features)
        and back.image_ids.tolist() == table.image_ids.tolist()
        and back.provenance == table.provenance
    )


def flips(content, n, rng):
    """The content with one bit changed: in every byte of its first 160, and in some of the others."""
    places = [*range(min(160, len(content))), *rng.integers(0, len(content), n).tolist()]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("mapped", [True, False])
def test_no_flipped_bit_gives_other_features_in_silence(ending, mapped, table, tmp_path, rng):
    path = tmp_path / f"features{ending}"
    save_features(path, table)
    refused = 0
    for content in flips(path.read_bytes(), 120, rng):
        path.write_bytes(content)
        try:
            back = load_features(path, mapped=mapped)
        except InputError:
            refused += 1
        else:
            assert same(back, table)
    assert refused > 50


@pytest.mark.parametrize("write", ["npy", "npz by numpy", "h5 by others", "safetensors by others"])
def test_damage_to_files_of_other_programs_ends_in_an_error_of_ours(write, table, tmp_path, rng):
    path = tmp_path / {"npy": "f.npy", "npz by numpy": "f.npz", "h5 by others": "f.h5"}.get(write, "f.safetensors")
    (tmp_path / "ids.txt").write_text("\n".join(table.image_ids))
    {"f.npy": lambda: np.save(path, table.features), "f.npz": lambda: npz(path, table),
     "f.h5": lambda: hdf5(path, table), "f.safetensors": lambda: tensors(path, table)}[path.name]()  # fmt: skip
    for content in flips(path.read_bytes(), 40, rng):
        path.write_bytes(content)
        with contextlib.suppress(InputError, MemoryError):  # anything else is a bug
            load_features(path, tmp_path / "ids.txt" if write == "npy" else None)


@pytest.mark.parametrize("ending", [".h5", ".safetensors"])
def test_files_without_a_checksum_are_read_with_a_note(ending, table, tmp_path, caplog):
    caplog.set_level("INFO")
    save_features(tmp_path / f"new{ending}", table)
    load_features(tmp_path / f"new{ending}")
    assert caplog.text == ""
    (hdf5 if ending == ".h5" else tensors)(tmp_path / f"old{ending}", table)
    load_features(tmp_path / f"old{ending}")
    assert "was written without a checksum" in caplog.text


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_come_in_blocks_have_the_same_checksum(ending, table, tmp_path):
    save_features(tmp_path / f"a{ending}", table)
    parts = iter([table.features[:3], table.features[3:].astype("f8")])
    write_matrix(tmp_path / f"b{ending}", parts, (7, 5), table.image_ids.tolist(), PROVENANCE)
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert same(load_features(tmp_path / f"b{ending}"), table)


@pytest.mark.parametrize("layout", ["virtual", "external", "link", "link to nothing"])
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("present", [True, False])
def test_features_that_lie_in_another_file_are_refused(table, tmp_path, layout, mapped, present):
    """A missing source would read as zeros, and a present one may be any file."""
    path = elsewhere(tmp_path, "features", table.features, layout)
    if not present:
        for name in ("source.h5", "raw.bin"):
            (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(FileFormatError, match=r"another file|other files"):
        load_features(path, mapped=mapped)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_types_that_numpy_does_not_know_are_named(table, tmp_path, kind):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    ids = json.dumps(table.image_ids.tolist())
    save_torch({"features": torch.ones(7, 5).to(getattr(torch, kind))}, tmp_path / "f.safetensors", {"image_ids": ids})
    with pytest.raises(InputError, match="which NumPy does not know: save them as float32"):
        load_features(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    "header",
    ["[]", "3", '{"features": {}}', "{", '"a"', '{"__metadata__": {"braincorl": "[]"}}', '{"__metadata__": 3}'],
)
def test_a_crafted_header_gets_one_line(tmp_path, header):
    content = header.encode()
    (tmp_path / "f.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)
    with pytest.raises(InputError, match=r"f\.safetensors") as caught:
        load_features(tmp_path / "f.safetensors")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("reader", ["features", "names"])
@pytest.mark.parametrize("kind", ["pipe", "device", "endless device", "folder", "empty", "nothing", "link"])
def test_only_regular_files_are_read(tmp_path, reader, kind):
    path = tmp_path / ("f.npz" if reader == "features" else "f.txt")
    make = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/null"),
        "endless device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "empty": path.touch,
        "nothing": lambda: None,
        "link": lambda: path.symlink_to(tmp_path / "gone"),
    }
    make[kind]()
    with pytest.raises(InputError) as caught:
        load_features(path) if reader == "features" else read_names(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a\tb", "a\nb", "a\rb", "a\x0bb", "a\x85b", "a\u2028b", "a\u2029b", "\x1b[31m", "=1", "@a", ""]
)
def test_names_that_would_break_a_table_are_refused(table, name):
    names = table.image_ids.tolist()
    with pytest.raises(InputError, match="name it"):
        FeatureTable(table.features, np.array([*names[:-1], name]))


@pytest.mark.parametrize("name", ["a b", "日本.png", "a=b", "a@b", "-1", "+1", "naïve é", "a'b", 'a"b', "a\xa0b"])
def test_other_names_are_kept(table, name):
    assert FeatureTable(table.features, np.array([*table.image_ids[:-1], name])).image_ids[-1] == name


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_name_has_one_spelling_in_every_container(ending, table, tmp_path):
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    names = np.array([decomposed, *table.image_ids[1:]])
    save_features(tmp_path / f"f{ending}", FeatureTable(table.features, names))
    assert load_features(tmp_path / f"f{ending}").image_ids[0] == composed
    (tmp_path / "names.txt").write_text(decomposed)
    assert read_names(tmp_path / "names.txt") == [composed]
    both = FeatureTable(table.features, np.array([composed, *names[:-1]]))
    save_features(tmp_path / f"g{ending}", both)
    with pytest.raises(InputError, match="2 times"):
        load_features(tmp_path / f"g{ending}")


def test_provenance_of_numpys_and_paths_is_written(table, tmp_path):
    provenance = {"seed": np.int64(3), "scale": np.float32(0.5), "from": tmp_path, "rows": range(3), "x": np.arange(2)}
    for ending in ENDINGS:
        save_features(tmp_path / f"f{ending}", FeatureTable(table.features, table.image_ids, provenance))
        back = load_features(tmp_path / f"f{ending}").provenance
        assert back == {"seed": 3, "scale": 0.5, "from": str(tmp_path), "rows": [0, 1, 2], "x": [0, 1]}


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from braincorl.errors import OutputError
from braincorl.features.store.feature_files import write_matrix
folder, X = Path(sys.argv[1]), np.ones((200, 50), dtype="f4")
write_matrix(folder / "x.h5", [X], X.shape, [f"i{k}" for k in range(200)], {})
before, refused = (folder / "x.h5").read_bytes(), 0
for limit in (0, 1, 100, 800, 2048, 4096, 20_000, 40_000, 41_000, 43_000, len(before) - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        write_matrix(folder / "x.h5", [X[:99], X[99:]], X.shape, [f"j{k}" for k in range(200)], {})
    except OutputError as error:
        refused += "File too large" in str(error)
    assert (folder / "x.h5").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["x.h5"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(refused)
"""


def test_an_hdf5_file_that_cannot_grow_is_refused_and_the_earlier_one_stays(tmp_path):
    """In a process of its own, as the library used to bring it down."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "11\n", "")


def test_safetensors_of_earlier_versions_are_held_to_their_checksum(tmp_path):
    # Digits of the version that wrote such files, of these numbers.
    digits = "99754ed2d2e78572bf61833673132f32f091714b8de63eb3613bfdd78356a3d1"
    path, names = tmp_path / "f.safetensors", json.dumps(["é", "b"])
    features = np.arange(6, dtype="<f4").reshape(2, 3)
    metadata = {"image_ids": names, "provenance": "{}", "sha256": digits}
    save_file({"features": features}, path, metadata)
    np.testing.assert_array_equal(load_features(path).features, features)
    for spoiled in ({"features": features + 1}, {"metadata": metadata | {"image_ids": json.dumps(["é", "c"])}}):
        save_file({"features": spoiled.get("features", features)}, path, spoiled.get("metadata", metadata))
        with pytest.raises(FileFormatError, match="fails its checksum"):
            load_features(path)
