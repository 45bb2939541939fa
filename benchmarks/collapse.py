"""Why the recipe `paper` collapses: its quantities over the steps of one round, and what single changes do to them.

python benchmarks/collapse.py --data-root DATA --out benchmarks/results/collapse.json --figure docs/images/collapse.png

Frozen EfficientNet-Lite0, sketch > photo and photo > sketch, 600 steps of the first round, one seed. Target labels are
used to draw, and by the variant named so, to show what wrong pseudo-labels do.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import torch
import tyro
from torch import Tensor

from biwaa.device import open_fabric
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.method import Loss, Task
from biwaa.recipe import load_recipe
from biwaa.settings import MOST_STEPS
from biwaa.training.prepare import Pair, Prepared, prepare
from biwaa.training.sampling import balanced_batches, uniform_batches
from biwaa.training.step import build_optimizer, training_step

PAPER: dict[str, Any] = {"backbone": "efficientnet-lite0", "freeze_backbone": True, "steps": 600}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "centroids drawn together by their cosine": {"cosine_pull": True},
    "true labels for pseudo-labels": {},
    "no semantic losses": {"alignment": 0.0, "separation": 0.0},
}
EVERY = 10
QUANTITIES = {
    "alignment": "alignment loss", "classification": "source cross-entropy",
    "share": "share of the most predicted class", "wrong": "share of wrong pseudo-labels",
    "accuracy": "target accuracy, percent",
}  # fmt: skip


class TrueLabels(Biwaa):
    """BIWAA whose pseudo-labels are the truth: an experiment, not a method."""

    truth: Tensor

    def pseudo_labels(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """The true labels of `rows`."""
        return self.truth[rows]


def trace(prepared: Prepared, name: str, seed: int) -> dict[str, list[float]]:
    """Train one round and note every quantity each `EVERY` steps."""
    recipe = load_recipe("paper").replace(**PAPER, **VARIANTS[name], seed=seed)
    data, labelled = prepared.data, prepared.domains.target
    assert labelled.labels is not None
    truth = torch.from_numpy(labelled.labels)
    network = prepared.fresh_network(seed)
    torch.manual_seed(seed + 1)
    task = Task(recipe.network.bottleneck, data.classes, len(data.target), recipe.schedule.steps)
    method = (TrueLabels if name.startswith("true") else Biwaa)(task, recipe.dann, recipe.biwaa)
    if isinstance(method, TrueLabels):
        method.truth = truth
    optimizer = build_optimizer(network, method, recipe.optimizer)
    source = balanced_batches(data.source_labels, recipe.data.batch_size, seed, drop_small=False)
    target = uniform_batches(len(data.target), recipe.data.batch_size, seed + 1)
    labels = torch.from_numpy(data.source_labels)
    every = data.target.views(torch.arange(len(data.target)).numpy())[0]
    found: dict[str, list[float]] = {key: [] for key in ("step", *QUANTITIES)}
    for step, (a, b) in enumerate(zip(source, target, strict=False)):
        if step == recipe.schedule.steps:
            break
        torch.manual_seed(seed * MOST_STEPS + step)
        losses: dict[str, Loss] = training_step(
            network, method, optimizer, recipe, step,
            source=(data.source.batch(a), labels[a]), target=(data.target.batch(b), torch.from_numpy(b)),
        )  # fmt: skip
        if (step + 1) % EVERY:
            continue
        with torch.no_grad():
            predicted = network.eval()(every).logits.argmax(dim=1)
            network.train()
        visited = method.memory[:, 0] >= 0
        pseudo = method.memory.argmax(dim=1)
        values = {
            "step": step + 1,
            "alignment": float(losses["alignment"].value.detach()) if "alignment" in losses else float("nan"),
            "classification": float(losses["classification"].value.detach()),
            "share": float(predicted.bincount(minlength=data.classes).max()) / len(predicted),
            "wrong": 0.0 if isinstance(method, TrueLabels) else float((pseudo != truth)[visited].float().mean()),
            "accuracy": 100 * float((predicted == truth).float().mean()),
        }
        for key, value in values.items():
            found[key].append(round(value, 5))
    return found


def draw(traces: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> None:
    """A column a task, a row a quantity, a line a variant."""
    figure = matplotlib.figure.Figure(figsize=(5 * len(traces), 2.1 * len(QUANTITIES)), layout="constrained")
    grid = figure.subplots(len(QUANTITIES), len(traces), sharex=True, squeeze=False)
    for column, (task, variants) in enumerate(traces.items()):
        for row, (key, title) in enumerate(QUANTITIES.items()):
            axes = grid[row][column]
            for name, found in variants.items():
                axes.plot(found["step"], found[key], label=name, linewidth=1.4)
            axes.set_ylabel(title, fontsize=8)
            axes.grid(alpha=0.3)
            if key in ("alignment", "classification"):
                axes.set_yscale("symlog", linthresh=1e-2)
            if not row:
                axes.set_title(task, fontsize=10)
        grid[-1][column].set_xlabel("step")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=110)


def main(data_root: Path, out: Path, figure: Path, seed: int = 42) -> None:
    """Train, write and draw."""
    traces = {}
    recipe = load_recipe("paper").replace(**PAPER)
    for source, target in (("sketch", "photo"), ("photo", "sketch")):
        pair = Pair(*(open_domain(f"pacs:{name}", data_root) for name in (source, target)))
        prepared = prepare(pair, recipe, open_fabric("cpu"), skip_unreadable=False)
        traces[f"{source} > {target}"] = {name: trace(prepared, name, seed) for name in VARIANTS}
    write_text(out, json.dumps({"seed": seed, "traces": traces}) + "\n")
    draw(traces, figure)
    for task, variants in traces.items():
        for name, found in variants.items():
            print(f"{task}  {name:32}", "  ".join(f"{key} {found[key][-1]:.3g}" for key in QUANTITIES))


if __name__ == "__main__":
    tyro.cli(main)
