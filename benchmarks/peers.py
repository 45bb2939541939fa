"""Side by side with the peers that install today: the same network, images, batch, steps and optimiser on this machine.

pip install biwaa -r benchmarks/peers-requirements.txt        (an environment of its own)
python benchmarks/peers.py --data DATA/digits.npz --out benchmarks/results/peers.json

- USPS to MNIST: 7,291 labelled, 9,600 unlabelled images; accuracy on MNIST's 10,000 test images, not trained on
- each library through its own training loop: `fit`, skorch's `fit`, pytorch-adapt's adapters over a DataLoader
- seconds a step: a run's median time from one step of the optimiser to the next, loading included; the lowest of the
  seeds; libraries take turns
- the discriminator is the same for all, and skada's own is tried too; all else is each library's default
"""

import importlib.metadata
import itertools
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader, TensorDataset

from biwaa.device import hardware, open_fabric
from biwaa.files import write_text
from biwaa.images.batches import FeatureInputs
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Discriminator, Network
from biwaa.progress import be_quiet
from biwaa.recipe import load_recipe
from biwaa.training.data import Data
from biwaa.training.describe import versions
from biwaa.training.fit import StagePlan, fit
from biwaa.training.folder import RunFolder
from biwaa.training.stage import build_method

BATCH, STEPS, RATE, WIDTH, HIDDEN, CLASSES = 32, 300, 0.01, 64, 256, 10
SGD: dict[str, Any] = {"lr": RATE, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}
PEERS = ("skada", "skorch", "pytorch-adapt", "pytorch-metric-learning", "torchmetrics", "POT")


class Digits:
    """(N, 3, 28, 28) images in [-1, 1] and their labels."""

    def __init__(self, path: Path) -> None:
        """Read USPS and MNIST; USPS is enlarged from 16 to 28 pixels."""
        with np.load(path) as arrays:
            found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        self.source, self.labels = self._ready(found["usps_train_x"]), found["usps_train_y"].long()
        self.target = self._ready(found["mnist_train_x"][: STEPS * BATCH])  # an epoch of skada's is STEPS steps
        self.test, self.test_labels = self._ready(found["mnist_test_x"]), found["mnist_test_y"].long()

    @staticmethod
    def _ready(pixels: Tensor) -> Tensor:
        grey = pixels.float().reshape(len(pixels), 1, *pixels.shape[1:3]) / 127.5 - 1
        return F.interpolate(grey, (28, 28), mode="bilinear").repeat(1, 3, 1, 1)


class Parts(nn.Module):
    """biwaa's network as peers want it: features, then a classifier."""

    def __init__(self, network: Network) -> None:
        """Share its parts."""
        super().__init__()
        self.bottleneck = nn.Sequential(network.backbone, network.bottleneck)
        self.classifier = network.classifier

    def forward(self, images: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, K) logits; skada passes a weight."""
        logits: Tensor = self.classifier(self.bottleneck(images))
        return logits


class Reversed(nn.Module):
    """biwaa's discriminator as skada wants one: behind its reversal, probabilities."""

    def __init__(self, inputs: int) -> None:
        """For (B, inputs)."""
        super().__init__()
        self.discriminator = Discriminator(inputs, HIDDEN)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        from skada.deep.modules import GradientReversalLayer

        probability: Tensor = self.discriminator(GradientReversalLayer.apply(features, 1.0)).sigmoid()
        return probability


def biwaa(method: str, network: Network, data: Digits, seed: int) -> None:
    """One round; the reversal ramps up over the steps."""
    recipe = load_recipe("paper").replace(
        method=method, backbone="cnn", weights="none", batch_size=BATCH, steps=STEPS, checkpoint_every=STEPS, seed=seed,
        learning_rate=RATE, head_factor=1.0, decay_rate=0.0, bottleneck=WIDTH, discriminator=HIDDEN,
        adversarial_horizon=float(STEPS), class_balanced=False, device="cpu",
    )  # fmt: skip
    given = Data(FeatureInputs(data.source), data.labels.numpy(), FeatureInputs(data.target), CLASSES)
    plan = StagePlan("round 0", recipe, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place), writes=False)
        fit(plan, network, build_method(plan, given), given, open_fabric("cpu"), folder)


def skada(method: str, network: Network, data: Digits, seed: int) -> None:
    """One epoch, which is as many steps; the reversal's factor is 1 throughout."""
    from skada.deep import CDAN, DANN, SourceOnly

    conditional = method.startswith("cdan")
    wide = WIDTH * CLASSES if conditional else WIDTH
    common: dict[str, Any] = {
        "module": Parts(network), "layer_name": "bottleneck", "iterator_train__batch_size": BATCH, "max_epochs": 1,
        "train_split": None, "verbose": 0, "optimizer": torch.optim.SGD, "device": "cpu",
    } | {f"optimizer__{name}": value for name, value in SGD.items()}  # fmt: skip
    if method == "source_only":
        net = SourceOnly(**common)
    else:
        own = method.endswith("own discriminator")
        given: dict[str, Any] = {"num_features": WIDTH} if own else {"domain_classifier": Reversed(wide)}
        if conditional and own:
            given["n_classes"] = CLASSES
        net = (CDAN if conditional else DANN)(**common, **given)
    # An epoch of its source-only is of source images alone: some come twice, so that it has as many steps.
    rows = torch.arange(STEPS * BATCH if method == "source_only" else len(data.source)) % len(data.source)
    images = torch.cat([data.source[rows], data.target]).numpy()
    labels = np.concatenate([data.labels[rows].numpy(), np.full(len(data.target), -1)])  # -1: no label
    domains = np.concatenate([np.full(len(rows), 1), np.full(len(data.target), -2)])
    net.fit(images, labels, sample_domain=domains)


