import shutil

import numpy as np
import pandas as pd
import pytest

from braincorl import Fit, GroupPrior
from braincorl.cli.main import main
from braincorl.cohort import (
    BidsTree,
    FewShot,
    FitOptions,
    GroupOptions,
    Workers,
    few_shot,
    fit_cohort,
    make_group,
    people_of_tree,
)
from braincorl.cohort.few_shot import MEMORY, choose_test
from braincorl.cohort.group import summarize_people
from braincorl.errors import InputError

HERE = Workers(n_workers=1)


@pytest.fixture(scope="module")
def cohort(tree, tmp_path_factory):
    """Three people, fitted on their own images; the shared ones are scored."""
    folder = tmp_path_factory.mktemp("group")
    (folder / "test.txt").write_text("\n".join(tree.world.shared) + "\n")
    options = FitOptions(features=tree.features, test=folder / "test.txt", encoder="bayesian-ridge")
    people = people_of_tree(BidsTree(tree.root))
    fit_cohort(people, options, folder / "out", HERE)
    return folder / "out", people, options


def test_a_group_s_memory_is_that_of_the_verb_prior(cohort, tmp_path):
    folder, people, options = cohort
    group = make_group(folder, people, options, missing={"sub-09": "its betas are <damaged>"})
    fits = [str(folder / person.name) for person in people]
    assert main(["prior", *fits, "--rois", "--output", str(tmp_path / "prior.safetensors"), "--quiet"]) == 0
    assert (group.folder / "prior.safetensors").read_bytes() == (tmp_path / "prior.safetensors").read_bytes()
    page = (group.folder / "report.html").read_text()
    assert "SIMULATION" in page
    assert "sub-09: its betas are &lt;damaged&gt;" in page


def test_a_group_is_made_again_only_if_something_changed(cohort):
    folder, people, options = cohort
    assert make_group(folder, people, options).made
    assert not make_group(folder, people, options).made
    assert make_group(folder, people[:2], options).n_people == 2
    with pytest.raises(InputError, match="holds no fit of these people"):
        make_group(folder / "nothing", people, options)


def test_the_table_holds_every_person_s_scores(cohort):
    folder, people, options = cohort
    make_group(folder, people, options)
    table = pd.read_csv(folder / "group" / "scores.tsv", sep="\t")
    fit = Fit.load(folder / "sub-02")
    (row,) = table[(table["subject"] == "sub-02") & (table["roi"] == "all")].to_dict("records")
    assert row["ev_mean"] == pytest.approx(np.nanmean(fit.scores["ev"]), rel=1e-6)
    regions = pd.read_csv(folder / "group" / "regions.tsv", sep="\t", index_col="roi")
    means = table[table["roi"] == "all"]["ev_mean"]
    assert regions.loc["all", "ev_mean"] == pytest.approx(means.mean())
    # Student's t with 2 degrees of freedom at .975, from a table of it.
    half = 4.302653 * means.std(ddof=1) / np.sqrt(3)
    assert regions.loc["all", "ev_high"] - regions.loc["all", "ev_mean"] == pytest.approx(half, rel=1e-6)


def test_one_person_has_no_interval():
    table = summarize_people(pd.DataFrame({"subject": ["a"], "roi": ["all"], "n_voxels": [3], "ev_mean": [0.5]}))
    assert table["ev_mean"][0] == 0.5
    assert np.isnan([table["ev_sd"][0], table["ev_low"][0]]).all()


def test_curves_leave_each_person_out_and_are_measured_once(cohort):
    folder, people, options = cohort
    protocol = GroupOptions(few_shot=FewShot((5, 10), n_draws=1, test=options.test))
    group = make_group(folder, people, options, protocol, HERE)
    assert not group.failed
    curves = pd.read_csv(group.folder / "few-shot.tsv", sep="\t")
    assert len(curves) == 3 * 3 * 2  # people, encoders, numbers of images
    means = curves[curves["n_context"] == 5].groupby("encoder")["ev"].mean()
    assert means.idxmax() == MEMORY
    when = (folder / "few-shot" / "sub-01" / "curve.tsv").stat().st_mtime_ns
    make_group(folder, people, options, protocol, HERE)
    assert (folder / "few-shot" / "sub-01" / "curve.tsv").stat().st_mtime_ns == when
    make_group(folder, people[:2], options, protocol, HERE)  # others remember fewer people now
    assert (folder / "few-shot" / "sub-01" / "curve.tsv").stat().st_mtime_ns > when
    few = GroupOptions(few_shot=FewShot((5, 10), n_draws=1, test=options.test, n_people=1))
    one = pd.read_csv(make_group(folder, people[:2], options, few, HERE).folder / "few-shot.tsv", sep="\t")
    assert one["subject"].nunique() == 1


