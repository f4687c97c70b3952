import ast
import base64
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib import colormaps
from nibabel.gifti.gifti import GiftiImage

from braincorl import Fit, GroupPrior, InContextEncoder, RidgeEncoder, fit_person
from braincorl.analysis import view_map
from braincorl.cells import LONGEST, facts_html
from braincorl.datasets import SubjectData, VoxelSpace
from braincorl.features import FeatureTable

HOSTILE = "<script>alert(1)</script>&\"'"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def person():
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 6, 6), bool)
    mask[2:4, 2:4, 2:4] = True
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (-24, -90, -20)
    images = np.array([f"image {n}" for n in range(20)])
    rois = {HOSTILE: np.arange(8) < 3}
    space = VoxelSpace(np.ones(8, bool), mask, affine)
    return SubjectData(rng.standard_normal((20, 8)), images, space, np.ones(20, int), rois, name="sub-01")


@pytest.fixture(scope="module")
def fit(person):
    features = np.random.default_rng(1).standard_normal((20, 5)).astype("f4")
    table = FeatureTable(features, person.image_ids, {"backbone": HOSTILE})
    return fit_person(person, table, RidgeEncoder(), context=person.image_ids[:12])


def shown(thing):
    page = Tags(thing._repr_html_())
    assert set(page.tags) <= {"div", "table", "caption", "tbody", "tr", "th", "td"}
    return page.words


def test_a_table_escapes_and_cuts():
    text = facts_html(HOSTILE, {HOSTILE: HOSTILE, "long": "x" * 1000}, HOSTILE)
    assert set(Tags(text).tags) == {"div", "table", "caption", "tbody", "tr", "th", "td"}
    assert Tags(text).words.count(HOSTILE) == 4
    assert "x" * LONGEST + " …" in text
    assert "x" * (LONGEST + 1) not in text


def test_a_person_a_fit_and_a_memory_say_what_they_are(person, fit):
    assert "8" in shown(person)
    assert HOSTILE in shown(person)
    assert re.search(r"Fit of .*RidgeEncoder.*12 images", shown(fit))
    assert f"{fit.scores['ev'].mean():.3f}" in shown(fit)
    rng = np.random.default_rng(2)
    people = [(rng.standard_normal((12, 5)), rng.standard_normal((12, 6))) for _ in range(2)]
    memory = GroupPrior.fit(people, rois=[np.array([HOSTILE[:20]] * 3 + [""] * 3)] * 2)
    assert "2" in shown(memory)
    assert HOSTILE[:20] in shown(memory)


def test_an_encoder_shows_its_parameters_as_scikit_learn_does():
    text = InContextEncoder(prior=HOSTILE)._repr_html_()
    assert "InContextEncoder" in text
    assert "<script>alert" not in text


def test_a_fit_on_disk_shows_without_reading_maps(fit, tmp_path):
    fit.save(tmp_path / "fit")
    loaded = Fit.load(tmp_path / "fit")
    for path in (tmp_path / "fit").glob("*_statmap.nii.gz"):
        path.unlink()
    assert str(tmp_path / "fit") in shown(loaded)


def test_a_viewer_is_one_page_that_loads_nothing_but_an_icon(person):
    for on_surface in (False, True):
        text = view_map(np.arange(8.0), person.space, title=HOSTILE, on_surface=on_surface).html
        assert not re.search(r"<(?:script|link(?! rel=.icon)|img)[^>]+(?:src|href)=[\"']https?:", text)
        assert "<script>alert(1)" not in text


def test_the_cortex_is_drawn_where_there_is_no_value(person):
    """A viewer of surfaces draws all of it black where one vertex is NaN."""
    page = view_map(np.arange(8.0), person.space).html
    shown = [base64.b64decode(text) for text in re.findall(r'base64: "([^"]{1000,})"', page)]
    maps = [GiftiImage.from_bytes(content).agg_data() for content in shown]
    assert any((values > 0).any() for values in maps)
    assert all(np.isfinite(values).all() for values in maps)
    # What is above 0 has the colours of the static picture, from end to end.
    (colours,) = re.findall(r"let cmap = (\{.*?\}\})", page)
    above = ast.literal_eval(html.unescape(colours))["pos"]
    for place in (0, -1):
        shown = [above[channel][place] for channel in "RGB"]
        np.testing.assert_allclose(shown, 255 * np.array(colormaps["inferno"](float(-place))[:3]), atol=2)


def test_a_map_without_a_viewer_is_a_picture_or_an_error():
    bare = VoxelSpace(np.ones(4, bool))
    with pytest.raises(Exception, match="the voxels have no places"):
        view_map(np.arange(4.0), bare)
