import gzip
import logging
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from braincorl.datasets import VoxelSpace, load_subject
from braincorl.errors import FileFormatError, InputError
from braincorl.metrics import estimate_ncsnr

AFFINE = np.array([[-2.0, 0, 0, 60], [0, 2.0, 0, -90], [0, 0, 2.5, -40], [0, 0, 0, 1]])
SHAPE = (5, 6, 4)


class Person:
    """Files of a tiny person with repeats and two sessions, and the arrays that went into them."""

    def __init__(self, folder, rng):
        self.folder = folder
        self.mask = np.zeros(SHAPE, dtype=bool)
        self.mask[1:4, 1:5, 1:3] = True
        self.images = [[f"img{i}" for i in (0, 1, 2, 0, 3)], ["img1", "n/a", "img4", "img0", "img5", "img2"]]
        self.trials = [
            rng.standard_normal((len(names), self.mask.sum())).astype("f4") * 2 + 50 * s
            for s, names in enumerate(self.images)
        ]
        nib.save(nib.Nifti1Image(self.mask.astype(np.uint8), AFFINE), folder / "mask.nii.gz")
        for session, (names, trials) in enumerate(zip(self.images, self.trials, strict=True), start=1):
            volume = np.zeros((*SHAPE, len(names)), dtype="f4")
            volume[self.mask] = trials.T
            nib.save(nib.Nifti1Image(volume, AFFINE), folder / f"sub-07_ses-{session}_betas.nii.gz")
            rows = "".join(f"{i}\t{name}\n" for i, name in enumerate(names))
            (folder / f"ses-{session}.tsv").write_text("trial\timage\n" + rows)
        self.betas = [folder / f"sub-07_ses-{s}_betas.nii.gz" for s in (1, 2)]
        self.tables = [folder / f"ses-{s}.tsv" for s in (1, 2)]

    def load(self, **options):
        return load_subject(self.betas, self.tables, self.folder / "mask.nii.gz", **options)

    def expected(self, scaled=lambda y: y):
        """Mean over trials of each image, by a plain loop."""
        rows = {}
        for names, trials in zip(self.images, self.trials, strict=True):
            shown = np.array([name != "n/a" for name in names])
            values = np.full(trials.shape, np.nan)
            values[shown] = scaled(trials[shown].astype("f8"))
            for name, value in zip(names, values, strict=True):
                rows.setdefault(name, []).append(value)
        rows.pop("n/a")
        return {name: np.mean(values, axis=0) for name, values in rows.items()}


@pytest.fixture
def person(tmp_path, rng):
    return Person(tmp_path, rng)


def test_repeats_are_averaged_and_blank_volumes_left_out(person):
    subject = person.load()
    expected = person.expected()
    assert subject.name == "sub-07"
    assert list(subject.image_ids) == list(expected)
    np.testing.assert_array_equal(subject.n_repeats, [3, 2, 2, 1, 1, 1])
    np.testing.assert_allclose(subject.responses, list(expected.values()), rtol=1e-5)
    np.testing.assert_array_equal(subject.space.mask, person.mask)
    np.testing.assert_array_equal(subject.space.affine, AFFINE)


def test_z_scoring_is_within_session(person):
    expected = person.expected(lambda y: (y - y.mean(axis=0)) / y.std(axis=0))
    np.testing.assert_allclose(person.load(zscore="session").responses, list(expected.values()), rtol=1e-4, atol=1e-5)


def test_one_table_for_all_files_and_a_session_column(person):
    rows = [f"{name}\t{session}" for session, names in enumerate(person.images, start=1) for name in names]
    table = person.folder / "all.tsv"
    table.write_text("image\tsession\n" + "\n".join(rows) + "\n\n")
    both = load_subject(person.betas, table, person.folder / "mask.nii.gz", zscore="session")
    np.testing.assert_array_equal(both.responses, person.load(zscore="session").responses)


def test_voxels_come_in_the_order_of_nilearn(person):
    from nilearn.masking import apply_mask

    first = apply_mask(str(person.betas[0]), str(person.folder / "mask.nii.gz"))
    one = load_subject(person.betas[0], person.tables[0], person.folder / "mask.nii.gz")
    np.testing.assert_allclose(one.responses[1], first[1], rtol=1e-6)


def test_noise_ceiling_comes_from_the_repeats(person):
    subject = person.load()
    trials = np.concatenate(person.trials).astype("f8")
    names = np.array([name for names in person.images for name in names])
    expected = estimate_ncsnr(trials[names != "n/a"], names[names != "n/a"])
    np.testing.assert_allclose(subject.ncsnr, expected, rtol=1e-4)
    assert load_subject(person.betas[1], person.tables[1], person.folder / "mask.nii.gz").noise_ceiling() is None


