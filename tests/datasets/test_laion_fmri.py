"""LAION-fMRI: known betas, ceilings, regions and splits come back exactly; odd inputs get a line each."""

import json
import logging
import re

import nibabel as nib
import numpy as np
import pytest
from laion import AFFINE, SHAPE, TinyLaion

from braincorl.cli.main import main
from braincorl.datasets import load_laion_fmri, load_prepared, split_laion_fmri
from braincorl.datasets.betas.grids import ncsnr_of_ceiling
from braincorl.datasets.check import check_dataset
from braincorl.errors import FileFormatError, InputError
from braincorl.metrics import noise_ceiling


@pytest.fixture
def tiny(tmp_path):
    return TinyLaion(tmp_path / "laion")


def test_known_betas_ceilings_and_regions_come_back(tiny):
    person = load_laion_fmri(tiny.root, 1)
    expected = tiny.by_image((1, 2, 3), tiny.mask)
    keep = np.isfinite(next(iter(expected.values())))
    assert person.name == "sub-01"
    assert person.image_ids.tolist() == list(expected)
    np.testing.assert_allclose(person.responses, np.array(list(expected.values()))[:, keep], atol=1e-5)
    np.testing.assert_array_equal(person.space.included, keep)
    # The ceiling of means over four repeats is the published one.
    np.testing.assert_allclose(
        noise_ceiling(person.ncsnr, np.full(3, 4)) * 100, tiny.percent[tiny.mask][keep], rtol=1e-5
    )
    for name, members in tiny.regions.items():
        np.testing.assert_array_equal(person.rois[name], members[tiny.mask][keep])
    np.testing.assert_allclose(person.space.affine, AFFINE)


def test_ceilings_become_ratios():
    """By the published formula: 100 ncsnr² / (ncsnr² + mean(1 / n))."""
    ncsnr = np.array([0.0, 0.3, 1.0, 2.0])
    for repeats in (4, 12):
        percent = 100 * ncsnr**2 / (ncsnr**2 + 1 / repeats)
        np.testing.assert_allclose(ncsnr_of_ceiling(percent / 100, 1 / repeats), ncsnr)
    assert np.isfinite(ncsnr_of_ceiling(np.array([1.0]), 0.25)).all()


def test_volumes_may_be_numbered_from_one_and_rows_in_any_order(tiny):
    before = load_laion_fmri(tiny.root, "sub-01")
    tiny.write_table(1, first=1)
    tiny.write_table(2, rows=[3, 1, 0, 2, *range(4, 12)][::-1])
    after = load_laion_fmri(tiny.root, "1")
    np.testing.assert_array_equal(before.image_ids, after.image_ids)
    np.testing.assert_array_equal(before.responses, after.responses)


def test_voxels_and_sessions_are_chosen(tiny):
    person = load_laion_fmri(tiny.root, 1, voxels=["V1", "FFA"], sessions=[2], zscore="none")
    inside = tiny.regions["V1"] | tiny.regions["FFA"]
    np.testing.assert_array_equal(person.space.mask, inside)
    assert person.n_sessions == 1
    clear = load_laion_fmri(tiny.root, 1, min_ceiling=0.3)
    np.testing.assert_array_equal(clear.space.mask, tiny.mask & (tiny.percent >= 30))
    whole = load_laion_fmri(tiny.root, 1, voxels="all", min_ceiling=0.3)
    assert whole.space.mask.sum() == clear.space.mask.sum()
    own = np.zeros(SHAPE, dtype=bool)
    own[2:4, 1:3] = True
    np.testing.assert_array_equal(load_laion_fmri(tiny.root, 1, voxels=own).space.mask, own)


def test_held_sessions_are_not_read(tiny):
    TinyLaion(tiny.root / "other", sessions=(31,))
    (tiny.root / "other/derivatives/glmsingle-tedana/sub-01/ses-31").rename(tiny.folder / "ses-31")
    assert load_laion_fmri(tiny.root, 1).n_sessions == 3
    with pytest.raises(InputError, match="31 of LAION-fMRI are held back"):
        load_laion_fmri(tiny.root, 1, sessions=[1, 31])


@pytest.mark.parametrize(("name", "pool"), [("tau", "shared"), ("random_0", "sub-01"), ("ood", "shared")])
def test_published_splits(tiny, tmp_path, name, pool):
    splits = tiny.write_splits(tmp_path / "splits")
    person = load_laion_fmri(tiny.root, 1)
    split = split_laion_fmri(person, name, pool=pool, splits=splits)
    content = json.loads((splits / pool / f"{name}.json").read_text())["variants"][0]
    seen = set(person.image_ids.tolist())
    assert set(split.own.tolist()) == seen & set(content["train_ids"])
    assert set(split.test.tolist()) == seen & set(content["test_ids"])


