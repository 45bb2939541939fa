"""What result.json says of a run: label-free scores, and accuracy only where labels exist.

The target's labels are opened here, after the stages are trained, and nowhere before.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from typing import Any

import lightning_fabric
import msgspec
import numpy as np
import PIL
import safetensors
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from biwaa.device import hardware
from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING
from biwaa.judging import label_shift
from biwaa.judging.calibration import calibration
from biwaa.judging.estimate import INDEPENDENT, combined, estimates
from biwaa.judging.evidence import Evidence, sample_rows
from biwaa.judging.label_shift import Shares, label_shares, predicted_shares, total_variation
from biwaa.judging.metrics import accuracies, agreement, mean_confidence, mean_entropy
from biwaa.judging.validators import scores, source_accuracy
from biwaa.judging.warnings import Signs, far_share, find_warnings, of_known
from biwaa.methods import METHODS
from biwaa.methods import SOURCE_ONLY as SOURCE_ONLY_METHOD
from biwaa.models.known import KnownSource
from biwaa.models.zero_shot import ZeroShot
from biwaa.recipe import Recipe, recipe_digest
from biwaa.result import (
    FORMAT,
    REFERENCES,
    TARGET_LABELS,
    Accuracy,
    Cost,
    DomainFacts,
    LabelFree,
    LabelShares,
    Model,
    RememberedFacts,
    Result,
    Selected,
    SourceFacts,
    Stage,
    TargetAccuracy,
    TeacherFacts,
)
from biwaa.solvers.several import Standing
from biwaa.training.cost import images_a_step, stage_images
from biwaa.training.data import Given
from biwaa.training.folder import RunFolder
from biwaa.training.prepare import Prepared, unseen
from biwaa.training.rounds import average
from biwaa.training.stage import Trained
from biwaa.training.teach import Lesson
from biwaa.version import __version__


def describe(
    prepared: Prepared,
    recipe: Recipe,
    stages: Sequence[Trained],
    selected: Trained,
    *,
    temperature: float,
    folder: RunFolder,
    sitting: float,
    device: str,
    lesson: Lesson | None = None,
) -> Result:
    """All that is known of the stages trained so far.

    Args:
        prepared: what was trained on.
        recipe: all settings.
        stages: in the order of their training, a round last.
        selected: the one whose model was selected.
        temperature: of that model.
        folder: of the run, for its log.
        sitting: seconds of this sitting.
        device: that it was trained on.
        lesson: where the teacher came from.
    """
    domains, data, network = prepared.domains, recipe.data, recipe.network
    classes, rounds = domains.source.classes or (), [stage for stage in stages if stage.name not in REFERENCES]
    baseline, teacher = (_named_evidence(stages, name) for name in REFERENCES)
    finished = len(rounds) == recipe.schedule.rounds
    others = [stage.evidence for stage in rounds if stage is not selected]
    plain = selected.evidence if recipe.method == SOURCE_ONLY_METHOD else baseline
    estimated = estimates(selected.evidence, others, temperature, plain, teacher)
    target, held_out, scored = domains.target, domains.held_out, unseen(domains)
    solved = METHODS[recipe.method].solved(network.frozen)
    assert domains.source.labels is not None  # a source has labels
    shares = label_shares(domains.source.labels, len(classes)) if len(domains.source.labels) else None
    true = None if target.labels is None else label_shares(target.labels, len(classes))
    found = _stages(prepared, stages, finished, shares, true)
    signs = _signs(prepared, rounds, baseline, selected, estimated, folder, solved)
    images = {name: value for name, value in folder.task().items() if name.endswith(("_images", "_scores"))}
    return Result(
        format=FORMAT,
        finished=finished,
        method=recipe.method,
        seed=recipe.seed,
        classes=classes,
        source=_facts(domains.source, data.source_shift),
        remembered=_remembered(domains.known),
        sources=_sources(domains.source, selected.standing),
        target=_facts(target, data.target_shift, domains.given),
        held_out=_facts(held_out) if held_out else None,
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
        estimated_accuracy=combined(estimated, len(target.images), solved),
        calibration=calibration(selected.evidence, temperature, scored.labels),
        label_shares=_label_shares(classes, shares, true),
        warnings=tuple(find_warnings(of_known(signs) if recipe.prototypes.unknown != "off" else signs)),
        teacher=_teacher_facts(prepared, lesson),
        accuracy=None if scored.labels is None else _accuracy(found, rounds, selected.name, scored.labels, recipe),
        cost=_cost(stages, recipe, sitting),
        fingerprints={"recipe": recipe_digest(recipe), "classes": _digest(list(classes))} | images,
        versions=versions(),
        hardware=hardware(device),
    )


def _facts(domain: Domain, shift: str = "none", given: Given | None = None) -> DomainFacts:
    return DomainFacts(
        spec=domain.spec,
        images=len(domain.images),
        shift=shift,
        unlabelled=len(domain.unlabelled()),
        labels_given=0 if given is None else int((given != MISSING).sum()),
    )


def _remembered(known: KnownSource | None) -> RememberedFacts | None:
    if known is None:
        return None
    counts = known.memory.statistics.counts if known.memory and known.memory.statistics else None
    if counts is None:
        return RememberedFacts(images=None, fewest=None)
    return RememberedFacts(images=int(counts.sum()), fewest=int(counts.min()))


def _sources(domain: Domain, standing: Tensor | None) -> tuple[SourceFacts, ...]:
    """Each of several sources; none where there is one."""
    if domain.origins is None or domain.labels is None:
        return ()
    found = []
    for number, spec in enumerate(domain.places):
        labels = domain.labels[domain.origins == number]
        facts = SourceFacts(spec=spec, images=len(labels), classes=len(np.unique(labels)))
        if standing is not None:
            values = [None if np.isnan(value) else round(value, 6) for value in standing[:, number].tolist()]
            weight, relevance, agreement, chance = values
            facts = msgspec.structs.replace(
                facts, weight=weight, relevance=relevance, agreement=agreement, chance=chance
            )
        found.append(facts)
    return tuple(found)


def _named_evidence(stages: Sequence[Trained], name: str) -> Evidence | None:
    return next((stage.evidence for stage in stages if stage.name == name), None)


def _teacher_facts(prepared: Prepared, lesson: Lesson | None) -> TeacherFacts | None:
    teacher, classes = prepared.domains.teacher, prepared.domains.source.classes or ()
    if teacher is None or lesson is None:
        return None
    known = teacher.known.tolist()
    return TeacherFacts(
        where=teacher.where,
        covers_source=teacher.source is not None,
        unknown_classes=tuple(name for name, knows in zip(classes, known, strict=True) if not knows),
        prompts=lesson.texts(classes) if isinstance(lesson, ZeroShot) else {},
    )


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
        found.append(
            Stage(
                name=stage.name,
                seconds=stage.seconds,
                predicted_shares=_named(shares, classes),
                distance_to_source=None if source is None else total_variation(shares, source),
                distance_to_true=None if true is None else total_variation(shares, true),
                validators={
                    name: None if (value := of[row]) is None else round(value, 6) for name, of in validators.items()
                },
                accuracy=scored(stage.probabilities, labels),
                held_out=scored(stage.held_out, held_out_labels),
            )
        )
    return tuple(found)


def _label_free(
    selected: Trained, rounds: Sequence[Trained], baseline: Evidence | None, teacher: Evidence | None
) -> LabelFree:
    def rounded(value: float) -> float:
        return round(value, 6)

    of = selected.probabilities
    return LabelFree(
        mean_confidence=rounded(mean_confidence(of)),
        mean_entropy=rounded(mean_entropy(of)),
        agreement_with_source_only=rounded(agreement(of, baseline.probabilities)) if baseline else None,
        agreement_with_teacher=rounded(agreement(of, teacher.probabilities)) if teacher else None,
        agreement_with_round_before=(
            rounded(agreement(rounds[-1].probabilities, rounds[-2].probabilities)) if len(rounds) > 1 else None
        ),
    )


def _label_shares(classes: Sequence[str], source: Shares | None, true: Shares | None) -> LabelShares:
    if source is None:
        return LabelShares(true_target=None if true is None else _named(true, classes))
    if true is None:
        return LabelShares(source=_named(source, classes))
    return LabelShares(
        source=_named(source, classes), true_target=_named(true, classes), source_to_true=total_variation(source, true)
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


def _signs(
    prepared: Prepared, rounds: Sequence[Trained], baseline: Evidence | None, selected: Trained,
    estimated: dict[str, float], folder: RunFolder, solved: bool,
) -> Signs:  # fmt: skip
    """The facts that warnings are made of, all without target labels."""
    mine, labels = selected.evidence, prepared.data.source_labels
    classes = prepared.domains.source.classes or ()
    facts: dict[str, Any] = {
        "predicted_shares": predicted_shares(mine.probabilities),
        "source_shares": label_shares(labels, len(classes)) if len(labels) else None,
        "estimates": {name: estimated[name] for name in INDEPENDENT if name in estimated},
    }
    if selected.pseudo_labels is not None:
        facts["pseudo_labels"] = selected.pseudo_labels.numpy()
    if selected.absent is not None:
        facts["absent"] = selected.absent.numpy()
    if baseline:
        facts["baseline_shares"] = predicted_shares(baseline.probabilities)
    if len(rounds) > 1:
        last, before = rounds[-1].probabilities, rounds[-2].probabilities
        facts["round_agreement"] = agreement(last, before)
        facts["round_chance"] = label_shift.chance_agreement(predicted_shares(last), predicted_shares(before))
    if selected.standing is not None:
        facts["standing"] = Standing(*selected.standing)
        facts["places"] = prepared.domains.source.places
    facts |= _discriminator(folder, selected.name)
    if mine.held_out:
        confusion = label_shift.joint_confusion(*mine.held_out, soft=True)
        facts["held_out_source"] = len(mine.held_out[1])
        facts["source_accuracy"] = source_accuracy(mine)
        facts["learned"] = source_accuracy(baseline if baseline and baseline.held_out else mine)
        facts["estimated_shares"] = label_shift.bbse(confusion, predicted_shares(mine.probabilities, soft=True))
        # A solved head follows the target: on sketch > photo it is right on 31 % of the source and 71 % of the target.
        if baseline and baseline.held_out and not solved:
            facts["baseline_source_accuracy"] = source_accuracy(baseline)
        if mine.trained_features is not None and mine.source_features is not None and mine.features is not None:
            rows = sample_rows(len(labels), len(mine.trained_features)).numpy()
            facts["far_share"] = far_share(mine.trained_features, labels[rows], mine.source_features, mine.features)
    return Signs(classes, len(mine.probabilities), selected.name, **facts)


def _discriminator(folder: RunFolder, stage: str) -> dict[str, float]:
    """Mean accuracy of the stage's discriminator over the first and the last tenth of its logged steps."""
    values = (entry.get("domain_accuracy") for entry in folder.read_log() if entry["stage"] == stage)
    found = [value for value in values if isinstance(value, float)]
    if not found:
        return {}
    tenth = max(1, len(found) // 10)
    first, last = (float(np.mean(part)) for part in (found[:tenth], found[-tenth:]))
    return {"discriminator_first": first, "discriminator_last": last}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of everything that a figure depends on."""
    modules = (torch, torchvision, timm, lightning_fabric, safetensors, np, PIL)
    return {"biwaa": __version__, "python": platform.python_version()} | {
        module.__name__: str(module.__version__) for module in modules
    }
