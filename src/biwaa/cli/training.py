"""`biwaa train` and `biwaa demo`: their flags, and the doing of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import tyro
from tyro.conf import OmitArgPrefixes

from biwaa.cli.words import RunFolder, Spec
from biwaa.recipe import Recipe, load_recipe


@dataclass(frozen=True)
class Train:
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
    """Images of the other place; labels serve the report alone."""
    out: RunFolder
    """Run folder to make."""
    settings: OmitArgPrefixes[Recipe]
    recipe: str = "robust"
    """Named recipe or YAML file; flags win over it."""
    resume: bool = False
    """Go on with the interrupted run in the folder."""
    overwrite: bool = False
    """Replace the run in the folder."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded."""
    held_out: Spec | None = None
    """Labelled images of the target's place, kept from training and scored beside the others."""
    data_root: Path | None = None
    """Folder of benchmarks; unset: $BIWAA_DATA or ./data."""
    json: bool = False
    """Print result.json in place of the summary."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""

    @classmethod
    def starting_from(cls, recipe: str) -> Self:
        """The flags' defaults under a recipe."""
        return cls(tyro.MISSING, tyro.MISSING, tyro.MISSING, settings=load_recipe(recipe), recipe=recipe)


def train(given: Train) -> None:
    """Do what the flags of `biwaa train` say."""
    from biwaa.domains.domain import check_pair
    from biwaa.domains.spec import open_domain

    source, target = open_domain(given.source, given.data_root), open_domain(given.target, given.data_root)
    held_out = open_domain(given.held_out, given.data_root) if given.held_out else None
    check_pair(source, target, given.settings.batch_size)
    from biwaa.api import adapt
    from biwaa.evaluation.summary import summarise
    from biwaa.report.command import report_on

    run = adapt(
        source, target, out=given.out, recipe=given.settings, held_out=held_out, track=given.track,
        resume=given.resume, overwrite=given.overwrite, skip_unreadable=given.skip_unreadable,
    )  # fmt: skip
    if run.leads:
        print(json.dumps(run.result, indent=2) if given.json else summarise(run.result))
        report_on(given.out, given.data_root)


def demo(out: Path = Path("biwaa-demo"), seed: int = 42) -> None:
    """Adapt clean digits to digits on photographs, offline, in a minute.

    Example: biwaa demo --out digits

    Args:
        out: folder for the data, the run and the picture.
        seed: of data and training.
    """
    from biwaa.demo import run_demo
    from biwaa.evaluation.summary import summarise
    from biwaa.report.command import report_on

    print(summarise(run_demo(out, seed).result))
    print(f"samples with both predictions: {out / 'samples.png'}")
    report_on(out / "run")
