"""biwaa from Python: `run = biwaa.adapt(source, target)`, then `run.predict(images)`.

The training is that of `biwaa train`; data may also be Python objects, and a run without a folder of its own lives in a
temporary one.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.objects import as_domain
from biwaa.errors import BiwaaError
from biwaa.files import local
from biwaa.inference.classifier import Classifier, load
from biwaa.predictions import Predictions
from biwaa.progress import quiet
from biwaa.recipe import Recipe, load_recipe
from biwaa.result import Result, read_result
from biwaa.training.folder import own_recipe
from biwaa.training.prepare import Pair
from biwaa.training.run import Finished, Options, train_run
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
    on_log: Callable[[dict[str, Any]], None] | Sequence[Callable[[dict[str, Any]], None]] = (),
    track: Sequence[str] = (),
    verbose: bool = True,
    **settings: Any,
) -> Run:
    """Adapt a classifier from labelled `source` images to unlabelled `target` images.

    Args:
        source: a SPEC or path, a pair (images, labels), or a data set with labels: see `biwaa.domains.objects`.
        target: the same; labels, if there are any, are used for reporting alone.
        out: run folder to make; None for a temporary one that is deleted with the Run.
        recipe: a named recipe, a YAML file, or a `Recipe`; None for robust, or with `resume` for the run's own.
        held_out: labelled images of the target's place that are not used in training, only scored.
        resume: go on with the interrupted run in `out`.
        overwrite: replace the run in `out`.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of catalogued benchmarks; None for $BIWAA_DATA or ./data.
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
    pair = Pair(
        as_domain(source, "source", root),
        as_domain(target, "target", root),
        None if held_out is None else as_domain(held_out, "held_out", root),
    )
    if out is None and resume:
        raise BiwaaError("there is nothing to resume without a run folder: name one with out=.")
    if out is None and resolved.machine.devices * resolved.machine.num_nodes > 1:
        raise BiwaaError("several processes need one run folder: name it with out=.")
    folder = Path(tempfile.mkdtemp(prefix="biwaa-")) / "run" if out is None else local(out)
    listeners = (on_log,) if callable(on_log) else tuple(on_log)
    try:
        with quiet(not verbose), track_run(track, folder, resolved) as tracker:
            options = Options(resume, overwrite, skip_unreadable, (*listeners, *tracker.listeners), root)
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
