"""What the demo shows over five seeds, and how long its command takes, as it is installed.

    python benchmarks/demo.py

writes benchmarks/results/demo.json: of each seed the true accuracy of source-only and of the selected model,
the estimate made without labels, the warnings, and the seconds of the whole command with its report. When the
machine is busy, CPU seconds say more than the clock.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import torch
import tyro

from biwaa.device import hardware
from biwaa.result import read_result
from biwaa.training.describe import versions

RESULTS = Path(__file__).parent / "results" / "demo.json"


def cpu_seconds() -> float:
    """Of all cores, in children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main(work: Path = Path("runs/demo"), seeds: tuple[int, ...] = (42, 43, 44, 45, 46), out: Path = RESULTS) -> None:
    """Run the demo's command and keep its figures.

    Args:
        work: folder for the runs.
        seeds: of data and training.
        out: the JSON file to write.
    """
    rows = []
    for seed in seeds:
        folder = work / f"demo_{seed}"
        begin, used = time.perf_counter(), cpu_seconds()
        words = [sys.executable, "-m", "biwaa", "demo", "--seed", str(seed), "--out", str(folder)]
        subprocess.run(words, check=True, capture_output=True)
        seconds = time.perf_counter() - begin
        result = read_result(folder / "run")
        assert result.accuracy is not None  # the demo's target has labels
        baseline = result.baseline
        assert baseline is not None
        assert baseline.accuracy is not None
        row = {
            "seed": seed,
            "source_only": baseline.accuracy.over_images,
            "adapted": result.accuracy.adapted.over_images,
            "selected": result.model.stage,
            "estimate": result.estimated_accuracy.value,
            "held_out_source": {stage.name: stage.validators["source_accuracy"] for stage in result.stages},
            "warnings": [msgspec.to_builtins(warning) for warning in result.warnings],
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds() - used, 1),
        }
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)
        rows.append(row)
    facts = {
        "protocol": "plain > painted; shares in [0, 1] of all target images, which were trained on without labels; the "
        "model is chosen without labels; seconds are of the whole command, from start to report",
        "hardware": hardware("cuda" if torch.cuda.is_available() else "cpu") | {"cores": os.cpu_count()},
        "versions": versions(),
        "rows": rows,
    }
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