def test_an_ncsnr_map_takes_precedence(person):
    volume = np.zeros(SHAPE)
    volume[person.mask] = np.arange(person.mask.sum()) / 10
    nib.save(nib.Nifti1Image(volume, AFFINE), person.folder / "ncsnr.nii.gz")
    subject = person.load(ncsnr=person.folder / "ncsnr.nii.gz")
    np.testing.assert_allclose(subject.ncsnr, np.arange(person.mask.sum()) / 10)


@pytest.mark.parametrize("bad", [np.nan, np.inf, "constant"])
@pytest.mark.parametrize("zscore", ["none", "session"])
def test_bad_voxels_are_left_out_counted_and_nan_in_maps(person, caplog, bad, zscore):
    volume = np.asarray(nib.load(person.betas[0]).dataobj).copy()
    voxel = tuple(np.argwhere(person.mask)[3])
    volume[voxel] = 7.0
    if bad != "constant":
        volume[(*voxel, 2)] = bad
    nib.save(nib.Nifti1Image(volume, AFFINE), person.betas[0])
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        subject = load_subject(person.betas[0], person.tables[0], person.folder / "mask.nii.gz", zscore=zscore)
    n = person.mask.sum()
    assert f"1 of {n} voxels are constant or not finite" in caplog.text
    assert subject.responses.shape == (4, n - 1)
    assert np.isfinite(subject.responses).all()
    expanded = subject.space.expand(subject.responses[0])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(expanded)), [3])


def test_images_without_features_are_left_out_and_counted(person, caplog):
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        subject = person.load(images=["img5", "img0", "other"])
    assert list(subject.image_ids) == ["img0", "img5"]
    assert "4 of 6 images in the trials have no features" in caplog.text
    scaled = person.load(images=["img5", "img0"], zscore="session")
    np.testing.assert_allclose(scaled.responses, person.load(zscore="session").responses[[0, 5]], rtol=1e-6)


def test_integer_images_with_a_scale_factor_are_read_scaled(person):
    volume = np.zeros((*SHAPE, 5), dtype="f4")
    volume[person.mask] = person.trials[0].T
    image = nib.Nifti1Image(volume, AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, person.betas[0])
    subject = load_subject(person.betas[0], person.tables[0], person.folder / "mask.nii.gz")
    np.testing.assert_allclose(subject.responses[1], person.trials[0][1], atol=1e-3)


