"""Calibration and estimates of accuracy against slow loops and cases whose answer is known."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from biwaa.functional import with_temperature
from biwaa.judging.calibration import (
    TEMPERATURES,
    average_thresholded_confidence,
    difference_of_confidences,
    expected_calibration_error,
    fit_temperature,
    held_out_temperature,
    matched_temperature,
    mean_agreement,
)
from biwaa.judging.evidence import Evidence
from biwaa.judging.metrics import mean_confidence, neighbour_agreement

quick = settings(max_examples=25, deadline=None)
shapes = given(st.integers(1, 40), st.integers(2, 5), st.integers(0, 2**31))


def drawn(seed, images, classes, sharpness=2.0):
    """Predictions, and labels that are drawn evenly."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), torch.randint(classes, (images,), generator=generator).numpy()


def labelled(p, seed=0):
    """Labels drawn from the predictions themselves: these are calibrated."""
    return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))[:, 0].numpy()


def two_classes(*confidences):
    return torch.tensor([[c, 1 - c] for c in confidences], dtype=torch.float64)


@given(st.integers(1, 60), st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**31))
@quick
def test_expected_calibration_error(images, classes, bins, seed):
    p, labels = drawn(seed, images, classes)
    expected = 0.0
    for m in range(1, bins + 1):
        inside = [i for i in range(images) if (m - 1) / bins < float(p[i].max()) <= m / bins]
        if inside:
            accuracy = sum(int(p[i].argmax()) == labels[i] for i in inside) / len(inside)
            confidence = sum(float(p[i].max()) for i in inside) / len(inside)
            expected += len(inside) / images * abs(accuracy - confidence)
    assert expected_calibration_error(p, labels, bins) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_of_known_predictions():
    """Certain and right: none. Certain and wrong: all. A confidence on a border belongs to the bin below it."""
    certain = two_classes(1.0, 1.0)
    assert expected_calibration_error(certain, np.array([0, 0])) == 0.0
    assert expected_calibration_error(certain, np.array([1, 1])) == 1.0
    # 0.7 (right) and 0.8 (wrong) share the bin (0.6, 0.8], where their gaps of opposite sign are added up first.
    assert expected_calibration_error(two_classes(0.7, 0.8), np.array([0, 1]), bins=5) == pytest.approx(0.25)


@given(st.floats(0.2, 5.0), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_temperature_that_spoiled_calibration_is_found(spoil, seed):
    p, _ = drawn(seed, 4000, 4, sharpness=1.5)
    assert fit_temperature(with_temperature(p, 1 / spoil), labelled(p, seed)) == pytest.approx(spoil, rel=0.15)


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 2**31))
@quick
def test_no_temperature_on_a_grid_is_better(images, classes, seed):
    p, labels = drawn(seed, images, classes)

    def loss(temperature):
        total = 0.0
        for i, row in enumerate(p.tolist()):
            powers = [v ** (1 / temperature) for v in row]
            total -= math.log(powers[labels[i]] / sum(powers))
        return total

    found = fit_temperature(p, labels)
    assert TEMPERATURES[0] <= found <= TEMPERATURES[1]
    grid = np.geomspace(
        1.01 * TEMPERATURES[0], TEMPERATURES[1] / 1.01, 40
    )  # the search nears a bound, it never reaches it
    assert loss(found) <= min(loss(t) for t in grid) + 1e-6 * images


def test_temperatures_without_a_minimum_end_at_a_bound_or_at_one():
    low, high = TEMPERATURES
    right, wrong = np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64)
    assert fit_temperature(two_classes(0.9, 0.8, 0.7), right) == pytest.approx(low, rel=1e-3)
    assert fit_temperature(two_classes(0.9, 0.8, 0.7), wrong) == pytest.approx(high, rel=1e-3)
    assert fit_temperature(two_classes(0.5, 0.5, 0.5), wrong) == 1.0
    assert fit_temperature(two_classes(), right[:0]) == 1.0
    # Exact zeros, as a softmax in float32 gives them.
    assert fit_temperature(two_classes(1.0, 1.0, 1.0).float(), wrong) == pytest.approx(high, rel=1e-3)
    assert fit_temperature(two_classes(1.0, 1.0, 1.0).float(), right) == 1.0


