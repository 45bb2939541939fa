"""What result.json says of a run: label-free scores, and accuracy only where labels exist.

The target's labels are opened here, after the stages are trained, and nowhere before.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import lightning_fabric
import numpy as np
import PIL
import safetensors
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from biwaa.device import hardware
from biwaa.judging.calibration import calibration, held_out_temperature, matched_temperature
from biwaa.judging.estimate import combined, estimates
from biwaa.judging.evidence import Evidence
from biwaa.judging.label_shift import Shares, label_shares, predicted_shares, total_variation
from biwaa.judging.metrics import accuracies, agreement, mean_confidence, mean_entropy
from biwaa.judging.second_opinion import agreement_of_backbones
from biwaa.judging.signs import of_known
from biwaa.judging.validators import scores
from biwaa.judging.warnings import find_warnings
from biwaa.methods import METHODS
from biwaa.methods import SOURCE_ONLY as SOURCE_ONLY_METHOD
from biwaa.recipe import Recipe, recipe_digest
from biwaa.result import (
    FORMAT,
    REFERENCES,
    TARGET_LABELS,
    Accuracy,
    Cost,
    Estimate,
    LabelFree,
    LabelShares,
    Model,
    Result,
    Selected,
    Stage,
    TargetAccuracy,
    contradiction,
)
from biwaa.training.cost import images_a_step, stage_images
from biwaa.training.domain_facts import domain_facts, remembered_facts, source_facts, teacher_facts
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Prepared, unseen
from biwaa.training.rounds import average
from biwaa.training.signs import gather_signs
from biwaa.training.stage import Trained
from biwaa.training.teach import Lesson
from biwaa.version import __version__


def describe(
    prepared: Prepared,
    recipe: Recipe,
    stages: Sequence[Trained],
    selected: Trained,
    *,
    folder: RunFolder,
    sitting: float,
    device: str,
    lesson: Lesson | None = None,
) -> Result:
    """All that is known of the stages trained so far; no estimate of the accuracy where a warning contradicts it.

    Args:
        prepared: what was trained on.
        recipe: all settings.
        stages: in the order of their training, a round last.
        selected: the one whose model was selected.
        folder: of the run, for its log.
        sitting: seconds of this sitting.
        device: that it was trained on.
        lesson: where the teacher came from.
    """
    domains, data, network = prepared.domains, recipe.data, recipe.network
    classes, rounds = domains.source.classes or (), [stage for stage in stages if stage.name not in REFERENCES]
    evidence = {stage.name: stage.evidence for stage in stages}
    baseline, teacher = (evidence.get(name) for name in REFERENCES)
    finished = len(rounds) == recipe.schedule.rounds
    others = [stage.evidence for stage in rounds if stage is not selected]
    plain = selected.evidence if recipe.method == SOURCE_ONLY_METHOD else baseline
    temperature = held_out_temperature(selected.evidence)
    estimated = estimates(selected.evidence, others, temperature, plain, teacher)
    target, held_out, scored = domains.target, domains.held_out, unseen(domains)
    solved = METHODS[recipe.method].solved(network.frozen)
    assert domains.source.labels is not None  # a source has labels
    shares = label_shares(domains.source.labels, len(classes)) if len(domains.source.labels) else None
    true = None if target.labels is None else label_shares(target.labels, len(classes))
    found = _stages(prepared, stages, finished, shares, true)
    signs = gather_signs(prepared, rounds, baseline, selected, estimated, folder, solved)
    warned = tuple(find_warnings(of_known(signs) if recipe.prototypes.unknown != "off" else signs))
    estimate = _estimate(prepared, estimated, recipe, selected.absent is not None)
    if matched := estimate.value is not None:
        temperature = matched_temperature(selected.probabilities, estimate.value)
    if contradiction(warned, estimate):
        estimate = Estimate(readings=estimate.readings)
    images = {name: value for name, value in folder.task().items() if name.endswith(("_images", "_scores"))}
    return Result(
        format=FORMAT,
        finished=finished,
        method=recipe.method,
        seed=recipe.seed,
        classes=classes,
        source=domain_facts(domains.source, data.source_shift),
        remembered=remembered_facts(domains.known),
        sources=source_facts(domains.source, selected.standing),
        target=domain_facts(target, data.target_shift, domains.given),
        held_out=domain_facts(held_out) if held_out else None,
        model=Model(
            stage=selected.name,
            chosen_by=recipe.schedule.choice,
            backbone=prepared.backbone.name,
            weights=prepared.weights,
            frozen=network.frozen,
            batch_norm="frozen" if network.freeze_backbone else network.batch_norm,
        ),
        stages=found,
        label_free=_label_free(selected, rounds, baseline, teacher),
        estimated_accuracy=estimate,
        calibration=calibration(selected.evidence, temperature, scored.labels, matched),
        label_shares=_label_shares(classes, shares, true),
        warnings=warned,
        teacher=teacher_facts(prepared, lesson),
        accuracy=None if scored.labels is None else _accuracy(found, rounds, selected.name, scored.labels, recipe),
        cost=_cost(stages, recipe, sitting),
        fingerprints={"recipe": recipe_digest(recipe), "classes": _digest(list(classes))} | images,
        versions=versions(),
        hardware=hardware(device),
    )


def _estimate(prepared: Prepared, readings: Mapping[str, float], recipe: Recipe, absent: bool) -> Estimate:
    """The estimate of the accuracy; of a head alone it was far too high, so none is given."""
    known, frozen = prepared.domains.known, recipe.network.frozen
    solved, images = METHODS[recipe.method].solved(frozen), len(prepared.domains.target.images)
    found = combined(readings, images, solved, absent, whole=not frozen)
    return Estimate(readings=found.readings) if known and known.memory is None else found


def _named(shares: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    return {name: round(float(share), 6) for name, share in zip(classes, shares, strict=True)}


def _stages(
    prepared: Prepared, stages: Sequence[Trained], finished: bool, source: Shares | None, true: Shares | None
) -> tuple[Stage, ...]:
    """Every stage's facts; label-free scores compare the whole pool, so they wait for the last stage."""

    def scored(predicted: Tensor | None, truth: NDArray[np.int64] | None) -> Accuracy | None:
        return None if predicted is None or truth is None else accuracies(predicted, truth)

    domains = prepared.domains
    classes, labels = domains.source.classes or (), unseen(domains).labels
    validators = scores([stage.evidence for stage in stages]) if finished else {}
    held_out_labels = domains.held_out.labels if domains.held_out else None
    found = []
    for row, stage in enumerate(stages):
        shares = predicted_shares(stage.probabilities)
        values = {name: of[row] for name, of in validators.items()}
        found.append(
            Stage(
                name=stage.name,
                seconds=stage.seconds,
                predicted_shares=_named(shares, classes),
                distance_to_source=None if source is None else total_variation(shares, source),
                distance_to_true=None if true is None else total_variation(shares, true),
                validators={name: None if value is None else round(value, 6) for name, value in values.items()},
                accuracy=scored(stage.probabilities, labels),
                held_out=scored(stage.held_out, held_out_labels),
            )
        )
    return tuple(found)


