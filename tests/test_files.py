import stat

import pytest

from braincorl.errors import OutputError
from braincorl.files import atomic_file, check_new_file, read_json, write_json


def die_after_writing(path):
    path.write_text("half")
    raise RuntimeError("died")


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="died"), atomic_file(path) as temporary:
        die_after_writing(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_get_the_usual_permissions(tmp_path):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    (tmp_path / "b.txt").write_text("usual")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "b.txt")}
    assert len(modes) == 1


def test_a_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a.txt"
    check_new_file(path, overwrite=False)
    path.write_text("old")
    check_new_file(path, overwrite=True)
    for wrong, words in ((path, "--overwrite"), (tmp_path, "is a folder"), (tmp_path / "no" / "a", "does not exist")):
        with pytest.raises(OutputError, match=words):
            check_new_file(wrong, overwrite=False)


def test_a_link_to_nothing_is_not_replaced(tmp_path):
    for target in ("nothing", "link"):
        link = tmp_path / "link"
        link.symlink_to(tmp_path / target)
        with pytest.raises(OutputError, match="is a link to nothing"):
            check_new_file(link, overwrite=True)
        link.unlink()


def test_half_characters_are_kept_in_json(tmp_path):
    """As in the provenance of a file whose name is no UTF-8."""
    content = {"weights": "a\udcff", "é": ["\ud800"]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
