"""Python objects -> Domain: arrays, tensors, pictures and data sets in memory.

- images: uint8 arrays (N, H, W[, 3]); tensors (N, [3,] H, W), 8-bit or from 0 to 1; lists of paths, pictures or arrays
- data sets with an index, such as torchvision's or a list of (picture, class), and `datasets.Dataset`
- (N, F) numbers are features that were computed elsewhere: they train without a backbone
- a pair (images, labels) has numbers or names as labels; a class's name is the label as text
- one picture is one picture; what may be one or several is refused
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biwaa.domains.domain import Domain
from biwaa.domains.hub import table_domain
from biwaa.domains.items import first_item, labels_of, picture_and_label
from biwaa.domains.labels import read_labels
from biwaa.domains.spec import open_domain
from biwaa.domains.union import union
from biwaa.errors import BiwaaError, listed
from biwaa.files import expanded
from biwaa.images.decoding import Pixels, to_rgb
from biwaa.images.images import ArrayImages, FeatureRows, FileImages, Images, NumberedRows, are_pixels, squeezed
from biwaa.images.unreadable import UnreadableError, reason

ACCEPTED = (
    "a SPEC or path, a pair (images, labels), an array of images (N, H, W[, 3]) in uint8 or of features (N, F), a "
    "torch tensor (N, [3,] H, W), a list of paths or pictures, a torchvision data set or a datasets.Dataset"
)


@dataclass(frozen=True)
class ObjectImages(NumberedRows):
    """Images of anything with an index: a list of pictures, a torchvision data set."""

    items: Any  # At each index an item as of `picture_and_label`

    def read(self, index: int, least: int = 0) -> Pixels:
        """One item as a picture."""
        return to_rgb(_picture(picture_and_label(self.items[int(self.rows[index])])[0]))

    def identity(self) -> frozenset[str]:
        """Each row's number, with the object's address in memory."""
        return frozenset(f"{id(self.items)}[{row}]" for row in self.rows)

    def fingerprint(self) -> str:
        """Hash of all pixels; every item is read once for it, since an index alone tells nothing of its image."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for index in range(len(self)):
            try:
                pixels = self.read(index)
            except Exception as error:  # reported as unreadable when it is decoded for training
                digest.update(reason(error).encode())
                continue
            digest.update(str(pixels.shape).encode())
            digest.update(pixels.tobytes())
        return digest.hexdigest()


def as_domain(given: Any, name: str, data_root: Path | None = None) -> Domain:
    """Images in any accepted form, with labels if it has them.

    Args:
        given: a SPEC or an object, see the module; a Domain is returned as it is.
        name: for messages and predictions, unless the object has its own.
        data_root: the folder of catalogued benchmarks, for SPECs.

    Raises:
        BiwaaError: not an accepted form, or it cannot be used.
    """
    if isinstance(given, Domain):
        return given
    if isinstance(given, (str, os.PathLike)):
        return open_domain(os.fspath(given), data_root)
    if isinstance(given, tuple) and len(given) == 2:
        images = as_images(given[0], name, data_root)
        return Domain.of(name, images, read_labels(given[1], len(images), name))
    given = _one_of_mapping(given, name)
    if _is_table(given):
        return table_domain(name, name, given, {})
    images = as_images(given, name, data_root)
    if isinstance(images, ObjectImages) and not isinstance(given, (Image.Image, np.ndarray, Tensor)):
        return Domain.of(name, images, labels_of(given, name))
    return Domain(name, images)


def as_source(given: Any, data_root: Path | None = None) -> Domain:
    """A source in any accepted form, or the union of several in a list.

    A list is of several sources if each entry is a SPEC or path, a Domain, a pair (images, labels), or a
    datasets.Dataset. (Pictures in a list, each with its class, are one source.)

    Raises:
        BiwaaError: as of `as_domain` and `union`.
    """
    if not isinstance(given, list) or not given or not all(map(_is_source, given)):
        return as_domain(given, "source", data_root)
    if len(given) == 1:
        return as_domain(given[0], "source", data_root)
    return union([as_domain(one, f"source {number}", data_root) for number, one in enumerate(given, 1)])


def _is_source(entry: Any) -> bool:
    """Whether an entry of a list is a source of its own, and not a picture with its class."""
    if isinstance(entry, tuple):
        images, labels = entry if len(entry) == 2 else (None, None)
        several = isinstance(images, (str, os.PathLike, list)) or getattr(images, "ndim", 0) in (2, 4)
        return several and isinstance(labels, (list, tuple, np.ndarray, Tensor)) and np.ndim(labels) == 1
    return isinstance(entry, (str, os.PathLike, Domain)) or _is_table(entry)


def as_images(given: Any, name: str, data_root: Path | None = None) -> Images:
    """As `as_domain`, but only the images; one picture counts as a list of one.

    Raises:
        BiwaaError: as of `as_domain`.
    """
    given = _one_of_mapping(given, name)
    if isinstance(given, (Domain, str, os.PathLike)) or _is_table(given):
        return as_domain(given, name, data_root).images
    if isinstance(given, Image.Image):
        given = [given]
    if hasattr(given, "to_numpy"):
        given = _frame_array(given, name)
    if isinstance(given, Tensor):
        given = _tensor_array(given, name)
    if isinstance(given, np.ndarray):
        return _array(given, name)
    count = _length(given, name)
    if isinstance(given, (list, tuple)):
        if all(isinstance(item, (str, os.PathLike)) for item in given):
            return FileImages(tuple(expanded(item) for item in given))
        odd = [item for item in given if not isinstance(item, (Image.Image, np.ndarray, Tensor, tuple, list, Mapping))]
        if odd:
            raise BiwaaError(f"{name} is a list of {type(odd[0]).__name__}: it must be {ACCEPTED}.")
    first_item(given, name)
    return ObjectImages(name, np.arange(count, dtype=np.int64), given)


