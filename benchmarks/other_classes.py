"""Targets with other classes than the source, made from the panel's tasks by a rule.

    BIWAA_CACHE=.. python benchmarks/other_classes.py --data-root data --out benchmarks/results/other_classes.json

The rule: the first classes in their order are 4 of 7 (PACS, satellite images), 5 of 10 (Office), 25 of 65 (Office-
Home) and 25 of 81 (groceries). In `partial` the target has these alone; in `open` the source has these alone, and the
target keeps all; in `both` the source has the first two thirds of the classes and the target the last two thirds; in
`strangers` the target has the others alone. `later` is what `biwaa estimate` says of new images, where both domains
have the first classes alone and half of the target was adapted to: of the other half (and of 20 halves of it), and
with strangers among them. `closed` is the task as it is, and in `closed_first` both domains have
the first classes alone, for false alarms of --unknown auto. In `half` the target has as many images of the others as
of the first classes, all of one kind and a draw of the other, and a run says what it finds. `likeness` is that of
each of these targets to the source's classes, for the warning that most images seem to be of none. Every domain is
standardised after its classes were chosen. Heads are those of the default on a frozen backbone (`prototypes`),
without held-out images; compared are source-only, the default with --absent-classes off, and minimum class confusion
that has converged. With --unseen the tasks are those of `unseen.py` instead, on which nothing was chosen, with 55 %
of the classes as the first.
"""

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import tyro
import unseen
from lightning_fabric import Fabric
from sources import standardised
from torch import Tensor

import biwaa
from biwaa.bench.panel import panel_recipe, plan_panel
from biwaa.device import hardware, open_fabric
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.judging.likeness import likeness
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.recipe import Recipe, recipe_from
from biwaa.report.estimate import shown_estimate
from biwaa.settings import ScheduleSettings
from biwaa.solvers.logistic import Head, fit_confusion, source_head
from biwaa.solvers.metric import balanced_weights, principal_axes
from biwaa.solvers.prototypes import head_of_both
from biwaa.solvers.unknown import EVIDENCE, find_unknown
from biwaa.training.describe import versions
from biwaa.training.prepare import Pair, prepare

FIRST = {"pacs": 4, "office10": 5, "satellite": 4, "office_home_clip": 25, "grocery": 25}


class Rows(NamedTuple):
    """A task's features and labels."""

    source: Tensor
    labels: Tensor
    target: Tensor
    truth: Tensor
    classes: int


def tasks(data_root: Path, named: tuple[str, ...]) -> Iterator[tuple[str, str, Rows]]:
    """Data set, task, and its rows, prepared as a run prepares them."""
    recipe = panel_recipe("robust").replace(source_held_out=0.0)
    benches, _ = plan_panel(recipe, named or tuple(FIRST), ("prototypes",), (42,), data_root)
    fabric = open_fabric("cpu", "32-true", 1, 1)
    for part, bench in benches.items():
        for work in bench.works(Path("unused"), data_root):
            if part not in FIRST or ".prototypes" not in work.name:
                continue
            source, target = (open_domain(spec, work.data_root) for spec in (work.source, work.target))
            yield part, work.name.split(".")[0], rows_of(source, target, recipe_from(work.recipe, part), fabric)


def unseen_tasks(root: Path) -> Iterator[tuple[str, str, Rows]]:
    """The same of the tasks of `unseen.py`."""
    recipe, fabric = unseen.on_every_row(unseen.default_on("efficientnet-lite0")), open_fabric("cpu", "32-true", 1, 1)
    for data_set, task, here, there in unseen.tasks(root, None, None):
        yield data_set, task, rows_of(open_domain(here), open_domain(there), recipe, fabric)


def rows_of(source: Domain, target: Domain, recipe: Recipe, fabric: Fabric) -> Rows:
    """Features of both domains."""
    pair = Pair(source, match_classes(target, source.classes or ()))
    ready = prepare(pair, recipe, fabric, skip_unreadable=True)
    data, truth = ready.data, ready.domains.target.labels
    assert truth is not None  # of a benchmark
    here, there = (inputs.batch(np.arange(len(inputs))).float() for inputs in (data.source, data.target))
    return Rows(here, torch.from_numpy(data.source_labels), there, torch.from_numpy(truth), data.classes)


