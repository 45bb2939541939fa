"""Time and peak memory of the default on given features, by the number of target rows, each run in its own process.

    python benchmarks/frozen.py --out benchmarks/results/frozen.json

Everything of `biwaa.adapt` is counted: source-only, the default, what it is judged by, and the run folder. The rows are
drawn from one Gaussian a class; the target's are turned and moved. Their accuracy means nothing, but the solvers do as
much work as on real features that overlap. Then come `biwaa estimate` of as many new rows, and `biwaa suggest`, both
with their start, which takes some seconds. All rows lie in one .npz file.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from biwaa.device import hardware
from biwaa.files import write_text
from biwaa.training.describe import versions

MEASURED = """
import json, re, sys, time
import biwaa
import torch
torch.set_num_threads(int(sys.argv[1]))
begin = time.perf_counter()
used = time.process_time()
run = biwaa.adapt(*sys.argv[2:4], verbose=False, freeze_backbone=True, out=sys.argv[4])
print(json.dumps({
    "seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(time.process_time() - used, 1),
    "stages": {stage.name: stage.seconds for stage in run.result.stages},
    "peak_mb": round(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)}))
"""

COMMAND = """
import json, re, sys, time
begin = time.perf_counter()
import torch
torch.set_num_threads(int(sys.argv[1]))
from biwaa.cli import main
if main(sys.argv[2:]):
    sys.exit("it failed")
print(json.dumps({"seconds": round(time.perf_counter() - begin, 1), "cpu_seconds": round(time.process_time(), 1),
    "peak_mb": round(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024)}))
"""


def draw(file: Path, rows: int, targets: int, width: int, classes: int) -> int:
    """Write (rows, width) of a source with its labels, and (targets, width) of a target, and as many new ones.

    They are of Gaussian classes in 64 directions.

    Returns:
        Megabytes of source and target.
    """
    rng = np.random.default_rng(0)
    means = rng.standard_normal((classes, 64)).astype(np.float32)
    mixing = (rng.standard_normal((64, width)) / 8).astype(np.float32)
    turned = mixing + (rng.standard_normal((64, width)) / 16).astype(np.float32)

    def sample(labels: NDArray[np.int64], axes: NDArray[np.float32], moved: float) -> NDArray[np.float32]:
        found = np.empty((len(labels), width), np.float32)
        for start in range(0, len(labels), 10_000):
            part = labels[start : start + 10_000]
            inner = means[part] + 1.5 * rng.standard_normal((len(part), 64), dtype=np.float32)
            noise = rng.standard_normal((len(part), width), dtype=np.float32)
            found[start : start + len(part)] = np.maximum(inner @ axes + 0.5 * noise + moved, 0)
        return found

    labels = np.arange(rows) % classes
    source = sample(labels, mixing, 0.0)
    target, new = (sample(rng.integers(0, classes, targets), turned, 0.3) for _ in range(2))
    np.savez(file, source_x=source, source_y=labels, target_x=target, new_x=new)
    return round((source.nbytes + target.nbytes) / 2**20)


def measured(program: str, *words: str | int | Path) -> dict[str, Any]:
    """What a program prints last, run in a process of its own."""
    done = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(
    out: Path,
    targets: tuple[int, ...] = (5_000, 100_000, 1_000_000),
    widths: tuple[int, ...] = (1280, 1280, 256),
    rows: int = 5_000,
    classes: int = 65,
    threads: int = 2,
) -> None:
    """Measure one run for every number of target rows.

    Args:
        out: JSON file.
        targets: rows of the target.
        widths: features of each.
        rows: of the source.
        classes: of both.
        threads: of torch.
    """
    found: list[dict[str, Any]] = []
    for count, width in zip(targets, widths, strict=True):
        found.append({"source": rows, "target": count, "features": width, "classes": classes, "threads": threads})
        with tempfile.TemporaryDirectory() as work:
            file, run = Path(work, "rows.npz"), f"{work}/run"
            found[-1]["arrays_mb"] = draw(file, rows, count, width, classes)
            found[-1] |= measured(MEASURED, threads, f"{file}:source", f"{file}:target", run)
            found[-1]["estimate"] = measured(COMMAND, threads, "estimate", run, f"{file}:new")
            found[-1]["suggest"] = measured(COMMAND, threads, "suggest", run, "--out", f"{work}/to_label.csv")
        print(found[-1], flush=True)
        write_text(
            out, json.dumps({"runs": found, "versions": versions(), "hardware": hardware("cpu")}, indent=2) + "\n"
        )


if __name__ == "__main__":
    tyro.cli(main)
