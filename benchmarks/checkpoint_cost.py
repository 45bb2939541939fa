"""What checkpoints cost: seconds to keep a state, against the training between two at the default distance.

    OMP_NUM_THREADS=1 python benchmarks/checkpoint_cost.py

A step is timed by the processor time it takes, which other programs don't lengthen; keeping a state by the clock, since
it waits for the disk.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biwaa.device import hardware
from biwaa.images.batches import FeatureInputs
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network
from biwaa.recipe import load_recipe
from biwaa.tensors import save_tensors
from biwaa.training.checkpoints import state_of
from biwaa.training.data import Data
from biwaa.training.fit import StagePlan
from biwaa.training.stage import build_method
from biwaa.training.step import build_optimizer, training_step

CASES = (("cnn", 24, 60), ("resnet18", 64, 6), ("resnet50", 224, 1))
"""Backbone, pixels, steps to time."""
CLASSES, TARGETS = 31, 2000


def measure(name: str, size: int, steps: int) -> dict[str, Any]:
    """One backbone under BIWAA, recipe `paper`."""
    recipe = load_recipe("paper").replace(backbone=name, weights="none", image_size=size)
    backbone = build_backbone(name, size)
    network = Network(backbone.module, backbone.features, recipe.network.bottleneck, CLASSES).train()
    none = FeatureInputs(torch.empty(TARGETS, 0))
    method = build_method(StagePlan("round 0", recipe, 0), Data(none, np.zeros(TARGETS, np.int64), none, CLASSES))
    optimizer = build_optimizer(network, method, recipe.optimizer)
    batch = recipe.data.batch_size
    rows = torch.arange(batch)
    begin = time.process_time()
    for step in range(steps):
        source, target = torch.randn(2, batch, 3, size, size)
        labels = torch.randint(0, CLASSES, (batch,))
        training_step(network, method, optimizer, recipe, step, source=(source, labels), target=(target, rows))
    a_step = (time.process_time() - begin) / steps
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        for _ in range(5):
            before = time.perf_counter()
            save_tensors(path, state_of(network, method, optimizer))
            kept.append(time.perf_counter() - before)
        megabytes = path.stat().st_size / 1e6
    every, _ = recipe.machine.checkpoint_interval()
    return {
        "seconds_a_step": round(a_step, 4),
        "seconds_a_checkpoint": round(statistics.median(kept), 3),
        "megabytes": round(megabytes, 1),
        "percent_of_training": round(100 * statistics.median(kept) / (every * a_step), 3),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found: dict[str, Any] = {f"{name}, {size} px": measure(name, size, steps) for name, size, steps in CASES}
    print(json.dumps(found | {"processor": hardware("cpu")["processor"]}, indent=2))