def test_arrays_without_a_mask(person):
    for session, trials in enumerate(person.trials, start=1):
        np.save(person.folder / f"ses-{session}.npy", trials)
    (person.folder / "labels.txt").write_text("\n".join(["V1", "", "n/a"] * (person.mask.sum() // 3)))
    subject = load_subject(
        [person.folder / "ses-1.npy", person.folder / "ses-2.npy"], person.tables, rois=person.folder / "labels.txt"
    )
    np.testing.assert_allclose(subject.responses, person.load().responses, rtol=1e-6)
    assert subject.space.mask is None
    assert subject.rois["V1"].sum() == person.mask.sum() // 3


def test_without_a_mask_every_varying_voxel_is_read(person):
    subject = load_subject(person.betas, person.tables)
    assert subject.n_voxels == person.mask.sum()
    np.testing.assert_array_equal(subject.space.included, person.mask.ravel())


def test_regions_from_masks_atlases_and_names(person):
    atlas = np.zeros(SHAPE, dtype=np.int16)
    atlas[1, 1:5, 1:3], atlas[2, 1:5, 1:3], atlas[0, 0, 0] = 1, 2, -1
    single = np.zeros(SHAPE)
    single[3] = 1
    nib.save(nib.Nifti1Image(atlas, AFFINE), person.folder / "streams.nii.gz")
    nib.save(nib.Nifti1Image(single, AFFINE), person.folder / "sub-07_label-FFA_mask.nii.gz")
    paths = [person.folder / "streams.nii.gz", person.folder / "sub-07_label-FFA_mask.nii.gz"]
    assert {name: m.sum() for name, m in person.load(rois=paths).rois.items()} == {
        "streams-1": 8, "streams-2": 8, "FFA": 8,
    }  # fmt: skip
    (person.folder / "streams.tsv").write_text("index\tname\n1\tearly\n2\tventral\n")
    rois = person.load(rois=paths).rois
    assert set(rois) == {"early", "ventral", "FFA"}
    np.testing.assert_array_equal(rois["early"], atlas[person.mask] == 1)


def test_sessions_in_another_order_than_the_table_are_refused(person):
    """A shell lists ses-10 before ses-2; a table for all files would then name the wrong images."""
    rows = [f"{name}\tses-0{session}" for session, names in enumerate(person.images, start=1) for name in names]
    table = write_text(person.folder / "all.tsv", "image\tsession\n" + "\n".join(rows))
    load_subject(person.betas, table, person.folder / "mask.nii.gz")
    with pytest.raises(InputError, match="in the order of the table"):
        load_subject(person.betas[::-1], table, person.folder / "mask.nii.gz")
    dated = write_text(person.folder / "dated.tsv", table.read_text().replace("ses-0", "2026-11-"))
    assert load_subject(person.betas, dated, person.folder / "mask.nii.gz", zscore="session").n_images == 6


def test_blank_sessions_count_as_unknown(person):
    for table, names in zip(person.tables, person.images, strict=True):
        write_text(table, "image\tsession\n" + "\n".join(f"{name}\tn/a" for name in names))
    np.testing.assert_array_equal(person.load(zscore="session").responses, person_of_names(person).responses)


def person_of_names(person):
    for table, names in zip(person.tables, person.images, strict=True):
        write_text(table, "image\n" + "\n".join(names))
    return person.load(zscore="session")


def test_a_blank_line_in_a_table_of_one_column_is_a_volume_without_an_image(person):
    write_text(person.tables[1], "image\n" + "\n".join(name if name != "n/a" else "" for name in person.images[1]))
    write_text(person.tables[0], "image\n" + "\n".join(person.images[0]))
    np.testing.assert_allclose(person.load().responses, list(person.expected().values()), rtol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, 1e4])
def test_a_large_baseline_changes_no_ceiling_and_hides_no_constant_voxel(tmp_path, rng, baseline):
    """Images of three, one, one and two trials: the mean of equal numbers must stay equal to them."""
    names = np.array([f"img{i}" for i in range(60)])[np.arange(60).repeat(np.arange(60) % 3 + 1)]
    signal = rng.standard_normal((60, 50))[np.arange(60).repeat(np.arange(60) % 3 + 1)]
    trials = (baseline + signal + rng.standard_normal(signal.shape)).astype("f4")
    trials[:, :20] = rng.standard_normal(20).astype("f4") + 0.1 + baseline
    np.save(tmp_path / "betas.npy", trials)
    (tmp_path / "trials.tsv").write_text("image\n" + "\n".join(names))
    subject = load_subject(tmp_path / "betas.npy", tmp_path / "trials.tsv")
    np.testing.assert_array_equal(subject.space.included, np.arange(50) >= 20)
    np.testing.assert_allclose(subject.ncsnr, estimate_ncsnr(trials[:, 20:], names), atol=2e-3)


def test_parts_of_a_region_that_share_a_name_are_one_region(person):
    atlas = np.zeros(SHAPE, dtype=np.int16)
    atlas[1], atlas[3] = 1, 2
    nib.save(nib.Nifti1Image(atlas, AFFINE), person.folder / "floc.nii.gz")
    (person.folder / "floc.tsv").write_text("index\tname\n1\tFFA\n2\tFFA\n")
    rois = person.load(rois=person.folder / "floc.nii.gz").rois
    assert {name: members.sum() for name, members in rois.items()} == {"FFA": 16}


def write_text(path, text="sub-01 is a fine person\n"):
    path.write_text(text)
    return path


def cut(path, fraction):
    content = path.read_bytes()
    path.write_bytes(content[: int(fraction * len(content))])


def other_grid(person, name, shape=SHAPE, affine=AFFINE, value=1):
    nib.save(nib.Nifti1Image(np.full(shape, value, dtype=np.uint8), affine), person.folder / name)
    return person.folder / name


SHIFTED = AFFINE + np.array([[0, 0, 0, 2.0]] + [[0] * 4] * 3)

BAD_INPUTS = {
    "missing betas": (lambda p: {"betas": p.folder / "none.nii.gz"}, InputError, "does not exist"),
    "a text file named .nii": (lambda p: {"betas": write_text(p.folder / "a.nii")}, FileFormatError, "not a readable"),
    "a text file named .nii.gz": (
        lambda p: {"betas": write_text(p.folder / "a.nii.gz")}, FileFormatError, "not a readable NIfTI"),
    "betas cut off": (lambda p: cut(p.betas[0], 0.6), FileFormatError, "truncated or damaged"),
    "betas cut off in the header": (lambda p: cut(p.betas[0], 0.01), FileFormatError, "not a readable NIfTI"),
    "mask of another size": (
        lambda p: {"mask": other_grid(p, "m.nii.gz", (5, 6, 5))}, InputError, "5 x 6 x 4 voxels but the mask"),
    "mask with another affine": (
        lambda p: {"mask": other_grid(p, "m.nii.gz", affine=SHIFTED)}, InputError, "up to 2 mm apart"),
    "mask with two axes swapped": (
        lambda p: {"mask": other_grid(p, "m.nii.gz", affine=AFFINE[[1, 0, 2, 3]])},
        InputError,
        "different affines",
    ),
    "a complex image": (lambda p: {"betas": _complex(p)}, FileFormatError, "expected real numbers"),
    "a region called all": (lambda p: {"rois": other_grid(p, "all.nii.gz")}, InputError, "use for all voxels"),
    "two columns of one name": (
        lambda p: {"trials": write_text(p.tables[0], "image\timage\na\tb\n")},
        InputError,
        "a name of its own",
    ),
    "an ncsnr map of another brain": (lambda p: {"ncsnr": _nan(p)}, InputError, "no finite value"),
    "empty mask": (lambda p: {"mask": other_grid(p, "m.nii.gz", value=0)}, InputError, "empty mask"),
    "a mask with several volumes": (
        lambda p: {"mask": other_grid(p, "m.nii.gz", (*SHAPE, 2))}, InputError, "expected one 3-D volume"),
    "a mask over nothing but constants": (
        lambda p: {"mask": _only_background(p)}, InputError, "none of 1 voxels varies"),
    "table without the column": (
        lambda p: {"trials": write_text(p.tables[0], "trial\tstimulus\n0\ta\n")}, InputError, "none named 'image'"),
    "table with commas": (
        lambda p: {"trials": write_text(p.tables[0], "trial,image\n0,a\n")}, InputError, "comma-separated"),
    "ragged table": (
        lambda p: {"trials": write_text(p.tables[0], "trial\timage\n0\n")}, InputError, "line 2: 1 cells under 2"),
    "table with a row too few": (
        lambda p: {"trials": write_text(p.tables[0], "image\na\nb\nc\nd\n")}, InputError, "4 rows but .* 5 volumes"),
    "table without images": (
        lambda p: {"trials": write_text(p.tables[0], "image\nn/a\nn/a\nn/a\nn/a\nn/a\n")}, InputError, "name no image"),
    "binary table": (lambda p: {"trials": p.betas[0]}, InputError, "is compressed by gzip"),
    "two tables for one file": (lambda p: {"trials": p.tables}, InputError, "2 trials tables for 1 betas files"),
    "no image in both": (lambda p: {"images": ["cat.png"]}, InputError, "such as 'img0'.*such as 'cat.png'"),
    "an empty volume": (lambda p: _empty_volume(p), InputError, "volume 2 .* holds no finite value"),
    "z-scoring one trial": (lambda p: _single_trial(p), InputError, "one trial, which cannot be z-scored"),
    "an unknown scaling": (lambda p: {"zscore": "run"}, InputError, "'none' or 'session'"),
    "regions elsewhere": (
        lambda p: {"rois": other_grid(p, "r.nii.gz", affine=SHIFTED)}, InputError, "different affines"),
    "regions outside the mask": (
        lambda p: {"rois": other_grid(p, "r.nii.gz", value=0)}, InputError, "labels no voxel"),
    "labels for other voxels": (
        lambda p: {"rois": write_text(p.folder / "l.txt", "V1\nV2\n")}, InputError, "2 labels for 24 voxels"),
    "the same region twice": (
        lambda p: {"rois": [other_grid(p, "r.nii.gz")] * 2}, InputError, "earlier file named too"),
    "arrays with a mask": (lambda p: {"betas": _array(p)}, InputError, "without a mask"),
    "a pickled array": (lambda p: {"betas": _pickled(p), "mask": None}, FileFormatError, "not a readable .npy"),
    "a negative ncsnr": (lambda p: {"ncsnr": _negative(p)}, InputError, "negative"),
}  # fmt: skip


def _only_background(p):
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), p.folder / "m.nii.gz")
    return p.folder / "m.nii.gz"