def _one_of_mapping(given: Any, name: str) -> Any:
    """What a mapping with a single split holds; all that are no mapping as they are.

    Raises:
        BiwaaError: several values; which one is meant is not clear.
    """
    if not isinstance(given, Mapping):
        return given
    library = sys.modules.get("datasets")
    values = list(given.values())
    if library and len(values) == 1 and isinstance(given, library.DatasetDict):
        return values[0]
    keys = [repr(key) for key in given]
    kind, example = type(given).__name__, f", such as {name}[{keys[0]}]" if keys else ""
    raise BiwaaError(
        f"{name} is a {kind} of {listed(keys) or 'nothing'}: hand over one of its values{example}, or a pair (images, "
        "labels)."
    )


def _is_table(given: Any) -> bool:
    library = sys.modules.get("datasets")
    return library is not None and isinstance(given, library.Dataset)


def _length(given: Any, name: str) -> int:
    """How many items there are, of something with an index.

    Raises:
        BiwaaError: none, or a stream, or no data set at all.
    """
    kind = type(given).__name__
    if isinstance(given, torch.utils.data.DataLoader):
        raise BiwaaError(f"{name} is a {kind}: hand over its data set, {name}.dataset.")
    indexed = hasattr(given, "__getitem__") and not isinstance(given, torch.utils.data.IterableDataset)
    if not indexed and hasattr(given, "__iter__"):
        raise BiwaaError(
            f"{name} is a {kind}, a stream without an index, and images are read more than once: hand over "
            f"list({name}), or load the data set without streaming."
        )
    if not indexed:
        raise BiwaaError(f"{name} is of type {kind}: it must be {ACCEPTED}.")
    try:
        count = len(given)
    except (TypeError, NotImplementedError):
        raise BiwaaError(f"{name} has no length: only data sets with a length and an index can be used.") from None
    if not count:
        raise BiwaaError(f"{name} holds no image: hand over one or more.")
    return count


def _array(array: NDArray[Any], name: str) -> Images:
    if array.ndim == 2 and array.dtype.kind in "fiub":
        return FeatureRows.of(array, name)
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4) and array.dtype == np.uint8:
        return as_images([array], name)  # (H, W, 3) is one picture
    array = squeezed(array)
    if not are_pixels(array):
        raise BiwaaError(
            f"{name} is an array of {array.dtype} and shape {array.shape}: images are uint8 from 0 to 255 of shape "
            "(images, height, width) or (images, height, width, 3), features are numbers of shape (rows, features)."
        )
    if not len(array):
        raise BiwaaError(f"{name} holds no image: hand over one or more.")
    return ArrayImages(array, name)


def _frame_array(frame: Any, name: str) -> Any:
    """Numbers of a pandas or Polars table as an array, a column of paths or pictures as a list."""
    found = np.asarray(frame.to_numpy())
    if found.ndim == 2 and found.dtype.kind not in "fiub":
        raise BiwaaError(f"{name} is a table that is not of numbers alone: hand over (its paths, its labels).")
    return found if found.ndim == 2 else found.tolist()


def _tensor_array(tensor: Tensor, name: str) -> NDArray[Any]:
    """(N, F) as float32; (N, H, W) or (N, 1 or 3, H, W), in bytes or from 0 to 1 -> uint8 (N, H, W[, 3]).

    A single (1, H, W) or (H, W, 3) is one picture. (3, H, W) may be one or three, and is refused.
    """
    tensor = tensor.detach().cpu()
    if tensor.ndim == 2:
        return tensor.to(torch.float32).numpy()
    shape = tuple(tensor.shape)
    if tensor.ndim == 3 and shape[0] in (3, 4):
        one = "[None]" if shape[0] == 3 else "[None, :3]"
        raise BiwaaError(
            f"{name} is a tensor of shape {shape}, one picture or {shape[0]} grey ones: write {name}{one} for one, "
            f"{name}[:, None] for {shape[0]}."
        )
    if tensor.ndim not in (3, 4) or (tensor.ndim == 4 and tensor.shape[1] not in (1, 3)):
        raise BiwaaError(f"{name} is a tensor of shape {shape}: images are (images, 1 or 3, height, width).")
    pixels = _bytes(tensor, name)
    return (pixels if tensor.ndim == 3 else pixels.permute(0, 2, 3, 1)).contiguous().numpy()


def _bytes(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point() or not ((tensor >= 0) & (tensor <= 1)).all():
        raise BiwaaError(
            f"{name} is a tensor of {tensor.dtype} outside [0, 1]: give bytes, or floats from 0 to 1 that are not "
            "normalised (the backbone's normalisation is applied later)."
        )
    return (tensor * 255).round().to(torch.uint8)


def _picture(item: Any) -> Image.Image:
    if isinstance(item, Image.Image):
        return item
    given = item
    if isinstance(item, Tensor):
        item = _bytes(item.detach().cpu(), "an image").numpy()
        item = item.transpose(1, 2, 0) if item.ndim == 3 else item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        flat = item[..., 0] if item.ndim == 3 and item.shape[2] == 1 else item
        if flat.ndim == 2 or (flat.ndim == 3 and flat.shape[2] in (3, 4)):
            return Image.fromarray(np.ascontiguousarray(flat))
    shape = f" {tuple(given.shape)} of {given.dtype}" if isinstance(given, (np.ndarray, Tensor)) else ""
    raise UnreadableError(
        f"an image is {type(given).__name__}{shape}: it must be a picture, an array (H, W[, 3]) in uint8 or a tensor "
        "([3,] H, W)"
    )
