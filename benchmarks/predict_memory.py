"""Peak memory of `biwaa predict` over 10,000 and 100,000 tiny images, each run in a process of its own.

    python benchmarks/predict_memory.py

writes benchmarks/results/predict_memory.json. The images lie in one flat folder, as PNG files of 8 x 8 pixels; the
model is a LeNet with random weights, since its predictions do not matter here.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from biwaa.device import hardware
from biwaa.images.augment import Transform
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network
from biwaa.models.saved import SavedModel, save_model
from biwaa.training.describe import versions

RESULTS = Path(__file__).parent / "results" / "predict_memory.json"
MEASURED = """
import re, sys
from biwaa.cli import main
code = main(sys.argv[1:])
# Not getrusage: its peak is inherited from the process that started this one.
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""


def measure(model: Path, images: Path, out: Path) -> dict[str, float]:
    """Peak resident memory in MB and seconds of one `biwaa predict`."""
    begin = time.perf_counter()
    words = [sys.executable, "-c", MEASURED, "predict", str(model), str(images), "--out", str(out), "--device", "cpu"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    peak = int(done.stderr.split()[-1]) / 1024
    return {"peak_mb": round(peak, 1), "seconds": round(time.perf_counter() - begin, 1)}


def main(counts: tuple[int, ...] = (10_000, 100_000), formats: tuple[str, ...] = ("csv", "jsonl", "parquet")) -> None:
    """Measure every count in every format.

    Args:
        counts: of images.
        formats: of the table.
    """
    rows = []
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        backbone = build_backbone("lenet", 28)
        network = Network(backbone.module, backbone.features, 16, 5).eval()
        transform = Transform(28, 28, backbone.mean, backbone.std, 1)
        save_model(folder / "m.safetensors", SavedModel(network, tuple("abcde"), transform, "lenet"))
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "one.png")
        one = (folder / "one.png").read_bytes()
        for count in counts:
            images = folder / f"{count}"
            images.mkdir()
            for index in range(count):
                (images / f"{index:06}.png").write_bytes(one)
            for kind in formats:
                found = measure(folder / "m.safetensors", images, folder / f"p.{kind}")
                rows.append({"images": count, "format": kind, **found})
                print(rows[-1])
                if kind == "csv":
                    with (folder / "p.csv").open() as file:
                        assert sum(1 for _ in csv.reader(file)) == count + 1
    facts = {
        "protocol": "one process a row; peak resident set size of the whole process, libraries included; 8 x 8 pixel "
        "PNG files in one folder, LeNet at 28 pixels with random weights, batches of 32",
        "hardware": hardware("cpu") | {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
