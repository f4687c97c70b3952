"""BIDS folders and others that hold more than this program's files: links, hidden folders, other spaces."""

import json
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
from layouts import AFFINE, SHAPE, TinyBids, TinyBold5000

from braincorl.cli.main import main
from braincorl.datasets import load_bids, load_bold5000, load_prepared
from braincorl.datasets.check import check_dataset
from braincorl.errors import InputError


@pytest.fixture
def bids(tmp_path):
    return TinyBids(tmp_path / "bids")


def save(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def test_regions_of_other_spaces_and_grids_are_left_out_with_a_count(bids, caplog):
    anat, inside = bids.root / "sub-ab" / "anat", np.ones(SHAPE, "u1")
    finer = np.ones([2 * n for n in SHAPE], "u1")
    others = [
        save(anat / "sub-ab_space-MNI152NLin2009cAsym_label-V1_mask.nii.gz", inside),
        save(anat / "sub-ab_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz", inside),
        save(anat / "sub-ab_space-T1w_res-anat_label-GM_mask.nii.gz", finer),
        save(anat / "sub-ab_desc-aparcaseg_dseg.nii.gz", finer),
        save(anat / "sub-ab_space-T1w_desc-shifted_mask.nii.gz", inside, AFFINE + np.eye(4)[:, :1] * [0, 0, 0, 1]),
        save(anat / "sub-ab_space-T1w_res-2_stat-ncsnr_statmap.nii.gz", finer.astype("f4")),
    ]
    with caplog.at_level(logging.INFO, logger="braincorl"):
        subject = load_bids(bids.root, "ab")
    assert list(subject.rois) == ["V1v"]
    np.testing.assert_array_equal(subject.space.mask, bids.mask)
    assert f"{len(others)} of {len(others) + 3} masks, regions and maps are on another grid or" in caplog.text


def test_a_hemisphere_is_part_of_a_regions_name(bids):
    anat = bids.root / "sub-ab" / "anat"
    halves = {"L": bids.mask.copy(), "R": bids.mask.copy()}
    halves["L"][:3], halves["R"][3:] = False, False
    for side, values in halves.items():
        save(anat / f"sub-ab_hemi-{side}_space-T1w_label-FFA_mask.nii.gz", values.astype("u1"))
        path = save(anat / f"sub-ab_hemi-{side}_space-T1w_desc-floc_dseg.nii.gz", values.astype("u1") * 2)
        path.with_name(path.name.replace(".nii.gz", ".tsv")).write_text("index\tname\n2\tPPA\n")
    rois = load_bids(bids.root, "ab").rois
    assert {name: int(m.sum()) for name, m in rois.items() if name != "V1v"} == {
        f"{name}_hemi-{side}": int(halves[side].sum()) for side in "LR" for name in ("FFA", "PPA")
    }


@pytest.mark.parametrize("label", ["1", 1, "01", "001", "sub-01", "sub-1", "sub-001"])
def test_a_person_is_found_by_number(bids, label):
    for path in sorted(bids.root.rglob("sub-ab*"), reverse=True):
        path.rename(path.with_name(path.name.replace("sub-ab", "sub-01")))
    assert load_bids(bids.root, label).name == "sub-01"
    for missing in (2, "10", "", "sub-", "ab"):
        with pytest.raises(InputError, match="but sub-01: check the label"):
            load_bids(bids.root, missing)
    (bids.root / "sub-001").mkdir()
    if str(label) in ("1", "sub-1"):
        with pytest.raises(InputError, match="holds sub-001 and sub-01: give the label as it is written"):
            load_bids(bids.root, label)


def test_json_with_a_byte_order_mark(bids, caplog):
    path = bids.root / "dataset_description.json"
    path.write_text(json.dumps({"DatasetType": "derivative"}), encoding="utf-8-sig")
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        load_bids(bids.root, "ab")
    assert "dataset_description" not in caplog.text


def another_task(bids):
    for path in (*bids.betas, *bids.tables):
        shutil.copy(path, path.with_name(path.name.replace("task-images", "task-words")))
    return "task", "images", "choose one by task (--task)"


def another_space(bids):
    for path in bids.betas:
        shutil.copy(path, path.with_name(path.name.replace("space-T1w", "space-MNI")))
    return "space", "T1w", "choose one by space (--space)"


def another_desc(bids):
    for path in bids.betas:
        shutil.copy(path, path.with_name(path.name.replace("desc-single", "desc-other")))
    return "desc", "single", "choose one by desc (--desc)"


def another_mask(bids):
    shutil.copy(bids.mask_path, bids.mask_path.with_name("sub-ab_space-T1w_desc-cortex_mask.nii.gz"))
    return "mask", bids.mask_path, "choose one by mask (--mask)"


def another_ncsnr(bids):
    path = bids.betas[0].parent / "sub-ab_space-T1w_stat-ncsnr_statmap.nii.gz"
    shutil.copy(path, path.with_name("sub-ab_space-T1w_stat-ncsnr_desc-b_statmap.nii.gz"))
    return "ncsnr", path, "choose one by ncsnr (--ncsnr)"


@pytest.mark.parametrize("make", [another_task, another_space, another_desc, another_mask, another_ncsnr])
def test_what_a_message_advises_exists_in_python_and_on_the_command_line(bids, tmp_path, make, capsys):
    expected = load_bids(bids.root, "ab")
    option, value, words = make(bids)
    with pytest.raises(InputError) as caught:
        load_bids(bids.root, "ab")
    assert words in str(caught.value)
    np.testing.assert_array_equal(load_bids(bids.root, "ab", **{option: value}).responses, expected.responses)
    command = ["data", "prepare", "bids", str(bids.root), "--subject", "ab", "--output", str(tmp_path / "p.h5")]
    assert main(command) == 2
    assert words in capsys.readouterr().err
    assert main([*command, f"--{option}", str(value)]) == 0
    assert "not z-scored" in capsys.readouterr().out
    np.testing.assert_allclose(load_prepared(tmp_path / "p.h5").responses, expected.responses, rtol=1e-5)


# Folders


def hidden_copies(root):
    """What datalad, Jupyter and macOS leave in a folder."""
    folder = root / "sub-ab" / "ses-1" / "func"
    for name in (".ipynb_checkpoints", ".datalad", ".git"):
        shutil.copytree(folder, folder / name)
    for path in [path for path in folder.iterdir() if path.is_file()]:
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")


def test_hidden_folders_are_left_out_and_that_is_said(bids, caplog):
    expected = load_bids(bids.root, "ab").responses
    hidden_copies(bids.root)
    with caplog.at_level(logging.INFO, logger="braincorl"):
        np.testing.assert_array_equal(load_bids(bids.root, "ab").responses, expected)
    assert "hidden files or folders are left out, such as ._sub-ab" in caplog.text
    _, findings = check_dataset(bids.root)
    assert all(finding.level == "ok" for finding in findings), findings


def test_linked_sessions_are_read(bids, tmp_path):
    expected = load_bids(bids.root, "ab").responses
    for number in (2, 10):
        session = bids.root / "sub-ab" / f"ses-{number}"
        shutil.move(session, tmp_path / "store" / f"ses-{number}")
        session.symlink_to(tmp_path / "store" / f"ses-{number}")
    (bids.root / "sub-ab" / "self").symlink_to(bids.root / "sub-ab")
    np.testing.assert_array_equal(load_bids(bids.root, "ab").responses, expected)


@pytest.mark.parametrize("what", ["betas", "tables"])
def test_a_session_that_is_a_link_to_nothing_is_not_left_out(bids, what):
    path = getattr(bids, what)[4]
    path.unlink()
    path.symlink_to("../../.git/annex/objects/xx")
    with pytest.raises(InputError, match="is a link to a file that does not exist: fetch that file first"):
        load_bids(bids.root, "ab")


def test_a_region_that_is_a_link_to_nothing_is_told(bids, caplog):
    (bids.root / "sub-ab" / "anat" / "sub-ab_space-T1w_label-hV4_mask.nii.gz").symlink_to("nowhere")
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        assert list(load_bids(bids.root, "ab").rois) == ["V1v"]
    assert "label-hV4_mask.nii.gz is a link to a file that does not exist, and is left out" in caplog.text


def test_bold5000_through_links_and_beside_hidden_folders(tmp_path, caplog):
    tiny = TinyBold5000(tmp_path / "data")
    expected = load_bold5000(tiny.root, 2).responses
    shutil.copytree(tiny.root / "betas", tiny.root / ".git" / "betas")
    shutil.move(tiny.root / "masks", tmp_path / "elsewhere")
    (tiny.root / "masks").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.INFO, logger="braincorl"):
        subject = load_bold5000(tiny.root, 2)
    np.testing.assert_array_equal(subject.responses, expected)
    assert "RHPPA" in subject.rois
    assert caplog.text.count("hidden files or folders are left out") == 1
    tiny.session(7).unlink()
    tiny.session(7).symlink_to("nowhere")
    with pytest.raises(InputError, match=r"ses-07.*is a link to a file that does not exist"):
        load_bold5000(tiny.root, 2)
