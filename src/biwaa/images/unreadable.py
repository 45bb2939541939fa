"""Why an image cannot be read, in words that are the same each time."""

import re

from biwaa.errors import BiwaaError

POINTER = b"version https://git-lfs.github.com/spec/"
KINDS: tuple[tuple[bytes, str], ...] = (
    (rb"\Z", "the file is empty"),
    (re.escape(POINTER), "a Git LFS pointer in the place of the image: get the image with `git lfs pull`"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg\b", "an SVG drawing, not pixels: export it as PNG"),
    (rb"(?i)\s*<(!doctype html|html|head|body)\b", "an HTML page in the place of the image: download the image again"),
    (rb"....ftyp(hei|hev|mif1|msf1)", "a HEIC image, which is not read: save it as JPEG or PNG"),
    (rb"%PDF", "a PDF document, not an image"),
    (rb"PK\x03\x04", "a zip archive, not an image"),
    (rb"\xff\xd8\xff", "a JPEG that is damaged or of a kind that is not read"),
    (rb"\x89PNG", "a PNG that is damaged or of a kind that is not read"),
    (rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+", "a TIFF that is damaged or of a kind that is not read"),
    (rb"RIFF....WEBP", "a WebP that is damaged or of a kind that is not read"),
    (rb"GIF8", "a GIF that is damaged or of a kind that is not read"),
    (rb"\x00+\Z", "nothing but zero bytes"),
)
"""How a file begins -> what it is."""


class UnreadableError(ValueError):
    """A file or an object whose pixels cannot be read, or not without a guess; the text says why."""


def kind_of(data: bytes) -> str:
    """What a file is that is not a readable image, by how it begins."""
    for pattern, kind in KINDS:
        if re.match(pattern, data[:1024], flags=re.DOTALL):
            return kind
    return "not an image of a format that is read"


def reason(error: BaseException) -> str:
    """An error in one line, without addresses in memory: they differ from run to run."""
    text = re.sub(r" (object )?at 0x[0-9a-fA-F]+", "", " ".join(str(error).split()))
    if isinstance(error, UnreadableError | BiwaaError):
        return text.removesuffix(".")
    return f"{type(error).__name__}: {text}".removesuffix(": ")
