"""Every reader of a person's files against files that are damaged, crafted, or no files: a value, or one line."""

import os
import re
import warnings
import zlib

import h5py
import nibabel as nib
import numpy as np
import pytest
from layouts import AFFINE, TinyGlmsingle
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiMetaData
from scipy.io import loadmat, savemat

from braincorl.datasets import Grid, load_prepared, load_subject, load_surface, prepare
from braincorl.datasets.betas.glmsingle import GlmsingleBetas
from braincorl.datasets.betas.grids import read_mask
from braincorl.datasets.betas.matlab import read_mat
from braincorl.datasets.betas.safe_pickle import load_pickled_npy
from braincorl.datasets.bids import check_description
from braincorl.datasets.bold5000 import read_image_names
from braincorl.datasets.load import open_betas, open_subject, read_ncsnr
from braincorl.datasets.nsd.design import read_design, read_stimuli
from braincorl.datasets.surfaces.surface_file import SurfaceFile, read_vertices
from braincorl.datasets.trials.labels import read_color_table, read_labels
from braincorl.datasets.trials.prepared import is_prepared
from braincorl.datasets.trials.rois import read_rois
from braincorl.datasets.trials.trials_table import read_trials
from braincorl.errors import FileFormatError, InputError

SHAPE = (3, 3, 3)
GRID = Grid(np.ones(SHAPE, bool), AFFINE, "mask")


def betas(path):
    """All trials of a file of betas, whichever its kind."""
    sources, _ = open_betas([path], None)
    return [chunk for source in sources for _, chunk in source.chunks()]


def surface(path):
    return [trials for trials in SurfaceFile(path).trials(2)]


def nifti(values, code=None):
    image = nib.Nifti1Image(values, AFFINE)
    if code is not None:
        image.header["intent_code"] = code
    return image


def write_text(path, text):
    path.write_text(text)


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        file["betasmd"] = np.zeros((*SHAPE, 2))


def write_prepared(path):
    np.save(path.parent / "x.npy", np.arange(8.0).reshape(4, 2))
    (path.parent / "x.tsv").write_text("image\na\nb\na\nc\n")
    prepare(open_subject(path.parent / "x.npy", path.parent / "x.tsv", rois=[]), path)


def gifti(path, **options):
    arrays = [
        GiftiDataArray(np.arange(5, dtype="f4"), "NIFTI_INTENT_SHAPE", "NIFTI_TYPE_FLOAT32", **options)
        for _ in range(2)
    ]
    nib.save(GiftiImage(darrays=arrays), path)


DESIGN = {"masterordering": np.arange(1, 9)[None], "subjectim": np.arange(1, 65).reshape(8, 8)}
STIMULI = ",".join(["nsdId", "shared1000", *(f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3))])
RNG = np.random.default_rng(0)

