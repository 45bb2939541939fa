"""The estimate of solved heads: its second opinion, how readings become one estimate, and a whole run."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from test_solvers import shifted

import biwaa
from biwaa.functional import class_confusion
from biwaa.judging import second_opinion as judging
from biwaa.judging.estimate import COMBINED, WHOLE, combined
from biwaa.judging.second_opinion import (
    agreement_of_backbones,
    agreement_of_halves,
    expected_accuracy,
    found_apart,
    second_opinion,
)
from biwaa.solvers.logistic import STRENGTH, fit_confusion, fit_logistic
from biwaa.solvers.metric import balanced_weights, one_hot
from biwaa.solvers.prototypes import follow_prototypes


def domains(**kind):
    source, labels, target = (torch.from_numpy(part) for part in shifted(**kind))
    return *(part - part.mean(0) for part in (source / 6, target / 6)), labels


def value(head, source, labels, target, factor):
    """The objective from its formula, in float64."""
    source, target, weight, bias = (part.double() for part in (source, target, *head))
    share = balanced_weights(labels, len(bias)).double() / len(labels)
    loss = (share * F.cross_entropy(source @ weight.T + bias, labels, reduction="none")).sum()
    penalty = weight.square().sum() / (2 * STRENGTH * len(source))
    return float(loss + penalty + factor * class_confusion(target @ weight.T + bias))


def test_no_small_step_improves_on_the_least_confusion():
    source, target, labels = domains(noise=2.0)
    head = fit_confusion(source, labels, balanced_weights(labels, 5), target, 5, factor=3.0)
    found = value(head, source, labels, target, 3.0)
    rng = torch.Generator().manual_seed(0)
    for size in (1e-1, 3e-2):
        for _ in range(20):
            moved = tuple(part + size * torch.randn(part.shape, generator=rng) for part in head)
            assert value(moved, source, labels, target, 3.0) > found - 1e-6
    start = fit_logistic(source, one_hot(labels, 5), balanced_weights(labels, 5))
    assert found < value(start, source, labels, target, 3.0) - 1e-3


def test_without_confusion_it_is_logistic_regression():
    source, target, labels = domains(noise=2.0)
    weights = balanced_weights(labels, 5)
    plain = fit_logistic(source, one_hot(labels, 5), weights)
    found = fit_confusion(source, labels, weights, target, 5, factor=0.0)
    assert value(found, source, labels, target, 0.0) == pytest.approx(
        value(plain, source, labels, target, 0.0), abs=1e-5
    )


def test_a_second_opinion_is_mostly_right_and_halves_agree_where_classes_stand_apart():
    source, labels, target = (torch.from_numpy(part) for part in shifted(rows=600))
    source, target = ((part - part.mean(0)) / part.std(0) for part in (source, target))
    found = second_opinion(source, labels, target, 5)
    assert float((found.predicted == labels).float().mean()) > 0.9
    assert found.of_halves > 0.9
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    assert agreement_of_halves(source, labels, noise, 5) < 0.6


def test_halves_share_no_source_row(monkeypatch):
    """Rows, one feature of each of which is its number, are seen by one half alone; a class of one row by both."""
    seen = []
    monkeypatch.setattr(
        judging, "follow_prototypes", lambda source, labels, target, classes: seen.append(source) or target[:, :classes]
    )
    labels = torch.tensor([0, 1] * 10 + [2])
    source = torch.arange(21.0)[:, None].repeat(1, 8)
    agreement_of_halves(source, labels, torch.rand(6, 8), 3)
    first, second = (set(part[:, 0].tolist()) for part in seen)
    assert first & second == {20.0}
    assert first | second == set(source[:, 0].tolist())
    assert [part.shape[1] for part in seen] == [6, 6]


def test_each_backbone_is_asked_by_itself():
    """As by a loop over backbones; what the others see changes nothing, and one backbone is not asked."""
    source, target, labels = domains(noise=2.0)
    widths = [5, source.shape[1] - 9, 4]
    found = found_apart(source, labels, target, 5, widths)
    begin = 0
    for row, width in zip(found, widths, strict=True):
        own = slice(begin, begin + width)
        expected = follow_prototypes(source[:, own].clone(), labels, target[:, own].clone(), 5).argmax(dim=1)
        assert torch.equal(row, expected)
        begin += width
    other = target.clone()
    other[:, 5:] = other[:, 5:].flip(0)
    changed = found_apart(source, labels, other, 5, widths)
    assert torch.equal(changed[0], found[0])
    assert not torch.equal(changed[1], found[1])
    assert second_opinion(source, labels, target, 5, [source.shape[1]]).by_backbone is None
    assert torch.equal(second_opinion(source, labels, target, 5, widths).by_backbone, found)


def test_agreement_of_backbones_is_that_of_a_loop_over_pairs():
    found = torch.randint(3, (4, 50), generator=torch.Generator().manual_seed(0))
    shares = []
    for one in range(4):
        for other in range(one + 1, 4):
            same = sum(int(found[one, image]) == int(found[other, image]) for image in range(50))
            shares.append(same / 50)
    assert agreement_of_backbones(found) == pytest.approx(sum(shares) / 6)


def test_source_only_is_expected_to_be_as_good_as_it_is_and_worse_where_confidence_falls():
    """Left-out rows of the same place are right at 0.8 with confidence 0.8; another place is less sure."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    right = rng.random(4000) < 0.8
    said = np.where(right, labels, 1 - labels)
    left_out = torch.from_numpy(np.where(said[:, None] == np.arange(2), 0.8, 0.2)).float()
    assert expected_accuracy(left_out, labels, left_out) == pytest.approx(right.mean(), abs=0.01)
    unsure = torch.tensor([[0.6, 0.4]]).repeat(100, 1)
    assert expected_accuracy(left_out, labels, unsure) == pytest.approx(0.6, abs=0.03)


