"""Every warning on a real run that fails just so, trained in seconds, and silence on one that goes well."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from PIL import Image

from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.recipe import NAMED, recipe_from
from biwaa.training.run import adapt

BASE = recipe_from(
    {**NAMED["robust"], "backbone": "cnn", "weights": "none", "steps": 60, "rounds": 3, "scouts": 2, "batch_size": 16,
     "learning_rate": 0.01, "head_factor": 1.0, "input_dropout": 0.0, "image_size": 12, "resize": 12, "crops": 1,
     "augment": "none", "bottleneck": 16, "discriminator": 32, "source_held_out": 0.4, "log_every": 5},
    "test",
)  # fmt: skip
CLASSES = ("ash", "beech", "cedar", "date")


def domain(folder, name, counts, tint=0, noise=12, contrast=1.0, alike=False, seed=0):
    """Class folders of images with a bright quarter whose place is the class; `alike` leaves it out."""
    rng = np.random.default_rng([seed, len(name)])
    for number, (label, count) in enumerate(zip(CLASSES, counts, strict=True)):
        (folder / name / label).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((12, 12, 3), 90.0)
            top, left = 6 * (number // 2), 6 * (number % 2)
            if not alike:
                pixels[top : top + 6, left : left + 6] += 90
            pixels = (pixels - 128) * contrast + 128 + rng.normal(0, noise, pixels.shape)
            pixels += tint * np.array([1, -1, 1])
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / label / f"{index}.png")
    return open_domain(str(folder / name))


def warned(tmp_path, source, target, **settings):
    run = adapt(source, Domain(target.spec, target.images), dataclasses.replace(BASE, **settings), tmp_path / "run")
    return run.result["warnings"]


@pytest.fixture
def make(tmp_path):
    return partial(domain, tmp_path)


def test_a_run_that_goes_well_says_nothing(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, tint=15)
    assert warned(tmp_path, source, target, choice="last") == []


def test_target_collapses(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, alike=True)
    assert any("collapsed" in text for text in warned(tmp_path, source, target, choice="last"))


def test_source_is_forgotten(tmp_path, make):
    """The taught round learns, twenty times as hard, what the scouts took of a target that is noise."""
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=90, contrast=0.1)
    said = warned(tmp_path, source, target, choice="last", pseudo_label=20.0, confusion=20.0)
    assert any("Adapting destroyed" in text for text in said)


def test_rounds_agree_by_chance(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=90, contrast=0.1)
    said = warned(tmp_path, source, target, choice="last", iterate=False, learning_rate=1e-6, confusion=0.0)
    assert any("little more than" in text for text in said)


def test_discriminator_finds_the_domains_apart_to_the_end(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, alike=True)
    settings = {"adversarial": 1.0, "adversarial_horizon": 1e9, "weighting": False, "confusion": 0.0}
    said = warned(tmp_path, source, target, choice="last", rounds=1, dropout=0.0, head_factor=10.0, **settings)
    assert any("tells the domains apart to the end" in text for text in said)


def test_discriminator_guesses_from_first_to_last(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4)
    said = warned(tmp_path, source, target, choice="last", adversarial=1.0, adversarial_horizon=1e9)
    assert any("never told the domains apart" in text for text in said)


def test_label_distribution_moved(tmp_path, make):
    source, target = make("source", [120, 60, 50, 50]), make("target", [15, 25, 30, 90])
    said = warned(tmp_path, source, target, choice="last")
    assert len(said) == 1
    assert "label distribution is estimated" in said[0]


def test_source_only_is_kept(tmp_path, make):
    """Both are right about all held-out images of the source: of equals the simpler one wins."""
    source, target = make("source", [70] * 4), make("target", [40] * 4)
    said = warned(tmp_path, source, target, choice="source_accuracy")
    assert len(said) == 1
    assert "judged no better than source-only" in said[0]


def test_a_class_got_no_pseudo_label(tmp_path, make):
    """After three steps a round predicts few classes, and the next, from another start, others."""
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=60, contrast=0.3)
    found = []
    for seed in range(3):
        settings = {"steps": 2, "rounds": 2, "scouts": 1, "choice": "last", "seed": seed, "teacher": False}
        found += warned(tmp_path / str(seed), source, target, learning_rate=1e-4, **settings)
    assert any("got no pseudo-label" in text for text in found)


def test_target_is_far_from_every_class(tmp_path, make):
    source, target = make("source", [70] * 4, noise=3), make("target", [40] * 4, tint=120, contrast=-2.0)
    assert any("farther from every class" in text for text in warned(tmp_path, source, target, choice="last"))


def test_estimates_are_low_or_contradict(tmp_path, make):
    source, target = make("source", [70] * 4), make("target", [40] * 4, noise=70, contrast=0.3)
    said = warned(tmp_path, source, target, choice="last", iterate=False, confusion=0.0, pseudo_label=0.0)
    assert any("stimate" in text and "accuracy" in text for text in said)


def test_few_images_are_held_out(tmp_path, make):
    source, target = make("source", [30] * 4), make("target", [40] * 4)
    said = warned(tmp_path, source, target, choice="last")
    assert len(said) == 1
    assert "Only 48 source images are held out" in said[0]
