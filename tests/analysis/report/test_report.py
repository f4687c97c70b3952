import base64
import html
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from braincorl.analysis.figures import new_figure
from braincorl.analysis.maps.surface_plots import share_in_cuts
from braincorl.analysis.report.fit_report import ReportOptions, _viewer, find_warnings, write_report
from braincorl.analysis.report.page import Section, render_page, write_page
from braincorl.analysis.report.question_sections import better_than_chance
from braincorl.analysis.report.top_images import Thumbnails, rank_images
from braincorl.datasets import Surface, VoxelSpace
from braincorl.encoders import BayesianRidgeEncoder, RidgeEncoder
from braincorl.errors import InputError, OutputError
from braincorl.features import FeatureTable
from braincorl.fits import Fit
from braincorl.fits.fit import write_fit
from braincorl.fits.folder import read_maps, write_maps
from braincorl.fits.scores import score_encoder, summarize_rois

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Reads a page and complains about what is not well-formed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.words = [], set(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


def make_fit(folder, world, subject_name="sub-01", n_context=30, rois=None, **config):
    """Fit forty of the world's images by hand, score the shared ones, write it all."""
    person = world.people[0]
    subject = person.subject()
    own = subject.image_ids[~np.isin(subject.image_ids, world.shared)][:n_context]
    encoder = BayesianRidgeEncoder().fit(world.features_of(own), subject.select_images(own).responses)
    scores = score_encoder(encoder, subject.space, world.features_of(world.shared), subject.select_images(world.shared))
    folder.mkdir()
    config = {
        "subject": subject_name,
        "prefix": "sub-01_task-simulated",
        "encoder": "bayesian-ridge",
        "zscore": "none",
        "features_provenance": {"backbone": "simulation"},
        "n_left_out": len(world.shared),
    } | config
    rois = subject.rois if rois is None else rois
    write_fit(folder, Fit(encoder, subject.space, rois, config, own.tolist(), kept_maps=scores))
    return Fit.load(folder), scores


@pytest.fixture(scope="module")
def table(world):
    return FeatureTable(world.features, world.image_ids)


@pytest.fixture(scope="module")
def fit_and_scores(world, tmp_path_factory):
    return make_fit(tmp_path_factory.mktemp("report") / "fit", world, simulation=True)


@pytest.fixture(scope="module")
def report(fit_and_scores, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, fit_and_scores[0], ReportOptions(features=table, n_top=3))
    return path


def test_a_report_is_one_well_formed_file_that_loads_nothing(report):
    page = Page(report.read_text(encoding="utf-8"))
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "data")]
    assert sources
    loaded = [
        value for value in sources if not value.startswith("data:text/tab-separated-values;")
    ]  # saved, on a click
    assert all(value.startswith(("data:image/", "#")) for value in loaded)
    assert "url(" not in report.read_text(encoding="utf-8")
    assert all(value for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert report.stat().st_size < 5e6
    assert list(report.parent.iterdir()) == [report]


def test_a_report_says_the_numbers_of_the_fit(report, fit_and_scores, table):
    fit, scores = fit_and_scores
    page = Page(report.read_text(encoding="utf-8"))
    assert f"{np.nanmean(scores['ev']):.3f}" in page.text
    assert "SIMULATION" in page.text
    assert "Voxelwise encoder (bayesian-ridge) from 30 images" in page.text
    cells = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in _section(report, "Regions").split("<tr>")[2:]]
    expected = summarize_rois({"ev": scores["ev"]}, fit.rois)
    assert [row[0] for row in cells] == expected["roi"].tolist()
    assert [row[2] for row in cells] == [f"{mean:.3f}" for mean in expected["ev_mean"]]
    maps = _section(report, "Maps")
    assert len(re.findall("<img", maps)) == 6
    hidden = share_in_cuts(scores["ev"], fit.space)
    assert f"laid flat, with the front on the outside. {hidden:.1%} of the vertices" in maps
    first = rank_images(fit.encoder, table, fit.rois, 3)["image"].iloc[0]
    assert first in page.text
    assert all(name in page.text for name in fit.context)
    methods = Page(_section(report, "Methods"))
    said = fit.methods()
    assert all(part in methods.text for part in (*said.paragraphs, *said.references))
    assert all(part in methods.text for part in (str(said), said.markdown(), said.latex(), said.bibtex()))
    assert f"{fit.space.n_voxels} of {fit.space.included.size} in the mask" in _section(report, "Voxels")


