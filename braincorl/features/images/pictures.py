"""One image file to one RGB picture, or one line that says why not.

Backbones expect upright 8-bit RGB. Files are not always so: this module turns what has one obvious meaning into RGB
(grey, palette, CMYK, 16-bit, transparency over a stated background, a camera's rotation flag) and refuses what has
none (animations, floating-point pixels, damaged or truncated files, pictures too large to open safely).
Colour profiles are ignored, as the backbones' own training pipelines ignore them.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from braincorl.errors import FileFormatError, InputError
from braincorl.storage.files import check_regular, reading

if TYPE_CHECKING:
    from PIL import Image as PILImage

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jfif")

# A strip this thin, resized until its short side fills the network's input, would need gigabytes.
MAX_ASPECT_RATIO = 50

# Phones append depth maps or thumbnails to a JPEG as further "frames"; the first is the photograph.
_FIRST_FRAME_IS_THE_PICTURE = ("MPO",)


class _WholePicturesOnly:
    """While any thread is inside, Pillow refuses a truncated file, whatever the process asked of it.

    `ImageFile.LOAD_TRUNCATED_IMAGES` is one switch for the whole process, and other libraries turn it on: half of one
    would then be read as whole, grey below. The last thread out puts it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        from PIL import ImageFile

        with self._lock:
            if self._inside == 0:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES
            self._inside += 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False

    def __exit__(self, *_: object) -> None:
        from PIL import ImageFile

        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_whole_pictures_only = _WholePicturesOnly()


def open_picture(path: str | Path, background: str = "white") -> PILImage.Image:
    """Read an image file as upright 8-bit RGB.

    Parameters
    ----------
    path
        The file.
    background
        Colour behind transparent pixels, a name or `#rrggbb`.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    InputError
        If the file is missing, animated, of a pixel type without one meaning, too large, or too thin.
    FileFormatError
        If it is empty, damaged, truncated, or no image.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path)
    check_regular(path, "picture")
    with reading(path, "is damaged or truncated"):
        try:
            # Opened here, because Pillow garbles turned TIFF pictures that it maps into memory by their name.
            with _whole_pictures_only, path.open("rb") as file, Image.open(file) as image:
                _check_header(image, path)
                image.load()
                return to_rgb(image, background, str(path))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(f"{path} has too many pixels to be opened safely ({error}): resize it first.") from error
        except UnidentifiedImageError as error:
            raise FileFormatError(f"{path} is not an image of a known kind: convert it to PNG or JPEG.") from error


def to_rgb(image: PILImage.Image, background: str = "white", name: str = "the image") -> PILImage.Image:
    """Turn an opened picture of any mode into upright RGB.

    Parameters
    ----------
    image
        Any Pillow image whose values have one meaning as a colour.
    background
        Colour behind transparent pixels.
    name
        For the error message.

    Returns
    -------
    PIL.Image.Image
        Mode RGB; the same object if nothing had to change.

    Raises
    ------
    InputError
        If the mode has no one meaning as a colour (float, 32-bit integer, LAB).
    """
    from PIL import Image, ImageOps

    turned = image.getexif().get(0x0112, 1) != 1  # asked first: the conversion of 16-bit pictures forgets it
    image = ImageOps.exif_transpose(image) if turned else image
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16-bit values at 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise InputError(
            f"{name} has pixels of type {image.mode}, whose range is not stated: save it as 8-bit or 16-bit PNG."
        )
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        over = image.convert("RGBA")
        under = Image.new("RGBA", over.size, background)
        return Image.alpha_composite(under, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def array_to_picture(
    pixels: npt.NDArray[np.uint8], background: str = "white", name: str = "the image"
) -> PILImage.Image:
    """Turn pixels (height, width), (height, width, 3) or (height, width, 4), uint8, into an RGB picture."""
    from PIL import Image

    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), background, name)


def check_background(background: str) -> str:
    """Colour as `#rrggbb`.

    Raises
    ------
    InputError
        If it is no colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(background)[:3]
    except (ValueError, AttributeError) as error:
        raise InputError(f"background is {background!r}, which is no colour: pass a name or '#rrggbb'.") from error
    return f"#{red:02x}{green:02x}{blue:02x}"


def _check_header(image: PILImage.Image, path: Path) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _FIRST_FRAME_IS_THE_PICTURE:
        raise InputError(f"{path} is animated or has {frames} pages: save the one that was shown as PNG.")
    from PIL import Image

    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise InputError(
            f"{path} has {width} x {height} pixels, more than {Image.MAX_IMAGE_PIXELS:,}: resize it first."
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"{path} is a strip of {width} x {height} pixels (over {MAX_ASPECT_RATIO}:1): crop it first.")
