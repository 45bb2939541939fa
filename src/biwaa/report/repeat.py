"""How to repeat it: the command, the recipe, versions, time, machine."""

import shlex
from pathlib import Path

from biwaa.files import expanded
from biwaa.recipe import dump_recipe
from biwaa.report.cells import Cell, PageTable, number
from biwaa.report.read import Reading
from biwaa.report.section import Section
from biwaa.report.sources import source_words
from biwaa.result import Result
from biwaa.training.folder import CLASSES, TARGET_LABELS, RunFolder


def repeat(run: Reading) -> Section:
    """Everything that a second run needs."""
    page = Section("repeat", "How do I repeat it?")
    result = run.result
    words = train_again(result, run.folder.path)
    page.lead = (
        "The same recipe on the same images, with the same versions on the same kind of machine, gives the same model."
    )
    if words:
        recipe = ["--recipe", str(run.folder.path / "recipe.yaml")]
        page.code = [("Command", shlex.join(["biwaa", "train", *recipe, *words, "--out", "again"]))]
    else:
        page.notes.append("Some of what it was given was an object in Python, which no command can name.")
    page.code.append(("Recipe", dump_recipe(run.recipe)))
    page.tables = [_facts(run), _time(run), _machine(run)]
    return page


def train_again(result: Result, run: Path, labels: bool = True) -> list[str] | None:
    """The words by which `biwaa train` is given the same images, classes and teacher.

    Args:
        result: of the run.
        run: its folder.
        labels: also the labels of the target that it was given.

    Returns:
        None where some of it was an object in Python.
    """
    try:
        task = RunFolder(run).task()
    except (OSError, ValueError):
        return None
    specs = (*result.source_specs, result.target.spec, *([result.held_out.spec] if result.held_out else []))
    lesson: dict[str, list[str]] = task.get("lesson") or {}
    if not all(map(is_spec, specs)) or (result.teacher and not lesson):
        return None
    words = [word for spec in result.source_specs for word in ("--source", spec)]
    words += ["--target", result.target.spec]
    words += ["--held-out", result.held_out.spec] if result.held_out else []
    for name, values in lesson.items():
        words += [f"--{name.replace('_', '-')}", *values]
    words += ["--classes", str(run / CLASSES)] if (run / CLASSES).is_file() else []
    words += ["--target-labels", str(run / TARGET_LABELS)] if labels and result.target.labels_given else []
    words += ["--data-root", task["data_root"]] if task.get("data_root") else []
    return words + (["--skip-unreadable"] if task.get("skip_unreadable") else [])


def is_spec(spec: str) -> bool:
    """Whether a command can name it: a domain that was handed over in Python has no SPEC."""
    return ":" in spec or expanded(spec.partition("@")[0]).exists()


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
