"""How to repeat it: the command, the recipe, versions, time, machine."""

import shlex

from biwaa.recipe import dump_recipe
from biwaa.report.cells import Cell, PageTable
from biwaa.report.read import Reading
from biwaa.report.section import Section


def repeat(run: Reading) -> Section:
    """Everything that a second run needs."""
    page = Section("repeat", "How do I repeat it?")
    task = run.task
    words = ["biwaa", "train", "--recipe", str(run.folder.path / "recipe.yaml")]
    words += ["--source", task["source"], "--target", task["target"]]
    words += ["--held-out", task["held_out"]] if "held_out" in task else []
    page.lead = (
        "The same recipe on the same images, with the same versions on the same kind of machine, gives the same model. "
        "For a catalogued benchmark add --data-root."
    )
    page.code = [("Command", f"{shlex.join(words)} --out again"), ("Recipe", dump_recipe(run.recipe))]
    page.tables = [_facts(run), _time(run)]
    return page


def _facts(run: Reading) -> PageTable:
    result, model = run.result, run.result["model"]
    facts = {
        "source": f"{run.task['source']}, {result['source']['images']} images",
        "target": f"{run.task['target']}, {result['target']['images']} images",
        "method": result["method"],
        "backbone": f"{model['backbone']}, {'frozen' if model['frozen'] else 'trained end to end'}",
        "weights": model["weights"],
        "seed": str(result["seed"]),
    }
    facts |= {key: str(value) for part in ("hardware", "versions") for key, value in result[part].items()}
    rows = tuple((Cell(key), Cell(value)) for key, value in facts.items())
    return PageTable("What it was run with", ("", "value"), rows, sortable=False)


def _time(run: Reading) -> PageTable:
    result = run.result
    times = {leg: result["seconds"][leg] for leg in run.rounds if leg in result["seconds"]}
    rows = tuple((Cell(leg), Cell(f"{value:.1f}", value)) for leg, value in times.items())
    cost = result["cost"]
    note = (
        f"{cost['steps']} steps in all, {cost['images']} images through the network in training. Decoding images and "
        "frozen features come before and are kept."
    )
    total = Cell(f"{cost['seconds']:.1f}", cost["seconds"])
    rows = (*rows, (Cell("all"), total))
    return PageTable("Seconds of training and prediction", ("training", "seconds"), rows, note, sortable=False)
