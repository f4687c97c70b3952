import numpy as np
import pytest

from braincorl.datasets import load_subject, simulate_people
from braincorl.datasets.simulation import REGIONS, posterior_cortex, smooth_fields
from braincorl.errors import InputError
from braincorl.metrics import explained_variance, pearson_r


def test_the_same_seed_gives_the_same_people(world):
    again = simulate_people(2, n_own=60, n_shared=30, n_features=24, voxel_size_mm=8, random_state=3)
    for a, b in zip(world.people, again.people, strict=True):
        np.testing.assert_array_equal(a.trials, b.trials)
    other = simulate_people(1, n_own=60, n_shared=30, n_features=24, voxel_size_mm=8, random_state=4)
    assert not np.array_equal(other.features[:30], world.features[:30])


def test_people_share_the_shared_images_alone(world):
    seen = [set(person.trial_images.tolist()) for person in world.people]
    assert seen[0] & seen[1] == set(world.shared.tolist())
    subject = world.people[0].subject()
    shared = np.isin(subject.image_ids, world.shared)
    assert (subject.n_repeats[shared] == 3).all()
    assert (subject.n_repeats[~shared] == 1).all()


def test_the_truth_explains_the_responses_up_to_the_noise(world):
    """Against the mean of three trials, the true encoder reaches the noise ceiling that the noise implies."""
    person = world.people[0]
    subject = person.subject().select_images(world.shared)
    queries = world.features_of(world.shared)
    truth = person.true_responses(queries)
    signal = truth.var(axis=0)
    ceiling = signal / (signal + person.noise_variance / 3)
    r2 = explained_variance(subject.responses, truth)
    # Outlier trials add to the noise, so the truth falls short of the ceiling a little and never beats it on average.
    assert -0.12 < (r2 - ceiling).mean() < 0.02
    assert np.corrcoef(subject.noise_ceiling(), ceiling)[0, 1] > 0.7


def test_features_are_unit_norm_with_a_natural_spectrum(world):
    np.testing.assert_allclose(np.linalg.norm(world.features, axis=1), 1.0, rtol=1e-5)
    spectrum = np.linalg.svd(world.features - world.features.mean(axis=0), compute_uv=False) ** 2
    assert spectrum[0] > 4 * spectrum[9] > 0


def test_regions_prefer_their_category(world):
    person = world.people[0]
    names = np.array([name.split("-")[0] for name in world.image_ids])
    responses = person.true_responses(world.features)
    responses = (responses - responses.mean(axis=0)) / responses.std(axis=0)
    for region in REGIONS:
        if region.category is not None and region.name in person.rois and region.name != "LOC":
            inside = responses[:, person.rois[region.name]]
            contrast = inside[names == region.category].mean() - inside[names != region.category].mean()
            assert contrast > 0.3, region.name


def test_noise_is_shared_by_neighbours_and_not_by_distant_voxels(rng):
    brain = posterior_cortex(6)
    fields = smooth_fields(brain, 300, 8.0, rng)
    assert fields.std() == pytest.approx(1.0, abs=0.1)
    position = np.argwhere(brain.mask)
    z = (fields - fields.mean(axis=0)) / fields.std(axis=0)
    correlation = z.T @ z / len(z)
    distance = np.abs(position[:, None] - position[None]).sum(axis=-1)
    sigma = 8.0 / 2.355  # smoothing white noise by a Gaussian correlates it by exp(-d² / 4σ²)
    assert correlation[distance == 1].mean() == pytest.approx(np.exp(-(6.0**2) / (4 * sigma**2)), abs=0.1)
    assert abs(correlation[distance > 8].mean()) < 0.02


def test_written_files_load_back_as_the_same_person(world, tmp_path):
    person = world.people[1]
    paths = person.write(tmp_path)
    loaded = load_subject(paths["betas"], paths["trials"], paths["mask"], rois=paths["rois"])
    subject = person.subject()
    assert list(loaded.image_ids) == list(subject.image_ids)
    np.testing.assert_allclose(loaded.responses, subject.responses, rtol=1e-6)
    assert set(loaded.rois) == set(subject.rois)
    for name, members in subject.rois.items():
        np.testing.assert_array_equal(loaded.rois[name], members)
    assert pearson_r(loaded.responses, subject.responses).min() > 0.999999


def test_impossible_worlds_are_refused():
    with pytest.raises(InputError, match="n_people must be at least 1, but is 0"):
        simulate_people(0)


def test_a_sheet_lies_on_the_folded_cortex_and_holds_every_region():
    from nilearn.datasets import load_fsaverage
    from scipy.spatial import cKDTree

    person = simulate_people(1, n_own=2, n_shared=2, voxel_size_mm=8, layout="sheet").people[0]
    mask, affine = person.space.mask, person.space.affine
    places = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    meshes = load_fsaverage("fsaverage5")
    cortex = np.concatenate(
        [meshes[kind].parts[side].coordinates for kind in ("white_matter", "pial") for side in ("left", "right")]
    )
    assert cKDTree(cortex).query(places)[0].max() < np.sqrt(3) / 2 * 8 + 3  # half a voxel's diagonal, and the ribbon
    assert set(person.rois) == {region.name for region in REGIONS}
    assert all(members.sum() >= 2 for members in person.rois.values())  # in both hemispheres
    with pytest.raises(InputError, match="layout must be block or sheet, but is 'ball'"):
        simulate_people(1, layout="ball")
