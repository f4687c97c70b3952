"""Inputs with two plausible meanings, the same data twice, and names that contradict each other: refused or told."""

import logging
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
from test_load import AFFINE, SHAPE, Person

from braincorl.analysis.benchmarking import read_table
from braincorl.datasets import Grid, VoxelSpace, load_bold5000, load_prepared, load_subject, load_surface
from braincorl.datasets.betas.grids import as_labels, as_mask
from braincorl.datasets.bold5000 import read_image_names
from braincorl.datasets.file_names import blanked, plain, without_endings
from braincorl.datasets.load import open_subject
from braincorl.datasets.trials.labels import read_color_table, read_labels
from braincorl.datasets.trials.preparing import prepare
from braincorl.datasets.trials.rois import labels_to_rois
from braincorl.errors import InputError
from braincorl.fits.folder import read_space, write_space
from braincorl.fits.maps import save_map, unmask


@pytest.fixture
def person(tmp_path, rng):
    return Person(tmp_path, rng)


def image(person, name, values, affine=AFFINE, code=None):
    nifti = nib.Nifti1Image(np.asarray(values), affine)
    if code is not None:
        nifti.set_sform(affine, code)
        nifti.set_qform(affine, code)
    nib.save(nifti, person.folder / name)
    return person.folder / name


# Masks, labels, ceilings


def test_a_mask_is_what_is_above_zero_and_says_when_it_is_no_mask(person, caplog):
    values = person.mask.astype("f4")
    expected = person.load().responses
    for inside in (1, 255, 1.000001, 0.5):
        caplog.clear()
        subject = load_subject(person.betas, person.tables, image(person, "m.nii", values * np.float32(inside)))
        np.testing.assert_array_equal(subject.responses, expected)
        assert "no mask of 0 and 1" not in caplog.text
    graded = values * np.linspace(0.1, 1, values.size, dtype="f4").reshape(SHAPE)
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        subject = load_subject(person.betas, person.tables, image(person, "m.nii", graded))
    assert "no mask of 0 and 1, it holds values from 0." in caplog.text
    np.testing.assert_array_equal(subject.responses, expected)


@pytest.mark.parametrize("background", [-1, -2, -0.5, -1000])
def test_a_negative_background_is_refused_in_a_mask(person, background):
    values = np.where(person.mask, 1, background).astype("f4")
    with pytest.raises(InputError, match=r"values below 0.*0 outside and 1 inside"):
        load_subject(person.betas, person.tables, image(person, "m.nii", values))


def test_masks_on_surfaces_and_of_bold5000_mean_the_same(tmp_path):
    with pytest.raises(InputError, match="values below 0"):
        as_mask(np.array([-1, 0, 1]), tmp_path)
    with pytest.raises(InputError, match="empty mask"):
        as_mask(np.array([0, np.nan]), tmp_path)
    assert not as_mask(np.zeros(3), tmp_path, may_be_empty=True).any()
    np.testing.assert_array_equal(as_mask(np.array([np.nan, np.inf, 0, 2]), tmp_path), [False, False, False, True])


def test_one_negative_value_is_the_background_of_labels_and_several_are_refused(person):
    labels = np.where(person.mask, 2, -1).astype("i2")
    labels[2, 2, 1] = 1
    rois = person.load(rois=image(person, "atlas.nii", labels)).rois
    assert {name: int(m.sum()) for name, m in rois.items()} == {"atlas-1": 1, "atlas-2": int(person.mask.sum()) - 1}
    statistic = np.arange(labels.size).reshape(SHAPE).astype("i2") - 60
    with pytest.raises(InputError, match="different values below 0"):
        person.load(rois=image(person, "z.nii", statistic))


