"""The default and its rivals on data sets that no choice was made on: of `unseen_data.py` and `bundled_data.py`.

    python benchmarks/unseen.py --root DATA --bundled FILE.npz --out benchmarks/results/unseen.json

Each task is a run of `biwaa.adapt` with the frozen default, and the converged rivals of
`benchmarks/rivals.py` on the same features. Target labels only score them.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bundled_data
import tyro
from msgspec import to_builtins
from rivals import accuracies
from unseen_data import KINDS, VENDORS

import biwaa
from biwaa.device import hardware
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.recipe import Recipe, load_recipe
from biwaa.training.describe import versions


def tasks(root: Path | None, digits: Path | None, bundled: Path | None) -> Iterator[tuple[str, str, str, str]]:
    """Data set, task, and the SPECs of its source and its target."""
    if root:
        for here, there in itertools.permutations(KINDS, 2):
            yield "letters", f"{here} > {there}", f"{root}/letters/{here}", f"{root}/letters/{there}"
        for name, (of_source, of_target) in {"emoji_kinds": ("_even", "_odd"), "emoji_groups": ("", "")}.items():
            for here, there in itertools.permutations(VENDORS, 2):
                yield name, f"{here} > {there}", f"{root}/{name}/{here}{of_source}", f"{root}/{name}/{there}{of_target}"
    if digits:
        for here, there in itertools.permutations(("mnist", "usps"), 2):
            yield "digits", f"{here} > {there}", f"{digits}:{here}_test", f"{digits}:{there}_test"
    if bundled:
        for number, (name, task, _, _) in enumerate(bundled_data.tasks()):
            yield name, task, f"{bundled}:{number}_source", f"{bundled}:{number}_target"


def default_on(backbone: str) -> Recipe:
    """The default on a frozen backbone."""
    return load_recipe("robust").replace("benchmark", backbone=backbone, freeze_backbone=True)


def on_every_row(recipe: Recipe) -> Recipe:
    """The same without held-out source images, as rivals are given them."""
    return recipe.replace("benchmark", source_held_out=0.0, method="prototypes")


def measure(source: str, target: str, backbone: str) -> dict[str, Any]:
    """Accuracies over all target images in percent, and what the run estimated."""
    recipe = default_on(backbone)
    found: dict[str, Any] = {"rivals": accuracies(open_domain(source), open_domain(target), on_every_row(recipe))}
    with TemporaryDirectory() as folder:
        result = biwaa.adapt(source, target, recipe=recipe, out=f"{folder}/run", verbose=False).result
    estimate = result.estimated_accuracy
    assert result.accuracy
    assert result.baseline
    assert result.baseline.accuracy
    return found | {
        "source_only": round(100 * result.baseline.accuracy.over_images, 2),
        "adapted": round(100 * result.accuracy.adapted.over_images, 2),
        "selected": result.selected.name,
        "estimate": None if estimate.value is None else round(100 * estimate.value, 2),
        "interval": [None if one is None else round(100 * one, 1) for one in (estimate.low, estimate.high)],
        "lower_bound": None if estimate.lower_bound is None else round(100 * estimate.lower_bound, 1),
        "calibration_error": None if result.calibration.target is None else to_builtins(result.calibration.target),
        "readings": estimate.readings, "warnings": [type(one).__name__ for one in result.warnings],
        "classes": len(result.classes), "images": result.target.images,
    }  # fmt: skip


def main(
    out: Path, root: Path | None = None, digits: Path | None = None, bundled: Path | None = None,
    backbone: str = "efficientnet-lite0",
) -> None:  # fmt: skip
    """Measure all tasks; those that are in the file already are not measured again.

    Args:
        out: JSON file.
        root: as of `unseen_data.py`.
        digits: the archive of MNIST and USPS.
        bundled: as of `bundled_data.py`.
        backbone: frozen.
    """
    done: dict[str, Any] = json.loads(out.read_text())["tasks"] if out.exists() else {}
    for data_set, task, source, target in tasks(root, digits, bundled):
        if f"{data_set}: {task}" in done:
            continue
        done[f"{data_set}: {task}"] = found = measure(source, target, backbone)
        print(data_set, task, found, flush=True)
        facts = {"backbone": backbone, "tasks": done, "versions": versions(), "hardware": hardware("cpu")}
        write_text(out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
