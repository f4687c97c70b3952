"""Pictures are tested by what they show at known places; how they look was judged by eye."""

import io

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from nilearn.datasets import load_fsaverage
from nilearn.surface import vol_to_surf

from braincorl import analysis
from braincorl.analysis import plot_flatmap, plot_glass_brain, plot_mosaic, plot_surface
from braincorl.analysis.colours import colour_scale, reliable_values
from braincorl.analysis.figures import save_figure
from braincorl.analysis.maps.surface_plots import VIEWS, _look_at, on_fsaverage, share_in_cuts
from braincorl.datasets import Surface, VoxelSpace
from braincorl.errors import InputError


@pytest.fixture(scope="module")
def person(world):
    return world.people[0]


@pytest.fixture
def no_windows():
    yield
    assert plt.get_fignums() == []


def pixels(figure):
    """The picture as it is saved (height, width, 3), 0 to 255."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    width, height = figure.canvas.get_width_height()
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3]


def has_colour(figure, colour, at_least=20):
    distance = np.abs(pixels(figure).astype(int) - np.round(255 * np.asarray(colour[:3]))).max(axis=-1)
    return (distance <= 2).sum() >= at_least


def test_one_wild_voxel_does_not_set_the_colours(rng):
    values = rng.random(1000)
    wild = values.copy()
    wild[3] = 1e6
    wild[4] = np.nan
    assert colour_scale(wild).high == pytest.approx(colour_scale(values).high, rel=0.02)
    assert colour_scale(values).low == 0
    signed = colour_scale(values - 0.5)
    assert signed.signed
    assert signed.high == pytest.approx(0.5, abs=0.02)
    # A few negative values are noise around zero; told otherwise, the scale is symmetric.
    mostly = np.r_[values, -0.01 * values]
    assert not colour_scale(mostly).signed
    assert colour_scale(mostly, signed=True).signed


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, -2.0], [3.0, 3.0], [np.nan, 1.0]])
def test_odd_maps_get_a_usable_scale(values):
    for signed in (None, True, False):
        scale = colour_scale(values, signed)
        assert scale.low < scale.high
        assert np.isfinite([scale.low, scale.high]).all()
    assert colour_scale([-1.0, -2.0], signed=False).low < 0


def test_maps_without_values_and_wrong_shapes_are_refused(person):
    space = person.space
    with pytest.raises(InputError, match="nothing to draw"):
        plot_mosaic(np.full(space.n_voxels, np.nan), space)
    with pytest.raises(InputError, match="one map at a time"):
        plot_mosaic(np.ones((2, space.n_voxels)), space)
    with pytest.raises(InputError, match="ceiling has shape"):
        plot_mosaic(np.ones(space.n_voxels), space, ceiling=np.ones(3))
    with pytest.raises(InputError, match="views must be among"):
        plot_surface(np.ones(space.n_voxels), space, views=["top"])
    with pytest.raises(InputError, match="without a mask"):
        plot_mosaic(np.ones(2), VoxelSpace(np.array([True, True])))
    with pytest.raises(InputError, match="percentile"):
        colour_scale([1.0], percentile=3)


def test_voxels_of_low_or_unknown_ceiling_are_blank():
    blanked = reliable_values([1, 2, 3], [0.1, 0.09, np.nan], 0.1)
    np.testing.assert_array_equal(blanked, [1, np.nan, np.nan])


def test_a_mosaic_shows_every_voxel_in_its_place(no_windows):
    # One slice; turned left to right and tilted axes are brought to the same picture.
    mask = np.ones((3, 2, 1), dtype=bool)
    values = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    space = VoxelSpace(np.ones(6, dtype=bool), mask, np.diag([2.0, 2, 2, 1]))
    flipped = VoxelSpace(np.ones(6, dtype=bool), mask, np.diag([-2.0, 2, 2, 1]))
    figure = plot_mosaic(values.ravel(), space, signed=False)
    shown = figure.axes[0].images[-1].get_array()
    np.testing.assert_array_equal(shown, values.T)
    np.testing.assert_array_equal(plot_mosaic(values.ravel(), flipped).axes[0].images[-1].get_array(), values[::-1].T)
    assert has_colour(figure, colormaps["inferno"](0.0))
    np.testing.assert_array_equal(figure.axes[0].images[-1].get_extent(), [-1, 5, -1, 3])


def test_plots_mark_regions_and_leave_unreliable_voxels_out(person, no_windows):
    space = person.space
    values = np.where(person.rois["FFA"], 1.0, 0.5)
    yellow = colormaps["inferno"](1.0)
    ceiling = np.where(person.rois["FFA"], 0.0, 1.0)
    options = {"signed": False, "title": "a title", "label": "EV"}
    for plot in (plot_mosaic, plot_surface):
        blank = plot(np.where(person.rois["FFA"], np.nan, values), space, **options)
        np.testing.assert_array_equal(pixels(plot(values, space, ceiling=ceiling, **options)), pixels(blank))
    colour_bar = 150  # a bar's end has the brightest colour in any case
    assert has_colour(plot_mosaic(values, space, **options), yellow, colour_bar)
    assert has_colour(plot_glass_brain(values, space, rois=person.rois, **options), yellow, colour_bar)
    rois = {"FFA": person.rois["FFA"], "<b>": person.rois["EBA"], "empty": np.zeros(space.n_voxels, dtype=bool)}
    outlined = plot_mosaic(values, space, rois=rois)
    assert [text.get_text() for text in outlined.legends[0].get_texts()] == ["FFA", "<b>"]
    assert has_colour(outlined, (0.0, 200 / 255, 1.0))


def test_categories_keep_their_colours_and_are_named(person, no_windows):
    levels = {"shape": "#0072B2", "meaning": "#D55E00", "$both$": "#009E73"}
    blue, red, green = (np.array(to_rgb(colour)) for colour in levels.values())
    mask = np.ones((3, 2, 1), dtype=bool)
    space = VoxelSpace(np.ones(6, dtype=bool), mask, np.diag([2.0, 2, 2, 1]))
    figure = plot_mosaic([1, 1, np.nan, 2, 2, 2], space, levels=levels, label="largest")
    (image,) = [image for image in figure.axes[0].images if image.get_cmap().N == 3]
    shown = image.to_rgba(image.get_array())[..., :3]
    np.testing.assert_allclose(shown[0, [0, 2]], [blue, red], atol=1 / 255)
    np.testing.assert_allclose(shown[1], [blue, red, red], atol=1 / 255)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["largest:", *levels]
    assert len(figure.axes) == 1  # no bar: categories have no order
    for wrong in (0, 4, 1.5):
        with pytest.raises(InputError, match="numbers of levels, 1 to 3"):
            plot_mosaic([1, 1, wrong, 2, 2, 2], space, levels=levels)
    # Between the first and the third category on the cortex lies a border, and never the second.
    front = person.space.coordinates()[:, 1] > -60
    cortex = plot_surface(np.where(front, 3, 1), person.space, levels=levels, views=["lateral"])
    faces = np.concatenate([axes.collections[0].get_facecolor()[:, :3] for axes in cortex.axes])
    brightness = faces.max(axis=1, keepdims=True)
    for colour, there in ((blue, True), (green, True), (red, False)):
        same = np.abs(faces / brightness - colour / colour.max()).max(axis=1) < 0.01
        assert same.any() == there


def test_names_of_regions_are_shown_as_they_are_and_fit_into_the_picture(person):
    space = person.space
    rois = {f"{'long ' * 9}{n}" if n < 3 else f"$R_{n}$ 100%": np.arange(space.n_voxels) % 9 == n for n in range(9)}
    for plot in (plot_mosaic, plot_surface):
        figure = plot(np.ones(space.n_voxels), space, rois=rois, title="$x$")
        figure.canvas.draw()
        frame, picture = figure.legends[0].get_window_extent(), figure.bbox
        assert frame.x0 >= picture.x0
        assert frame.x1 <= picture.x1
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts[0] == ("long " * 9)[:29] + "…"
        assert texts[3] == "$R_3$ 100%"
        assert not figure.legends[0].get_texts()[3].get_parse_math()


def test_a_volume_on_the_surface_equals_nilearns_sampling_inside_and_ignores_what_is_missing(person):
    space = person.space
    coordinates = space.coordinates()
    for side, vertices in on_fsaverage(coordinates[:, 1], space).items():
        known = np.isfinite(vertices)
        middle = np.mean([load_fsaverage("fsaverage5")[k].parts[side].coordinates for k in ("pial", "white_matter")], 0)
        assert known.sum() > 1000
        # A map of positions comes back as the vertices' own positions, within half a voxel (8 mm).
        assert np.abs(vertices - middle[:, 1])[known].mean() < 2
    constant = np.ones(space.n_voxels)
    constant[::7] = np.nan
    for vertices in on_fsaverage(constant, space).values():
        np.testing.assert_allclose(vertices[np.isfinite(vertices)], 1, rtol=1e-5)
    everywhere = VoxelSpace(np.ones(20**3, dtype=bool), np.ones((20, 20, 20), bool), _box_affine())
    values = np.random.default_rng(0).standard_normal(20**3)
    meshes = load_fsaverage("fsaverage5")
    image = nib.Nifti1Image(values.reshape(20, 20, 20), _box_affine())
    expected = vol_to_surf(image, meshes["pial"].parts["left"], inner_mesh=meshes["white_matter"].parts["left"])
    np.testing.assert_allclose(on_fsaverage(values, everywhere)["left"], expected, atol=1e-5)


def _box_affine():
    affine = np.diag([12.0, 12, 12, 1])
    affine[:3, 3] = -114
    return affine


def test_finer_surfaces_are_drawn_at_their_first_vertices(rng, no_windows):
    surface = Surface(rng.random(163_842) < 0.5, rng.random(163_842) < 0.5)
    space = VoxelSpace(np.ones(surface.n_chosen, dtype=bool), surface=surface)
    values = rng.standard_normal(surface.n_chosen)
    halves = on_fsaverage(values, space)
    np.testing.assert_array_equal(np.isfinite(halves["right"]), surface.right[:10_242])
    assert halves["right"][np.flatnonzero(surface.right)[0]] == values[surface.left.sum()]
    plot_surface(values, space, views=["medial"])
    other = VoxelSpace(np.ones(4, dtype=bool), surface=Surface(np.ones(2, dtype=bool), np.ones(2, dtype=bool)))
    with pytest.raises(InputError, match="2 vertices, but only fsaverage5"):
        plot_surface(np.ones(4), other)


@pytest.mark.parametrize("view", VIEWS)
def test_hemispheres_mirror_each_other(view):
    left, right = _look_at("left", view), _look_at("right", view)
    for seen, sign in ((left, -1), (right, 1)):
        x = seen.corners[:, 0] * sign
        # From behind, left is on the left; from the side, above and below, the front is on the outside.
        points = load_fsaverage("fsaverage5")["inflated"].parts["left" if sign < 0 else "right"].coordinates
        away = {"posterior": points[:, 0] * sign, "anterior": -points[:, 0] * sign, "medial": -points[:, 1]}
        expected = away.get(view, points[:, 1])
        np.testing.assert_allclose(x, expected)
        assert (seen.light > 0).all()


def fsaverage(n_vertices):
    """All vertices of a surface of fsaverage's, and which are left."""
    space = VoxelSpace(np.ones(2 * n_vertices, bool), surface=Surface(*[np.ones(n_vertices, bool)] * 2))
    return space, np.arange(2 * n_vertices) < n_vertices


