"""Office-Home with a zero-shot teacher: with it, with a bad one, without the source's labels.

python benchmarks/zero_shot.py --data-root DATA --out benchmarks/results/zero_shot.json

Twelve tasks on the scores of CLIP ViT-B/16 as features (`office_home_clip`), the same scores as the teacher. Every
figure is of the run's selected model, as `biwaa.adapt` gives it; target labels are used to count.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

import biwaa
from biwaa.files import write_text
from biwaa.result import SOURCE_ONLY, TEACHER, Result

DOMAINS = {"A": "art", "C": "clipart", "P": "product", "R": "real_world"}
TASKS = tuple(f"{a}2{b}" for a in DOMAINS for b in DOMAINS if a != b)
PERMUTATIONS = (0, 1)
READINGS = ("agreement_of_neighbours", "agreement_with_source_only", "agreement_with_teacher")
Rows = NDArray[np.float32]


def permuted(scores: Rows, seed: int) -> Rows:
    """Columns of a third of the classes go round."""
    third = np.random.default_rng(seed).permutation(scores.shape[1])[: scores.shape[1] // 3]
    columns = np.arange(scores.shape[1])
    columns[third] = np.roll(third, 1)
    return scores[:, columns]


def at_chance(scores: Rows, seed: int) -> Rows:
    """Rows of other images: as sure as ever, and right by chance."""
    return np.random.default_rng(seed).permutation(scores)


def figures(result: Result) -> dict[str, Any]:
    """Percentages of one run."""
    assert result.accuracy is not None  # every domain of the file has labels
    found = {"accuracy": result.accuracy.adapted.over_images, "selected": result.model.stage}
    for name in (SOURCE_ONLY, TEACHER):
        stage = result.stage(name)
        if stage and stage.accuracy:
            found[name] = stage.accuracy.over_images
    estimate = result.estimated_accuracy
    found |= {name: estimate.readings[name] for name in READINGS if name in estimate.readings}
    return found | {
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "seconds": result.cost.seconds,
    }


def measure(file: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Every condition of every task."""
    data = np.load(file)
    found: dict[str, Any] = {}

    def run(task: str, condition: str, source: str | None, target: str, **given: Any) -> None:
        settings = {"classes": data["classes"].tolist()} if source is None else {}
        there = None if source is None else f"{file}:{source}"
        result = biwaa.adapt(there, f"{file}:{target}", verbose=False, **given, **settings).result
        found.setdefault(condition, {})[task] = figures(result)
        print(task, condition, found[condition][task], flush=True)

    for target in DOMAINS.values():
        run(target, "no source", None, target, teacher=data[f"{target}_x"])
    for task in names:
        source, target = DOMAINS[task[0]], DOMAINS[task[2]]
        here, there = data[f"{source}_x"], data[f"{target}_x"]
        run(task, "no teacher", source, target)
        run(task, "teacher", source, target, teacher=there, teacher_source=here)
        run(task, "teacher of the target alone", source, target, teacher=there)
        for seed in PERMUTATIONS:
            bad = {"teacher": permuted(there, seed), "teacher_source": permuted(here, seed)}
            run(task, f"permuted {seed}", source, target, **bad)
        run(task, "permuted 0, target alone", source, target, teacher=permuted(there, 0))
        run(task, "at chance", source, target, teacher=at_chance(there, 0), teacher_source=at_chance(here, 1))
        run(task, "at chance on the target, right on the source", source, target, teacher=at_chance(there, 0),
            teacher_source=here)  # fmt: skip
    return found


def main(data_root: Path, out: Path, tasks: tuple[str, ...] = TASKS) -> None:
    """Measure and write the file."""
    found = measure(data_root / "office_home_clip.npz", tasks)
    write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
