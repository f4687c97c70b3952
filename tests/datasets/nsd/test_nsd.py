import h5py
import nibabel as nib
import numpy as np
import pytest
from layouts import AFFINE, SHAPE, TinyNsd, within_sessions
from nsd_writer import write_nsd_labels, write_nsd_session
from scipy.io import loadmat

from braincorl.datasets import load_nsd, split_nsd
from braincorl.datasets.nsd.design import read_stimuli, shared_images
from braincorl.errors import InputError
from braincorl.metrics import estimate_ncsnr

SESSIONS = [1, 2, 3]


def load(nsd, **options):
    return load_nsd(nsd.root, 1, **({"sessions": SESSIONS} | options))


def test_known_betas_come_out_in_percent_signal_change(nsd):
    """int16 is divided by 300, voxels come in C order, and repeats are averaged."""
    subject = load(nsd, voxels="all", zscore="none")
    included = ~nsd.invalid
    expected = nsd.expected(included, zscore=False)
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(subject.space.mask, np.ones(SHAPE, dtype=bool))
    np.testing.assert_array_equal(subject.space.included, included.ravel())
    np.testing.assert_allclose(subject.space.affine, AFFINE, rtol=1e-6)


def test_repeats_are_those_of_the_design(nsd):
    shown = nsd.shown()
    subject = load(nsd)
    assert subject.n_repeats.tolist() == [shown.count(image) for image in subject.image_ids]
    assert set(subject.n_repeats) == {1, 2, 3} or set(subject.n_repeats) == {1, 2}


def test_the_design_counts_from_one(nsd):
    """Read by scipy alone: trial t of subject s showed subjectim[s-1, masterordering[0, t] - 1] - 1."""
    tables = loadmat(nsd.folder.design)
    first = tables["subjectim"][0, tables["masterordering"][0, 0].astype(int) - 1].astype(int) - 1
    last = tables["subjectim"][0, tables["masterordering"][0, 3 * 750 - 1].astype(int) - 1].astype(int) - 1
    subject = load(nsd)
    assert subject.image_ids[0] == str(first)
    assert str(last) in subject.image_ids
    assert tables["masterordering"].min() == tables["subjectim"].min() == 1


def test_z_scoring_is_within_session_and_dead_voxels_are_left_out(nsd):
    subject = load(nsd)
    mask = nsd.higher_visual()
    assert mask[nsd.invalid].all()
    np.testing.assert_array_equal(subject.space.mask, mask)
    assert subject.space.n_excluded == 1
    expected = nsd.expected(mask & ~nsd.invalid)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-4, atol=1e-5)
    assert np.isfinite(subject.responses).all()


@pytest.mark.parametrize("chunks", [None, (1, 5, 7, 6), (750, 1, 1, 2)])
def test_hdf5_and_nifti_hold_the_same(make_nsd, chunks):
    """Whatever the chunks of the HDF5 file: whole, by trial, or across trials."""
    nsd = make_nsd()
    from_nifti = load(nsd)
    for number, values in nsd.stored.items():
        with h5py.File(nsd.folder.betas / f"betas_session{number:02d}.hdf5", "w") as file:
            file.create_dataset("betas", data=values.transpose(0, 3, 2, 1), chunks=chunks)
        (nsd.folder.betas / f"betas_session{number:02d}.nii.gz").unlink()
    from_hdf5 = load(nsd)
    np.testing.assert_array_equal(from_hdf5.responses, from_nifti.responses)
    np.testing.assert_array_equal(from_hdf5.space.affine, from_nifti.space.affine)
    assert from_hdf5.image_ids.tolist() == from_nifti.image_ids.tolist()


@pytest.mark.parametrize("kind", ["float32", "scaled header"])
def test_what_is_in_percent_already_is_not_divided_again(nsd, kind):
    expected = load(nsd, zscore="none").responses
    for number, values in nsd.stored.items():
        volume = np.moveaxis(values, 0, -1)
        image = nib.Nifti1Image(volume if kind == "scaled header" else (volume / 300).astype("f4"), AFFINE)
        if kind == "scaled header":
            image.header.set_slope_inter(1 / 300, 0)
        nib.save(image, nsd.folder.betas / f"betas_session{number:02d}.nii.gz")
    np.testing.assert_allclose(load(nsd, zscore="none").responses, expected, rtol=1e-4, atol=1e-5)


