"""Commands and code of README, site and cards: run here or by a neighbour, or named here with the reason why not."""

import doctest
import os
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest
from desk import lay_recipes, run

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "analysis/README.md")),
    *(path for kind in ("docs/*.md", "docs/reference/*.md", "docs/results/*.md") for path in sorted(ROOT.glob(kind))),
    *(path for kind in ("datasets/*.md", "encoders/*.md", "encoders/*/README.md") for path in sorted(ROOT.glob(kind))),
]
# Pages whose `sh` blocks are run from top to bottom: by test_readme.py, test_pages.py, and here.
RUN = ("README.md", "docs/encoders_and_data.md", "docs/tutorial.md", "docs/how_to.md")
# What is not run, by how it begins, and why; the first that fits counts.
NOT_RUN = {
    "uv run braincorl demo": "CI runs it before the tests, on the whole person",
    "braincorl demo": "the same",
    "uv run pytest": "CI itself",
    "ALL_TESTS=1 uv run pytest": "CI itself",
    "uv run ruff": "CI itself",
    "bash .ci/run": "CI itself",
    "uv run --group docs sphinx-build": "CI itself",
    "uv run --with pre-commit": "writes a hook into the clone; what the hook runs, CI runs",
    "pip install": "a package index",
    "uv venv": "a package index",
    "uv run --with gradio": "a package index",
    "python -m venv": "a package index",
    "conda create": "conda, and a package index",
    "docker build": "a container engine; its steps are looked at by tests/cohort/test_bids_app.py",
    "apptainer": "a container engine",
    "sbatch": "a queue; the script is parsed by tests/cohort/test_bids_app.py",
    "uv run python benchmarks/": "minutes to hours, some of them on real data that are not part of the project",
    "python benchmarks/house.py": "counts the code, and is nobody's result",
    "uv run python docs/": "draws the pictures of the pages again, a minute of simulations",
    "jupytext": "the build of the site runs every notebook",
    "braincorl cohort derivatives --features features.npz --output-dir cohort --cluster": "tests/cohort/test_workers.py",
    "braincorl cohort derivatives --features features.npz --output-dir cohort --scheduler": "tests/cohort/test_workers.py",
    "braincorl data fetch": "a bucket; tests/cli/test_data_fetch.py has a local one",
    "braincorl train encoders/published/recipe.toml": "minutes; README's RECIPE.toml is trained, in small",
}
PROGRAMS = re.compile(r"(?:braincorl|uv|pip|python|docker|apptainer|sbatch|conda|jupytext|git)(?:-bids)? ")


def typed(text, languages=("sh", "text")):
    """Commands of blocks in these languages and of indented code, whole and without comments."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    code = [line for _, language, block in blocks if language in languages for line in block.split("\n")]
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    code += [line.strip() for line in outside.splitlines() if "sh" in languages and line.startswith("    ")]
    whole = "\n".join(code).replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line.partition(" #")[0]).strip() for line in whole.splitlines()]
    return [part for line in lines for part in line.split(" && ") if PROGRAMS.match(part)]


def reason(command):
    """Why a command is not run, if it is not."""
    return next((begin for begin in NOT_RUN if command.startswith(begin)), None)


def test_every_command_of_a_block_is_run_or_has_a_reason():
    used, left = set(), []
    for path in PAGES:
        page = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        for command in typed(text):
            used.add(reason(command))
            if reason(command) is None and not (page in RUN and command in typed(text, ("sh",))):
                left.append((page, command))
    assert left == []
    assert used - {None} == set(NOT_RUN)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A folder with everything that recipes and cards name."""
    folder = tmp_path_factory.mktemp("kitchen")
    lay_recipes(folder)
    return folder


# What the small people lack: forty sessions, and cores for workers.
IN_SMALL = {
    ("data", "prepare"): ["--sessions", "1-3"],
    ("cohort",): ["--n-workers", "1"],
}


def test_recipes_run(kitchen, tmp_path, monkeypatch):
    """Each in a copy of the folder, so that none stands on another."""
    text = (ROOT / "docs" / "how_to.md").read_text(encoding="utf-8")
    done = 0
    for number, recipe in enumerate(text.split("\n## ")[1:]):
        here = tmp_path / str(number)
        shutil.copytree(kitchen, here, copy_function=os.link)
        monkeypatch.chdir(here)
        for command in typed(recipe, ("sh",)):
            if reason(command):
                continue
            program, *words = shlex.split(command)
            for option in ("--output-dir", "--output"):
                if option in words and Path(words[words.index(option) + 1]).exists():
                    remove(Path(words[words.index(option) + 1]))
            more = next((more for begin, more in IN_SMALL.items() if tuple(words[: len(begin)]) == begin), [])
            run(program, *words, *more)
            done += 1
    assert done > 20


def remove(path):
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


MODULES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "braincorl").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_give_what_they_say(name):
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
