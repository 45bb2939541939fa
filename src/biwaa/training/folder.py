"""The run folder: what lies in it, and how it survives a crash.

- recipe.yaml, model.safetensors, predictions.csv, labels.csv, target_labels.csv, result.json, log.jsonl, checkpoints/,
  report.html
- every file is written whole or not at all; log.jsonl alone grows line by line
- a stage is one training from scratch: source-only, round 0, round 1, ..; a finished one is never trained again
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from biwaa.errors import BiwaaError
from biwaa.files import forget_drafts, lock_folder, write_text
from biwaa.recipe import RESUMABLE, Recipe, dump_recipe, load_recipe
from biwaa.tensors import save_tensors

TARGET_LABELS = "target_labels.csv"
"""Labels that were handed over to be trained on."""
CLASSES = "classes.yaml"
"""Classes that were named: of a classifier that is the source its outputs, of a zero-shot teacher their words."""
STARTED = ("recipe.yaml", "run.json")  # Without the other, what a crash at the very start leaves: no run yet
Listener = Callable[[dict[str, Any]], None]
"""Called with each entry of log.jsonl: stage, step, losses by name, steps_per_second."""
CONTENTS = (
    "recipe.yaml", "model.safetensors", "predictions.csv", "labels.csv", "result.json", "log.jsonl", "run.json",
    "report.html", "evaluations.json", TARGET_LABELS, CLASSES,
)  # fmt: skip
HALFWAY = ".replacing"  # Holds the files of a run while they are set aside, one by one


@dataclass(frozen=True)
class RunFolder:
    """A folder that one run owns."""

    path: Path
    writes: bool = True
    """Of several processes that train together one writes; to the others all that changes the folder does nothing."""
    listeners: tuple[Listener, ...] = ()  # Told of every entry of the log

    @property
    def model(self) -> Path:
        """The chosen model."""
        return self.path / "model.safetensors"

    def stage(self, name: str) -> Path:
        """A finished stage: its trained parameters and its predictions of the target."""
        return self.path / "checkpoints" / f"{name.replace(' ', '_')}.safetensors"

    @property
    def unfinished(self) -> Path:
        """The newest state of the stage in training."""
        return self.path / "checkpoints" / "unfinished.safetensors"

    @property
    def candidate(self) -> Path:
        """A state whose own loss is not known yet; it becomes `unfinished` once the next step's is finite."""
        return self.path / "checkpoints" / "candidate.safetensors"

    @property
    def replaced(self) -> Path:
        """The run that --overwrite replaces, until the new one has a model."""
        return self.path / "replaced"

    def keep(self, path: Path, tensors: Mapping[str, Tensor], **facts: Any) -> None:
        """Write a checkpoint whole or not at all."""
        if self.writes:
            save_tensors(path, tensors, **facts)

    def drop(self, *paths: Path) -> None:
        """Remove files, if they are there."""
        for path in paths if self.writes else ():
            path.unlink(missing_ok=True)

    def prove(self) -> None:
        """The candidate is a good state: it takes the place of the last."""
        if self.writes:
            self.candidate.replace(self.unfinished)

    def forget_replaced(self) -> None:
        """The new run has a model: the replaced one may go."""
        shutil.rmtree(self.replaced, ignore_errors=True)

    def task(self) -> dict[str, Any]:
        """What run.json says: what is adapted to what."""
        found: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        return found

    def log(self, **entry: Any) -> None:
        """Add a line to log.jsonl, and call the listeners.

        Raises:
            BiwaaError: the run folder is gone.
            OSError: of a full disk, say.
        """
        path = self.path / "log.jsonl"
        if not self.writes:
            return
        if not _holds_run(self.path):
            raise BiwaaError(f"{self.path} was moved or emptied while it was trained in: training stopped.")
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        for listener in self.listeners:
            listener(dict(entry))

    def read_log(self) -> list[dict[str, Any]]:
        """The entries of log.jsonl; a line that was cut off or damaged is none."""
        path = self.path / "log.jsonl"
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return [entry for line in text.split("\n") if (entry := _log_entry(line))]

    def rewind_log(self, stage: str, step: int) -> None:
        """Drop what was logged of `stage` after `step`, since it will be trained again."""
        if self.writes and (self.path / "log.jsonl").exists():
            kept = [entry for entry in self.read_log() if entry["stage"] != stage or entry["step"] <= step]
            write_text(self.path / "log.jsonl", "".join(f"{json.dumps(entry)}\n" for entry in kept))


