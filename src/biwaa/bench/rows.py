"""From a bench folder's finished runs to rows of figures, and their means over tasks and seeds.

- a run's candidates are its rounds and the source-only run of the same task and seed
- `last` is the last round's last step, `chosen` the candidate with the highest label-free score, `oracle` the one
  with the most target labels right, which nobody without labels can pick
- a mean over tasks stands only where every task is there
"""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from biwaa.bench.grid import Bench, Work
from biwaa.bench.suites import SOURCE_ONLY

VALIDATOR = "nuclear_norm"
"""The label-free score that chooses."""
FIGURES = ("last", "chosen", "oracle", "average", "held_out")


@dataclass(frozen=True)
class Row:
    """One finished run, accuracies in percent."""

    task: str
    variant: str
    seed: int
    accuracy: dict[str, dict[str, float]]
    """last, average (of the rounds), chosen, oracle, held_out: each over_images and over_classes."""
    by_round: tuple[float, ...]
    """Over images, each round's last step."""
    picked: str
    """The candidate that the validator chose; empty while its source-only is not there."""
    distance: dict[str, float]
    """Total variation between label distributions, in percent: source_to_true, estimated_to_true."""
    cost: dict[str, float]
    """steps, images, seconds."""


def finished(works: list[Work]) -> dict[str, dict[str, Any]]:
    """The results of the runs that are finished, by name."""
    return {work.name: result for work in works if (result := work.result())}


def collect(bench: Bench, results: dict[str, dict[str, Any]]) -> list[Row]:
    """A row for each of the bench's `finished` runs."""
    rows = []
    for seed in bench.seeds:
        for task in bench.tasks:
            for variant in bench.variants:
                if result := results.get(f"{task}.{variant.name}.{seed}"):
                    source_only = results.get(f"{task}.{variant.source_only}.{seed}")
                    rows.append(_row(task, variant.name, seed, result, source_only))
    return rows


def _row(task: str, variant: str, seed: int, result: dict[str, Any], source_only: dict[str, Any] | None) -> Row:
    legs = result["accuracy"]["legs"]
    rounds = list(legs)
    scores = {name: entry[VALIDATOR] for name, entry in result["label_free"]["validators"].items()}
    accuracy = {"last": legs[rounds[-1]], "average": result["accuracy"]["average_of_rounds"]}
    picked = ""
    if source_only:  # without it the pool is not the one that the tables speak of
        pool = legs | {SOURCE_ONLY: source_only["accuracy"]["legs"]["round 0"]}
        scores[SOURCE_ONLY] = source_only["label_free"]["validators"]["round 0"][VALIDATOR]
        picked = max(scores, key=lambda name: scores[name])
        accuracy["chosen"] = pool[picked]
        accuracy["oracle"] = max(pool.values(), key=lambda figures: figures["over_images"])
    if "held_out" in result:
        accuracy["held_out"] = result["held_out"]["legs"][rounds[-1]]
    apart = result["label_distribution"]["total_variation"]
    return Row(
        task, variant, seed,
        {name: {mean: 100 * value for mean, value in figures.items()} for name, figures in accuracy.items()},
        tuple(100 * legs[name]["over_images"] for name in rounds),
        picked,
        {
            "source_to_true": 100 * apart["source_to_true"],
            "estimated_to_true": 100 * apart["estimated_to_true"][rounds[-1]],
        },
        result["cost"],
    )  # fmt: skip


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


def accuracy_of(figure: str, mean: str = "over_images") -> Callable[[Row], float | None]:
    """Reads one accuracy off a row; None where the run has no such figure."""
    return lambda row: row.accuracy.get(figure, {}).get(mean)


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
