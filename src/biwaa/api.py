"""biwaa from Python: `run = biwaa.adapt(source, target)`, then `run.predict(images)`.

The training is that of `biwaa train`; data may also be Python objects, and a run without a folder of its own lives in a
temporary one.
"""

import itertools
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.objects import as_domain, as_source
from biwaa.errors import BiwaaError
from biwaa.evaluations import Evaluation
from biwaa.files import local
from biwaa.inference.classifier import Classifier, as_new, load
from biwaa.inference.evaluate import evaluate_run
from biwaa.models.classifiers import is_model, known_source
from biwaa.models.known import KnownSource
from biwaa.predictions import Predictions
from biwaa.progress import quiet
from biwaa.recipe import Recipe, load_recipe
from biwaa.result import Result, read_result
from biwaa.training.folder import CLASSES, TARGET_LABELS, RunFolder, own_recipe
from biwaa.training.later import Later, estimate_later
from biwaa.training.prepare import Pair
from biwaa.training.run import Finished, Options, train_run
from biwaa.training.suggest import suggest
from biwaa.training.teach import lesson_of, no_source, source_by_name
from biwaa.training.tracking import track_run


class Run:
    """A run folder: `biwaa.Run("run")`, or what `biwaa.adapt` gives back."""

    def __init__(self, folder: str | PathLike[str], finished: Finished | None = None) -> None:
        """Open a run folder; `finished` holds what is in memory of a run that has just ended.

        Raises:
            BiwaaError: it holds no run that has finished a round.
        """
        self.folder = local(folder)
        """Where everything lies that the run left."""
        self.leads = finished is None or finished.folder.writes
        """Of several processes that trained together one reports for all; False in the others."""
        self.result: Result = finished.result if finished and finished.result else read_result(self.folder)
        """What result.json holds."""
        self.predictions: Predictions | None = finished.predictions if finished else None
        """Of the target, where the run has just ended; else they are in predictions.csv."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def classifier(self) -> Classifier:
        """The selected model."""
        return load(self.folder)

    @property
    def classes(self) -> NDArray[Any]:
        """(K,) as the source's labels were, in the order of the columns of `predict_proba`."""
        return self.classifier.classes

    def predict(self, images: Any) -> NDArray[Any]:
        """(N,) the images' classes, as the source's labels were: numbers from numbers, names from names.

        See `Classifier.predict_proba` for what images may be.
        """
        return self.classifier.predict(images)

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """(N, K) calibrated probabilities."""
        return self.classifier.predict_proba(images)

    def suggest(self, count: int = 50) -> NDArray[np.int64]:
        """(M,) rows of the target whose labels are worth most, the most wanted first.

        Those that the run was trained on are not among them.

        Raises:
            BiwaaError: the run kept no features.
        """
        return suggest(self.folder, count).rows

    def update(
        self, images: Any, out: str | PathLike[str] | None = None, source: Any = None, skip_unreadable: bool = False
    ) -> "Run":
        """Adapt to new images from this run's source with its settings; this run stays as it is.

        Args:
            images: the new target, as of `adapt`.
            out: the new run's folder; None for the first of FOLDER-2, FOLDER-3, .. that is free.
            source: the run's source, where it was a Python object; else it is found again.
            skip_unreadable: leave out images that cannot be decoded, as the run did if it did.

        Raises:
            BiwaaError: the source is gone, or the run's teacher was scores of other images.
        """
        task, recipe = RunFolder(self.folder).task(), own_recipe(self.folder)
        lesson = task.get("lesson") or {}
        zero_shot = lesson.get("zero_shot", [False])[0]
        if (self.result.teacher is not None and not zero_shot) or recipe is None:
            raise BiwaaError(
                f"{self.folder} learned from a teacher's scores, which are of other images: train again with the new "
                "ones as --target, and with the scores of these as --teacher."
            )
        root = Path(task["data_root"]) if task.get("data_root") else None
        try:
            here = task["source"] if source is None else source
            here = None if here == "none" else here if is_model(here) else as_source(here, root)
        except BiwaaError as error:
            raise BiwaaError(f"the source of {self.folder} cannot be opened to adapt from it again: {error}") from None
        return adapt(
            here, images, out=out or _next_folder(self.folder), recipe=recipe.replace(target_shift="none"),
            data_root=root, skip_unreadable=skip_unreadable or bool(task.get("skip_unreadable")),
            zero_shot=zero_shot, prompt=lesson.get("prompt", ()),
            classes=str(named) if (named := self.folder / CLASSES).is_file() else None,
        )  # fmt: skip

    def evaluate(self, labelled: Any, skip_unreadable: bool = False) -> Evaluation:
        """The model's accuracy on labelled images; `biwaa report` then shows it too.

        Args:
            labelled: a SPEC or path, a pair `(images, labels)`, a `Domain` or a data set with labels.
            skip_unreadable: leave out images that cannot be decoded.

        Raises:
            BiwaaError: no labels, or classes that the model does not have.
        """
        known, domain = self.classifier, as_domain(labelled, "labelled images")
        return evaluate_run(self.folder, domain, known.device, known.batch_size, skip_unreadable)[0]

    def estimate(self, images: Any) -> Later:
        """The model's accuracy on new images without labels, and whether they moved away from the target.

        Args:
            images: a SPEC or path, paths, pictures, an array or a data set, as of `Classifier.predict_proba`; labels,
                if there are any, are not looked at.

        Raises:
            BiwaaError: not images, or one of them cannot be read.
        """
        known = self.classifier
        return estimate_later(self.folder, as_new(images), known.device, known.batch_size)


