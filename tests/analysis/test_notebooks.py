"""Every notebook, converted as a user would convert it and run in a kernel of its own: a figure must be seen there."""

import ast
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from braincorl.analysis import plot_mosaic
from braincorl.analysis.figures import new_figure, plot_accuracy

FOLDER = Path(__file__).resolve().parent.parent.parent / "analysis"


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom_and_show_their_figures(notebook, tmp_path, monkeypatch):
    cells = run_in_kernel(notebook.read_text(encoding="utf-8"), tmp_path, monkeypatch)
    drawn = [cell for cell in cells if ends_in_figure(cell.source)]
    assert [kinds(cell) >= {"image/png"} for cell in drawn] == [True] * len(drawn)
    assert notebook.name in ("fit_a_person.py", "what_it_learned.py", "words.py") or drawn
    printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "<Figure" not in printed


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
            assert make()._repr_png_().startswith(b"\x89PNG"), name


def test_every_notebook_is_listed():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({notebook.name})" in readme for notebook in FOLDER.glob("*.py"))


def run_in_kernel(text, folder, monkeypatch):
    """Code cells of a percent-format notebook with their outputs; a warning in them is an error."""
    why = "is in the extra 'notebooks' (uv sync installs it)"
    jupytext = pytest.importorskip("jupytext", reason=f"jupytext, the converter, {why}")
    nbclient = pytest.importorskip("nbclient", reason=f"nbclient, the runner, {why}")
    pytest.importorskip("ipykernel", reason=f"ipykernel {why}")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    strict = "# %%\nimport warnings\n\nwarnings.simplefilter('error')\n\n"
    notebook = jupytext.reads(strict + text, fmt="py:percent")
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources=resources).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def ends_in_figure(source):
    """Whether a cell's last line is a figure: the variable, or a call of a function that draws one."""
    *_, last = ast.parse(source).body or [None]
    value = last.value if isinstance(last, ast.Expr) else None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id.startswith("plot_") or value.func.id == "new_figure"
    return isinstance(value, ast.Name) and value.id == "figure"


def kinds(cell):
    return {kind for output in cell.outputs for kind in output.get("data", {})}
