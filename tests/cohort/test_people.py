from pathlib import Path

import pytest

from braincorl.cohort import BidsTree, FitOptions, PersonFiles, people_of_table, people_of_tree
from braincorl.errors import InputError


@pytest.fixture
def table(tmp_path):
    def write(*rows):
        path = tmp_path / "people.tsv"
        path.write_text("".join("\t".join(cells) + "\n" for cells in rows))
        return path

    return write


def test_a_row_is_what_would_be_typed_after_fit(table, tmp_path):
    for session in (2, 10, 1):
        (tmp_path / f"sub-7_ses-{session}_betas.nii.gz").touch()
    header = ("subject", "betas", "trials", "mask", "n-context", "features")
    path = table(header, ("7", "sub-7_ses-*_betas.nii.gz", "'my trials.tsv'", "n/a", "20", "a=x.npz b=y.npz"))
    (person,) = people_of_table(path, common=PersonFiles((), mask=(Path("group_mask.nii"),)))
    assert person.name == "sub-7"
    assert [file.name for file in person.source.betas] == [f"sub-7_ses-{n}_betas.nii.gz" for n in (1, 2, 10)]
    assert person.source.trials == (tmp_path / "my trials.tsv",)
    assert person.source.mask == (Path("group_mask.nii"),)
    options = FitOptions(features=Path("f.npz"), test=Path("test.txt")).of(person)
    assert (options.n_context, options.test) == (20, None)
    assert options.features == {"a": tmp_path / "x.npz", "b": tmp_path / "y.npz"}
    assert options.encoder_name == "banded-ridge"


MISTAKES = {
    "an unknown column": ([("subject", "beta"), ("1", "b.npy")], "has the columns subject, beta: expected"),
    "no betas": ([("subject", "betas"), ("1", "")], "line 2: sub-1 has no betas"),
    "nobody": ([("subject", "betas")], "names nobody"),
    "a ragged row": ([("subject", "betas"), ("1",)], "line 2: 1 cells under 2 columns"),
    "a person twice": ([("subject", "betas"), ("1", "a.npy"), ("sub-1", "b.npy")], "names sub-1 in several rows"),
    "a path for a label": ([("subject", "betas"), ("../1", "a.npy")], "no label of a person"),
    "no such files": ([("subject", "betas"), ("1", "*.nii")], "no file is named like"),
    "an open quotation": ([("subject", "betas"), ("1", "'a.npy")], "close every quotation mark"),
    "text for a number": ([("subject", "betas", "n-context"), ("1", "a.npy", "all")], "n-context is 'all'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_in_tables_are_named(case, table):
    rows, message = MISTAKES[case]
    with pytest.raises(InputError, match=message):
        people_of_table(table(*rows))


def test_labels_choose_with_and_without_sub_and_zeros(tree, table):
    everybody = people_of_tree(BidsTree(tree.root))
    assert [person.name for person in everybody] == ["sub-01", "sub-02", "sub-03"]
    for labels in (["sub-02", "3"], ["3", "02", "03"]):
        assert [person.name for person in people_of_tree(BidsTree(tree.root), labels)] == ["sub-02", "sub-03"]
    with pytest.raises(InputError, match="no folder sub-9"):
        people_of_tree(BidsTree(tree.root), ["9"])
    with pytest.raises(InputError, match="neither a folder of BIDS derivatives nor a table"):
        people_of_tree(BidsTree(tree.root / "nothing"))
    path = table(("participant_id", "betas"), ("sub-01", "a.npy"), ("sub-02", "b.npy"))
    assert [person.name for person in people_of_table(path, ["2"])] == ["sub-02"]
    with pytest.raises(InputError, match="0 people with the label 3"):
        people_of_table(path, ["3"])
