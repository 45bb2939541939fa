"""From a file's bytes to 8-bit RGB pixels.

- whatever the file holds: palette, grey, 16-bit, CMYK, transparency, EXIF rotation
- plain JPEGs are decoded by simplejpeg, to the same pixels as Pillow's and faster; everything else by Pillow
"""

import io
from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".avif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""File endings that count as images, in lower case."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What a file may hold, whatever its name: no format that Pillow would start another program for."""
Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB."""


def decoded(data: bytes, least: int = 0) -> Pixels:
    """The image that a file's bytes stand for.

    Args:
        data: of a file in one of FORMATS.
        least: pixels a side that are enough: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where as many stay, which
            is several times faster. 0: at its own size.

    Raises:
        ValueError: it has more pixels than Pillow's limit: decoding it would take gigabytes of memory.
        OSError: it is none, or is damaged.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        most = Image.MAX_IMAGE_PIXELS
        if most and image.width * image.height > most:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {most}")
        if least:
            image.draft(None, (least, least))
        plain = image.format == "JPEG" and image.mode == "RGB" and not _turned(image)
        # Scaled in eighths to the same size: that is the same scale, but in images smaller than eight pixels.
        if plain and max(image.size) >= 8:
            with suppress(ValueError):  # what it does not take, Pillow may, or says why not
                pixels: Pixels = simplejpeg.decode_jpeg(data, min_width=image.width, min_height=image.height)
                return pixels
        return to_rgb(image)


def _turned(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_rgb(image: Image.Image) -> Pixels:
    """Upright 8-bit RGB; transparency is laid over white, 16-bit grey is scaled, not clipped."""
    if _turned(image):  # otherwise only a copy is made
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))
