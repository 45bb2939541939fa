"""What a run leaves behind after each round: the selected model, its predictions, result.json; labels for the report.

Labels of the target are opened here and in `describe.py`, after a stage is trained, and never before.
"""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from biwaa.domains.classes import own_classes
from biwaa.domains.domain import Domain
from biwaa.domains.labels import MISSING
from biwaa.files import csv_line, write_text
from biwaa.functional import with_temperature
from biwaa.judging.choice import choose
from biwaa.models.place import Place
from biwaa.models.saved import SavedModel, save_model
from biwaa.models.zero_shot import ZeroShot
from biwaa.predictions import Predictions
from biwaa.recipe import Recipe
from biwaa.result import REFERENCES, SOURCE_ONLY, Result, write_result
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory
from biwaa.training.describe import describe
from biwaa.training.folder import CLASSES, TARGET_LABELS, RunFolder
from biwaa.training.prepare import Pair, Prepared
from biwaa.training.stage import Trained, load_network_state
from biwaa.training.teach import Lesson


def write_outputs(
    folder: RunFolder, prepared: Prepared, recipe: Recipe, stages: list[Trained], sitting: float, device: str,
    lesson: Lesson | None,
) -> tuple[Result, Predictions]:  # fmt: skip
    """Select a stage, and write its model, its predictions of the target and result.json.

    Args:
        folder: of the run.
        prepared: what was trained on.
        recipe: all settings.
        stages: those trained so far, a round last.
        sitting: seconds of this sitting.
        device: that it was trained on.
        lesson: where the teacher came from.
    """
    classes, target = prepared.domains.source.classes or (), prepared.domains.target
    # Where labels of the target were handed over, a stage that never saw them is no candidate.
    blind = REFERENCES if prepared.domains.given is not None else ()
    pool = {stage.name: stage.evidence for stage in stages if stage.name not in blind}
    name = choose(pool, recipe.schedule.choice)
    selected = next(stage for stage in stages if stage.name == name)
    evidence = selected.evidence
    result = describe(prepared, recipe, stages, selected, folder=folder, sitting=sitting, device=device, lesson=lesson)
    temperature = result.calibration.temperature
    network = prepared.deployed_network(load_network_state(folder, name))
    place = None if evidence.features is None else Place.of(evidence.features, evidence.predicted, len(classes))
    model = SavedModel(
        network, classes, prepared.transform, prepared.backbone.name, temperature, place, prepared.source_standardise,
        _memory(folder, prepared, stages), prepared.domains.source.label_kind,
    )  # fmt: skip
    save_model(folder.model, model)
    predictions = Predictions.of(
        target.images.names, with_temperature(selected.probabilities, temperature), prepared.domains.given,
        recipe.prototypes.unknown != "off",
    )  # fmt: skip
    write_text(folder.path / "predictions.csv", predictions.csv(classes))
    write_result(folder.path, result)
    return result, predictions


def _memory(folder: RunFolder, prepared: Prepared, stages: list[Trained]) -> Memory | None:
    """What the model's file keeps of the source: statistics, and source-only's head where it was solved."""
    state = load_network_state(folder, SOURCE_ONLY) if any(one.name == SOURCE_ONLY for one in stages) else {}
    solved = "bottleneck.weight" in state
    head = Head(state["bottleneck.weight"], state["classifier.weight"], state["classifier.bias"]) if solved else None
    return prepared.remember(head)


def write_labels(folder: RunFolder, target: Domain) -> None:
    """Write the target's labels for the report, after all training."""
    path = folder.path / "labels.csv"
    if target.labels is None:
        path.unlink(missing_ok=True)
        return
    classes = (*(target.classes or ()), "")  # the last one for MISSING: its cell is empty
    _write_table(path, zip(target.images.names, [classes[k] for k in target.labels], strict=True))


def write_given(folder: RunFolder, domains: Pair, lesson: Lesson | None) -> None:
    """Write the labels that were handed over, and the classes that were named, so that the run goes on with them.

    Nothing is measured on the images of these labels.
    """
    classes, given = domains.source.classes or (), domains.given
    if given is not None:
        names = zip(domains.target.images.names, given.tolist(), strict=True)
        known = [(name, classes[k]) for name, k in names if k != MISSING]
        named = [(str(Path(name).absolute()) if Path(name).is_file() else name, label) for name, label in known]
        _write_table(folder.path / TARGET_LABELS, named)
    words: dict[str, Any] = dict(lesson.names) if isinstance(lesson, ZeroShot) else {}
    if domains.known and domains.known.named:
        outputs = enumerate(domains.known.named)
        for name, rows in itertools.groupby(sorted((name, row) for row, name in outputs if name), lambda one: one[0]):
            words[name] = [row for _, row in rows]
    elif not domains.known and not len(domains.source.images):
        words = {name: words.get(name) for name in own_classes(domains.source)}
    if words:
        write_text(folder.path / CLASSES, yaml.safe_dump(words, allow_unicode=True, sort_keys=False))


def _write_table(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    write_text(path, csv_line("path", "label") + "".join(csv_line(*row) for row in rows))
