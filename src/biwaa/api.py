"""biwaa from Python: `run = biwaa.adapt(source, target)`, then `run.predict(images)`.

The training is that of `biwaa train`; what comes beside it is that data may be Python objects, and that a run without a
folder of its own lives in a temporary one.
"""

import dataclasses
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
from biwaa.evaluation.classifier import Classifier, load
from biwaa.evaluation.summary import read_result
from biwaa.progress import quiet
from biwaa.recipe import Recipe, load_recipe, recipe_from
from biwaa.training import run as training
from biwaa.training.tracking import track_run


class Run:
    """A run folder: `biwaa.Run("run")`, or what `biwaa.adapt` gives back."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        """Open a run folder.

        Raises:
            BiwaaError: it holds no run that has finished a round.
        """
        self.folder = Path(folder)
        """Where everything lies that the run left."""
        self.leads = True
        """Of several processes that trained together one speaks for all; False in the others."""
        self.result = read_result(self.folder)
        """What result.json says."""

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def classifier(self) -> Classifier:
        """The model that the run hands out."""
        return load(self.folder)

    @property
    def classes(self) -> NDArray[np.str_]:
        """(K,) names, in the order of the columns of `predict_proba`."""
        return self.classifier.classes

    def predict(self, images: Any) -> NDArray[np.str_]:
        """(N,) names of the images' classes; see `Classifier.predict_proba` for what images may be."""
        return self.classifier.predict(images)

    def predict_proba(self, images: Any) -> NDArray[np.float32]:
        """(N, K) calibrated probabilities."""
        return self.classifier.predict_proba(images)


def adapt(
    source: Any,
    target: Any,
    *,
    out: str | PathLike[str] | None = None,
    recipe: str | Recipe = "robust",
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
        target: the same; labels, if there are any, serve the report alone.
        out: run folder to make; None for a temporary one that goes when the Run does.
        recipe: a named recipe, a YAML file, or a `Recipe`.
        held_out: labelled images of the target's place that training gets nothing of, scored beside the others.
        resume: go on with the interrupted run in `out`.
        overwrite: replace the run in `out`.
        skip_unreadable: leave out images that cannot be decoded.
        data_root: folder of catalogued benchmarks; None for $BIWAA_DATA or ./data.
        on_log: called with each entry of log.jsonl as it is written.
        track: any of tensorboard, wandb and mlflow.
        verbose: show progress on standard error.
        **settings: fields of `Recipe` that win over the recipe, such as backbone="resnet18" or rounds=3.

    Raises:
        BiwaaError: anything the caller can mend; the message says what and where.
    """
    base = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    resolved = recipe_from(dataclasses.asdict(base) | settings, "adapt")
    root = Path(data_root) if data_root is not None else None
    domains = {"source": source, "target": target} | ({} if held_out is None else {"held_out": held_out})
    opened = {name: as_domain(given, name, root) for name, given in domains.items()}
    if out is None and resume:
        raise BiwaaError("there is nothing to resume without a run folder: name one with out=.")
    if out is None and resolved.devices * resolved.num_nodes > 1:
        raise BiwaaError("several processes need one run folder: name it with out=.")
    folder = Path(tempfile.mkdtemp(prefix="biwaa-")) / "run" if out is None else Path(out).expanduser()
    listeners = (on_log,) if callable(on_log) else tuple(on_log)
    try:
        with quiet(not verbose), track_run(track, folder, resolved) as tracker:
            finished = training.adapt(
                opened["source"], opened["target"], resolved, folder,
                resume=resume, overwrite=overwrite, skip_unreadable=skip_unreadable, held_out=opened.get("held_out"),
                listeners=(*listeners, *tracker.listeners),
            )  # fmt: skip
            if finished.folder.writes:
                tracker.finish(finished.result)
    except BaseException:
        if out is None:
            shutil.rmtree(folder.parent, ignore_errors=True)
        raise
    run = Run(folder)
    run.leads = finished.folder.writes
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder.parent, ignore_errors=True)
    return run