def _empty_volume(p):
    volume = np.asarray(nib.load(p.betas[0]).dataobj).copy()
    volume[..., 2] = np.nan
    nib.save(nib.Nifti1Image(volume, AFFINE), p.betas[0])


def _single_trial(p):
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 1), "f4"), AFFINE), p.betas[0])
    return {"trials": write_text(p.tables[0], "image\na\n"), "zscore": "session"}


def _array(p):
    np.save(p.folder / "a.npy", p.trials[0])
    return p.folder / "a.npy"


def _pickled(p):
    np.save(p.folder / "a.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    return p.folder / "a.npy"


def _complex(p):
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 5), dtype=np.complex64), AFFINE), p.folder / "c.nii.gz")
    return p.folder / "c.nii.gz"


def _nan(p):
    nib.save(nib.Nifti1Image(np.full(SHAPE, np.nan, "f4"), AFFINE), p.folder / "n.nii.gz")
    return p.folder / "n.nii.gz"


def _negative(p):
    nib.save(nib.Nifti1Image(np.full(SHAPE, -1.0, "f4"), AFFINE), p.folder / "n.nii.gz")
    return p.folder / "n.nii.gz"


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_gets_one_clear_line(person, case):
    change, error, message = BAD_INPUTS[case]
    options = {"betas": person.betas[0], "trials": person.tables[0], "mask": person.folder / "mask.nii.gz"}
    options |= change(person) or {}
    with pytest.raises(error, match=message) as caught:
        load_subject(**options)
    assert "\n" not in str(caught.value)


