"""Converged rivals of the default on the panel's frozen features: what it has to beat.

    python benchmarks/rivals.py --data-root DATA --out benchmarks/results/rivals.json

All are deterministic, get the rows that the panel's runs train on, and were tuned on nothing here. Target labels only
score them. Features come from the cache once `biwaa bench panel` has been run.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from lightning_fabric import Fabric
from torch import Tensor

from biwaa.bench.grid import Work
from biwaa.bench.panel import PARTS, panel_recipe, plan_panel
from biwaa.device import hardware
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.domains.trainable import check_pair
from biwaa.files import write_text
from biwaa.functional import nearest_neighbours, reliability
from biwaa.recipe import Recipe, recipe_from
from biwaa.solvers.logistic import fit_confusion, fit_logistic, source_head
from biwaa.solvers.metric import balanced_weights, mean_over_neighbours, one_hot, principal_axes
from biwaa.solvers.prototypes import adapt_prototypes
from biwaa.training.describe import versions
from biwaa.training.prepare import Pair, prepare


def candidates(source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Iterator[tuple[str, Tensor]]:
    """Names, and (Nt, K) scores of the target.

    Args:
        source: (Ns, F) standardised features.
        labels: (Ns,).
        target: (Nt, F) standardised features.
        classes: K.
    """
    weights, truth = balanced_weights(labels, classes), one_hot(labels, classes)
    head = source_head(source, labels, classes)
    plain = head.scores(target)
    yield "source-only", plain
    axes = principal_axes(source, target) * source.shape[1] ** -0.5
    rows, others = source @ axes, target @ axes
    for factor in (1.0, 3.0):
        yield f"MCC x {factor:g}", F.linear(others, *fit_confusion(rows, labels, weights, others, classes, factor))
    units = F.normalize(target, dim=1)
    near = nearest_neighbours(units, 10)
    smooth = mean_over_neighbours(plain.softmax(dim=1), near)
    yield "mean over neighbours", smooth
    both = torch.cat([F.normalize(source, dim=1), units]) @ (axes * source.shape[1] ** 0.5)
    for _ in range(5):
        counted = torch.cat([weights, reliability(smooth)])
        fitted = fit_logistic(both, torch.cat([truth, smooth]), counted)
        smooth = mean_over_neighbours(F.linear(both[len(source) :], *fitted).softmax(dim=1), near)
    yield "self-training over neighbours", smooth
    scores = plain
    for _ in range(20):
        scores = units @ F.normalize(one_hot(scores.argmax(dim=1), classes).T @ units, dim=1).T
    yield "spherical k-means from source-only", scores
    every = nearest_neighbours(torch.cat([F.normalize(source, dim=1), units]), 10)
    known = truth * weights[:, None]
    spread = torch.cat([known, torch.zeros(len(target), classes)])
    for _ in range(20):
        spread = torch.cat([known, mean_over_neighbours(spread, every)[len(source) :]])
    yield "label propagation", spread[len(source) :]
    found = adapt_prototypes(source, labels, target, classes)
    adapted = head if found is None else found.student(source, labels, target)
    yield "prototypes", adapted.scores(target)


def measure(work: Work) -> dict[str, float]:
    """As `accuracies`, of a run of a bench."""
    source, target = (open_domain(spec, work.data_root) for spec in (work.source, work.target))
    return accuracies(source, target, recipe_from(work.recipe, work.name))


def accuracies(source: Domain, target: Domain, recipe: Recipe) -> dict[str, float]:
    """Accuracy over images by candidate, in percent."""
    prepared = prepare(Pair(*check_pair(source, target, 2)), recipe, Fabric(accelerator="cpu"), False)
    assert prepared.domains.target.labels is not None
    data, truth = prepared.data, torch.from_numpy(prepared.domains.target.labels)
    rows = [inputs.batch(np.arange(len(inputs))).float() for inputs in (data.source, data.target)]
    found = candidates(rows[0], torch.from_numpy(data.source_labels), rows[1], data.classes)
    return {name: round(100 * float((scores.argmax(dim=1) == truth).double().mean()), 2) for name, scores in found}


def main(data_root: Path, out: Path) -> None:
    """Measure every task of the panel that is there.

    Args:
        data_root: where benchmarks lie.
        out: JSON file.
    """
    benches, left_out = plan_panel(panel_recipe("robust"), (), ("prototypes",), (42,), data_root)
    of = {part.name: part.data_set for part in PARTS}
    tasks: dict[str, dict[str, dict[str, float]]] = {}
    for name, bench in benches.items():
        for work in bench.works(Path("unused"), data_root):
            if work.recipe["method"] == "prototypes":
                task = f"{bench.benchmark}:{work.name.split('.')[0]}"
                tasks.setdefault(of[name], {})[task] = found = measure(work)
                print(of[name], task, found, flush=True)
                facts = {
                    "means": {
                        part: {who: round(float(np.mean([row[who] for row in rows.values()])), 2) for who in found}
                        for part, rows in tasks.items()
                    },
                    "tasks": tasks, "left_out": left_out, "versions": versions(), "hardware": hardware("cpu"),
                }  # fmt: skip
                write_text(out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
