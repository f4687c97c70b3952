"""What a user's mistake gets: one line on standard error, exit status 2, and no trace on disk."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image


def copy(inputs, folder, name):
    path = folder / inputs.__dict__[name].name
    shutil.copy(inputs.__dict__[name], path)
    return path


def text(folder, name, content):
    (folder / name).write_text(content)
    return folder / name


def image(folder, name, values, affine):
    nib.save(nib.Nifti1Image(values, affine), folder / name)
    return folder / name


def features(folder, **arrays):
    np.savez(folder / "bad.npz", **arrays)
    return folder / "bad.npz"


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def mask_of(inputs):
    image = nib.load(inputs.mask)
    return np.asarray(image.dataobj), image.affine


def a_mask_of_another_size(i, folder):
    mask, affine = mask_of(i)
    return {"mask": image(folder, "m.nii.gz", mask[:-1], affine)}


def a_mask_elsewhere(i, folder):
    mask, affine = mask_of(i)
    return {"mask": image(folder, "m.nii.gz", mask, affine + np.eye(4) * [0.5, 0.5, 0.5, 0])}


def an_empty_mask(i, folder):
    mask, affine = mask_of(i)
    return {"mask": image(folder, "m.nii.gz", 0 * mask, affine)}


def betas_with_volumes_first(i, folder):
    betas = nib.load(i.betas)
    return {"betas": image(folder, "b.nii.gz", np.moveaxis(np.asarray(betas.dataobj), -1, 0), betas.affine)}


def a_volume_of_nan(i, folder):
    betas = nib.load(i.betas)
    values = np.asarray(betas.dataobj).copy()
    values[..., 3] = np.nan
    return {"betas": image(folder, "b.nii.gz", values, betas.affine)}


def betas_times_1e20(i, folder):
    betas = nib.load(i.betas)
    return {"betas": image(folder, "b.nii.gz", np.asarray(betas.dataobj) * np.float32(1e20), betas.affine)}


def images_missing_from_the_table(i, folder):
    lines = i.trials.read_text().splitlines()
    return {"trials": text(folder, "t.tsv", "\n".join(lines[:-5]))}


def one_image(i, folder):
    lines = i.trials.read_text().splitlines()
    rows = [f"{n}\t{lines[1].split()[1]}" for n in range(len(lines) - 1)]
    return {"trials": text(folder, "t.tsv", "\n".join([lines[0], *rows]))}


def features_of_other_images(i, folder):
    return {"features": features(folder, features=np.eye(3), image_ids=np.array(["a", "b", "c"]))}


def features_with_objects(i, folder):
    ids = np.array(["a", "b", None], dtype=object)
    np.savez(folder / "bad.npz", features=np.eye(3), image_ids=ids)
    return {"features": folder / "bad.npz"}


CASES = {
    "shape mismatch": (
        lambda i, f: {"features": features(f, features=np.eye(3), image_ids=np.array(["a", "b"]))},
        "image_ids has shape (2,) but there are 3 rows"),
    "transposed responses": (betas_with_volumes_first, "voxels but the mask"),
    "images missing in the table": (images_missing_from_the_table, "145 rows but"),
    "no common image": (features_of_other_images, "no image is in both tables"),
    "features without names": (
        lambda i, f: {"features": features(f, features=np.eye(3))}, "holds no image_ids"),
    "features named twice": (
        lambda i, f: {"features": features(f, features=np.eye(3), image_ids=np.array(["a", "a", "b"]))},
        "names 'a' 2 times"),
    "features with NaN": (
        lambda i, f: {"features": features(f, features=np.eye(2) * np.nan, image_ids=np.array(["a", "b"]))},
        "features contains NaN"),
    "features that would run code": (features_with_objects, "could run code"),
    "truncated features": (lambda i, f: {"features": cut(copy(i, f, "features"))}, "cannot be read as features"),
    "a mask of another size": (a_mask_of_another_size, "resample one to the other's grid"),
    "a mask of another affine": (a_mask_elsewhere, "different affines"),
    "an empty mask": (an_empty_mask, "empty mask"),
    "a NaN volume": (a_volume_of_nan, "volume 3 (counting from 0) holds no finite value"),
    "one image": (one_image, "needs at least 2"),
    "a truncated .nii.gz": (lambda i, f: {"betas": cut(copy(i, f, "betas"))}, "truncated or damaged at volume"),
    "a text file named .nii": (lambda i, f: {"betas": text(f, "b.nii", "hello")}, "not a readable NIfTI image"),
    "a missing file": (lambda i, f: {"mask": f / "nothing.nii"}, "does not exist"),
    "a folder for a file": (lambda i, f: {"trials": f}, "cannot be read"),
    "more context than images": (lambda i, f: {"n-context": 91}, "between 2 and 90, the images at hand"),
    "a context of strangers": (
        lambda i, f: {"context": text(f, "c.txt", "cat\ndog\n")}, "2 images without both responses and features"),
    "an empty context": (lambda i, f: {"context": text(f, "c.txt", "\n")}, "holds no names"),
    "an unknown option": (lambda i, f: {"alpha": 3}, "unrecognized arguments: --alpha"),
    "an abbreviated option": (lambda i, f: {"encod": "ridge"}, "unrecognized arguments"),
    "an unknown encoder": (lambda i, f: {"encoder": "lasso"}, "invalid choice: 'lasso'"),
    "a number that is none": (lambda i, f: {"n-context": "ten"}, "invalid int value: 'ten'"),
    "a seed below zero": (lambda i, f: {"random-state": -1}, "whole number of at least 0"),
    "a name that is no text": (lambda i, f: {"mask": os.fsdecode(b"\xff.nii")}, "is no valid UTF-8: rename that file"),
    "a name that is too long": (lambda i, f: {"mask": f / ("n" * 300 + ".nii")}, "File name too long"),
    "responses beyond single precision": (betas_times_1e20, "numbers above 1e+12 in float32 have squares that"),
    "a forgotten option": (lambda i, f: {"trials": None}, "pass a table of trials for each betas file"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_one_line_and_leaves_nothing(inputs, braincorl, tmp_path, case):
    change, message = CASES[case]
    made, parent = tmp_path / "made", tmp_path / "out"
    made.mkdir()
    parent.mkdir()
    result = braincorl("fit", *inputs.arguments(**change(inputs, made)), "--output-dir", parent / "fit")
    assert result.status == 2
    *log, line = result.err.splitlines()
    assert line.startswith("braincorl fit: ")
    assert message in line
    assert all(entry.startswith("braincorl: ") for entry in log)
    assert result.out == ""
    assert list(parent.iterdir()) == []


def test_an_existing_folder_is_kept(inputs, braincorl, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        result = braincorl("fit", *inputs.arguments(), "--output-dir", tmp_path, *more)
        assert result.status == 2
        assert "holds files that braincorl did not write" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert braincorl("fit", *inputs.arguments(), "--output-dir", tmp_path / "notes.txt").status == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_inputs_inside_the_output_folder_are_kept(inputs, braincorl, tmp_path):
    out = tmp_path / "f"
    assert braincorl("fit", *inputs.arguments(), "--output-dir", out).status == 0
    shutil.copy(inputs.features, out / "features.npz")
    changed = inputs.arguments(features=out / "features.npz")
    assert braincorl("fit", *changed, "--output-dir", out, "--overwrite").status == 2
    assert (out / "features.npz").is_file()
    result = braincorl("predict", out, "--features", inputs.features, "--output-dir", out, "--overwrite")
    assert "holds a fit, not a prediction" in result.err
    assert (out / "encoder.safetensors").is_file()


def test_an_earlier_result_is_kept_unless_told(inputs, braincorl, tmp_path):
    assert braincorl("fit", *inputs.arguments(), "--output-dir", tmp_path / "f").status == 0
    result = braincorl("fit", *inputs.arguments(), "--output-dir", tmp_path / "f")
    assert (result.status, "pass --overwrite" in result.err) == (2, True)


def test_an_unwritable_folder(inputs, braincorl):
    result = braincorl("fit", *inputs.arguments(), "--output-dir", "/proc/fit")
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "/proc" in result.err


@pytest.mark.parametrize("limit", [300, 3000, 60_000])
def test_a_disk_that_fills_up(inputs, braincorl_process, tmp_path, limit):
    """Writes fail as on a full disk, at a small file or at the encoder."""
    cap = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    arguments = [*inputs.arguments(), "--encoder", "ridge", "--n-context", 20, "--output-dir", tmp_path / "fit"]
    result = braincorl_process("fit", *arguments, preexec_fn=cap)
    assert result.status == 2
    *told, last = result.err.splitlines()
    assert all("of the grid" in line for line in told), "what was chosen at a limit is told first"
    assert "was not written" in last
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 30_000])
def test_a_disk_that_fills_up_while_embedding(braincorl_process, tmp_path, limit):
    """At the header of what is kept, or at the third of its rows."""
    (tmp_path / "pictures").mkdir()
    for row in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / "pictures" / f"{row}.png")
    cap = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    options = ["--backbone", "gabor", "--batch-size", 1, "--output", tmp_path / "f.npz"]
    result = braincorl_process("embed", tmp_path / "pictures", *options, preexec_fn=cap)
    assert result.status == 2
    assert len(result.err.splitlines()) == 1
    assert "f.npz.partial cannot be written (File too large): free some space and rerun" in result.err
    left = ["pictures"] if limit == 100 else ["f.npz.partial", "pictures"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_really_full_disk(inputs, braincorl_process, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        result = braincorl_process("fit", *inputs.arguments(), "--output-dir", tmp_path / "fit")
        assert result.status == 2
        assert "No space left on device" in result.err.splitlines()[-1]
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.fixture(scope="module")
def fit_dir(inputs, tmp_path_factory):
    from braincorl.cli.main import main

    out = tmp_path_factory.mktemp("fit") / "fit"
    assert main([str(a) for a in ("fit", *inputs.arguments(), "--n-context", 30, "--output-dir", out)]) == 0
    return out


def damaged(fit_dir, folder, change):
    broken = folder / "broken"
    shutil.copytree(fit_dir, broken)
    change(broken)
    return broken


DAMAGE = {
    "no fit": (lambda d: shutil.rmtree(d), "is no fit"),
    "a truncated encoder": (lambda d: cut(d / "encoder.safetensors"), "truncated"),
    "an altered encoder": (lambda d: _flip(d / "encoder.safetensors"), "checksum"),
    "another program's file": (lambda d: text(d, "encoder.safetensors", "x" * 100), "not a readable safetensors"),
    "a space of another kind": (
        lambda d: shutil.copy(d / "encoder.safetensors", d / "space.safetensors"), "not a braincorl-space/1 file"),
    "no list of the context": (lambda d: (d / "context.txt").unlink(), "holds no context.txt"),
    "settings of another program": (lambda d: text(d, "config.json", "{}"), "config.json lacks"),
    "broken settings": (lambda d: text(d, "config.json", "{"), "not valid JSON"),
}  # fmt: skip


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_fit_is_refused(fit_dir, inputs, braincorl, tmp_path, case):
    change, message = DAMAGE[case]
    broken = damaged(fit_dir, tmp_path, change)
    result = braincorl("predict", broken, "--features", inputs.features, "--output-dir", tmp_path / "p")
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "p").exists()


def test_features_of_another_backbone_are_refused_by_both_names(fit_dir, inputs, braincorl, tmp_path):
    provenance = np.array('{"backbone": "dino"}')
    other = features(tmp_path, features=np.eye(24), image_ids=np.arange(24).astype(str), provenance=provenance)
    result = braincorl("predict", fit_dir, "--features", other, "--output-dir", tmp_path / "p")
    assert result.status == 2
    assert "backbone 'dino'" in result.err
    assert "'simulation'" in result.err
    narrow = features(tmp_path, features=np.eye(5), image_ids=np.arange(5).astype(str))
    result = braincorl("predict", fit_dir, "--features", narrow, "--output-dir", tmp_path / "p")
    assert "5 columns but" in result.err


def test_ridge_has_no_spread_and_says_what_has(inputs, braincorl, tmp_path):
    arguments = [*inputs.arguments(), "--encoder", "ridge", "--output-dir", tmp_path / "f"]
    assert braincorl("fit", *arguments).status == 0
    result = braincorl(
        "predict", tmp_path / "f", "--features", inputs.features, "--std", "--output-dir", tmp_path / "p"
    )
    assert result.status == 2
    assert "BayesianRidgeEncoder" in result.err
    assert not (tmp_path / "p").exists()


def test_a_folder_with_a_picture_whose_name_is_no_text(braincorl, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (32, 32)).save(os.fsdecode(bytes(tmp_path / "pictures") + b"/\xff.png"))
    result = braincorl("embed", tmp_path / "pictures", "--backbone", "gabor", "--output", tmp_path / "f.npz")
    assert result.status == 2
    assert "is no valid UTF-8: rename that file" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_message_is_not_longer_than_one_can_read(inputs, braincorl, tmp_path):
    changed = inputs.arguments(features=features(tmp_path, features=np.eye(2), image_ids=np.array(["a" * 10**5, "b"])))
    result = braincorl("fit", *changed, "--output-dir", tmp_path / "f")
    assert result.status == 2
    assert len(result.err) < 3000


def test_a_terminal_that_knows_ascii_only(inputs, braincorl_process, tmp_path):
    arguments = [*inputs.arguments(), "--encoder", "ridge", "--n-context", 60, "--output-dir", tmp_path / "f"]
    result = braincorl_process("fit", *arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.status == 0, result.err
    assert "mean R\\xb2" in result.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output(inputs, tmp_path):
    command = [sys.executable, "-m", "braincorl", "fit", *map(str, inputs.arguments()), "--encoder", "ridge"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--output-dir", tmp_path / "f"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "cannot be used: No space left on device" in done.stderr
    assert (tmp_path / "f" / "encoder.safetensors").is_file()