def test_a_compressed_file_is_read_once_through(person, monkeypatch):
    """Small chunks of a gzip file must not each start from its beginning."""
    from braincorl.datasets.betas import beta_files, grids, streams

    monkeypatch.setenv("BRAINCORL_MEMORY", "1 B")
    monkeypatch.setattr(streams, "BLOCK_BYTES", 64)
    read = []
    original = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: read.append(n) or original(self, n))
    source = beta_files.NiftiBetas(person.betas[0], grids.read_mask(person.folder / "mask.nii.gz"))
    read.clear()
    assert [start for start, _ in source.chunks()] == list(range(5))
    rewinds = sum(n for n in read if n and n > 0)
    assert rewinds < 2 * 5 * np.prod(SHAPE) * 4 + 4096


MEMORY = """
import resource, sys
import numpy as np
from braincorl.datasets import load_subject
folder, zscore = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
subject = load_subject(folder + "/betas.npy", folder + "/trials.tsv", zscore=zscore)
print(subject.responses.shape[0], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's counters")
@pytest.mark.parametrize("zscore", ["none", "session"])
def test_memory_is_bounded_by_distinct_images_not_trials(tmp_path, rng, zscore):
    """400 MB of trials of 20 images stay far from memory."""
    n_trials, n_voxels = 5000, 20_000
    trials = np.lib.format.open_memmap(tmp_path / "betas.npy", "w+", np.float32, (n_trials, n_voxels))
    block = rng.standard_normal((500, n_voxels)).astype("f4")
    for start in range(0, n_trials, 500):
        trials[start : start + 500] = block + start
    trials.flush()
    rows = [f"img{i % 20}\t{i // 500}" for i in range(n_trials)]
    (tmp_path / "trials.tsv").write_text("image\tsession\n" + "\n".join(rows))
    run = [sys.executable, "-c", MEMORY, str(tmp_path), zscore]
    output = subprocess.run(run, capture_output=True, text=True, check=True, env=os.environ).stdout
    n_images, megabytes = map(int, output.split())
    assert n_images == 20
    assert megabytes < 250


def test_space_refuses_values_of_other_voxels():
    space = VoxelSpace(np.array([True, False, True]))
    assert (space.n_voxels, space.n_excluded) == (2, 1)
    np.testing.assert_array_equal(space.expand(np.array([1.0, 2.0])), [1.0, np.nan, 2.0])
    with pytest.raises(InputError, match="has 2 voxels with data"):
        space.expand(np.ones(3))
    with pytest.raises(InputError, match="no coordinates"):
        space.coordinates()


def test_coordinates_are_millimetres_of_the_affine(person):
    subject = person.load()
    first = np.argwhere(person.mask)[0]
    np.testing.assert_allclose(subject.space.coordinates()[0], (AFFINE @ [*first, 1])[:3])


def test_selecting_images_keeps_everything_aligned(person):
    subject = person.load()
    part = subject.select_images(["img4", "img0"])
    np.testing.assert_array_equal(part.responses, subject.responses[[4, 0]])
    np.testing.assert_array_equal(part.n_repeats, [1, 3])
    with pytest.raises(InputError, match="no responses to 1 of the images, such as 'zebra'"):
        subject.select_images(["img0", "zebra"])
