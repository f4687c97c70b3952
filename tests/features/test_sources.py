import h5py
import numpy as np
import pytest
from PIL import Image

from braincorl.errors import FileFormatError, InputError
from braincorl.features.sources import image_source


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
            "1 of 12 images cannot be read, such as .*none",
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
