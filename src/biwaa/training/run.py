"""The whole run: from two domains to a folder with a model, its predictions and what they are worth.

- labels of the target, where there are any, are opened here and only after a leg is trained
- outputs are renewed after every round: whatever happens later, the last finished round's model is there
"""

import csv
import dataclasses
import io
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_fabric
import numpy as np
import PIL
import safetensors
import timm
import torch
import torchvision
from numpy.typing import NDArray

from biwaa import __version__
from biwaa.device import open_fabric
from biwaa.domains.domain import Domain, check_pair
from biwaa.errors import listed
from biwaa.evaluation.metrics import accuracies, agreement, label_free
from biwaa.files import write_text
from biwaa.methods import method_named
from biwaa.models.saved import SavedModel, save_model
from biwaa.progress import say
from biwaa.recipe import Recipe
from biwaa.training.folder import RunFolder, claim, look
from biwaa.training.prepare import Prepared, prepare
from biwaa.training.rounds import BASELINE, Trained, train_rounds


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: RunFolder
    result: dict[str, Any]


def adapt(
    source: Domain,
    target: Domain,
    recipe: Recipe,
    out: Path,
    resume: bool = False,
    overwrite: bool = False,
    skip_unreadable: bool = False,
) -> Run:
    """Train on labelled `source` and unlabelled `target`; leave everything in `out`.

    Args:
        source: with labels.
        target: labels, if it has any, are used for reporting alone.
        recipe: all settings.
        out: the run folder.
        resume: go on with an interrupted run of the same recipe and domains.
        overwrite: replace a run that lies there.
        skip_unreadable: leave out images that cannot be decoded instead of stopping.

    Raises:
        BiwaaError: anything the user can mend; see the message.
    """
    method_named(recipe.method)
    source, target = check_pair(source, target, recipe.batch_size)
    task = {
        "source": source.spec,
        "target": target.spec,
        "classes": list(source.classes or ()),
        "source_images": source.images.fingerprint(),
        "target_images": target.images.fingerprint(),
    }
    look(out, recipe, task, resume, overwrite)
    fabric = open_fabric(recipe.device, recipe.precision)
    prepared = prepare(source, target, recipe, fabric, skip_unreadable)
    folder = claim(out, recipe, task, resume)
    begin = time.perf_counter()
    legs: list[Trained] = []
    result: dict[str, Any] = {}
    for leg in train_rounds(prepared.data, prepared.fresh_network, recipe, fabric, folder):
        if legs:
            legs[-1] = dataclasses.replace(legs[-1], state={})  # the newest leg's parameters are all that is needed
        legs.append(leg)
        # A finished round found again must not put its model in the place of a later one's.
        if leg.name != BASELINE and (leg.fresh or leg.name == f"round {recipe.rounds - 1}"):
            result = _write_outputs(folder, prepared, recipe, legs, time.perf_counter() - begin, fabric.device.type)
            folder.forget_replaced()
    say(f"the model is in {folder.path}")
    return Run(folder, result)


def _write_outputs(
    folder: RunFolder, prepared: Prepared, recipe: Recipe, legs: list[Trained], seconds: float, device: str
) -> dict[str, Any]:
    classes = prepared.source.classes or ()
    newest = legs[-1]
    network = prepared.whole_network(newest.state)
    save_model(folder.model, SavedModel(network, classes, prepared.transform, prepared.backbone.name))
    table = predictions_table(prepared.target.images.names, newest.probabilities, classes)
    write_text(folder.path / "predictions.csv", table)
    result = _result(prepared, recipe, legs, seconds, device)
    folder.write_json("result.json", result)
    return result


def predictions_table(names: Sequence[str], probabilities: torch.Tensor, classes: tuple[str, ...]) -> str:
    """CSV text of path, label and confidence (the class's probability, four digits), a row an image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "confidence"])
    confidence, label = probabilities.max(dim=1)
    for name, index, value in zip(names, label.tolist(), confidence.tolist(), strict=True):
        writer.writerow([name, classes[index], f"{value:.4f}"])
    return text.getvalue()


def _result(prepared: Prepared, recipe: Recipe, legs: list[Trained], seconds: float, device: str) -> dict[str, Any]:
    classes = prepared.source.classes or ()
    rounds = [leg for leg in legs if leg.name != BASELINE]
    baseline = next((leg for leg in legs if leg.name == BASELINE), None)
    newest = rounds[-1]
    free = label_free(newest.probabilities, classes)
    if baseline:
        free["agreement_with_source_only"] = round(agreement(newest.probabilities, baseline.probabilities), 6)
    if len(rounds) > 1:
        free["agreement_with_round_before"] = round(agreement(newest.probabilities, rounds[-2].probabilities), 6)
    result: dict[str, Any] = {
        "finished": len(rounds) == recipe.rounds,
        "source": {"spec": prepared.source.spec, "images": len(prepared.source.images)},
        "target": {"spec": prepared.target.spec, "images": len(prepared.target.images)},
        "classes": list(classes),
        "model": {
            "checkpoint": f"last step of {newest.name}",
            "chosen_by": "the schedule: the last round's last step, no labels",
            "backbone": prepared.backbone.name,
            "weights": prepared.weights,
            "frozen": recipe.freeze_backbone,
            "batch_norm": "frozen" if recipe.freeze_backbone else "batch statistics apart, running averages shared",
        },
        "label_free": free,
        "warnings": _warnings(newest, classes),
    }
    labels = prepared.target.labels
    if labels is not None:
        result["accuracy"] = _accuracy(legs, rounds, labels, recipe)
    result["seconds"] = {"this_sitting": round(seconds, 2)} | {leg.name: leg.seconds for leg in legs}
    result["steps"] = {"a_leg": recipe.steps, "images_a_step": 2 * recipe.batch_size}
    result["seed"] = recipe.seed
    result["versions"] = versions()
    result["hardware"] = {"device": device, "threads": torch.get_num_threads(), "machine": platform.machine()}
    return result


def _accuracy(legs: list[Trained], rounds: list[Trained], labels: NDArray[np.int64], recipe: Recipe) -> dict[str, Any]:
    every = {leg.name: accuracies(leg.probabilities, labels) for leg in legs}
    newest = rounds[-1]
    assert newest.average is not None  # rounds have one
    best = max((leg.name for leg in rounds), key=lambda name: every[name]["over_images"])
    return {
        "split": "all target images, the same that were trained on without labels",
        "seeds": [recipe.seed],
        "adapted": every[newest.name] | {"checkpoint": f"last step of {newest.name}", "chosen_by": "the schedule"},
        "average_of_rounds": accuracies(newest.average, labels),
        "legs": every,
        "oracle_best_round": every[best] | {"checkpoint": f"last step of {best}", "chosen_by": "target labels"},
    }


def _warnings(newest: Trained, classes: tuple[str, ...]) -> list[str]:
    counts = newest.probabilities.argmax(dim=1).bincount(minlength=len(classes))
    never = [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]
    if not never:
        return []
    return [
        f"{len(never)} of {len(classes)} classes are never predicted on the target ({listed(never)}): "
        "the adaptation may have collapsed. Compare with source-only before use, "
        "and try --separation 0 --alignment 0."
    ]


def versions() -> dict[str, str]:
    """Versions of everything that a figure depends on."""
    modules = (torch, torchvision, timm, lightning_fabric, safetensors, np, PIL)
    return {"biwaa": __version__, "python": platform.python_version()} | {
        module.__name__: str(module.__version__) for module in modules
    }
