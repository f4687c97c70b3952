import numpy as np
import pytest
from scipy import ndimage

from braincorl.analysis.maps.peaks import MOST_CLUSTERS, find_clusters, region_peaks
from braincorl.datasets import Surface, VoxelSpace
from braincorl.datasets.meshes import vertex_places


def volume(values, affine):
    """A map of a whole grid, in which every third voxel is out of the mask, and some in it carry no data."""
    mask = np.ones(values.shape, dtype=bool)
    mask[:, :, 0] = False
    included = np.ones(mask.sum(), dtype=bool)
    included[:5] = False
    return values[mask][included], VoxelSpace(included, mask, affine)


def test_clusters_of_a_volume_are_where_they_were_put():
    affine = np.array([[0, -3.0, 0, 90], [3, 0, 0, -120], [0, 0, 3, -40], [0, 0, 0, 1]])  # turned by 90 degrees
    grid = np.full((20, 22, 12), -0.1)
    grid[4:7, 4:7, 4:7] = 0.3
    grid[5, 5, 5] = 0.5
    grid[12:14, 10, 6] = 0.4
    grid[13, 10, 6] = 0.6
    grid[17, 17, 9] = 0.9  # which is not found
    values, space = volume(grid, affine)
    found = values < 0.8
    rois = {"big": values == 0.3, "peak": values == 0.5}
    clusters = find_clusters(values, space, found, rois)
    table = clusters.table[~clusters.table["cluster"].str.contains("[a-z]")]
    assert clusters.n_clusters == 2
    assert table["peak"].tolist() == pytest.approx([0.6, 0.5])
    assert table["size"].tolist() == [2 * 27, 27 * 27]
    assert table["roi"].tolist() == ["", "peak"]
    expected = [(affine @ (*voxel, 1))[:3] for voxel in ((13, 10, 6), (5, 5, 5))]
    np.testing.assert_allclose(table[["x_mm", "y_mm", "z_mm"]], expected)
    peaks = region_peaks(values, space, {**rois, "none": np.zeros(values.size, bool)})
    assert peaks["roi"].tolist() == ["big", "peak"]
    np.testing.assert_allclose(peaks.loc[1, ["x_mm", "y_mm", "z_mm"]].astype(float), expected[1])


def test_of_many_clusters_the_largest_are_listed(rng):
    grid = np.where(rng.random((30, 30, 30)) < 0.1, rng.random((30, 30, 30)) + 0.1, 0.0)
    values, space = volume(grid, np.diag([2.0, 2, 2, 1]))
    whole = np.zeros(grid.shape)
    whole[space.mask] = space.expand(values)
    numbers, n_clusters = ndimage.label(np.nan_to_num(whole) > 0)
    sizes = np.sort(np.bincount(numbers.ravel())[1:])[::-1][:MOST_CLUSTERS]
    clusters = find_clusters(values, space, np.ones(values.size, bool))
    assert clusters.n_clusters == n_clusters
    assert sorted(clusters.table["size"].dropna(), reverse=True) == (8 * sizes).tolist()
    nothing = find_clusters(values, space, np.zeros(values.size, bool))
    assert (len(nothing.table), nothing.n_clusters) == (0, 0)
    assert nothing.table.columns.tolist() == clusters.table.columns.tolist()


@pytest.mark.parametrize("n_vertices", [10_242, 40_962])
def test_clusters_of_a_surface_are_neighbours_on_the_mesh(n_vertices):
    """Patches around two vertices of fsaverage5 come back with the vertex, its place and its region."""
    left, right = np.ones(n_vertices, bool), np.arange(n_vertices) > 100
    surface = Surface(left, right, {10_242: "fsaverage5", 40_962: "fsaverage6"}[n_vertices])
    places = np.concatenate([vertex_places("fsaverage5", side, 10_242) for side in ("left", "right")])
    near = [np.linalg.norm(places[side] - places[side][vertex], axis=1) for side, vertex in (
        (slice(0, 10_242), 4000), (slice(10_242, None), 7000))]  # fmt: skip
    halves = [np.zeros(n_vertices), np.zeros(n_vertices)]
    for half, distance, height in zip(halves, near, (0.4, 0.7), strict=True):
        half[:10_242] = np.where(distance < 8, height - distance / 100, 0)
    values = np.concatenate([halves[0], halves[1][right]])
    space = VoxelSpace(np.ones(values.size, bool), surface=surface)
    rois = {"one": np.arange(values.size) == 4000}
    clusters = find_clusters(values, space, np.ones(values.size, bool), rois)
    table = clusters.table.nlargest(2, "size").sort_values("peak", ascending=False)
    assert table["hemisphere"].tolist() == ["right", "left"]
    assert table["vertex"].tolist() == [7000, 4000]
    assert table["roi"].tolist() == ["", "one"]
    np.testing.assert_allclose(table[["x_mm", "y_mm", "z_mm"]], places[[10_242 + 7000, 4000]], atol=0.051)
    assert clusters.table["size"].sum() == sum((distance < 8).sum() for distance in near)
