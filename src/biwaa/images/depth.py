"""More than 8 bits a channel: to 8 bits by what the file says of its samples, never by a guess.

- unsigned integers: the largest value of their bits is white, or the file's own MaxSampleValue
- floats from 0 to 1: 1 is white
- a TIFF whose zero is white is inverted
- unreadable, since nobody can tell what is white: signed integers, other floats, 32-bit integers in memory, and 16 bits
  that use 12 at most and do not say so
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from biwaa.images.unreadable import UnreadableError

MAX_SAMPLE_VALUE = 281  # TIFF 6.0, page 37
SIGNED = 2  # Of SampleFormat, TIFF 6.0, page 80
TWELVE = 2**12
REMEDY = "save it with 8 bits a channel"


def shallow(image: Image.Image) -> Image.Image:
    """Load an image, with at most 8 bits a channel.

    Raises:
        UnreadableError: which value is white is not known.
        OSError, ValueError: a damaged image.
    """
    deep = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))  # gone once it is loaded
    image.load()
    _check_samples(image)
    if image.mode == "F":
        found = _of_floats(np.asarray(image))
    elif image.mode == "I" or image.mode.startswith("I;16"):
        found = _of_integers(image)
    else:
        if deep:  # Pillow has kept the upper 8 bits
            _check_dark(np.asarray(image.convert("RGB")), TWELVE >> 8)
        return image
    return Image.fromarray(255 - found if _tag(image, PHOTOMETRIC_INTERPRETATION, 1) == 0 else found)


def _of_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # also where one is no number
        raise UnreadableError(f"its floats go from {low:g} to {high:g}, and only 0 to 1 has a known white: {REMEDY}")
    return (values * 255).round().astype(np.uint8)


def _of_integers(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image)
    # Pillow keeps 32 unsigned bits in signed ones.
    values = (values.view(np.uint32) if values.dtype == np.int32 else values).astype(np.uint64)
    white = _white(image)
    if white == 2**16 - 1 and image.format != "PPM":
        _check_dark(values, TWELVE)
    return (values.clip(0, white) * 256 // (white + 1)).astype(np.uint8)


def _white(image: Image.Image) -> int:
    """The value of white."""
    if isinstance(image, TiffImageFile):
        whole = 2 ** _tag(image, BITSPERSAMPLE, 1) - 1
        own = _tag(image, MAX_SAMPLE_VALUE, whole)
        return own if 0 < own < whole else whole
    # Pillow scales a PGM to 16 bits, whatever its white, and older ones keep those of a PNG in 32.
    if image.mode != "I" or image.format in ("PPM", "PNG"):
        return 2**16 - 1
    raise UnreadableError(f"which of its 32-bit integers is white is not known: {REMEDY}")


def _check_dark(values: NDArray[np.generic], limit: int) -> None:
    """Refuse 16 bits that are nearly black: they are 12 bits, or nothing would be seen in them."""
    if 0 < int(values.max()) < limit:
        raise UnreadableError(f"its 16 bits use 12 at most, and it does not say which value is white: {REMEDY}")


def _check_samples(image: Image.Image) -> None:
    """Refuse what Pillow would read as if it were something else."""
    if _tag(image, SAMPLEFORMAT, 1) == SIGNED:
        raise UnreadableError(f"its samples are signed integers, which have no known white: {REMEDY}")
    bits = _tag(image, BITSPERSAMPLE, 8)
    own = _tag(image, MAX_SAMPLE_VALUE, 2**bits - 1)
    if bits > 8 and len(image.getbands()) > 1 and 0 < own < 2 ** (bits - 1):
        raise UnreadableError(f"its {bits}-bit colours go up to {own} only: {REMEDY}")


def _tag(image: Image.Image, number: int, otherwise: int) -> int:
    """The first value of a TIFF's tag, where that is a whole number."""
    if not isinstance(image, TiffImageFile):
        return otherwise
    try:
        found = image.tag_v2.get(number, otherwise)
    except Exception:  # of the wrong type or damaged
        return otherwise
    first = found[0] if isinstance(found, tuple) and found else found
    return first if isinstance(first, int) else otherwise
