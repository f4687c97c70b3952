"""No name that comes in breaks a table that goes out."""

import numpy as np
import pytest

from braincorl import GroupPrior
from braincorl.datasets import SubjectData, VoxelSpace
from braincorl.errors import InputError
from braincorl.features import FeatureTable
from braincorl.features.store.feature_files import read_names
from braincorl.names import check_names, file_labels
from braincorl.storage.files import text_lines

BAD = [
    "a\tb",
    "a\nb",
    "a\rb",
    "a\x0bb",
    "a\x1cb",
    "a\x85b",
    "a\u2028b",
    "a\x00b",
    "=1+1",
    "@SUM(A1)",
    "+cmd|x",
    "-2+3",
    "--x",
]
GOOD = ["-3", "+1.5", "-", "1e-3", "-1e-3", "a=b", "a@b", "a-b", "#1", "face, left", "é", "'quoted'", "NA", "left hand"]


def subject(names):
    everywhere = np.ones(4, dtype=bool)
    rois = dict.fromkeys(names, everywhere)
    return SubjectData(np.zeros((2, 4)), np.array(["x", "y"]), VoxelSpace(everywhere), np.ones(2, int), rois=rois)


def prior(names):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 8))
    return GroupPrior.fit([(X, y), (X, y[::-1])], rois=[np.array([names[0]] * 8)] * 2)


def features(names):
    return FeatureTable(np.zeros((len(names), 2)), np.array(names))


WAYS_IN = {
    "images": features,
    "regions": subject,
    "regions of a prior": prior,
    "any": lambda n: check_names(n, "the name"),
}


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize("name", BAD)
def test_names_that_break_tables_are_refused(way, name):
    with pytest.raises(InputError, match=r"control character or a line break|a formula to spreadsheets"):
        WAYS_IN[way]([name])


@pytest.mark.parametrize("way", WAYS_IN)
@pytest.mark.parametrize("name", GOOD)
def test_other_names_are_kept(way, name):
    WAYS_IN[way]([name])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", ["", "end"])
def test_all_readers_of_lines_agree_on_what_a_line_is(tmp_path, end, last):
    names = ["a", "b\x0bc", "d\u2028e", "f\x85g", "h i"]
    (tmp_path / "names.txt").write_bytes((end.join(names) + (end if last else "")).encode())
    assert read_names(tmp_path / "names.txt") == names
    assert text_lines((tmp_path / "names.txt").read_bytes().decode()) == names


@pytest.mark.parametrize(
    "names",
    [["V1-d", "V1d"], ["FFA-1", "FFA1", "ffa1"], ["a", "a-", "a1"], ["é", "ü"], ["", "x"], ["V1", "V2"]],
)
def test_labels_of_files_are_never_alike(names):
    labels = file_labels(names, "region")
    assert len({label.lower() for label in labels}) == len(names)
    assert all(label.isalnum() and label.isascii() for label in labels)
    assert file_labels(["V1", "V2"], "region") == ["V1", "V2"]