@pytest.mark.parametrize("slope", [1 + 1e-6, 1 - 1e-6, 1.0, 1 + 1e-7])
def test_labels_stored_with_a_slope_are_whole_numbers_in_every_reader(person, slope):
    labels = np.where(person.mask, 1 + np.arange(labels_size := np.prod(SHAPE)).reshape(SHAPE) % 3, 0)
    assert labels_size == labels.size
    path = image(person, "atlas.nii", (labels * slope).astype("f8"))
    np.testing.assert_array_equal(read_labels(path)[0], labels)
    rois = person.load(rois=path).rois
    assert {name: int(m.sum()) for name, m in rois.items()} == {
        f"atlas-{k}": int((labels[person.mask] == k).sum()) for k in (1, 2, 3)
    }
    for off in (1.5, 1.01, 0.99):
        with pytest.raises(InputError, match="not whole numbers"):
            as_labels(labels * off, path)


@pytest.mark.parametrize("values", [35.0, 100.0, 12.5, "ceiling"])
def test_noise_ceilings_are_no_ncsnr(person, values):
    name = "sub-07_stat-noiseceiling_statmap.nii" if values == "ceiling" else "n.nii"
    path = image(person, name, np.full(SHAPE, 0.4 if values == "ceiling" else values))
    with pytest.raises(InputError, match="ratio of standard deviations"):
        person.load(ncsnr=path)
    plausible = image(person, "noise_ceiling_SNR.nii", np.full(SHAPE, 3.5))
    assert (person.load(ncsnr=plausible).ncsnr == 3.5).all()


def test_noise_ceilings_are_no_ncsnr_on_a_surface(tmp_path, rng):
    for side in ("lh", "rh"):
        for name, values in (("b", rng.random((9, 1, 1, 4))), ("n", np.full((9, 1, 1), 35.0))):
            nib.save(nib.MGHImage(values.astype("f4"), np.eye(4)), tmp_path / f"{side}.{name}.mgh")
    (tmp_path / "t.tsv").write_text("image\na\nb\nc\nd\n")
    left, right = tmp_path / "lh.b.mgh", tmp_path / "rh.b.mgh"
    with pytest.raises(InputError, match="in percent"):
        load_surface(left, right, tmp_path / "t.tsv", ncsnr=(tmp_path / "lh.n.mgh", tmp_path / "rh.n.mgh"))


# Affines and spaces

ZEROS = np.diag([0.0, 0, 0, 1])
PLANE = AFFINE.copy()
PLANE[:, 2] = PLANE[:, 1]
SINGULAR = {
    "zeros": ZEROS,
    "a row of zeros": np.diag([2.0, 0, 2, 1]),
    "a plane": PLANE,
    "NaN": np.where(AFFINE == 60, np.nan, AFFINE),
    "infinity": np.where(AFFINE == 60, np.inf, AFFINE),
    "all NaN": np.full((4, 4), np.nan),
}


def with_affine(path, affine):
    """Write an sform as it is, past nibabel's own checks."""
    nifti = nib.load(path)
    values = np.asarray(nifti.dataobj)
    header = nib.Nifti1Header()
    header.set_data_shape(values.shape)
    header.set_data_dtype(values.dtype)
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = affine[row]
    out = path.with_name("odd_" + path.name.removesuffix(".gz"))
    out.write_bytes(header.binaryblock + b"\0\0\0\0" + values.tobytes(order="F"))
    return out


@pytest.mark.parametrize("case", SINGULAR)
def test_an_affine_that_is_none_is_refused_wherever_it_is(person, case):
    mask, affine = person.folder / "mask.nii.gz", SINGULAR[case]
    odd_mask, odd_betas = with_affine(mask, affine), [with_affine(path, affine) for path in person.betas]
    for betas, table, given in (
        (person.betas, person.tables, odd_mask),
        (odd_betas, person.tables, odd_mask),
        (odd_betas, person.tables, None),
        (odd_betas, person.tables, mask),
    ):
        with pytest.raises(InputError, match=r"affine") as caught:
            load_subject(betas, table, given)
        assert "\n" not in str(caught.value)
    for make in (lambda: Grid(person.mask, affine, mask), lambda: VoxelSpace(np.ones(24, bool), person.mask, affine)):
        with pytest.raises(InputError, match="affine"):
            make()


