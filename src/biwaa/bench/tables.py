"""The tables of a bench, as text cells: by task, over classes, by way of choosing, by round, class shares, cost."""

import csv
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from biwaa.bench.grid import Bench
from biwaa.bench.rows import FIGURES, Row, accuracy_of, gains, over_seeds, task_means
from biwaa.bench.suites import SOURCE_ONLY

Groups = dict[str, list[Row]]  # Rows by their variant's title


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column naming the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(bench: Bench, rows: list[Row]) -> list[Table]:
    """All tables of a bench: by task, over classes, by way of choosing, by round, class shares, cost."""
    of = {variant.title: [row for row in rows if row.variant == variant.name] for variant in bench.variants}
    groups = {title: mine for title, mine in of.items() if mine}
    found = [
        _by_task(bench, groups, "Target accuracy over images, last step of the last round"),
        _by_task(bench, groups, "The same over classes", over_classes=True),
        _choices(bench, groups),
        _gains(bench, rows),
    ]
    if any(len(row.by_round) > 1 for row in rows):
        found.append(_by_round(bench, groups))
    if bench.study in ("shift", "distribution"):
        found.append(_distances(bench, groups))
    return [*found, _cost(groups)]


def _by_task(bench: Bench, groups: Groups, title: str, over_classes: bool = False) -> Table:
    read, seeds = accuracy_of("last", over_classes=over_classes), len(bench.seeds)
    lines = []
    for name, mine in groups.items():
        cells = [
            over_seeds((v for row in mine if row.task == task and (v := read(row)) is not None), seeds)
            for task in bench.tasks
        ]
        lines.append((name, *cells, over_seeds(task_means(mine, bench.tasks, read), seeds)))
    if not over_classes:
        lines += published_rows(bench)
    return Table(title, ("", *bench.tasks, "mean"), tuple(lines))


def _mean(bench: Bench, rows: list[Row], value: Callable[[Row], float | None]) -> str:
    """A cell of the mean over tasks."""
    return over_seeds(task_means(rows, bench.tasks, value), len(bench.seeds))


def _choices(bench: Bench, groups: Groups) -> Table:
    figures = [name for name in FIGURES if any(name in row.accuracy for mine in groups.values() for row in mine)]
    lines = []
    for title, mine in groups.items():
        cells = [_mean(bench, mine, accuracy_of(figure)) for figure in figures]
        pick = sum(row.picked == SOURCE_ONLY for row in mine)
        lines.append((title, *cells, f"{pick} of {len(mine)}"))
    header = ("", *(FIGURES[figure] for figure in figures), "choice is source-only")
    return Table("Mean over tasks, by how the model is selected among the rounds and source-only", header, tuple(lines))


def _gains(bench: Bench, rows: list[Row]) -> Table:
    titles = {variant.name: variant.title for variant in bench.variants}
    lines = []
    for name, of_task in gains(bench, rows).items():
        worst = min(of_task, key=lambda task: of_task[task])
        below = sum(gain < 0 for gain in of_task.values())
        mean = statistics.mean(of_task.values())
        lines.append((titles[name], f"{mean:+.1f}", f"{of_task[worst]:+.1f} ({worst})", f"{below} of {len(of_task)}"))
    header = ("", "mean", "worst task", "tasks below source-only")
    return Table("Points over source-only, last round (each task's mean over the seeds)", header, tuple(lines))


def _by_round(bench: Bench, groups: Groups) -> Table:
    most = max(len(row.by_round) for mine in groups.values() for row in mine)
    lines = []
    for title, mine in groups.items():
        many = max(len(row.by_round) for row in mine)
        if many == 1:
            continue
        cells = [_mean(bench, mine, _round(number)) for number in range(many)]
        lines.append((title, *cells, *("" for _ in range(most - many))))
    return Table("Mean over tasks, by round", ("", *(f"round {n}" for n in range(most))), tuple(lines))


def _round(number: int) -> Callable[[Row], float | None]:
    return lambda row: row.by_round[number] if number < len(row.by_round) else None


def _distances(bench: Bench, groups: Groups) -> Table:
    lines = tuple(
        (
            title,
            _mean(bench, mine, lambda row: row.source_to_true),
            _mean(bench, mine, lambda row: row.predicted_to_true),
        )
        for title, mine in groups.items()
    )
    title = "How far class shares differ from the target's true ones (total variation, percent; mean over tasks)"
    return Table(title, ("", "the source's", "as the last round predicts"), lines)


def _cost(groups: Groups) -> Table:
    lines = []
    for title, rows in groups.items():
        steps = statistics.mean(row.cost.steps for row in rows)
        images = statistics.mean(row.cost.images for row in rows)
        seconds = statistics.mean(row.cost.seconds for row in rows)
        lines.append((title, f"{steps:.0f}", f"{images:.0f}", f"{seconds:.1f}", str(len(rows))))
    header = ("", "steps", "images through training", "seconds", "runs")
    return Table("Cost of a run, all its rounds (mean; decoding and frozen features come before)", header, tuple(lines))


def published() -> list[dict[str, str]]:
    """Rows of published.csv: benchmark, backbone, method, task, accuracy, protocol, source."""
    text = (resources.files("biwaa.bench") / "published.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def published_rows(bench: Bench) -> list[tuple[str, ...]]:
    """Published figures of the same benchmark, each with its backbone and protocol."""
    entry = bench.entry
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in published():
        if row["benchmark"] == bench.benchmark:
            task = row["task"]
            name = task if task == "mean" else entry.task_name(*entry.task(task))
            found.setdefault((row["method"], row["backbone"], row["protocol"]), {})[name] = row["accuracy"]
    return [
        (f"published: {method}, {backbone} ({protocol})", *(cells.get(task, "") for task in bench.tasks),
         cells.get("mean", "") if set(bench.tasks) == set(entry.tasks) else "")
        for (method, backbone, protocol), cells in found.items()
    ]  # fmt: skip
