"""Experiment trackers that follow log.jsonl: TensorBoard, Weights & Biases, MLflow.

log.jsonl is the record; a tracker is one more listener to it. Settings go there at the start, losses as `STAGE/LOSS` at
the stage's step, and at the end the label-free estimates, and accuracies where the target has labels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biwaa.errors import BiwaaError, choices
from biwaa.ranks import leads
from biwaa.recipe import Recipe
from biwaa.result import Result
from biwaa.training.folder import Listener

Log = Callable[[dict[str, float], int], None]  # Figures by name, and the step


@dataclass(frozen=True)
class Tracker:
    """All trackers of a run as one."""

    logs: tuple[Log, ...]

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """What the log is to be told to."""
        return (self._entry,) if self.logs else ()

    def _entry(self, entry: dict[str, Any]) -> None:
        stage, step = str(entry["stage"]), int(entry["step"])
        figures = {f"{stage}/{key}": float(value) for key, value in entry.items() if key not in ("stage", "step")}
        self._write(figures, step)

    def finish(self, result: Result) -> None:
        """Write the figures of the selected model."""
        figures = {f"estimated_accuracy/{name}": value for name, value in result.estimated_accuracy.readings.items()}
        if result.estimated_accuracy.value is not None:
            figures["estimated_accuracy/value"] = result.estimated_accuracy.value
        figures["seconds"] = result.cost.seconds
        if result.accuracy:
            adapted = result.accuracy.adapted
            figures |= {"accuracy/over_images": adapted.over_images, "accuracy/over_classes": adapted.over_classes}
        self._write(figures, result.cost.steps)

    def _write(self, figures: dict[str, float], step: int) -> None:
        for log in self.logs:
            log(figures, step)


@contextmanager
def track_run(names: Sequence[str], out: Path, recipe: Recipe) -> Iterator[Tracker]:
    """Open trackers for a run and close them after it; of a run's many processes the first alone has any.

    Args:
        names: any of `TRACKERS`.
        out: the run folder; its name is the run's, and local files go below OUT's parent in `tracking/`.
        recipe: all settings.

    Raises:
        BiwaaError: no such tracker, or its library is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise BiwaaError(f"no tracker is called {name!r}: {choices(name, TRACKERS)}.")
    with ExitStack() as stack:
        logs: list[Log] = []
        for name in dict.fromkeys(names) if leads() else ():
            try:
                logs.append(stack.enter_context(TRACKERS[name](out, recipe.flat())))
            except ModuleNotFoundError as error:
                extra = "biwaa[track]" if name == "tensorboard" else name
                raise BiwaaError(f"--track {name} needs {error.name}: pip install '{extra}'.") from None
        yield Tracker(tuple(logs))


@contextmanager
def _tensorboard(out: Path, settings: dict[str, Any]) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(out.parent / "tracking" / out.name)) as writer:
        writer.add_text("recipe", "\n".join(f"    {name}: {value}" for name, value in settings.items()))

        def log(figures: dict[str, float], step: int) -> None:
            for name, value in figures.items():
                writer.add_scalar(name.replace(" ", "_"), value, step)

        yield log


@contextmanager
def _wandb(out: Path, settings: dict[str, Any]) -> Iterator[Log]:
    import wandb

    folder = out.parent / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    # Its own environment variables (WANDB_PROJECT, WANDB_MODE ..) say where to and whether at all.
    with wandb.init(dir=str(folder), name=out.name, config=settings) as run:

        def log(figures: dict[str, float], step: int) -> None:
            # Stages start at step 0 again, and W&B's own step may not go back: each stage brings its own.
            run.log(figures | {"stage_step": step})

        yield log


@contextmanager
def _mlflow(out: Path, settings: dict[str, Any]) -> Iterator[Log]:
    import mlflow

    # MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where to.
    with mlflow.start_run(run_name=out.name):
        mlflow.log_params(settings)

        def log(figures: dict[str, float], step: int) -> None:
            mlflow.log_metrics(figures, step=step)

        yield log


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