def test_a_flat_map_lies_as_it_says():
    """Front on the outside and top up, by the vertices' own places; the hemispheres mirror each other."""
    for side, out in (("left", -1), ("right", 1)):
        seen = _look_at(side, "flat")
        shown = np.unique(seen.triangles)
        assert 9_000 < shown.size < 10_242
        assert np.isfinite(seen.corners).all()
        places = load_fsaverage("fsaverage5")["pial"].parts[side].coordinates[shown]
        assert np.corrcoef(seen.corners[shown, 0] * out, places[:, 1])[0, 1] > 0.9
        assert np.corrcoef(seen.corners[shown, 1], places[:, 2])[0, 1] > 0.8
        # It is the same surface: each triangle is one of the closed mesh, and neighbours lie side by side.
        closed = {tuple(sorted(face)) for face in load_fsaverage("fsaverage5")["inflated"].parts[side].faces.tolist()}
        assert {tuple(sorted(face)) for face in seen.triangles.tolist()} <= closed
        first, second, third = seen.corners[seen.triangles].transpose(1, 0, 2)
        (ax, ay), (bx, by) = (second - first).T, (third - first).T
        assert np.median(np.abs(ax * by - ay * bx) / 2) < 10, "square millimetres"


def test_a_flat_map_shows_values_at_their_vertices(no_windows, rng):
    space, left = fsaverage(10_242)
    values = np.zeros(space.n_voxels)
    middle = np.unique(_look_at("left", "flat").triangles)
    values[middle[_look_at("left", "flat").corners[middle, 0] > 60]] = 1  # the back of the left hemisphere
    figure = plot_flatmap(values, space, signed=False, title="flat")
    shown = pixels(figure).astype(int)
    yellow = np.abs(shown - np.round(255 * np.asarray(colormaps["inferno"](1.0)[:3]))).max(axis=-1) <= 3
    columns = np.flatnonzero(yellow[: shown.shape[0] * 3 // 5].any(axis=0)) / shown.shape[1]
    assert 0.3 < columns.min() < columns.max() < 0.5
    # A finer surface shows its first vertices, as anywhere else.
    finer, _ = fsaverage(40_962)
    fine = (rng.random(finer.n_voxels) < 0.5).astype(float)
    fine[:10_242], fine[40_962 : 40_962 + 10_242] = values[left], values[~left]
    np.testing.assert_array_equal(pixels(plot_flatmap(fine, finer, signed=False, title="flat")), shown)


def test_what_lies_in_the_cuts_is_counted():
    space, left = fsaverage(10_242)
    in_cuts = np.ones(10_242, dtype=bool)
    in_cuts[_look_at("left", "flat").triangles] = False
    values = np.full(space.n_voxels, np.nan)
    values[np.flatnonzero(left)[in_cuts]] = 1
    assert share_in_cuts(values, space) == 1
    values[np.flatnonzero(left)[~in_cuts][: in_cuts.sum()]] = 1
    assert share_in_cuts(values, space) == 0.5


def test_flat_maps_say_what_they_need(person):
    space = VoxelSpace(np.ones(4, dtype=bool), surface=Surface(np.ones(2, dtype=bool), np.ones(2, dtype=bool)))
    with pytest.raises(InputError, match="2 vertices, but only fsaverage5"):
        plot_flatmap(np.ones(4), space)
    with pytest.raises(InputError, match="both a subject and a transform"):
        plot_flatmap(np.ones(person.space.n_voxels), person.space, "S1")
    with pytest.raises(InputError, match="with_labels are options of pycortex"):
        plot_flatmap(np.ones(person.space.n_voxels), person.space, with_labels=False)
    try:
        import cortex  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"pip install .braincorl\[pycortex\]"):
            plot_flatmap(np.ones(person.space.n_voxels), person.space, "S1", "auto")
    else:
        pytest.skip("pycortex is installed")


def test_figures_are_saved_whole(person, tmp_path):
    save_figure(analysis.plot_mosaic(np.ones(person.space.n_voxels), person.space), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
