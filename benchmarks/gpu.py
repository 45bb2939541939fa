"""One script for an accelerator: is it right, what does it cost over its floors, how busy is the device?

python benchmarks/gpu.py --out gpu.json                (a CPU runs it in a small setting: a check of the script)

- correctness: losses and gradients of one step against the same step in float64 on the CPU
- ratios: as in speed.py, in float32 and bf16
- utilisation: floating point operations of the step over time, and over the device's peak, where it is given
- synchronisations: a step in which the host waits for the device fails
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from speed import BATCH, Steps, in_turns, losses, steps
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from biwaa.device import hardware, open_fabric
from biwaa.files import write_text
from biwaa.images.augment import Transform, random_boxes, resample
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.method import Task
from biwaa.models.network import Network
from biwaa.recipe import load_recipe
from biwaa.training.describe import versions
from biwaa.training.step import build_optimizer, training_step


def correctness(device: torch.device) -> dict[str, float]:
    """Largest relative difference of losses and of parameters after three steps, against float64 on the CPU."""

    def trained(where: torch.device, dtype: torch.dtype) -> tuple[list[float], list[torch.Tensor]]:
        torch.manual_seed(0)
        recipe = load_recipe("paper").replace(bottleneck=32, dropout=0.0, batch_size=BATCH, learning_rate=1e-3)
        network = Network(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()), 64, 32, 65)
        task = Task(32, 65, 100, recipe.schedule.steps, torch.rand(100, 65).softmax(dim=1))
        method = Biwaa(task, recipe.dann, recipe.biwaa)
        network.to(where, dtype), method.to(where, dtype)
        optimizer = build_optimizer(network, method, recipe.optimizer)
        inputs = torch.randn(3, 2, BATCH, 64)
        values = []
        for step in range(3):
            source, target = inputs[step].to(where, dtype)
            labels = (torch.arange(BATCH) % 65).to(where)
            found = training_step(
                network, method, optimizer, recipe, 1000 + step, source=(source, labels), target=(target, labels)
            )
            values += [loss.value.item() for loss in found.values()]
        return values, [parameter.detach().cpu().double() for parameter in network.parameters()]

    exact, here = trained(torch.device("cpu"), torch.float64), trained(device, torch.float32)
    return {
        "losses": max(abs(a - b) / max(abs(a), 1e-3) for a, b in zip(exact[0], here[0], strict=True)),
        "parameters": max(float((a - b).norm() / a.norm()) for a, b in zip(exact[1], here[1], strict=True)),
    }


def synchronisations(made: Steps) -> int:
    """How often the host waits for the device within a step; 0 is wanted. Only CUDA reports it."""
    made.biwaa()
    torch.cuda.set_sync_debug_mode("warn")
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.biwaa()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def utilisation(made: Steps, seconds: float, peak: float | None) -> dict[str, float]:
    """Floating point operations of a supervised step over the time of a BIWAA step."""
    with FlopCounterMode(display=False) as counter:
        made.supervised()
    rate = counter.get_total_flops() / seconds
    found = {"teraflops": rate / 1e12, "images_per_second": 2 * BATCH / seconds}
    return found | ({"of_peak": rate / (peak * 1e12)} if peak else {})


def where_time_goes(made: Steps, device: torch.device) -> list[dict[str, Any]]:
    """The ten operations that take most of a step, by their own time."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        made.biwaa()
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, key))[:10]
    return [{"name": event.key, "milliseconds": getattr(event, key) / 1000, "calls": event.count} for event in events]


def crops(device: torch.device, side: int, size: int) -> dict[str, float]:
    """Images a second of random crops with flips and normalisation out of a store on the device."""
    store = torch.randint(0, 256, (512, side, side, 3), dtype=torch.uint8, device=device)
    transform = Transform(side, size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def views() -> None:
        rows = torch.randint(len(store), (2 * BATCH,))
        pixels = store[rows.to(device)].permute(0, 3, 1, 2)
        boxes, flip = random_boxes(2 * BATCH, side, 0.08), torch.rand(2 * BATCH) < 0.5
        transform.normalise(resample(pixels, boxes, flip, size))

    return {"images_per_second": 2 * BATCH / in_turns({"views": views}, 20, device)["views"]}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak", type=float, help="teraflops of the device in bf16, for utilisation")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    fabric = open_fabric(given.device)
    device, small = fabric.device, fabric.device.type == "cpu"
    cases = (("resnet18", 64, 65),) if small else (("resnet50", 224, 65), ("resnet50", 224, 345), ("resnet18", 64, 65))
    repeats, size = (3, 64) if small else (20, 224)
    begin = time.perf_counter()
    found: dict[str, Any] = {"hardware": hardware(device.type), "versions": versions(), "small": small}
    found["correctness"] = correctness(device)
    found["losses"] = losses(device)
    found["crops"] = crops(device, size * 8 // 7, size)
    for precision in ("32-true", "bf16-mixed"):
        precise = open_fabric(given.device, precision)
        part: dict[str, Any] = {"ratios": steps(device, precise, repeats, cases)}
        made = Steps(*cases[0], device, precise)
        part["utilisation"] = utilisation(made, part["ratios"][0]["seconds"]["biwaa"], given.peak)
        part["where_time_goes"] = where_time_goes(made, device)
        if device.type == "cuda":
            part["synchronisations"] = synchronisations(made)
        found[precision] = part
    found["seconds"] = time.perf_counter() - begin
    write_text(given.out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
