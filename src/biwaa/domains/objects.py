"""Python objects -> Domain: arrays, tensors, pictures and data sets in memory.

- images: uint8 arrays (N, H, W[, 3]); tensors (N, [3,] H, W), 8-bit or from 0 to 1; lists of paths, pictures or arrays
- torchvision's map-style data sets, whose items are a picture or (picture, class), and `datasets.Dataset`
- (N, F) numbers are features that were computed elsewhere: they train without a backbone
- a pair (images, labels) has numbers or names as labels; a class's name is the label as text
"""

import hashlib
import os
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
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.files import expanded
from biwaa.images.decoding import Pixels, to_rgb
from biwaa.images.images import ArrayImages, FeatureRows, FileImages, Images, NumberedRows, are_pixels, squeezed

ACCEPTED = (
    "a SPEC or path, a pair (images, labels), an array of images (N, H, W[, 3]) in uint8 or of features (N, F), a "
    "torch tensor (N, [3,] H, W), a list of paths or pictures, a torchvision data set or a datasets.Dataset"
)


@dataclass(frozen=True)
class ObjectImages(NumberedRows):
    """Images of anything with an index: a list of pictures, a torchvision data set."""

    items: Any  # At each index a picture, an array or a tensor, or a tuple that starts with one
    name: str
    rows: NDArray[np.int64]

    def read(self, index: int, least: int = 0) -> Pixels:
        """One item as a picture."""
        item = self.items[int(self.rows[index])]
        return to_rgb(_picture(item[0] if isinstance(item, (tuple, list)) else item))

    def select(self, indices: NDArray[np.int64]) -> "ObjectImages":
        """Keep the items at `indices`."""
        return ObjectImages(self.items, self.name, self.rows[indices])

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
                digest.update(str(error).encode())
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
        return _labelled(name, images, given[1])
    if _is_table(given):
        return table_domain(name, name, given, {})
    if isinstance(given, (np.ndarray, Tensor)) or not hasattr(given, "__getitem__") or isinstance(given, list):
        return Domain(name, as_images(given, name, data_root))
    return _data_set(given, name)


def as_images(given: Any, name: str, data_root: Path | None = None) -> Images:
    """As `as_domain`, but only the images; one picture counts as a list of one.

    Raises:
        BiwaaError: as of `as_domain`.
    """
    if isinstance(given, Image.Image):
        given = [given]
    if isinstance(given, Tensor):
        given = _tensor_array(given, name)
    if isinstance(given, np.ndarray):
        return _array(given, name)
    if isinstance(given, (list, tuple)):
        if not given:
            raise BiwaaError(f"{name} holds no image.")
        if all(isinstance(item, (str, os.PathLike)) for item in given):
            return FileImages(tuple(expanded(item) for item in given))
        if not all(isinstance(item, (Image.Image, np.ndarray, Tensor)) for item in given):
            raise BiwaaError(f"{name} is a list of {type(given[0]).__name__}: it must be {ACCEPTED}.")
        return ObjectImages(given, name, np.arange(len(given), dtype=np.int64))
    if isinstance(given, (str, os.PathLike)) or hasattr(given, "__getitem__"):
        return as_domain(given, name, data_root).images
    raise BiwaaError(f"{name} is of type {type(given).__name__}: it must be {ACCEPTED}.")


def _array(array: NDArray[Any], name: str) -> Images:
    if array.ndim == 2 and array.dtype.kind in "fiub":
        return FeatureRows.of(array, name)
    array = squeezed(array)
    if not are_pixels(array):
        raise BiwaaError(
            f"{name} is an array of {array.dtype} and shape {array.shape}: images are uint8 from 0 to 255 of shape "
            "(images, height, width) or (images, height, width, 3), features are numbers of shape (rows, features)."
        )
    if not len(array):
        raise BiwaaError(f"{name} holds no image.")
    return ArrayImages(array, name)


def _tensor_array(tensor: Tensor, name: str) -> NDArray[Any]:
    """(N, F) as float32; (N, H, W) or (N, 1 or 3, H, W), in bytes or from 0 to 1 -> uint8 (N, H, W[, 3])."""
    tensor = tensor.detach().cpu()
    if tensor.ndim == 2:
        return tensor.to(torch.float32).numpy()
    if tensor.ndim not in (3, 4) or (tensor.ndim == 4 and tensor.shape[1] not in (1, 3)):
        raise BiwaaError(
            f"{name} is a tensor of shape {tuple(tensor.shape)}: images are (images, 1 or 3, height, width)."
        )
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
    if isinstance(item, Tensor):
        pixels = _bytes(item.detach().cpu(), "an image")
        item = (pixels[0] if pixels.ndim == 3 and pixels.shape[0] == 1 else pixels).numpy()
        item = item.transpose(1, 2, 0) if item.ndim == 3 else item
    if isinstance(item, np.ndarray) and item.dtype == np.uint8:
        return Image.fromarray(np.ascontiguousarray(item[..., 0] if item.ndim == 3 and item.shape[2] == 1 else item))
    raise BiwaaError(f"an image is of type {type(item).__name__}: it must be a picture, a uint8 array or a tensor.")


def _is_table(given: Any) -> bool:
    return type(given).__module__.split(".")[0] == "datasets" and hasattr(given, "cast_column")


def _data_set(given: Any, name: str) -> Domain:
    """A map-style data set: names from its `classes`, labels from its `targets` or from each item's second part."""
    if not hasattr(given, "__len__"):
        raise BiwaaError(f"{name} has no length: only data sets with an index can be used.")
    if not len(given):
        raise BiwaaError(f"{name} holds no image.")
    images = ObjectImages(given, name, np.arange(len(given), dtype=np.int64))
    labels = _targets(given)
    if labels is None and isinstance(first := given[0], (tuple, list)) and len(first) > 1:
        labels = np.asarray([int(given[index][1]) for index in range(len(given))])
    if labels is None:
        return Domain(name, images)
    classes = _class_names(given)
    if classes and labels.dtype.kind in "iu" and labels.min() >= 0 and labels.max() < len(classes):
        return Domain(name, images, classes, labels.astype(np.int64))
    return _labelled(name, images, labels)


def _targets(given: Any) -> NDArray[Any] | None:
    """Labels without reading an image, where torchvision's data sets and torch's Subset have them."""
    if isinstance(given, torch.utils.data.Subset):
        targets = _targets(given.dataset)
        return None if targets is None else targets[np.asarray(given.indices, dtype=np.int64)]
    if getattr(given, "target_transform", None) is not None:
        return None  # its items have other labels than its `targets`
    for name in ("targets", "labels", "_labels"):
        found = getattr(given, name, None)
        if found is not None and len(found) == len(given):
            return np.asarray(found)
    return None


def _class_names(given: Any) -> tuple[str, ...] | None:
    while isinstance(given, torch.utils.data.Subset):
        given = given.dataset
    names = getattr(given, "classes", None)
    if names is None or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return None
    return tuple(names)


def _labelled(name: str, images: Images, labels: Any) -> Domain:
    values = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if values.shape != (len(images),) or values.dtype.kind not in "iubUO":
        raise BiwaaError(
            f"{name} has {len(images)} images and labels of {values.dtype} {values.shape}: give each image one label."
        )
    classes, numbers = np.unique(values.astype(str) if values.dtype.kind in "OU" else values, return_inverse=True)
    return Domain(name, images, tuple(str(value) for value in classes), numbers.astype(np.int64))
