"""Known responses in, through real containers, and out again: GLMsingle, BOLD5000, Algonauts 2023, BIDS derivatives."""

import logging

import nibabel as nib
import numpy as np
import pytest
from layouts import (
    AFFINE,
    SHAPE,
    TinyAlgonauts,
    TinyBids,
    TinyBold5000,
    TinyGlmsingle,
    mean_by_image,
    within_sessions,
)

from braincorl.datasets import load_algonauts2023, load_bids, load_bold5000, load_subject, split_repeated
from braincorl.errors import InputError
from braincorl.metrics import estimate_ncsnr


@pytest.mark.parametrize("container", ["npy", "hdf5"])
def test_glmsingle_betas_come_in_c_order_of_the_mask(tmp_path, container):
    tiny = TinyGlmsingle(tmp_path)
    subject = load_subject(getattr(tiny, container), tiny.trials, tiny.mask_path)
    expected = mean_by_image(tiny.shown, tiny.volumes[tiny.mask].T)
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(subject.space.affine, AFFINE, rtol=1e-6)  # GLMsingle's file has none: the mask's


@pytest.mark.parametrize("container", ["npy", "hdf5"])
def test_glmsingle_without_a_mask_keeps_every_voxel(tmp_path, container):
    tiny = TinyGlmsingle(tmp_path)
    subject = load_subject(getattr(tiny, container), tiny.trials)
    expected = mean_by_image(tiny.shown, tiny.volumes.reshape(-1, 10).T)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-5, atol=1e-6)
    assert subject.space.mask is None


def test_glmsingle_run_on_the_voxels_of_a_mask(tmp_path):
    tiny = TinyGlmsingle(tmp_path)
    np.save(tiny.npy, {"betasmd": tiny.volumes[tiny.mask][:, None, None]}, allow_pickle=True)
    flat = load_subject(tiny.npy, tiny.trials, tiny.mask_path)
    np.testing.assert_array_equal(flat.responses, load_subject(tiny.hdf5, tiny.trials, tiny.mask_path).responses)


def test_bold5000_is_cut_by_session_z_scored_and_placed_by_the_masks_affine(tmp_path):
    tiny = TinyBold5000(tmp_path)
    subject = load_bold5000(tmp_path, 2)
    y = within_sessions(tiny.trials, tiny.lengths)
    expected = mean_by_image(tiny.shown, y)
    assert subject.name == "sub-CSI2"
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(subject.space.affine, AFFINE, rtol=1e-6)
    np.testing.assert_allclose(subject.ncsnr, estimate_ncsnr(y, tiny.shown), rtol=1e-3, atol=1e-3)


def test_bold5000_is_not_scaled(tmp_path):
    tiny = TinyBold5000(tmp_path)
    subject = load_bold5000(tmp_path, 2, zscore="none")
    np.testing.assert_allclose(
        subject.responses, list(mean_by_image(tiny.shown, tiny.trials).values()), rtol=1e-5, atol=1e-6
    )


def test_bold5000_later_sessions_keep_their_images(tmp_path):
    tiny = TinyBold5000(tmp_path)
    for number in (4, 15):
        tiny.session(number).unlink()
    subject = load_bold5000(tmp_path, 2, sessions=[2, 3])
    assert set(subject.image_ids) == set(tiny.shown[4:10])
    with pytest.raises(InputError, match="ses-04"):  # without its length, later names cannot be told apart
        load_bold5000(tmp_path, 2, sessions=[5])


def test_bold5000_regions_are_found_under_the_names_that_they_have(tmp_path, caplog):
    tiny = TinyBold5000(tmp_path)
    subject = load_bold5000(tmp_path, 2)
    assert set(subject.rois) == {"PPA", "LHPPA", "RHPPA", "LOC", "LHLOC", "RHLOC", "RSC", "RHRSC"}
    loc = (tiny.regions["LHLO"] | tiny.regions["RHLO"])[tiny.mask]
    np.testing.assert_array_equal(subject.rois["LOC"], loc)
    assert "swapped" not in caplog.text
    part = load_bold5000(tmp_path, 2, voxels=["RSC", "LHPPA"])
    np.testing.assert_array_equal(part.space.mask, (tiny.regions["RHRRSC"] | tiny.regions["LHPPA"]) & tiny.mask)


def test_repeated_images_are_a_test_set(tmp_path):
    TinyBold5000(tmp_path)
    subject = load_bold5000(tmp_path, 2)
    split = split_repeated(subject)
    assert set(split.own) | set(split.test) == set(subject.image_ids)
    assert (subject.select_images(split.test).n_repeats >= 2).all()
    assert (subject.select_images(split.own).n_repeats == 1).all()
    with pytest.raises(InputError, match="0 of"):
        split_repeated(subject, min_repeats=9)


