"""From a file's bytes to 8-bit RGB pixels, whatever the file has: palette, grey, 16-bit, CMYK, transparency, rotation.

Pillow decides what a file is. simplejpeg decodes plain JPEGs, faster and to the same pixels; Pillow all others.
"""

import io
from contextlib import suppress

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".avif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)  # File endings that count as images, in lower case
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What a file may hold, whatever its name; no format for which Pillow would start another program."""
Pixels = NDArray[np.uint8]  # (H, W, 3) RGB


def decoded(data: bytes, least: int = 0) -> Pixels:
    """The image in a file's bytes.

    Args:
        data: a file in one of FORMATS.
        least: pixels a side that are enough. A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves as many,
            which is several times faster. 0: at its own size.

    Raises:
        ValueError: more pixels than Pillow's limit; decoding them would take gigabytes of memory.
        OSError: not an image, or a damaged one.
    """
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        most = Image.MAX_IMAGE_PIXELS
        if most and image.width * image.height > most:
            raise ValueError(f"{image.width} x {image.height} pixels, more than {most}")
        if least:
            image.draft(None, (least, least))
        plain = image.format == "JPEG" and image.mode == "RGB" and not _rotated(image)
        # Both scale in eighths, so the same size means the same scale, except in images below eight pixels.
        if plain and max(image.size) >= 8:
            with suppress(ValueError):  # Pillow may accept what simplejpeg refuses, or gives the reason
                pixels: Pixels = simplejpeg.decode_jpeg(data, min_width=image.width, min_height=image.height)
                return pixels
        return to_rgb(image)


def _rotated(image: Image.Image) -> bool:
    return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)


def to_rgb(image: Image.Image) -> Pixels:
    """Upright 8-bit RGB; transparent images are put on white, 16-bit grey is scaled and not clipped."""
    if _rotated(image):  # on other images exif_transpose would only make a copy
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return np.array(image.convert("RGB"))