def pytorch_adapt(method: str, network: Network, data: Digits, seed: int) -> None:
    """Adapters over a DataLoader, as its documentation has it; reversal 1 throughout, CDAN in two phases a step."""
    from pytorch_adapt.adapters import CDAN, DANN, Classifier
    from pytorch_adapt.containers import Misc, Models, Optimizers
    from pytorch_adapt.datasets import CombinedSourceAndTargetDataset, SourceDataset, TargetDataset
    from pytorch_adapt.layers import RandomizedDotProduct

    parts = Parts(network)
    models = {"G": parts.bottleneck, "C": parts.classifier}
    wide = WIDTH * CLASSES
    if method != "source_only":
        models["D"] = Discriminator(wide if method == "cdan" else WIDTH, HIDDEN)
    containers = {"models": Models(models), "optimizers": Optimizers((torch.optim.SGD, SGD))}
    if method == "cdan":
        containers["misc"] = Misc({"feature_combiner": RandomizedDotProduct([WIDTH, CLASSES], wide)})
    adapter = {"source_only": Classifier, "dann": DANN, "cdan": CDAN}[method](**containers)
    both = CombinedSourceAndTargetDataset(
        SourceDataset(TensorDataset(data.source, data.labels)), TargetDataset(_Bare(data.target))
    )
    for model in models.values():
        model.train()
    for batch in DataLoader(both, BATCH, shuffle=True):
        adapter.training_step(batch)


class _Bare(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


RUNS: dict[str, tuple[Callable[[str, Network, Digits, int], None], tuple[str, ...]]] = {
    "biwaa": (biwaa, ("source_only", "dann", "cdan", "biwaa")),
    "skada": (skada, ("source_only", "dann", "dann, own discriminator", "cdan", "cdan, own discriminator")),
    "pytorch-adapt": (pytorch_adapt, ("source_only", "dann", "cdan")),
}


@contextmanager
def steps_timed() -> Iterator[list[float]]:
    """When any optimiser has stepped."""
    times: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: times.append(time.perf_counter()))
    try:
        yield times
    finally:
        handle.remove()


def accuracy(network: Network, data: Digits) -> float:
    """Over all test images, in evaluation mode."""
    network.eval()
    with torch.inference_mode():
        predicted = torch.cat([network(part).logits.argmax(dim=1) for part in torch.split(data.test, 1000)])
    return float((predicted == data.test_labels).double().mean())


def run(library: str, method: str, data: Digits, seed: int) -> dict[str, Any]:
    """Train from the seed's network; a peer that fails leaves its error."""
    train = RUNS[library][0]
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  pytorch-adapt draws its source images from it
    backbone = build_backbone("cnn", 28)
    network = Network(backbone.module, backbone.features, WIDTH, CLASSES).train()
    begin = time.perf_counter()
    try:
        with steps_timed() as times:
            train(method, network, data, seed)
    except Exception as error:  # whatever a peer raises is its result
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    seconds = time.perf_counter() - begin
    optimisers, left = divmod(len(times), STEPS)  # a library with several steps each once a step
    assert not left, f"{library} took {len(times)} steps"
    ends = times[optimisers - 1 :: optimisers]
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    return {
        "accuracy": accuracy(network, data), "step_seconds": float(np.median(gaps)), "steps": len(ends),
        "whole_seconds": seconds,
    }  # fmt: skip


def main(data: Path, out: Path, seeds: tuple[int, ...] = (42, 43, 44)) -> None:
    """Train what is not in the file yet, seed by seed, the libraries in turns."""
    be_quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    digits = Digits(data)
    order = [(library, method) for library, (_, methods) in RUNS.items() for method in methods]
    order.sort(key=lambda pair: pair[1].split(",")[0])  # a method's libraries one after the other
    kept = json.loads(out.read_text())["runs"] if out.exists() else {}
    found: dict[str, list[dict[str, Any]]] = {f"{library}: {method}": [] for library, method in order} | kept
    result = {
        "task": "USPS to MNIST, 28 px, cnn; accuracy on MNIST's test images at the last step",
        "settings": {"batch": BATCH, "steps": STEPS, "bottleneck": WIDTH, "discriminator": HIDDEN, "sgd": SGD},
        "hardware": hardware("cpu"),
        "versions": versions() | {name: importlib.metadata.version(name) for name in PEERS},
        "runs": found,
    }
    for seed, (library, method) in itertools.product(seeds, order):
        runs = found[f"{library}: {method}"]
        if seed in [entry["seed"] for entry in runs]:
            continue
        runs.append({"seed": seed} | run(library, method, digits, seed))
        print(library, method, json.dumps(runs[-1]), file=sys.stderr, flush=True)
        write_text(out, json.dumps(result, indent=1) + "\n")
    for name, runs in found.items():
        good = [entry for entry in runs if "error" not in entry]
        if not good:
            print(f"| {name} | {runs[0]['error']} |")
            continue
        scores = [100 * entry["accuracy"] for entry in good]
        step = 1000 * min(entry["step_seconds"] for entry in good)  # of the seed that was disturbed least
        print(f"| {name} | {step:.0f} | {np.mean(scores):.1f} | {' '.join(f'{score:.1f}' for score in scores)} |")


if __name__ == "__main__":
    tyro.cli(main)
