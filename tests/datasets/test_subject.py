"""How a person is shown, at a prompt and in Jupyter."""

import numpy as np
import pytest

from braincorl.datasets import Surface, VoxelSpace, load_subject
from braincorl.datasets.subject import SubjectData


def test_a_person_says_what_is_in_it(world):
    subject = world.people[0].subject()
    text = repr(subject)
    ceiling = np.nanmedian(subject.noise_ceiling())
    assert text == (
        f"SubjectData(sub-01: 90 images, 1-3 trials each, {subject.n_voxels} voxels, {len(subject.rois)} ROIs, "
        f"median noise ceiling {ceiling:.2f})"
    )
    page = subject._repr_html_()
    for part in ("<caption>SubjectData sub-01<", "90, 1-3 trials each", "voxels of 8 x 8 x 8 mm", "FFA", "unknown"):
        assert part in page


def test_sessions_are_counted(tmp_path):
    np.save(tmp_path / "betas.npy", np.random.default_rng(0).standard_normal((6, 4)))
    (tmp_path / "trials.tsv").write_text("image\tsession\na\t1\nb\t1\na\t2\nc\t2\nb\t3\nn/a\t9\n")
    subject = load_subject(tmp_path / "betas.npy", tmp_path / "trials.tsv")
    assert subject.n_sessions == 3
    assert ", 3 sessions, 4 voxels" in repr(subject)
    assert subject.select_images(["c"]).n_sessions == 3
    assert '<td style="text-align: left">3</td>' in subject._repr_html_()
    (tmp_path / "trials.tsv").write_text("image\n" + "\n".join("abacbd"))
    assert load_subject(tmp_path / "betas.npy", tmp_path / "trials.tsv").n_sessions is None


@pytest.mark.parametrize("surface", [True, False])
def test_little_known_people_and_odd_names(surface):
    sides = Surface(np.array([True, True]), np.array([True, False, False]))
    space = VoxelSpace(np.array([True, True, False]), surface=sides if surface else None)
    rois = {"<script>": np.array([True, False])}
    subject = SubjectData(np.ones((1, 2)), np.array(["a"]), space, np.array([1]), rois, name="<b>")
    page = subject._repr_html_()
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;script&gt; 1" in page
    assert "2 (1 without data)" in page
    assert ("surface fsaverage, 2 + 3 vertices" if surface else "unknown (no mask)") in page
    assert repr(subject) == "SubjectData(<b>: 1 images, 1 trial each, 2 voxels, 1 ROIs)"
