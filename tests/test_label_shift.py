"""Estimates of the target's label distribution on shifts made on purpose, and what must hold of any."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from biwaa.judging.label_shift import (
    bbse,
    chance_agreement,
    effective_classes,
    joint_confusion,
    predicted_shares,
    sampling_scatter,
    total_variation,
)

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)


def distribution(rng, classes, empty=True):
    shares = rng.dirichlet(np.ones(classes))
    if empty and classes > 2:
        shares[rng.integers(classes)] = 0.0
    return shares / shares.sum()


def predictions(rng, images, classes):
    return torch.from_numpy(rng.dirichlet(np.full(classes, 0.5), images))


class Mixture:
    """Normal clusters on the corners of a simplex, with the posterior of any prior known exactly."""

    def __init__(self, classes, width, prior):
        self.centres = width * np.eye(classes)
        self.prior = prior

    def draw(self, shares, images, seed):
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(shares), images, p=shares)
        points = self.centres[labels] + rng.normal(size=(images, len(shares)))
        logs = -((points[:, None] - self.centres) ** 2).sum(axis=2) / 2 + np.log(self.prior)
        return torch.from_numpy(logs).softmax(dim=1), labels


@given(st.integers(1, 20), st.integers(2, 5), st.booleans(), seeds)
@quick
def test_joint_confusion_and_predicted_shares(images, classes, soft, seed):
    rng = np.random.default_rng(seed)
    p, labels = predictions(rng, images, classes), rng.integers(classes, size=images)
    expected = np.zeros((classes, classes))
    for row, label in zip(p.tolist(), labels, strict=True):
        for i in range(classes):
            expected[i, label] += (row[i] if soft else float(row[i] == max(row))) / images
    found = joint_confusion(p, labels, soft)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), np.bincount(labels, minlength=classes) / images, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), predicted_shares(p, soft), atol=1e-12)


@given(st.integers(2, 8), seeds)
@quick
def test_perfect_predictions_give_the_true_shares(classes, seed):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=20)])
    truth = rng.choice(classes, 50, p=distribution(rng, classes))
    source, target = torch.eye(classes)[labels], torch.eye(classes)[truth]
    shares = np.bincount(truth, minlength=classes) / 50
    for soft in (False, True):
        found = bbse(joint_confusion(source, labels, soft), predicted_shares(target, soft))
        np.testing.assert_allclose(found, shares, atol=1e-3)


@given(st.integers(2, 6), st.booleans(), seeds)
@quick
def test_without_a_shift_the_source_comes_back(classes, soft, seed):
    rng = np.random.default_rng(seed)
    p, labels = predictions(rng, 60, classes), rng.integers(classes, size=60)
    source = np.bincount(labels, minlength=classes) / 60
    np.testing.assert_allclose(bbse(joint_confusion(p, labels, soft), predicted_shares(p, soft)), source, atol=1e-6)


@given(st.integers(2, 6), seeds)
@quick
def test_bbse_inverts_a_matrix_that_can_be_inverted(classes, seed):
    rng = np.random.default_rng(seed)
    given_class = 0.6 * np.eye(classes) + 0.4 * rng.dirichlet(np.ones(classes), classes).T
    source, target = distribution(rng, classes, empty=False), distribution(rng, classes)
    found = bbse(given_class * source, given_class @ target)
    np.testing.assert_allclose(found, target, atol=2e-3)
    weights = np.linalg.solve(given_class * source, given_class @ target)  # the paper's w = C^-1 predicted
    np.testing.assert_allclose(found, weights * source, atol=2e-3)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_shift_is_found(soft, seed):
    """Half of the way to the truth would be a failure; it comes within a fifth of it."""
    source, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.05, 0.1, 0.25, 0.6])
    mixture = Mixture(4, 2.0, source)
    p, labels = mixture.draw(source, 1500, seed)
    q, _ = mixture.draw(target, 1500, seed + 100)
    apart = total_variation(source, target)
    assert apart == pytest.approx(0.55)
    box = bbse(joint_confusion(p, labels, soft), predicted_shares(q, soft))
    assert total_variation(box, target) < apart / 5


def test_what_the_confusion_matrix_cannot_tell_stays_as_in_the_source():
    """Classes 1 and 2 are always predicted as 1: only their sum is known, and it is split as the source has it."""
    given_class = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    source = np.array([0.4, 0.3, 0.3])
    found = bbse(given_class * source, np.array([0.2, 0.8, 0.0]))
    np.testing.assert_allclose(found, [0.2, 0.4, 0.4], atol=1e-3)
    # A class without held-out images is taken at its word.
    unseen = np.diag([0.5, 0.5, 0.0])
    np.testing.assert_allclose(bbse(unseen, np.array([0.2, 0.3, 0.5])), [0.2, 0.3, 0.5], atol=1e-3)
    constant = np.outer([0.0, 1.0, 0.0], source)  # one class predicted for all: nothing is known
    np.testing.assert_allclose(bbse(constant, np.array([0.0, 1.0, 0.0])), source, atol=1e-6)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 12), st.booleans(), seeds)
@quick
def test_always_a_distribution(classes, sources, targets, soft, seed):
    """Empty classes, singular confusions, certain and wrong predictions."""
    rng = np.random.default_rng(seed)
    p, q = predictions(rng, sources, classes), predictions(rng, targets, classes)
    if soft:
        q = torch.eye(classes, dtype=torch.float64)[q.argmax(dim=1)]
    labels = rng.integers(classes, size=sources)
    found = bbse(joint_confusion(p, labels, soft), predicted_shares(q, soft))
    assert found.shape == (classes,)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0)
    assert predicted_shares(q.float(), soft=True).sum() == pytest.approx(1.0, abs=1e-12)


@given(st.integers(1, 9), seeds)
@quick
def test_effective_classes(classes, seed):
    shares = distribution(np.random.default_rng(seed), classes)
    assert 1 - 1e-9 <= effective_classes(shares) <= classes + 1e-9
    assert effective_classes(np.full(classes, 1 / classes)) == pytest.approx(classes)
    assert effective_classes(np.array([0.5, 0.0, 0.5])) == pytest.approx(2.0)
    assert effective_classes(np.array([0.0, 1.0])) == 1.0


def test_chance_agreement_and_sampling_scatter_are_what_draws_show():
    rng = np.random.default_rng(0)
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.2, 0.6])
    a, b = rng.choice(3, 20000, p=p), rng.choice(3, 20000, p=q)
    assert chance_agreement(p, q) == pytest.approx((a == b).mean(), abs=0.01)
    apart = [total_variation(rng.multinomial(200, p) / 200, p) for _ in range(2000)]
    assert sampling_scatter(p, 200) == pytest.approx(np.mean(apart), rel=0.05)