def first_classes(rows: Rows, first: int) -> Rows:
    """The target with the first classes alone."""
    kept = rows.truth < first
    return rows._replace(target=standardised(rows.target[kept]), truth=rows.truth[kept])


def default(rows: Rows, absent_classes: str = "auto") -> Head:
    """The default's head."""
    task = Task(0, rows.classes, len(rows.target), 0)
    return Prototypes(task, ScheduleSettings(), PrototypesSettings(absent_classes)).solve(*rows[:3])  # type: ignore[arg-type]


def confusion_head(rows: Rows) -> Head:
    """Logistic regression with minimum class confusion, which counts less where there are few rows a class."""
    axes = principal_axes(rows.source, rows.target) * rows.source.shape[1] ** -0.5
    weights, factor = balanced_weights(rows.labels, rows.classes), min(1.0, len(rows.target) / (10 * rows.classes))
    fitted = fit_confusion(rows.source @ axes, rows.labels, weights, rows.target @ axes, rows.classes, factor)
    return Head(axes.T, *fitted)


def accuracy(head: Head, rows: Rows) -> float:
    """In percent, over the target's images."""
    return round(100 * float((head.scores(rows.target).argmax(dim=1) == rows.truth).double().mean()), 2)


def partial_figures(rows: Rows, first: int) -> dict[str, Any]:
    """Accuracies, and which classes were found absent."""
    some = first_classes(rows, first)
    automatic = default(some)
    everything = automatic if automatic.absent is None else default(some, "off")
    absent = torch.zeros(rows.classes, dtype=torch.bool) if automatic.absent is None else automatic.absent
    truly = torch.arange(rows.classes) >= first
    return {
        "source_only": accuracy(source_head(*some[:2], rows.classes), some),
        "class_confusion": accuracy(confusion_head(some), some),
        "closed": accuracy(everything, some),
        "default": accuracy(automatic, some),
        "absent_found": int((absent & truly).sum()),
        "absent_missed": int((~absent & truly).sum()),
        "absent_wrongly": int((absent & ~truly).sum()),
    }


def open_figures(rows: Rows, first: int) -> dict[str, Any]:
    """Of a source with the first classes alone: --unknown auto, --unknown RATE, and source-only by its confidence.

    The last two are told the true share of unknown images, which needs knowledge that nobody has without labels.
    `without_evidence` is what `auto` would have found if it did not ask for evidence first.
    """
    kept = rows.labels < first
    some = Rows(standardised(rows.source[kept]), rows.labels[kept], rows.target, rows.truth.clamp(max=first), first)
    share = float((some.truth == first).double().mean())
    seen = find_unknown(some.source, some.labels, some.target, first)
    wanted = {"auto": with_unknown(some, "auto"), "rate": with_unknown(some, f"{share:.6f}")}
    found = {name: head.scores(some.target).argmax(dim=1) for name, head in wanted.items()}
    every = head_of_both(*some[:3], seen.found).scores(some.target)
    found["without_evidence"] = every.argmax(dim=1)
    plain = source_head(*some[:2], first).scores(some.target).softmax(dim=1)
    least = plain.amax(dim=1).argsort(stable=True)[: round(share * len(plain))]
    found["source_only"] = plain.argmax(dim=1).index_fill(0, least, first)
    figures = {name: known_and_unknown(predicted, some.truth, first) for name, predicted in found.items()}
    return {"share": round(share, 4), "evidence": round(seen.evidence, 3), **figures}


def with_unknown(rows: Rows, unknown: str, absent_classes: str = "auto") -> Head:
    """The head with one more class than the source has."""
    task, own = Task(0, rows.classes + 1, len(rows.target), 0), PrototypesSettings(absent_classes, unknown)  # type: ignore[arg-type]
    return Prototypes(task, ScheduleSettings(), own).solve(*rows[:3])


