import numpy as np
import pytest

from braincorl.errors import InputError
from braincorl.priors.compression import cluster
from braincorl.priors.places import NEIGHBOURS, check_places, neighbours, spacing


def test_spacing_of_a_grid_is_its_voxel_size():
    grid = 1.8 * np.argwhere(np.ones((4, 5, 6), dtype=bool))
    assert spacing(grid) == pytest.approx(1.8)
    assert spacing(grid[:1]) == 1.0


def test_neighbours_are_the_nearest_and_weigh_by_distance(rng):
    remembered, places = rng.uniform(0, 9, (500, 3)), rng.uniform(0, 9, (7, 3))
    index, weight = neighbours(remembered, places, 1.5)
    distance = np.linalg.norm(remembered[None] - places[:, None], axis=2)
    for voxel in range(7):
        assert set(index[voxel]) == set(np.argsort(distance[voxel])[:NEIGHBOURS])
        expected = -(distance[voxel, index[voxel]] ** 2) / (2 * 1.5**2)
        np.testing.assert_allclose(weight[voxel], expected - expected.max())


def test_grayordinates_are_the_same_place_or_another():
    remembered = check_places(np.array([5, 5, 6, 9]), 4, "positions")
    index, weight = neighbours(remembered, check_places(np.array([5, 9]), 2, "positions"), 1.5 * spacing(remembered))
    mass = np.exp(weight)
    assert mass[0][np.isin(index[0], (0, 1))].tolist() == [1.0, 1.0]
    assert mass[0][np.isin(index[0], (2, 3))].sum() < 1e-6
    assert index[1][mass[1].argmax()] == 3


def test_kinds_of_places_do_not_mix():
    with pytest.raises(InputError, match="another kind"):
        neighbours(np.zeros((4, 3)), np.zeros((2, 1)), 1.0)


def test_clusters_hold_what_is_alike_and_never_two_groups(rng):
    centres = 10 * rng.standard_normal((6, 3))
    kind = rng.integers(6, size=300)
    points = (centres[kind] + 0.1 * rng.standard_normal((300, 3))).astype(np.float32)
    groups = kind % 2
    item = cluster(points, groups, 60)
    assert set(item) == set(range(item.max() + 1))
    assert 50 <= item.max() + 1 <= 62
    for number in range(item.max() + 1):
        assert len(set(groups[item == number])) == 1
        assert len(set(kind[item == number])) == 1


def test_clusters_do_not_depend_on_the_order(rng):
    points = rng.standard_normal((200, 4)).astype(np.float32)
    order = rng.permutation(200)
    first, second = (cluster(p, np.zeros(200, dtype=np.intp), 20) for p in (points, points[order]))
    pairs = {(a, b) for a, b in zip(first[order], second, strict=True)}
    assert len(pairs) == first.max() + 1
