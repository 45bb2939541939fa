"""The plan of a run's stages, with drawn predictions in the place of training: what each learns from, and its seed."""

import pytest
import torch

from biwaa.functional import align_distribution, average_rounds, smooth_over_neighbours
from biwaa.judging.evidence import Evidence
from biwaa.recipe import load_recipe, recipe_from
from biwaa.training.rounds import asks_neighbours, average, train_rounds
from biwaa.training.stage import Trained

IMAGES, CLASSES = 12, 3


def planned(recipe):
    """Every plan, with the predictions and neighbours that stand for its stage."""
    plans = []

    def train(plan):
        generator = torch.Generator().manual_seed(plan.seed)
        p = torch.randn(IMAGES, CLASSES, generator=generator).softmax(dim=1)
        neighbours = torch.randint(IMAGES, (IMAGES, 3), generator=generator) if plan.find_neighbours else None
        plans.append((plan, p, neighbours))
        return Trained(name=plan.name, evidence=Evidence(p), neighbours=neighbours, seconds=1.0, fresh=True)

    stages = list(train_rounds(recipe, train))
    assert [stage.name for stage in stages] == [plan.name for plan, _, _ in plans]
    return plans


def recipe_of(**changed):
    return recipe_from({"rounds": 4, **changed}, "test")


def test_source_only_comes_first_and_every_round_has_its_seed():
    plans = [plan for plan, _, _ in planned(recipe_of(seed=7))]
    assert [(plan.name, plan.seed) for plan in plans] == [
        ("source-only", 7), ("round 0", 7), ("round 1", 107), ("round 2", 207), ("round 3", 307)
    ]  # fmt: skip
    assert [plan.recipe.method for plan in plans] == ["source_only"] + ["biwaa"] * 4
    assert plans[0].recipe.replace(method="biwaa") == plans[1].recipe


@pytest.mark.parametrize("changed", [{"baseline": False}, {"method": "source_only"}, {"method": "linear_probe"}])
def test_source_only_is_left_out_where_it_is_not_asked_for_or_all_there_is(changed):
    assert [plan.name for plan, _, _ in planned(recipe_of(**changed))] == [f"round {number}" for number in range(4)]


@pytest.mark.parametrize("scouts", [1, 2, 4])
def test_rounds_after_the_scouts_learn_from_the_average_of_all_before(scouts):
    rounds = planned(recipe_of(scouts=scouts, baseline=False, round_update=0.2))
    for number, (plan, _, _) in enumerate(rounds):
        if number < scouts:
            assert plan.previous is None
        else:
            earlier = torch.stack([p for _, p, _ in rounds[:number]])
            assert torch.equal(plan.previous, average_rounds(earlier, 0.2))
    assert not any(plan.find_neighbours for plan, _, _ in rounds)


def test_independent_rounds_learn_from_none_and_weigh_the_same():
    recipe = recipe_of(iterate=False, smooth_rounds=True, baseline=False)
    rounds = planned(recipe)
    assert all(plan.previous is None and not plan.find_neighbours for plan, _, _ in rounds)
    parts = [p for _, p, _ in rounds]
    torch.testing.assert_close(average(parts, recipe), sum(parts) / 4)
    torch.testing.assert_close(average(parts, recipe_of()), average_rounds(torch.stack(parts), 0.2))


def test_a_teacher_is_smoothed_over_neighbours_and_evened_out():
    rounds = planned(
        recipe_of(scouts=2, smooth_rounds=True, baseline=False, round_update=0.0, distribution_damping=0.5)
    )
    assert [plan.find_neighbours for plan, _, _ in rounds] == [True, True, True, False]  # none learns from the last
    for number in (2, 3):
        mean = sum(p for _, p, _ in rounds[:number]) / number
        neighbours = torch.cat([found for _, _, found in rounds[:number]], dim=1)
        expected = align_distribution(smooth_over_neighbours(mean, neighbours), 0.5)
        torch.testing.assert_close(rounds[number][0].previous, expected)


def test_neighbours_of_frozen_features_are_found_once():
    rounds = planned(recipe_of(scouts=2, smooth_rounds=True, baseline=False, round_update=0.0, freeze_backbone=True))
    assert [plan.find_neighbours for plan, _, _ in rounds] == [True, False, False, False]
    mean = sum(p for _, p, _ in rounds[:3]) / 3
    smooth = smooth_over_neighbours(mean, rounds[0][2].repeat(1, 3))
    torch.testing.assert_close(rounds[3][0].previous, align_distribution(smooth, 0.75))


def test_no_round_asks_for_neighbours_that_no_teacher_reads():
    robust = load_recipe("robust")
    assert [asks_neighbours(robust, number) for number in range(5)] == [True] * 4 + [False]
    assert not asks_neighbours(robust.replace(rounds=1), 0)
    assert not asks_neighbours(robust.replace(smooth_rounds=False), 0)
    assert not asks_neighbours(robust.replace(scouts=5), 0)


def test_a_failed_stage_ends_the_rounds():
    trained = []

    def train(plan):
        if plan.name == "round 1":
            raise KeyboardInterrupt
        trained.append(plan.name)
        return Trained(name=plan.name, evidence=Evidence(torch.eye(3)), seconds=1.0, fresh=True)

    stages = train_rounds(recipe_of(), train)
    assert [next(stages).name, next(stages).name] == ["source-only", "round 0"]
    assert trained == ["source-only", "round 0"]  # a stage is trained once it is asked for
    with pytest.raises(KeyboardInterrupt):
        next(stages)
