"""SHA-256 of model.safetensors after a small run of every named recipe: did a change of the code change any model?

    python benchmarks/digests.py --out digests.json

Digests depend on the machine's arithmetic, so compare two files made on one machine with one thread.
"""

import argparse
import hashlib
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import biwaa
from biwaa.device import hardware

SMALL: dict[str, Any] = {"rounds": 2, "steps": 12, "batch_size": 16, "device": "cpu"}
NETWORK: dict[str, Any] = {"backbone": "cnn", "weights": "none", "image_size": 24, "resize": 26}
RUNS: dict[str, dict[str, Any]] = {
    "paper": NETWORK,
    "paper, frozen features": {},
    "robust": NETWORK | {"rounds": 3, "scouts": 2},
    "robust, frozen features": {"method": "mcc_teacher", "rounds": 3, "scouts": 2},
    "digits": {"rounds": 3},
    "paper, small": {
        "backbone": "cnn", "weights": "none", "crops": 1, "learning_rate": 0.01, "head_factor": 1.0, "augment": "none",
        "image_size": 24, "resize": 24, "bottleneck": 128, "discriminator": 256, "adversarial_horizon": 300.0,
    },
}  # fmt: skip
"""By name: the recipe before the comma, and what is made smaller; features are drawn at random. The recipe `demo` is
left out: it was replaced by another."""


def digest(name: str, folder: Path) -> str:
    """Train one small run and hash its model."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 5
    centres = rng.normal(size=(5, 32))
    source, target = (centres[labels] + rng.normal(size=(120, 32)) + shift for shift in (0.0, 0.5))
    given: dict[str, Any] = {"source": "digits:plain", "target": "digits:photographs"}
    if "features" in name:
        given = {"source": (source.astype(np.float32), labels), "target": target.astype(np.float32)}
    settings = SMALL | RUNS[name]
    biwaa.adapt(**given, out=folder, recipe=name.partition(",")[0], verbose=False, **settings)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Write the digests of all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: digest(name, Path(folder) / name.replace(",", "")) for name in RUNS}
    facts = {"models": found, "torch": torch.__version__, "python": platform.python_version(), **hardware("cpu")}
    out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
