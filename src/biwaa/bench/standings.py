"""The joint table of a panel: a row a method, a column a data set.

- a column is the mean over a data set's tasks, `mean` the mean over the data sets, however many tasks each has
- a mean stands only where every run is there
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from biwaa.bench.grid import Bench, load_bench
from biwaa.bench.panel import PARTS, parts_left_out
from biwaa.bench.render import backbone_text, machines, table_lines, write_tables
from biwaa.bench.rows import FIGURES, Figure, Row, accuracy_of, read_runs
from biwaa.bench.suites import SOURCE_ONLY
from biwaa.bench.tables import Table
from biwaa.errors import BiwaaError
from biwaa.files import csv_line, write_text

HARM = 1.0  # Points below source-only that count as harm


class Standing(Struct, frozen=True, kw_only=True):
    """A method on the whole panel; accuracies in percent, over images."""

    figure: Figure
    variant: str
    title: str
    data_sets: dict[str, float | None]
    """Mean over a data set's tasks; None where a run is missing."""
    mean: float | None  # Over data sets
    worst_points: float | None  # Over source-only, on the task where that is least
    worst_task: str
    harmed: int  # Tasks more than HARM points below source-only
    tasks: int  # Tasks that can be compared with source-only
    estimate_error: float | None  # Mean over data sets of the mean distance from estimated to true accuracy
    seconds: float | None  # A run, mean over data sets


def standings(benches: dict[str, Bench], rows: dict[str, list[Row]], figure: Figure) -> list[Standing]:
    """A row for each method; the parts' names are the keys of both."""
    read = accuracy_of(figure)
    tasks = {(name, task): _data_set(name) for name, bench in benches.items() for task in bench.tasks}
    titles = {variant.name: variant.title for bench in benches.values() for variant in bench.variants}
    values: dict[str, dict[tuple[str, str], float]] = {}
    for variant in titles:
        values[variant] = {}
        for name, task in tasks:
            mine = [row for row in rows[name] if (row.variant, row.task) == (variant, task)]
            found = [value for row in mine if (value := read(row)) is not None]
            if len(found) == len(benches[name].seeds):
                values[variant][name, task] = statistics.mean(found)
    return [
        _standing(figure, variant, title, tasks, values[variant], values.get(SOURCE_ONLY, {}), rows)
        for variant, title in titles.items()
    ]


def _data_set(part: str) -> str:
    """The column of a part, by its name."""
    return part.partition(".")[0]


