"""Each warning on a small real run with that failure, and no warning on one that goes well."""

from functools import partial

import numpy as np
import pytest
from conftest import train_pair
from PIL import Image

from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.recipe import NAMED, recipe_from
from biwaa.result.warnings import (
    Collapsed,
    DiscriminatorIdle,
    DiscriminatorSeparates,
    EstimateLow,
    EstimatesDisagree,
    FarFromSource,
    FewHeldOut,
    LabelShift,
    RoundsAtChance,
    SourceForgotten,
    SourceOnlySelected,
    SourceOnlyUnfinished,
    WithoutPseudoLabel,
)

BASE = recipe_from(
    {**NAMED["robust"], "backbone": "cnn", "weights": "none", "steps": 60, "rounds": 3, "scouts": 2, "batch_size": 16,
     "learning_rate": 0.01, "head_factor": 1.0, "input_dropout": 0.0, "image_size": 12, "resize": 12, "crops": 1,
     "augment": "none", "bottleneck": 16, "discriminator": 32, "source_held_out": 0.4, "log_every": 5},
    "test",
)  # fmt: skip
CLASSES = ("ash", "beech", "cedar", "date")


def domain(folder, name, counts, tint=0, noise=12, contrast=1.0, blank=False, seed=0):
    """Class folders of images with a bright quarter at the class's own place; without it if `blank`."""
    rng = np.random.default_rng([seed, len(name)])
    for number, (label, count) in enumerate(zip(CLASSES, counts, strict=True)):
        (folder / name / label).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((12, 12, 3), 90.0)
            top, left = 6 * (number // 2), 6 * (number % 2)
            if not blank:
                pixels[top : top + 6, left : left + 6] += 90
            pixels = (pixels - 128) * contrast + 128 + rng.normal(0, noise, pixels.shape)
            pixels += tint * np.array([1, -1, 1])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / label / f"{index}.png")
    return open_domain(str(folder / name))


def warned(tmp_path, source, target, **settings):
    """The warnings by their types."""
    unlabelled = Domain(target.spec, target.images)
    run = train_pair(source, unlabelled, BASE.replace(**settings), tmp_path / "run")
    return {type(warning): warning for warning in run.result.warnings}


@pytest.fixture
def make(tmp_path):
    return partial(domain, tmp_path)


def test_a_run_that_goes_well_warns_of_nothing(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, tint=15)
    assert warned(tmp_path, source, target, choice="last") == {}


def test_target_collapses(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, blank=True)
    assert Collapsed in warned(tmp_path, source, target, choice="last")


def test_source_is_forgotten(tmp_path, make):
    """The last round learns with twenty times the weight from the scouts' predictions of a target that is noise."""
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=90, contrast=0.1)
    found = warned(tmp_path, source, target, choice="last", pseudo_label=20.0, confusion=20.0)
    assert found[SourceForgotten].accuracy < found[SourceForgotten].source_only


def test_rounds_agree_by_chance(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=90, contrast=0.1)
    assert RoundsAtChance in warned(
        tmp_path, source, target, choice="last", iterate=False, learning_rate=1e-6, confusion=0.0
    )


def test_discriminator_finds_the_domains_apart_to_the_end(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, blank=True)
    settings = {"method": "dann", "adversarial_horizon": 1e9, "smooth_rounds": False}
    found = warned(tmp_path, source, target, choice="last", rounds=1, dropout=0.0, head_factor=10.0, **settings)
    assert DiscriminatorSeparates in found


def test_discriminator_guesses_from_first_to_last(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4)
    settings = {"method": "dann", "adversarial_horizon": 1e9, "smooth_rounds": False}
    assert DiscriminatorIdle in warned(tmp_path, source, target, choice="last", **settings)


def test_label_distribution_moved(tmp_path, make):
    source, target = make("source", [120, 60, 50, 50]), make("target", [15, 25, 30, 90])
    assert [*warned(tmp_path, source, target, choice="last")] == [LabelShift]


def test_source_only_is_selected(tmp_path, make):
    """All stages are right about all held-out images of the source: of equals the simplest is selected."""
    source, target = make("source", [70] * 4), make("target", [40] * 4)
    assert [*warned(tmp_path, source, target, choice="source_accuracy")] == [SourceOnlySelected]


def test_source_only_was_still_learning(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4)
    found = warned(tmp_path, source, target, choice="last", steps=10)[SourceOnlyUnfinished]
    assert found.before > found.last + 0.05


def test_a_class_got_no_pseudo_label(tmp_path, make):
    """After three steps a round predicts few classes, and the next, from another start, others."""
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=60, contrast=0.3)
    found = set()
    for seed in range(3):
        settings = {"steps": 2, "rounds": 2, "scouts": 1, "choice": "last", "seed": seed, "smooth_rounds": False}
        found |= {*warned(tmp_path / str(seed), source, target, learning_rate=1e-4, **settings)}
    assert WithoutPseudoLabel in found


def test_target_is_far_from_every_class(tmp_path, make):
    source, target = make("source", [70] * 4, noise=3), make("target", [40] * 4, tint=120, contrast=-2.0)
    assert FarFromSource in warned(tmp_path, source, target, choice="last")


def test_estimates_are_low_or_contradict(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=70, contrast=0.3)
    found = warned(tmp_path, source, target, choice="last", iterate=False, confusion=0.0, pseudo_label=0.0)
    assert {EstimateLow, EstimatesDisagree} & found.keys()


def test_few_images_are_held_out(tmp_path, make):
    source, target = make("source", [30] * 4), make("target", [40] * 4)
    found = warned(tmp_path, source, target, choice="last")
    assert found == {FewHeldOut: FewHeldOut(images=48, wanted=100)}