def pooled_by_hand(readings):
    """The formula of docs/robust.md, one reading at a time."""
    odds = [math.log(cut / (1 - cut)) for cut in (min(max(one, 0.02), 0.98) for one in readings)]
    return 1 / (1 + math.exp(0.2 - 1.1 * sum(odds) / len(odds)))


@given(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4))
def test_readings_are_pooled_by_their_log_odds(readings):
    found = combined(dict(zip(COMBINED, readings, strict=True)), images=1000, solved=True)
    assert found.value == pytest.approx(pooled_by_hand(readings), abs=1e-6)
    assert 0 <= found.low == found.lower_bound <= found.value <= found.high <= 1


def test_the_interval_widens_with_doubt():
    sure = combined(dict.fromkeys(COMBINED, 0.9), images=1000, solved=True)
    assert sure.low < 0.9 < sure.high < 1
    apart = combined(dict(zip(COMBINED, (0.8, 0.9, 0.9, 0.96), strict=True)), images=1000, solved=True)
    assert apart.high - apart.low > sure.high - sure.low
    few = combined(dict.fromkeys(COMBINED, 0.9), images=20, solved=True)
    assert few.low < sure.low
    left_out = combined(dict.fromkeys(COMBINED, 0.9), images=1000, solved=True, absent=True)
    assert left_out.value == sure.value
    assert left_out.low < sure.low
    assert left_out.high > sure.high
    missing = combined(dict(zip(COMBINED[:3], (0.5, 0.6, 0.7), strict=True)), images=1000, solved=True)
    assert missing.value == pytest.approx(pooled_by_hand([0.5, 0.6, 0.7]), abs=1e-6)
    assert (missing.low, missing.lower_bound) == (None, None)
    remembered = {"agreement_with_source_only": 0.5, "agreement_of_neighbours": 0.7}
    alone = combined(remembered, images=1000, solved=True)
    assert (alone.value, alone.low) == (pytest.approx(pooled_by_hand([0.5, 0.7]), abs=1e-6), None)
    assert combined({}, images=9, solved=True).value is None


def test_a_network_that_was_trained_whole_has_readings_of_its_own(tiny_run):
    """Their mean, if source-only is there to ask; else agreement among the model's own neighbours."""
    found = {**dict.fromkeys(WHOLE, 0.6), "agreement_of_neighbours": 0.9, "agreement_with_source_only": 0.2}
    assert combined(found, images=100, solved=False, whole=True).value == pytest.approx(0.7)
    assert combined(found, images=100, solved=False).value == pytest.approx(0.9)
    folder = tiny_run.parent
    for method in ("mcc", "source_only"):
        recipe = TINY.replace(method=method)
        result = biwaa.adapt(folder / "source", folder / "target", recipe=recipe, verbose=False).result
        readings = result.estimated_accuracy.readings
        names = WHOLE[:1] if method == "source_only" else WHOLE
        mean = np.mean([readings[name] for name in names])
        assert combined(readings, images=100, solved=False, whole=True).value == pytest.approx(mean, abs=1e-5)
        given = result.estimated_accuracy
        assert (given.value is None) if result.contradiction else given.value == pytest.approx(mean, abs=1e-5)
        assert given.low is None
    assert "agreement_with_source_only" not in readings
    assert readings["agreement_of_first_neighbours"] == readings["agreement_of_neighbours"]


def test_a_run_has_an_interval_that_holds_the_accuracy(tmp_path):
    source, labels, target = shifted(rows=600)
    run = biwaa.adapt((source, labels), (target, labels), freeze_backbone=True, batch_size=24, verbose=False)
    found = run.result
    estimate, accuracy = found.estimated_accuracy, found.accuracy.adapted.over_images
    assert set(COMBINED) <= set(estimate.readings)
    assert estimate.low <= accuracy <= estimate.high
    assert estimate.lower_bound <= accuracy
    # Confidences say the same on average.
    assert found.calibration.matched_to_estimate
    assert run.predictions.confidence.mean() == pytest.approx(estimate.value, abs=1e-3)
    assert run.classifier.predict_proba(target).max(axis=1).mean() == pytest.approx(estimate.value, abs=1e-3)
