"""Every warning speaks when its facts are bad and is silent when they are good or missing."""

import dataclasses
import re

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from biwaa.judging.label_shift import chance_agreement
from biwaa.judging.warnings import CHECKS, Signs, far_share, warnings
from biwaa.methods import METHODS
from biwaa.methods.dann import domain_accuracy
from biwaa.recipe import Recipe

EVEN = np.full(4, 0.25)
TINTED = np.array([0.3, 0.2, 0.3, 0.2])
HEALTHY = Signs(
    classes=("cat", "dog", "eel", "fox"),
    targets=400,
    chosen="round 1",
    baseline="source-only",
    predicted_shares=TINTED,
    baseline_shares=EVEN,
    source_shares=EVEN,
    estimated_shares=TINTED,
    round_agreement=0.9,
    round_chance=0.25,
    discriminator_first=0.8,
    discriminator_last=0.55,
    source_accuracy=0.94,
    baseline_source_accuracy=0.96,
    held_out_source=200,
    pseudo_labels=np.array([120, 80, 120, 80]),
    far_share=0.1,
    estimates={"average confidence": 0.85, "agreement of rounds": 0.9},
)
ONE_CLASS = np.array([0.0, 1.0, 0.0, 0.0])


def changed(**facts):
    return dataclasses.replace(HEALTHY, **facts)


def only(**facts):
    (said,) = warnings(changed(**facts))
    return said


def test_healthy_facts_and_missing_facts_give_no_warning():
    assert warnings(HEALTHY) == []
    assert warnings(Signs(("cat", "dog"), 100, "round 0")) == []


def test_collapse_is_told_against_source_only_or_the_source():
    few = np.array([0.93, 0.05, 0.01, 0.01])
    said = only(predicted_shares=few)
    assert "1.4 classes of equal size where source-only predicts 4.0" in said
    assert said.count("equal size") == said.count("93.0 % of the images are called cat") == 1
    assert "--alignment 0" in said
    assert "where the source has 4.0" in only(predicted_shares=few, baseline_shares=None)
    # Both alike, and both far from the source: the comparison with source-only alone would miss it.
    assert "where the source has 4.0" in only(predicted_shares=few, baseline_shares=few)
    assert "stronger --backbone" in warnings(changed(predicted_shares=few, chosen="source-only"))[0]
    # A target that is in truth of few classes, as the source is.
    assert warnings(changed(predicted_shares=few, baseline_shares=few, source_shares=few, estimated_shares=few)) == []


def test_one_class_that_takes_most_is_told_though_diversity_is_left():
    two = Signs(("cat", "dog"), 400, "round 1", predicted_shares=np.array([0.88, 0.12]), source_shares=np.full(2, 0.5))
    (said,) = warnings(two)
    assert "88.0 % of the images are called cat" in said
    assert "equal size" not in said
    assert warnings(dataclasses.replace(two, predicted_shares=np.array([0.75, 0.25]))) == []


def test_classes_never_predicted():
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    assert "1 of 4 classes are never predicted on the target (fox)" in only(predicted_shares=shares)
    # Of 12 images three are expected to be foxes: that none is may be chance.
    assert warnings(changed(predicted_shares=shares, targets=12)) == []
    rare = np.array([0.4, 0.3, 0.295, 0.005])
    assert warnings(changed(predicted_shares=shares, source_shares=rare, estimated_shares=rare)) == []


def test_few_images_cannot_be_of_many_classes():
    """100 images evenly drawn from 345 classes miss most of these, and that is no collapse."""
    rng = np.random.default_rng(0)
    shares = np.bincount(rng.integers(345, size=100), minlength=345) / 100
    names = tuple(f"class {k}" for k in range(345))
    signs = Signs(names, 100, "round 1", predicted_shares=shares, source_shares=np.full(345, 1 / 345))
    assert warnings(signs) == []
    assert warnings(dataclasses.replace(signs, estimated_shares=shares)) == []


def test_rounds_at_chance():
    assert "agree on 30.0 % of the target images" in only(round_agreement=0.3)
    assert warnings(changed(round_agreement=0.45)) == []
    # Both predict one class: they agree by chance, and the collapse is what is told.
    shares = {"predicted_shares": ONE_CLASS, "round_agreement": 1.0, "round_chance": chance_agreement(*[ONE_CLASS] * 2)}
    assert "3 of 4 classes are never predicted on the target (cat, eel, fox)" in only(**shares)


def test_discriminator():
    said = only(discriminator_last=0.998)
    assert "balanced accuracy 99.8 %" in said
    assert "--adversarial-horizon" in said
    assert "never told the domains apart" in only(discriminator_first=0.51, discriminator_last=0.49)
    assert (
        warnings(changed(discriminator_first=0.97, discriminator_last=0.5)) == []
    )  # fooled in the end, as it should be
    assert warnings(changed(discriminator_first=None, discriminator_last=0.5)) == []


def test_source_forgotten():
    said = only(source_accuracy=0.6)
    assert "60.0 % of held-out source images are right, 96.0 % with source-only" in said
    # The same loss on few images may be chance.
    facts = {"source_accuracy": 0.85, "baseline_source_accuracy": 0.95}
    assert warnings(changed(**facts, held_out_source=2000))
    assert not any("destroyed" in said for said in warnings(changed(**facts, held_out_source=20)))
    assert not any("destroyed" in said for said in warnings(changed(source_accuracy=0.6, chosen="source-only")))


