"""What a run costs, in images that pass through the network in training; and what that will take, in words."""

from collections.abc import Callable

from biwaa.methods import METHODS
from biwaa.methods import SOURCE_ONLY as SOURCE_ONLY_METHOD
from biwaa.progress import duration
from biwaa.recipe import Recipe
from biwaa.result import SOURCE_ONLY

LONG = 60.0  # Seconds of training from which on a faster way is named


def images_a_step(method: str, recipe: Recipe) -> int:
    """Images that pass through the network in a step of a method."""
    of = METHODS[method]
    return recipe.data.batch_size * (1 + of.sees_target + of.strong_view)


def stage_images(stage: str, recipe: Recipe) -> int:
    """Images that pass through the network in a stage's steps; none where its head is solved for."""
    method = SOURCE_ONLY_METHOD if stage == SOURCE_ONLY else recipe.method
    solved = METHODS[method].solved(recipe.network.frozen)
    return 0 if solved else recipe.schedule.steps * images_a_step(method, recipe)


def stage_names(recipe: Recipe) -> list[str]:
    """The stages of a run, in order."""
    first = [SOURCE_ONLY] if recipe.schedule.baseline and METHODS[recipe.method].sees_target else []
    return [*first, *(f"round {number}" for number in range(recipe.schedule.rounds))]


def planned_images(recipe: Recipe) -> int:
    """Images that pass through the network in the steps of all stages."""
    return sum(stage_images(stage, recipe) for stage in stage_names(recipe))


def foretold(recipe: Recipe, images: int) -> Callable[[float], str]:
    """Puts the seconds an image, as the first steps took them, into what the run will take.

    Args:
        recipe: all settings.
        images: in both domains.
    """
    steps, total = recipe.schedule.steps, planned_images(recipe)
    stages = [stage for stage in stage_names(recipe) if stage_images(stage, recipe)]
    rounds = [stage for stage in stages if stage != SOURCE_ONLY]
    network = recipe.network
    freezable = not (network.freeze_backbone or network.weights == "none" or METHODS[recipe.method].strong_view)

    def words(seconds: float) -> str:
        def times(many: int, method: str) -> str:
            a_step = f"{steps} steps of {seconds * images_a_step(method, recipe):.2g} s"
            return a_step if many == 1 else f"{many} times {a_step}"

        parts = [f"source-only: {times(1, SOURCE_ONLY_METHOD)}"] if SOURCE_ONLY in stages else []
        parts += [f"rounds: {times(len(rounds), recipe.method)}"] if rounds else []
        text = f"about {duration(seconds * total)} of training in all, by the first steps ({', '.join(parts)})"
        if seconds * total < LONG or not freezable:
            return text
        return (
            f"{text}. Faster: --freeze-backbone passes each of the {images} images through the backbone once; "
            f"this run makes {total} passes forward and backward"
        )

    return words
