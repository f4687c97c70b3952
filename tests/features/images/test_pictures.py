"""Odd image files, and what each gets: this table is the documentation's."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from braincorl.errors import FileFormatError, InputError
from braincorl.features.images.pictures import check_background, open_picture

RED, WHITE, GREY = (200, 30, 40), (255, 255, 255), (90, 90, 90)


def flat(mode="RGB", colour=RED, size=(24, 16)):
    return Image.new(mode, size, colour)


def left_red_right_blue():
    image = flat(size=(24, 16))
    image.paste((20, 40, 220), (12, 0, 24, 16))
    return image


def noisy(size=(64, 64)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def png_with_size(path, width, height):
    """A PNG of a few bytes that claims to be of any size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise to view
    left_red_right_blue().save(path, exif=exif, quality=95)


def truncate(path, keep=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def with_bad_checksum(path):
    noisy().save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def grey16(path):
    Image.fromarray(np.full((16, 24), 90 * 257, dtype=np.uint16)).save(path)


def truncated(path):
    noisy().save(path)
    truncate(path)


def palette_with_hole(path):
    image = flat("P", 0)
    image.putpalette([*RED, 0, 0, 0])
    image.paste(1, (12, 0, 24, 16))
    image.save(path, transparency=1)


def profile(path):
    flat().save(path, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), quality=95)


def animation(path):
    flat("L", 10).save(path, save_all=True, append_images=[flat("L", 90), flat("L", 200)])


HANDLED = {
    "plain.png": (lambda path: flat().save(path), RED),
    "plain.jpg": (lambda path: flat().save(path, quality=95), RED),
    "plain.webp": (lambda path: flat().save(path, lossless=True), RED),
    "plain.bmp": (lambda path: flat().save(path), RED),
    "plain.tif": (lambda path: flat().save(path), RED),
    "still.gif": (lambda path: flat("L", 90).save(path), GREY),
    "grey.png": (lambda path: flat("L", 90).save(path), GREY),
    "bilevel.png": (lambda path: flat("1", 1).save(path), WHITE),
    "grey16.png": (grey16, GREY),
    "palette.png": (lambda path: flat().convert("P", palette=Image.Palette.ADAPTIVE).save(path), RED),
    "palette-with-hole.png": (palette_with_hole, (*RED, *WHITE)),
    "transparent.png": (lambda path: flat("RGBA", (*RED, 0)).save(path), WHITE),
    "half-transparent.png": (lambda path: flat("RGBA", (*RED, 51)).save(path), (244, 210, 212)),
    "grey-alpha.png": (lambda path: flat("LA", (90, 0)).save(path), WHITE),
    "cmyk.jpg": (lambda path: flat("CMYK", (0, 255, 255, 0)).save(path, quality=95), (254, 0, 0)),
    "profile.jpg": (profile, RED),
    "one-pixel.png": (lambda path: flat(size=(1, 1)).save(path), RED),
    "wrong-ending.png": (lambda path: flat().save(path, format="JPEG", quality=95), RED),
    "with space é.png": (lambda path: flat().save(path), RED),
}

REFUSED = {
    "empty.png": (lambda path: path.write_bytes(b""), FileFormatError, "is empty"),
    "text.jpg": (lambda path: path.write_text("not an image"), FileFormatError, "not an image of a known kind"),
    "truncated.jpg": (truncated, FileFormatError, "damaged or truncated"),
    "truncated.png": (truncated, FileFormatError, "damaged or truncated"),
    "checksum.png": (with_bad_checksum, FileFormatError, "damaged or truncated"),
    "animated.gif": (animation, InputError, "animated or has 3 pages"),
    "pages.tif": (
        lambda path: flat().save(path, save_all=True, append_images=[flat()]),
        InputError,
        "animated or has 2 pages",
    ),
    "float.tif": (lambda path: flat("F", 0.5).save(path), InputError, "pixels of type F"),
    "integer.tif": (lambda path: flat("I", 70000).save(path), InputError, "pixels of type I,"),
    "bomb.png": (lambda path: png_with_size(path, 60000, 60000), InputError, "pixels"),
    "large.png": (lambda path: png_with_size(path, 10000, 9500), InputError, "pixels"),
    "strip.png": (lambda path: flat(size=(4000, 2)).save(path), InputError, "over 50:1"),
    "folder.png": (lambda path: path.mkdir(), InputError, "is a folder"),
    "missing.png": (lambda path: None, InputError, "does not exist"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), InputError, "is a link to a file that does not exist"),
}