@given(st.integers(1, 30), st.integers(2, 6), st.floats(0.4, 0.99), st.integers(0, 2**31))
@quick
def test_a_matched_temperature_gives_the_mean_confidence_that_was_asked_for(images, classes, accuracy, seed):
    p, _ = drawn(seed, images, classes)
    found = matched_temperature(p, accuracy)
    mean, accuracy = mean_confidence(with_temperature(p, found)), min(accuracy, (images + 1) / (images + 2))
    if found == TEMPERATURES[0]:
        assert mean <= accuracy
    elif found == TEMPERATURES[1]:
        assert mean >= accuracy
    else:
        assert mean == pytest.approx(accuracy, abs=1e-3)


def test_where_no_temperature_matches_the_nearer_end_is_taken():
    even, sure = torch.full((3, 4), 0.25), torch.tensor([[1.0, 0.0]] * 3)
    assert matched_temperature(even, 0.9) == TEMPERATURES[0]
    assert matched_temperature(even, 0.1) == TEMPERATURES[1]
    assert mean_confidence(with_temperature(sure, matched_temperature(sure, 1.0))) == pytest.approx(4 / 5, abs=1e-3)
    assert mean_confidence(with_temperature(sure, matched_temperature(sure, 0.75))) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("images", [1, 9, 200])
def test_without_a_wrong_image_confidences_stay_below_one(images):
    """A handful of images that are all right say little: confidences end near the rule of succession."""
    p = two_classes(*np.linspace(0.9, 0.999, images))
    right = Evidence(p, source_probabilities=p, source_labels=torch.zeros(images, dtype=torch.int64))
    confident = with_temperature(p, held_out_temperature(right))
    assert mean_confidence(confident) == pytest.approx((images + 1) / (images + 2), abs=0.03)
    wrong = right.source_labels.clone()
    wrong[0] = 1
    some = Evidence(p, source_probabilities=p, source_labels=wrong)
    assert held_out_temperature(some) == fit_temperature(p, wrong.numpy())
    assert held_out_temperature(Evidence(p)) == 1


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 2**31), st.floats(0.1, 10))
@quick
def test_with_temperature(images, classes, seed, temperature):
    p, _ = drawn(seed, images, classes)
    p[0, 0] = 0.0
    p = (p / p.sum(dim=1, keepdim=True)).float()
    scaled = with_temperature(p, temperature)
    powers = p.double() ** (1 / temperature)
    torch.testing.assert_close(scaled.double(), powers / powers.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-3)
    assert scaled.dtype == p.dtype
    torch.testing.assert_close(scaled.argmax(dim=1), p.argmax(dim=1))
    torch.testing.assert_close(with_temperature(p, 1.0), p)


def test_confidences():
    source, target = two_classes(0.9, 0.9, 0.9, 0.9), two_classes(0.9, 0.6)
    labels = np.array([0, 0, 0, 1])
    assert mean_confidence(target) == pytest.approx(0.75)
    assert difference_of_confidences(source, labels, target) == pytest.approx(0.75 - (0.9 - 0.75))
    assert difference_of_confidences(source, 1 - labels, two_classes(0.5)) == 0.0  # not below


@pytest.mark.parametrize("score", ["confidence", "entropy"])
@given(st.integers(1, 30), st.integers(1, 30), st.integers(2, 5), st.integers(0, 2**31))
@quick
def test_average_thresholded_confidence(score, sources, targets, classes, seed):
    p, labels = drawn(seed, sources, classes)
    q, _ = drawn(seed + 1, targets, classes)

    def scored(row):
        return max(row) if score == "confidence" else sum(v * math.log(v) for v in row)

    errors = sum(int(row.argmax()) != label for row, label in zip(p, labels, strict=True))
    here = [scored(row) for row in p.tolist()]
    # The highest of the source's own scores below which no more images lie than are wrong.
    allowed = [t for t in here if sum(v < t for v in here) <= errors] if errors < sources else [math.inf]
    expected = sum(scored(row) >= max(allowed) for row in q.tolist()) / targets
    assert average_thresholded_confidence(p, labels, q, score) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("score", ["confidence", "entropy"])
