"""`biwaa train` and `biwaa demo`: their flags, and the doing of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import tyro
from tyro.conf import UseAppendAction, arg

from biwaa.cli.metavars import Classes, RunFolder, Scores, Spec
from biwaa.errors import BiwaaError

if TYPE_CHECKING:
    from biwaa.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """Adapt a classifier from labelled images to unlabelled ones.

    Example: biwaa train --source photos --target sketches --out run
    """

    EVERYDAY: ClassVar[tuple[str, ...]] = (
        "method", "backbone", "weights", "freeze_backbone", "batch_size", "rounds", "steps", "seed", "device",
    )  # fmt: skip
    """Settings that the short help shows."""

    source: UseAppendAction[tuple[Spec, ...]] = ()
    """Labelled images; repeat the flag for several sources."""
    target: Spec
    """Images to adapt to; labels, if any, only serve the report."""
    out: RunFolder
    """Run folder to make."""
    recipe: str = "robust"
    """Named recipe or YAML file; flags win over it."""
    resume: bool = False
    """Go on with the run in --out; no other flag is needed."""
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
    teacher: Scores | None = None
    """Scores of the target by another model, .csv or .npz."""
    teacher_source: Scores | None = None
    """Scores of the source by the same model."""
    zero_shot: Annotated[str | None, arg(metavar="MODEL")] = None
    """Teacher from open_clip; unless named: ViT-B-16/openai."""
    prompt: Annotated[tuple[str, ...], arg(metavar="TEXT ..")] = ()
    """Texts for that model, with {} for a class's name."""
    classes: Classes | None = None
    """Names of the classes: cat,dog or a .txt or .yaml file."""
    target_labels: Scores | None = None
    """CSV file (path,label) of target labels to train on."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""

    @classmethod
    def starting_from(cls, recipe: str) -> Self:
        """The flags' defaults under a recipe."""
        return cls(target=tyro.MISSING, out=tyro.MISSING, recipe=recipe)


ZERO_SHOT = "--zero-shot"


def with_model(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with the default model after a `--zero-shot` that names none."""
    from biwaa.models.zero_shot import DEFAULT

    found: list[str] = []
    for here, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        found += [here, DEFAULT] if here == ZERO_SHOT and following.startswith("-") else [here]
    return found


def resumed(flags: TrainFlags, folder: Path) -> TrainFlags:
    """The flags' defaults for going on with the run in `folder`: its own images and teacher.

    Raises:
        BiwaaError: its run.json cannot be read.
    """
    from biwaa.training.folder import RunFolder  # brings torch

    try:
        task = RunFolder(folder).task()
        source = task["source"]
        named = () if source == "none" else (source,) if isinstance(source, str) else tuple(source)
        lesson = {name: tuple(values) for name, values in (task.get("lesson") or {}).items()}
        one = {name: str(values[0]) for name, values in lesson.items() if name != "prompt"}
        return replace(
            flags, source=named, target=task["target"], held_out=task.get("held_out"),
            data_root=Path(task["data_root"]) if task.get("data_root") else None,
            skip_unreadable=bool(task.get("skip_unreadable")), teacher=one.get("teacher"),
            teacher_source=one.get("teacher_source"), zero_shot=one.get("zero_shot"), prompt=lesson.get("prompt", ()),
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
            list(flags.source) or None, flags.target, out=flags.out, recipe=settings, held_out=flags.held_out,
            track=flags.track, resume=flags.resume, overwrite=flags.overwrite, skip_unreadable=flags.skip_unreadable,
            data_root=flags.data_root, teacher=flags.teacher, teacher_source=flags.teacher_source,
            zero_shot=flags.zero_shot or False, prompt=flags.prompt, classes=flags.classes,
            target_labels=flags.target_labels,
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
        seed: seed of data and training.
    """
    from biwaa.demo import run_demo
    from biwaa.recipe import load_recipe
    from biwaa.report.summary import summarise
    from biwaa.report.write import report_on

    run = run_demo(out, seed)
    print(summarise(run.result, load_recipe("demo")))
    print(f"samples with both predictions: {out / 'samples.png'}")
    report_on(run.folder, predictions=run.predictions)
