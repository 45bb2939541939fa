"""Tables of the page: cells as text, each with the number that it is sorted and shaded by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Cell(NamedTuple):
    """A cell's text, what it is sorted by, and how strongly it is shaded, from 0 to 1."""

    text: str
    value: float | None = None
    shade: float = 0.0

    @property
    def numeric(self) -> bool:
        """Whether it is set to the right."""
        return self.value is not None or self.text in ("", "-")


NONE = Cell("-")


@dataclass(frozen=True)
class PageTable:
    """The first cell of a row names it."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    sortable: bool = True
    dense: bool = False  # Column heads stand upright, cells are narrow
    folded: bool = False  # Shown when its caption is clicked
    tall: bool = False  # Scrolls by itself

    @cached_property
    def numeric(self) -> tuple[bool, ...]:
        """Whether a column is one of numbers."""
        columns = zip(*self.rows, strict=True)
        return tuple(all(cell.numeric for cell in column) for column in columns) or (False,) * len(self.header)


def percent(share: float | None, sign: bool = False) -> Cell:
    """A share in [0, 1] as percent; a dash where there is none."""
    if share is None or math.isnan(share):
        return NONE
    return Cell(f"{100 * share:+z.1f}" if sign else f"{100 * share:z.1f}", 100 * share)


def number(value: float | None, digits: int = 3) -> Cell:
    """A number, or a dash."""
    return NONE if value is None else Cell(f"{value:z.{digits}f}", value)


def count(value: int, shade: float = 0.0) -> Cell:
    """How many."""
    return Cell(str(value), float(value), shade)


def shaded(column: Sequence[Cell]) -> list[Cell]:
    """Shade a column of numbers from its lowest to its highest."""
    known = [cell.value for cell in column if cell.value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    span = high - low
    return [
        cell if cell.value is None or not span else cell._replace(shade=(cell.value - low) / span) for cell in column
    ]