def test_thresholded_confidence_gives_the_source_its_own_accuracy(score):
    p, labels = drawn(5, 200, 4)
    accuracy = float((p.argmax(dim=1).numpy() == labels).mean())
    assert average_thresholded_confidence(p, labels, p, score) == pytest.approx(accuracy)


@shapes
@quick
def test_estimates_are_shares_and_exact_for_certain_and_right_predictions(images, classes, seed):
    p, labels = drawn(seed, images, classes)
    q, _ = drawn(seed + 1, images, classes)
    certain = torch.eye(classes)[torch.from_numpy(labels)]
    for source, target in itertools.product((p, certain), (p, q, certain)):
        found = [
            mean_confidence(target),
            difference_of_confidences(source, labels, target),
            average_thresholded_confidence(source, labels, target, "confidence"),
            average_thresholded_confidence(source, labels, target, "entropy"),
            mean_agreement([source, target]),
        ]
        assert all(0 <= value <= 1 for value in found)
        if source is target is certain:
            assert found == [1.0] * 5


@given(st.integers(2, 4), st.integers(1, 20), st.integers(2, 4), st.integers(0, 2**31))
@quick
def test_mean_agreement(count, images, classes, seed):
    rounds = [drawn(seed + n, images, classes)[0] for n in range(count)]
    same = [
        sum(int(a[i].argmax()) == int(b[i].argmax()) for i in range(images)) / images
        for n, a in enumerate(rounds)
        for b in rounds[n + 1 :]
    ]
    assert mean_agreement(rounds) == pytest.approx(sum(same) / len(same))


def test_agreement_is_the_accuracy_of_calibrated_rounds():
    """Rounds that draw each image's class from its true posterior: they agree as often as they are right."""
    p, _ = drawn(2, 20000, 4)
    truth = labelled(p, 9)
    rounds = [torch.eye(4)[torch.from_numpy(labelled(p, seed))] for seed in range(3)]
    accuracy = float((rounds[0].argmax(dim=1).numpy() == truth).mean())
    assert mean_agreement(rounds) == pytest.approx(accuracy, abs=0.015)
    with pytest.raises(ValueError, match="two predictions"):
        mean_agreement(rounds[:1])


@given(st.integers(2, 20), st.integers(1, 4), st.integers(1, 6), st.integers(1, 60), st.integers(0, 2**31))
@quick
def test_neighbour_agreement(images, width, k, block, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(images, width + 1, generator=generator)
    predicted = torch.randint(3, (images,), generator=generator)
    shares = []
    for i in range(images):
        others = [j for j in range(images) if j != i]
        cosine = torch.nn.functional.cosine_similarity(features[i : i + 1], features)
        nearest = sorted(others, key=lambda j: -float(cosine[j]))[:k]
        shares += [float(predicted[j] == predicted[i]) for j in nearest]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("biwaa.functional.neighbours.BLOCK", block)
        assert neighbour_agreement(features, predicted, k) == pytest.approx(sum(shares) / len(shares))


def test_neighbours_of_clusters_agree():
    predicted = torch.arange(300) % 3
    features = 10 * torch.eye(8)[predicted] + torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    assert neighbour_agreement(features, predicted) == 1.0
    shuffled = predicted[torch.randperm(300, generator=torch.Generator().manual_seed(1))]
    assert neighbour_agreement(features, shuffled) == pytest.approx(1 / 3, abs=0.06)
    with pytest.raises(ValueError, match="two images"):
        neighbour_agreement(features[:1], predicted[:1])