def test_an_odd_affine_of_a_region_or_ceiling_does_not_pass_the_grid_check(person):
    odd = with_affine(person.folder / "mask.nii.gz", SINGULAR["NaN"])
    for options in ({"rois": odd}, {"ncsnr": odd}):
        with pytest.raises(InputError, match="different affines"):
            person.load(**options)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_maps_are_in_the_space_that_the_mask_names(person, code, tmp_path):
    path = image(person, "m.nii", person.mask.astype("u1"), code=code)
    space = load_subject(person.betas, person.tables, path).space
    write_space(tmp_path / "s.safetensors", space, {})
    space = read_space(tmp_path / "s.safetensors")[0]
    written = nib.load(save_map(np.zeros(space.n_voxels), space, tmp_path / "a.nii.gz"))
    for header in (written.header, unmask(np.zeros(space.n_voxels), space).header):
        assert int(header["sform_code"]) == int(header["qform_code"]) == code


@pytest.mark.parametrize(("sform", "qform", "expected"), [(0, 4, 4), (4, 1, 4), (0, 0, 2), (77, 3, 3)])
def test_the_space_is_that_of_the_transform_that_is_used(person, tmp_path, sform, qform, expected):
    path = image(person, "m.nii", person.mask.astype("u1"), np.diag([2.0, 2, 2, 1]))
    content = bytearray(path.read_bytes())
    content[252:254], content[254:256] = qform.to_bytes(2, "little"), sform.to_bytes(2, "little")
    path.write_bytes(content)
    from braincorl.datasets.betas.grids import read_mask

    assert read_mask(path).space_code == expected


# Words


@pytest.mark.parametrize("word", ["n/a", "N/A", "", "NaN", "nan", "NA", "None", "null", "<NA>", " n/a "])
def test_missing_means_missing_in_every_table_and_list(person, caplog, word):
    """In the column image, in the column session, in a list of labels, and in a table of labels."""
    rows = [(word if name == "n/a" else name) + f"\t{session}" for session, names in ((1, 0), (2, 1))
            for name in person.images[names]]  # fmt: skip
    table = person.folder / "all.tsv"
    table.write_text("image\tsession\n" + "\n".join(rows))
    unknown = person.folder / "unknown.tsv"
    unknown.write_text("image\tsession\n" + "\n".join(f"{n}\t{word}" for names in person.images for n in names))
    (person.folder / "labels.txt").write_text("\n".join([word, "V1"] * 12))
    mask, expected = person.folder / "mask.nii.gz", person.load(zscore="session")
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        subject = load_subject(person.betas, table, mask, zscore="session", rois=person.folder / "labels.txt")
        assert load_subject(person.betas, unknown, mask).n_sessions == 2  # from the files' names
    assert subject.image_ids.tolist() == expected.image_ids.tolist()
    np.testing.assert_array_equal(subject.responses, expected.responses)
    assert list(subject.rois) == ["V1"]
    sure = word.strip().lower() in ("", "n/a")
    assert ("is taken as missing" in caplog.text) is not sure
    if not sure:
        for where in ("all.tsv, column 'image'", "unknown.tsv, column 'session'", "labels.txt"):
            assert where in caplog.text


def test_names_of_images_may_differ_by_the_ending_of_a_picture(person, tmp_path, caplog):
    plain_names = person.load().image_ids.tolist()
    named = [f"{name}.JPG" for name in plain_names]
    with caplog.at_level(logging.INFO, logger="braincorl"):
        subject = person.load(images=named[::-1])
    assert caplog.text.count("differ by their endings alone") == 1
    assert subject.image_ids.tolist() == named
    np.testing.assert_array_equal(subject.responses, person.load().responses)
    prepare(open_subject(person.betas, person.tables, person.folder / "mask.nii.gz"), tmp_path / "p.h5")
    assert load_prepared(tmp_path / "p.h5", images=named).image_ids.tolist() == named


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (["a"], ["a.png", "a.jpg"]),  # which of the two?
        (["a.png", "a.jpg"], ["a"]),
        (["a.png"], ["a.jpg"]),  # another file
        (["a", "b"], ["a.png", "b"]),  # names that are in both mean what they say
        (["a"], ["a.v2"]),
    ],
)
def test_other_names_of_images_are_not_taken_for_the_same(shown, wanted):
    assert without_endings(shown, wanted) == {}


