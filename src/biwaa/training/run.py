"""The whole run: from two domains to a folder with a model, its predictions and how far to trust them.

- labels of the target, where there are any, are used after a stage is trained (`describe.py`) and never before
- outputs are renewed after every round: whatever happens later, the last finished round's model is there
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from biwaa.device import open_fabric, with_threads, within_memory
from biwaa.domains.domain import (
    Domain,
    check_kind,
    check_pair,
    match_classes,
    tell_lacking,
    tell_passed_over,
    with_unknown,
)
from biwaa.domains.labels import MISSING
from biwaa.domains.target_labels import target_labels
from biwaa.errors import BiwaaError
from biwaa.files import csv_line, write_text
from biwaa.functional import with_temperature
from biwaa.judging.calibration import held_out_temperature
from biwaa.judging.choice import check_choice, choose
from biwaa.methods import METHODS
from biwaa.models.backbone import FEATURES
from biwaa.models.known import KnownSource, check_backbone, check_width
from biwaa.models.place import Place
from biwaa.models.saved import SavedModel, save_model
from biwaa.predictions import Predictions
from biwaa.progress import duration, say, whole
from biwaa.ranks import finish, together
from biwaa.recipe import AUTO, Recipe, with_method
from biwaa.result import REFERENCES, SOURCE_ONLY, Result, write_result
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory
from biwaa.training.cost import foretold, planned_images
from biwaa.training.describe import describe
from biwaa.training.folder import TARGET_LABELS, Listener, RunFolder, check_folder, locked, own_recipe
from biwaa.training.prepare import Pair, Prepared, prepare, unseen
from biwaa.training.rounds import train_rounds
from biwaa.training.stage import Trained, load_network_state, train_stage
from biwaa.training.suited import least_images, suited, training_instead
from biwaa.training.teach import Lesson, ask, check_taught, sourceless


@dataclass(frozen=True)
class Options:
    """What a run needs to know besides its domains and its recipe."""

    resume: bool = False  # Go on with an interrupted run of the same recipe and domains
    overwrite: bool = False  # Replace a run that is there
    skip_unreadable: bool = False  # Leave out images that cannot be decoded instead of stopping
    listeners: Sequence[Listener] = ()  # Called with each entry of log.jsonl as it is written.
    data_root: Path | None = None  # Where benchmarks were looked for, to be found there again
    lesson: Lesson | None = None  # Where the teacher comes from, if there is one
    target_labels: Any = None  # Labels of some target images to train on, as of `domains.target_labels`


@dataclass(frozen=True)
class Finished:
    """A finished run."""

    folder: RunFolder
    result: Result | None  # None in all but the first of several processes
    predictions: Predictions | None  # Of the target by the selected model; likewise


def train_run(pair: Pair, recipe: Recipe, out: Path, options: Options) -> Finished:
    """Train on the labelled source and the unlabelled target; leave everything in `out`.

    Raises:
        BiwaaError: anything the user can fix; see the message.
    """
    asked = _implied(recipe, pair, options.lesson)
    recipe = with_method(suited(asked))
    check_choice(recipe.schedule.choice)
    own = own_recipe(out) if options.resume else None
    threads = recipe.machine.threads or (own and own.machine.threads) or torch.get_num_threads()
    recipe = recipe.replace(threads=threads)
    with with_threads(threads):
        if recipe.prototypes.unknown != "off":
            _check_unknown(pair, recipe, options)
        pair = _checked(pair, recipe)
        if options.target_labels is not None:
            check_labelled(recipe.method)
            given = target_labels(options.target_labels, pair.target, pair.source.classes or (), pair.source.spec)
            pair = replace(pair, given=given)
        return _train(pair, recipe, asked, out, options)


def _train(pair: Pair, recipe: Recipe, asked: Recipe, out: Path, options: Options) -> Finished:
    task = _task(pair, options)
    check_folder(out, recipe, task, options.resume, options.overwrite)
    machine = recipe.machine
    fabric = open_fabric(machine.device, machine.precision, machine.devices, machine.num_nodes)
    tell_passed_over(pair.source, pair.target, pair.held_out)
    with within_memory("before training", "close other programs, lower --image-size or take a smaller --backbone"):
        if options.lesson:
            pair = replace(pair, teacher=ask(options.lesson, pair, fabric))
        prepared = prepare(pair, recipe, fabric, options.skip_unreadable)
        open_to_training = asked.network.freeze_backbone is None and recipe.network.frozen
        if open_to_training and not prepared.backbone.parts:
            say(training_instead(asked, recipe, prepared.backbone, fabric.device))
    folder = RunFolder(out, fabric.is_global_zero, tuple(options.listeners))
    with (
        locked(folder, recipe, task, options.resume, options.overwrite),
        _advising_on_memory(recipe, fabric),
        together(fabric),
        whole(planned_images(recipe), foretold(recipe, len(pair.source.images) + len(pair.target.images))),
    ):
        if folder.writes and prepared.domains.given is not None:
            _write_given(folder, prepared.domains)
        fabric.barrier()  # no process may go on before the folder is the run's
        begin = time.perf_counter()
        stages: list[Trained] = []
        outputs: tuple[Result | None, Predictions | None] = (None, None)
        train = partial(train_stage, prepared=prepared, fabric=fabric, folder=folder)
        for stage in train_rounds(recipe, train, taught=pair.teacher is not None):
            stages.append(stage)
            # A finished round found again must not put its model in the place of a later one's.
            last = stage.name == f"round {recipe.schedule.rounds - 1}"
            if folder.writes and stage.name not in REFERENCES and (stage.fresh or last):
                sitting = time.perf_counter() - begin
                device = fabric.device.type
                outputs = _write_outputs(folder, prepared, recipe, stages, sitting, device, options.lesson)
                folder.forget_replaced()
        if folder.writes:
            _write_labels(folder, unseen(prepared.domains))
        fabric.barrier()  # from here on every process finds the run finished
        finish()
    sitting = time.perf_counter() - begin
    fresh = sum(1 for stage in stages if stage.fresh)
    say(f"{fresh} training{'s' * (fresh != 1)} in {duration(sitting)}; the model is in {folder.path}")
    return Finished(folder, *outputs)


def check_labelled(method: str) -> None:
    """Refuse labels of the target for a method that does not look at it.

    Raises:
        BiwaaError: it does not.
    """
    if not METHODS[method].sees_target:
        raise BiwaaError(
            f"the method {method} learns from the source alone, so labels of target images would change nothing: leave "
            "--target-labels or --method out."
        )


PROTOTYPES = "prototypes"
"""The method that learns from what is remembered of a source."""


def _implied(recipe: Recipe, pair: Pair, lesson: Lesson | None) -> Recipe:
    """Features need no backbone, a linear probe is of a frozen one, and so is what learns from a teacher.

    What the method does not decide stays open.
    """
    width = check_kind(*(domain for domain in (pair.source, pair.target, pair.held_out) if domain))
    if width is not None:
        recipe = recipe.replace(backbone=FEATURES, weights="auto", freeze_backbone=True)
    if lesson and recipe.method == AUTO and not recipe.network.freeze_backbone:
        say("a teacher is heard on a frozen backbone: as with --freeze-backbone, features are computed once")
        recipe = recipe.replace(freeze_backbone=True)
    if lesson:
        check_taught(with_method(recipe).method)
    if pair.known:
        recipe = _of_known(recipe, pair.known, width, lesson)
    elif not len(pair.source.images):  # nothing to train source-only on, or to hold out
        recipe = recipe.replace(baseline=False, source_held_out=0.0, source_shift="none")
    frozen = recipe.method != AUTO and METHODS[recipe.method].frozen
    return recipe.replace(freeze_backbone=True) if frozen else recipe


def _of_known(recipe: Recipe, known: KnownSource, width: int | None, lesson: Lesson | None) -> Recipe:
    """The recipe for a model in the place of the source's images: its own backbone, frozen.

    Raises:
        BiwaaError: another backbone or method is asked for, or the target (`width` features a row) is of another kind.
    """
    network = recipe.network
    check_width(known, width)
    check_backbone(known, network.backbone, network.weights, recipe.data.image_size)
    if recipe.method not in (AUTO, PROTOTYPES) or network.freeze_backbone is False:
        raise BiwaaError(
            f"{known.spec} has no images to train on: its backbone stays frozen, and the method is {PROTOTYPES}. Leave "
            "--method and --no-freeze-backbone out."
        )
    if lesson and known.memory is None:
        raise BiwaaError(f"{known.spec} has a head alone, which is the teacher: leave the other teacher out.")
    features, transform = known.backbone.name == FEATURES, known.transform
    return recipe.replace(
        backbone=known.backbone.name, freeze_backbone=True, source_held_out=0.0, source_shift="none",
        image_size=None if features else transform.image_size, resize=None if features else transform.resize,
        baseline=recipe.schedule.baseline and (known.memory is None or known.memory.head is not None),
    )  # fmt: skip


def _checked(pair: Pair, recipe: Recipe) -> Pair:
    """The pair with one order of classes; held-out images labelled, and none of those that are trained on."""
    # A rule that makes the source smaller also changes what is kept from training: `prepare` checks it then.
    if recipe.prototypes.unknown != "off":
        pair = replace(pair, source=with_unknown(pair.source))
    share, size = recipe.data.source_held_out if recipe.data.source_shift == "none" else 0.0, least_images(recipe)
    source, target = (
        check_pair(pair.source, pair.target, size, share) if len(pair.source.images)
        else sourceless(pair.source, pair.target, size, pair.known.spec if pair.known else "--classes")
    )  # fmt: skip
    tell_lacking(source, target)
    held_out, unknown = pair.held_out, recipe.prototypes.unknown != "off"
    for domain in (target, held_out):
        if domain and (missing := len(domain.unlabelled())):
            say(f"{missing} of {len(domain.images)} images of {domain.spec} have no label: the report passes over them")
    if held_out:
        if held_out.labels is None:
            raise BiwaaError(f"{held_out.spec} has no labels to score against: held-out images need them.")
        for domain in (source, target):
            if held_out.images.identity() & domain.images.identity():
                raise BiwaaError(f"{held_out.spec} shares images with {domain.spec}: held-out images must be others.")
        held_out = match_classes(held_out, source.classes or (), other=source.spec, subset=True, others=unknown)
    return Pair(source, target, held_out, known=pair.known)


def _check_unknown(pair: Pair, recipe: Recipe, options: Options) -> None:
    """Refuse `unknown` where it is not found."""
    alone = f"--unknown {recipe.prototypes.unknown} is for the method prototypes on a frozen backbone"
    if recipe.method != "prototypes" or not recipe.network.frozen:
        raise BiwaaError(f"{alone}: leave --method out and add --freeze-backbone, or leave --unknown out.")
    if pair.source.places or options.lesson or options.target_labels is not None or not len(pair.source.images):
        raise BiwaaError(f"{alone} with one source, no teacher and no labels of the target: leave --unknown out.")


def _task(pair: Pair, options: Options) -> dict[str, Any]:
    """What run.json holds: what is adapted to what, as it decides what the checkpoints mean, and how to open it."""
    task: dict[str, Any] = {
        "source": list(pair.source.places) or pair.source.spec,
        "target": pair.target.spec,
        "classes": list(pair.source.classes or ()),
        "source_images": pair.source.images.fingerprint(),
        "source_labels": hashlib.sha256(np.ascontiguousarray(pair.source.labels).tobytes()).hexdigest(),
        "target_images": pair.target.images.fingerprint(),
        "data_root": options.data_root and str(options.data_root.absolute()),
        "skip_unreadable": options.skip_unreadable,
    }
    if pair.known:
        task["source_images"] = pair.known.fingerprint
    if pair.held_out:
        task |= {"held_out": pair.held_out.spec, "held_out_images": pair.held_out.images.fingerprint()}
    if pair.given is not None:
        task |= {"given_labels": hashlib.sha256(pair.given.tobytes()).hexdigest()}
    if options.lesson:
        task |= {"teacher": options.lesson.where, "teacher_scores": options.lesson.fingerprint()}
    return task


def _advising_on_memory(recipe: Recipe, fabric: Fabric) -> AbstractContextManager[None]:
    """`within_memory` with advice on batches.

    Gradients are not accumulated over parts of a batch: BatchNorm, centroids, class confusion and balanced batches are
    of a whole batch, so parts would train something else under the same name (docs/reliability.md).
    """
    size = recipe.data.batch_size
    half = max(size // 2, 2) // fabric.world_size * fabric.world_size
    smaller = (
        f"try --batch-size {half} (a run of its own: --resume cannot change it)"
        if 0 < half < size
        else "no batch is smaller"
    )
    advice = f"{smaller}, or lower --image-size or take a smaller --backbone. What was finished is kept"
    return within_memory(f"with batches of {size} images", advice)


def _write_outputs(
    folder: RunFolder, prepared: Prepared, recipe: Recipe, stages: list[Trained], sitting: float, device: str,
    lesson: Lesson | None,
) -> tuple[Result, Predictions]:  # fmt: skip
    classes, target = prepared.domains.source.classes or (), prepared.domains.target
    # Where labels of the target were handed over, a stage that never saw them is no candidate.
    blind = REFERENCES if prepared.domains.given is not None else ()
    pool = {stage.name: stage.evidence for stage in stages if stage.name not in blind}
    name = choose(pool, recipe.schedule.choice)
    selected = next(stage for stage in stages if stage.name == name)
    temperature = held_out_temperature(selected.evidence)
    network = prepared.deployed_network(load_network_state(folder, name))
    evidence = selected.evidence
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
    result = describe(
        prepared, recipe, stages, selected, temperature=temperature, folder=folder, sitting=sitting, device=device,
        lesson=lesson,
    )  # fmt: skip
    write_result(folder.path, result)
    return result, predictions


def _memory(folder: RunFolder, prepared: Prepared, stages: list[Trained]) -> Memory | None:
    """What the model's file keeps of the source: statistics, and source-only's head where it was solved."""
    state = load_network_state(folder, SOURCE_ONLY) if any(one.name == SOURCE_ONLY for one in stages) else {}
    solved = "bottleneck.weight" in state
    head = Head(state["bottleneck.weight"], state["classifier.weight"], state["classifier.bias"]) if solved else None
    return prepared.remember(head)


def _write_labels(folder: RunFolder, target: Domain) -> None:
    """Write the target's labels for the report, after all training."""
    path = folder.path / "labels.csv"
    if target.labels is None:
        path.unlink(missing_ok=True)
        return
    classes = (*(target.classes or ()), "")  # the last one for MISSING: its cell is empty
    _write_table(path, zip(target.images.names, [classes[k] for k in target.labels], strict=True))


def _write_given(folder: RunFolder, domains: Pair) -> None:
    """Write the labels that were handed over, so that the run goes on with them, and nothing is measured on them."""
    classes, given = domains.source.classes or (), domains.given
    assert given is not None
    names = zip(domains.target.images.names, given.tolist(), strict=True)
    known = [(name, classes[k]) for name, k in names if k != MISSING]
    named = [(str(Path(name).absolute()) if Path(name).is_file() else name, label) for name, label in known]
    _write_table(folder.path / TARGET_LABELS, named)


def _write_table(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    write_text(path, csv_line("path", "label") + "".join(csv_line(*row) for row in rows))
