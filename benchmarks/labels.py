"""What ten labels a class are worth on the panel: drawn at random, and as `biwaa suggest` takes them.

    BIWAA_CACHE=.. python benchmarks/labels.py --data-root data --out benchmarks/results/labels.json

Heads are those of the default on a frozen backbone (`prototypes`), on the panel's frozen features. Of a target, at most
half is labelled. Accuracy is measured on the images that were not labelled (each way of drawing leaves others) and on
all. Tasks with fifty target images are left out: ten labels a class are more than they have.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from other_classes import Rows, rows_of
from torch import Tensor

from biwaa.bench.panel import panel_recipe, plan_panel
from biwaa.device import hardware, open_fabric
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.judging.suggestion import suggested_rows
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.recipe import recipe_from
from biwaa.settings import ScheduleSettings
from biwaa.solvers import logistic, prototypes
from biwaa.training.describe import versions


def tasks(data_root: Path, named: tuple[str, ...]) -> Iterator[tuple[str, Rows]]:
    """The panel's tasks, prepared as a run prepares them."""
    benches, _ = plan_panel(panel_recipe("robust"), named, ("prototypes",), (42,), data_root)
    fabric = open_fabric("cpu", "32-true", 1, 1)
    for part, bench in benches.items():
        for work in bench.works(Path("unused"), data_root):
            if ".prototypes" in work.name and not part.startswith("fifty_images"):
                source, target = (open_domain(spec, work.data_root) for spec in (work.source, work.target))
                rows = rows_of(source, target, recipe_from(work.recipe, part), fabric)
                yield f"{part}.{work.name.split('.')[0]}", rows


def solved(rows: Rows, labelled: Tensor | None) -> tuple[Tensor, Tensor]:
    """Probabilities of the target, and the features that they stand on, with the labels of some rows."""
    given = None
    if labelled is not None:
        given = torch.full_like(rows.truth, -1)
        given[labelled] = rows.truth[labelled]
    task = Task(0, rows.classes, len(rows.target), 0, given=given)
    head = Prototypes(task, ScheduleSettings(), PrototypesSettings()).solve(rows.source, rows.labels, rows.target)
    assert head.projection is not None  # of these solvers
    features = F.linear(rows.target, head.projection)
    return F.linear(features, head.weight, head.bias).softmax(dim=1), features


def figures(rows: Rows, probabilities: Tensor, labelled: Tensor | None) -> dict[str, float]:
    """Accuracy in percent on the images without a label, and on all."""
    right = probabilities.argmax(dim=1) == rows.truth
    other = torch.ones(len(right), dtype=torch.bool)
    if labelled is not None:
        other[labelled] = False
    return {"not_labelled": 100 * float(right[other].float().mean()), "all": 100 * float(right.float().mean())}


def drawn(rows: Rows, count: int, seed: int) -> Tensor:
    """Rows at random."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(len(rows.target))[:count])


def suggested(rows: Rows, count: int, plain: tuple[Tensor, Tensor]) -> Tensor:
    """Rows as `biwaa suggest` takes them."""
    head = logistic.source_head(rows.source, rows.labels, rows.classes)
    alone = head.scores(rows.target).softmax(dim=1)
    return suggested_rows((plain[0] + alone) / 2, plain[1], count, torch.zeros(0, dtype=torch.long))


def measured(name: str, rows: Rows, a_class: int, seeds: int) -> dict[str, Any]:
    """All figures of a task."""
    kept: list[logistic.CrossValidated] = []

    def once(*arguments: Any) -> logistic.CrossValidated:
        if not kept:
            kept.append(logistic.cross_validate(*arguments))
        return kept[0]

    vars(prototypes)["cross_validate"] = once  # of the source, so it is the same each time
    count = min(a_class * rows.classes, len(rows.target) // 2)
    plain = solved(rows, None)
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "random": lambda: [drawn(rows, count, seed) for seed in range(seeds)],
        "suggested": lambda: [suggested(rows, count, plain)],
    }
    found: dict[str, Any] = {"task": name, "target": len(rows.target), "labels": count, "classes": rows.classes}
    found["none"] = figures(rows, plain[0], None)
    for way, draw in ways.items():
        some = draw()
        each = [figures(rows, solved(rows, one)[0], one) for one in some]
        found[way] = {key: round(sum(one[key] for one in each) / len(each), 2) for key in each[0]}
        found[way]["before"] = round(  # the same images without the labels
            sum(figures(rows, plain[0], one)["not_labelled"] for one in some) / len(some), 2
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Means by data set, and over data sets, as a Markdown table."""
    ways = [("none", "all"), ("random", "not_labelled"), ("suggested", "not_labelled"), ("random", "all"),
            ("suggested", "all")]  # fmt: skip
    sets: dict[str, list[list[float]]] = {}
    for one in found:
        sets.setdefault(one["task"].split(".")[0], []).append([one[way][key] for way, key in ways])
    means = {name: np.mean(rows, axis=0) for name, rows in sets.items()}
    lines = ["| data set | tasks | no label | at random | suggested | at random, all images | suggested, all images |",
             "| -- | -- | -- | -- | -- | -- | -- |"]  # fmt: skip
    for name, mean in [*means.items(), ("mean of data sets", np.mean([*means.values()], axis=0))]:
        cells = [name, str(len(sets[name])) if name in sets else "", *(f"{value:.1f}" for value in mean)]
        lines.append(f"| {' | '.join(cells)} |")
    gains = [one["suggested"]["not_labelled"] - one["random"]["not_labelled"] for one in found]
    worst = min(found, key=lambda one: one["suggested"]["not_labelled"] - one["suggested"]["before"])
    loss = worst["suggested"]["not_labelled"] - worst["suggested"]["before"]
    return "\n".join([*lines, "", f"suggested above random: {sum(gain > 0 for gain in gains)} of {len(gains)} tasks, "
                      f"at worst {min(gains):.1f}; on the same images with and without the labels at worst {loss:+.1f} "
                      f"({worst['task']})"])  # fmt: skip


def main(
    out: Path, data_root: Path, tasks_named: tuple[str, ...] = (), a_class: int = 10, seeds: int = 2, threads: int = 1
) -> None:
    """Measure every task; those that `out` has are not measured again.

    Args:
        out: JSON file.
        data_root: where the panel's data lie.
        tasks_named: DATASET or DATASET:TASK; empty for all.
        a_class: labels.
        seeds: of the random draw.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    found: list[dict[str, Any]] = json.loads(out.read_text())["tasks"] if out.is_file() else []
    for name, rows in tasks(data_root, tasks_named):
        if name in {one["task"] for one in found}:
            continue
        found.append(measured(name, rows, a_class, seeds))
        print(found[-1], flush=True)
        write_text(
            out, json.dumps({"tasks": found, "versions": versions(), "hardware": hardware("cpu")}, indent=2) + "\n"
        )
    print(table(found))


if __name__ == "__main__":
    tyro.cli(main)
