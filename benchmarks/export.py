"""Every family of backbones, exported with random weights and compared with PyTorch.

    python benchmarks/export.py

writes benchmarks/results/export.json: the largest difference of a probability on random images, at two batch sizes,
through onnxruntime and torch.export. Two families run in the tests as well.
"""

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from biwaa.device import hardware
from biwaa.errors import BiwaaError
from biwaa.images.augment import Transform
from biwaa.inference.export import OPSET, TOLERANCE, export_run
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network
from biwaa.models.saved import SavedModel, save_model
from biwaa.training.describe import versions

RESULTS = Path(__file__).parent / "results" / "export.json"
FAMILIES: dict[str, tuple[int, Literal[1, 10]]] = {
    "lenet": (28, 1), "dtn": (32, 1), "cnn": (24, 10), "resnet18": (64, 10), "vgg11_bn": (64, 1), "alexnet": (224, 1),
    "tf_efficientnet_lite0": (64, 1), "convnext_atto": (64, 1), "vit_tiny_patch16_224": (64, 1),
    "swin_tiny_patch4_window7_224": (224, 1),
}  # fmt: skip
"""Backbone -> pixels a side, crops."""


def save_random(path: Path, name: str, size: int, crops: Literal[1, 10]) -> None:
    """A model of five classes with random weights, seed 0, in evaluation mode."""
    torch.manual_seed(0)
    backbone = build_backbone(name, size)
    network = Network(backbone.module, backbone.features, 16, 5).eval()
    transform = Transform(size * 8 // 7, backbone.image_size, backbone.mean, backbone.std, crops)
    save_model(path, SavedModel(network, tuple("abcde"), transform, backbone.name, 1.7))


def main(names: tuple[str, ...] = tuple(FAMILIES)) -> None:
    """Export each backbone both ways.

    Args:
        names: which backbones of `FAMILIES`.
    """
    formats: tuple[Literal["onnx"], Literal["pt2"]] = ("onnx", "pt2")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            size, crops = FAMILIES[name]
            save_random(Path(work) / "m.safetensors", name, size, crops)
            for kind in formats:
                row: dict[str, Any] = {"backbone": name, "image_size": size, "crops": crops, "format": kind}
                out, begin = Path(work) / f"m.{kind}", time.perf_counter()
                try:
                    difference = export_run(Path(work) / "m.safetensors", out, kind)
                    rows.append(row | {"difference": difference, "megabytes": round(out.stat().st_size / 1e6, 1)})
                except BiwaaError as error:
                    rows.append(row | {"failed": str(error)})
                print(rows[-1] | {"seconds": round(time.perf_counter() - begin, 1)}, flush=True)
                write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    """Keep what has been measured so far."""
    facts = {
        "protocol": f"random weights, seed 0; uint8 input of batches 5 and 1; ONNX opset {OPSET}; most that is allowed "
        f"is {TOLERANCE:g}",
        "hardware": hardware("cpu"),
        "versions": versions() | {package: version(package) for package in ("onnx", "onnxscript", "onnxruntime")},
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
