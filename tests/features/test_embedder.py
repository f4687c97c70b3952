"""`ImageEmbedder` as users see it: any input, any batch size, any interruption, the same features."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from braincorl.errors import InputError
from braincorl.features import GaborConfig, ImageEmbedder, check_same_space, load_features
from braincorl.features.backbones.network import Placement, choose_placement
from braincorl.features.backbones.prompts import TEMPLATES, embed_prompts, resolve_templates
from braincorl.models import hardware

SMALL = GaborConfig(image_size=32, frequencies=(2, 4), n_orientations=4)


def gabor(**options):
    return ImageEmbedder("gabor", gabor=SMALL, **options)


def again(embedder, **options):
    return ImageEmbedder("open_clip:tiny-clip", weights="random:3", precision="float32", **options)


@pytest.mark.parametrize("backbone", ["open_clip:tiny-clip", "timm:test_vit", "timm:test_resnet"])
def test_the_batch_size_changes_nothing(backbone, tiny_clip, pixels):
    features = [
        ImageEmbedder(backbone, weights="random:3", precision="float32", batch_size=size, workers=workers)
        .embed(pixels)
        .features
        for size, workers in ((1, 1), (4, 3), (11, 2), ("auto", "auto"))
    ]
    for other in features[1:]:
        np.testing.assert_allclose(other, features[0], atol=1e-5)


def test_gabor_features_are_equal_to_the_bit_at_any_batch_size(pixels):
    one = gabor(batch_size=1).embed(pixels).features
    np.testing.assert_array_equal(gabor(batch_size=5).embed(pixels).features, one)


def test_every_input_gives_the_same_features(clip_embedder, pixels, picture_folder, tmp_path):
    with h5py.File(tmp_path / "brick.h5", "w") as file:
        file["pictures"] = pixels
    arrays = clip_embedder.embed(pixels)
    folder = clip_embedder.embed(picture_folder)
    brick = clip_embedder.embed(tmp_path / "brick.h5", dataset="pictures", rows=[10, 3])
    np.testing.assert_array_equal(folder.features, arrays.features)
    np.testing.assert_allclose(brick.features, arrays.select(["10", "3"]).features, atol=1e-6)  # another batch
    assert folder.provenance == brick.provenance == arrays.provenance


def test_the_provenance_says_what_was_done(clip_embedder, pixels):
    provenance = clip_embedder.embed(pixels).provenance
    assert set(provenance) == {
        "backbone",
        "made_by",
        "weights",
        "weights_sha256",
        "preprocessing",
        "layer",
        "pooling",
        "normalized",
        "n_features",
        "precision",
        "versions",
    }
    assert provenance["backbone"] == "open_clip:tiny-clip"
    assert provenance["n_features"] == 24
    assert provenance["normalized"] is True
    assert provenance["preprocessing"].startswith("RGB over #ffffff; open_clip: interpolation bicubic; mean 0.481")
    assert len(provenance["weights_sha256"]) == 64
    assert provenance["versions"]["torch"] == torch.__version__.partition("+")[0]


@pytest.mark.parametrize(
    "change",
    [
        {"normalize": False},
        {"layer": "transformer.resblocks.0"},
        {"weights": "random:4"},
        {"background": "black"},
    ],
)
def test_features_made_differently_are_another_space(change, clip_embedder, pixels):
    options = {"weights": "random:3", "precision": "float32"} | change
    other = ImageEmbedder("open_clip:tiny-clip", **options).embed(pixels[:2])
    with pytest.raises(InputError, match="the encoder was made with"):
        check_same_space(other.provenance, clip_embedder.provenance, "the encoder")


def test_texts_are_in_the_images_space_but_not_in_a_layers(clip_embedder):
    text = clip_embedder.embed_text(["a face"])
    check_same_space(text.provenance, clip_embedder.provenance, "the encoder")
    layer = again(clip_embedder, layer="transformer.resblocks.0")
    with pytest.raises(InputError, match="layer"):
        check_same_space(text.provenance, layer.provenance, "the encoder")


def test_unit_length_is_the_default_of_clip_and_a_choice_elsewhere(clip_embedder, pixels):
    np.testing.assert_allclose(np.linalg.norm(clip_embedder.embed(pixels).features, axis=1), 1, atol=1e-6)
    raw, unit = gabor().embed(pixels).features, gabor(normalize=True).embed(pixels).features
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


def test_bf16_is_close_to_float32(clip_embedder, pixels):
    half = ImageEmbedder("open_clip:tiny-clip", weights="random:3", precision="bf16")
    cosine = (half.embed(pixels).features * clip_embedder.embed(pixels).features).sum(axis=1)
    assert cosine.min() > 0.999
    assert half.provenance["precision"] == "bfloat16"
    np.testing.assert_allclose(
        (half.embed_text(["a face"]).features * clip_embedder.embed_text(["a face"]).features).sum(), 1, atol=1e-3
    )


def test_precision_follows_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_units, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(hardware, "multiplies_bfloat16", lambda _, has_units=has_units: has_units)
        assert choose_placement() == Placement("cpu", expected)
    assert choose_placement("cpu", "float32").precision == "float32"


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [("meta", "auto", "computes nothing"), ("toaster", "auto", "cannot be used"), ("cpu", "float64", "must be one of")],
)
def test_a_place_where_nothing_can_be_computed_is_refused(device, precision, message):
    with pytest.raises(InputError, match=message):
        choose_placement(device, precision)


# -- files and interruptions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".npz", ".h5", ".safetensors"])
def test_an_output_file_holds_the_features_and_nothing_else_is_left(ending, pixels, tmp_path):
    table = gabor().embed(pixels, output=tmp_path / f"f{ending}")
    back = load_features(tmp_path / f"f{ending}")
    np.testing.assert_array_equal(back.features, gabor().embed(pixels).features)
    assert back.provenance == table.provenance == gabor().provenance
    assert [path.name for path in tmp_path.iterdir()] == [f"f{ending}"]


class StoppedError(Exception):
    pass


def stop_after(n):
    def progress(done, _total):
        if done >= n:
            raise StoppedError

    return progress


def test_an_interrupted_run_goes_on_where_it_stopped(picture_folder, tmp_path):
    output = tmp_path / "f.npz"
    with pytest.raises(StoppedError):
        gabor(batch_size=3).embed(picture_folder, output=output, progress=stop_after(6))
    assert not output.exists()
    seen = []
    table = gabor(batch_size=2).embed(picture_folder, output=output, progress=lambda done, total: seen.append(done))
    assert seen[0] == 6  # what is reported as done is kept
    np.testing.assert_array_equal(table.features, gabor().embed(picture_folder).features)
    assert not (tmp_path / "f.npz.partial").exists()


KILLED = """
import os, sys
from braincorl.features import GaborConfig, ImageEmbedder
config = GaborConfig(image_size=32, frequencies=(2, 4), n_orientations=4)
def progress(done, total):
    if done >= 8:
        os.kill(os.getpid(), 9)