def both_figures(rows: Rows) -> dict[str, Any]:
    """Of a source and a target that have a third of the classes in common, told the true share of unknown images.

    Source-only by its confidence; --unknown RATE, with --absent-classes off and without; which were found absent.
    """
    count = round(2 * rows.classes / 3)
    kept, there = rows.labels < count, rows.truth >= rows.classes - count
    source, target = standardised(rows.source[kept]), standardised(rows.target[there])
    some = Rows(source, rows.labels[kept], target, rows.truth[there].clamp(max=count), count)
    share = float((some.truth == count).double().mean())
    plain = source_head(*some[:2], count).scores(some.target).softmax(dim=1)
    least = plain.amax(dim=1).argsort(stable=True)[: round(share * len(plain))]
    heads = {how: with_unknown(some, f"{share:.6f}", how) for how in ("off", "auto")}
    found = {"source_only": plain.argmax(dim=1).index_fill(0, least, count)}
    found |= {f"absent_{how}": head.scores(some.target).argmax(dim=1) for how, head in heads.items()}
    figures = {name: known_and_unknown(predicted, some.truth, count) for name, predicted in found.items()}
    absent, truly = heads["auto"].absent, torch.arange(count) < rows.classes - count
    named = torch.zeros(count, dtype=torch.bool) if absent is None else absent[:count]
    counts = {"found": int((named & truly).sum()), "missed": int((~named & truly).sum())}
    return {"share": round(share, 4), **figures, **counts, "wrongly": int((named & ~truly).sum())}


def known_and_unknown(predicted: Tensor, truth: Tensor, unknown: int) -> dict[str, float]:
    """In percent: mean accuracy over known classes, accuracy of unknown images, and their harmonic mean."""
    right = (predicted == truth).double()
    classes = [float(right[truth == k].mean()) for k in range(unknown) if (truth == k).any()]
    known, other = sum(classes) / len(classes), float(right[truth == unknown].mean())
    harmonic = 2 * known * other / (known + other) if known + other else 0.0
    return {name: round(100 * v, 2) for name, v in (("known", known), ("unknown", other), ("harmonic", harmonic))}


def strangers_figures(rows: Rows, first: int) -> dict[str, Any]:
    """Share of the images that --unknown auto takes for unknown where all of them are, in percent."""
    kept, others = rows.labels < first, rows.truth >= first
    source, target = (standardised(part) for part in (rows.source[kept], rows.target[others]))
    return alarms(Rows(source, rows.labels[kept], target, rows.truth[others], first))


def closed_first_figures(rows: Rows, first: int) -> dict[str, Any]:
    """The same where both domains have the first classes alone."""
    kept, some = rows.labels < first, first_classes(rows, first)
    return alarms(some._replace(source=standardised(rows.source[kept]), labels=rows.labels[kept], classes=first))


def likeness_figures(rows: Rows, first: int) -> dict[str, float | None]:
    """Likeness to the source's classes of targets with these, some of these, others beside them, and others alone."""
    kept, others = rows.labels < first, rows.truth >= first
    some = standardised(rows.source[kept]), rows.labels[kept]
    pairs = {
        "closed": (rows.source, rows.labels, rows.target),
        "partial": (rows.source, rows.labels, first_classes(rows, first).target),
        "open": (*some, rows.target),
        "strangers": (*some, standardised(rows.target[others])),
    }
    found = {}
    for name, (source, labels, target) in pairs.items():
        projection = principal_axes(source, source) * source.shape[1] ** -0.5  # source-only's
        value = likeness(source @ projection, labels, target @ projection)
        found[name] = None if value is None else round(value, 3)
    return found


def half_figures(rows: Rows, first: int) -> dict[str, Any]:
    """What a run says of a target half of whose images are of classes that the source lacks, and what is so."""
    kept, order = rows.labels < first, torch.randperm(len(rows.truth), generator=torch.Generator().manual_seed(0))
    known, others = order[rows.truth[order] < first], order[rows.truth[order] >= first]
    count = min(len(known), len(others))
    drawn = torch.cat([known[:count], others[:count]])
    source, labels, target = standardised(rows.source[kept]), rows.labels[kept], standardised(rows.target[drawn])
    run = biwaa.adapt((source.numpy(), labels.numpy()), target.numpy(), verbose=False)
    assert run.predictions
    right = torch.from_numpy(run.predictions.labels) == rows.truth[drawn]
    estimate = shown_estimate(run.result)
    return {
        "estimate": None if estimate is None else round(100 * estimate, 2),
        "right": round(100 * float(right.double().mean()), 2),
        "right_of_known": round(100 * float(right[:count].double().mean()), 2),
        "warnings": [type(one).__name__ for one in run.result.warnings],
        "evidence": round(find_unknown(source, labels, target, first).evidence, 3),
    }


