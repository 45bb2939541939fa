"""Images as they go into the page: small, and inside it."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from biwaa.errors import BiwaaError
from biwaa.report.read import TargetImages

SIDE = 288  # Pixels of the longer side at most: sharp when enlarged, a few dozen of them in a page that mail takes
TINY = 64  # Images of so few pixels lose nothing and show their pixels


@dataclass(frozen=True)
class Thumbnail:
    """An image of the page, or why there is none."""

    name: str
    caption: str
    detail: str = ""
    uri: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""

    @property
    def tiny(self) -> bool:
        """Whether its pixels are to be seen."""
        return max(self.width, self.height) <= TINY


def thumbnail(images: TargetImages, name: str, caption: str, detail: str = "") -> Thumbnail:
    """Read, shrink and encode one image."""
    try:
        image = images.read(name)
    except BiwaaError as error:
        return Thumbnail(name, caption, detail, missing=str(error))
    image.thumbnail((SIDE, SIDE))
    return Thumbnail(name, caption, detail, data_uri(image), *image.size)


def data_uri(image: Image.Image) -> str:
    """RGB image to a data URI: PNG where small, JPEG otherwise."""
    form = "PNG" if max(image.size) <= TINY else "JPEG"
    written = io.BytesIO()
    image.save(written, form, **({"optimize": True} if form == "PNG" else {"quality": 80}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(written.getvalue()).decode()}"
