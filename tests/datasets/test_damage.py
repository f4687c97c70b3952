"""Damage that a file's own checksum knows of, in every reader: no flipped bit goes unseen."""

import bz2
import gzip
import logging
import os
import resource
import subprocess
import sys

import h5py
import nibabel as nib
import numpy as np
import pytest
from layouts import AFFINE

from braincorl.cli.main import main
from braincorl.datasets import Grid, Surface, VoxelSpace, load_prepared, load_subject, load_surface, prepare
from braincorl.datasets.betas.beta_files import NiftiBetas
from braincorl.datasets.betas.grids import read_mask, read_volume
from braincorl.datasets.betas.nifti import NiftiFile
from braincorl.datasets.check import check_dataset
from braincorl.datasets.load import open_subject, read_ncsnr
from braincorl.datasets.surfaces.surface_file import SurfaceFile, read_vertices
from braincorl.datasets.trials.labels import read_labels
from braincorl.datasets.trials.prepared import _digest, is_whole
from braincorl.datasets.trials.rois import read_rois
from braincorl.errors import FileFormatError, InputError
from braincorl.fits.maps import read_map, save_map

SHAPE = (40, 40, 40)  # larger than any read buffer once compressed, or the end would be read along with the beginning


def flip(path, position, bit=3):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(bytes(content))


def save(path, values):
    nib.save(nib.Nifti1Image(values, AFFINE), path)
    return path


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A compressed file for each reader, of noise, which gzip cannot make small."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("originals")
    space = VoxelSpace(np.ones(np.prod(SHAPE), bool), np.ones(SHAPE, bool), AFFINE)
    files = {
        "betas": save(folder / "betas.nii.gz", rng.integers(-2000, 2000, (*SHAPE, 6)).astype("i2")),
        "mask": save(folder / "mask.nii.gz", rng.integers(0, 2, (*SHAPE[:2], 200)).astype("u1")),
        "atlas": save(folder / "atlas.nii.gz", rng.integers(0, 30_000, SHAPE).astype("i4")),
        "ncsnr": save(folder / "ncsnr.nii.gz", rng.random(SHAPE).astype("f4")),
        "map": save_map(rng.random(np.prod(SHAPE)), space, folder / "map.nii.gz"),
        "surface": folder / "lh.mgz",
    }
    nib.save(nib.MGHImage(rng.random((40_000, 1, 1, 3)).astype("f4"), np.eye(4)), files["surface"])
    nib.save(nib.MGHImage(rng.random((40_000, 1, 1)).astype("f4"), np.eye(4)), folder / "lh.one.mgz")
    files["surface map"] = folder / "lh.one.mgz"
    return files, space


EVERYWHERE = Grid(np.ones(SHAPE, bool), AFFINE, "mask")
READERS = {
    "betas": [
        lambda path, _: list(NiftiBetas(path, None).chunks()),
        lambda path, _: [0 for _ in NiftiFile(path).volumes(1)],
    ],
    "mask": [lambda path, _: read_mask(path)],
    "atlas": [lambda path, _: read_volume(path), lambda path, _: read_labels(path)],
    "ncsnr": [lambda path, _: read_ncsnr(path, EVERYWHERE)],
    "map": [lambda path, space: read_map(path, space)],
    "surface": [lambda path, _: surface_trials(path)],
    "surface map": [lambda path, _: read_vertices(path)],
}


