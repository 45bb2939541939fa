"""Labels as somebody has them -> classes by name, numbers, and the type that they come back in.

- None, NaN, -1 and empty text are missing labels. A source may have none of them; a target's reports pass them over
- whole numbers and truth values come back as such from `predict`; all else are names
- one-hot rows are the numbers of their ones
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from biwaa.errors import BiwaaError

MISSING = -1
UNKNOWN = "unknown"
"""The label of images of no known class."""
LabelKind = Literal["text", "integer", "boolean"]


class Labels(NamedTuple):
    """Labels of N images in K classes."""

    classes: tuple[str, ...]  # K names, in the order of the labels themselves
    numbers: NDArray[np.int64]  # (N,) indices into `classes`, or MISSING
    kind: LabelKind


def read_labels(given: Any, count: int, name: str) -> Labels | None:
    """Labels of `count` images; None where all are missing.

    Args:
        given: a sequence of numbers, truth values, names or one-hot rows: an array, a list, a tensor, a column.
        count: how many there must be.
        name: of the domain, for messages.

    Raises:
        BiwaaError: another number of labels, or anything that is no label.
    """
    if isinstance(given, (str, bytes, dict, set)) or not hasattr(given, "__iter__"):
        raise BiwaaError(f"{name} has labels of type {type(given).__name__}: give each image one label, in a list.")
    values = _one_dimensional(_array(given), name)
    if values.shape != (count,):
        raise BiwaaError(f"{name} has {count} images and {values.size} labels: give each image one label.")
    known = ~missing(values)
    if not known.any():
        return None
    kept, kind = _of_one_kind(values[known], name)
    classes, places = np.unique(kept, return_inverse=True)
    numbers = np.full(count, MISSING, dtype=np.int64)
    numbers[known] = places
    return Labels(tuple(str(value) for value in classes.tolist()), numbers, kind)


def as_given(classes: Iterable[str], kind: LabelKind) -> NDArray[Any]:
    """(K,) classes in the type that their labels had."""
    if kind == "text":
        return np.asarray(list(classes), dtype=str)
    return np.asarray([int(name) if kind == "integer" else name == "True" for name in classes])


def missing(values: NDArray[Any], marks: tuple[int, ...] = (MISSING,)) -> NDArray[np.bool_]:
    """(N,) which of N labels are None, NaN, empty text, or a number of `marks`."""
    if values.dtype.kind in "iub":
        return np.isin(values, marks) if values.dtype.kind == "i" else np.zeros(len(values), dtype=bool)
    return np.array([_is_missing(value, marks) for value in values.tolist()], dtype=bool)


def _is_missing(value: Any, marks: tuple[int, ...]) -> bool:
    if value is None or isinstance(value, bool):
        return value is None
    if isinstance(value, str):
        return not value.strip()
    try:
        return bool(value != value or value in marks)  # NaN differs from itself
    except TypeError:  # pandas' NA does not say
        return True


def _array(given: Any) -> NDArray[Any]:
    """As an array of what is there: NumPy makes text of numbers and None that stand beside names."""
    if hasattr(given, "detach"):
        return np.asarray(given.detach().cpu())
    if isinstance(given, np.ndarray):
        return given
    items = [_item(value) for value in given]
    if items and all(isinstance(value, np.ndarray) for value in items) and len({value.shape for value in items}) == 1:
        return np.stack(items)
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found


def _item(value: Any) -> Any:
    """A number, a name, or an array of several of them."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)):
        value = np.asarray(value)
    return value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value


def _one_dimensional(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Numbers in the place of one-hot rows."""
    if values.ndim == 1:
        return values
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim == 2 and values.shape[1] > 1 and values.dtype.kind in "iubf":
        if ((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all():
            return np.asarray(values.argmax(axis=1))
        raise BiwaaError(f"{name} has several labels an image: give each image one label, a number or a name.")
    raise BiwaaError(f"{name} has labels of shape {values.shape}: give each image one label, a number or a name.")


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _of_one_kind(values: NDArray[Any], name: str) -> tuple[NDArray[Any], LabelKind]:
    """Labels that are not missing, all of one type: names where there is any name among them."""
    if values.dtype.kind in "iu":
        return values, "integer"
    if values.dtype.kind == "b":
        return values, "boolean"
    items = values.tolist()
    if all(isinstance(value, bool) for value in items):
        return np.asarray(items, dtype=bool), "boolean"
    if all(_is_whole(value) for value in items):
        return np.asarray([int(value) for value in items]), "integer"
    if all(isinstance(value, (str, int)) for value in items):
        return np.asarray([str(value) for value in items]), "text"
    other = next(value for value in items if not isinstance(value, (str, int)))
    raise BiwaaError(f"{name} has the label {str(other)[:60]!r} of type {type(other).__name__}: give numbers or names.")
