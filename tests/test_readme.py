import re
import shlex
from pathlib import Path

import pytest

from braincorl.cli.main import VERBS, build_parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run_as_they_stand(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})


def test_the_two_commands_are_those_of_ci():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "uv run braincorl demo --output-dir demo\n" in README
    assert "uv run braincorl demo --output-dir" in ci
    assert "```sh\nuv run pytest\n```" in README
    assert "\nuv run pytest\n" in ci


def test_links_to_files_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).exists() for link in links)


def commands():
    """Commands of shell blocks and of the text; what is named by its verb alone, or cut short by …, is no command."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if "braincorl " in line]
    found = [*lines, *re.findall(r"`([^`]*braincorl [^`]*)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))]
    words = [shlex.split(command[command.index("braincorl ") :], comments=True)[1:] for command in found]
    return [arguments for arguments in words if len(arguments) > 1 and arguments[0] in VERBS and arguments[1] != "…"]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_the_command_line_knows_its_commands(arguments):
    options, unknown = build_parser(arguments[0]).parse_known_args(arguments)
    assert options.verb == arguments[0]
    assert unknown == []


def test_its_commands_are_found():
    assert {arguments[0] for arguments in commands()} >= set(VERBS) - {"benchmark"}