def test_words_that_mean_something_are_kept():
    words = ["none of these", "nana", "0", "false", "-", "unknown", "FFA"]
    assert blanked(words, "x") == words
    assert set(labels_to_rois(["unlabelled", "V1", "Unlabelled"], 3)) == {"V1"}


def test_a_name_has_one_spelling_in_tables_and_lists(tmp_path):
    """An accent may be a character of its own, as macOS writes file names."""
    composed, decomposed = "caf\u00e9.png", "cafe\u0301.png"
    assert blanked([decomposed, f" {composed} "], "x") == [composed, composed]
    (tmp_path / "names.txt").write_text(f"{decomposed}\n{composed}\n", encoding="utf-8")
    assert read_image_names(tmp_path / "names.txt") == [composed, composed]


@pytest.mark.parametrize("name", ["NA", "nan", "None", "null", "N/A region"])
def test_a_region_with_an_odd_name_is_read_back_from_our_tables(tmp_path, name):
    (tmp_path / "t.tsv").write_text(f"roi\tev\n{name}\t0.5\nV1\tn/a\nV2\t\n")
    table = read_table(tmp_path / "t.tsv")
    assert table["roi"].tolist() == [name, "V1", "V2"]
    assert table["ev"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    "names", [("1", "2"), ("01", "02"), ("ses-1", "ses-02"), ("ses-001", "2"), ("1.0", "2.0"), ("0001", "ses-2.0")]
)
def test_a_session_is_one_session_however_it_is_written(person, names):
    expected = person.load(zscore="session")
    tables = []
    for names_of_images, session, other in zip(person.images, names, ("1", "02"), strict=True):
        path = person.folder / f"odd-{session}.tsv"
        half = len(names_of_images) // 2
        sessions = [session] * half + [other] * (len(names_of_images) - half)
        path.write_text("image\tsession\n" + "\n".join(map("\t".join, zip(names_of_images, sessions, strict=True))))
        tables.append(path)
    subject = load_subject(person.betas, tables, person.folder / "mask.nii.gz", zscore="session")
    assert subject.n_sessions == 2
    np.testing.assert_array_equal(subject.responses, expected.responses)


def test_sessions_that_differ_stay_apart():
    labels = ["1", "10", "01a", "1a", "A1", "2026-11-1", "0", "pre"]
    assert len({plain(label) for label in labels}) == len(labels)


def test_a_file_without_a_session_is_scaled_as_one_and_that_is_said(person, caplog):
    betas = person.folder / "betas.nii.gz"
    shutil.copy(person.betas[0], betas)
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        load_subject(betas, person.tables[0], person.folder / "mask.nii.gz", zscore="session")
    assert "nothing says which session the 5 trials of" in caplog.text
    caplog.clear()
    load_subject(person.betas[0], person.tables[0], person.folder / "mask.nii.gz", zscore="session")
    assert "nothing says" not in caplog.text


# The same twice, and contradictions


def test_the_same_betas_twice_are_refused(person):
    mask, (first, second), (one, two) = person.folder / "mask.nii.gz", person.betas, person.tables
    link, hard, copy, again = (person.folder / f"{name}.nii.gz" for name in ("link", "hard", "copy", "again"))
    link.symlink_to(first)
    os.link(first, hard)
    shutil.copy(first, copy)
    nib.save(nib.load(first), again.with_suffix(""))  # the same trials in another container
    cases = {
        "its name": first,
        "its name written otherwise": first.parent / ".." / first.parent.name / first.name,
        "a link": link,
        "a hard link": hard,
        "a copy": copy,
        "another container": again.with_suffix(""),
    }
    shutil.copy(one, person.folder / "t.tsv")
    for case, path in cases.items():
        with pytest.raises(InputError, match=r"twice|the same data in") as caught:
            load_subject([first, path], [one, person.folder / "t.tsv"], mask)
        assert "fake a noise ceiling" in str(caught.value), case
    assert load_subject([first, second], [one, two], mask).n_images == 6


