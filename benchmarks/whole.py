"""The estimate where the backbone is trained too, judged over finished benches of the study `recipes`.

    python benchmarks/whole.py BENCH.. --out benchmarks/results/whole.json

BENCH are folders of `biwaa bench`, made with `--keep-models`, whose runs have no source-only of their own: the bench's
run of the same task and seed stands beside each. Target labels only judge.
"""

import json
from pathlib import Path

import numpy as np
import tyro

from biwaa.files import write_text
from biwaa.judging.estimate import AGREEMENTS, WHOLE, estimates
from biwaa.result import read_result
from biwaa.training.describe import versions
from biwaa.training.folder import RunFolder
from biwaa.training.stage import load_stage

CHOSEN_ON = (42, 43)
"""Seeds whose target labels were in view when the readings were chosen; others judge them."""


def readings(folder: Path) -> dict[str, dict[str, float]]:
    """By run: the true accuracy, the readings, their mean, and the estimate without source-only."""
    found = {}
    for alone in sorted(folder.glob("runs/*.source_only.*/result.json")):
        task, _, seed = alone.parent.name.split(".")
        baseline = load_stage(RunFolder(alone.parent), read_result(alone.parent).model.stage).evidence
        for path in sorted(folder.glob(f"runs/{task}.*.{seed}/result.json")):
            result = read_result(path.parent)
            if result.accuracy is None:
                continue
            selected = load_stage(RunFolder(path.parent), result.model.stage).evidence
            own, beside = result.estimated_accuracy.readings, estimates(selected, (), 1.0, baseline)
            values = {name: beside[name] for name in WHOLE}
            before = [own[name] for name in AGREEMENTS if name in own]
            found[path.parent.name] = {
                "accuracy": result.accuracy.adapted.over_images, **values,
                "estimate": float(np.mean([values[name] for name in WHOLE])),
                "without_source_only": float(np.mean(before)),
            }  # fmt: skip
    return found


def judged(runs: list[dict[str, float]], name: str) -> dict[str, float]:
    """Errors of one reading or estimate, in points."""
    apart = 100 * np.array([run[name] - run["accuracy"] for run in runs])
    error, worst = float(np.abs(apart).mean()), float(np.abs(apart).max())
    return {"mean_error": round(error, 1), "bias": round(float(apart.mean()), 1), "worst": round(worst, 1)}


def main(benches: tyro.conf.Positional[tuple[Path, ...]], out: Path) -> None:
    """Judge, write and print.

    Args:
        benches: folders.
        out: JSON file.
    """
    runs = {name: values for folder in benches for name, values in readings(folder).items()}
    kinds: dict[str, list[dict[str, float]]] = {"seeds that chose": [], "other seeds": [], "source-only": []}
    for name, run in runs.items():
        _, variant, seed = name.split(".")
        kind = "seeds that chose" if int(seed) in CHOSEN_ON else "other seeds"
        kinds["source-only" if variant.startswith("source_only") else kind].append(run)
    names = ("estimate", "without_source_only", *WHOLE)
    found = {
        kind: {"runs": len(these), **{name: judged(these, name) for name in names}}
        for kind, these in kinds.items()
        if these
    }
    rounded = {name: {key: round(value, 4) for key, value in run.items()} for name, run in runs.items()}
    write_text(out, json.dumps({"judged": found, "runs": rounded, "versions": versions()}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