def later_figures(rows: Rows, first: int) -> dict[str, Any]:
    """Share of new images that look like none of the target, the limit, and what is said, for every kind of folder."""
    kept, order = rows.labels < first, torch.randperm(len(rows.truth), generator=torch.Generator().manual_seed(0))
    known, others = order[rows.truth[order] < first], order[rows.truth[order] >= first]
    adapted, unseen = known.tensor_split(2)
    count = min(len(unseen), len(others))
    fifth = min(count, len(unseen) // 4)
    folders = {"same": unseen, "strangers": others, "half": torch.cat([unseen[:count], others[:count]])}
    folders["fifth"] = torch.cat([unseen[: 4 * fifth], others[:fifth]])
    for draw in range(20):
        shuffled = torch.randperm(len(unseen), generator=torch.Generator().manual_seed(draw))
        folders[f"draw {draw}"] = unseen[shuffled[: len(unseen) // 2]]
    with tempfile.TemporaryDirectory() as work:
        labelled = rows.source[kept].numpy(), rows.labels[kept].numpy()
        run = biwaa.adapt(labelled, rows.target[adapted].numpy(), out=Path(work) / "run", verbose=False)
        found = {name: run.estimate(rows.target[chosen].numpy()) for name, chosen in folders.items()}
    return {
        name: {
            "images": one.images, "share": one.unfamiliar, "limit": one.unfamiliar_limit, "moved": one.moved,
            "estimate": one.estimated_accuracy.value, "withheld": one.withheld,
        }
        for name, one in found.items()
    }  # fmt: skip


def alarms(rows: Rows) -> dict[str, Any]:
    """Share of the target's images that --unknown auto takes for unknown, in percent, and its evidence."""
    evidence, share = find_unknown(*rows[:3], rows.classes).evidence, 0.0  # without evidence no image is unknown
    if evidence >= EVIDENCE:
        found = with_unknown(rows, "auto").scores(rows.target).argmax(dim=1)
        share = round(100 * float((found == rows.classes).double().mean()), 2)
    return {"evidence": round(evidence, 3), "unknown": share}


def main(
    out: Path, data_root: Path, data_sets: tuple[str, ...] = (), threads: int = 1, unseen: bool = False,
    parts: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Measure every task; what `out` has is not measured again.

    Args:
        out: JSON file.
        data_root: where the panel's data lie, or those of `unseen_data.py`.
        data_sets: of the panel; empty for all.
        threads: of torch.
        unseen: the tasks of `unseen.py`.
        parts: what to measure; empty for all.
    """
    torch.set_num_threads(threads)
    found: list[dict[str, Any]] = json.loads(out.read_text())["tasks"] if out.is_file() else []
    for data_set, task, rows in unseen_tasks(data_root) if unseen else tasks(data_root, data_sets):
        known = [one for one in found if (one["data_set"], one["task"]) == (data_set, task)]
        entry: dict[str, Any] = known[0] if known else {"data_set": data_set, "task": task}
        first = FIRST.get(data_set, round(0.55 * rows.classes))
        ways = {
            "partial": partial(partial_figures, rows, first),
            "open": partial(open_figures, rows, first),
            "strangers": partial(strangers_figures, rows, first),
            "closed": partial(alarms, rows),
            "closed_first": partial(closed_first_figures, rows, first),
            "both": partial(both_figures, rows),
            "half": partial(half_figures, rows, first),
            "later": partial(later_figures, rows, first),
            "likeness": partial(likeness_figures, rows, first),
        }
        for name, measure in ways.items():
            if name not in entry and (not parts or name in parts):
                entry[name] = measure()
        if not known:
            found.append(entry)
        print(entry, flush=True)
        facts = {"tasks": found, "versions": versions(), "hardware": hardware("cpu")}
        write_text(out, json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