# File name -> how to write it, how to read it, how many of its first bytes are flipped one by one.
FILES = {
    "a.nii": (lambda p: nib.save(nifti(np.ones((*SHAPE, 2), "f4")), p), betas, 360),
    "b.nii.gz": (lambda p: nib.save(nifti(np.ones((*SHAPE, 2), "f4")), p), betas, 400),
    "mask.nii": (lambda p: nib.save(nifti(np.ones(SHAPE, "u1")), p), read_mask, 360),
    "atlas.nii": (lambda p: nib.save(nifti(np.ones(SHAPE, "i2")), p), lambda p: read_rois([p], GRID, 27), 360),
    "labels.nii": (lambda p: nib.save(nifti(np.ones(SHAPE, "i2")), p), read_labels, 360),
    "ncsnr.nii": (lambda p: nib.save(nifti(np.full(SHAPE, 0.7, "f4")), p), lambda p: read_ncsnr(p, GRID), 360),
    "nifti2.nii": (lambda p: nib.save(nib.Nifti2Image(np.ones((*SHAPE, 2), "f4"), AFFINE), p), betas, 560),
    "lh.mgh": (lambda p: nib.save(nib.MGHImage(np.ones((5, 1, 1, 3), "f4"), np.eye(4)), p), surface, 300),
    "rh.mgz": (lambda p: nib.save(nib.MGHImage(np.ones((5, 1, 1, 3), "f4"), np.eye(4)), p), surface, 300),
    "map.mgh": (lambda p: nib.save(nib.MGHImage(np.ones((5, 1, 1), "f4"), np.eye(4)), p), read_vertices, 300),
    "a.gii": (gifti, surface, 3000),
    "raw.gii": (lambda p: gifti(p, encoding="GIFTI_ENCODING_B64BIN"), surface, 3000),
    "a.npy": (lambda p: np.save(p, np.ones((4, 3))), betas, 200),
    "glmsingle.npy": (
        lambda p: np.save(p, {"betasmd": RNG.random((*SHAPE, 2)), "R2": [1, "x"]}, allow_pickle=True), betas, 500),
    "mapping.npy": (lambda p: np.save(p, {1: "V1v", 2: "V1d"}, allow_pickle=True), load_pickled_npy, 300),
    "a.hdf5": (write_hdf5, betas, 2200),
    "p.h5": (write_prepared, load_prepared, 6000),
    "glmsingle.mat": (lambda p: savemat(p, {"modelmd": RNG.random((*SHAPE, 2))}, do_compression=True), betas, 700),
    "plain.mat": (lambda p: savemat(p, {"modelmd": RNG.random((*SHAPE, 2))}), betas, 700),
    "design.mat": (lambda p: savemat(p, DESIGN), read_design, 700),
    "packed.mat": (lambda p: savemat(p, DESIGN, do_compression=True), read_design, 700),
    "a.ctab": (lambda p: write_text(p, "1 V1v 0 0 0 0\n2 V1d 0 0 0 0\n"), read_color_table, 100),
    "trials.tsv": (lambda p: write_text(p, "image\tsession\na.png\t1\nb.png\t2\n"), read_trials, 100),
    "labels.txt": (lambda p: write_text(p, "V1\nn/a\nV2\n"), lambda p: read_rois([p], None, 3), 100),
    "CSI1_imgnames.txt": (lambda p: write_text(p, "a.jpg\nb.jpg\n"), read_image_names, 100),
    "dataset_description.json": (
        lambda p: write_text(p, '{"DatasetType": "derivative"}'), lambda p: check_description(p.parent), 100),
    "stimuli.csv": (
        lambda p: write_text(p, STIMULI + "\n0,True," + ",".join("1" * 24) + "\n"), read_stimuli, 600),
}  # fmt: skip


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What each of the files holds when it is whole."""
    folder, found = tmp_path_factory.mktemp("whole"), {}
    for name, (write, read, _) in FILES.items():
        write(folder / name)
        read(folder / name)
        found[name] = (folder / name).read_bytes()
    return found


def outcome(read, path):
    """ "read", or "refused" with one line; whatever else is raised goes through."""
    try:
        read(path)
    except InputError as error:
        line = str(error)
    else:
        return "read"
    assert "\n" not in line
    assert str(path) in line or path.name in line or str(path.parent) in line, line
    return "refused"


@pytest.mark.parametrize("name", FILES)
def test_any_byte_of_a_header_may_be_wrong(contents, tmp_path, name):
    """As many positions as take a moment, spread over the header, each with some other bytes in its place."""
    _, read, length = FILES[name]
    path, content = tmp_path / name, contents[name]
    positions = np.arange(min(length, len(content)))
    if positions.size > 150:
        positions = np.random.default_rng(zlib.crc32(name.encode())).choice(positions, 150, replace=False)
    told = []
    for position in positions.tolist():
        for change in (0xFF, 1 << position % 8):
            changed = bytearray(content)
            changed[position] ^= change
            path.write_bytes(changed)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                told.append(outcome(read, path))
    assert "refused" in told


@pytest.mark.parametrize("name", FILES)
def test_a_file_may_end_anywhere(contents, tmp_path, name):
    _, read, _ = FILES[name]
    path, content = tmp_path / name, contents[name]
    for share in np.linspace(0.01, 0.99, 12):
        path.write_bytes(content[: max(1, int(share * len(content)))])
        outcome(read, path)
    for other in (b"\0" * 1000, b"<html></html>\n" * 30, RNG.bytes(1000), b"\xff\xfe" + b"a\0" * 50, b"\n" * 20):
        path.write_bytes(other)
        outcome(read, path)


def no_file(folder, name, kind):
    path = folder / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind != "missing":
        path.symlink_to({"device": "/dev/zero", "memory": "/proc/self/mem", "dangling": "nowhere"}[kind])
    return path


WORDS = {
    "pipe": "pipe or device",
    "device": "pipe or device",
    "memory": "empty",
    "empty": "empty",
    "folder": "it is a folder",
    "missing": "does not exist",
    "dangling": "a link to a file that does not exist|does not exist",
}


@pytest.mark.parametrize("kind", WORDS)
@pytest.mark.parametrize("name", [name for name in FILES if name != "dataset_description.json"])
def test_what_is_no_regular_file_is_said_at_once(tmp_path, name, kind):
    """A pipe that nobody writes to would be waited for until the end of time."""
    path = no_file(tmp_path, name, kind)
    with pytest.raises(InputError, match=WORDS[kind]) as caught:
        FILES[name][1](path)
    assert "\n" not in str(caught.value)
    if name.endswith((".h5", ".hdf5", ".npy", ".nii", ".gz")):
        with pytest.raises(InputError, match=WORDS[kind]):
            is_prepared(path)


def test_a_person_of_pipes_is_refused(tmp_path):
    nib.save(nifti(np.ones((*SHAPE, 2), "f4")), tmp_path / "b.nii")
    (tmp_path / "t.tsv").write_text("image\na\nb\n")
    pipe = no_file(tmp_path, "pipe.nii", "pipe")
    for betas_, trials, options in (
        (pipe, tmp_path / "t.tsv", {}),
        (tmp_path / "b.nii", pipe, {}),
        (tmp_path / "b.nii", tmp_path / "t.tsv", {"mask": pipe}),
        (tmp_path / "b.nii", tmp_path / "t.tsv", {"rois": pipe}),
        (tmp_path / "b.nii", tmp_path / "t.tsv", {"ncsnr": pipe}),
    ):
        with pytest.raises(InputError, match="pipe or device"):
            load_subject(betas_, trials, **options)


# Crafted files


def with_header(content, **fields):
    """A NIfTI file with other values in its header."""
    header = nib.Nifti1Header(content[:348], check=False)
    for field, value in fields.items():
        header[field] = value
    return header.binaryblock + content[348:]


HEADERS = {
    "an impossible data type": {"datatype": 9999},
    "no data type": {"datatype": 0},
    "bits, one by one": {"datatype": 1},
    "colours": {"datatype": 128, "bitpix": 24},
    "complex numbers": {"datatype": 32, "bitpix": 64},
    "seven axes": {"dim": [7, 3, 3, 3, 2, 1, 1, 1]},
    "a negative axis": {"dim": [4, 3, 3, -3, 2, 1, 1, 1]},
    "an axis of none": {"dim": [4, 3, 3, 0, 2, 1, 1, 1]},
    "nine axes": {"dim": [9, 3, 3, 3, 2, 1, 1, 1]},
    "a size that fits into no memory": {"dim": [4, 32767, 32767, 32767, 32767, 1, 1, 1]},
    "data before their header": {"vox_offset": 0},
    "data nowhere": {"vox_offset": np.nan},
    "data far behind the end": {"vox_offset": 1e9},
    "data before the file": {"vox_offset": -352},
    "a slope that is infinite": {"scl_slope": np.inf},
    "a quaternion that is none": {"sform_code": 0, "qform_code": 1, "quatern_b": 2.0, "quatern_c": 2.0},
    "a name in place of the magic": {"magic": b"abc"},
    "a pair of files": {"magic": b"ni1"},
    "a CIFTI intent": {"intent_code": 3006},
}


@pytest.mark.parametrize("case", HEADERS)
def test_crafted_nifti_headers(contents, tmp_path, case):
    path = tmp_path / "a.nii"
    path.write_bytes(with_header(contents["a.nii"], **HEADERS[case]))
    refused = [outcome(betas, path), outcome(read_mask, path)]
    assert "refused" in refused, "two volumes are never a mask, whatever the rest says"
    if case not in ("an axis of none", "seven axes", "data before their header"):  # 0 stands for right behind it
        assert refused == ["refused", "refused"]


@pytest.mark.parametrize("encoding", ["ExternalFileBinary", "GZipBase64Binary"])
@pytest.mark.parametrize("name", ["secret.bin", "../secret.bin", "/etc/hostname"])
def test_gifti_whose_data_are_elsewhere(contents, tmp_path, encoding, name):
    (tmp_path / "secret.bin").write_bytes(np.arange(5, dtype="<f4").tobytes())
    text = contents["a.gii"].decode()
    text = re.sub('Encoding="[^"]*"', f'Encoding="{encoding}"', text)
    text = re.sub('ExternalFileName="[^"]*"', f'ExternalFileName="{name}"', text)
    path = tmp_path / "a.gii"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"another file|not a readable surface file"):
        surface(path)


def pair(folder, left="L", right="R", meta=(None, None), on_arrays=False):
    paths = []
    for side, said, value in zip((left, right), meta, (1, 2), strict=True):
        info = GiftiMetaData({"AnatomicalStructurePrimary": said}) if said else GiftiMetaData()
        arrays = [
            GiftiDataArray(np.arange(6, dtype="f4") * value + trial, "NIFTI_INTENT_SHAPE", "NIFTI_TYPE_FLOAT32",
                           meta=info if on_arrays else None)
            for trial in range(3)
        ]  # fmt: skip
        paths.append(folder / f"{side}.func.gii")
        nib.save(GiftiImage(darrays=arrays, meta=None if on_arrays else info), paths[-1])
    (folder / "t.tsv").write_text("image\na\nb\nc\n")
    return paths


SWAPPED = {
    "by what the files say": {"meta": ("CortexRight", "CortexLeft")},
    "by what one of them says": {"meta": (None, "CortexLeft")},
    "by what their arrays say": {"meta": ("CortexRight", "CortexLeft"), "on_arrays": True},
    "by their BIDS names": {"left": "sub-01_hemi-R_x", "right": "sub-01_hemi-L_x"},
    "by FreeSurfer's names": {"left": "rh.x", "right": "lh.x"},
    "by the file, whatever the name": {"left": "lh.x", "right": "rh.x", "meta": ("CortexRight", "CortexLeft")},
}


@pytest.mark.parametrize("case", SWAPPED)
def test_swapped_hemispheres_are_refused(tmp_path, case):
    left, right = pair(tmp_path, **SWAPPED[case])
    betas_ = pair(tmp_path, "L1", "R1")
    for call in (
        lambda: load_surface(left, right, tmp_path / "t.tsv"),
        lambda: load_surface(*betas_, tmp_path / "t.tsv", ncsnr=(left, right)),
        lambda: load_surface(*betas_, tmp_path / "t.tsv", rois={"V1": (left, right)}),
        lambda: load_surface(*betas_, tmp_path / "t.tsv", mask=(left, right)),
    ):
        with pytest.raises(InputError, match=r"hemisphere (but says that it is of the|by its name, but its Anat)"):
            call()


def test_hemispheres_in_their_order_are_read_and_one_file_for_both_is_refused(tmp_path):
    left, right = pair(tmp_path, "sub-01_hemi-L_x", "sub-01_hemi-R_x", ("CortexLeft", "CortexRight"))
    assert load_surface(left, right, tmp_path / "t.tsv").n_voxels == 12
    assert load_surface(left, right, tmp_path / "t.tsv").name == "sub-01"
    with pytest.raises(InputError, match="zscore must be 'none' or 'session'"):
        load_surface(left, right, tmp_path / "t.tsv", zscore="sessions")
    with pytest.raises(InputError, match="given for both hemispheres"):
        load_surface(*[pair(tmp_path)[0]] * 2, tmp_path / "t.tsv")
    link = tmp_path / "link.gii"
    link.symlink_to(pair(tmp_path)[0])
    with pytest.raises(InputError, match="given for both hemispheres"):
        load_surface(pair(tmp_path)[0], link, tmp_path / "t.tsv")
    with pytest.raises(InputError, match="twice"):
        load_surface([left, left], [right, right], tmp_path / "t.tsv")


# GLMsingle in each container


def containers(folder, values):
    """The same betas as GLMsingle's Python and MATLAB versions store them."""
    paths = {name: folder / name for name in ("a.npy", "a.hdf5", "v5.mat", "v5c.mat", "v73.mat")}
    np.save(paths["a.npy"], {"betasmd": values}, allow_pickle=True)
    with h5py.File(paths["a.hdf5"], "w") as file:
        file["betasmd"] = values
    savemat(paths["v5.mat"], {"modelmd": values})
    savemat(paths["v5c.mat"], {"modelmd": values}, do_compression=True)
    with h5py.File(paths["v73.mat"], "w", userblock_size=512) as file:
        file["modelmd"] = values.T  # as MATLAB's order of axes appears to Python
    with paths["v73.mat"].open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(512))
    return paths


