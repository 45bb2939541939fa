"""The items of a data set: which part is the picture and which the label, and what a label's number is called.

- an item is a picture, (picture, label), (label, picture), (picture, label, more), or a mapping with one picture
- a data set's own names of classes count only where its items have the numbers that these names are for
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biwaa.domains.labels import MISSING, Labels, read_labels
from biwaa.errors import BiwaaError, listed
from biwaa.images.unreadable import reason

LABEL_FIELDS = ("label", "labels", "target", "class", "y")
"""Fields of a mapping that hold the label, whatever others there are."""
NONE = object()
"""The label of an item that has none."""


def picture_and_label(item: Any) -> tuple[Any, Any]:
    """The two parts of an item; NONE for the label of a picture alone.

    Raises:
        BiwaaError: it does not have one picture, or which part is the label is not clear.
    """
    if isinstance(item, Mapping):
        return _of_mapping(item)
    if is_picture(item):
        return item, NONE
    if not isinstance(item, (tuple, list)):
        raise BiwaaError(f"an item of a data set is {_called(item)}: it must be a picture, or a picture and its class.")
    places = [place for place, part in enumerate(item) if is_picture(part)]
    if len(places) != 1 or (len(item) > 2 and places != [0]):
        parts = ", ".join(_called(part) for part in item[:6])
        raise BiwaaError(f"an item of a data set is ({parts}): it must be a picture, or a picture and its class.")
    rest = [part for place, part in enumerate(item) if place != places[0]]
    return item[places[0]], rest[0] if rest else NONE


def is_picture(part: Any) -> bool:
    """Whether this is a picture, or an array or tensor with a height and a width."""
    return isinstance(part, Image.Image) or (isinstance(part, (np.ndarray, Tensor)) and part.ndim in (2, 3))


def _of_mapping(item: Mapping[Any, Any]) -> tuple[Any, Any]:
    pictures = [field for field, part in item.items() if is_picture(part)]
    others = [field for field in item if field not in pictures]
    named = [field for field in others if field in LABEL_FIELDS]
    if len(pictures) == 1 and (len(others) <= 1 or len(named) == 1):
        return item[pictures[0]], item[(named or others)[0]] if others else NONE
    raise BiwaaError(
        f"an item of a data set has the fields {listed([str(field) for field in item])}: it must have one picture, and "
        "its class in the field `label`."
    )


def _called(part: Any) -> str:
    shape = getattr(part, "shape", None)
    return f"{type(part).__name__} {tuple(shape)}" if shape else type(part).__name__


def item_of(given: Any, index: int, name: str) -> Any:
    """An item of a data set.

    Raises:
        BiwaaError: it cannot be had; the message has its number.
    """
    try:
        return given[index]
    except Exception as error:  # of somebody else's code
        raise BiwaaError(
            f"{name}[{index}] cannot be read ({reason(error)[:300]}): a data set gives a picture, or a picture and its "
            "class, for each index."
        ) from None


def first_item(given: Any, name: str) -> tuple[Any, Any]:
    """Picture and label of the first of a few items that can be had: one broken file says nothing of the others.

    Raises:
        BiwaaError: none can be read, or it has no clear picture and label.
    """
    for index in range(min(len(given), 10) - 1):
        with suppress(BiwaaError):
            found = item_of(given, index, name)
            return picture_and_label(found)
    return picture_and_label(item_of(given, 0, name))


def labels_of(given: Any, name: str) -> Labels | None:
    """Labels of a data set, by its own names of classes where these fit; None where it has no labels.

    Args:
        given: at least one item.
        name: for messages.

    Raises:
        BiwaaError: an item cannot be read, or it has no clear picture and label.
    """
    listed_labels = _listed(given, name)
    if listed_labels is not None and _items_agree(given, listed_labels, name):
        return _named(listed_labels, _class_names(given))
    if first_item(given, name)[1] is NONE:
        return listed_labels
    found = [picture_and_label(item_of(given, index, name))[1] for index in range(len(given))]
    labels = read_labels([None if label is NONE else label for label in found], len(given), name)
    if labels is None or listed_labels is not None or _renumbers(given):
        return labels
    return _named(labels, _class_names(given))


def _listed(given: Any, name: str) -> Labels | None:
    """Labels that are there without reading an image, as in torchvision's data sets and torch's Subset."""
    values = _values(given)
    try:
        return None if values is None else read_labels(values, len(given), name)
    except BiwaaError:
        return None  # boxes, masks: not what its items are called


def _values(given: Any) -> NDArray[Any] | None:
    if isinstance(given, torch.utils.data.Subset):
        values = _values(given.dataset)
        return None if values is None else values[np.asarray(given.indices, dtype=np.int64)]
    for attribute in ("targets", "labels", "_labels"):
        found = getattr(given, attribute, None)
        if isinstance(found, (list, tuple, np.ndarray, Tensor)) and len(found) == len(given):
            if isinstance(found, Tensor):
                return np.asarray(found.detach().cpu())
            return found if isinstance(found, np.ndarray) else np.array(found, dtype=object)
    return None


def _items_agree(given: Any, labels: Labels, name: str) -> bool:
    """Whether an item of each class has the label that is listed for it: a transform may renumber labels."""
    rows = [int(np.flatnonzero(labels.numbers == number)[0]) for number in range(len(labels.classes))]
    known, texts = [], []
    for row in rows:
        try:
            label = picture_and_label(given[row])[1]
        except Exception:  # reported when it is decoded
            continue
        if label is NONE:
            return False
        known.append(label)
        texts.append(labels.classes[labels.numbers[row]])
    try:
        found = read_labels(known, len(known), name) if known else None
    except BiwaaError:
        return False
    if found is None:
        return not known
    return [found.classes[number] if number != MISSING else None for number in found.numbers] == texts


def _renumbers(given: Any) -> bool:
    """Whether a transform stands between the labels that the data set's names are for and those of its items."""
    while isinstance(given, torch.utils.data.Subset):
        given = given.dataset
    both = getattr(given, "transforms", None)  # torchvision's, of picture and label together
    own = getattr(given, "target_transform", None)
    return own is not None or (both is not None and not hasattr(both, "target_transform"))


def _class_names(given: Any) -> tuple[str, ...] | None:
    while isinstance(given, torch.utils.data.Subset):
        given = given.dataset
    names = getattr(given, "classes", None)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(set(names)) == len(names) else None


def _named(labels: Labels, names: tuple[str, ...] | None) -> Labels:
    """Labels by the names of their numbers, where each number has one."""
    if not names or labels.kind != "integer":
        return labels
    places = np.array([int(text) for text in labels.classes], dtype=np.int64)
    if places.min() < 0 or places.max() >= len(names):
        return labels
    return Labels(names, np.where(labels.numbers == MISSING, MISSING, places[labels.numbers]), "text")
