"""The whole run: from two domains to a folder with a model, its predictions and how far to trust them.

- labels of the target, where there are any, are used after a stage is trained (`describe.py`) and never before
- outputs are renewed after every round: whatever happens later, the last finished round's model is there
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from biwaa.device import open_fabric, with_threads, within_memory
from biwaa.domains.domain import tell_passed_over
from biwaa.domains.target_labels import target_labels
from biwaa.judging.choice import check_choice
from biwaa.predictions import Predictions
from biwaa.progress import duration, say, whole
from biwaa.ranks import finish, together
from biwaa.recipe import Recipe, with_method
from biwaa.result import REFERENCES, Result
from biwaa.training.compatible import check_sees_target, check_unknown, checked_pair, implied, tell_unnoticed
from biwaa.training.cost import foretold, planned_images, stage_names
from biwaa.training.folder import Listener, RunFolder, check_folder, locked, own_recipe
from biwaa.training.outputs import write_given, write_labels, write_outputs
from biwaa.training.prepare import Pair, prepare, unseen
from biwaa.training.rounds import train_rounds
from biwaa.training.stage import Trained, train_stage
from biwaa.training.suited import suited, training_instead
from biwaa.training.teach import Lesson, ask


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
    asked = implied(recipe, pair, options.lesson)
    recipe = with_method(suited(asked))
    check_choice(recipe.schedule.choice)
    own = own_recipe(out) if options.resume else None
    threads = recipe.machine.threads or (own and own.machine.threads) or torch.get_num_threads()
    recipe = recipe.replace(threads=threads)
    with with_threads(threads):
        check_unknown(recipe)
        pair = checked_pair(pair, recipe)
        if options.target_labels is not None:
            check_sees_target(recipe.method)
            given = target_labels(options.target_labels, pair.target, pair.source.classes or (), pair.source.spec)
            pair = replace(pair, given=given)
        tell_unnoticed(pair, recipe)
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
        if folder.writes:
            write_given(folder, prepared.domains, options.lesson)
        fabric.barrier()  # no process may go on before the folder is the run's
        begin = time.perf_counter()
        stages: list[Trained] = []
        outputs: tuple[Result | None, Predictions | None] = (None, None)
        train = partial(train_stage, prepared=prepared, fabric=fabric, folder=folder)
        for stage in train_rounds(recipe, train, taught=pair.teacher is not None):
            stages.append(stage)
            # A finished round found again must not put its model in the place of a later one's.
            last = stage.name == stage_names(recipe)[-1]
            if folder.writes and stage.name not in REFERENCES and (stage.fresh or last):
                sitting = time.perf_counter() - begin
                device = fabric.device.type
                outputs = write_outputs(folder, prepared, recipe, stages, sitting, device, options.lesson)
                folder.forget_replaced()
        if folder.writes:
            write_labels(folder, unseen(prepared.domains))
        fabric.barrier()  # from here on every process finds the run finished
        finish()
    sitting = time.perf_counter() - begin
    fresh = sum(1 for stage in stages if stage.fresh)
    say(f"{fresh} training{'s' * (fresh != 1)} in {duration(sitting)}; the model is in {folder.path}")
    return Finished(folder, *outputs)


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
        task |= {"lesson": options.lesson.flags}
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
