"""What a stranger relies on beside the code: CI, citation, types, and a map of the rooms that is true."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import braincorl

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_ci_runs_what_the_readme_says_on_every_python_that_is_supported():
    job = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["everything"]
    assert any(step.get("run") == "bash .ci/run" for step in job["steps"])
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert job["strategy"]["matrix"]["python"] == named


def test_releases_need_no_token():
    job = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["publish"]
    assert job["permissions"]["id-token"] == "write"
    assert "password" not in str(job)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (braincorl.__version__, PROJECT["project"]["license"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_forms_are_forms(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= form.keys()


def test_types_are_shipped():
    assert (Path(braincorl.__file__).parent / "py.typed").is_file()


def test_every_room_stands_in_the_picture():
    picture = CONTRIBUTING.split("```text\n")[1].split("```")[0]
    rooms = {folder.name for folder in (ROOT / "braincorl").iterdir() if (folder / "__init__.py").is_file()}
    assert rooms - set(re.findall(r"(\w+)/", picture)) == set()


def test_slow_tests_are_left_out_unless_asked_for():
    assert "export ALL_TESTS=1" in (ROOT / ".ci/run").read_text()
    assert "ALL_TESTS=1 uv run pytest" in CONTRIBUTING


def where():
    table = CONTRIBUTING.split("## Where do I change")[1].split("\n## ")[0]
    return re.findall(r"`([a-z_]+/[^`]*?)`", table)


@pytest.mark.parametrize("place", sorted(set(where())))
def test_where_to_change_things_is_there(place):
    path, _, name = place.partition(": ")
    assert (ROOT / path).exists() or (ROOT / "braincorl" / path).exists()
    if name:
        found = next(base / path for base in (ROOT, ROOT / "braincorl") if (base / path).exists())
        assert re.search(rf"^(def|class) {re.escape(name)}\b|^{re.escape(name)}\b.*=", found.read_text(), re.MULTILINE)


def test_every_kind_of_mishap_names_its_tests():
    rows = re.findall(r"^\| (\d+) .*\|$", (ROOT / "tests/README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(row) for row in rows] == list(range(1, 39))
    for row in re.findall(r"^\| \d+ .*\|$", (ROOT / "tests/README.md").read_text(encoding="utf-8"), re.MULTILINE):
        places = re.findall(r"`(tests/[^`]*)`", row)
        assert places, row
        assert all((ROOT / place).is_file() for place in places), row


def test_no_two_test_files_bear_one_name():
    """Without packages, pytest imports them by name alone, and one of two would not be collected."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