ImageEmbedder("gabor", gabor=config, batch_size=2).embed(sys.argv[1], output=sys.argv[2], progress=progress)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_run_goes_on_where_it_stopped(picture_folder, tmp_path):
    output = tmp_path / "f.h5"
    done = subprocess.run([sys.executable, "-c", KILLED, picture_folder, output], check=False)
    assert done.returncode == -9
    seen = []
    table = gabor().embed(picture_folder, output=output, progress=lambda done, total: seen.append(done))
    assert seen[0] == 8
    np.testing.assert_array_equal(table.features, gabor().embed(picture_folder).features)


def test_changed_images_or_options_are_noticed_when_going_on(picture_folder, tmp_path, pixels):
    output = tmp_path / "f.npz"
    with pytest.raises(StoppedError):
        gabor(batch_size=3).embed(picture_folder, output=output, progress=stop_after(6))
    with pytest.raises(InputError, match="another normalized"):
        gabor(normalize=True).embed(picture_folder, output=output)
    Image.fromarray(255 - pixels[0]).save(picture_folder / "img0.png")
    with pytest.raises(InputError, match="images 1 to 3 one or more changed"):
        gabor().embed(picture_folder, output=output)
    table = gabor().embed(picture_folder, output=output, restart=True)
    np.testing.assert_array_equal(table.features, gabor().embed(picture_folder).features)


def test_a_damaged_image_can_be_mended_or_left_out_without_losing_the_work_before_it(picture_folder, tmp_path):
    output, damaged = tmp_path / "f.npz", picture_folder / "img7.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    for _ in range(2):
        with pytest.raises(InputError, match=r"img7\.png is damaged"):
            gabor(batch_size=2).embed(picture_folder, output=output)
    damaged.write_bytes(whole)
    seen = []
    table = gabor().embed(picture_folder, output=output, progress=lambda done, total: seen.append(done))
    assert seen[0] == 6
    np.testing.assert_array_equal(table.features, gabor().embed(picture_folder).features)


def test_a_run_that_leaves_images_out_is_not_finished_as_one_that_does_not(picture_folder, tmp_path):
    (picture_folder / "img1.png").write_bytes(b"")
    with pytest.raises(StoppedError):
        gabor(batch_size=3).embed(
            picture_folder, output=tmp_path / "f.npz", skip_unreadable=True, progress=stop_after(6)
        )
    with pytest.raises(InputError, match="leaves out images"):
        gabor().embed(picture_folder, output=tmp_path / "f.npz")
    assert len(gabor().embed(picture_folder, output=tmp_path / "f.npz", skip_unreadable=True).image_ids) == 10