def test_label_distribution_far_from_the_sources():
    moved = np.array([0.7, 0.1, 0.1, 0.1])
    said = only(estimated_shares=moved)
    assert "45.0 % from the source's (total variation)" in said
    assert "accuracy over classes" in said
    # On 10 images as much is expected of chance.
    assert warnings(changed(estimated_shares=np.array([0.5, 0.2, 0.2, 0.1]), targets=10)) == []


def test_source_only_is_handed_out():
    said = only(chosen="source-only")
    assert "no better than source-only" in said
    # A run of the method source_only has no other leg, and nothing was judged.
    assert warnings(changed(chosen="round 0", baseline=None)) == []


def test_classes_without_pseudo_labels():
    counts = np.array([200, 0, 150, 50])
    assert "1 of 4 classes got no pseudo-label (dog)" in only(pseudo_labels=counts)
    # What is never predicted is told once.
    (said,) = warnings(changed(pseudo_labels=counts, predicted_shares=np.array([0.4, 0.0, 0.4, 0.2])))
    assert "never predicted" in said


def test_far_target_images():
    assert "80.0 % of the target images are farther" in only(far_share=0.8)


def test_estimates_that_are_low_or_contradict():
    assert "Only about 40.0 %" in only(estimates={"a": 0.35, "b": 0.4, "c": 0.45})
    said = only(estimates={"a": 0.9, "b": 0.5, "c": 0.85})
    assert "from 50.0 % (b) to 90.0 % (a)" in said
    assert warnings(changed(estimates={})) == []


def test_few_held_out_images():
    assert "Only 40 source images are held out, fewer than the 100" in only(held_out_source=40)
    many = Signs(tuple("abcdefghijklmnopqrstuvwxyz"), 400, "round 1", held_out_source=120)
    assert "fewer than the 130" in warnings(many)[0]


@pytest.mark.parametrize("method", METHODS)
def test_advice_is_real_and_not_what_the_run_does_already(method):
    """All at once: one or two sentences each, and no flag that `biwaa train` lacks."""
    facts = {
        "predicted_shares": ONE_CLASS, "source_accuracy": 0.2, "round_agreement": 0.2, "discriminator_last": 1.0,
        "estimates": {"a": 0.1}, "far_share": 1.0, "estimated_shares": ONE_CLASS, "held_out_source": 60,
        "pseudo_labels": np.array([0, 400, 0, 0]),
    }  # fmt: skip
    texts = warnings(changed(**facts, method=method))
    assert len(texts) == 8
    texts += warnings(changed(chosen="source-only", method=method))
    texts += warnings(changed(pseudo_labels=np.array([0, 400, 0, 0]), method=method))
    texts += warnings(changed(discriminator_first=0.5, discriminator_last=0.5, method=method))
    known = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Recipe)} | {"--held-out"}
    for text in texts:
        assert set(re.findall(r"--[a-z][a-z-]*", text)) <= known
        named = re.findall(r"--method (\w+)", text)
        assert set(named) <= set(METHODS)
        assert "discriminator" in text or method not in named
        assert 1 <= len(re.findall(r"[.](?: |$)", text)) <= 2
        assert re.search(r"\d", text) or "source-only model" in text
        assert text[0].isupper() or text[0].isdigit()
    assert len(CHECKS) == 10


shares = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any).map(lambda c: np.array(c) / sum(c))
unit = st.floats(0, 1)


@given(shares, shares, shares, shares, unit, unit, unit, unit, unit, unit, st.integers(0, 300), st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_no_facts_break_a_check(p, q, r, s, a, b, c, d, e, f, held, targets):
    signs = changed(
        predicted_shares=p, baseline_shares=q, source_shares=r, estimated_shares=s, round_agreement=a, round_chance=b,
        discriminator_first=c, discriminator_last=d, source_accuracy=e, baseline_source_accuracy=f, far_share=a,
        held_out_source=held, targets=targets, pseudo_labels=(targets * p).astype(np.int64), estimates={"x": c, "y": d},
    )  # fmt: skip
    assert all("nan" not in said for said in warnings(signs))


def test_domain_accuracy():
    source, target = torch.tensor([2.0, 1.0, -1.0, 3.0]), torch.tensor([-1.0, 1.0])
    assert domain_accuracy(source, target) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert domain_accuracy(torch.zeros(3), torch.zeros(5)) == 0.5  # a dead discriminator
    assert domain_accuracy(torch.ones(3), torch.ones(5)) == 0.5  # one that says the same of all


@given(st.integers(5, 30), st.integers(2, 30), st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_far_share(sources, held, targets, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    source, held_out, target = (torch.randn(n, 3, generator=generator) for n in (sources, held, targets))
    labels = torch.randint(classes, (sources,), generator=generator)

    def nearest(row):
        return min(float((row - source[labels == k].mean(dim=0)).norm()) for k in labels.unique().tolist())

    limit = np.quantile([nearest(row) for row in held_out], 0.99)
    expected = sum(nearest(row) > limit + 1e-5 for row in target) / targets
    assert far_share(source, labels.numpy(), held_out, target) == pytest.approx(expected)


def test_more_of_the_source_is_not_far_from_it_and_another_place_is():
    generator = torch.Generator().manual_seed(0)
    source, held_out, more = (torch.randn(3000, 8, generator=generator) for _ in range(3))
    labels = np.arange(3000) % 3
    assert far_share(source, labels, held_out, more) == pytest.approx(0.01, abs=0.01)
    assert far_share(source, labels, held_out, more + 10) == 1.0