def test_kinds_of_the_ood_split(tiny, tmp_path):
    splits = tiny.write_splits(tmp_path / "splits")
    person = load_laion_fmri(tiny.root, 1)
    test = split_laion_fmri(person, "ood", kinds=["gabor"], splits=splits).test
    assert test.size
    assert all("OOD_gabor" in label for label in test)
    with pytest.raises(InputError, match="no test images of kind 'cats': gabor, shape"):
        split_laion_fmri(person, "ood", kinds=["cats"], splits=splits)
    with pytest.raises(InputError, match="only ood has kinds"):
        split_laion_fmri(person, "tau", kinds=["gabor"], splits=splits)


def test_prepared_checked_and_split_from_the_command_line(tiny, tmp_path, capsys):
    splits = tiny.write_splits(tmp_path / "splits")
    command = ["data", "prepare", "laion-fmri", str(tiny.root), "--subject", "1", "--output", str(tmp_path / "p.h5")]
    assert main(command) == 0
    made, direct = load_prepared(tmp_path / "p.h5"), load_laion_fmri(tiny.root, 1)
    np.testing.assert_allclose(made.responses, direct.responses, atol=1e-6)
    np.testing.assert_array_equal(made.ncsnr, direct.ncsnr)
    kind, findings = check_dataset(tiny.root)
    assert kind == "LAION-fMRI"
    assert [finding.level for finding in findings].count("ok") == 1
    assert not [finding for finding in findings if finding.level == "wrong"]
    assert any("held back" in finding.text for finding in findings)
    command = ["data", "split", "laion-fmri", str(tmp_path / "p.h5"), "--splits", str(splits)]
    assert main([*command, "--output-dir", str(tmp_path / "lists")]) == 0
    split = split_laion_fmri(direct, splits=splits)
    assert (tmp_path / "lists" / "train.txt").read_text().split() == split.own.tolist()
    assert (tmp_path / "lists" / "test.txt").read_text().split() == split.test.tolist()
    capsys.readouterr()


def edit(path, change):
    path.write_text(change(path.read_text()))


def resaved(path, change, affine=AFFINE):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(image.get_fdata(dtype="f4")), affine), path)


def set_volume(values, value):
    values[..., 3] = value
    return values


def unfetched(path):
    """As git-annex leaves a file whose content is elsewhere."""
    path.unlink()
    path.symlink_to("../.git/annex/objects/nowhere")


def twice(tiny):
    tiny.paths(2)[0].write_bytes(tiny.paths(1)[0].read_bytes())


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


