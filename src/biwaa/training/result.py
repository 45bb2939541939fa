"""What result.json says of a run: label-free scores, and accuracy only where labels exist.

The target's labels are opened here, after the legs are trained, and nowhere before.
"""

import hashlib
import json
import platform
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
from biwaa.device import hardware
from biwaa.evaluation.choice import LAST
from biwaa.evaluation.label_shift import label_shares, predicted_shares
from biwaa.evaluation.metrics import accuracies, agreement, label_free, total_variation
from biwaa.evaluation.validators import scores
from biwaa.evaluation.warnings import warnings
from biwaa.methods import method_named
from biwaa.recipe import Recipe, recipe_digest
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Prepared
from biwaa.training.rounds import BASELINE, Trained
from biwaa.training.trust import calibrated, estimates, signs


def describe(
    prepared: Prepared, recipe: Recipe, legs: list[Trained], chosen: str, temperature: float,
    folder: RunFolder, seconds: float, device: str,
) -> dict[str, Any]:  # fmt: skip
    """All figures of the legs trained so far.

    Args:
        prepared: what was trained on.
        recipe: all settings.
        legs: in the order of their training, a round last.
        chosen: the name of the leg whose model is handed out.
        temperature: of that model.
        folder: of the run, for its log.
        seconds: of this sitting.
        device: that it was trained on.
    """
    classes = prepared.source.classes or ()
    rounds = [leg for leg in legs if leg.name != BASELINE]
    handed = next(leg for leg in legs if leg.name == chosen)
    by = (
        "the schedule: the last round's last step, no labels"
        if recipe.choice == LAST
        else f"{recipe.choice}, no labels"
    )
    others = [leg.evidence for leg in rounds if leg is not handed]
    baseline = next((leg.evidence for leg in legs if leg.name == BASELINE), None)
    estimated = estimates(handed.evidence, others, temperature, baseline)
    result: dict[str, Any] = {
        "finished": len(rounds) == recipe.rounds,
        "method": recipe.method,
        "source": {"spec": prepared.source.spec, "images": len(prepared.source.images), "shift": recipe.source_shift},
        "target": {"spec": prepared.target.spec, "images": len(prepared.target.images), "shift": recipe.target_shift},
        "classes": list(classes),
        "model": {
            "checkpoint": f"last step of {chosen}",
            "chosen_by": by,
            "backbone": prepared.backbone.name,
            "weights": prepared.weights,
            "frozen": recipe.freeze_backbone,
            "batch_norm": "frozen" if recipe.freeze_backbone else "batch statistics apart, running averages shared",
        },
        "label_free": _label_free(legs, rounds, handed, classes, len(rounds) == recipe.rounds),
        "estimated_accuracy": {name: round(value, 6) for name, value in estimated.items()},
        "calibration": calibrated(handed.evidence, temperature, prepared.target.labels),
        "label_distribution": _distributions(prepared, legs, classes),
        "warnings": warnings(signs(prepared, recipe, legs, chosen, estimated, folder)),
    }
    if prepared.target.labels is not None:
        split = "all target images, the same that were trained on without labels"
        result["accuracy"] = _accuracy(legs, rounds, handed, prepared.target.labels, recipe, split)
    if prepared.held_out and prepared.held_out.labels is not None:
        predicted = {leg.name: leg.held_out for leg in legs if leg.held_out is not None}
        result["held_out"] = {
            "spec": prepared.held_out.spec,
            "images": len(prepared.held_out.images),
            "split": "target images that training got nothing of",
            "legs": {name: accuracies(part, prepared.held_out.labels) for name, part in predicted.items()},
        }
    result["seconds"] = {"this_sitting": round(seconds, 2)} | {leg.name: leg.seconds for leg in legs}
    result["steps"] = {"a_leg": recipe.steps, "images_a_step": _images_a_step(recipe, recipe.method)}
    result["cost"] = _cost(legs, recipe)
    result["compiled"] = {leg.name: leg.compiled for leg in legs if leg.compiled}
    result["seed"] = recipe.seed
    result["fingerprints"] = {"recipe": recipe_digest(recipe), "classes": _digest(list(classes))} | {
        name: value for name, value in folder.task().items() if name.endswith("_images")
    }
    result["versions"] = versions()
    result["hardware"] = hardware(device)
    return result


