"""Where an interrupted run goes on, read from its folder."""

from pathlib import Path

from biwaa.errors import BiwaaError
from biwaa.result import read_result
from biwaa.tensors import load_tensors
from biwaa.training.cost import stage_names
from biwaa.training.folder import RunFolder, own_recipe


def where_it_goes_on(path: Path) -> str:
    """What `--resume` would start from, in words."""
    folder = RunFolder(path)
    recipe = own_recipe(path)
    if recipe is None:
        return "nothing was trained yet: the same command starts again"
    finished = [name for name in stage_names(recipe) if folder.stage(name).exists()]
    try:
        if read_result(path).finished:
            return "the run is finished"
    except BiwaaError:
        pass
    try:
        facts = load_tensors(folder.unfinished, only=())[1]
        if facts["stage"] not in finished:
            return f"`--resume` goes on from step {facts['step']} of {facts['stage']}"
    except (BiwaaError, KeyError):
        pass  # none was written, or it is damaged
    if finished:
        return f"`--resume` goes on after {finished[-1]}, since no later checkpoint was written yet"
    return "no checkpoint was written yet, so `--resume` starts from the beginning"
