"""One call for an accelerator: is it right, what does it cost over its floors, and what does it learn end to end?

python benchmarks/gpu.py --out gpu.json --data-root DIR      (a CPU runs it in a small setting: a check of the script)

Its parts, in this order; each is written to the file as soon as it is there, and the same command goes on after it:

- correctness: losses and parameters of three steps against the same steps in float64 on the CPU
- losses: the semantic losses alone; crops: images a second of random crops on the device
- 32-true, bf16-mixed: step ratios as in speed.py, images a second, floating point operations over time and over the
  device's peak, where the time goes, and how often the host waits for the device within a step
- training TASK.VARIANT.SEED: runs end to end on Office's ten classes at 224 pixels (the study `recipes` of
  `biwaa bench`, one by one), as many as fit into --minutes
"""

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from speed import BATCH, Steps, in_turns, losses, steps
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from biwaa.api import adapt
from biwaa.bench.suites import resolve, variants
from biwaa.device import hardware, open_fabric
from biwaa.domains.catalogue import BENCHMARKS
from biwaa.errors import BiwaaError
from biwaa.files import write_text
from biwaa.images.augment import Transform, random_boxes, resample
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.method import Task
from biwaa.models.network import Network
from biwaa.recipe import Recipe, load_recipe
from biwaa.training.describe import versions
from biwaa.training.step import build_optimizer, training_step

Part = tuple[str, Callable[[], Any]]
"""A part's name, and what measures it."""


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


def timed_steps(device: torch.device, precision: str, peak: float | None, small: bool) -> dict[str, Any]:
    """Ratios, utilisation and synchronisations of a step in one precision."""
    cases = (("resnet18", 64, 65),) if small else (("resnet50", 224, 65), ("resnet50", 224, 345), ("resnet18", 64, 65))
    fabric = open_fabric(device.type, precision)
    found: dict[str, Any] = {"ratios": steps(device, fabric, 1 if small else 20, cases)}
    made = Steps(*cases[0], device, fabric)
    found["utilisation"] = utilisation(made, found["ratios"][0]["seconds"]["biwaa"], peak)
    found["where_time_goes"] = where_time_goes(made, device)
    if device.type == "cuda":
        found["synchronisations"] = synchronisations(made)
    return found


def end_to_end(small: bool) -> Recipe:
    """EfficientNet-Lite0 at 224 pixels, three rounds; what the paper ramps over 5,004 steps is as much shorter."""
    recipe, many = load_recipe("paper"), 300
    if small:
        many = 2
        recipe = recipe.replace(backbone="cnn", weights="none", image_size=8, resize=8, batch_size=4, crops=1)
    else:
        recipe = recipe.replace(backbone="efficientnet-lite0", precision="bf16-mixed")
    longer = recipe.schedule.steps / many
    return recipe.replace(
        rounds=2 if small else 3, steps=many, decay_rate=recipe.optimizer.decay_rate * longer,
        adversarial_horizon=recipe.dann.adversarial_horizon / longer,
        bootstrap_horizon=recipe.biwaa.bootstrap_horizon / longer,
    )  # fmt: skip


VARIANTS = ("source_only", "dann", "weighting", "paper", "biwaa")
"""Of the study `recipes`."""


def trainings(
    benchmark: str, tasks: tuple[str, ...], data_root: Path | None, small: bool, seeds: tuple[int, ...]
) -> Iterator[Part]:
    """Runs end to end, seed by seed and task by task."""
    recipe, entry = end_to_end(small), BENCHMARKS[benchmark]
    for seed in seeds:
        for task in tasks or entry.tasks:
            for variant in variants("recipes", recipe, VARIANTS):
                name = f"training {task}.{variant.name}.{seed}"
                source, target = (f"{benchmark}:{domain}" for domain in entry.task(task))
                mine = resolve(variant, recipe, seed)
                yield name, partial(trained, source, target, mine, data_root)


def trained(source: str, target: str, recipe: Recipe, data_root: Path | None) -> dict[str, Any]:
    """Target accuracy after each round, in percent, and what the run took; labels only score."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = adapt(source, target, out=Path(folder) / "run", recipe=recipe, data_root=data_root, verbose=False)
        except BiwaaError as error:
            return {"failed": str(error)}
        result = run.result
        scores = [stage.accuracy.over_images for stage in result.rounds if stage.accuracy]
        average = result.accuracy.average_of_rounds.over_images if result.accuracy else None
        return {
            "by_round": [round(100 * score, 2) for score in scores],
            "average_of_rounds": None if average is None else round(100 * average, 2),
            "seconds": result.cost.seconds, "steps": result.cost.steps, "images": result.cost.images,
        }  # fmt: skip


def parts(device: torch.device, small: bool, peak: float | None, runs: Iterator[Part]) -> Iterator[Part]:
    """All parts in order."""
    size = 64 if small else 224
    yield "correctness", lambda: correctness(device)
    yield "losses", lambda: losses(device)
    yield "crops", lambda: crops(device, size * 8 // 7, size)
    for precision in ("32-true", "bf16-mixed"):
        yield precision, partial(timed_steps, device, precision, peak, small)
    yield from runs


def measure(todo: Iterator[Part], out: Path, machine: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Measure part after part until the time is up, and write each as soon as it is there.

    Args:
        todo: all parts.
        out: the file; what it holds of the same machine is not measured again.
        machine: what the figures belong to.
        minutes: no part begins that would not end within these, by the longest one before it of its kind.
    """
    begin = time.perf_counter()
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {**machine, "parts": {}, "took": {}}
    if any(found.get(key) != value for key, value in machine.items()):
        raise SystemExit(f"{out} was measured on another machine or with other versions: name another file.")
    for name, work in todo:
        if name in found["parts"]:
            continue
        alike = [took for other, took in found["took"].items() if other.partition(" ")[0] == name.partition(" ")[0]]
        if time.perf_counter() - begin + max(alike, default=0.0) > 60 * minutes:
            print(f"{minutes} minutes are over before {name!r}: the same command goes on with it", flush=True)
            break
        start = time.perf_counter()
        found["parts"][name] = work()
        found["took"][name] = round(time.perf_counter() - start, 2)
        write_text(out, json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found["parts"][name]), flush=True)
    return found


def main(
    out: Path, data_root: Path | None = None, device: str = "auto", peak: float | None = None,
    benchmark: str = "office10", tasks: tuple[str, ...] = (), seeds: tuple[int, ...] = (42, 43, 44),
    minutes: float = 9.0,
) -> None:  # fmt: skip
    """Measure and write.

    Args:
        out: JSON file.
        data_root: folder of benchmarks; unset: $BIWAA_DATA or ./data.
        device: that computes.
        peak: teraflops of the device in bf16, for utilisation.
        benchmark: of the catalogue.
        tasks: of the benchmark; all unless named.
        seeds: of the trainings.
        minutes: after which no part begins.
    """
    on = open_fabric(device).device
    small = on.type == "cpu"
    machine = {"hardware": hardware(on.type), "versions": versions(), "training": end_to_end(small).flat()}
    runs = trainings(benchmark, tasks, data_root, small, seeds)
    measure(parts(on, small, peak, runs), out, machine, minutes)


if __name__ == "__main__":
    tyro.cli(main)
