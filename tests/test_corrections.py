"""Of benchmarks/corrections.py: an estimated prior, an output corrected for it, a weighted temperature."""

import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_calibration import drawn, labelled, two_classes
from test_label_shift import Mixture, distribution, predictions

from biwaa.functional import with_temperature
from biwaa.judging.calibration import fit_temperature
from biwaa.judging.importance import density_ratio
from biwaa.judging.label_shift import predicted_shares, total_variation

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from corrections import em_prior, prior_corrected, weighted_temperature

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


@given(st.integers(2, 8), seeds)
@quick
def test_the_true_and_the_consistent_prior_come_back(classes, seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, 50, p=distribution(rng, classes))
    even = np.full(classes, 1 / classes)
    np.testing.assert_allclose(em_prior(torch.eye(classes)[truth], even), np.bincount(truth, minlength=classes) / 50)
    p = predictions(rng, 60, classes)
    prior = predicted_shares(p, soft=True)  # the one with which these predictions are consistent
    np.testing.assert_allclose(em_prior(p, prior), prior, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_shift_is_found_and_corrected(seed):
    source, target = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.05, 0.1, 0.25, 0.6])
    q, truth = Mixture(4, 2.0, source).draw(target, 1500, seed + 100)
    found = em_prior(q, source)
    assert total_variation(found, target) < total_variation(source, target) / 5
    right = (q.argmax(dim=1).numpy() == truth).mean()
    assert (prior_corrected(q, source, found).argmax(dim=1).numpy() == truth).mean() > right


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 12), seeds)
@quick
def test_always_a_distribution(classes, sources, targets, seed):
    rng = np.random.default_rng(seed)
    q = torch.eye(classes)[rng.integers(classes, size=targets)]
    prior = np.bincount(rng.integers(classes, size=sources), minlength=classes) / sources
    found = em_prior(q, prior)
    assert found.shape == (classes,)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1.0)
    corrected = prior_corrected(q, prior, distribution(rng, classes))
    assert corrected.dtype == torch.float32
    assert corrected.isfinite().all()
    torch.testing.assert_close(corrected.sum(dim=1), torch.ones(targets))


@given(st.integers(2, 5), st.integers(1, 10), seeds)
@quick
def test_em_prior_against_a_loop(classes, images, seed):
    """Saerens et al.'s two alternating steps, image by image and class by class; the likelihood never falls."""
    rng = np.random.default_rng(seed)
    p, source = predictions(rng, images, classes).clamp(min=1e-6), distribution(rng, classes, empty=False)
    p /= p.sum(dim=1, keepdim=True)
    shares, before = source.copy(), -np.inf
    for _ in range(1000):
        posterior = np.zeros((images, classes))
        for i in range(images):
            terms = [shares[k] / source[k] * float(p[i, k]) for k in range(classes)]
            posterior[i] = np.array(terms) / sum(terms)
        likelihood = np.log((p.numpy() * shares / source).sum(axis=1)).sum()
        assert likelihood >= before - 1e-9
        moved, before = np.abs(posterior.mean(axis=0) - shares).sum() / 2, likelihood
        shares = posterior.mean(axis=0)
        if moved < 1e-8:
            break
    np.testing.assert_allclose(em_prior(p, source), shares, atol=1e-7)


def test_prior_corrected():
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    even, other = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    expected = torch.tensor([[0.2, 0.8], [0.18 / 0.26, 0.08 / 0.26]], dtype=torch.float64)
    torch.testing.assert_close(prior_corrected(p, even, other), expected)
    torch.testing.assert_close(prior_corrected(prior_corrected(p, even, other), other, even), p)
    # A class that the classifier never saw gets nothing; a prediction of it alone stays.
    only = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(prior_corrected(only, np.array([1.0, 0.0]), even), expected)


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 2**31))
@quick
def test_integer_weights_repeat_images(images, classes, seed):
    p, labels = drawn(seed, images, classes)
    times = torch.randint(0, 4, (images,), generator=torch.Generator().manual_seed(seed))
    repeated = fit_temperature(p.repeat_interleave(times, dim=0), labels.repeat(times.numpy()))
    assert weighted_temperature(p, labels, times) == pytest.approx(repeated, rel=1e-2)


def test_weights_bring_the_temperature_of_the_images_that_are_like_the_target():
    """Calibrated on one half of the source, far too certain on the other, which is where the target lies."""
    p, _ = drawn(3, 3000, 3, sharpness=1.0)
    labels = labelled(p)
    side = torch.arange(3000) % 2
    predicted = torch.where(side[:, None] == 1, with_temperature(p, 1 / 4), p)
    generator = torch.Generator().manual_seed(1)
    source = 4 * side[:, None].float() + torch.randn(3000, 1, generator=generator)
    target = 4 + torch.randn(3000, 1, generator=generator)
    weights = torch.from_numpy(density_ratio(source.numpy(), target.numpy(), source.numpy()))
    plain, aware = fit_temperature(predicted, labels), weighted_temperature(predicted, labels, weights)
    assert abs(aware - 4) < abs(plain - 4)


@given(st.integers(1, 30), st.integers(2, 5), seeds)
@quick
def test_weights_of_one_change_no_temperature(images, classes, seed):
    p, labels = drawn(seed, images, classes)
    assert weighted_temperature(p, labels, torch.ones(images)) == pytest.approx(fit_temperature(p, labels), rel=1e-3)
    assert weighted_temperature(two_classes(0.9, 0.8), np.zeros(2, dtype=np.int64), torch.zeros(2)) == 1.0
