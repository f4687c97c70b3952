import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_running import same_files

import braincorl
from braincorl.cli.bids_app import build_parser, main
from braincorl.storage.files import read_json

ROOT = Path(__file__).resolve().parent.parent.parent
HOW = ["--n-context", "20", "--encoder", "bayesian-ridge", "--n_cpus", "1"]


@pytest.fixture
def run(tree, tmp_path, capsys):
    """Run the app on the simulated people, whose features are named."""

    def app(level, *options, bids_dir=tree.root, output_dir=tmp_path / "out"):
        words = [bids_dir, output_dir, level, "--features", tree.features, *HOW, "--skip-bids-validation", *options]
        capsys.readouterr()
        try:
            status = main([*map(str, words)])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr()

    return app


def test_people_one_by_one_then_the_group(run, tmp_path):
    assert run("participant", "--participant-label", "01", "sub-03")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("sub-*")) == ["sub-01", "sub-03"]
    assert run("participant", "--participant_label", "02")[0] == 0
    status, said = run("group")
    assert status == 0
    assert "group of 3" in said.out
    description = read_json(tmp_path / "out" / "dataset_description.json")
    assert description["GeneratedBy"] == [{"Name": "braincorl", "Version": braincorl.__version__}]
    assert (tmp_path / "out" / "group" / "report.html").is_file()


MISTAKES = {
    "no such label": (["--participant-label", "99"], {}, "holds no folder sub-99"),
    "output into the input": ([], {"output_dir": "bids_dir"}, "output_dir is bids_dir"),
    "no folder": ([], {"bids_dir": Path("nothing")}, "bids_dir nothing is not a folder"),
    "an unknown option": (["--participants", "01"], {}, "unrecognized arguments: --participants"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(case, run, tree):
    options, places, message = MISTAKES[case]
    places = {name: tree.root if value == "bids_dir" else value for name, value in places.items()}
    status, said = run("participant", *options, **places)
    assert status == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_a_home_is_a_home_after_an_equals_sign_too(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.folder))
    words = [str(tree.root), str(tmp_path / "out"), "participant", "--features=~/features.npz", *HOW]
    assert main([*words, "--participant-label", "01", "--skip-bids-validation"]) == 0


def test_features_lie_with_the_stimuli_unless_they_are_named(tree, tmp_path, capsys):
    words = [str(tree.root), str(tmp_path / "out"), "participant", "--skip-bids-validation"]
    assert main(words) == 2
    assert "stimuli holds no features.npz: pass --features" in capsys.readouterr().err


def test_a_tree_that_is_not_valid_is_told(run, tree, tmp_path, monkeypatch, capsys):
    found = {"issues": {"issues": [{"code": "NOT_INCLUDED", "severity": "error", "location": "/x"}]}}
    (tmp_path / "bids-validator-deno").write_text(f"#!/bin/sh\necho '{json.dumps(found)}'\n")
    (tmp_path / "bids-validator-deno").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert main([str(tree.root), str(tmp_path / "out"), "participant", "--features", str(tree.features)]) == 2
    assert "not valid BIDS: 1 errors, the first NOT_INCLUDED at /x" in capsys.readouterr().err


@pytest.mark.slow
def test_two_runs_share_a_folder_and_the_trees_are_valid(tree, tmp_path):
    app = [sys.executable, "-m", "braincorl.cli.bids_app", tree.root]
    options = ["--features", tree.features, *HOW]
    both = [
        subprocess.Popen(
            [*map(str, [*app, tmp_path / "both", "participant", *options])], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(line.startswith("3 people: ") for line in said)
    assert main([*map(str, [tree.root, tmp_path / "one", "participant", *options])]) == 0
    assert same_files(tmp_path / "one", tmp_path / "both")
    assert main([*map(str, [tree.root, tmp_path / "both", "group", *options])]) == 0
    for folder in (tree.root, tmp_path / "both"):
        validator = [str(Path(sys.executable).parent / "bids-validator-deno"), str(folder), "--format=json"]
        done = subprocess.run(validator, capture_output=True, text=True, check=False, timeout=120)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []


def test_the_files_beside_it_name_options_that_there_are():
    known = {option for action in build_parser()._actions for option in action.option_strings}
    babs = yaml.safe_load((ROOT / "cluster" / "babs.yaml").read_text())
    used = {name for name in babs["bids_app_args"] if not name.startswith("$")}
    used |= {babs["bids_app_args"]["$SUBJECT_SELECTION_FLAG"]}
    script = (ROOT / "cluster" / "array.sbatch").read_text()
    command = script.split("${BRAINCORL")[1].replace("\\\n", " ")
    used |= {word for word in command.split() if word.startswith("--")}
    assert used <= known
    subprocess.run(["bash", "-n", str(ROOT / "cluster" / "array.sbatch")], check=True)


def test_the_image_holds_what_the_package_needs():
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    copies = [line.split() for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line]
    copied = {name for words in copies for name in words[1:-1]}
    kept = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{name}" for name in copied} <= set(kept)
    assert all((ROOT / name).exists() for name in copied)
    links = [path for path in (ROOT / "braincorl").rglob("*") if path.is_symlink()]
    assert {path.resolve().relative_to(ROOT).parts[0] for path in links} <= copied
    assert braincorl.__version__ in text
    tested = (ROOT / "pyproject.toml").read_text()
    pins = [(name.lower(), version) for name, version in re.findall(r"ARG (\w+)_VERSION=(\S+)", text)]
    for name, version in [*pins, *re.findall(r"(bids-validator-deno)==(\S+)", text)]:
        assert f'"{name}=={version}"' in tested
