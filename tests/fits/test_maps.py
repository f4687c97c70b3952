import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.image import load_img
from nilearn.masking import apply_mask, unmask

from braincorl import analysis
from braincorl.analysis import save_map, score_encoder, summarize_rois
from braincorl.datasets import Surface, VoxelSpace
from braincorl.encoders import RidgeEncoder
from braincorl.errors import InputError, OutputError
from braincorl.fits.folder import read_space, write_description, write_maps, write_space
from braincorl.fits.maps import read_map, save_series
from braincorl.metrics import explained_variance, pearson_r, r2_score

AFFINE = np.array([[-2.0, 0.1, 0, 60], [0, 2.0, 0, -90], [0, 0, 2.5, -40], [0, 0, 0, 1]])


@pytest.fixture
def space(rng):
    mask = rng.random((6, 7, 5)) < 0.5
    included = np.ones(mask.sum(), dtype=bool)
    included[4] = False
    return VoxelSpace(included, mask, AFFINE)


def test_maps_equal_nilearns_own_unmasking(space, rng, tmp_path):
    values = rng.standard_normal(space.n_voxels).astype("f4") / 3
    path = save_map(values, space, tmp_path / "a.nii.gz", {"Units": "1"}, outside="zero")
    image = load_img(path)
    mask_image = nib.Nifti1Image(space.mask.astype(np.uint8), AFFINE)
    expected = unmask(space.expand(values), mask_image)
    np.testing.assert_array_equal(image.get_fdata(), expected.get_fdata())
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(apply_mask(image, mask_image, ensure_finite=False), space.expand(values))
    assert json.loads((tmp_path / "a.json").read_text()) == {"Units": "1"}


def test_outside_is_a_choice_and_missing_voxels_are_nan_either_way(space):
    values = np.ones(space.n_voxels)
    missing = np.argwhere(space.mask)[4]
    for outside, expected in (("nan", np.nan), ("zero", 0.0)):
        volume = analysis.unmask(values, space, outside).get_fdata()
        np.testing.assert_array_equal(np.unique(volume[~space.mask]), [expected])
        assert np.isnan(volume[tuple(missing)])


