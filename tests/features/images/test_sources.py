import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from braincorl.errors import FileFormatError, InputError
from braincorl.features.images.image_sources import image_source


def read_all(source):
    return np.stack([np.asarray(source.read(row, "white")) for row in range(len(source.image_ids))])


@pytest.fixture
def brick(tmp_path, pixels):
    with h5py.File(tmp_path / "stimuli.hdf5", "w") as file:
        file["imgBrick"] = pixels
        file["notes"] = np.zeros(3)
    return tmp_path / "stimuli.hdf5"


def test_every_way_in_gives_the_same_pixels(pixels, picture_folder, brick):
    paths = [path for _, path in sorted((int(p.stem[3:]), p) for p in picture_folder.rglob("*.png"))]
    for source in (
        image_source(pixels),
        image_source(picture_folder),
        image_source(str(picture_folder)),
        image_source(paths),
        image_source(brick),
    ):
        np.testing.assert_array_equal(read_all(source), pixels)


def test_names_are_file_names_in_natural_order_or_row_numbers(picture_folder, brick):
    names = list(image_source(picture_folder).image_ids)
    assert names == [f"img{row}.png" for row in range(9)] + ["more/img9.png", "more/img10.png"]
    assert list(image_source(brick, rows=[4, 2]).image_ids) == ["4", "2"]
    assert list(image_source(brick, image_ids=["a", "b"], rows=[4, 2]).image_ids) == ["a", "b"]


def test_rows_choose_in_their_order(pixels, brick):
    np.testing.assert_array_equal(read_all(image_source(brick, rows=[4, 0, 2])), pixels[[4, 0, 2]])
    np.testing.assert_array_equal(read_all(image_source(pixels, rows=[4, 0, 2])), pixels[[4, 0, 2]])


def test_grey_and_transparent_arrays_are_read(pixels):
    grey = pixels[..., 0]
    np.testing.assert_array_equal(read_all(image_source(grey)), np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_array_equal(read_all(image_source(grey[..., None]))[..., 1], grey)
    clear = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=3)
    assert (read_all(image_source(clear)) == 255).all()


def test_the_operating_systems_hidden_files_are_no_images(picture_folder):
    (picture_folder / "._img0.png").write_bytes(b"\0\5\26\7")
    assert len(image_source(picture_folder).image_ids) == 11


def test_the_state_of_rows_changes_with_their_images_and_only_then(picture_folder, brick, pixels):
    source = image_source(picture_folder)
    first, rest = source.state(0, 1), source.state(1, 11)
    assert image_source(picture_folder).state(0, 1) == first
    Image.fromarray(255 - pixels[0]).save(picture_folder / "img0.png")
    assert source.state(0, 1) != first
    assert source.state(1, 11) == rest
    (picture_folder / "img1.png").unlink()
    assert source.state(1, 11) != rest
    assert image_source(brick).state(0, 2) == image_source(brick, rows=[0, 1]).state(0, 2)
    assert image_source(brick).state(0, 2) != image_source(brick, rows=[1, 0]).state(0, 2)
    changed = pixels.copy()
    changed[3, 1, 1, 1] ^= 1
    for start, stop, same in ((0, 3, True), (3, 4, False), (4, 11, True)):
        assert (image_source(pixels).state(start, stop) == image_source(changed).state(start, stop)) == same


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder, brick: image_source([]), "images is empty"),
        (
            lambda folder, brick: image_source([folder / "none", folder]),
            r"none does not exist: pass image files",
        ),
        (lambda folder, brick: image_source([folder / "img0.png"] * 2), "two images are named 'img0.png'"),
        (lambda folder, brick: image_source([folder, brick]), "by itself"),
        (lambda folder, brick: image_source(folder, rows=[1]), "rows choose"),
        (lambda folder, brick: image_source(folder, image_ids=["a"]), "1 names for 11 images"),
        (lambda folder, brick: image_source(brick, dataset="x"), "no dataset 'x'"),
        (lambda folder, brick: image_source(brick, dataset="notes"), "has shape"),
        (lambda folder, brick: image_source(brick, rows=[11]), "rows 0 to 10"),
        (lambda folder, brick: image_source(brick, rows=[]), "at least one"),
        (lambda folder, brick: image_source(brick.parent / "x.h5"), "does not exist"),
        (lambda folder, brick: image_source(np.zeros((2, 3, 8, 8), np.uint8)), "Channels must come last"),
        (lambda folder, brick: image_source(np.zeros((2, 8, 8, 3))), "expected uint8"),
    ],
)
def test_input_that_cannot_be_meant_is_refused(make, message, picture_folder, brick):
    with pytest.raises(InputError, match=message):
        make(picture_folder, brick).read(0, "white")


