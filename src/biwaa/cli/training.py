"""`biwaa train` and `biwaa demo`: their flags, and the doing of it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import tyro

from biwaa.cli.metavars import RunFolder, Spec
from biwaa.errors import BiwaaError

if TYPE_CHECKING:
    from biwaa.recipe import Recipe


@dataclass(frozen=True)
class TrainFlags:
    """Adapt a classifier from labelled images to unlabelled ones.

    Example: biwaa train --source photos --target sketches --out run
    """

    EVERYDAY: ClassVar[tuple[str, ...]] = (
        "method", "backbone", "weights", "freeze_backbone", "image_size", "batch_size", "rounds", "steps",
        "learning_rate", "choice", "seed", "device",
    )  # fmt: skip
    """Settings that the short help shows."""

    source: Spec
    """Labelled images, as a SPEC of `biwaa --help`."""
    target: Spec
    """Images of the other place; labels only serve the report."""
    out: RunFolder
    """Run folder to make."""
    recipe: str = "robust"
    """Named recipe or YAML file; flags win over it."""
    resume: bool = False
    """Go on with the run in the folder; --out alone will do."""
    overwrite: bool = False
    """Replace the run in the folder."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded."""
    held_out: Spec | None = None
    """Labelled target images to score on, not used in training."""
    data_root: Path | None = None
    """Folder of benchmarks; unset: $BIWAA_DATA or ./data."""
    json: bool = False
    """Print result.json in place of the summary."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""

    @classmethod
    def starting_from(cls, recipe: str) -> Self:
        """The flags' defaults under a recipe."""
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, recipe=recipe)


def resumed(flags: TrainFlags, folder: Path) -> TrainFlags:
    """The flags' defaults for going on with the run in `folder`: its own images.

    Raises:
        BiwaaError: its run.json cannot be read.
    """
    from biwaa.training.folder import RunFolder  # brings torch

    try:
        task = RunFolder(folder).task()
        return replace(
            flags, source=task["source"], target=task["target"], held_out=task.get("held_out"),
            data_root=Path(task["data_root"]) if task.get("data_root") else None,
            skip_unreadable=bool(task.get("skip_unreadable")),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BiwaaError(f"{folder / 'run.json'} is damaged: the run cannot be resumed. Name another folder.") from None


def train(flags: TrainFlags, settings: "Recipe") -> None:
    """Do what the flags of `biwaa train` say."""
    from biwaa.api import adapt
    from biwaa.recipe import load_recipe
    from biwaa.report.summary import summarise
    from biwaa.report.write import report_on
    from biwaa.result import dump_result
    from biwaa.training.resume import where_it_goes_on

    try:
        run = adapt(
            flags.source, flags.target, out=flags.out, recipe=settings, held_out=flags.held_out, track=flags.track,
            resume=flags.resume, overwrite=flags.overwrite, skip_unreadable=flags.skip_unreadable,
            data_root=flags.data_root,
        )  # fmt: skip
    except (KeyboardInterrupt, OSError) as ended:
        ended.add_note(where_it_goes_on(flags.out))
        raise
    if run.leads:
        print(
            dump_result(run.result)
            if flags.json
            else summarise(run.result, load_recipe(str(run.folder / "recipe.yaml")))
        )
        report_on(run.folder, flags.data_root, run.predictions)


def demo(out: Path = Path("biwaa-demo"), seed: int = 42) -> None:
    """Adapt clean digits to digits on photographs, offline, in minutes.

    Example: biwaa demo --out digits

    Args:
        out: folder for the data, the run and the picture.
        seed: of data and training.
    """
    from biwaa.demo import run_demo
    from biwaa.recipe import load_recipe
    from biwaa.report.summary import summarise
    from biwaa.report.write import report_on

    run = run_demo(out, seed)
    print(summarise(run.result, load_recipe("demo")))
    print(f"samples with both predictions: {out / 'samples.png'}")
    report_on(run.folder, predictions=run.predictions)
