"""A target of strangers: images of no class of the source are told from images of its classes in another place."""

import numpy as np
import pytest
import torch

import biwaa
from biwaa.domains.spec import open_domain
from biwaa.judging.likeness import FEWEST, FEWEST_A_CLASS, FEWEST_CLASSES, FEWEST_IN_ALL, likeness
from biwaa.judging.warnings import LIKENESS
from biwaa.recipe import load_recipe
from biwaa.report.estimate import doubt, shown_estimate
from biwaa.report.later import Thresholds, later_words
from biwaa.report.sentences import warning_texts
from biwaa.result.warnings import LikeNoClass
from biwaa.training.later import estimate_later

CLASSES, WIDTH = 12, 64


def images(kinds, place, seed, count=800):
    """Round classes that are poses of one another too: within each class images differ along the same five directions.

    A place scales every feature, and adds noise of its own.
    """
    rng, world = np.random.default_rng(seed), np.random.default_rng(0)
    centres, poses = world.normal(size=(CLASSES, WIDTH)), world.normal(size=(5, WIDTH))
    labels = rng.choice(kinds, size=count)
    rows = centres[labels] + 0.5 * rng.normal(size=(count, 5)) @ poses + 0.7 * rng.normal(size=(count, WIDTH))
    if place:
        rows = rows * np.random.default_rng(place).uniform(0.5, 1.8, size=WIDTH) + 1 + 0.3 * rng.normal(size=rows.shape)
    return rows.astype(np.float32), labels


def scaled(rows):
    return torch.from_numpy((rows - rows.mean(0)) / rows.std(0))


def measured(kinds, place=1, seed=2, count=800):
    source, labels = images(range(6), 0, 1)
    return likeness(scaled(source), torch.from_numpy(labels), scaled(images(kinds, place, seed, count)[0]))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_images_of_other_classes_are_unlike_images_of_the_same_classes(place):
    same, some, other = (measured(kinds, place) for kinds in (range(6), range(3), range(6, 12)))
    assert same > LIKENESS + 1
    assert some > LIKENESS + 0.2
    assert other < LIKENESS


def test_half_strangers_lie_between():
    assert measured(range(6, 12)) < measured(range(12)) < measured(range(6))


def test_the_names_of_classes_do_not_matter():
    source, labels = images(range(6), 0, 1)
    target = scaled(images(range(6), 1, 2)[0])
    assert likeness(scaled(source), torch.from_numpy(labels), target) == pytest.approx(
        likeness(scaled(source), torch.from_numpy(20 - 3 * labels), target), abs=0.2
    )


def test_where_there_is_too_little_nothing_is_said():
    source, labels = (part[:FEWEST_IN_ALL] for part in images(range(6), 0, 1))
    rows, of, target = scaled(source), torch.from_numpy(labels), scaled(images(range(6), 1, 2, FEWEST)[0])
    assert likeness(rows, of, target) is not None
    assert likeness(rows, of, target[1:]) is None
    assert likeness(rows[1:], of[1:], target) is None
    assert likeness(rows, of.clamp(max=FEWEST_CLASSES - 1), target) is not None
    assert likeness(rows, of.clamp(max=FEWEST_CLASSES - 2), target) is None
    assert likeness(rows[:, :12], of, target[:, :12]) is None
    many = torch.arange(len(rows)) % (len(rows) // FEWEST_A_CLASS + 1)
    assert likeness(rows, many, target) is None


def test_new_images_of_no_class_get_no_estimate(tmp_path):
    run = biwaa.adapt(images(range(6), 0, 1), images(range(6), 1, 2)[0], out=tmp_path / "run", verbose=False)
    wanted = {
        "same": (range(6), None), "one": (range(1), None), "strangers": (range(6, 12), "no_class"),
        "some": ((*range(6), 6, 7), "unfamiliar"),
    }  # fmt: skip
    share, words = {}, {}
    for name, (kinds, withheld) in wanted.items():
        np.savez(tmp_path / "new.npz", **{f"{name}_x": images(kinds, 1, 3)[0]})
        found = estimate_later(tmp_path / "run", open_domain(f"{tmp_path / 'new.npz'}:{name}"))
        assert found.withheld == withheld
        assert (found.estimated_accuracy.value is None) == (withheld is not None)
        assert (found.unfamiliar > found.unfamiliar_limit) == (withheld is not None)
        share[name], words[name] = found.unfamiliar, later_words(found, run.result, Thresholds(least_bound=0.1))
        assert ("not met" in words[name]) == (withheld is not None)
        assert withheld is None or found.adapt_again is False
    assert words["strangers"].count("no class of the source") == 2
    assert "look like none of the run's target and may be of no known class" in words["some"]
    assert share["one"] < 0.1
    assert share["same"] < 0.1
    assert 0.15 < share["some"] < 0.35 < share["strangers"]


@pytest.mark.parametrize("unknown", ["off", "auto"])
def test_a_run_on_strangers_gives_no_estimate(tmp_path, unknown):
    source, (target, _) = images(range(6), 0, 1), images(range(6, 12), 1, 2)
    run = biwaa.adapt(source, target, out=tmp_path / "run", unknown=unknown, batch_size=24, verbose=False)
    assert run.result.estimated_accuracy.value is None
    assert min(run.result.estimated_accuracy.readings.values()) > 0.3
    assert run.result.calibration.matched_to_estimate  # surer confidences would be worse
    assert any(isinstance(one, LikeNoClass) for one in run.result.warnings)
    assert shown_estimate(run.result) is None
    assert "no class of the source" in doubt(run.result)
    assert any("look like no class of the source" in text for text in warning_texts(run.result, load_recipe("robust")))
    closed = biwaa.adapt(source, images(range(6), 1, 2)[0], out=tmp_path / "closed", batch_size=24, verbose=False)
    assert not any(isinstance(one, LikeNoClass) for one in closed.result.warnings)
