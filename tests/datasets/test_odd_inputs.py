"""Damaged and odd inputs: what each gets. One line a case: the damage, and the words of the error or warning.

"error" is one line of `InputError`; "warning" loads and says so; "same" loads what the undamaged files hold.
"""

import logging
import re
import shutil

import h5py
import nibabel as nib
import numpy as np
import pytest
from layouts import AFFINE, SHAPE, TinyAlgonauts, TinyBids, TinyBold5000, TinyGlmsingle
from scipy.io import loadmat, savemat

from braincorl.datasets import load_algonauts2023, load_bids, load_bold5000, load_nsd, load_subject
from braincorl.errors import InputError


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


def rewrite(path, change, affine=None):
    """Change the numbers of an image, or its affine."""
    image = nib.load(path)
    values = change(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(values, image.affine if affine is None else affine), path)


def with_nan_volume(values):
    values = values.astype("f4")
    values[..., 1] = np.nan
    return values


def with_nan(nsd):
    values = np.moveaxis(nsd.stored[2], 0, -1) / np.float32(300)
    values[(*np.argwhere(nsd.higher_visual() & ~nsd.invalid)[4], 1)] = np.nan
    nib.save(nib.Nifti1Image(values, AFFINE), session(nsd))


def own_design(nsd, change):
    """A copy of the experiment's files that may be changed, with other tables in the design."""
    link = nsd.root / "nsddata" / "experiments"
    source = link.resolve()
    link.unlink()
    shutil.copytree(source, link)
    tables = {name: values for name, values in loadmat(nsd.folder.design).items() if not name.startswith("__")}
    savemat(nsd.folder.design, change(tables))


def swap_subjects(tables):
    tables["subjectim"] = tables["subjectim"][::-1]
    return tables


def count_from_zero(tables):
    tables["masterordering"] = tables["masterordering"] - 1
    return tables


def without_order(tables):
    del tables["masterordering"]
    return tables


def swap_halves(nsd):
    labels = nsd.labels["floc-faces"]
    left = np.zeros(SHAPE, dtype=bool)
    left[3:] = True
    (nsd.folder.regions / "floc-faces.nii.gz").unlink()
    for side, half in (("rh", left), ("lh", ~left)):
        image = nib.Nifti1Image(np.where(half, labels, -1).astype(np.int16), AFFINE)
        nib.save(image, nsd.folder.regions / f"{side}.floc-faces.nii.gz")


def session(nsd, number=2):
    return nsd.folder.betas / f"betas_session{number:02d}.nii.gz"


def to_hdf5(nsd, transpose=(0, 3, 2, 1)):
    for number, values in nsd.stored.items():
        with h5py.File(nsd.folder.betas / f"betas_session{number:02d}.hdf5", "w") as file:
            file["betas"] = values.transpose(transpose)


def atlas(nsd, name="prf-visualrois"):
    return nsd.folder.regions / f"{name}.nii.gz"


