"""The page of a run."""

from pathlib import Path

from biwaa.report.how import how
from biwaa.report.mistakes import fails
from biwaa.report.page import render
from biwaa.report.read import Reading, TargetImages, read_run
from biwaa.report.repeat import repeat
from biwaa.report.why import why
from biwaa.report.worked import worked


def run_page(path: Path, data_root: Path | None = None) -> str:
    """The HTML of a run's page.

    Raises:
        BiwaaError: as for `read_run`.
    """
    run = read_run(path)
    images = TargetImages(run.task["target"], run.task["target_images"], data_root)
    source, target = _name(run.task["source"]), _name(run.task["target"])
    sections = [worked(run), why(run), fails(run, images), how(run), repeat(run)]
    return render(f"{source} to {target}: biwaa", (source, target), _meta(run), sections)


def _name(spec: str) -> str:
    return spec if ":" in spec else Path(spec).name or spec


def _meta(run: Reading) -> str:
    result, model = run.result, run.result["model"]
    rounds = sum(leg.startswith("round") for leg in run.rounds)
    return (
        f"{result['method']}, {rounds} round{'s' if rounds != 1 else ''} of {result['steps']['a_leg']} steps, "
        f"{model['backbone']} {'frozen' if model['frozen'] else 'trained end to end'}, seed {result['seed']}. "
        f"{result['source']['images']} source and {result['target']['images']} target images of {len(run.classes)} "
        "classes."
    )