def surface_trials(path):
    return list(SurfaceFile(path).trials(2))


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, readers in READERS.items() for n in range(len(readers))]
)
def test_one_flipped_bit_of_a_compressed_file_is_noticed(originals, tmp_path, kind, number):
    files, space = originals
    read, original = READERS[kind][number], files[kind]
    read(original, space)
    path = tmp_path / original.name
    size = original.stat().st_size
    for position in (*np.random.default_rng(1).integers(size // 3, size - 8, 3), size - 6, size - 2):
        path.write_bytes(original.read_bytes())
        flip(path, int(position))
        with pytest.raises(FileFormatError, match=r"truncated or damaged|not a readable") as caught:
            read(path, space)
        assert "\n" not in str(caught.value)


def test_a_region_of_a_damaged_atlas_is_refused(originals, tmp_path):
    path = tmp_path / "atlas.nii.gz"
    path.write_bytes(originals[0]["atlas"].read_bytes())
    flip(path, path.stat().st_size // 2)
    with pytest.raises(FileFormatError, match="truncated or damaged"):
        read_rois([path], EVERYWHERE, EVERYWHERE.mask.size)


def person(folder, originals):
    betas = folder / "betas.nii.gz"
    betas.write_bytes(originals[0]["betas"].read_bytes())
    (folder / "trials.tsv").write_text("image\na\nb\nc\na\nb\nd\n")
    return betas, folder / "trials.tsv"


def test_a_person_with_a_flipped_bit_is_not_read_prepared_or_called_whole(originals, tmp_path, capsys):
    betas, trials = person(tmp_path, originals)
    load_subject(betas, trials)
    flip(betas, betas.stat().st_size // 2)
    for read in (load_subject, lambda *files: prepare(open_subject(*files), tmp_path / "p.h5")):
        with pytest.raises(FileFormatError, match=r"betas\.nii\.gz is truncated or damaged"):
            read(betas, trials)
    assert not (tmp_path / "p.h5").exists()
    root = tmp_path / "bids" / "sub-01"
    root.mkdir(parents=True)
    betas.rename(root / "sub-01_task-x_stat-effect_statmap.nii.gz")
    trials.rename(root / "sub-01_task-x_trials.tsv")
    (tmp_path / "bids" / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    _, findings = check_dataset(tmp_path / "bids")
    assert any(f.level == "wrong" and "truncated or damaged" in f.text for f in findings), findings
    output = tmp_path / "cli.h5"
    assert main(["data", "check", str(tmp_path / "bids")]) == 2
    assert main(["data", "prepare", "bids", str(tmp_path / "bids"), "--subject", "1", "--output", str(output)]) == 2
    assert "is truncated or damaged at volume" in capsys.readouterr().err
    assert not output.exists()
    _, findings = check_dataset(tmp_path / "bids", quick=True)
    assert any(f.level == "note" and "not read through" in f.text for f in findings), findings


def test_compression_is_told_by_content_and_may_be_bzip2(originals, tmp_path):
    values = read_volume(originals[0]["ncsnr"])[0]
    plain = gzip.decompress(originals[0]["ncsnr"].read_bytes())
    for name, content in {"a.nii": plain, "b.nii": gzip.compress(plain), "c.nii.bz2": bz2.compress(plain)}.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_volume(tmp_path / name)[0], values)
    flip(tmp_path / "c.nii.bz2", len(plain) // 2)
    with pytest.raises(FileFormatError):
        read_volume(tmp_path / "c.nii.bz2")


def test_no_file_stays_open(originals, tmp_path):
    """Three hundred files where a process may have 64 open."""
    mask = save(tmp_path / "mask.nii", np.ones((2, 2, 2), "u1"))
    rng = np.random.default_rng(0)
    betas = [save(tmp_path / f"ses-{n:03d}.nii.gz", rng.standard_normal((2, 2, 2, 2)).astype("f4")) for n in range(300)]
    table = tmp_path / "t.tsv"
    table.write_text("image\n" + "".join(f"img{n}\n" for n in range(600)))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, before[1]))  # noqa: PTH208
    try:
        assert load_subject(betas, table, mask).n_images == 600
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_too_many_open_files_is_not_called_damage(originals, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["betasmd"] = np.zeros((2, 2, 2, 2))
    (tmp_path / "t.tsv").write_text("image\na\nb\n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        for read in (
            lambda: NiftiFile(originals[0]["betas"]),
            lambda: load_subject(tmp_path / "a.h5", tmp_path / "t.tsv"),
            lambda: read_vertices(originals[0]["surface map"]),
            lambda: load_prepared(tmp_path / "a.h5"),
            lambda: read_rois([tmp_path / "t.tsv"], None, 2),
        ):
            with pytest.raises(InputError, match=r"Too many open files.*ulimit -n") as caught:
                read()
            assert not isinstance(caught.value, FileFormatError)
            assert "new copy" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_is_held_open_elsewhere_is_not_called_damage(tmp_path):
    path = tmp_path / "a.hdf5"
    (tmp_path / "t.tsv").write_text("image\na\nb\n")
    program = (
        f"import h5py; f = h5py.File({str(path)!r}, 'w'); f['betasmd'] = [1.0]; f.flush(); print('ready', flush=True); "
        "input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        for read in (lambda: load_prepared(path), lambda: load_subject(path, tmp_path / "t.tsv")):
            with pytest.raises(InputError, match="another program holds it open") as caught:
                read()
            assert "new copy" not in str(caught.value)
        process.communicate(b"\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    mask = save(folder / "mask.nii.gz", np.ones((6, 6, 6), "u1"))
    atlas = save(folder / "atlas.nii.gz", rng.integers(0, 3, (6, 6, 6)).astype("u1"))
    betas = [save(folder / f"sub-01_ses-{s}.nii.gz", rng.random((6, 6, 6, 20)).astype("f4")) for s in (1, 2)]
    table = folder / "t.tsv"
    table.write_text("image\n" + "".join(f"img{n % 30}\n" for n in range(40)))
    recording = open_subject(betas, table, mask, rois=atlas, zscore="session")
    return recording, prepare(recording, folder / "p.h5")


def everything(subject):
    return (
        subject.name,
        subject.n_sessions,
        subject.image_ids.tolist(),
        subject.n_repeats.tolist(),
        subject.responses.tobytes(),
        subject.ncsnr.tobytes(),
        subject.space.affine.tobytes(),
        subject.space.mask.tobytes(),
        subject.space.space_code,
        {name: members.tobytes() for name, members in subject.rois.items()},
    )


def test_no_flipped_bit_of_a_prepared_file_gives_other_numbers(prepared, tmp_path):
    path = tmp_path / "p.h5"
    content = prepared[1].read_bytes()
    expected = everything(load_prepared(prepared[1]))
    rng, noticed = np.random.default_rng(0), 0
    for position, bit in zip(rng.integers(0, len(content), 120), rng.integers(0, 8, 120), strict=True):
        path.write_bytes(content)
        flip(path, int(position), int(bit))
        try:
            found = load_prepared(path)
        except InputError:
            noticed += 1
        else:
            assert everything(found) == expected
    assert noticed > 40  # much of the file is unused space


def test_a_damaged_prepared_file_is_prepared_again_and_an_old_one_read_with_a_note(prepared, tmp_path, caplog):
    recording, original = prepared
    path = tmp_path / "p.h5"
    content = original.read_bytes()
    path.write_bytes(content)
    with h5py.File(path) as file:
        start, size = (lambda info: (info.byte_offset, info.size))(file["responses"].id.get_chunk_info(0))
    for position in (start + size // 2, 8):  # within the responses, and where HDF5 itself cannot open it any more
        path.write_bytes(content)
        flip(path, position)
        assert not is_whole(path)
        prepare(recording, path)
        assert path.read_bytes() == content
    with h5py.File(path, "a") as file:
        del file["responses_crc32"], file.attrs["sha256"], file.attrs["space_code"]
        file.attrs["kind"] = "braincorl-prepared/1"
    with caplog.at_level(logging.WARNING, logger="braincorl"):
        assert everything(load_prepared(path)) == everything(load_prepared(original))
    assert "has no checksum" in caplog.text


def test_a_surface_in_a_damaged_file_is_refused(originals, tmp_path):
    left, right = originals[0]["surface"], tmp_path / "rh.mgz"
    right.write_bytes(left.read_bytes())
    (tmp_path / "t.tsv").write_text("image\na\nb\nc\n")
    load_surface(left, right, tmp_path / "t.tsv")
    flip(right, right.stat().st_size // 2)
    with pytest.raises(FileFormatError, match=r"rh\.mgz is truncated or damaged"):
        load_surface(left, right, tmp_path / "t.tsv")


def replace(name, change):
    def craft(file):
        values = change(file[name][()])
        del file[name]
        file[name] = values

    return craft


def attribute(name, value):
    def craft(file):
        file.attrs[name] = value

    return craft


def without(name):
    def craft(file):
        del file[name]

    return craft


def elsewhere(file):
    """The responses in another file, by a link that nothing else tells of."""
    with h5py.File(str(file.filename) + ".other", "w") as other:
        file.copy("responses", other)
    del file["responses"]
    file["responses"] = h5py.ExternalLink(str(file.filename) + ".other", "responses")


def whole_responses(change):
    def craft(file):
        values = change(file["responses"][()])
        del file["responses"]
        file.create_dataset("responses", data=values, chunks=values.shape)

    return craft


def one_image_twice(names):
    names[1] = names[0]
    return names


CRAFTED = {
    "too few included": replace("included", lambda v: v[:-1]),
    "included as numbers": replace("included", lambda v: v.astype("i8")),
    "none included": replace("included", lambda v: np.zeros_like(v)),
    "images as numbers": replace("image_ids", lambda v: np.arange(v.size)),
    "images that are no text": replace("image_ids", lambda v: np.full(v.size, b"\xff\xfe")),
    "an image twice": replace("image_ids", one_image_twice),
    "repeats as fractions": replace("n_repeats", lambda v: v / 2),
    "repeats of none": replace("n_repeats", lambda v: v * 0),
    "ncsnr on two axes": replace("ncsnr", lambda v: v[None]),
    "a mask of another size": replace("mask", lambda v: np.zeros_like(v)),
    "a mask as numbers": replace("mask", lambda v: v.astype("f4")),
    "an affine of NaN": replace("affine", lambda v: v * np.nan),
    "an affine of three rows": replace("affine", lambda v: v[:3]),
    "no affine": without("affine"),
    "no regions": without("regions"),
    "no responses": without("responses"),
    "no image names": without("image_ids"),
    "a region of another size": replace("regions/0", lambda v: v[:-1]),
    "a region without a name": replace("regions/0", lambda v: v),
    "responses as whole numbers": whole_responses(lambda v: v.astype("i4")),
    "responses on three axes": whole_responses(lambda v: v[None]),
    "responses of other images": whole_responses(lambda v: v[:-1]),
    "responses of another file": elsewhere,
    "no checksums of responses": without("responses_crc32"),
    "checksums of other responses": replace("responses_crc32", lambda v: v + 1),
    "checksums of text": replace("responses_crc32", lambda v: np.full(v.size, b"x")),
    "a space that is none": attribute("space_code", 99),
    "a space of text": attribute("space_code", "MNI"),
    "sessions of text": attribute("n_sessions", "many"),
    "a format of tomorrow": attribute("kind", "braincorl-prepared/3"),
    "a format of numbers": attribute("kind", 3),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_prepared_file_that_somebody_made_is_read_or_refused_in_one_line(prepared, tmp_path, case):
    """With a checksum that fits."""
    path = tmp_path / "p.h5"
    path.write_bytes(prepared[1].read_bytes())
    with h5py.File(path, "a") as file:
        CRAFTED[case](file)
        if case != "responses of another file":
            file.attrs["sha256"] = _digest(file, path)
    with pytest.raises(InputError) as caught:
        load_prepared(path)
    assert "\n" not in str(caught.value)
    assert "p.h5" in str(caught.value)


def test_betas_in_hdf5_that_lie_elsewhere_are_refused(tmp_path):
    """What is missing there would read as zeros."""
    values = np.random.default_rng(0).random((2, 2, 2, 4))
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["betasmd"] = values
    layout = h5py.VirtualLayout(shape=values.shape, dtype="f8")
    layout[:] = h5py.VirtualSource("source.h5", "betasmd", values.shape)
    with h5py.File(tmp_path / "virtual.hdf5", "w") as file:
        file.create_virtual_dataset("betasmd", layout)
    with h5py.File(tmp_path / "link.hdf5", "w") as file:
        file["betasmd"] = h5py.ExternalLink("source.h5", "betasmd")
    (tmp_path / "t.tsv").write_text("image\na\nb\nc\nd\n")
    read = load_subject(tmp_path / "virtual.hdf5", tmp_path / "t.tsv").responses
    np.testing.assert_allclose(read, values.reshape(8, 4).T, rtol=1e-6)
    recording = open_subject(tmp_path / "virtual.hdf5", tmp_path / "t.tsv")
    (tmp_path / "source.h5").rename(tmp_path / "moved.h5")
    for name, words in (("virtual.hdf5", "source.h5, which does not exist"), ("link.hdf5", "is a link")):
        with pytest.raises(InputError, match=words):
            load_subject(tmp_path / name, tmp_path / "t.tsv")
    with pytest.raises(InputError, match=r"source\.h5, which does not exist"):
        prepare(recording, tmp_path / "p.h5")


@pytest.mark.parametrize("kind", ["array", "surface"])
def test_a_damaged_map_of_any_space_is_one_line(tmp_path, kind):
    half = np.ones(5, bool)
    surface = Surface(half, half) if kind == "surface" else None
    space = VoxelSpace(np.ones(10, bool), surface=surface)
    path = save_map(np.arange(10.0), space, tmp_path / "sub-01_stat-ev_statmap.nii.gz")
    np.testing.assert_array_equal(read_map(path, space), np.arange(10.0))
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"hello", content[:5], b"\0" * 600):
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            read_map(path, space)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        read_map(path, space)
