"""The page of a run."""

from pathlib import Path

from biwaa.predictions import Predictions
from biwaa.report.how import how
from biwaa.report.mistakes import mistakes
from biwaa.report.page import render
from biwaa.report.read import Reading, TargetImages, read_run
from biwaa.report.repeat import repeat
from biwaa.report.what_now import what_now
from biwaa.report.why import why
from biwaa.report.worked import worked
from biwaa.result import TEACHER


def run_page(path: Path, data_root: Path | None = None, predictions: Predictions | None = None) -> str:
    """The HTML of a run's page.

    Raises:
        BiwaaError: as for `read_run`.
    """
    run = read_run(path, predictions)
    result = run.result
    images = TargetImages(result, data_root)
    source = " and ".join(map(_name, result.source_specs)) or TEACHER
    target = _name(result.target.spec)
    sections = [worked(run), why(run), mistakes(run, images), how(run), repeat(run), what_now(run)]
    return render(f"{source} to {target}: biwaa", (source, target), _meta(run), sections)


def _name(spec: str) -> str:
    return spec if ":" in spec else Path(spec).name or spec


def _meta(run: Reading) -> str:
    result, model, rounds = run.result, run.result.model, len(run.result.rounds)
    steps = f"{rounds} round{'s' if rounds != 1 else ''} of {result.cost.steps_a_stage} steps"
    return (
        f"{result.method}, {steps if result.cost.steps else 'solved without training steps'}, "
        f"{model.backbone} {'frozen' if model.frozen else 'trained end to end'}, seed {result.seed}. "
        f"{result.source.images or 'No'} source and {result.target.images} target images of {len(run.classes)} classes."
    )
