"""What it is worth on the CPU that freed memory is kept (`biwaa.device.keep_freed_memory`), and what it takes.

python benchmarks/allocator.py --out benchmarks/results/allocator.json

- glibc's settings hold for a process: each figure is of processes of their own, with and without, in turns
- without: an environment that sets one of glibc's settings to what it is anyway, which biwaa takes as the user's choice
"""

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import tyro
from speed import Steps, in_turns

from biwaa.device import hardware, open_fabric
from biwaa.files import write_text
from biwaa.models.backbone import build_backbone
from biwaa.training.describe import versions

CASES = ("efficientnet_lite0, 32 images at 224 px, forward", "resnet18 64", "resnet50 224")
"""The latter: BIWAA steps of 72 images, 65 classes."""
WITHOUT = {"MALLOC_ARENA_TEST": "8"}


def one(case: str, repeats: int) -> dict[str, float]:
    """Median seconds, page faults a turn and the process's peak in MiB; in this process."""
    device = torch.device("cpu")
    fabric = open_fabric("cpu")  # where memory is set up
    if case == CASES[0]:
        module = build_backbone("efficientnet_lite0", 224).module.to(memory_format=torch.channels_last).eval()
        images = torch.randn(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)

        def work() -> None:
            with torch.inference_mode():
                module(images)
    else:
        backbone, size = case.split()
        work = Steps(backbone, int(size), 65, device, fabric).biwaa
    seconds = in_turns({"work": work}, repeats, device)["work"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "page_faults": used.ru_minflt - before, "peak_mib": used.ru_maxrss / 1024}


def compare(case: str, repeats: int, processes: int) -> dict[str, Any]:
    """Medians over processes of both kinds."""
    measured: dict[str, list[dict[str, float]]] = {"kept": [], "without": []}
    for _ in range(processes):
        for kind, extra in (("kept", {}), ("without", WITHOUT)):
            command = [sys.executable, __file__, "--case", case, "--repeats", str(repeats)]
            ran = subprocess.run(command, env=os.environ | extra, capture_output=True, text=True, check=True)
            measured[kind].append(json.loads(ran.stdout))
    found: dict[str, Any] = {
        kind: {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
        for kind, turns in measured.items()
    }
    found["without_over_kept"] = found["without"]["seconds"] / found["kept"]["seconds"]
    found["peak_kept_over_without"] = found["kept"]["peak_mib"] / found["without"]["peak_mib"]
    return {"case": case} | found


def main(out: Path | None = None, case: str | None = None, repeats: int = 5, processes: int = 3) -> None:
    """Measure every case of `CASES`, or one in this process, and print its figures."""
    if case:
        print(json.dumps(one(case, repeats)))
        return
    found: dict[str, Any] = {"hardware": hardware("cpu"), "versions": versions()}
    found["cases"] = [compare(case, repeats, processes) for case in CASES]
    print(json.dumps(found["cases"], indent=1))
    if out:
        write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