@pytest.mark.parametrize("name", HANDLED)
def test_odd_files_with_one_meaning_are_read_as_upright_rgb(name, tmp_path):
    make, expected = HANDLED[name]
    make(tmp_path / name)
    image = open_picture(tmp_path / name)
    assert image.mode == "RGB"
    values = np.asarray(image)
    left, right = values[0, 0], values[-1, -1]
    np.testing.assert_allclose(left, expected[:3], atol=3)
    np.testing.assert_allclose(right, expected[-3:], atol=3)


@pytest.mark.parametrize("name", REFUSED)
def test_files_without_one_meaning_are_refused_by_name_in_one_line(name, tmp_path):
    make, kind, message = REFUSED[name]
    make(tmp_path / name)
    with pytest.raises(kind, match=message) as caught:
        open_picture(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_large_picture_is_refused_also_where_warnings_are_only_shown(tmp_path):
    png_with_size(tmp_path / "large.png", 10000, 9500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="10000 x 9500 pixels"):
            open_picture(tmp_path / "large.png")


def test_a_cameras_rotation_flag_is_followed(tmp_path):
    rotated(tmp_path / "rotated.jpg")
    image = open_picture(tmp_path / "rotated.jpg")
    assert image.size == (16, 24)
    values = np.asarray(image).astype(int)
    assert values[2, 8, 0] > 150 > values[2, 8, 2]  # what was left is now above
    assert values[-3, 8, 2] > 150 > values[-3, 8, 0]


def test_a_photograph_with_a_second_frame_gives_the_photograph(tmp_path):
    flat().save(tmp_path / "phone.mpo", save_all=True, append_images=[flat(colour=GREY)], quality=95)
    np.testing.assert_allclose(np.asarray(open_picture(tmp_path / "phone.mpo"))[0, 0], RED, atol=3)


def test_transparency_shows_the_stated_background(tmp_path):
    flat("RGBA", (*RED, 0)).save(tmp_path / "hole.png")
    assert open_picture(tmp_path / "hole.png", background="#102030").getpixel((0, 0)) == (16, 32, 48)


def test_a_background_that_is_no_colour_is_refused():
    assert check_background("white") == "#ffffff"
    with pytest.raises(InputError, match="no colour"):
        check_background("whitish")


def test_sixteen_bits_keep_their_contrast(tmp_path):
    ramp = np.linspace(0, 65535, 24).astype(np.uint16)[None].repeat(16, axis=0)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    values = np.asarray(open_picture(tmp_path / "ramp.png"))[0, :, 0].astype(float)
    np.testing.assert_allclose(values, np.linspace(0, 255, 24), atol=1)


def turned(mode, orientation, path):
    """The same scene, light at the top left, as a camera would store it that was held in one of eight ways."""
    scene = np.zeros((16, 24), dtype=np.uint16)
    scene[:5, :8] = 60_000
    inverse = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
               6: np.rot90, 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    stored = np.ascontiguousarray(inverse[orientation](scene))
    image = Image.fromarray(stored if mode == "I;16" else (stored // 257).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.convert(mode).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "name"), [("I;16", "a.png"), ("L", "a.png"), ("RGB", "a.png"), ("I;16", "a.tif")])
def test_a_cameras_rotation_counts_in_pictures_of_any_depth(tmp_path, mode, name, orientation):
    turned(mode, orientation, tmp_path / name)
    pixels = np.asarray(open_picture(tmp_path / name))[:, :, 0]
    expected = np.zeros((16, 24), dtype=np.uint8)
    expected[:5, :8] = 60_000 // 257
    np.testing.assert_array_equal(pixels, expected)


DAMAGES = (
    "truncated.jpg",
    "truncated.png",
    "checksum.png",
    "truncated.tif",
    "truncated.bmp",
    "truncated.gif",
    "truncated.webp",
)


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_half_a_picture_is_refused_whatever_other_libraries_ask_of_pillow(name, elsewhere, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", elsewhere)
    (with_bad_checksum if name == "checksum.png" else truncated)(tmp_path / name)
    with pytest.raises(FileFormatError, match="damaged or truncated"):
        open_picture(tmp_path / name)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is elsewhere


def test_the_flag_is_put_back_by_the_last_of_many_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    truncated(tmp_path / "half.jpg")
    noisy().save(tmp_path / "whole.png")

    def read(row):
        if row % 3:
            return open_picture(tmp_path / "whole.png").size == (64, 64)
        with pytest.raises(FileFormatError):
            open_picture(tmp_path / "half.jpg")
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(200)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
