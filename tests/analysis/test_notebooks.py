from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent.parent / "analysis"


@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    exec(compile(notebook.read_text(encoding="utf-8"), notebook.name, "exec"), {})


def test_every_notebook_is_listed():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"({notebook.name})" in readme for notebook in FOLDER.glob("*.py"))
