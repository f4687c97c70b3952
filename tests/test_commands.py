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
from layouts import TinyBids, TinyBold5000

from braincorl.datasets import load_prepared

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "analysis/README.md")),
    *(path for kind in ("docs/*.md", "docs/reference/*.md", "docs/results/*.md") for path in sorted(ROOT.glob(kind))),
    *(path for kind in ("datasets/*.md", "encoders/*.md", "encoders/*/README.md") for path in sorted(ROOT.glob(kind))),
]
# Pages whose `sh` blocks are run from top to bottom: by test_readme.py, test_pages.py, and here.
RUN = ("README.md", "docs/encoders_and_data.md", "docs/tutorial.md", "docs/how_to.md")
COHORT = "braincorl cohort derivatives --features features.npz --output-dir cohort"
BLOCKS = "braincorl cohort people.tsv --features features.npz --encoder bayesian-ridge"
# What is not run, by how it begins, and why; the first that fits counts.
NOT_RUN = {
    "uv run braincorl demo": "CI runs it before the tests, on the whole person",
    "braincorl demo": "the same",
    "uv run pytest": "CI itself",
    "ALL_TESTS=1 uv run pytest": "CI itself",
    "uv run ruff": "CI itself",
    "uv run mypy": "CI itself",
    "uv run lint-imports": "CI itself",
    "bash .ci/run": "CI itself",
    "uv run --group docs sphinx-build": "CI itself",
    "uv run --with pre-commit": "writes a hook into the clone; what the hook runs, CI runs",
    "pip install": "a package index",
    "uv venv": "a package index",
    "uv pip install": "a package index",
    "python -m venv": "a package index",
    "conda activate": "conda",
    "conda create": "conda, and a package index",
    "docker build": "a container engine; its steps are looked at by tests/cohort/test_bids_app.py",
    "apptainer": "a container engine",
    "sbatch": "a queue; the script is parsed by tests/cohort/test_bids_app.py",
    "uv run python benchmarks/": "minutes to hours, some of them on real data that are not part of the project",
    "python benchmarks/house.py": "counts the code, and is nobody's result",
    f"{COHORT} --cluster": "a queue; tests/cohort/test_workers.py has a fake one",
    f"{BLOCKS} --voxels-per-task": "prepared people of many voxels; tests/cohort/test_blocks.py has small ones",
    f"{COHORT} --scheduler": "a running scheduler; tests/cohort/test_workers.py has one",
    "braincorl data fetch": "a bucket; tests/cli/test_data_fetch.py has a local one",
    "braincorl train encoders/published/recipe.toml": "minutes; README's RECIPE.toml is trained, in small",
}
# Commands in which … stands for one's own files, and what it stands for here.
COMPLETED = {
    "braincorl fit … --encoder group-prior --prior bold5000-resnet18": "--features resnet.npz --betas betas.nii.gz "
    "--trials trials.tsv --mask mask.nii.gz --n-context 20 --output-dir new",
}
FENCED = re.compile(r"^ *```.*?^ *```", flags=re.DOTALL | re.MULTILINE)
PROGRAMS = re.compile(
    r"(?:[A-Z_]+=1 )?(?:braincorl|bash|uv|pip|python|docker|apptainer|sbatch|conda|jupytext|git)(?:-bids)? "
)


# Commands that the cards give within their text, and the test that runs each on files that it writes.
HELD = {
    "braincorl data check": "tests/cli/test_data.py",
    "braincorl data prepare nsd": "tests/cli/test_data.py",
    "braincorl data prepare bold5000": "tests/test_commands.py",
    "braincorl data prepare bids": "tests/test_commands.py",
    "braincorl data prepare laion-fmri": "tests/datasets/test_laion_fmri.py",
    "braincorl data split laion-fmri": "tests/datasets/test_laion_fmri.py",
    "braincorl data prepare mosaic": "tests/datasets/test_mosaic.py",
    "braincorl data split mosaic": "tests/datasets/test_mosaic.py",
    "braincorl prior MOSAIC/fits/* --places": "tests/cli/test_prior.py",
    "braincorl fit … --checkpoint": "tests/cli/test_every_encoder.py",
}


def typed(text, languages=("sh", "text")):
    """Commands of blocks in these languages and of indented code, whole and without comments."""
    blocks = re.findall(r"^( *)```(\w*)\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    code = [line for _, language, block in blocks if language in languages for line in block.split("\n")]
    code += [line.strip() for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    whole = "\n".join(code).replace("\\\n", " ")
    lines = [re.sub(r"\s+", " ", line.partition(" #")[0]).strip() for line in whole.splitlines()]
    return [part for line in lines for part in line.split(" && ") if PROGRAMS.match(part)]


def told(text):
    """Whole commands of `braincorl` within the text."""
    found = re.findall(r"`(braincorl [a-z]+ [^`]+)`", FENCED.sub("", text))
    return [re.sub(r"\s+", " ", command) for command in found]


def reason(command):
    """Why a command is not run, if it is not."""
    return next((begin for begin in NOT_RUN if command.startswith(begin)), None)


def test_every_command_is_run_or_has_a_reason():
    """Those of blocks on every page, and those within the text of cards."""
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    run_here = {command for page in RUN for command in typed(texts[page], ("sh",)) if not reason(command)}
    found = {command for text in texts.values() for command in typed(text)}
    found |= {c for page, text in texts.items() if page.startswith(("datasets/", "encoders/")) for c in told(text)}
    begins = {
        command: [*filter(command.startswith, [*NOT_RUN, *HELD])] for command in found - run_here - set(COMPLETED)
    }
    assert [command for command, known in begins.items() if not known] == []
    assert {known[0] for known in begins.values()} == {*NOT_RUN, *HELD}
    for begin, path in HELD.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in begin.split()[1:] if word.isalpha() or word[:2] == "--"), begin


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
    ("betas",): ["--n_cpus", "1", "--skip-bids-validation"],
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


def test_commands_that_leave_files_to_the_reader_run(kitchen, monkeypatch):
    monkeypatch.chdir(kitchen)
    for command, files in COMPLETED.items():
        program, *words = shlex.split(command.replace("…", files))
        run(program, *words, *(("--overwrite",) if Path("new").exists() else ()))


def remove(path):
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(("kind", "make", "subject"), [("bold5000", TinyBold5000, "2"), ("bids", TinyBids, "ab")])
def test_people_of_the_cards_are_prepared(kind, make, subject, tmp_path):
    make(tmp_path / "ROOT")
    run("braincorl", "data", "prepare", kind, tmp_path / "ROOT", "--subject", subject, "--output", tmp_path / "p.h5")
    assert load_prepared(tmp_path / "p.h5").responses.size


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