def check_folder(path: Path, recipe: Recipe, task: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Make sure that `path` can be the folder of this run; nothing of it is written yet.

    Args:
        path: where.
        recipe: all settings.
        task: what is adapted to what, as far as it decides what the checkpoints mean.
        resume: go on with the run that is there, which must be of the same recipe and task.
        overwrite: a run that is there may be replaced.

    Raises:
        BiwaaError: there is a run or anything else already, or it is not the same run.
    """
    if path.exists() and not path.is_dir():
        raise BiwaaError(f"{path} is a file: name a folder for the run.")
    _check_writable(path)
    _put_back(path)
    if _holds_run(path):
        if resume:
            _same_run(path, recipe, task)
        elif not overwrite:
            raise BiwaaError(
                f"{path} already holds a run: pass --resume to go on with it or --overwrite to replace it."
            )
    elif path.is_dir() and any(
        entry.name not in STARTED
        and not entry.name.startswith(".")
        and not (entry.name == "replaced" and (resume or overwrite))
        for entry in path.iterdir()
    ):
        raise BiwaaError(f"{path} is not empty and holds no run: name another folder.")


@contextmanager
def locked(folder: RunFolder, recipe: Recipe, task: Mapping[str, Any], resume: bool, overwrite: bool) -> Iterator[None]:
    """Make `folder` that of this run; no other process can train in it within the block.

    Raises:
        BiwaaError: another process does, or what `check_folder` raises, which is called again.
    """
    if not folder.writes:
        yield
        return
    path = folder.path
    path.mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        check_folder(path, recipe, task, resume, overwrite)  # another process may have been here since
        for name in CONTENTS:
            forget_drafts(path, name)
        forget_drafts(folder.unfinished.parent)
        if not (resume and _holds_run(path)):
            _set_aside(folder)
            write_text(path / "run.json", json.dumps(task, indent=2) + "\n")
            write_text(path / "recipe.yaml", dump_recipe(recipe))
        yield


def _log_entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("stage"), str) and type(entry.get("step")) is int
    return entry if whole else None


def _holds_run(path: Path) -> bool:
    return all((path / name).exists() for name in STARTED)


def _check_writable(path: Path) -> None:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BiwaaError(f"{path} cannot be made: {existing} is no folder that can be written to.")


def _set_aside(folder: RunFolder) -> None:
    """Keep the run that is there in `replaced`; a failed one without a model never takes the place of a good one."""
    present = [folder.path / name for name in (*CONTENTS, "checkpoints") if (folder.path / name).exists()]
    if folder.replaced.exists() and folder.model.exists():
        shutil.rmtree(folder.replaced)
    if present and folder.replaced.exists():
        shutil.rmtree(folder.path / "checkpoints", ignore_errors=True)
        for name in CONTENTS:
            (folder.path / name).unlink(missing_ok=True)
    elif present:
        (folder.path / HALFWAY).mkdir()
        for path in present:
            path.rename(folder.path / HALFWAY / path.name)
        (folder.path / HALFWAY).rename(folder.replaced)


def _put_back(path: Path) -> None:
    """Undo a `_set_aside` that was cut off."""
    if (path / HALFWAY).is_dir():
        for moved in (path / HALFWAY).iterdir():
            moved.rename(path / moved.name)
        (path / HALFWAY).rmdir()


def own_recipe(path: Path) -> Recipe | None:
    """The settings of the run in a folder; None where there is none."""
    return load_recipe(str(path / "recipe.yaml")) if _holds_run(path) else None


def _same_run(path: Path, recipe: Recipe, task: Mapping[str, Any]) -> None:
    before, now = load_recipe(str(path / "recipe.yaml")).flat(), recipe.flat()
    for name in before:
        if name not in (*RESUMABLE, "devices", "num_nodes") and before[name] != now[name]:
            raise BiwaaError(
                f"{path} was trained with {name} = {before[name]}, not {now[name]}: leave that setting and the recipe "
                "out, and the run goes on with its own."
            )
    try:
        then = json.loads((path / "run.json").read_text(encoding="utf-8"))
        different = [key for key in ("classes", "source_images", "target_images") if then[key] != task[key]]
        keys = ("source_labels", "held_out_images", "teacher_scores", "given_labels")
        different += [key for key in keys if then.get(key) != task.get(key)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BiwaaError(f"{path / 'run.json'} is damaged: the run cannot be resumed. Name another folder.") from None
    if different:
        raise BiwaaError(
            f"{path} holds a run of other images, labels or classes, or with another teacher ({different[0]} differ; "
            "were files changed since?). Name another folder."
        )
