"""What the method costs beyond its floors, each floor timed in the same process, in turns with it.

python benchmarks/speed.py step losses frozen --out benchmarks/results/speed.json

- step: a BIWAA step over a supervised step of the same images; and over the same step written as loops
- losses: the semantic losses alone, and what they keep for backward
- frozen: a round of 5,004 steps on 10,000 features

What images cost before they reach the network is in `pixels.py`.
"""

import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from biwaa.device import hardware, open_fabric, with_threads
from biwaa.files import write_text
from biwaa.functional import semantic_losses
from biwaa.images.batches import FeatureInputs
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.method import Task
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network, Output
from biwaa.recipe import load_recipe
from biwaa.training.data import Data
from biwaa.training.describe import versions
from biwaa.training.fit import StagePlan, fit
from biwaa.training.folder import RunFolder
from biwaa.training.stage import build_method
from biwaa.training.step import build_optimizer, training_step

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import literal

BATCH = 36
CASES = (("resnet50", 224, 65), ("resnet50", 224, 345), ("resnet18", 64, 65))
LINES = ("feature_weights", "update_centroids", "semantic_losses")
"""Functions that `literal` has as loops."""


def in_turns(works: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each, one after the other again and again, so that all see the same machine."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first warms up
                taken[name].append(time.perf_counter() - begin)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


class Steps:
    """A BIWAA step, its supervised floor and its loops, on the same random images."""

    def __init__(self, backbone: str, size: int, classes: int, device: torch.device, fabric: Any) -> None:
        """Build networks and inputs on the device."""
        torch.manual_seed(0)
        built = build_backbone(backbone, size)
        self.recipe, self.fabric, self.step = load_recipe("paper").replace(batch_size=BATCH), fabric, 0
        self.network = Network(built.module, built.features, 256, classes).to(device)
        self.network.to(memory_format=torch.channels_last)
        task = Task(256, classes, 1000, self.recipe.schedule.steps, torch.rand(1000, classes).softmax(dim=1))
        self.method = Biwaa(task, self.recipe.dann, self.recipe.biwaa).to(device)
        self.optimizer = build_optimizer(self.network, self.method, self.recipe.optimizer)
        self.plain = copy.deepcopy(self.network)
        self.plain_optimizer = build_optimizer(self.plain, self.method, self.recipe.optimizer)
        images = torch.randn(2 * BATCH, 3, size, size, device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(2 * BATCH, device=device) % classes
        self.rows = torch.arange(BATCH, device=device)

    def biwaa(self, source: Tensor | None = None, target: Tensor | None = None) -> None:
        """All parts, in a later round; of images that are there already, where none are given."""

        def forward(inputs: Tensor) -> Any:
            with self.fabric.autocast():
                return Output(*(part.float() for part in self.network(inputs)))  # as Fabric returns them

        source = self.images[:BATCH] if source is None else source
        target = self.images[BATCH:] if target is None else target
        self.step += 1
        training_step(
            self.network, self.method, self.optimizer, self.recipe, self.step, source=(source, self.labels[:BATCH]),
            target=(target, self.rows), forward=forward,
        )  # fmt: skip

    def supervised(self) -> None:
        """Cross-entropy of all 72 images with the same network and optimiser."""
        with self.fabric.autocast():
            loss = F.cross_entropy(self.plain(self.images).logits.float(), self.labels)
        self.plain_optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.plain_optimizer.step()

    def loops(self) -> None:
        """The same BIWAA step with the formulas as loops over images, classes and pairs of classes."""

        def weights(features: Tensor, labels: Tensor, classifier: Any, scale: float) -> Tensor:
            found: Tensor = literal.feature_weights(features, labels, classifier.weight, classifier.bias, scale)
            return found.to(features.dtype)

        slow = {name: getattr(literal, name) for name in LINES} | {"feature_weights": weights}
        with patch.multiple("biwaa.methods.biwaa", **slow):
            self.biwaa()


def steps(device: torch.device, fabric: Any, repeats: int, cases: Any = CASES) -> list[dict[str, Any]]:
    """Ratios of every case; the loops only where K = 65, since they take K^2 small operations."""
    found = []
    for backbone, size, classes in cases:
        made = Steps(backbone, size, classes, device, fabric)
        works: dict[str, Callable[[], object]] = {"biwaa": made.biwaa, "supervised": made.supervised}
        if classes <= 65:
            works["loops"] = made.loops
        seconds = in_turns(works, repeats, device)
        entry = {"backbone": backbone, "pixels": size, "classes": classes, "seconds": seconds}
        entry["over_supervised"] = seconds["biwaa"] / seconds["supervised"]
        if "loops" in seconds:
            entry["loops_over_biwaa"] = seconds["loops"] / seconds["biwaa"]
        print(json.dumps(entry), flush=True)
        found.append(entry)
    return found


def losses(device: torch.device, classes: int = 345, width: int = 256) -> dict[str, Any]:
    """Forward and backward of the semantic losses, one thread, and the numbers kept for backward."""
    source, target = (torch.randn(classes, width, device=device, requires_grad=True) for _ in range(2))
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.autograd.backward(semantic_losses(source, target))
    with with_threads(1):
        taken = in_turns({"losses": lambda: torch.autograd.backward(semantic_losses(source, target))}, 50, device)
    size = classes * width + classes**2
    return {
        "classes": classes,
        "width": width,
        "milliseconds": 1000 * taken["losses"],
        "kept_over_KD_and_KK": sum(kept) / size,
    }


def frozen(device: torch.device, fabric: Any, steps: int = 5004) -> dict[str, Any]:
    """One round of BIWAA on 10,000 x 1280 features of 65 classes."""
    with tempfile.TemporaryDirectory() as folder:
        generator = torch.Generator().manual_seed(0)
        features = torch.randn(10000, 1280, generator=generator).to(device)
        data = Data(FeatureInputs(features), np.arange(10000) % 65, FeatureInputs(features + 0.5), 65)
        recipe = load_recipe("paper").replace(
            freeze_backbone=True, steps=steps, checkpoint_every=steps, batch_size=BATCH
        )
        plan = StagePlan("round 0", recipe, seed=42)
        torch.manual_seed(0)
        network, method = Network(torch.nn.Identity(), 1280, 256, 65), build_method(plan, data)
        seconds = fit(plan, network, method, data, fabric, RunFolder(Path(folder), writes=False))
    return {"round_of_steps": steps, "round_seconds": seconds}


def main(
    parts: tyro.conf.Positional[tuple[Literal["step", "losses", "frozen"], ...]],
    out: Path, device: str = "cpu", precision: str = "32-true", repeats: int = 5,
) -> None:  # fmt: skip
    """Measure what is asked for and write it."""
    fabric = open_fabric(device, precision)
    found = json.loads(out.read_text()) if out.exists() else {}
    found |= {"hardware": hardware(fabric.device.type), "versions": versions(), "precision": precision}
    for what in parts:
        if what == "step":
            found[what] = steps(fabric.device, fabric, repeats)
        elif what == "losses":
            found[what] = losses(fabric.device)
        else:
            found[what] = frozen(fabric.device, fabric)
        print(what, json.dumps(found[what], indent=1), flush=True)
        write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