@pytest.mark.parametrize("kind", ["volumes", "voxels", "voxels with axes of one"])
def test_glmsingle_means_the_same_in_every_container(tmp_path, kind):
    tiny = TinyGlmsingle(tmp_path)
    values = tiny.volumes
    if kind != "volumes":
        values = values[tiny.mask] if kind == "voxels" else values[tiny.mask][:, None, None]
    expected = load_subject(tiny.npy, tiny.trials, tiny.mask_path)
    for name, path in containers(tmp_path, values).items():
        subject = load_subject(path, tiny.trials, tiny.mask_path)
        np.testing.assert_array_equal(subject.responses, expected.responses, err_msg=name)
        whole = load_subject(path, tiny.trials)
        assert whole.n_voxels == (tiny.mask.size if kind == "volumes" else tiny.mask.sum()), name


def test_a_mat_file_of_something_else_is_refused_by_its_right_name(tmp_path):
    savemat(tmp_path / "a.mat", {"meanvol": np.zeros(3)})
    savemat(tmp_path / "b.mat", {"modelmd": {"field": 1}})
    with pytest.raises(InputError, match="holds meanvol but no modelmd or betasmd"):
        GlmsingleBetas(tmp_path / "a.mat", None)
    with pytest.raises(FileFormatError, match="'modelmd' is no array of real numbers"):
        GlmsingleBetas(tmp_path / "b.mat", None)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">f8", ">i2", "?"])
