"""How to repeat it: the command, the recipe, versions, time, machine."""

import shlex
from pathlib import Path

from biwaa.recipe import dump_recipe
from biwaa.report.cells import Cell, PageTable, number
from biwaa.report.read import Reading
from biwaa.report.section import Section
from biwaa.report.sources import source_words
from biwaa.result import Result
from biwaa.training.folder import TARGET_LABELS


def repeat(run: Reading) -> Section:
    """Everything that a second run needs."""
    page = Section("repeat", "How do I repeat it?")
    result = run.result
    words = train_again(result, run.folder.path)
    words += ["--target-labels", str(run.folder.path / TARGET_LABELS)] if result.target.labels_given else []
    page.lead = (
        "The same recipe on the same images, with the same versions on the same kind of machine, gives the same model. "
        "For a catalogued benchmark add --data-root."
    )
    if result.teacher:
        page.notes.append(f"The teacher ({result.teacher.where}) has to be given again, as it was.")
    page.code = [("Command", f"{shlex.join(words)} --out again"), ("Recipe", dump_recipe(run.recipe))]
    page.tables = [_facts(run), _time(run), _machine(run)]
    return page


def train_again(result: Result, run: Path) -> list[str]:
    """The words of the command that trains on the same images with the same settings; `--out` has to follow."""
    words = ["biwaa", "train", "--recipe", str(run / "recipe.yaml")]
    words += [word for spec in result.source_specs for word in ("--source", spec)]
    words += ["--target", result.target.spec]
    return words + (["--held-out", result.held_out.spec] if result.held_out else [])


def _facts(run: Reading) -> PageTable:
    result, model = run.result, run.result.model
    facts = {
        "source": source_words(result),
        "target": f"{result.target.spec}, {result.target.images} images",
        "method": result.method,
        "backbone": f"{model.backbone}, {'frozen' if model.frozen else 'trained end to end'}",
        "weights": model.weights,
        "seed": str(result.seed),
    }
    if result.teacher:
        facts["teacher"] = result.teacher.where
    return _pairs("What it was run with", facts)


def _machine(run: Reading) -> PageTable:
    parts = (run.result.hardware, run.result.versions)
    return _pairs("Machine and versions", {key: str(value) for part in parts for key, value in part.items()}, True)


def _pairs(caption: str, facts: dict[str, str], folded: bool = False) -> PageTable:
    rows = tuple((Cell(key), Cell(value)) for key, value in facts.items())
    return PageTable(caption, ("", "value"), rows, sortable=False, folded=folded)


def _time(run: Reading) -> PageTable:
    cost = run.result.cost
    steps = f"{cost.steps} steps in all, {cost.images} images through the network in training."
    kept = "Decoding images and computing frozen features come before and are kept."
    note = f"{steps if cost.steps else 'Solved without training steps.'} {kept}"
    times = [*((stage.name, stage.seconds) for stage in run.result.stages), ("all", cost.seconds)]
    rows = tuple((Cell(name), number(seconds, digits=1)) for name, seconds in times)
    return PageTable("Seconds of training and prediction", ("stage", "seconds"), rows, note, sortable=False)