def renamed(path, name):
    return path.rename(path.with_name(name))


CONTRADICTIONS = {
    "tables in another order than the betas": (
        lambda p: (p.betas, p.tables[::-1]), "session ses-2 but .* is of ses-1"),
    "betas in another order than the tables": (
        lambda p: (p.betas[::-1], p.tables), "session ses-1 but .* is of ses-2"),
    "betas of two people": (
        lambda p: ([p.betas[0], renamed(p.betas[1], "sub-08_ses-2_betas.nii.gz")], p.tables), "of two people"),
    "one person's table for another's betas": (
        lambda p: (p.betas[0], renamed(p.tables[0], "sub-08_trials.tsv")), "person sub-08 but .* of sub-07"),
    "one table for all, of another person": (
        lambda p: (p.betas, joined(p, "sub-08_trials.tsv")), "person sub-08 but .* of sub-07"),
    "one table for all, of one session": (
        lambda p: (p.betas, joined(p, "ses-1_trials.tsv")), "session ses-1 but .* of ses-2"),
    "another run": (
        lambda p: (renamed(p.betas[0], "sub-07_run-1.nii.gz"), renamed(p.tables[0], "sub-07_run-02.tsv")), "run-02"),
    "another task": (
        lambda p: (renamed(p.betas[0], "task-a.nii.gz"), renamed(p.tables[0], "task-b.tsv")), "task-b but .* task-a"),
    "another person's folder": (
        lambda p: (moved(p, p.betas[0], "sub-01", "b.nii.gz"), moved(p, p.tables[0], "sub-02", "t.tsv")), "sub-02 but"),
    "a table that states another session": (
        lambda p: (p.betas[0], stated(p, "2")), "says session '2' for volumes of"),
}  # fmt: skip


def joined(person, name):
    path = person.folder / name
    path.write_text("image\n" + "\n".join(name for names in person.images for name in names))
    return path


def moved(person, path, folder, name):
    (person.folder / folder).mkdir()
    return path.rename(person.folder / folder / name)


def stated(person, session):
    path = person.folder / "stated.tsv"
    path.write_text("image\tsession\n" + "\n".join(f"{name}\t{session}" for name in person.images[0]))
    return path


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_names_that_contradict_each_other_are_refused(person, case):
    make, words = CONTRADICTIONS[case]
    betas, tables = make(person)
    with pytest.raises(InputError, match=words) as caught:
        load_subject(betas, tables, person.folder / "mask.nii.gz")
    assert "\n" not in str(caught.value)


def test_names_that_only_look_different_agree(person):
    betas = [renamed(path, f"sub-7_ses-0{n}_betas.nii.gz") for n, path in enumerate(person.betas, start=1)]
    tables = [renamed(path, f"sub-07_ses-{n}_task-x_trials.tsv") for n, path in enumerate(person.tables, start=1)]
    assert load_subject(betas, tables, person.folder / "mask.nii.gz").n_images == 6


def test_a_folder_may_name_the_session(person):
    betas = [moved(person, path, f"ses-{n}", "betas.nii.gz") for n, path in enumerate(person.betas, start=1)]
    again = load_subject(betas, person.tables, person.folder / "mask.nii.gz", zscore="session")
    assert again.n_sessions == 2
    with pytest.raises(InputError, match="2 trials tables for 1 betas"):
        load_subject(betas[0], person.tables, person.folder / "mask.nii.gz")


def test_a_mask_or_region_of_another_person_is_told(person, caplog):
    mask = renamed(person.folder / "mask.nii.gz", "sub-08_mask.nii.gz")
    shutil.copy(mask, person.folder / "sub-09_label-V1_mask.nii.gz")
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        load_subject(person.betas, person.tables, mask, rois=person.folder / "sub-09_label-V1_mask.nii.gz")
    assert "is of sub-08, but the betas" in caplog.text
    assert "is of sub-09, but the betas" in caplog.text


def test_color_tables_and_bold5000_say_what_is_wrong_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read: it is a folder"):
        read_color_table(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        load_bold5000(tmp_path / "none", 1)
