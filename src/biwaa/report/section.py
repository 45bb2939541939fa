"""What a section of the page holds: words, tables, pictures and images, without any markup."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from biwaa.report.cells import PageTable
from biwaa.report.pictures import VARIABLES, Picture
from biwaa.report.thumbnails import Thumbnail


@dataclass(frozen=True)
class Figure:
    """One of the few big numbers."""

    value: str
    label: str
    note: str = ""
    estimated: bool = False  # Drawn weaker: it was not measured


@dataclass(frozen=True)
class Step:
    """Something to do."""

    title: str
    text: str
    command: str
    expect: str


class Swatch(NamedTuple):
    """A line of a legend."""

    name: str
    colour: str  # As of `pictures`
    strength: float = 1.0

    @property
    def variable(self) -> str:
        """Of the style sheet."""
        return VARIABLES[self.colour]


@dataclass(frozen=True)
class Group:
    """Pictures that stand together."""

    pictures: list[Picture]
    shape: Literal["pictures", "squares", "small", "whole"] = "pictures"
    title: str = ""
    legend: list[Swatch] = field(default_factory=list)


@dataclass
class Section:
    """A question and its answer."""

    name: str
    title: str
    lead: str = ""
    figures: list[Figure] = field(default_factory=list)
    warnings: list[str] | None = None
    groups: list[Group] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    gallery: list[Thumbnail] = field(default_factory=list)
    gallery_title: str = ""
    notes: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    code: list[tuple[str, str]] = field(default_factory=list)