def _label_free(
    legs: list[Trained], rounds: list[Trained], handed: Trained, classes: tuple[str, ...], last: bool
) -> dict[str, Any]:
    """What can be said of the model without labels; every validator's score of every leg once all are trained."""
    baseline = next((leg for leg in legs if leg.name == BASELINE), None)
    free = label_free(handed.probabilities, classes)
    if baseline:
        free["agreement_with_source_only"] = round(agreement(handed.probabilities, baseline.probabilities), 6)
    if len(rounds) > 1:
        free["agreement_with_round_before"] = round(agreement(rounds[-1].probabilities, rounds[-2].probabilities), 6)
    if last:
        found = scores([leg.evidence for leg in legs])
        free["validators"] = {
            leg.name: {name: None if (value := of[row]) is None else round(value, 6) for name, of in found.items()}
            for row, leg in enumerate(legs)
        }
    return free


def _distributions(prepared: Prepared, legs: list[Trained], classes: tuple[str, ...]) -> dict[str, Any]:
    """Shares of the classes: the source's, what each leg predicts of the target, and the target's where it is known."""

    def named(values: NDArray[np.float64]) -> dict[str, float]:
        return {name: round(float(value), 6) for name, value in zip(classes, values, strict=True)}

    assert prepared.source.labels is not None  # a source has labels
    source = label_shares(prepared.source.labels, len(classes))
    estimated = {leg.name: predicted_shares(leg.probabilities) for leg in legs}
    found: dict[str, Any] = {
        "source": named(source),
        "estimated_target": {name: named(part) for name, part in estimated.items()},
        "total_variation": {
            "estimated_to_source": {name: total_variation(part, source) for name, part in estimated.items()}
        },
    }
    if prepared.target.labels is not None:
        true = label_shares(prepared.target.labels, len(classes))
        found["true_target"] = named(true)
        found["total_variation"] |= {
            "source_to_true": total_variation(source, true),
            "estimated_to_true": {name: total_variation(part, true) for name, part in estimated.items()},
        }
    return found


def _accuracy(
    legs: list[Trained], rounds: list[Trained], handed: Trained, labels: NDArray[np.int64], recipe: Recipe, split: str
) -> dict[str, Any]:
    every = {leg.name: accuracies(leg.probabilities, labels) for leg in legs}
    newest = rounds[-1]
    assert newest.average is not None  # rounds have one
    best = max((leg.name for leg in rounds), key=lambda name: every[name]["over_images"])
    return {
        "split": split,
        "seeds": [recipe.seed],
        "adapted": every[handed.name]
        | {
            "checkpoint": f"last step of {handed.name}",
            "chosen_by": "the schedule" if recipe.choice == LAST else f"{recipe.choice}, without labels",
        },
        "average_of_rounds": accuracies(newest.average, labels),
        "legs": every,
        "oracle_best_round": every[best] | {"checkpoint": f"last step of {best}", "chosen_by": "target labels"},
    }


def _images_a_step(recipe: Recipe, method: str) -> int:
    """Images that go forward and backward in a step."""
    of = method_named(method)
    return recipe.batch_size * (1 + of.sees_target + of.strong_view)


def _cost(legs: list[Trained], recipe: Recipe) -> dict[str, float]:
    """What all legs took: steps, images through the network in training, seconds of training and prediction."""
    methods = ["source_only" if leg.name == BASELINE else recipe.method for leg in legs]
    return {
        "steps": recipe.steps * len(legs),
        "images": recipe.steps * sum(_images_a_step(recipe, method) for method in methods),
        "seconds": round(sum(leg.seconds for leg in legs), 2),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that a figure depends on."""
    modules = (torch, torchvision, timm, lightning_fabric, safetensors, np, PIL)
    return {"biwaa": __version__, "python": platform.python_version()} | {
        module.__name__: str(module.__version__) for module in modules
    }