def _standing(
    figure: Figure,
    variant: str,
    title: str,
    tasks: dict[tuple[str, str], str],
    mine: dict[tuple[str, str], float],
    source_only: dict[tuple[str, str], float],
    rows: dict[str, list[Row]],
) -> Standing:
    data_sets: dict[str, float | None] = {}
    errors, seconds = [], []
    for data_set in dict.fromkeys(tasks.values()):
        found = [mine.get(key) for key, column in tasks.items() if column == data_set]
        there = [value for value in found if value is not None]
        data_sets[data_set] = statistics.mean(there) if len(there) == len(found) else None
        runs = [r for name in rows if _data_set(name) == data_set for r in rows[name] if r.variant == variant]
        errors.append(_mean([row.estimate_error for row in runs if row.estimate_error is not None]))
        seconds.append(_mean([row.cost.seconds for row in runs]))
    gains = {key: value - source_only[key] for key, value in mine.items() if key in source_only}
    worst = min(gains, key=lambda key: gains[key], default=None)
    return Standing(
        figure=figure,
        variant=variant,
        title=title,
        data_sets=data_sets,
        mean=None if None in data_sets.values() else _mean(data_sets.values()),
        worst_points=None if worst is None else gains[worst],
        worst_task="" if worst is None else " ".join(worst),
        harmed=sum(points < -HARM for points in gains.values()),
        tasks=len(gains),
        estimate_error=_mean(errors),
        seconds=_mean(seconds),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there; None of none."""
    found = [value for value in values if value is not None]
    return statistics.mean(found) if found else None


def _table(figure: Figure, found: list[Standing], counts: dict[str, int]) -> Table:
    def cell(value: float | None, form: str = ".1f") -> str:
        return "-" if value is None else format(value, form)

    lines = tuple(
        (
            line.title, *map(cell, line.data_sets.values()), cell(line.mean),
            *(("", "") if line.variant == SOURCE_ONLY else
              (f"{cell(line.worst_points, '+.1f')} {line.worst_task}".strip(), f"{line.harmed} of {line.tasks}")),
            cell(line.estimate_error), cell(line.seconds),
        )
        for line in found
    )  # fmt: skip
    columns = (f"{name} ({count} task{'s' if count > 1 else ''})" for name, count in counts.items())
    header = ("", *columns, "mean over data sets", "worst task against source-only",
              f"more than {HARM:g} point below source-only", "error of the estimate", "seconds a run")  # fmt: skip
    return Table(f"Target accuracy over images: {FIGURES[figure]}", header, lines)


def _csv(found: list[Standing]) -> str:
    lines: list[list[str]] = []
    for line in found:
        facts = msgspec.to_builtins(line)
        flat = {name: value for name, value in facts.items() if name != "data_sets"} | facts["data_sets"]
        lines += [] if lines else [[*flat]]
        lines.append(["" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v) for v in flat.values()])
    return "".join(csv_line(*cells) for cells in lines)


def show_panel(folder: Path) -> str:
    """The joint page as it stands, as Markdown; table.md, .csv and .json are written anew, those of all parts too.

    Raises:
        BiwaaError: the folder holds no panel, or one of another version.
    """
    noted = parts_left_out(folder)
    names = [part.name for part in PARTS if (folder / part.name / "bench.json").exists()]
    benches = {name: load_bench(folder / name) for name in names}
    if not benches:
        raise BiwaaError(f"{folder} holds no bench of the panel yet: nothing is trained.")
    runs = {name: read_runs(bench, folder / name) for name, bench in benches.items()}
    for name, bench in benches.items():
        write_tables(bench, folder / name, runs[name])
    rows = {name: found.rows for name, found in runs.items()}
    figures: tuple[Figure, ...] = ("last", "chosen")
    found = [line for figure in figures for line in standings(benches, rows, figure)]
    counts = Counter(_data_set(name) for name, bench in benches.items() for _ in bench.tasks)
    first = benches[names[0]]
    done, every = sum(len(found.results) for found in runs.values()), sum(len(found.works) for found in runs.values())
    failed = sum(1 for found in runs.values() for w in found.works if w.name not in found.results and w.failure())
    lines = [
        "# The panel", "",
        f"{backbone_text(first.recipe)}; no backbone where features are given. Seeds "
        f"{', '.join(map(str, first.seeds))}. A column is the mean over a data set's tasks, the mean that over data "
        "sets, however many tasks each has. Target labels were not used in training.", "",
        f"{done} of {every} runs are finished{f', {failed} have failed' if failed else ''}. "
        f"Each data set's own tables: {', '.join(f'[{name}]({name}/table.md)' for name in names)}.", "",
    ]  # fmt: skip
    if measured := machines({f"{name}/{run}": result for name in names for run, result in runs[name].results.items()}):
        lines += [f"Measured with: {'; or '.join(measured)}.", ""]
    left_out = {name: why for name, why in noted.items() if name not in benches}
    for name, why in left_out.items():
        lines += [f"**Left out: {name}.** {why}", ""]
    for figure in figures:
        lines += table_lines(_table(figure, [line for line in found if line.figure == figure], counts))
    text = "\n".join(lines)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", _csv(found))
    facts = {"left_out": left_out, "tasks": counts, "rows": msgspec.to_builtins(found)}
    write_text(folder / "table.json", json.dumps(facts, indent=1) + "\n")
    return text