def _label_free(
    selected: Trained, rounds: Sequence[Trained], baseline: Evidence | None, teacher: Evidence | None
) -> LabelFree:
    of = selected.probabilities
    apart = (baseline or selected.evidence).by_backbone

    def agrees(other: Evidence | None) -> float | None:
        return None if other is None else round(agreement(of, other.probabilities), 6)

    return LabelFree(
        mean_confidence=round(mean_confidence(of), 6),
        mean_entropy=round(mean_entropy(of), 6),
        agreement_with_source_only=agrees(baseline),
        agreement_with_teacher=agrees(teacher),
        agreement_with_round_before=(
            round(agreement(rounds[-1].probabilities, rounds[-2].probabilities), 6) if len(rounds) > 1 else None
        ),
        agreement_of_backbones=None if apart is None else round(agreement_of_backbones(apart), 6),
    )


def _label_shares(classes: Sequence[str], source: Shares | None, true: Shares | None) -> LabelShares:
    return LabelShares(
        source={} if source is None else _named(source, classes),
        true_target=None if true is None else _named(true, classes),
        source_to_true=None if source is None or true is None else total_variation(source, true),
    )


def _accuracy(
    found: Sequence[Stage],
    rounds: Sequence[Trained],
    selected: str,
    labels: NDArray[np.int64],
    recipe: Recipe,
) -> TargetAccuracy:
    of = {stage.name: stage.accuracy for stage in found if stage.accuracy}

    def chosen(name: str, by: str) -> Selected:
        return Selected(over_images=of[name].over_images, over_classes=of[name].over_classes, stage=name, chosen_by=by)

    best = max((stage.name for stage in rounds), key=lambda name: of[name].over_images)
    return TargetAccuracy(
        adapted=chosen(selected, recipe.schedule.choice),
        average_of_rounds=accuracies(average([stage.probabilities for stage in rounds], recipe), labels),
        oracle_best_round=chosen(best, TARGET_LABELS),
    )


def _cost(stages: Sequence[Trained], recipe: Recipe, sitting: float) -> Cost:
    images = [stage_images(stage.name, recipe) for stage in stages]
    steps = recipe.schedule.steps
    return Cost(
        steps=steps * sum(1 for count in images if count),
        images=sum(images),
        seconds=round(sum(stage.seconds for stage in stages), 2),
        this_sitting=round(sitting, 2),
        steps_a_stage=steps,
        images_a_step=images_a_step(recipe.method, recipe),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that a figure depends on."""
    modules = (torch, torchvision, timm, lightning_fabric, safetensors, np, PIL)
    return {"biwaa": __version__, "python": platform.python_version()} | {
        module.__name__: str(module.__version__) for module in modules
    }