def test_figures_and_tables_have_places_to_link_to_and_tables_can_be_saved(report, fit_and_scores):
    fit, scores = fit_and_scores
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    places = [value for _, name, value in page.attributes if name == "id"]
    assert len(places) == len(set(places))
    assert {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")} == set(places)
    for kind in ("Figure", "Table"):
        numbers = [int(number) for number in re.findall(rf">{kind} (\d+)</a>", text)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= 3
    saved = re.findall(r'download="([^"]+)" href="data:text/tab-separated-values;charset=utf-8;base64,([^"]+)"', text)
    tables = {name: pd.read_csv(io.BytesIO(base64.b64decode(content)), sep="\t") for name, content in saved}
    whole = tables["sub-01_regions-table-1.tsv"].iloc[0]
    assert whole["EV of measured responses"] == pytest.approx(np.nanmean(scores["ev"]))
    # Peaks, by the values and places of the voxels themselves.
    best = np.nanargmax(scores["ev"])
    peak = tables["sub-01_peaks-table-1.tsv"].iloc[0]
    assert peak["EV of measured responses"] == pytest.approx(scores["ev"][best], abs=1e-6)
    np.testing.assert_allclose(peak[["x", "y", "z"]].astype(float), fit.space.coordinates()[best])
    inside = np.flatnonzero(fit.rois["FFA"])
    ffa = tables["sub-01_peaks-table-2.tsv"].set_index("region").loc["FFA"]
    assert ffa["EV of measured responses"] == pytest.approx(scores["ev"][inside].max(), abs=1e-6)
    n_images = fit.config["n_left_out"]
    (limit,) = re.findall(rf"correlation over {n_images} images is above (\d.\d\d)", _section(report, "Peaks"))
    p = stats.pearsonr(*correlated(n_images, float(limit)), alternative="greater").pvalue
    assert p == pytest.approx(0.001, rel=0.2)  # the limit has two digits


def test_a_viewer_is_shown_on_request_in_a_frame_that_sees_nothing(fit_and_scores):
    fit, scores = fit_and_scores
    assert _viewer(fit, scores, ReportOptions()) is None
    assert _viewer(fit, scores, ReportOptions(interactive=True, in_mni=False)) is None
    data = _viewer(fit, scores, ReportOptions(interactive=True))
    page = Page(render_page("a", "b", [Section("Look around", "fit/viewer.html", data)]))
    assert "script" not in page.tags
    frame = {name: value for tag, name, value in page.attributes if tag == "iframe"}
    assert frame["sandbox"] == "allow-scripts"  # of no origin: it reads neither this page nor what a browser keeps
    assert not re.search(r"<(?:script|link(?! rel=.icon)|img)[^>]+(?:src|href)=[\"']https?:", frame["srcdoc"])
    assert "brainsprite" in frame["srcdoc"]


def test_figures_and_tables_are_written_as_files_on_request(tmp_path):
    table = pd.DataFrame({"region": ["a"], "EV": [1 / 3]})
    figure = new_figure(2, 1)
    sections = [
        Section("One", "comparison/map.html", {"figure": figure, "names": "ab"}),
        Section("Two", "identification/regions.html", {"table": table}),
    ]
    page, folder = tmp_path / "pages" / "r.html", tmp_path / "some figures"
    page.parent.mkdir()
    write_page(page, "sub-01", "", sections, figures=folder)
    link = re.findall('href="([^"#]+[.]png)"', page.read_text(encoding="utf-8"))
    assert link == ["../some%20figures/sub-01_one-figure-1.png"]
    with Image.open(page.parent / unquote(link[0])) as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
    assert pd.read_csv(folder / "sub-01_two-table-1.tsv", sep="\t").equals(table)
    with pytest.raises(OutputError, match="holds an earlier result"):
        write_page(page, "sub-01", "", sections, figures=folder)
    write_page(page, "sub-01", "", sections[1:], figures=folder, overwrite=True)
    assert [path.name for path in folder.glob("*-*")] == ["sub-01_two-table-1.tsv"]


def correlated(n, r):
    """Two samples whose correlation is r."""
    a, b = np.linalg.qr(np.random.default_rng(0).standard_normal((n, 3)))[0].T[:2]
    a, b = (x - x.mean() for x in (a, b))
    b -= a * (a @ b) / (a @ a)
    return a, r * a / np.linalg.norm(a) + np.sqrt(1 - r**2) * b / np.linalg.norm(b)


def _section(path, heading):
    (found,) = re.findall(rf"<h2>{heading}</h2>(.*?)</section>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return found


def test_reports_are_reproducible(fit_and_scores, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, fit_and_scores[0], ReportOptions(in_mni=False))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_report_shows_what_is_better_than_chance(fit_and_scores, tmp_path):
    fit, scores = fit_and_scores
    n = fit.space.n_voxels
    q = np.where(np.arange(n) < n // 4, 0.01, 0.5)
    tested = {"ev": scores["ev"], "p": q / 4, "q": q, "pfamilywise": np.where(np.arange(n) < 3, 0.01, 1.0)}
    table = summarize_rois({"r": scores["r"]}, fit.rois)
    table["r_p"] = np.linspace(0.001, 0.2, len(table))
    hemisphere = np.zeros(10_242, dtype=bool)
    hemisphere[:n] = True
    surface = VoxelSpace(np.ones(n, dtype=bool), surface=Surface(hemisphere, np.zeros(0, dtype=bool), "fsaverage5"))
    for space in (fit.space, surface):
        section = better_than_chance(replace(fit, space=space), tested, None)
        assert [section[name] is not None for name in ("p", "q")] == [True, True]
        assert (section["n_found"], section["n_family"], section["n_tested"]) == (n // 4, 3, n)
    (tmp_path / "s").mkdir()
    table.to_csv(tmp_path / "s" / "scores.tsv", sep="\t", index=False)
    write_maps(tmp_path / "s", fit.config["prefix"], tested, fit.space)
    write_report(tmp_path / "r.html", fit, ReportOptions(scores=tmp_path / "s", in_mni=False))
    page = _section(tmp_path / "r.html", "Better than chance")
    assert f"{n // 4} of {n} voxels are predicted better than chance" in page
    assert page.count("data:image/png") == 2
    ffa = int(fit.rois["FFA"].sum()), int((q < 0.05)[fit.rois["FFA"]].sum())
    p_ffa = table.set_index("roi").loc["FFA", "r_p"]
    assert f"<td>FFA</td><td>{ffa[0]}</td><td>{ffa[1]}</td><td>{p_ffa:.3f}</td>" in page
    assert better_than_chance(fit, scores, None) is None


def test_names_are_shown_and_never_run(world, table, tmp_path):
    person = world.people[0]
    names = np.char.add(world.image_ids, EVIL)
    rois = {EVIL: person.rois["FFA"]}
    fit, _ = make_fit(tmp_path / "fit", world, EVIL, rois=rois, features_provenance={"backbone": EVIL, EVIL: [EVIL]})
    (tmp_path / "fit" / "context.txt").write_text(f"{EVIL}\n", encoding="utf-8")
    path = tmp_path / "report.html"
    write_report(path, Fit.load(fit.path), ReportOptions(features=FeatureTable(table.features, names)))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "iframe"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert EVIL not in text
    assert page.text.count(EVIL) >= 6  # title, heading, region (twice), features, context
    table = pd.DataFrame({EVIL: [EVIL]})
    write_page(path, EVIL, EVIL, [Section(EVIL, "identification/regions.html", {"table": table})], [EVIL], {EVIL: EVIL})
    text = path.read_text(encoding="utf-8")
    assert not Page(text).tags & {"script", "img"}
    assert EVIL not in text
    assert Page(text).text.count(EVIL) == 10  # title, h1, subtitle, note, tile (2), link, h2, table (2)


def test_preferred_images_are_those_of_the_predictions(fit_and_scores, table):
    fit = fit_and_scores[0]
    rois = {"FFA": fit.rois["FFA"], "none": np.zeros(fit.space.n_voxels, dtype=bool)}
    ranked = rank_images(fit.encoder, table, rois, n_top=5)
    predicted = fit.encoder.predict(table.features)[:, fit.rois["FFA"]].mean(axis=1)
    best = np.argsort(-predicted)[:5]
    assert ranked["image"].tolist() == table.image_ids[best].tolist()
    np.testing.assert_allclose(ranked["response"], predicted[best], rtol=1e-4)
    assert set(ranked["roi"]) == {"FFA"}
    # The simulated face region prefers simulated faces.
    assert ranked["image"].str.startswith("face").mean() > 2 * np.char.startswith(table.image_ids, "face").mean()
    with pytest.raises(InputError, match="columns"):
        rank_images(fit.encoder, FeatureTable(np.ones((2, 3)), np.array(["a", "b"])), rois)


def test_thumbnails_are_found_by_name_and_bad_files_are_counted(fit_and_scores, table, tmp_path):
    fit = fit_and_scores[0]
    first, second = rank_images(fit.encoder, table, {"all": np.ones(fit.space.n_voxels, dtype=bool)}, 2)["image"]
    folder = tmp_path / "images" / "sub"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(folder / f"{first}.png")
    (folder / f"{second}.png").write_bytes(b"\x89PNG damaged")
    thumbnails = Thumbnails.of(tmp_path / "images")
    with Image.open(io.BytesIO(thumbnails.get(first))) as small:
        assert (small.size, small.format) == ((144, 144), "JPEG")
        assert small.getpixel((70, 70))[0] > 240
    assert thumbnails.get(f"{first}.jpg") == thumbnails.get(first)
    assert thumbnails.get("elsewhere") is None
    write_report(
        tmp_path / "r.html", fit, ReportOptions(features=table, images=tmp_path / "images", n_top=2, in_mni=False)
    )
    page = _section(tmp_path / "r.html", "Preferred images")
    assert "data:image/jpeg" in page
    assert "image files could not be read" in page


def test_maps_of_every_space_come_back(fit_and_scores, rng, tmp_path):
    fit, scores = fit_and_scores
    read = read_maps(fit.path, fit.config["prefix"], fit.space)
    np.testing.assert_array_equal(read["ev"], scores["ev"].astype("f4"))
    included = np.array([True, False, True, True])
    surface = VoxelSpace(included, surface=Surface(np.array([True, True, False]), np.array([True, True])))
    for name, space in {"surface": surface, "plain": VoxelSpace(included)}.items():
        (tmp_path / name).mkdir()
        write_maps(tmp_path / name, "sub-01", {"ev": np.array([0.1, np.nan, 0.3])}, space)
        np.testing.assert_allclose(read_maps(tmp_path / name, "sub-01", space)["ev"], [0.1, np.nan, 0.3])
    (tmp_path / "other").mkdir()
    shifted = VoxelSpace(fit.space.included, fit.space.mask, fit.space.affine + np.eye(4, k=3))
    write_maps(tmp_path / "other", fit.config["prefix"], {"ev": scores["ev"]}, shifted)
    with pytest.raises(InputError, match="another grid"):
        write_report(tmp_path / "r.html", fit, ReportOptions(scores=tmp_path / "other"))
    with pytest.raises(InputError, match="holds no"):
        write_report(tmp_path / "r.html", fit, ReportOptions(scores=tmp_path / "plain"))
    assert not (tmp_path / "r.html").exists()


def test_a_report_warns_of_what_spoils_a_fit(world, tmp_path):
    fit, scores = make_fit(tmp_path / "fit", world, n_context=10, n_left_out=12)
    poor = {"ev": -scores["ev"] - 1, "noiseceiling": np.zeros_like(scores["ev"])}
    lines = " ".join(find_warnings(fit, poor))
    for part in (
        "rests on 10 images",
        "no better than their mean",
        "left 12 images",
        "100% of the voxels have a noise",
    ):
        assert part in lines
    lines = " ".join(find_warnings(fit, {}))
    assert "accuracy on new images is unknown" in lines
    assert "No image was repeated" in lines
    assert "SIMULATION" not in lines
    space = VoxelSpace(np.arange(fit.space.n_voxels + 1) > 0)
    excluded = replace(fit, space=space)
    assert "1 of" in find_warnings(excluded, scores)[0]


@pytest.mark.parametrize("kind", ["no grid", "no scores"])
def test_a_fit_without_maps_still_gets_a_report(kind, rng, tmp_path):
    X, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 4))
    encoder = RidgeEncoder().fit(X, y)
    space = VoxelSpace(np.ones(4, dtype=bool))
    (tmp_path / "fit").mkdir()
    config = {"subject": "sub-x", "prefix": "sub-x", "zscore": "none", "features_provenance": {}}
    maps = {"ev": -np.arange(4.0)} if kind == "no grid" else {}
    write_fit(tmp_path / "fit", Fit(encoder, space, {}, config, ["a", "b"], kept_maps=maps))
    write_report(tmp_path / "r.html", Fit.load(tmp_path / "fit"))
    assert "Maps" not in Page((tmp_path / "r.html").read_text(encoding="utf-8")).words


@pytest.fixture(scope="module")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.skip(f"no browser to look at the page with: none of {', '.join(names)} is installed")
    return found


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_sideways_scrolling(chromium, report, tmp_path, width):
    # The page in a frame of that width: browsers have a least width for windows, not for frames.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe width={width} height=800 style="border:0" srcdoc="'
        f'{html.escape(report.read_text(encoding="utf-8"))}"></iframe><script>\n'
        'document.querySelector("iframe").onload = event => { const page = event.target.contentDocument;\n'
        "const root = page.documentElement; document.body.dataset.excess = root.scrollWidth - root.clientWidth;\n"
        "document.body.dataset.broken = [...page.images].filter(image => !image.naturalWidth).length; }</script>",
        encoding="utf-8",
    )
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [chromium, "--headless", "--no-sandbox", *quiet, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    body = re.search(r"<body[^>]*>", done.stdout)[0]
    assert 'data-excess="0"' in body
    assert 'data-broken="0"' in body


def rewrite(fit, **maps):
    """The fit's folder with other maps."""
    write_maps(fit.path, fit.config["prefix"], maps, fit.space)


@pytest.mark.parametrize("highest", [0.4, 0.99, 1.02, 3.0])
def test_ev_over_ceiling_above_one_is_explained_where_it_shows(world, tmp_path, highest):
    fit, _ = make_fit(tmp_path / "fit", world)
    rewrite(fit, evnormalized=np.where(np.arange(fit.space.n_voxels) == 5, highest, 0.2))
    write_report(tmp_path / "r.html", fit, ReportOptions(in_mni=False))
    assert "the ratio of a single voxel can exceed 1" in _section(tmp_path / "r.html", "Regions")
    assert "both are estimates, so it can exceed 1" in _section(tmp_path / "r.html", "Maps")
    sidecar = (fit.path / "sub-01_task-simulated_stat-evnormalized_statmap.json").read_text(encoding="utf-8")
    assert "it can exceed 1" in sidecar


def test_a_fit_without_ceilings_has_no_ratio_to_explain(world, tmp_path):
    fit, _ = make_fit(tmp_path / "fit", world)
    for name in ("evnormalized", "rnormalized", "noiseceiling"):
        (fit.path / f"sub-01_task-simulated_stat-{name}_statmap.nii.gz").unlink()
    write_report(tmp_path / "r.html", fit, ReportOptions(in_mni=False))
    assert "can exceed 1" not in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("simulation", [True, False])
def test_ev_says_of_which_responses_where_two_kinds_exist(world, tmp_path, simulation):
    fit, _ = make_fit(tmp_path / "fit", world, simulation=simulation)
    write_report(tmp_path / "r.html", fit, ReportOptions(in_mni=False))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert ("<dt>mean EV of measured responses</dt>" in page) is simulation
    assert ("<dt>mean EV</dt>" in page) is not simulation
    assert ("<th>EV of measured responses</th>" in page) is simulation


def test_constant_left_out_responses_are_told_not_scored(world, tmp_path):
    fit, scores = make_fit(tmp_path / "fit", world)
    unknown = np.full(fit.space.n_voxels, np.nan)
    rewrite(fit, **dict.fromkeys(scores, unknown))
    write_report(tmp_path / "r.html", fit, ReportOptions(in_mni=False))
    assert "constant in every voxel" in (tmp_path / "r.html").read_text(encoding="utf-8")