@pytest.mark.parametrize("output", [None, "f.npz"])
def test_unreadable_images_end_the_run_or_are_left_out(output, picture_folder, tmp_path):
    (picture_folder / "img3.png").write_bytes(b"")
    options = {"output": None if output is None else tmp_path / output}
    with pytest.raises(InputError, match=r"img3\.png is empty"):
        gabor().embed(picture_folder, **options)
    table = gabor().embed(picture_folder, skip_unreadable=True, restart=True, **options)
    assert len(table.features) == 10
    assert "img3.png" not in table.image_ids
    (picture_folder / "img3.png").unlink()
    np.testing.assert_array_equal(table.features, gabor().embed(picture_folder).features)


def test_a_run_without_one_readable_image_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError, match="none of the 1 images could be read"):
        gabor().embed(tmp_path, skip_unreadable=True)


def test_an_output_of_unknown_kind_is_refused_before_any_work(pixels, tmp_path):
    with pytest.raises(InputError, match="must end in one of"):
        gabor().embed(pixels, output=tmp_path / "f.csv")
    assert not list(tmp_path.iterdir())


# -- words -------------------------------------------------------------------------------------------------------------


def test_several_templates_are_the_mean_of_unit_embeddings(clip_embedder):
    """Independent implementation, with the model's own text tower."""
    templates = ["a photo of a {}.", "many {}s"]
    single = np.array([clip_embedder.embed_text(["dog"], template).features[0] for template in templates])
    mean = single.mean(axis=0)
    both = clip_embedder.embed_text(["dog"], templates)
    np.testing.assert_allclose(both.features[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert both.provenance["templates"] == templates
    assert both.image_ids.tolist() == ["dog"]


def test_a_template_changes_the_text(clip_embedder):
    plain, photo = (clip_embedder.embed_text(["dog"], name).features for name in ("plain", "photo"))
    whole = clip_embedder.embed_text(["a photo of a dog."]).features
    np.testing.assert_array_equal(photo, whole)
    assert np.abs(plain - photo).max() > 0.01


def test_prompts_are_batched_without_mixing():
    def encode(prompts):
        return np.array([[len(prompt), prompt.count("x") + 1] for prompt in prompts], dtype=np.float32)

    texts = ["x", "yy", "xxx"]
    one = embed_prompts(encode, texts, TEMPLATES["ensemble"], batch_size=1)
    np.testing.assert_array_equal(embed_prompts(encode, texts, TEMPLATES["ensemble"], batch_size=4), one)


def test_text_with_braces_is_text(clip_embedder):
    assert resolve_templates("plain") == resolve_templates(["plain"]) == ("{}",)
    assert resolve_templates(["ensemble"]) == TEMPLATES["ensemble"]
    assert resolve_templates(["photo", "ensemble"]) == TEMPLATES["ensemble"]  # which holds the photo's sentence
    assert resolve_templates(["plain", "many {}s"]) == ("{}", "many {}s")
    assert clip_embedder.embed_text(["{0} {name}"]).features.shape == (1, 24)


@pytest.mark.parametrize(
    ("texts", "templates", "message"),
    [
        ([], "plain", "one or more texts"),
        (["a", " "], "plain", "none of them empty"),
        ("face", "plain", "must be a list"),
        (["a", "a"], "plain", "names must differ"),
        (["a"], "a photo", "exactly one"),
        (["a"], ["{} {}"], "exactly one"),
        (["a"], [], "templates is empty"),
    ],
)
def test_texts_that_cannot_be_meant_are_refused(texts, templates, message, clip_embedder):
    with pytest.raises(InputError, match=message):
        clip_embedder.embed_text(texts, templates)


def test_a_backbone_without_language_says_so():
    with pytest.raises(InputError, match="embeds no text"):
        gabor().embed_text(["a face"])


def test_importing_features_loads_no_network_library():
    code = (
        "import sys, braincorl.features; print([m for m in ('torch', 'timm', 'open_clip', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- real pictures -----------------------------------------------------------------------------------------------------


def test_real_pictures_through_every_input(real_data, clip_embedder, tmp_path):
    """Small photographs from an array, PNG files and an HDF5 brick: equal features, and equal Gabor energies."""
    pictures = np.load(real_data / "clip_vitb32" / "cifar10_500.npz")["images"][:40]
    (tmp_path / "png").mkdir()
    for row, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "png" / f"{row:03}.png")
    with h5py.File(tmp_path / "brick.hdf5", "w") as file:
        file["imgBrick"] = pictures
    for embedder in (clip_embedder, gabor()):
        expected = embedder.embed(pictures).features
        for images in (tmp_path / "png", sorted((tmp_path / "png").iterdir()), tmp_path / "brick.hdf5"):
            np.testing.assert_array_equal(embedder.embed(images).features, expected)