NSD = {
    "a truncated session": (lambda n: cut(session(n)), "error", r"betas_session02.nii.gz is truncated or damaged"),
    "a missing session": (lambda n: session(n).unlink(), "error", r"lacks 1 of 3 sessions \(2\).*there \(1, 3\)"),
    "an empty file": (lambda n: session(n).write_bytes(b""), "error", "not a readable NIfTI image"),
    "a download page in place of data": (
        lambda n: session(n).write_text("<html>"), "error", "not a readable NIfTI image"),
    "a session of 749 trials": (
        lambda n: rewrite(session(n), lambda v: v[..., :-1]), "error", "holds 749 trials, expected 750"),
    "a session of another subject's grid": (
        lambda n: rewrite(session(n), lambda v: v[:, :-1]), "error", "6 x 6 x 5 voxels but the mask"),
    "a wrong affine in the betas": (
        lambda n: rewrite(session(n), lambda v: v, np.eye(4)), "same", None),
    "an HDF5 file in Python's order of axes": (
        lambda n: to_hdf5(n, (1, 2, 3, 0)), "error", "voxels but the mask"),
    "a truncated HDF5 file": (
        lambda n: (to_hdf5(n), cut(n.folder.betas / "betas_session02.hdf5")), "error", "not a readable HDF5 file"),
    "a voxel that is NaN in one session": (with_nan, "warning", "2 of .* voxels are constant or not finite"),
    "a session that is NaN in one trial": (
        lambda n: rewrite(session(n), lambda v: with_nan_volume(v / np.float32(300))), "error",
        r"volume 1 \(counting from 0\) holds no finite value"),
    "a design of other subjects": (
        lambda n: own_design(n, swap_subjects), "error", "belongs to another subject or release"),
    "a design that counts from 0": (
        lambda n: own_design(n, count_from_zero), "error", "counted from 0"),
    "a design without its order": (lambda n: own_design(n, without_order), "error", "not NSD's design file"),
    "no design": (lambda n: (own_design(n, dict), n.folder.design.unlink()), "error", "which image each trial showed"),
    "a damaged design": (lambda n: (own_design(n, dict), cut(n.folder.design, 0.3)), "error", "not a readable MATLAB"),
    "no table of stimuli": (lambda n: (own_design(n, dict), n.folder.stimuli.unlink()), "same", None),
    "a damaged table of stimuli": (
        lambda n: (own_design(n, dict), n.folder.stimuli.write_text("a,b\n1,2\n")), "error", "not NSD's table"),
    "no colour table": (
        lambda n: (n.root / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab").unlink(), "same", None),
    "an empty colour table": (
        lambda n: (n.root / "nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab").write_text("# none\n"), "error",
        "names no label"),
    "a label volume absent": (lambda n: atlas(n).unlink(), "error", "prf-visualrois.nii.gz is missing"),
    "a label volume of another grid": (
        lambda n: rewrite(atlas(n, "floc-words"), lambda v: v[:-1]), "error", "another subject or space"),
    "labels that are not whole": (
        lambda n: rewrite(atlas(n), lambda v: v.astype("f4") + 0.5), "error", "not whole numbers"),
    "swapped hemispheres": (swap_halves, "warning", "the two hemispheres look swapped"),
    "an ncsnr map of another grid": (
        lambda n: rewrite(n.folder.betas / "ncsnr.nii.gz", lambda v: v[:-1]), "error", "they must be on one grid"),
    "no ncsnr map": (lambda n: (n.folder.betas / "ncsnr.nii.gz").unlink(), "same", None),
    "the folder above": (lambda n: setattr(n, "root", n.root.parent), "error", "holds no betas_session"),
}  # fmt: skip


@pytest.mark.parametrize("case", NSD)
def test_nsd(nsd, case, caplog):
    damage, outcome, words = NSD[case]
    load = lambda: load_nsd(nsd.root, 1, sessions=[1, 2, 3])  # noqa: E731
    expected = load().responses if outcome == "same" else None
    damage(nsd)
    meets(load, outcome, words, expected, caplog)


BOLD5000 = {
    "names of another subject": (
        lambda b: (b.root / "CSI2_imgnames.txt").write_text("a.jpg\n" * 40), "error", "names 40 trials but"),
    "an empty line among the names": (
        lambda b: (b.root / "CSI2_imgnames.txt").write_text("a.jpg\n\nb.jpg\n"), "error", "line 2 is empty"),
    "no names": (lambda b: (b.root / "CSI2_imgnames.txt").unlink(), "error", "holds no CSI2_imgnames.txt"),
    "a wrong affine in the betas": (
        lambda b: rewrite(b.session(2), lambda v: v, np.eye(4)), "same", None),
    "the same file twice": (
        lambda b: shutil.copy(b.session(2), b.root), "error", "2 times"),
    "a missing session": (lambda b: b.session(7).unlink(), "error", "ses-07.nii.gz"),
    "a mask of another subject": (
        lambda b: rewrite(b.root / "CSI2_brainmask.nii.gz", lambda v: v[:-1]), "error",
        "another subject or space"),
    "swapped hemispheres": (
        lambda b: [
            rewrite(b.root / f"masks/sub-CSI2/sub-CSI2_mask-{name}.nii.gz", lambda v: v[::-1])
            for name in ("LHPPA", "RHPPA")
        ], "warning", "of PPA lies right"),
    "a constant session": (
        lambda b: rewrite(b.session(3), lambda v: 0 * v + 1), "error", "none of .* voxels varies"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOLD5000)
def test_bold5000(tmp_path, case, caplog):
    damage, outcome, words = BOLD5000[case]
    tiny = TinyBold5000(tmp_path / "data")
    load = lambda: load_bold5000(tiny.root, 2)  # noqa: E731
    expected = load().responses if outcome == "same" else None
    damage(tiny)
    meets(load, outcome, words, expected, caplog)


def swap_arrays(a):
    folder = a.folder / "training_split/training_fmri"
    (folder / "lh_training_fmri.npy").rename(folder / "x")
    (folder / "rh_training_fmri.npy").rename(folder / "lh_training_fmri.npy")
    (folder / "x").rename(folder / "rh_training_fmri.npy")


class Malicious:
    def __reduce__(self):
        return print, ("run",)


def pickled(value):
    """Give an array that holds `value` as it is, which NumPy writes as a pickle."""
    array = np.empty((), dtype=object)
    array[()] = value
    return array


ALGONAUTS = {
    "swapped hemispheres": (swap_arrays, "error", "looks like the other hemisphere's"),
    "a missing image": (
        lambda a: (a.folder / f"training_split/training_images/{a.images[3]}").unlink(), "error",
        "has 12 rows for 11 training images"),
    "no images": (
        lambda a: shutil.rmtree(a.folder / "training_split/training_images"), "error", "which image each row is"),
    "a mapping that would run code": (
        lambda a: np.save(a.folder / "roi_masks/mapping_prf-visualrois.npy", {1: Malicious()}, allow_pickle=True),
        "error", "builtins.print.*was not run"),
    "a mapping that is no dictionary": (
        lambda a: np.save(a.folder / "roi_masks/mapping_prf-visualrois.npy", np.arange(3)), "error", "no dictionary"),
    "labels in lists of unlike lengths": (
        lambda a: np.save(a.folder / "roi_masks/lh.prf-visualrois_challenge_space.npy", pickled([[1, 2], [3]])),
        "error", "holds no array of numbers, expected a label per vertex"),
    "labels that are none": (
        lambda a: np.save(a.folder / "roi_masks/lh.prf-visualrois_challenge_space.npy", pickled([1, None])),
        "error", "values of type object"),
    "labels of one hemisphere absent": (
        lambda a: (a.folder / "roi_masks/rh.prf-visualrois_challenge_space.npy").unlink(), "error", "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", ALGONAUTS)
def test_algonauts(tmp_path, case, caplog, capsys):
    damage, outcome, words = ALGONAUTS[case]
    tiny = TinyAlgonauts(tmp_path)
    damage(tiny)
    meets(lambda: load_algonauts2023(tmp_path, 3), outcome, words, None, caplog)
    assert capsys.readouterr().out == ""


GLMSINGLE = {
    "a truncated file": (lambda g: cut(g.npy), "error", "not a readable .npy"),
    "a mask on the transposed grid": (
        lambda g: rewrite(g.mask_path, lambda v: v.T), "error", "6 x 7 x 5 voxels but the mask is 5 x 7 x 6"),
    "a file of another stage": (
        lambda g: np.save(g.npy, {"meanvol": np.zeros(3)}, allow_pickle=True), "error", "meanvol but no 'betasmd'"),
    "a pickle that would run code": (
        lambda g: np.save(g.npy, {"betasmd": Malicious()}, allow_pickle=True), "error", "was not run"),
}  # fmt: skip


@pytest.mark.parametrize("case", GLMSINGLE)
def test_glmsingle(tmp_path, case, caplog):
    damage, outcome, words = GLMSINGLE[case]
    tiny = TinyGlmsingle(tmp_path)
    damage(tiny)
    meets(lambda: load_subject(tiny.npy, tiny.trials, tiny.mask_path), outcome, words, None, caplog)


def second_mask(b):
    shutil.copy(b.mask_path, b.mask_path.with_name("sub-ab_space-T1w_desc-cortex_mask.nii.gz"))


BIDS = {
    "two masks": (second_mask, "error", "there are 2 masks"),
    "raw data": (
        lambda b: (b.root / "dataset_description.json").write_text('{"DatasetType": "raw"}'), "warning",
        "does not say DatasetType"),
    "a broken description": (
        lambda b: (b.root / "dataset_description.json").write_text("{"), "error", "not valid JSON"),
    "a table too short": (
        lambda b: b.tables[4].write_text("image\nimg1\n"), "error", "has 1 rows but"),
    "a table without images": (lambda b: b.tables[4].write_text("onset\n1\n"), "error", "none named 'image'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BIDS)
def test_bids(tmp_path, case, caplog):
    damage, outcome, words = BIDS[case]
    tiny = TinyBids(tmp_path / "bids")
    damage(tiny)
    meets(lambda: load_bids(tiny.root, "ab"), outcome, words, None, caplog)


def meets(load, outcome, words, expected, caplog):
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        if outcome == "error":
            with pytest.raises(InputError, match=words) as caught:
                load()
            assert "\n" not in str(caught.value)
            return
        subject = load()
    assert np.isfinite(subject.responses).all()
    if outcome == "same":
        np.testing.assert_array_equal(subject.responses, expected)
    else:
        assert any(re.search(words, record.getMessage()) for record in caplog.records), caplog.text