def test_noise_ceiling_for_mixed_repeats(nsd):
    """(A/3 + B/2 + C) / (A + B + C) in place of 1/n, as the data manual has it."""
    subject = load(nsd, voxels="all")
    ncsnr = nsd.ncsnr[~nsd.invalid].astype(float)
    np.testing.assert_allclose(subject.ncsnr, ncsnr, rtol=1e-6)
    three, two, one = ((subject.n_repeats == n).sum() for n in (3, 2, 1))
    noise = (three / 3 + two / 2 + one) / (three + two + one)
    np.testing.assert_allclose(subject.noise_ceiling(), ncsnr**2 / (ncsnr**2 + noise), rtol=1e-5)


def test_without_an_ncsnr_map_the_ceiling_comes_from_repeats(nsd):
    (nsd.folder.betas / "ncsnr.nii.gz").unlink()
    y = np.concatenate([nsd.stored[n][:, nsd.higher_visual() & ~nsd.invalid] for n in SESSIONS])
    expected = estimate_ncsnr(within_sessions(y, [750] * 3), nsd.shown())
    np.testing.assert_allclose(load(nsd).ncsnr, expected, rtol=1e-3, atol=1e-3)


def test_regions_have_the_names_of_the_colour_table_and_only_labels_above_zero(nsd):
    subject = load(nsd, voxels="all")
    inside = ~nsd.invalid
    for atlas, name, label in [("prf-visualrois", "V1v-own", 1), ("floc-faces", "FFA-1", 2), ("floc-bodies", "EBA", 1)]:
        np.testing.assert_array_equal(subject.rois[name], (nsd.labels[atlas] == label)[inside])
    np.testing.assert_array_equal(subject.rois["floc-places"], (nsd.labels["floc-places"] > 0)[inside])
    assert "Unknown" not in subject.rois


def test_without_colour_tables_the_published_names_are_used(nsd):
    for path in (nsd.root / "nsddata" / "freesurfer" / "subj01" / "label").iterdir():
        path.unlink()
    regions = load(nsd, voxels="all").rois
    assert {"V1v", "V1d", "OFA", "FFA-1", "EBA", "OPA", "PPA"} <= set(regions)


def test_hemisphere_files_are_joined(nsd, caplog):
    whole = load(nsd, voxels="floc-faces")
    labels = nsd.labels["floc-faces"]
    left = np.zeros(SHAPE, dtype=bool)
    left[3:] = True  # x falls with the first index here
    (nsd.folder.regions / "floc-faces.nii.gz").unlink()
    for side, half in (("lh", left), ("rh", ~left)):
        write_nsd_labels(nsd.folder, f"{side}.floc-faces", np.where(half, labels, -1), AFFINE, {1: "OFA", 2: "FFA-1"})
    joined = load(nsd, voxels="floc-faces")
    np.testing.assert_array_equal(joined.space.mask, whole.space.mask)
    np.testing.assert_array_equal(joined.rois["FFA-1"], whole.rois["FFA-1"])
    assert "swapped" not in caplog.text


def test_choices_of_voxels(nsd):
    cortex = np.any([labels != -1 for labels in nsd.labels.values()], axis=0)
    retinotopic = nsd.labels["prf-visualrois"] > 0
    expected = {
        "higher-visual": nsd.higher_visual(),
        "functional": nsd.higher_visual() | retinotopic,
        "cortex": cortex,
        "nsdgeneral": nsd.labels["nsdgeneral"] > 0,
    }
    for voxels, mask in expected.items():
        np.testing.assert_array_equal(load(nsd, voxels=voxels, sessions=[1]).space.mask, mask, err_msg=voxels)
    two = (nsd.labels["floc-faces"] == 2) | (nsd.labels["floc-bodies"] == 1)
    np.testing.assert_array_equal(load(nsd, voxels=["FFA-1", "EBA"], sessions=[1]).space.mask, two)
    np.testing.assert_array_equal(load(nsd, voxels=two, sessions=[1]).space.mask, two)
    ncsnr = nsd.ncsnr.astype(float)
    reliable = ncsnr**2 / (ncsnr**2 + 1 / 3) >= 0.5
    np.testing.assert_array_equal(load(nsd, voxels="all", min_ceiling=0.5, sessions=[1]).space.mask, reliable)