def test_a_fault_in_one_person_s_curve_is_told_and_stops_nobody(cohort, monkeypatch, caplog):
    folder, people, options = cohort
    monkeypatch.setattr(few_shot, "scaling_curve", lambda *_, **__: 1 / 0)
    group = make_group(folder, people, options, GroupOptions(few_shot=FewShot((4,), test=options.test)), HERE)
    assert group.failed == dict.fromkeys(
        ("sub-01", "sub-02", "sub-03"), "few-shot curve: ZeroDivisionError: division by zero"
    )
    assert "Traceback" in caplog.text


def test_images_that_others_were_fitted_on_are_no_test(tmp_path):
    images, new = np.array(list("abcdef")), np.array([True, False, True, True, False, True])
    chosen = choose_test(images, new, FewShot((2,)))
    assert chosen.size == 2
    assert set(chosen) <= {"a", "c", "d", "f"}
    (tmp_path / "test.txt").write_text("a\nb\n")
    with pytest.raises(InputError, match="names 1 images that other people were fitted on, such as 'b'"):
        choose_test(images, new, FewShot((2,), test=tmp_path / "test.txt"))
    with pytest.raises(InputError, match="1 images are left to score on"):
        choose_test(images[:2], new[:2], FewShot((2,)))


def test_what_feature_spaces_explain_is_gathered_and_made_again_when_people_are_scored(cohort, tmp_path):
    folder, people, options = cohort
    for person in people:
        shutil.copytree(folder / person.name, tmp_path / person.name)
    assert not list(make_group(tmp_path, people, options).folder.glob("partition.tsv"))
    shares = {"sub-01": 0.1, "sub-02": 0.3}
    for name, share in shares.items():
        (tmp_path / name / "scores").mkdir()
        rows = [("all", 9, part, space, share) for part in ("share", "unique") for space in ("words", "edges")]
        table = pd.DataFrame(rows, columns=["roi", "n_voxels", "part", "space", "mean"])
        table.to_csv(tmp_path / name / "scores" / "partition.tsv", sep="\t", index=False)
    group = make_group(tmp_path, people, options)
    assert group.made
    every = pd.read_csv(group.folder / "partition.tsv", sep="\t")
    assert every["subject"].value_counts().to_dict() == dict.fromkeys(shares, 4)
    spaces = pd.read_csv(group.folder / "spaces.tsv", sep="\t").set_index(["roi", "part", "space"])
    row = spaces.loc["all", "share", "words"]
    assert (row["n_people"], row["mean"]) == (2, pytest.approx(0.2))
    # Student's t with 1 degree of freedom at .975, from a table of it; sd / sqrt(2) is 0.1.
    assert row["mean_high"] - row["mean"] == pytest.approx(12.7062 * 0.1, rel=1e-5)


def test_left_out_are_so_many_people_in_any_order():
    names = [f"sub-{number:02}" for number in range(20)]
    chosen = FewShot((5,), n_people=4).choose(names)
    assert len(chosen) == 4
    assert set(FewShot((5,), n_people=4).choose(names[::-1])) == set(chosen)
    assert FewShot((5,), n_people=4, random_state=1).choose(names) != chosen
    assert FewShot((5,), n_people=99).choose(names) == names == FewShot((5,)).choose(names)


def test_a_memory_of_the_group_starts_a_new_person(cohort, tree, tmp_path):
    folder, people, options = cohort
    make_group(folder, people[:2], options)
    arguments = [*tree.arguments("sub-03"), "--prior", folder / "group" / "prior.safetensors", "--n-context", 6]
    assert main(["fit", *map(str, arguments), "--output-dir", str(tmp_path / "new"), "--quiet"]) == 0
    assert GroupPrior.load(folder / "group" / "prior.safetensors").summary["n_people"] == 2