@pytest.mark.slow  # starts another program
@pytest.mark.parametrize("where", ["volume", "surface", "one hemisphere"])
def test_the_bids_validator_finds_no_error(tmp_path, space, where):
    beside = Path(sys.executable).parent / "bids-validator-deno"
    validator = beside if beside.is_file() else shutil.which("bids-validator")
    if validator is None:
        pytest.skip("the BIDS validator is not installed (bids-validator-deno on PyPI)")
    if where != "volume":
        right = np.arange(10_242) % 3 == 0 if where == "surface" else np.zeros(0, dtype=bool)
        surface = Surface(np.arange(10_242) % 2 == 0, right, "fsaverage5")
        space = VoxelSpace(np.ones(surface.n_chosen, dtype=bool), surface=surface)
    write_description(tmp_path, "Voxelwise encoder")
    write_space(tmp_path / "space.safetensors", space, {})
    write_maps(tmp_path, "sub-01_task-images", {"ev": np.ones(space.n_voxels)}, space)
    assert len(list(tmp_path.glob("*statmap*"))) >= 2
    done = subprocess.run([validator, tmp_path, "--format", "json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert {issue["code"] for issue in issues} <= {"README_FILE_SMALL", "SUBJECT_FOLDERS", "TOO_FEW_AUTHORS"}


def test_a_series_written_in_chunks_is_the_whole_series(space, rng, tmp_path):
    values = rng.standard_normal((7, space.n_voxels)).astype("f4")
    save_series((values[s : s + 3] for s in (0, 3, 6)), 7, space, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(
        nib.load(tmp_path / "a.nii.gz").get_fdata(dtype=np.float32)[space.mask].T, space.expand(values)
    )
    np.testing.assert_array_equal(
        analysis.unmask(values, space).get_fdata(), nib.load(tmp_path / "a.nii.gz").get_fdata()
    )


def test_a_series_of_the_wrong_length_is_not_written(space, tmp_path):
    vector = VoxelSpace(np.ones(3, dtype=bool))
    surface = VoxelSpace(np.ones(3, dtype=bool), surface=Surface(np.ones(3, bool), np.zeros(0, bool)))
    for where in (space, vector, surface):
        for n in (2, 4):
            with pytest.raises(OutputError, match=f"was to hold 3 volumes, but {n} came"):
                save_series([np.ones((n, where.n_voxels))], 3, where, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["volume", "vector", "surface"])
def test_values_that_are_no_map_are_refused_everywhere(space, tmp_path, where):
    plain = VoxelSpace(np.ones(3, dtype=bool))
    surface = VoxelSpace(np.ones(3, dtype=bool), surface=Surface(np.ones(3, bool), np.zeros(0, bool)))
    chosen = {"volume": space, "vector": plain, "surface": surface}[where]
    n = chosen.n_voxels
    for values in (np.ones(n) * 1j, np.full(n, "a"), np.full(n, None), np.ones(n + 1), np.float64(2)):
        with pytest.raises(InputError, match="expected real numbers"):
            save_map(values, chosen, tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="outside must be"):
        save_map(np.ones(n), chosen, tmp_path / "a.nii.gz", outside="NaN")
    with pytest.raises(InputError, match=r"must end in \.nii"):
        save_map(np.ones(n), chosen, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_maps_of_another_kind_or_place_are_refused(space, tmp_path):
    vector = VoxelSpace(np.ones(3, dtype=bool))
    for number, values in enumerate((np.ones(3) * 1j, np.full(3, "a"), np.array([{}, 1, 2], dtype=object), np.ones(4))):
        np.save(tmp_path / f"{number}.npy", values, allow_pickle=True)
        with pytest.raises(InputError, match=f"{number}.npy"):
            read_map(tmp_path / f"{number}.npy", vector)
    np.savez(tmp_path / "z.npz", np.ones(3))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    with pytest.raises(InputError, match=r"is an \.npz archive"):
        read_map(tmp_path / "z.npy", vector)
    # As many vertices as the fit has, but others.
    for name, half in {"a": np.arange(10) < 4, "b": np.arange(10) >= 6}.items():
        there = VoxelSpace(np.ones(4, dtype=bool), surface=Surface(half, np.zeros(0, bool)))
        save_map(np.arange(4.0), there, tmp_path / f"{name}.nii.gz")
    np.testing.assert_array_equal(read_map(tmp_path / "b.dscalar.nii", there), np.arange(4))
    with pytest.raises(InputError, match="lies on other vertices than the fit"):
        read_map(tmp_path / "a.dscalar.nii", there)
    # A header that says how large the map is and where it lies is looked at before the map is read.
    image = nib.Nifti1Image(np.zeros(space.mask.shape, "f4"), None)
    image.header.set_sform(np.full((4, 4), np.nan), 1)
    (tmp_path / "n.nii").write_bytes(image.to_bytes())
    with pytest.raises(InputError, match="another grid than the fit"):
        read_map(tmp_path / "n.nii", space)


def test_without_a_grid_values_go_to_npy(rng, tmp_path):
    space = VoxelSpace(np.array([True, False, True]))
    path = save_map(np.array([1.0, 2.0]), space, tmp_path / "a.nii.gz", {})
    np.testing.assert_array_equal(np.load(path), np.array([1.0, np.nan, 2.0], "f4"))
    series = save_series([np.ones((2, 2)), np.zeros((1, 2))], 3, space, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.load(series)[:, 2], [1, 1, 0])
    with pytest.raises(InputError, match="without a mask"):
        analysis.unmask(np.ones(2), space)


def test_a_space_and_its_regions_come_back(space, tmp_path, rng):
    rois = {"V1": rng.random(space.n_voxels) < 0.5, "FFA": rng.random(space.n_voxels) < 0.1}
    write_space(tmp_path / "s.safetensors", space, rois)
    read, read_rois = read_space(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(read.mask, space.mask)
    np.testing.assert_array_equal(read.affine, space.affine)
    np.testing.assert_array_equal(read.included, space.included)
    assert list(read_rois) == ["V1", "FFA"]
    np.testing.assert_array_equal(read_rois["FFA"], rois["FFA"])


def test_scores_equal_the_metrics_and_follow_each_persons_voxels(world):
    person = world.people[0]
    subject = person.subject()
    own = subject.image_ids[~np.isin(subject.image_ids, world.shared)]
    context, test = subject.select_images(own), subject.select_images(world.shared)
    encoder = RidgeEncoder().fit(world.features_of(own), context.responses)
    queries = world.features_of(world.shared)
    scores = score_encoder(encoder, subject.space, queries, test)
    # In double precision: rounded to single, predictions that hardly vary around a large mean correlate otherwise.
    predicted = queries.astype(np.float64) @ encoder.coef_.T.astype(np.float64) + encoder.intercept_
    np.testing.assert_allclose(scores["ev"], explained_variance(test.responses, predicted), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores["r2"], r2_score(test.responses, predicted), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(scores["r"], pearson_r(test.responses, predicted), rtol=1e-3, atol=1e-4)
    reliable = scores["noiseceiling"] >= 0.1
    np.testing.assert_array_equal(np.isfinite(scores["evnormalized"]), reliable)
    np.testing.assert_allclose(
        scores["rnormalized"][reliable], scores["r"][reliable] / np.sqrt(scores["noiseceiling"][reliable])
    )
    # The same responses with voxels missing on both sides line up by place, not by index.
    fewer = np.ones(subject.n_voxels, dtype=bool)
    fewer[[2, 5]] = False
    space = VoxelSpace(fewer, subject.space.mask, subject.space.affine)
    part = RidgeEncoder().fit(world.features_of(own), context.responses[:, fewer])
    aligned = score_encoder(part, space, queries, test)
    np.testing.assert_allclose(aligned["ev"], scores["ev"][fewer], rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="with the mask of the fit"):
        score_encoder(part, VoxelSpace(np.ones(5, dtype=bool)), queries, test)


def test_region_means_leave_missing_voxels_out():
    values = {"ev": np.array([0.1, np.nan, 0.3, 0.5])}
    rois = {"A": np.array([True, True, False, False]), "empty": np.zeros(4, dtype=bool)}
    table = summarize_rois(values, rois).set_index("roi")
    assert table.loc["all", "ev_mean"] == pytest.approx(0.3)
    assert table.loc["A", "ev_mean"] == pytest.approx(0.1)
    assert table.loc["A", ["n_voxels", "ev_n"]].tolist() == [2, 1]
    assert np.isnan(table.loc["empty", "ev_mean"])
    with pytest.raises(InputError, match="shapes"):
        summarize_rois(values, {"A": np.ones(3, dtype=bool)})


def test_an_oblique_grid_goes_into_a_file_and_back_to_the_same_places(rng, tmp_path):
    """Both of NIfTI's ways to say where the voxels are (sform, and qform for a rotation) agree with the mask's."""
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) * [1.8, 1.8, 2.2]
    affine = nib.affines.from_matvec(turn, [-70, -100, -50])
    mask = rng.random((5, 6, 4)) < 0.6
    space = VoxelSpace(np.ones(mask.sum(), dtype=bool), mask, affine)
    values = rng.standard_normal(space.n_voxels).astype("f4")
    image = nib.load(save_map(values, space, tmp_path / "a.nii.gz", outside="zero"))
    np.testing.assert_allclose(image.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header.get_slope_inter() in ((None, None), (1.0, 0.0))
    # Asking the file for the value at each voxel's millimetre coordinates finds the voxel's value.
    sampled = [
        image.get_fdata()[tuple(np.round(nib.affines.apply_affine(np.linalg.inv(image.affine), point)).astype(int))]
        for point in space.coordinates()
    ]
    np.testing.assert_array_equal(np.float32(sampled), values)
    np.testing.assert_array_equal(read_map(tmp_path / "a.nii.gz", space), values)
