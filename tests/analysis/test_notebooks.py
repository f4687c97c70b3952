"""The site's build runs every notebook in a kernel of its own (`docs/tools/notebooks.py`); here it is held to that."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from braincorl.analysis import plot_mosaic
from braincorl.analysis.figures import new_figure, plot_accuracy

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "analysis"
sys.path.insert(0, str(ROOT / "docs"))

SHOWN = (
    "# %% [markdown]\n# # One figure\n\n# %%\nfrom braincorl.analysis.figures import new_figure\n\nnew_figure(3, 2)\n"
)
PRINTED = "# %%\nfrom braincorl.analysis.figures import new_figure\n\nprint([new_figure(3, 2)])\n"
UNSEEN = "# %%\nfrom matplotlib.figure import Figure\n\nfigure = Figure()\nfigure\n"
WARNING = "# %%\nimport warnings\n\nwarnings.warn('a warning')\n"


@pytest.fixture(scope="module")
def notebooks():
    for package in ("jupytext", "nbclient", "ipykernel"):
        pytest.importorskip(package, reason=f"{package} is in the extra 'notebooks' (uv sync installs it)")
    from tools import notebooks

    return notebooks


def test_a_figure_is_seen_in_a_kernel(notebooks, tmp_path):
    source = tmp_path / "shown.py"
    source.write_text(SHOWN, encoding="utf-8")
    notebook = notebooks.run(source)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code"]
    assert notebooks.kinds(notebook.cells[1]) >= {"image/png"}


@pytest.mark.parametrize(
    ("text", "fault"), [(PRINTED, "printed as text"), (UNSEEN, "no image/png"), (WARNING, "a warning")]
)
def test_what_a_notebook_may_not_do_ends_the_build(text, fault, notebooks, tmp_path):
    source = tmp_path / "faulty.py"
    source.write_text(text, encoding="utf-8")
    with pytest.raises(notebooks.NotebookError, match=fault):
        notebooks.run(source)


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_notebooks_draw_figures_that_the_build_looks_for(notebook, notebooks):
    cells = notebooks.read(notebook.read_text(encoding="utf-8")).cells
    drawn = [cell for cell in cells if cell.cell_type == "code" and notebooks.ends_in_figure(cell.source)]
    assert notebook.name in ("fit_a_person.py", "what_it_learned.py", "words.py") or drawn


def test_ci_builds_the_site_and_with_it_the_notebooks():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "sphinx-build -M html docs docs/_build -W" in ci
    assert "run_notebooks" not in ci


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_a_figure_shows_itself_without_pyplot(style, world):
    space = world.people[0].space
    figures = {
        "new_figure": lambda: new_figure(3, 2),
        "plot_accuracy": lambda: plot_accuracy(np.linspace(0, 1, 50)),
        "plot_mosaic": lambda: plot_mosaic(np.ones(space.n_voxels), space, n_slices=1),
    }
    with plt.style.context(style):
        for name, make in figures.items():
            picture, size = make()._repr_png_()
            assert picture.startswith(b"\x89PNG"), name
            assert size["width"] > 100


def test_every_notebook_is_listed():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({notebook.name})" in readme for notebook in FOLDER.glob("*.py"))
