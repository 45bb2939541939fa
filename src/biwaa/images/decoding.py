"""From a file's bytes to 8-bit RGB pixels, whatever the file has: palette, grey, 16-bit, CMYK, transparency, rotation.

Pillow decides what a file is. simplejpeg decodes plain JPEGs, faster and to the same pixels; Pillow all others.
`depth` makes 8 bits of deeper grey.
"""

import io
import logging
import threading
import warnings
from contextlib import nullcontext, suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from biwaa.images.depth import shallow
from biwaa.images.unreadable import UnreadableError, kind_of

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".avif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)  # File endings that count as images, in lower case
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What a file may hold, whatever its name; no format for which Pillow would start another program."""
MANY_PIXELS = 2**25
"""From here on images are decoded one at a time: with one on each core, memory would run out."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by the orientation in its EXIF."""
Pixels = NDArray[np.uint8]  # (H, W, 3) RGB

if Image.MAX_IMAGE_PIXELS == 2**30 // 12:  # Pillow's own, which nobody has changed; it refuses twice as many
    Image.MAX_IMAGE_PIXELS = 2**27  # photographs have up to 200 million
# Pillow warns of metadata that is not read here. A filter of the caller's own counts before this one.
warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
logging.getLogger("PIL").addHandler(logging.NullHandler())

_one_large = threading.Lock()


def decoded(data: bytes, least: int = 0) -> Pixels:
    """The image in a file's bytes.

    Args:
        data: a file in one of FORMATS. A JPEG may lack its end marker if all its pixels are there.
        least: pixels a side that are enough. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves as many,
            which is several times faster. 0: at its own size.

    Raises:
        UnreadableError: not an image, more than twice Pillow's MAX_IMAGE_PIXELS, or grey without a known white.
        OSError, ValueError: a damaged image.
    """
    try:
        return _decoded(data, least)
    except UnidentifiedImageError:
        raise UnreadableError(kind_of(data)) from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise UnreadableError(f"more than {most} million pixels: save it smaller") from None
    except OSError:
        ended = data + b"\xff\xd9"
        if not _is_whole_jpeg(ended):
            raise
        return _decoded(ended, least)


def _decoded(data: bytes, least: int) -> Pixels:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if least:
            image.draft(None, (least, least))
        plain = image.format == "JPEG" and image.mode == "RGB" and _orientation(image) == 1
        with _one_large if image.width * image.height > MANY_PIXELS else nullcontext():
            # Both scale in eighths, so the same size means the same scale, except in images below eight pixels.
            if plain and max(image.size) >= 8:
                with suppress(ValueError):  # Pillow may accept what simplejpeg refuses, or gives the reason
                    pixels: Pixels = simplejpeg.decode_jpeg(data, min_width=image.width, min_height=image.height)
                    return pixels
            return to_rgb(image, least)


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether a JPEG decodes without a complaint; Pillow fills what is missing with grey and does not complain."""
    try:
        _, _, space, _ = simplejpeg.decode_jpeg_header(data)
        space = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(space, "RGB")
        simplejpeg.decode_jpeg(data, colorspace=space, min_width=8, min_height=8)  # small: all of it is read anyway
    except ValueError:
        return False
    return True


def _orientation(image: Image.Image) -> int:
    """How the EXIF says that the image lies, 1 to 8; 1 where it does not say, whatever else is wrong with it."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata raise any kind, and the pixels are good
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def to_rgb(image: Image.Image, least: int = 0) -> Pixels:
    """Upright 8-bit RGB; transparent images are put on white, deeper grey is scaled by what is known of it.

    Args:
        image: any.
        least: pixels a side that are enough; an image of more than MANY_PIXELS is reduced, but not below this. 0: at
            its own size.

    Raises:
        UnreadableError: grey without a known white.
        OSError, ValueError: a damaged image.
    """
    upright = shallow(image)  # a TIFF is upright once it is loaded
    turn = TURNS.get(_orientation(image))
    image = upright if turn is None else upright.transpose(turn)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    image = image if image.mode == "RGB" else image.convert("RGB")
    factor = min(image.size) // least if least and image.width * image.height > MANY_PIXELS else 1
    return np.array(image.reduce(factor) if factor > 1 else image)