def test_algonauts_rows_names_vertices_and_regions(tmp_path):
    tiny = TinyAlgonauts(tmp_path)
    subject = load_algonauts2023(tmp_path, 3)
    assert subject.image_ids.tolist() == tiny.images
    np.testing.assert_array_equal(subject.responses, np.hstack([tiny.responses["lh"], tiny.responses["rh"]]))
    assert subject.ncsnr is None
    np.testing.assert_array_equal(subject.space.surface.left, tiny.vertices["lh"])
    np.testing.assert_array_equal(subject.space.surface.right, tiny.vertices["rh"])
    labels = np.concatenate([tiny.roi["lh"], tiny.roi["rh"]])
    np.testing.assert_array_equal(subject.rois["V1d"], labels == 2)
    np.testing.assert_array_equal(subject.rois["prf-visualrois"], labels > 0)
    part = load_algonauts2023(tmp_path, 3, voxels="V1d", images=tiny.images[3:5])
    np.testing.assert_array_equal(part.responses, subject.responses[3:5][:, labels == 2])
    assert part.space.surface.left.sum() == (tiny.roi["lh"] == 2).sum()
    chosen = np.flatnonzero(tiny.vertices["lh"])[tiny.roi["lh"] == 2]
    np.testing.assert_array_equal(np.flatnonzero(part.space.surface.left), chosen)


def test_bids_derivatives_load_as_the_same_files_do(tmp_path):
    tiny = TinyBids(tmp_path / "bids")
    subject = load_bids(tiny.root, "ab", zscore="session")
    same = load_subject(tiny.betas, tiny.tables, tiny.mask_path, zscore="session")
    np.testing.assert_array_equal(subject.responses, same.responses)
    assert subject.image_ids.tolist() == same.image_ids.tolist()
    assert subject.name == "sub-ab"
    # Sessions are in order of their number (2 before 10), which the means over an image's trials need not show.
    expected = mean_by_image(tiny.shown, within_sessions(tiny.trials, [4] * 10))
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(subject.rois["V1v"], tiny.region[tiny.mask])
    np.testing.assert_allclose(subject.ncsnr, tiny.ncsnr[tiny.mask])


def test_bids_asks_which_where_there_are_several(tmp_path):
    tiny = TinyBids(tmp_path / "bids")
    other = tiny.betas[0].with_name(tiny.betas[0].name.replace("task-images", "task-words"))
    other.write_bytes(tiny.betas[0].read_bytes())
    with pytest.raises(InputError, match="betas of task-images, task-words: choose one by task"):
        load_bids(tiny.root, "sub-ab")
    assert load_bids(tiny.root, "sub-ab", task="images").n_images == 9
    with pytest.raises(InputError, match="no trials table beside it: write sub-ab_ses-1_task-words"):
        load_bids(tiny.root, "ab", task="words")
    with pytest.raises(InputError, match="no betas with space-MNI; there are space-T1w"):
        load_bids(tiny.root, "ab", task="images", space="MNI")
    with pytest.raises(InputError, match="holds no folder sub-cd, but sub-ab"):
        load_bids(tiny.root, "cd")


def test_bids_wants_its_description(tmp_path, caplog):
    tiny = TinyBids(tmp_path / "bids")
    (tiny.root / "dataset_description.json").unlink()
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        load_bids(tiny.root, "ab")
    assert "dataset_description.json is missing" in caplog.text


def test_real_people_load_as_bids_derivatives_with_the_same_result(tmp_path, real_data):
    """Six-person video data, laid out as BIDS derivatives, against the same files given one by one."""
    source = real_data / "actions_fmri"
    root = tmp_path / "bids"
    for session in (1, 2):
        folder = root / "sub-01" / f"ses-{session}" / "func"
        folder.mkdir(parents=True)
        stem = f"sub-01_ses-{session}_task-actions"
        (folder / f"{stem}_stat-effect_statmap.nii.gz").symlink_to(source / f"sub-01_ses-{session}_betas.nii.gz")
        (folder / f"{stem}_trials.tsv").symlink_to(source / f"sub-01_ses-{session}_trials.tsv")
    (root / "sub-01" / "sub-01_desc-brain_mask.nii.gz").symlink_to(source / "mask.nii.gz")
    (root / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    subject = load_bids(root, "01", zscore="session")
    same = load_subject(
        [source / f"sub-01_ses-{s}_betas.nii.gz" for s in (1, 2)],
        [source / f"sub-01_ses-{s}_trials.tsv" for s in (1, 2)],
        source / "mask.nii.gz",
        zscore="session",
    )
    np.testing.assert_array_equal(subject.responses, same.responses)
    assert subject.image_ids.tolist() == same.image_ids.tolist()
    np.testing.assert_array_equal(subject.space.included, same.space.included)
    assert subject.n_images == 120


def test_a_volume_on_the_wrong_grid_is_named(tmp_path):
    tiny = TinyBids(tmp_path / "bids")
    nib.save(nib.Nifti1Image(np.ones((*SHAPE[:2], 9, 4), "f4"), AFFINE), tiny.betas[2])
    with pytest.raises(InputError, match=r"ses-3_task-images.*voxels but the mask"):
        load_bids(tiny.root, "ab")
