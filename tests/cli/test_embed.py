"""`braincorl embed` on pictures that the tests make, and its features in `fit` and `predict`."""

import json
import socket

import h5py
import numpy as np
import pytest
from PIL import Image

from braincorl.features import ImageEmbedder, load_features


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def unknown_host(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown_host)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (6, 24, 30, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"img{row}.png")
    return folder


def test_a_folder_becomes_a_feature_file(braincorl, pictures, tmp_path):
    done = braincorl("embed", pictures, "--backbone", "gabor", "--output", tmp_path / "f.npz")
    assert (done.status, done.err) == (0, "")
    assert "6 images, 2728 features" in done.out
    table = load_features(tmp_path / "f.npz")
    expected = ImageEmbedder("gabor").embed(pictures)
    np.testing.assert_array_equal(table.features, expected.features)
    assert table.image_ids.tolist() == [f"img{row}.png" for row in range(6)]
    assert table.provenance == expected.provenance


def test_rows_of_a_brick_and_names_of_ones_own(braincorl, pictures, tmp_path):
    stack = np.stack([np.asarray(Image.open(path)) for path in sorted(pictures.iterdir())])
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["stimuli"] = stack
    (tmp_path / "rows.txt").write_text("4\n1\n")
    (tmp_path / "names.txt").write_text("four\none\n")
    options = ("--dataset", "stimuli", "--rows", tmp_path / "rows.txt", "--image-ids", tmp_path / "names.txt")
    done = braincorl(
        "embed", tmp_path / "b.hdf5", *options, "--backbone", "gabor", "--output", tmp_path / "f.safetensors"
    )
    assert done.status == 0, done.err
    table = load_features(tmp_path / "f.safetensors")
    assert table.image_ids.tolist() == ["four", "one"]
    np.testing.assert_array_equal(table.features, ImageEmbedder("gabor").embed(stack[[4, 1]]).features)