CEILING = "sub-01_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz"
MASK = "sub-01_task-images_space-T1w_desc-meanR2gt15mask_mask.nii.gz"
ODD = {
    "no such person": (lambda t: None, {"subject": 2}, "people are 1, 3, 5, 6, 7"),
    "another person": (lambda t: None, {"subject": 3}, "holds no betas"),
    "a session that is not there": (lambda t: None, {"sessions": [1, 9]}, "lacks session 9; there are 1, 2, 3"),
    "no sessions": (lambda t: None, {"sessions": []}, "lacks session"),
    "an unknown region": (lambda t: None, {"voxels": "PPA"}, "regions among FFA, V1"),
    "a mask of another grid": (lambda t: None, {"voxels": np.ones((2, 2, 2), bool)}, "expected bool"),
    "a ceiling that none reaches": (lambda t: None, {"min_ceiling": 0.95}, "no voxel of sub-01"),
    "no mask": (lambda t: (t.folder / MASK).unlink(), {}, "is missing"),
    "ceilings as shares": (lambda t: resaved(t.folder / CEILING, lambda v: v / 100), {}, "expected percentages, not"),
    "ceilings beyond 100": (lambda t: resaved(t.folder / CEILING, lambda v: v * 3), {}, "expected percentages"),
    "ceilings on another grid": (lambda t: resaved(t.folder / CEILING, lambda v: v[:-1]), {}, "resample"),
    "no table": (lambda t: t.paths(2)[1].unlink(), {}, "_trials.tsv"),
    "a table without labels": (
        lambda t: edit(t.paths(2)[1], lambda s: s.replace("label", "image")),
        {},
        "named 'label'",
    ),
    "a row too few": (lambda t: edit(t.paths(2)[1], lambda s: s.rsplit("\n", 2)[0] + "\n"), {}, "11 rows but"),
    "a volume twice": (lambda t: edit(t.paths(2)[1], lambda s: s.replace("\t5\t", "\t4\t")), {}, "each volume once"),
    "an index of words": (lambda t: edit(t.paths(2)[1], lambda s: s.replace("\t5\t", "\tfive\t")), {}, "whole number"),
    "the table of another session": (
        lambda t: edit(t.paths(2)[1], lambda s: s.replace("ses-02", "ses-03")),
        {},
        "says session 3",
    ),
    "ragged rows": (lambda t: edit(t.paths(2)[1], lambda s: s.replace(".jpg\n", ".jpg\tx\n", 1)), {}, "cells under 4"),
    "two columns of labels": (
        lambda t: edit(t.paths(2)[1], lambda s: s.replace("run", "label", 1)),
        {},
        "a name of its own",
    ),
    "an index between volumes": (
        lambda t: edit(t.paths(2)[1], lambda s: s.replace("\t5\t", "\t5.7\t")),
        {},
        r"no whole number \('5.7'\)",
    ),
    "a table that names no image": (
        lambda t: edit(t.paths(2)[1], lambda s: re.sub(r"\t[^\t]*\n", "\tn/a\n", s).replace("n/a", "label", 1)),
        {},
        "names no image in any row",
    ),
    "an empty table": (lambda t: t.paths(2)[1].write_text(""), {}, "is empty"),
    "a table with commas": (lambda t: edit(t.paths(2)[1], lambda s: s.replace("\t", ",")), {}, "named 'label'"),
    "a table that was not fetched": (lambda t: unfetched(t.paths(2)[1]), {}, "a link to a file that does not exist"),
    "a mask that was not fetched": (lambda t: unfetched(t.folder / MASK), {}, "a link to a file that does not exist"),
    "ceilings that were not fetched": (
        lambda t: unfetched(t.folder / CEILING),
        {},
        "a link to a file that does not exist",
    ),
    "no ceiling known": (lambda t: resaved(t.folder / CEILING, lambda v: v * np.nan), {}, "no ceiling above 0"),
    "ceilings of 0": (lambda t: resaved(t.folder / CEILING, lambda v: v * 0), {}, "no ceiling above 0"),
    "an empty mask": (lambda t: resaved(t.folder / MASK, lambda v: v * 0), {}, "is an empty mask"),
    "a mask in another place": (lambda t: resaved(t.folder / MASK, lambda v: v, np.eye(4)), {}, "different affines"),
    "a region on another grid": (lambda t: resaved(t.region("V1"), lambda v: v[:-1]), {}, "resample"),
    "a session in another place": (lambda t: resaved(t.paths(2)[0], lambda v: v, np.eye(4)), {}, "different affines"),
    "a volume without a number": (lambda t: resaved(t.paths(2)[0], lambda v: set_volume(v, np.nan)), {}, "no finite"),
    "a session that does not vary": (lambda t: resaved(t.paths(2)[0], lambda v: 0 * v + 1), {}, "voxels varies"),
    "a page in place of betas": (lambda t: t.paths(2)[0].write_text("<html>" * 100), {}, "not a readable NIfTI"),
    "one session twice": (lambda t: twice(t), {}, "holds the same data"),
    "a session that is a word": (lambda t: None, {"sessions": ["second"]}, "sessions holds 'second'"),
    "a session between two": (lambda t: None, {"sessions": [1.5]}, r"sessions holds 1\.5"),
    "voxels that are nothing": (lambda t: None, {"voxels": None}, "voxels is None"),
    "no voxel": (lambda t: None, {"voxels": np.zeros(SHAPE, bool)}, "False everywhere"),
    "a ceiling in percent": (lambda t: None, {"min_ceiling": 30}, "a share of variance from 0 to 1"),
    "a ceiling that is no number": (lambda t: None, {"min_ceiling": np.nan}, "a share of variance from 0 to 1"),
    "damaged betas": (lambda t: truncated(t.paths(2)[0]), {}, "damaged|truncated"),
    "betas on another grid": (lambda t: resaved(t.paths(2)[0], lambda v: v[:-1]), {}, "resample"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_inputs_get_a_line(tiny, odd):
    spoil, options, said = ODD[odd]
    spoil(tiny)
    options = {"subject": 1} | options
    with pytest.raises(InputError, match=said) as caught:
        load_laion_fmri(tiny.root, options.pop("subject"), **options)
    assert "\n" not in str(caught.value)


LIKE_BEFORE = {
    "a byte order mark": lambda t: t.paths(2)[1].write_bytes(b"\xef\xbb\xbf" + t.paths(2)[1].read_bytes()),
    "UTF-16": lambda t: t.paths(2)[1].write_bytes(t.paths(2)[1].read_text().encode("utf-16")),
    "lines as Windows ends them": lambda t: edit(t.paths(2)[1], lambda s: s.replace("\n", "\r\n")),
    "a blank line": lambda t: edit(t.paths(2)[1], lambda s: s.replace("\nses-02\t2", "\n\nses-02\t2", 1)),
    "sessions as numbers": lambda t: edit(t.paths(2)[1], lambda s: s.replace("ses-02", "2")),
    "no word of the session": lambda t: edit(t.paths(2)[1], lambda s: s.replace("ses-02", "n/a")),
    "a mask of 1 and NaN": lambda t: resaved(t.folder / MASK, lambda v: np.where(v > 0, 1, np.nan)),
    "a region that is empty": lambda t: nib.save(nib.Nifti1Image(np.zeros(SHAPE, "u1"), AFFINE), t.region("PPA")),
}


@pytest.mark.parametrize("odd", LIKE_BEFORE)
def test_odd_inputs_that_can_be_understood_give_the_same(tiny, odd):
    before = load_laion_fmri(tiny.root, 1)
    LIKE_BEFORE[odd](tiny)
    after = load_laion_fmri(tiny.root, 1, sessions=["ses-01", "2", 3])
    np.testing.assert_array_equal(before.responses, after.responses)
    np.testing.assert_array_equal(before.image_ids, after.image_ids)
    assert list(before.rois) == list(after.rois)


WARNED = {
    "betas that were not fetched": (lambda t: unfetched(t.paths(2)[0]), r"ses-02 holds no betas .* and is left out"),
    "a session under another name": (
        lambda t: t.paths(2)[0].parents[1].rename(t.folder / "ses-2"),
        "ses-2 holds no betas",
    ),
    "an image that is missing": (
        lambda t: edit(t.paths(2)[1], lambda s: s.replace(t.shown[2][4], "n/a")),
        "of 12 rows name no image and are left out",
    ),
    "a map of R² for a mask": (
        lambda t: resaved(t.folder / MASK, lambda v: v * np.linspace(0.1, 1, v.size).reshape(v.shape)),
        "is no mask of 0 and 1",
    ),
    "no ceilings": (
        lambda t: [path.unlink() for path in t.folder.glob("*Noiseceiling*")],
        "estimated from repeats",
    ),
}


@pytest.mark.parametrize("odd", WARNED)
def test_what_is_left_out_or_guessed_is_said(tiny, odd, caplog):
    spoil, said = WARNED[odd]
    spoil(tiny)
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        load_laion_fmri(tiny.root, 1)
    assert [record for record in caplog.records if re.search(said, record.getMessage())], caplog.text


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BAD_SPLITS = {
    "no such name": (lambda p: None, {"name": "cluster_k5_7"}, InputError, "no split 'cluster_k5_7'; there are"),
    "no such variant": (lambda p: None, {"variant": 4}, InputError, "no variant 4"),
    "another's pool": (lambda p: None, {"pool": "sub-03"}, InputError, "the person's own, 'sub-01'"),
    "another count": (lambda p: change(p, n_train=9), {}, FileFormatError, "says n_train 9"),
    "a number of variants": (lambda p: change(p, variants=3), {}, FileFormatError, "no list 'variants'"),
    "labels that are numbers": (
        lambda p: change(p, variants=[{"variant_id": 0, "train_ids": [1], "test_ids": ["a"]}]),
        {},
        FileFormatError,
        "no list of labels 'train_ids'",
    ),
    "an image twice": (
        lambda p: change(p, variants=[{"variant_id": 0, "train_ids": ["a", "a"], "test_ids": ["b"]}]),
        {},
        FileFormatError,
        "lists an image twice",
    ),
    "a list": (lambda p: p.write_text("[]"), {}, InputError, r"tau\.json"),
    "no JSON": (lambda p: p.write_text("{"), {}, InputError, "not valid JSON"),
    "no variants": (lambda p: change(p, variants={}), {}, FileFormatError, "no list 'variants'"),
    "an image on both sides": (
        lambda p: change(p, n_train=1, n_test=1, variants=[{"variant_id": 0, "train_ids": ["a"], "test_ids": ["a"]}]),
        {},
        FileFormatError,
        "on both sides",
    ),
    "images that nobody saw": (
        lambda p: change(p, n_train=1, n_test=1, variants=[{"variant_id": 0, "train_ids": ["a"], "test_ids": ["b"]}]),
        {},
        InputError,
        "no response to any",
    ),
}


@pytest.mark.parametrize("bad", BAD_SPLITS)
def test_bad_splits_get_a_line(tiny, tmp_path, bad):
    spoil, options, kind, said = BAD_SPLITS[bad]
    splits = tiny.write_splits(tmp_path / "splits")
    spoil(splits / "shared" / "tau.json")
    person = load_laion_fmri(tiny.root, 1)
    with pytest.raises(kind, match=said):
        split_laion_fmri(person, options.pop("name", "tau"), splits=splits, **options)


def test_without_the_package_a_folder_is_asked_for(tiny):
    with pytest.raises(InputError, match="laion_fmri/splits/data"):
        split_laion_fmri(load_laion_fmri(tiny.root, 1))
