"""Figures look the same whatever matplotlib style the user has set."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from braincorl.analysis import plot_glass_brain, plot_mosaic, plot_surface
from braincorl.analysis.benchmarking import Benchmark
from braincorl.analysis.figures import new_figure, plot_accuracy, plot_scaling, png_bytes, save_figure
from braincorl.analysis.report.page import Section, render_page

STYLES = {
    "dark": "dark_background",
    "grid": "ggplot",
    "white on nothing": {"text.color": "white", "savefig.transparent": True},
    "huge letters": {"font.size": 40, "lines.linewidth": 12},
    "latex": {"text.usetex": True},
    "layout": {"figure.autolayout": True, "image.origin": "lower", "image.interpolation": "bilinear"},
    "spines": {"axes.spines.left": False, "legend.labelcolor": "white", "axes.prop_cycle": plt.cycler(color=["w"])},
}


@pytest.fixture(scope="module")
def pictures(world, tmp_path_factory):
    person = world.people[0]
    rng = np.random.default_rng(0)
    ev, rois = rng.random(person.space.n_voxels), person.rois
    curve = pd.DataFrame(
        [(name, n, 0, n / 200, n / 150, 0.1) for name in ("ridge", "prior") for n in (10, 20)],
        columns=["encoder", "n_context", "draw", "ev", "r", "seconds"],
    )
    folder = tmp_path_factory.mktemp("style")

    def scaling():
        figure = new_figure(4, 3)
        plot_scaling(figure.subplots(), curve.rename(columns={"ev": "score"}), "EV", 0.5)
        return png_bytes(figure)

    def benchmark():
        return png_bytes(Benchmark("sub-01", "a note", curve, 5).plot())

    def saved():
        save_figure(plot_accuracy(ev), folder / "saved.png")
        return (folder / "saved.png").read_bytes()

    def mosaic():
        return plot_mosaic(ev, person.space, title="title", label="EV", rois=rois, n_slices=2)

    return {
        "scaling": scaling,
        "benchmark": benchmark,
        "saved": saved,
        "accuracy": lambda: png_bytes(plot_accuracy(ev, ev)),
        "mosaic": lambda: mosaic()._repr_png_()[0],
        "page": lambda: render_page(
            "", "", [Section("Map", "comparison/map.html", {"figure": mosaic(), "names": "ab"})]
        ),
        "glass brain": lambda: png_bytes(plot_glass_brain(ev, person.space, title="title", label="EV")),
        "surface": lambda: png_bytes(plot_surface(ev, person.space, title="title", label="EV", views=["lateral"])),
    }


KINDS = ["scaling", "benchmark", "saved", "accuracy", "mosaic", "page", "glass brain", "surface"]


@pytest.mark.parametrize("kind", KINDS)
def test_figures_do_not_depend_on_the_users_style(kind, pictures):
    draw = pictures[kind]
    plain = draw()
    slow = kind in ("glass brain", "surface")
    for name, style in STYLES.items():
        if slow and name not in ("dark", "white on nothing"):
            continue
        with plt.style.context(style):
            own = matplotlib.rcParams["text.color"]
            assert draw() == plain, name
            assert matplotlib.rcParams["text.color"] == own  # the user's style is as it was