@pytest.mark.parametrize("compressed", [True, False])
def test_numbers_in_mat_files_are_those_that_scipy_reads(tmp_path, dtype, compressed):
    arrays = {
        "a": (np.arange(24).reshape(2, 3, 4) % 2).astype(dtype),
        "other": "text",
        "b": np.ones((1, 1), dtype),
        "long_name_of_more_than_eight": np.arange(2).astype(dtype)[None],
        "e": np.zeros((0, 3), dtype),
    }
    savemat(tmp_path / "a.mat", arrays, do_compression=compressed)
    expected = loadmat(tmp_path / "a.mat")
    found = read_mat(tmp_path / "a.mat", [name for name in arrays if name != "other"])
    assert list(found) == ["a", "b", "long_name_of_more_than_eight", "e"]
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == (expected[name].dtype if dtype != "?" else np.uint8)
    with pytest.raises(FileFormatError, match="'other' is no array of real numbers"):
        read_mat(tmp_path / "a.mat", ["other"])
    savemat(tmp_path / "c.mat", {"a": np.ones(3) * 1j})
    with pytest.raises(FileFormatError, match="'a' is no array of real numbers"):
        read_mat(tmp_path / "c.mat", ["a"])
    savemat(tmp_path / "v4.mat", {"a": np.ones(3)}, format="4")
    with pytest.raises(FileFormatError, match="save it with -v7"):
        read_mat(tmp_path / "v4.mat", ["a"])


def test_one_flipped_bit_of_a_compressed_mat_file_is_noticed(contents, tmp_path):
    path, content = tmp_path / "glmsingle.mat", contents["glmsingle.mat"]
    for position in range(136, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 4
        path.write_bytes(changed)
        with pytest.raises(FileFormatError, match="not a readable MATLAB file"):
            betas(path)
