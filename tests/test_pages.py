"""Pages of the site: the tutorial runs from top to bottom, and quoted messages are those that the code has."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import yaml

from braincorl.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    names, verbs = {}, []
    for language, code in re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            exec(compile(code, "tutorial.md", "exec"), names)
            continue
        for line in code.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            assert program == "braincorl"
            assert main([*words, "--quiet"]) == 0, words
            verbs.append(words[0])
    assert verbs == ["fit", "report", "score", "predict", "query", "fit", "score", "report", "identify", "report"]
    assert (tmp_path / "sub-01" / "sub-01_stat-ev_statmap.nii.gz").exists()
    assert (tmp_path / "asked" / "accuracy.tsv").exists()
    page = (tmp_path / "spaces" / "report.html").read_text(encoding="utf-8")
    assert all(f"<h2>{section}</h2>" in page for section in ("Feature spaces", "Better than chance"))
    assert "<h2>Which image was seen</h2>" in (tmp_path / "sub-01" / "report.html").read_text(encoding="utf-8")


def messages():
    """Patterns of the first arguments of errors and warnings, anything in place of what is filled in."""
    for path in (ROOT / "braincorl").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if not node_text(node, name) or not (name.endswith("Error") or name == "warning"):
                continue
            yield re.compile(".+?".join(map(re.escape, re.split(r"…|%[sd]", node_text(node, name)))))


def node_text(node, name):
    """Text of a call's first argument, … for what is filled in."""
    first = node.args[0] if name and node.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        return first.value
    parts = first.values if isinstance(first, ast.JoinedStr) else []
    return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)


def test_quoted_messages_are_those_of_the_code():
    quoted = re.findall(r":::\{dropdown\} `(.*)`\n", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(quoted) == 10
    known = [pattern for pattern in messages() if len(pattern.pattern) > 40]
    assert [line for line in quoted if not any(pattern.fullmatch(line) for pattern in known)] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_pages_are_in_the_table_of_contents(page):
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert page.stem == "index" or f"\n{page.stem}\n" in index


def test_python_of_the_recipes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, unique in enumerate((0.1, 0.2, 0.3), start=1):
        (tmp_path / f"sub-0{number}" / "scores").mkdir(parents=True)
        table = f"roi\tn_voxels\tpart\tspace\tmean\tlow\thigh\nall\t9\tunique\tclip\t{unique}\t0\t1\n"
        (tmp_path / f"sub-0{number}" / "scores" / "partition.tsv").write_text(table)
    names = {}
    for code in re.findall(r"```python\n(.*?)```", (DOCS / "how_to.md").read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(code, "how_to.md", "exec"), names)
    assert names["means"]["mean"].item() == pytest.approx(0.2)
    assert "<html" in names["page"].html


RUN = {
    "tutorial",
    "how_to",
    "how_it_works",
    "reference/file_formats",
    "encoders_and_data",
}  # here, or by test_readme.py


def test_every_python_block_of_the_pages_is_run_by_a_test():
    pages = {
        str(path.relative_to(DOCS).with_suffix("")): path for path in [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md")]
    }
    assert {name for name, path in pages.items() if "```python" in path.read_text(encoding="utf-8")} <= RUN


def test_options_of_the_flow_chart_are_those_of_the_table_and_of_fit():
    chart = re.findall(r'class="code"[^>]*>([^<]*)<', (DOCS / "which_encoder.svg").read_text(encoding="utf-8"))
    table = (DOCS / "which_encoder.md").read_text(encoding="utf-8")
    assert len(chart) == 7
    for words in chart:
        assert f"`{words}`" in table
        if words.startswith("--"):
            given = ["fit", "--features", "f", "--betas", "b", "--output-dir", "o", *words.split()]
            build_parser("fit").parse_args(given)


def test_python_of_the_page_on_file_formats_reads_an_encoder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "reference" / "file_formats.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(code, "file_formats.md", "exec"), {})
    assert capsys.readouterr().out.strip() == re.findall(r"# (braincorl-encoder.*)", code)[0]


def test_kinds_of_binary_files_are_those_of_the_code():
    page = (DOCS / "reference" / "file_formats.md").read_text(encoding="utf-8")
    found = set()
    for path in (ROOT / "braincorl").rglob("*.py"):
        found |= set(re.findall(r'^\w*KIND = "(braincorl-\w+/\d)"', path.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`(braincorl-\w+/\d)`", page)) == found


def test_terms_that_pages_use_are_in_the_glossary():
    glossary = (DOCS / "reference" / "glossary.md").read_text(encoding="utf-8")
    entries = set(re.findall(r"^(\S.*)\n", glossary.split("```{glossary}\n")[1].split("```")[0], re.MULTILINE))
    pages = [path.read_text(encoding="utf-8") for path in [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md")]]
    used = set(re.findall(r"\{term\}`(?:[^`<]*<)?([^`>]*)>?`", "".join(pages)))
    assert len(used) > 10
    assert used <= entries
    ordered = re.findall(r"(?:^|\n\n)(\S.*)\n", glossary.split("```{glossary}\n")[1].split("```")[0])
    assert ordered == sorted(ordered, key=str.lower)


def test_settings_of_a_queue_in_the_recipes_are_those_of_the_example():
    text = (DOCS / "how_to.md").read_text(encoding="utf-8")
    (queue,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert yaml.safe_load(queue).items() <= yaml.safe_load((ROOT / "cluster" / "slurm.yaml").read_text()).items()


def test_a_perfect_encoder_reaches_the_ceiling_of_the_simulation():
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "how_it_works.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    names = {}
    exec(compile(code, "how_it_works.md", "exec"), names)
    assert names["ceiling"] == pytest.approx(0.75, abs=0.03)
    assert names["perfect"] == pytest.approx(0.75, abs=0.03)
