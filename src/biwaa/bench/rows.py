"""From a bench folder's finished runs to rows of figures, and their means over tasks and seeds.

- a run's candidates are its rounds and the source-only run of the same task and seed
- `last` is the last round's last step, `chosen` the candidate with the highest label-free score, `oracle` the one
  with the most target labels right, which is not available in practice
- a mean over tasks stands only where every task is there
"""

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec import Struct

from biwaa.bench.grid import Bench, Work
from biwaa.bench.suites import SOURCE_ONLY
from biwaa.errors import BiwaaError
from biwaa.result import Accuracy, Cost, Result, Stage

VALIDATOR = "nuclear_norm"  # The label-free score that chooses
Figure = Literal["last", "chosen", "oracle", "average", "held_out"]
FIGURES: dict[Figure, str] = {
    "last": "last round", "chosen": "label-free choice", "oracle": "oracle (target labels)",
    "average": "average of rounds", "held_out": "last round, held-out images",
}  # fmt: skip
"""Every accuracy of a run, and its title."""


class Row(Struct, frozen=True, kw_only=True):
    """One finished run; accuracies and distances in percent."""

    task: str
    variant: str
    seed: int
    accuracy: dict[Figure, Accuracy]
    """`chosen` and `oracle` only with its source-only, `held_out` only where the benchmark has a test split."""
    by_round: tuple[float, ...]  # Over images, each round's last step
    picked: str  # The candidate that the validator chose; empty while its source-only is not there
    source_to_true: float  # Total variation between the class shares of the source and the target's true ones
    predicted_to_true: float  # The same between those that the last round predicts and the true ones
    cost: Cost
    estimate_error: float | None = None  # From the estimated to the true accuracy of the selected model


def finished(works: list[Work]) -> dict[str, Result]:
    """The results of the runs that are finished, by name."""
    return {work.name: result for work in works if (result := work.result())}


def collect(bench: Bench, results: dict[str, Result]) -> list[Row]:
    """A row for each of the bench's `finished` runs."""
    rows = []
    for seed in bench.seeds:
        for task in bench.tasks:
            for variant in bench.variants:
                if result := results.get(f"{task}.{variant.name}.{seed}"):
                    source_only = results.get(f"{task}.{variant.source_only}.{seed}")
                    rows.append(_row(task, variant.name, seed, result, source_only))
    return rows


class Runs(NamedTuple):
    """A bench's runs, as its folder has them."""

    works: list[Work]
    results: dict[str, Result]
    rows: list[Row]


def read_runs(bench: Bench, folder: Path) -> Runs:
    """All runs that are planned, and of those that are finished what they found."""
    works = bench.works(folder, Path())
    results = finished(works)
    return Runs(works, results, collect(bench, results))


def _row(task: str, variant: str, seed: int, result: Result, source_only: Result | None) -> Row:
    rounds, last = result.rounds, result.rounds[-1]
    apart, true = result.label_shares.source_to_true, last.distance_to_true
    if result.accuracy is None or apart is None or true is None:
        raise BiwaaError(f"the run {task}.{variant}.{seed} has no accuracy: its target had no labels.")
    accuracy: dict[Figure, Accuracy] = {"last": _measured(last), "average": result.accuracy.average_of_rounds}
    picked = ""
    if source_only:  # without it the pool is not the one that the tables speak of
        pool = {SOURCE_ONLY: source_only.rounds[0]} | {stage.name: stage for stage in rounds}
        picked = max(pool, key=lambda name: _score(pool[name]))
        accuracy["chosen"] = _measured(pool[picked])
        accuracy["oracle"] = max(map(_measured, pool.values()), key=lambda found: found.over_images)
    estimate = result.estimated_accuracy.value
    if last.held_out:
        accuracy["held_out"] = last.held_out
    percent = {
        figure: Accuracy(over_images=100 * found.over_images, over_classes=100 * found.over_classes)
        for figure, found in accuracy.items()
    }
    return Row(
        task=task,
        variant=variant,
        seed=seed,
        accuracy=percent,
        by_round=tuple(100 * _measured(stage).over_images for stage in rounds),
        picked=picked,
        source_to_true=100 * apart,
        predicted_to_true=100 * true,
        cost=result.cost,
        estimate_error=None if estimate is None else 100 * abs(estimate - result.accuracy.adapted.over_images),
    )


def _measured(stage: Stage) -> Accuracy:
    assert stage.accuracy is not None  # `_row` made sure that the target has labels
    return stage.accuracy


def _score(stage: Stage) -> float:
    value = stage.validators.get(VALIDATOR)
    return float("-inf") if value is None else value


def over_seeds(values: Iterable[float], seeds: int) -> str:
    """Mean ± standard deviation, and of how many seeds where some of the `seeds` are missing; a dash of none."""
    found = list(values)
    if not found:
        return "-"
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    some = f" ({len(found)} of {seeds} seeds)" if len(found) < seeds else ""
    return f"{statistics.mean(found):.1f}{spread}{some}"


def task_means(rows: list[Row], tasks: tuple[str, ...], value: Callable[[Row], float | None]) -> list[float]:
    """For each seed that has every task: the mean over the tasks."""
    means = []
    for seed in dict.fromkeys(row.seed for row in rows):
        found = {row.task: value(row) for row in rows if row.seed == seed}
        values = [found.get(task) for task in tasks]
        if all(number is not None for number in values):
            means.append(statistics.mean(number for number in values if number is not None))
    return means


def accuracy_of(figure: Figure, *, over_classes: bool = False) -> Callable[[Row], float | None]:
    """Reads one accuracy off a row, over images unless asked otherwise; None where the run has no such figure."""

    def read(row: Row) -> float | None:
        found = row.accuracy.get(figure)
        return None if found is None else found.over_classes if over_classes else found.over_images

    return read


def gains(bench: Bench, rows: list[Row]) -> dict[str, dict[str, float]]:
    """Variant -> task -> points over its source-only, the mean over the seeds; without variants that lack a run."""
    read = accuracy_of("last")
    value = {(row.variant, row.task, row.seed): read(row) for row in rows}
    found: dict[str, dict[str, float]] = {}
    for variant in bench.variants:
        if variant.name == variant.source_only:
            continue
        of_task: dict[str, float] = {}
        for task in bench.tasks:
            pairs = [
                (value.get((variant.name, task, seed)), value.get((variant.source_only, task, seed)))
                for seed in bench.seeds
            ]
            points = [mine - base for mine, base in pairs if mine is not None and base is not None]
            if len(points) == len(bench.seeds):
                of_task[task] = statistics.mean(points)
        if len(of_task) == len(bench.tasks):
            found[variant.name] = of_task
    return found