def _next_folder(run: Path) -> Path:
    """RUN-2 for RUN, RUN-3 for RUN-2: the first that is free."""
    stem, dash, number = run.name.rpartition("-")
    name, first = (stem, int(number) + 1) if dash and number.isdecimal() else (run.name, 2)
    return next(path for count in itertools.count(first) if not (path := run.with_name(f"{name}-{count}")).exists())


def adapt(
    source: Any,
    target: Any,
    *,
    out: str | PathLike[str] | None = None,
    recipe: str | Recipe | None = None,
    held_out: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    skip_unreadable: bool = False,
    data_root: str | PathLike[str] | None = None,
    teacher: Any = None,
    teacher_source: Any = None,
    zero_shot: str | bool = False,
    prompt: Sequence[str] = (),
    classes: str | Sequence[str] | Mapping[str, Any] | None = None,
    target_labels: Any = None,
    on_log: Callable[[dict[str, Any]], None] | Sequence[Callable[[dict[str, Any]], None]] = (),
    track: Sequence[str] = (),
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Adapt a classifier from labelled `source` images to unlabelled `target` images.

    Args:
        source: a SPEC or path, a pair (images, labels), or a data set with labels: see `biwaa.domains.objects`. A list
            of them: several sources, each of which may have only some of the classes (docs/sources.md). A `Run`, its
            folder, a model's file, or "timm:MODEL[@FILE]" with `classes`: a model in the place of images. None for
            none: then a teacher stands in its place, and `classes` names the classes.
        target: the same; labels, if there are any, are used for reporting alone.
        out: run folder to make; None for a temporary one that is deleted with the Run.
        recipe: a named recipe, a YAML file, or a `Recipe`; None for robust, or with `resume` for the run's own.
        held_out: labelled images of the target's place that are not used in training, only scored.
        resume: go on with the interrupted run in `out`.
        overwrite: replace the run in `out`.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of catalogued benchmarks; None for $BIWAA_DATA or ./data.
        teacher: another model's scores or probabilities of the target's images: an array (N, K) with its columns in the
            order of the run's classes, a table with names, or a .csv or .npz file: see `biwaa.teachers.scores`.
        teacher_source: the same of the source's images; without it the teacher is measured by agreement alone.
        zero_shot: have a zero-shot model of open_clip be the teacher; True for its default.
        prompt: templates with `{}` for a class's name; open_clip's seven unless given.
        classes: names with commas between them, a list of them, a .txt or YAML file, or a mapping from classes to their
            words; of a timm classifier as the source, what its outputs are: see `biwaa.models.classifiers`.
        target_labels: of some target images, to be trained on and left out of every accuracy: a CSV file with columns
            path and label; a mapping from paths to labels, or a table of both; or one label a target image, None or -1
            where there is none.
        on_log: called with each entry of log.jsonl as it is written.
        track: any of tensorboard, wandb and mlflow.
        verbose: show progress on standard error.
        **settings: of the recipe, by their own names, such as backbone="resnet18" or rounds=3.

    Raises:
        BiwaaError: anything the caller can fix; the message says what and where.
    """
    if recipe is None:
        recipe = (own_recipe(local(out)) if resume and out is not None else None) or "robust"
    resolved = (recipe if isinstance(recipe, Recipe) else load_recipe(recipe)).replace("adapt", **settings)
    root = Path(data_root) if data_root is not None else None
    if resume and classes is None and out is not None and (local(out) / CLASSES).is_file():
        classes = str(local(out) / CLASSES)  # its own
    known = _known(source, classes)
    lesson, words = lesson_of(teacher, teacher_source, zero_shot, prompt, None if known and known.named else classes)
    here = None if source is None or known else as_source(source, root)
    there = as_domain(target, "target", root)
    if known and out is not None and Path(known.spec).resolve().is_relative_to(local(out).resolve()):
        raise BiwaaError(f"{known.spec} is the source and would be replaced: name another folder for the new run.")
    if here and words and not zero_shot and set(words) != set(here.classes or ()):
        raise BiwaaError(f"--classes names others than {here.spec} has: leave it out, a source names its own classes.")
    if known:
        here = replace(no_source(known.classes, there), spec=known.spec, label_kind=known.label_kind)
    pair = Pair(
        here or source_by_name(lesson, words, there),
        there,
        None if held_out is None else as_domain(held_out, "held_out", root),
        known=known,
    )
    if out is None and resume:
        raise BiwaaError("there is nothing to resume without a run folder: name one with out=.")
    if out is None and resolved.machine.devices * resolved.machine.num_nodes > 1:
        raise BiwaaError("several processes need one run folder: name it with out=.")
    folder = Path(tempfile.mkdtemp(prefix="biwaa-")) / "run" if out is None else local(out)
    listeners = (on_log,) if callable(on_log) else tuple(on_log)
    if resume and target_labels is None and (folder / TARGET_LABELS).is_file():
        target_labels = folder / TARGET_LABELS  # its own
    try:
        with quiet(not verbose), track_run(track, folder, resolved) as tracker:
            options = Options(
                resume, overwrite, skip_unreadable, (*listeners, *tracker.listeners), root, lesson, target_labels
            )
            finished = train_run(pair, resolved, folder, options)
            if finished.result:
                tracker.finish(finished.result)
    except BaseException:
        if out is None:
            shutil.rmtree(folder.parent, ignore_errors=True)
        raise
    run = Run(folder, finished)
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder.parent, ignore_errors=True)
    return run


def _known(source: Any, classes: Any) -> KnownSource | None:
    """The model that is the source, where one is named; in a list it must be alone.

    Raises:
        BiwaaError: it is not, or it is no model, or the classes do not fit it.
    """
    entries = source if isinstance(source, list) else [source]
    specs = [str(one.folder) if isinstance(one, Run) else one for one in entries]
    for spec in specs:
        if is_model(spec):
            if len(specs) > 1:
                raise BiwaaError(f"{spec} is a model, which is a source by itself: name it without other sources.")
            return known_source(str(spec), classes)
    return None
