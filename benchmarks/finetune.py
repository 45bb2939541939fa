"""Does it pay to train the backbone after the frozen default, on a processor?

python benchmarks/finetune.py pacs:P2A pacs:A2C --data-root DIR --out benchmarks/results/finetune.json

Three ways to spend the same time, from recipes/end_to_end.yaml (EfficientNet-Lite0, 128 pixels):

- frozen: the default on frozen features at 224 pixels, which takes seconds
- alone: the backbone is trained by MCC, with as many steps again as the teacher's way has
- taught: the backbone learns from what the frozen default predicted of the target (`mcc_teacher`), and MCC
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import tyro

from biwaa.api import adapt
from biwaa.device import hardware, open_fabric
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.domains.classes import match_classes
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.recipe import Recipe, load_recipe
from biwaa.training.describe import versions
from biwaa.training.fit import StagePlan
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Pair, prepare
from biwaa.training.stage import load_stage, train_stage

ROOT = Path(__file__).parents[1]


def compared(source: str, target: str, data_root: Path, steps: int, seed: int) -> dict[str, Any]:
    """Accuracy on all target images, in percent, and seconds of each way; labels only score."""
    with tempfile.TemporaryDirectory() as work:
        begin = time.perf_counter()
        frozen = load_recipe("robust").replace(freeze_backbone=True, backbone="efficientnet-lite0", seed=seed)
        run = adapt(source, target, out=Path(work) / "frozen", recipe=frozen, data_root=data_root, verbose=False)
        seconds = time.perf_counter() - begin
        assert run.result.accuracy is not None  # the benchmark's targets have labels
        adapted = run.result.accuracy.adapted.over_images
        found = {"frozen": {"accuracy": round(100 * adapted, 2), "seconds": round(seconds, 1)}}
        teacher = load_stage(RunFolder(run.folder), "round 0").probabilities
        base = load_recipe(str(ROOT / "recipes" / "end_to_end.yaml")).replace(method="mcc_teacher", seed=seed)
        for name, recipe, previous in (
            ("taught", base.replace(steps=steps), teacher),
            ("alone", base.replace(steps=2 * steps, method="mcc"), None),
        ):
            found[name] = trained(source, target, data_root, recipe, previous, Path(work) / name)
            print(source, target, name, found[name], flush=True)
    return found


def trained(
    source: str, target: str, data_root: Path, recipe: Recipe, previous: torch.Tensor | None, out: Path
) -> dict[str, float]:
    """One round end to end, with a teacher's predictions of the target or without."""
    mine, theirs = (open_domain(spec, data_root) for spec in (source, target))
    theirs = match_classes(theirs, mine.classes or ())
    fabric = open_fabric("auto", recipe.machine.precision)
    begin = time.perf_counter()
    prepared = prepare(Pair(mine, theirs), recipe, fabric, False)
    stage = train_stage(
        StagePlan("round 0", recipe, recipe.seed, previous), prepared, fabric, RunFolder(out, writes=False)
    )
    assert theirs.labels is not None
    right = stage.probabilities.argmax(dim=1).numpy() == theirs.labels
    return {"accuracy": round(100 * float(right.mean()), 2), "seconds": round(time.perf_counter() - begin, 1)}


def main(
    tasks: tyro.conf.Positional[tuple[str, ...]], data_root: Path, out: Path, steps: int = 100, seed: int = 42
) -> None:
    """Measure the tasks (BENCHMARK:TASK) that are not in the file yet."""
    facts = {"hardware": hardware("cpu"), "versions": versions(), "steps": steps, "seed": seed}
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {**facts, "tasks": {}}
    for task in tasks:
        if task not in found["tasks"]:
            benchmark, _, name = task.partition(":")
            source, target = (f"{benchmark}:{domain}" for domain in BENCHMARKS[benchmark].task(name))
            found["tasks"][task] = compared(source, target, data_root, steps, seed)
            write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
