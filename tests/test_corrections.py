"""Of benchmarks/corrections.py: an estimated prior, an output corrected for it, a weighted temperature."""

import sys
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_calibration import drawn
from test_label_shift import distribution, predictions

from biwaa.judging.calibration import fit_temperature

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from corrections import em_prior, prior_corrected, weighted_temperature

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**31)


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