def test_sessions_are_a_choice_and_their_trials_keep_their_images(nsd):
    subject = load(nsd, sessions=[2])
    expected = nsd.expected(nsd.higher_visual() & ~nsd.invalid, sessions=[2])
    assert subject.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-4, atol=1e-5)


def test_by_default_every_completed_session_is_wanted(nsd):
    with pytest.raises(InputError, match=r"lacks 37 of 40 sessions \(4-40\).*there \(1-3\)"):
        load_nsd(nsd.root, 1)


def test_a_subject_of_thirty_sessions_is_complete_with_thirty(make_nsd, monkeypatch):
    monkeypatch.setattr(TinyNsd, "subject", 4)
    nsd = make_nsd(sessions=range(1, 31), container=".hdf5")
    subject = load_nsd(nsd.root, 4)
    assert int(subject.n_repeats.sum()) == 30 * 750
    assert subject.image_ids[0] == nsd.shown()[0]


def test_only_wanted_images_are_kept_but_all_trials_scale(nsd):
    whole = load(nsd)
    wanted = whole.image_ids[[5, 100, 7]]
    part = load(nsd, images=wanted)
    assert sorted(part.image_ids) == sorted(wanted)
    np.testing.assert_allclose(part.responses, whole.select_images(part.image_ids).responses, rtol=1e-6, atol=1e-6)


def test_shared_images_follow_from_the_table_of_stimuli(nsd):
    """Counted again from the design: three trials within the sessions that each of the subjects completed."""
    completed = {1: 40 * 750, 4: 30 * 750}
    counts = {s: np.bincount(nsd.design.shown(s)[:n], minlength=73_000) for s, n in completed.items()}
    table = read_stimuli(nsd.folder.stimuli)
    for repeats in (1, 3):
        expected = np.flatnonzero(np.minimum(counts[1], counts[4]) >= repeats)
        np.testing.assert_array_equal(shared_images(table, (1, 4), repeats), expected)
    assert 0 < expected.size < 1000


def test_a_split_tests_on_shared_images_and_never_shares_one(nsd):
    subject = load(nsd)
    split = split_nsd(nsd.root, subject, subjects=(1, 4), min_repeats=3)
    table = read_stimuli(nsd.folder.stimuli)
    shared = shared_images(table, (1, 4), 3).astype(str)
    meant = set(table["nsdId"][table["shared1000"]].astype(str))
    assert set(split.test) == set(shared) & set(nsd.shown())
    assert not set(split.own) & meant
    assert not set(split.own) & set(split.test)
    # Every trial of an image is in the one response that is on one side of the split.
    shown = nsd.shown()
    test = subject.select_images(split.test)
    assert int(test.n_repeats.sum()) == sum(image in set(split.test) for image in shown)
    mask = nsd.higher_visual() & ~nsd.invalid
    expected = nsd.expected(mask)
    np.testing.assert_allclose(test.responses[0], expected[split.test[0]], rtol=1e-4, atol=1e-5)


def test_one_millimetre_data_are_read_from_their_folder(nsd):
    from dataclasses import replace

    fine = replace(nsd.folder, space="func1mm", preparation="betas_assumehrf")
    everything = np.ones(SHAPE, dtype=bool)
    write_nsd_session(fine, 1, nsd.stored[1].reshape(750, -1) / 300.0, everything, AFFINE)
    write_nsd_labels(fine, "nsdgeneral", nsd.labels["nsdgeneral"], AFFINE, {1: "nsdgeneral"})
    subject = load(nsd, space="func1mm", preparation="betas_assumehrf", voxels="nsdgeneral", sessions=[1])
    reference = load(nsd, voxels="nsdgeneral", sessions=[1])
    np.testing.assert_array_equal(subject.responses, reference.responses)