def test_an_empty_folder_and_a_broken_brick_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image files"):
        image_source(tmp_path / "empty")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF")
    with pytest.raises(FileFormatError, match=r"broken\.h5"):
        image_source(tmp_path / "broken.h5")


# -- folders as they are -----------------------------------------------------------------------------------------------


def names_in(folder, **options):
    return list(image_source(folder, **options).image_ids)


def test_hidden_folders_and_files_are_left_out_and_told(picture_folder, caplog):
    before = names_in(picture_folder)
    for hidden in (".ipynb_checkpoints", ".git/annex/objects", ".datalad", "more/.thumbs"):
        (picture_folder / hidden).mkdir(parents=True)
        shutil.copy(picture_folder / "img0.png", picture_folder / hidden / "img0-checkpoint.png")
    shutil.copy(picture_folder / "img0.png", picture_folder / "._img0.png")
    caplog.set_level("INFO")
    assert names_in(picture_folder) == before
    assert "5 hidden files or folders are left out" in caplog.text


def test_linked_folders_are_gone_through_once(picture_folder, tmp_path):
    (tmp_path / "disk").mkdir()
    shutil.copy(picture_folder / "img0.png", tmp_path / "disk" / "far.png")
    (picture_folder / "linked").symlink_to(tmp_path / "disk")
    (picture_folder / "more" / "loop").symlink_to(picture_folder)
    assert "linked/far.png" in names_in(picture_folder)
    assert not any("loop" in name for name in names_in(picture_folder))


@pytest.mark.parametrize("n", [1, 3])
def test_links_to_nothing_are_refused_before_any_work_or_left_out_on_request(picture_folder, n):
    for number in range(n):
        (picture_folder / f"annexed{number}.png").symlink_to(picture_folder / "annex" / f"{number}.png")
    with pytest.raises(InputError, match=f"{n} of {11 + n} images are links to files that do not exist, such as"):
        image_source(picture_folder)
    source = image_source(picture_folder, missing_ok=True)
    with pytest.raises(InputError, match="is a link to a file that does not exist: fetch that file first"):
        source.read(0, "white")


def test_pictures_that_cannot_be_read_are_counted_when_they_are_left_out(picture_folder, caplog):
    from braincorl.features import ImageEmbedder

    (picture_folder / "a.png").symlink_to(picture_folder / "none.png")
    (picture_folder / "b.png").write_bytes(b"no picture")
    table = ImageEmbedder("gabor").embed(picture_folder, skip_unreadable=True)
    assert len(table.image_ids) == 11
    assert "2 of 13 images could not be read and are left out" in caplog.text


@pytest.mark.parametrize(
    "name", ["a\tb.png", "a\nb.png", "=1+1.png", "@x.png", "a\u2028b.png", "a\x7fb.png", "a\x1bb.png"]
)
def test_file_names_that_would_break_a_table_are_refused(picture_folder, name):
    shutil.copy(picture_folder / "img0.png", picture_folder / name)
    with pytest.raises(InputError, match="rename it"):
        image_source(picture_folder)
    assert len(image_source(picture_folder, image_ids=[f"i{n}" for n in range(12)]).image_ids) == 12


def test_a_name_has_one_spelling(picture_folder):
    (picture_folder / "img0.png").rename(picture_folder / "cafe\u0301.png")
    assert "caf\u00e9.png" in names_in(picture_folder)


@pytest.mark.parametrize("layout", ["virtual", "external", "link", "link to nothing"])
def test_a_brick_that_is_put_together_from_other_files_is_refused(pixels, tmp_path, layout):
    from hdf5 import elsewhere

    path = elsewhere(tmp_path, "imgBrick", pixels, layout)
    with pytest.raises(FileFormatError, match=r"another file|other files"):
        image_source(path)
