import json
import re
import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from desk import lay_desk, lay_shelf, run

from braincorl.cli.main import VERBS, build_parser
from braincorl.features import FeatureTable, save_features
from braincorl.features.backbones import clip_backbone, registry

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What every command does, which the README links to: it is tested as the README is.
PAGE = (ROOT / "docs" / "encoders_and_data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", f"{README}\n{PAGE}", flags=re.DOTALL)


def test_the_readme_is_one_page_with_an_example():
    assert len(README.splitlines()) <= 90
    assert "```python\n" in README


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


def test_the_numbers_of_the_readme_are_among_the_results():
    """The rows of the README's table stand in one table of results, by their names and number by number."""
    rows = {line for line in README.splitlines() if re.match(r"\| .*\.\d", line)}
    results = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "results").glob("*.md"))]
    tables = [set(table.splitlines()) for text in results for table in text.split("\n\n")]
    assert rows
    assert any(rows <= table for table in tables)


def commands(text=f"{README}\n{PAGE}"):
    """Commands of shell blocks and of the text; what is named by its verb alone, or cut short by …, is no command."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if "braincorl " in line]
    lines += [line for line in text.splitlines() if line.startswith("    braincorl ")]
    found = [*lines, *re.findall(r"`([^`]*braincorl [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    words = [shlex.split(command[command.index("braincorl ") :], comments=True)[1:] for command in found]
    whole = [arguments for arguments in words if len(arguments) > 1 and arguments[-1] != "…"]
    known = [arguments for arguments in whole if arguments[0] in VERBS and arguments[1] != "…"]
    return [arguments for place, arguments in enumerate(known) if arguments not in known[:place]]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_the_command_line_knows_its_commands(arguments):
    options, unknown = build_parser(arguments[0]).parse_known_args(arguments)
    assert options.verb == arguments[0]
    assert unknown == []


CARDS = [*sorted(ROOT.glob("datasets/*.md")), *sorted(ROOT.glob("encoders/*/README.md")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: str(card.relative_to(ROOT)))
def test_the_command_line_knows_the_commands_of_cards(card):
    for arguments in commands(card.read_text(encoding="utf-8")):
        options, unknown = build_parser(arguments[0]).parse_known_args([word for word in arguments if word != "…"])
        assert options.verb == arguments[0]
        assert unknown == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_the_command_line_knows_the_blocks_of_pages(page):
    blocks = re.findall(r"```(?:sh|text)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for arguments in commands("\n".join(f"```sh\n{block}```" for block in blocks)):
        options, unknown = build_parser(arguments[0]).parse_known_args([word for word in arguments if word != "…"])
        assert options.verb == arguments[0]
        assert unknown == []


def test_commands_of_cards_are_found():
    found = [words[0] for card in CARDS for words in commands(card.read_text(encoding="utf-8"))]
    assert {"data", "prior", "train", "embed"} <= set(found)


def test_its_commands_are_found():
    assert {arguments[0] for arguments in commands()} >= set(VERBS) - {"benchmark"}


# -- and run, with files of the names that it uses ---------------------------------------------------------------------

# The demo is run by CI as it stands, before the tests; downloads meet a server in tests/cli/test_data_fetch.py.
RUN_ELSEWHERE = (["demo"], ["data", "fetch"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with everything that the README's commands name, of one simulated person."""
    folder = tmp_path_factory.mktemp("desk")
    lay_desk(folder)
    lay_shelf(folder)
    return folder


@pytest.fixture
def small_clip(desk, monkeypatch):
    """A network of a few weights under the name of CLIP's, as if it were in the download cache."""
    import open_clip
    import torch

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    (desk / "readme-clip.json").write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(desk / "readme-clip.json")
    torch.save(open_clip.create_model("readme-clip", pretrained=None).state_dict(), desk / "readme-clip.pt")
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "readme-clip", {"openai": {"quick_gelu": False}})
    monkeypatch.setitem(registry.PRESETS, "clip-vit-b32", registry.Preset("open_clip:readme-clip/openai", "small"))
    monkeypatch.setattr(clip_backbone, "find_published", lambda *_: desk / "readme-clip.pt")


def expanded(word):
    """Names that a pattern stands for, as a shell would have it."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def test_the_commands_run_one_after_the_other(desk, small_clip, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    done, documented = set(), documented_files()
    assert {"", "fit", "score", "predict", "query", "identify", "compare", "export"} <= set(documented)
    by_use = (
        "prior",
        "fit",
        "cohort",
        "score",
        "predict",
        "compare",
        "identify",
        "report",
        "export",
        "query",
        "embed",
        "select",
        "benchmark",
        "data",
        "convert",
        "train",
    )
    todo = [words for words in commands() if not any(words[: len(part)] == part for part in RUN_ELSEWHERE)]
    for arguments in sorted(todo, key=lambda arguments: by_use.index(arguments[0])):
        words = [name for word in arguments for name in expanded(word.replace("…", "prior.safetensors"))]
        if arguments[0] == "embed" and Path(words[words.index("--output") + 1]).exists():
            words.append("--overwrite")  # an example of another block has the name
        if arguments[0] == "select" and "--overwrite" not in words:
            save_features("features.npz", FeatureTable(*features_of_the_prior()))
        if arguments[:2] == ["data", "prepare"]:
            words += ["--sessions", "1-3"]  # those of the small person; a real one has 40
        if arguments[0] == "cohort":
            words += ["--n-workers", "1"]
        if arguments[0] == "compare":
            shutil.copytree("sub-01", "sub-01-dino")
        run("braincorl", *words)
        done.add(arguments[0])
        if arguments[0] in documented and "--output-dir" in words:
            folder = Path(words[words.index("--output-dir") + 1])
            strangers = {
                path.name
                for path in folder.iterdir()
                if not any(fnmatch(path.name, name) for name in documented[""] | documented[arguments[0]])
            }
            assert strangers == set(), arguments
    assert done >= set(VERBS) - {"demo", "benchmark"}


def documented_files():
    """Patterns of the files that each verb writes, as the page on file formats has them; those of all under ""."""
    page = (ROOT / "docs" / "reference" / "file_formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`braincorl (\w+)`|every verb) \| (.*) \|$", page, flags=re.MULTILINE)
    return {verb: set(re.findall(r"`([^`]+)`", files)) for verb, files in rows}


def features_of_the_prior():
    """Twenty images and more in the space of the prior, as embedding has replaced features.npz."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, 24)).astype("f4"), np.array([f"candidate {n}" for n in range(40)])