def test_words_become_features_of_the_images_space(braincorl, tmp_path):
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    architecture = json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text})
    (tmp_path / "tiny-words.json").write_text(architecture)
    open_clip.add_model_config(tmp_path / "tiny-words.json")
    backbone = ("--backbone", "open_clip:tiny-words", "--weights", "random:1", "--precision", "float32")
    (tmp_path / "words.txt").write_text("a house\n")
    done = braincorl(
        "embed",
        *("--text", "a face", "a dog", "--text-file", tmp_path / "words.txt"),
        *("--template", "a photo of {}.", "--template", "{}"),
        *(*backbone, "--output", tmp_path / "t.npz"),
    )
    assert (done.status, done.err) == (0, "")
    table = load_features(tmp_path / "t.npz")
    assert table.image_ids.tolist() == ["a face", "a dog", "a house"]
    assert table.provenance["templates"] == ["a photo of {}.", "{}"]
    np.testing.assert_allclose(np.linalg.norm(table.features, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PICTURES", "--backbone", "gabor", "--text", "a"], "either images or --text"),
        (["--backbone", "gabor"], "either images or --text"),
        (["PICTURES", "--backbone", "gabor", "--template", "{}"], "--template applies to --text"),
        (["PICTURES", "--backbone", "nothing"], "backbone 'nothing' is unknown"),
        (["PICTURES", "--backbone", "clip-vit-b32", "--offline"], "downloads are off"),
        (["PICTURES", "--backbone", "clip-vit-b32"], "pass the file as weights"),
        (["PICTURES", "--backbone", "clip-vit-b32", "--weights", "none.pt"], "there is no such file"),
        (["--text", "a", "--backbone", "gabor"], "embeds no text"),
        (["PICTURES", "--backbone", "gabor", "--batch-size", "0"], "whole number of at least 1"),
        (["PICTURES", "--backbone", "gabor", "--precision", "bf16"], "in float32, not on 'auto' in 'bfloat16'"),
        (["PICTURES", "--backbone", "gabor", "--device", "cuda"], "on the processor"),
        (["PICTURES", "--backbone", "gabor", "--precision", "float64"], "invalid choice"),
        (["BROKEN", "--backbone", "gabor", "--skip-unreadable"], "none of the 1 images could be read"),
        (["PICTURES", "--backbone", "gabor", "--batch-size", "x"], "invalid"),
        (["PICTURES", "--backbone", "gabor", "--rows", "NAMES"], "must hold one 0-based row number"),
        (["NOWHERE", "--backbone", "gabor"], "does not exist"),
        (["PICTURES", "--backbone", "gabor", "--normalize", "maybe"], "invalid choice"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(arguments, message, braincorl, pictures, tmp_path):
    (tmp_path / "names.txt").write_text("one\n")
    places = {"PICTURES": pictures, "NAMES": tmp_path / "names.txt", "NOWHERE": tmp_path / "nowhere"}
    places["BROKEN"] = tmp_path / "broken.png"
    places["BROKEN"].write_bytes(b"x")
    before = sorted(tmp_path.rglob("*"))
    done = braincorl("embed", *(places.get(part, part) for part in arguments), "--output", tmp_path / "f.npz")
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("output", ["f.csv", "none/f.npz", "pictures"])
def test_an_output_that_cannot_be_written_is_refused_first(output, braincorl, pictures, tmp_path):
    done = braincorl("embed", pictures, "--backbone", "gabor", "--output", tmp_path / output)
    assert (done.status, done.err.count("\n")) == (2, 1)


def test_an_existing_output_is_kept_unless_told(braincorl, pictures, tmp_path):
    (tmp_path / "f.npz").write_text("precious")
    arguments = ("embed", pictures, "--backbone", "gabor", "--output", tmp_path / "f.npz")
    assert "--overwrite" in braincorl(*arguments).err
    assert (tmp_path / "f.npz").read_text() == "precious"
    assert braincorl(*arguments, "--overwrite").status == 0
    assert load_features(tmp_path / "f.npz").n_features == 2728


def test_a_damaged_image_keeps_what_was_done_for_the_next_run(braincorl, pictures, tmp_path):
    damaged = (pictures / "img4.png").read_bytes()
    (pictures / "img4.png").write_bytes(damaged[:100])
    arguments = ("embed", pictures, "--backbone", "gabor", "--batch-size", "2", "--output", tmp_path / "f.npz")
    done = braincorl(*arguments)
    assert done.status == 2
    assert "img4.png is damaged" in done.err
    assert not (tmp_path / "f.npz").exists()
    (pictures / "img4.png").write_bytes(damaged)
    (pictures / "img0.png").write_bytes(damaged)
    assert "images 1 to 2 one or more changed" in braincorl(*arguments).err
    assert braincorl(*arguments, "--restart").status == 0
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("key", "value"),
    [("weights", "another"), ("normalized", True), ("backbone", "timm:resnet18"), ("preprocessing", "squash")],
)
def test_predict_and_score_refuse_features_that_were_made_differently(key, value, braincorl, inputs, tmp_path):
    provenance = {
        "backbone": "gabor",
        "weights": "32 px",
        "preprocessing": "crop",
        "layer": "output",
        "pooling": "energy",
        "normalized": False,
    }
    with np.load(inputs.features) as file:
        arrays = {name: file[name] for name in ("features", "image_ids")}
    for name, stated in (("same", provenance), ("other", {**provenance, key: value})):
        np.savez(tmp_path / f"{name}.npz", **arrays, provenance=np.array(json.dumps(stated)))
    fitted = braincorl(
        "fit", *inputs.arguments(features=tmp_path / "same.npz"), "--encoder", "ridge", "--output-dir", tmp_path / "fit"
    )
    assert fitted.status == 0, fitted.err
    for verb, options in (
        ("predict", ["--output-dir", tmp_path / "predicted"]),
        ("score", ["--betas", inputs.betas, "--trials", inputs.trials, "--output-dir", tmp_path / "scored"]),
    ):
        done = braincorl(verb, tmp_path / "fit", "--features", tmp_path / "other.npz", *options)
        assert done.status == 2
        assert done.err.count("\n") == 1
        assert str(value) in done.err
        assert str(provenance[key]) in done.err
