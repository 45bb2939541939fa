"""Figures as inline SVG whose colours and type are the page's own, so that they follow light and dark."""

import io
import itertools
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from biwaa.errors import printable
from biwaa.result import REFERENCES, SOURCE_ONLY

INK, MUTED, LINE, ACCENT, SOURCE, HARM = "#000000", "#666666", "#e6e6e6", "#1f77b4", "#7f7f7f", "#d62728"
PALETTE = tuple(f"#0000f{digit}" for digit in range(10))
"""Stand-ins: matplotlib wants colours, the page wants names of its style sheet."""
VARIABLES = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", SOURCE: "--source", HARM: "--harm",
    **{colour: f"--class-{number}" for number, colour in enumerate(PALETTE)},
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"
_numbers = itertools.count()


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    svg: Markup
    title: str
    alternative: str  # What it shows, in words, for readers who cannot see it
    note: str = ""


Points = tuple[NDArray[np.float64], str, bool]
"""(n, 2) positions, a colour, and whether the points are filled."""


@contextmanager
def figure(width: float, height: float) -> Iterator[matplotlib.figure.Figure]:
    """A figure in inches, in the page's manner; names are never read as mathematics."""
    settings: Any = {
        "svg.fonttype": "none", "text.parse_math": False, "font.size": 8, "axes.edgecolor": MUTED,
        "axes.labelcolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "axes.spines.top": False,
        "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
        "xtick.major.size": 2.5, "ytick.major.size": 2.5, "axes.grid.axis": "y", "grid.color": LINE,
        "grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4, "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def picture(drawn: matplotlib.figure.Figure, title: str, alternative: str, note: str = "") -> Picture:
    """The figure as SVG for a page: no address, no style sheet and no name that another figure has."""
    text = io.StringIO()
    drawn.patch.set_alpha(0)
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "biwaa"}):
        warnings.simplefilter("ignore", UserWarning)  # letters that matplotlib's font lacks: the page's own has them
        drawn.savefig(text, format="svg", metadata={"Date": None})
    root = ET.fromstring(text.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style"):
                parent.remove(child)
    mark = f"f{next(_numbers)}-"
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        element.attrib = {_plain(key): _own(_plain(key), value, mark) for key, value in element.attrib.items()}
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": printable(alternative)}
    return Picture(Markup(ET.tostring(root, encoding="unicode")), title, alternative, note)


def _plain(key: str) -> str:
    return key.rpartition("}")[2]


def _own(key: str, value: str, mark: str) -> str:
    if key == "id":
        return mark + value
    if key == "href":
        return value.replace("#", f"#{mark}", 1) if value.startswith("#") else value
    value = re.sub(r"url\(#", f"url(#{mark}", value)
    if key == "style":
        for colour, name in VARIABLES.items():
            value = value.replace(colour, f"var({name})")
    return value


def scatter(groups: Sequence[Points], span: float, title: str, alternative: str) -> Picture:
    """Points without axes, as wide as `span` around their middle.

    Args:
        groups: of points, later ones on top.
        span: side of the square shown, the same for all states of one fit.
        title: of the figure.
        alternative: in words.
    """
    every = np.concatenate([points for points, _, _ in groups])
    with figure(3.1, 3.1) as drawn:
        axes = drawn.subplots()
        for points, colour, filled in groups:
            face = colour if filled else "none"
            width = 0.0 if filled else 0.6
            x, y = points.T
            axes.scatter(x, y, s=7 if filled else 8, facecolors=face, edgecolors=colour, linewidths=width, alpha=0.75)
        for limit, values in ((axes.set_xlim, every[:, 0]), (axes.set_ylim, every[:, 1])):
            middle = float(values.min() + values.max()) / 2
            limit(middle - span / 2, middle + span / 2)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(True)
            spine.set_color(LINE)
        return picture(drawn, title, alternative)


def curves(
    lines: Sequence[tuple[str, Sequence[float], Sequence[float]]], title: str, alternative: str,
    level: float | None = None, note: str = "",
) -> Picture:  # fmt: skip
    """A figure over training steps, a line a stage: source-only grey, later rounds darker.

    Args:
        lines: stage, steps, values.
        title: of the figure.
        alternative: in words.
        level: a height worth a dashed line.
        note: below it.
    """
    with figure(2.6, 1.7) as drawn:
        axes = drawn.subplots()
        for (stage, x, y), (colour, alpha) in zip(lines, shades([stage for stage, _, _ in lines]), strict=True):
            axes.plot(x, y, color=colour, alpha=alpha, marker="o" if len(x) == 1 else None, markersize=3, label=stage)
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.grid(True)
        axes.set_xlabel("step")
        axes.locator_params(nbins=4)
        return picture(drawn, title, alternative, note)


def shades(stages: Sequence[str]) -> list[tuple[str, float]]:
    """Colour and opacity of each stage: source-only grey, rounds from light to full."""
    rounds = [stage for stage in stages if stage not in REFERENCES]
    steps = max(len(rounds) - 1, 1)
    return [
        (SOURCE if stage == SOURCE_ONLY else MUTED, 1.0) if stage in REFERENCES
        else (ACCENT, round(1 - 0.7 * (len(rounds) - 1 - rounds.index(stage)) / steps, 3))
        for stage in stages
    ]  # fmt: skip


def by_stage(
    stages: Sequence[str], lines: Sequence[tuple[str, Sequence[float | None], str, str]], selected: str, unit: str,
    title: str, alternative: str,
) -> Picture:  # fmt: skip
    """A value a stage; the stage whose model was selected has a ring.

    Args:
        stages: their names.
        lines: label, a value a stage, colour, line style.
        selected: of the stages.
        unit: on the axis.
        title: of the figure.
        alternative: in words.
    """
    with figure(4.2, 2.2) as drawn:
        axes = drawn.subplots()
        for label, values, colour, style in lines:
            places = [place for place, value in enumerate(values) if value is not None]
            known = [value for value in values if value is not None]
            axes.plot(places, known, color=colour, linestyle=style, marker="o", markersize=3.5, label=label)
            for place in places:
                if stages[place] == selected:
                    axes.plot(place, known[places.index(place)], "o", markersize=9, mfc="none", mec=colour)
        axes.set_xticks(range(len(stages)), [stage.replace("round ", "") for stage in stages])
        axes.set_xlabel("round")
        axes.set_ylabel(unit)
        axes.margins(x=0.06, y=0.15)
        axes.grid(True)
        if len(lines) > 1:
            axes.legend(frameon=False, labelcolor=MUTED, loc="best")
        return picture(drawn, title, alternative)


def dots(
    names: Sequence[str], lines: Sequence[tuple[str, Sequence[float], str, float, str]], title: str, alternative: str,
    note: str = "",
) -> Picture:  # fmt: skip
    """Shares of classes in percent, a row a class.

    Args:
        names: of the rows, the first on top.
        lines: label (empty: not in the legend), a share a row, colour, opacity, marker.
        title: of the figure.
        alternative: in words.
        note: below it.
    """
    with figure(4.2, 0.9 + 0.22 * len(names)) as drawn:
        axes = drawn.subplots()
        height = range(len(names))
        for label, values, colour, alpha, marker in lines:
            tick = marker == "|"
            axes.plot(values, height, marker, color=colour, alpha=alpha, label=label or None,
                      markersize=9 if tick else 5, markeredgewidth=1.4 if tick else 0.9,
                      mfc="none" if marker == "o" and colour == SOURCE else None)  # fmt: skip
        axes.set_yticks(height, [short(name) for name in names])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first row on top, no marker cut
        axes.set_xlim(0, 1.04 * axes.get_xlim()[1])  # the last marker is not cut
        axes.set_xlabel("percent of the images")
        axes.grid(True, axis="both", color=LINE)
        drawn.legend(frameon=False, labelcolor=MUTED, loc="outside upper left", ncols=5, handletextpad=0.2,
                     columnspacing=1.2, borderaxespad=0)  # fmt: skip
        return picture(drawn, title, alternative, note)


def short(name: str, most: int = 22) -> str:
    """A name that fits next to an axis."""
    plain = printable(name)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def heat(shares: NDArray[np.float64], title: str, alternative: str, note: str = "") -> Picture:
    """A (K, K) matrix of shares in [0, 1] as a picture: for more classes than a table can show."""
    # A picture in a picture cannot follow the style sheet: a teal of growing opacity is legible on light and dark.
    teal = LinearSegmentedColormap.from_list("teal", [(0.12, 0.58, 0.53, 0.0), (0.12, 0.58, 0.53, 1.0)])
    with figure(4.2, 4.2) as drawn:
        axes = drawn.subplots()
        axes.imshow(np.sqrt(shares), cmap=teal, vmin=0, vmax=1, interpolation="nearest")
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        return picture(drawn, title, alternative, note)
