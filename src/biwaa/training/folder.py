"""The run folder: what lies in it, and how it survives a crash.

- recipe.yaml, model.safetensors, predictions.csv, labels.csv, result.json, log.jsonl, checkpoints/, report.html
- every file is written whole or not at all; log.jsonl alone grows line by line
- a leg is one training from afresh: source-only, round 0, round 1, ..; a finished one is never trained again
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biwaa.errors import BiwaaError
from biwaa.files import write_text
from biwaa.recipe import Recipe, dump_recipe, load_recipe

STARTED = ("recipe.yaml", "run.json")
"""Without the other, what a crash at the very start leaves: no run yet."""
CONTENTS = (
    "recipe.yaml", "model.safetensors", "predictions.csv", "labels.csv", "result.json", "log.jsonl", "run.json",
    "report.html",
)  # fmt: skip


@dataclass(frozen=True)
class RunFolder:
    """A folder that one run owns."""

    path: Path

    @property
    def model(self) -> Path:
        """The chosen model."""
        return self.path / "model.safetensors"

    def leg(self, name: str) -> Path:
        """A finished leg: its trained parameters and its predictions of the target."""
        return self.path / "checkpoints" / f"{name.replace(' ', '_')}.safetensors"

    @property
    def unfinished(self) -> Path:
        """The newest state of the leg in training."""
        return self.path / "checkpoints" / "unfinished.safetensors"

    @property
    def candidate(self) -> Path:
        """A state whose own loss is not known yet; it becomes `unfinished` once the next step's is finite."""
        return self.path / "checkpoints" / "candidate.safetensors"

    @property
    def replaced(self) -> Path:
        """The run that --overwrite replaces, until the new one has a model."""
        return self.path / "replaced"

    def forget_replaced(self) -> None:
        """The new run has a model: the replaced one may go."""
        shutil.rmtree(self.replaced, ignore_errors=True)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def log(self, **entry: Any) -> None:
        """Add a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_log(self, leg: str, step: int) -> None:
        """Drop what was logged of `leg` after `step`, since it will be trained again."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off in the middle of writing
            if entry.get("leg") != leg or entry.get("step", 0) <= step:
                kept.append(line)
        write_text(path, "".join(f"{line}\n" for line in kept))


def look(path: Path, recipe: Recipe, task: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Make sure that `path` can be the folder of this run; nothing is written yet.

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
    if _holds_run(path):
        if resume:
            _same_run(path, recipe, task)
        elif not overwrite:
            raise BiwaaError(
                f"{path} already holds a run: pass --resume to go on with it or --overwrite to replace it."
            )
    elif path.is_dir() and any(
        entry.name not in STARTED and not entry.name.startswith(".") for entry in path.iterdir()
    ):
        raise BiwaaError(f"{path} is not empty and holds no run: name another folder.")


def claim(path: Path, recipe: Recipe, task: Mapping[str, Any], resume: bool) -> RunFolder:
    """Make `path`, which `look` found fit, the folder of this run; without `resume` an earlier run goes."""
    folder = RunFolder(path)
    if resume and _holds_run(path):
        return folder
    path.mkdir(parents=True, exist_ok=True)
    _set_aside(folder)
    folder.write_json("run.json", task)
    write_text(path / "recipe.yaml", dump_recipe(recipe))
    return folder


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
        folder.replaced.mkdir()
        for path in present:
            path.rename(folder.replaced / path.name)


def _same_run(path: Path, recipe: Recipe, task: Mapping[str, Any]) -> None:
    earlier = load_recipe(str(path / "recipe.yaml"))
    changed = [name for name in dataclasses.asdict(recipe) if getattr(recipe, name) != getattr(earlier, name)]
    changed = [name for name in changed if name not in ("device", "log_every", "checkpoint_every")]
    if changed:
        name = changed[0]
        was, now = getattr(earlier, name), getattr(recipe, name)
        raise BiwaaError(f"{path} was trained with {name} = {was}, not {now}: resume with its recipe.yaml, unchanged.")
    try:
        before = json.loads((path / "run.json").read_text(encoding="utf-8"))
        different = [key for key in ("classes", "source_images", "target_images") if before[key] != task[key]]
        different += ["held_out_images"] * (before.get("held_out_images") != task.get("held_out_images"))
    except (ValueError, KeyError, TypeError):
        raise BiwaaError(f"{path / 'run.json'} is damaged: the run cannot be resumed. Name another folder.") from None
    if different:
        raise BiwaaError(
            f"{path} holds a run of other images or classes ({different[0]} differ; were files changed since?). "
            "Name another folder."
        )
