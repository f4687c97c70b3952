import filecmp
import logging
import shlex
from pathlib import Path

import pytest

from braincorl.cli.main import main
from braincorl.cohort import (
    BidsTree,
    FitOptions,
    FitTask,
    Workers,
    fit_cohort,
    fit_one,
    people_of_table,
    people_of_tree,
)
from braincorl.cohort.task import claimed
from braincorl.errors import InputError, OutputError
from braincorl.storage.files import read_json
from braincorl.threads import limited_threads

HERE = Workers(n_workers=1)


def same_files(one, other):
    """Whether two folders hold the same files, to the byte."""
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (one, other)]
    files = [name for name in names[0] if (one / name).is_file()]
    return names[0] == names[1] and filecmp.cmpfiles(one, other, files, shallow=False)[1:] == ([], [])


@pytest.fixture(scope="module")
def options(tree):
    return FitOptions(features=tree.features, n_context=20, encoder="bayesian-ridge")


@pytest.fixture(scope="module")
def fitted(tree, options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort") / "out"
    outcomes = fit_cohort(people_of_tree(BidsTree(tree.root)), options, folder, HERE)
    assert [outcome.status for outcome in outcomes] == ["fitted"] * 3
    return folder


@pytest.mark.parametrize("encoder", ["bayesian-ridge", "in-context"])
def test_a_person_of_a_cohort_is_what_the_fit_that_it_names_writes(encoder, tree, tmp_path, monkeypatch):
    options = FitOptions(features=tree.features, n_context=20, encoder=encoder, random_state=3)
    (person,) = people_of_tree(BidsTree(tree.root), ["02"])
    assert fit_one(FitTask(person, options, tmp_path / "cohort")).status == "fitted"
    command = shlex.split(read_json(tmp_path / "cohort" / "sub-02" / "config.json")["command"])
    monkeypatch.chdir(tmp_path)
    with limited_threads(1, torch=True):
        assert main(command[1:]) == 0
    assert same_files(tmp_path / "cohort" / "sub-02", tmp_path / "sub-02")


@pytest.mark.filterwarnings("ignore")  # of Dask's threads
def test_the_number_of_workers_does_not_matter(tree, options, fitted, tmp_path):
    people, seen = people_of_tree(BidsTree(tree.root)), []
    workers = Workers(n_workers=2, processes=False)
    fit_cohort(people, options, tmp_path / "out", workers, progress=lambda *done: seen.append(done))
    assert same_files(fitted, tmp_path / "out")
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_table_gives_the_same_but_for_its_paths(tree, options, fitted, tmp_path):
    files = {name: str(path) for name, path in tree.files["sub-02"].items()}
    (tmp_path / "people.tsv").write_text("\t".join(["subject", *files]) + "\n" + "\t".join(["02", *files.values()]))
    people = people_of_table(tmp_path / "people.tsv")
    fit_cohort(people, options, tmp_path / "out", HERE)
    assert same_files(fitted / "sub-02", tmp_path / "out" / "sub-02")
    (tmp_path / "people.tsv").write_text("subject\tbetas\ttrials\n02\tother.nii\ttrials.tsv\n")
    (outcome,) = fit_cohort(people_of_table(tmp_path / "people.tsv"), options, tmp_path / "out", HERE)
    assert outcome.status == "failed"
    assert "fitted from other betas" in outcome.text


def test_who_fails_is_named_and_done_when_it_is_mended(tree, options, tmp_path, caplog):
    root = tmp_path / "betas"
    root.mkdir()
    for path in tree.root.iterdir():
        (root / path.name).symlink_to(path)
    (root / "sub-02").unlink()
    (root / "sub-02").mkdir()
    with caplog.at_level(logging.INFO, "braincorl"):
        outcomes = fit_cohort(people_of_tree(BidsTree(root)), options, tmp_path / "out", HERE)
    assert [outcome.status for outcome in outcomes] == ["fitted", "failed", "fitted"]
    assert "sub-02 failed: " in caplog.text
    assert "holds no *_stat-effect_*statmap.nii.gz" in outcomes[1].text
    assert not list((tmp_path / "out").glob("*sub-02*"))
    when = (tmp_path / "out" / "sub-01").stat().st_mtime_ns
    (root / "sub-02").rmdir()
    (root / "sub-02").symlink_to(tree.root / "sub-02")
    again = fit_cohort(people_of_tree(BidsTree(root)), options, tmp_path / "out", HERE)
    assert [outcome.status for outcome in again] == ["kept", "fitted", "kept"]
    assert (tmp_path / "out" / "sub-01").stat().st_mtime_ns == when


def test_a_fault_of_the_program_stops_nobody(tree, options, tmp_path, monkeypatch, caplog):
    from braincorl.cohort import task

    monkeypatch.setattr(task, "describe", lambda *_: 1 / 0)
    (outcome,) = fit_cohort(people_of_tree(BidsTree(tree.root), ["01"]), options, tmp_path / "out", HERE)
    assert outcome.text == "ZeroDivisionError: division by zero"
    assert "Traceback" in caplog.text


def test_folders_of_other_options_or_hands_are_left_alone(tree, options, fitted, tmp_path):
    people = people_of_tree(BidsTree(tree.root), ["01"])
    with pytest.raises(InputError, match=r"fitted with n_context 20, now 19: choose another output folder"):
        fit_cohort(people, FitOptions(features=tree.features, n_context=19, encoder="bayesian-ridge"), fitted, HERE)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="files that braincorl did not write"):
        fit_cohort(people, options, tmp_path / "mine", HERE)
    with pytest.raises(InputError, match="contradict each other"):
        FitOptions(n_context=3, test=Path("test.txt"))


def test_held_out_images_are_scored_and_not_fitted(tree, tmp_path):
    test = tree.world.shared
    (tmp_path / "test.txt").write_text("\n".join(test) + "\n")
    options = FitOptions(features=tree.features, test=tmp_path / "test.txt", encoder="ridge")
    fit_cohort(people_of_tree(BidsTree(tree.root), ["01"]), options, tmp_path / "out", HERE)
    context = (tmp_path / "out" / "sub-01" / "context.txt").read_text().splitlines()
    assert not set(context) & set(test)
    assert read_json(tmp_path / "out" / "sub-01" / "config.json")["n_left_out"] == len(test)


def test_a_person_whom_another_run_has_is_left_to_it(tree, options, tmp_path):
    (person,) = people_of_tree(BidsTree(tree.root), ["01"])
    task = FitTask(person, options, tmp_path / "out")
    with claimed(tmp_path / "out" / ".sub-01.lock") as ours:
        assert ours
        assert fit_one(task).status == "busy"
    assert fit_one(task).status == "fitted"
    assert fit_one(task).status == "kept"
    assert not list((tmp_path / "out").glob("*.lock"))
