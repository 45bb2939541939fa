"""The stages of a run: source-only first, the teacher if there is one, then rounds from scratch.

A round learns from what all before it predicted.

Iterative label distribution alignment (WACV 2023, section 3.3) is a property of the rounds, not of a method.
This file and all below it are given the target's images alone: labels cannot reach training.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from biwaa.functional import align_distribution, average_rounds, smooth_over_neighbours
from biwaa.methods import METHODS
from biwaa.methods import SOURCE_ONLY as SOURCE_ONLY_METHOD
from biwaa.recipe import Recipe
from biwaa.result import SOURCE_ONLY, TEACHER
from biwaa.training.fit import StagePlan
from biwaa.training.stage import Trained


def train_rounds(recipe: Recipe, train: Callable[[StagePlan], Trained], taught: bool = False) -> Iterator[Trained]:
    """Train stage after stage.

    Args:
        recipe: all settings.
        train: trains one stage, or finds it finished.
        taught: there is a teacher, which is a stage of its own.

    Yields:
        Every stage once it is finished and kept.
    """
    if recipe.schedule.baseline and METHODS[recipe.method].sees_target:
        yield train(StagePlan(SOURCE_ONLY, recipe.replace(method=SOURCE_ONLY_METHOD), recipe.seed))
    if taught:
        yield train(StagePlan(TEACHER, recipe, recipe.seed))
    schedule = recipe.schedule
    rounds: list[Tensor] = []
    neighbours: list[Tensor] = []
    for number in range(schedule.rounds):
        learns = schedule.iterate and number >= schedule.scouts
        asked = asks_neighbours(recipe, number)
        stage = train(
            StagePlan(
                name=f"round {number}",
                recipe=recipe,
                seed=recipe.seed + 100 * number,
                previous=_teacher(rounds, neighbours, recipe) if learns else None,
                # Frozen features are the same in every round, so their neighbours are found once.
                find_neighbours=asked and not (recipe.network.freeze_backbone and neighbours),
            )
        )
        rounds.append(stage.probabilities)
        if asked:
            neighbours.append(neighbours[0] if stage.neighbours is None else stage.neighbours)
        yield stage


def asks_neighbours(recipe: Recipe, number: int) -> bool:
    """Whether the teacher of a later round averages over the neighbours that this round finds."""
    schedule = recipe.schedule
    return schedule.smooth_rounds and schedule.iterate and max(number + 1, schedule.scouts) < schedule.rounds


def average(rounds: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """(N, K) weighted mean of (N, K) predictions, oldest first; independent rounds weigh the same."""
    return average_rounds(torch.stack([*rounds]), recipe.schedule.round_update if recipe.schedule.iterate else 0.0)


def _teacher(rounds: list[Tensor], neighbours: list[Tensor], recipe: Recipe) -> Tensor:
    """The average of earlier rounds; a teacher smooths it over neighbours and evens out its label distribution."""
    mean = average(rounds, recipe)
    if not recipe.schedule.smooth_rounds:
        return mean
    smooth = smooth_over_neighbours(mean, torch.cat(neighbours, dim=1))
    return align_distribution(smooth, recipe.schedule.distribution_damping)
