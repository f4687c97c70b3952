"""The notebooks of `analysis/`, run as a user would run them, and the gallery that shows them.

Each is converted, executed in a kernel of its own with warnings as errors, and checked: a cell that ends in a figure
must show one, as image/png. This build is the notebooks' test; `tests/analysis/test_notebooks.py` holds it to that.
"""

import ast
import base64
import hashlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jupytext
import nbclient
import nbformat

from tools.pages import remove_others, write_page

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "analysis"
AT_ONCE = 2  # kernels; each is given one thread
# The kernel's own warnings are none of ours, and as errors they would keep it from ending.
STRICT = (
    "# %%\nimport warnings\n\nwarnings.simplefilter('error')\nwarnings.filterwarnings('ignore', module='ipykernel')\n\n"
)


class NotebookError(Exception):
    """A notebook that does not run, or does not show its figures."""


def write_gallery(app: Any) -> None:
    """Run every notebook that has changed, and write the pages of the gallery."""
    gallery = Path(app.srcdir) / "gallery"
    gallery.mkdir(exist_ok=True)
    sources = sorted(FOLDER.glob("*.py"))
    pages = {source: gallery / f"{source.stem}.ipynb" for source in sources}
    package = digest(*sorted((ROOT / "braincorl").rglob("*.py")))
    todo = [
        source for source, page in pages.items() if app.config.run_notebooks and stamp(page) != key(source, package)
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for source, notebook in zip(todo, pool.map(run, todo), strict=True):
            notebook.metadata["braincorl"] = key(source, package)
            write_page(pages[source], nbformat.writes(notebook))
    for source, page in pages.items():
        if stamp(page) is None:
            write_page(page, nbformat.writes(read(source.read_text(encoding="utf-8"))))
    pictures = {gallery / f"{source.stem}.png": thumbnail(page) for source, page in pages.items()}
    for path, content in pictures.items():
        if content and (not path.exists() or path.read_bytes() != content):
            path.write_bytes(content)
    write_page(gallery / "index.md", index(sources, gallery))
    remove_others(gallery, {gallery / "index.md", *pages.values(), *(p for p, content in pictures.items() if content)})


def read(text: str) -> Any:
    """Percent-format text as a notebook, with cell names that depend on nothing."""
    linked = re.sub(r"\]\((\w+)\.py\)", r"](\1.ipynb)", text)
    notebook = jupytext.reads(linked, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return notebook


def run(source: Path) -> Any:
    """Execute one notebook in a kernel of its own, and check that its figures are seen.

    Returns
    -------
    nbformat.NotebookNode

    Raises
    ------
    NotebookError
        If a cell fails, or a figure does not show.
    """
    notebook = read(STRICT + source.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        surroundings = {**os.environ, "TMPDIR": folder, "IPYTHONDIR": f"{folder}/ipython", "OMP_NUM_THREADS": "1"}
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=600, resources=resources)
        try:
            client.execute(env=surroundings)
        except nbclient.exceptions.CellExecutionError as error:
            raise NotebookError(f"{source.name}: {error}") from error
    del notebook.cells[0]  # what made warnings errors
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the time of day
    faults = unseen_figures(notebook)
    if faults:
        raise NotebookError(f"{source.name}: {'; '.join(faults)}")
    return notebook


def unseen_figures(notebook: Any) -> list[str]:
    """Say what is wrong with the figures of an executed notebook."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    drawn = [cell for cell in code if ends_in_figure(cell.source)]
    faults = [
        f"no image/png below {cell.source.splitlines()[-1]!r}" for cell in drawn if "image/png" not in kinds(cell)
    ]
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    return faults + (["a figure was printed as text"] if re.search(r"<\w*Figure size", printed) else [])


def ends_in_figure(source: str) -> bool:
    """Whether a cell's last line is a figure: the variable, or a call of a function that draws one."""
    *_, last = ast.parse(source).body or [None]
    value = last.value if isinstance(last, ast.Expr) else None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id.startswith("plot_") or value.func.id == "new_figure"
    return isinstance(value, ast.Name) and value.id == "figure"


def kinds(cell: Any) -> set[str]:
    """MIME types that a cell shows."""
    return {kind for output in cell.outputs for kind in output.get("data", {})}


def digest(*paths: Path) -> str:
    """Hash what files hold."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def key(source: Path, package: str) -> str:
    """Name what the outputs of a notebook depend on."""
    return f"{digest(source)[:16]} {package[:16]}"


def stamp(page: Path) -> str | None:
    """Name what the outputs on a page came from, if anything."""
    if not page.exists():
        return None
    return dict(nbformat.read(page, as_version=4).metadata).get("braincorl")


def thumbnail(page: Path) -> bytes | None:
    """First figure of a notebook."""
    for cell in nbformat.read(page, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                return base64.b64decode(output["data"]["image/png"])
    return None


def index(sources: list[Path], gallery: Path) -> str:
    """Page of the gallery: a card per notebook, in the order of `analysis/README.md`, with its line there."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| \[(\w+)\.py\]\(\w+\.py\) \| (.*) \|$", readme, flags=re.MULTILINE))
    missing = {source.stem for source in sources} ^ set(shown)
    if missing:
        raise NotebookError(f"analysis/README.md and the notebooks beside it differ in {', '.join(sorted(missing))}")
    cards = ""
    for name, line in shown.items():
        title = re.search(r"^# # (.*)$", (FOLDER / f"{name}.py").read_text(encoding="utf-8"), flags=re.MULTILINE)
        picture = (
            f":img-top: {name}.png\n:img-alt: First figure of {name}\n" if (gallery / f"{name}.png").exists() else ""
        )
        assert title is not None, name
        cards += f":::{{grid-item-card}} {title[1]}\n:link: {name}\n:link-type: doc\n{picture}\n{line}\n:::\n\n"
    listed = "\n".join(shown)
    return (
        "# Gallery\n\nNotebooks, run by the build of this site. Every person in them is **simulated**. Each page has "
        f"its notebook to download.\n\n::::{{grid}} 1 2 3 3\n:gutter: 3\n\n{cards}::::\n\n"
        f"```{{toctree}}\n:hidden:\n\n{listed}\n```\n"
    )
