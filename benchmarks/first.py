"""The first measured table: five PACS tasks frozen, digits both ways end to end, three seeds, and the demo.

    python benchmarks/first.py pacs --data-root DIR       what the parts of the method are worth, recipe `paper`
    python benchmarks/first.py rivals --data-root DIR     the other methods on the same tasks and features, one round
    python benchmarks/first.py digits --data-root DIR     MNIST and USPS with LeNet, recipe `digits`
    python benchmarks/first.py demo                       the demo's gain over five seeds
    python benchmarks/first.py table                      the README's table from the figures

DIR holds pacs/{art_painting,cartoon,photo,sketch}/CLASS/ and digits.npz with {mnist,usps}_train_{x,y}.
Figures are added to benchmarks/results/first.json. Finished runs in --work are not
trained again, the demo excepted.
Every figure is the last checkpoint of its leg on all target images, chosen by the schedule, never by labels.
"""

import dataclasses
import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch
import tyro
from tyro.conf import Positional

from biwaa.demo import run_demo
from biwaa.device import hardware
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.recipe import Recipe, load_recipe
from biwaa.training.result import versions
from biwaa.training.run import adapt

RESULTS = Path(__file__).parent / "results" / "first.json"
SEEDS = (42, 43, 44)
PACS_TASKS = ("photo>art_painting", "art_painting>cartoon", "cartoon>sketch", "sketch>photo", "photo>sketch")
FROZEN = dataclasses.replace(load_recipe("paper"), backbone="tf_efficientnet_lite0", freeze_backbone=True, steps=600)
VARIANTS: dict[str, Recipe] = {
    "biwaa": dataclasses.replace(FROZEN, rounds=4),
    "dann": dataclasses.replace(FROZEN, rounds=1, baseline=False, method="dann"),
    "weighting": dataclasses.replace(FROZEN, rounds=1, baseline=False, alignment=0.0, separation=0.0),
}
RIVALS = ("cdan", "cdan_e", "mdd", "mstn", "deep_coral", "dan", "bnm", "mcc", "self_training")
COLUMNS = ("source-only", "dann", "weighting", "round 0", "round 1", "round 2", "round 3")


def legs(source: str, target: str, recipe: Recipe, out: Path) -> dict[str, dict[str, float]]:
    """Train, or find trained, one run; its legs' accuracies and seconds."""
    result = adapt(open_domain(source), open_domain(target), recipe, out, resume=True).result
    seconds = result["seconds"]
    return {name: {**figures, "seconds": seconds[name]} for name, figures in result["accuracy"]["legs"].items()}


def pacs(root: Path, work: Path) -> list[dict[str, Any]]:
    """Frozen EfficientNet-Lite0: source-only, DANN, weighting alone, all parts, four rounds."""
    rows = []
    for seed in SEEDS:
        for task in PACS_TASKS:
            source, target = (str(root / "pacs" / domain) for domain in task.split(">"))
            found: dict[str, dict[str, float]] = {}
            for name, variant in VARIANTS.items():
                recipe = dataclasses.replace(variant, seed=seed)
                trained = legs(source, target, recipe, work / f"pacs_{task.replace('>', '_to_')}_{name}_{seed}")
                found |= trained if name == "biwaa" else {name: trained["round 0"]}
            rows.append({"task": task, "seed": seed, "legs": found})
    return rows


def rivals(root: Path, work: Path, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Frozen EfficientNet-Lite0: every method that `pacs` leaves out, each as its paper sets it, none tuned."""
    rows = []
    for seed in seeds:
        for task in PACS_TASKS:
            source, target = (str(root / "pacs" / domain) for domain in task.split(">"))
            found: dict[str, dict[str, float]] = {}
            for method in RIVALS:
                recipe = dataclasses.replace(FROZEN, rounds=1, baseline=False, method=method, seed=seed)
                out = work / f"rivals_{task.replace('>', '_to_')}_{method}_{seed}"
                try:
                    found[method] = legs(source, target, recipe, out)["round 0"]
                except BiwaaError as error:
                    print(f"{task}, {method}, seed {seed} diverged: {error}")
            rows.append({"task": task, "seed": seed, "legs": found})
    return rows


def digits(root: Path, work: Path) -> list[dict[str, Any]]:
    """LeNet from random weights, end to end."""
    rows = []
    for seed in SEEDS:
        for source, target in (("mnist", "usps"), ("usps", "mnist")):
            recipe = dataclasses.replace(load_recipe("digits"), seed=seed)
            specs = [f"{root / 'digits.npz'}:{name}_train" for name in (source, target)]
            found = legs(specs[0], specs[1], recipe, work / f"digits_{source}_to_{target}_{seed}")
            rows.append({"task": f"{source}>{target}", "seed": seed, "legs": found})
    return rows


def demo(work: Path) -> list[dict[str, Any]]:
    """The demo as it is installed, five seeds."""
    rows = []
    for seed in (42, 43, 44, 45, 46):
        result = run_demo(work / f"demo_{seed}", seed).result
        rows.append({"task": "digits>photographs", "seed": seed, "legs": result["accuracy"]["legs"]})
    gains = [100 * (row["legs"]["round 1"]["over_images"] - row["legs"]["source-only"]["over_images"]) for row in rows]
    print(f"median gain {statistics.median(gains):.1f} points of {[round(gain, 1) for gain in gains]}")
    return rows


def table() -> str:
    """Markdown: target accuracy over images in percent, mean and standard deviation over the seeds."""
    results = json.loads(RESULTS.read_text())
    parts = _table([results.get(name, {}).get("rows", []) for name in ("pacs", "digits", "demo")], COLUMNS)
    return parts + "\n\n" + _table([results.get("rivals", {}).get("rows", [])], RIVALS)


def _table(groups: list[list[dict[str, Any]]], columns: tuple[str, ...]) -> str:
    lines = ["| task | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for rows in groups:
        for task in dict.fromkeys(row["task"] for row in rows):
            cells = []
            for column in columns:
                values = [100 * row["legs"][column]["over_images"] for row in rows
                          if row["task"] == task and column in row["legs"]]  # fmt: skip
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}" if values else "")
            lines.append(f"| {task} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    what: Positional[str],
    data_root: Path = Path("data"),
    work: Path = Path("runs/first"),
    seeds: tuple[int, ...] = SEEDS,
) -> None:
    """Measure `what`: pacs, rivals, digits or demo; or print the table.

    Args:
        what: pacs, rivals, digits, demo or table.
        data_root: where pacs/ and digits.npz lie.
        work: folder for the runs.
        seeds: of the rivals.
    """
    if what == "table":
        print(table())
        return
    if what == "rivals":
        rows = rivals(data_root, work, seeds)
    else:
        rows = demo(work) if what == "demo" else {"pacs": pacs, "digits": digits}[what](data_root, work)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[what] = {
        "protocol": "last step of each leg, chosen by the schedule; all target images, which were trained on "
        "without labels; shares in [0, 1]",
        "hardware": hardware("cuda" if torch.cuda.is_available() else "cpu") | {"cores": os.cpu_count()},
        "versions": versions(),
        "rows": rows,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
