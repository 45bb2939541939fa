"""The figure of a bench: what each variant gains over source-only, a dot a task, so that harm is seen."""

import statistics
from pathlib import Path

import matplotlib.figure
from matplotlib.axes import Axes

from biwaa.bench.grid import Bench
from biwaa.bench.rows import Row, gains
from biwaa.files import replacing


def draw(bench: Bench, rows: list[Row], path: Path) -> None:
    """Draw `gains`, best mean on top; nothing where no variant can be compared with its source-only."""
    count = len(gains(bench, rows))
    if not count:
        return
    figure = matplotlib.figure.Figure(figsize=(8, 1.4 + 0.36 * count), layout="constrained")
    axes = gains_figure(bench, rows, figure)
    axes.set_xlabel("points of target accuracy over source-only, last step of the last round")
    axes.set_title(
        f"{bench.entry.title}: {bench.study}. A dot a task (mean over {len(bench.seeds)} seeds), a bar the mean",
        fontsize=10, loc="left",
    )  # fmt: skip
    with replacing(path) as draft:
        figure.savefig(draft, format="png", dpi=150)


def gains_figure(bench: Bench, rows: list[Row], figure: matplotlib.figure.Figure) -> Axes:
    """Dots and bars without a title, on an empty figure."""
    found = gains(bench, rows)
    titles = {variant.name: variant.title for variant in bench.variants}
    order = sorted(found, key=lambda name: statistics.mean(found[name].values()))
    axes = figure.subplots()
    axes.axvline(0, color="0.4", linewidth=1)
    for height, name in enumerate(order):
        points = list(found[name].values())
        harmed = [point < 0 for point in points]
        axes.scatter(points, [height] * len(points), s=22, alpha=0.75, linewidths=0,
                     c=["tab:red" if bad else "tab:blue" for bad in harmed])  # fmt: skip
        axes.plot([statistics.mean(points)] * 2, [height - 0.32, height + 0.32], color="black", linewidth=2)
        axes.annotate(
            f"{statistics.mean(points):+.1f}",
            (1.01, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(order)), [titles[name] for name in order])
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return axes
