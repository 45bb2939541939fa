"""Solved heads: against scikit-learn, slow loops and the formulas; odd data; and through `biwaa.adapt`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import biwaa
from biwaa.functional import nearest_neighbours
from biwaa.judging.second_opinion import agreement_of_halves
from biwaa.solvers.logistic import fit_logistic, plain_head, source_head
from biwaa.solvers.metric import (
    balanced_weights,
    mean_over_neighbours,
    neighbour_purity,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import adapt_prototypes, refine_prototypes


def shifted(seed=0, rows=400, classes=5, width=20, noise=1.0):
    """Two domains of round classes, the second moved, stretched and turned a little."""
    rng = np.random.default_rng(seed)
    centres = 2.2 * rng.normal(size=(classes, width))
    labels = np.arange(rows) % classes
    source, target = (centres[labels] + noise * rng.normal(size=(rows, width)) for _ in range(2))
    turn = np.eye(width) + 0.08 * rng.normal(size=(width, width))
    target = (target @ turn) * rng.uniform(0.5, 2, size=width) + 3
    return source.astype(np.float32), labels, target.astype(np.float32)


def test_neighbours_that_are_no_guide_are_not_followed():
    """Each class is many small islands among the others': a line tells them apart, neighbours do not."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    rows = rng.normal(size=(600, 30)).astype(np.float32)
    rows[:, 0] = (labels - 0.5) * 1.2 + 0.25 * rng.normal(size=600)
    source, target = torch.from_numpy(rows[:300]), torch.from_numpy(rows[300:])
    scaled = [(part - part.mean(0)) / part.std(0) for part in (source, target)]
    first = torch.from_numpy(labels[:300])
    assert neighbour_purity(F.normalize(scaled[0], dim=1), first, 2) < 0.75
    monotone = torch.eye(2)[first]
    assert neighbour_purity(monotone + 0.01 * torch.randn(300, 2), first, 2) > 0.999


def test_logistic_regression_is_scikit_learns():
    source, labels, _ = shifted(noise=2.5)
    x, y = torch.from_numpy(source), torch.from_numpy(labels)
    weight, bias = fit_logistic(x, one_hot(y, 5), torch.ones(len(y)), 0.5)
    other = LogisticRegression(C=0.5, tol=1e-6, max_iter=2000).fit(source, labels)
    ours = F.linear(x, weight, bias).softmax(dim=1).numpy()
    assert np.abs(ours - other.predict_proba(source)).max() < 5e-3


def test_the_source_head_is_balanced_and_as_good_as_a_regression_chosen_by_cross_validation():
    from sklearn.linear_model import LogisticRegressionCV

    source, labels, _ = shifted(noise=3.0, rows=600)
    keep = np.concatenate([np.flatnonzero(labels == k)[: 120 if k else 20] for k in range(5)])
    source, labels = source[keep], labels[keep]
    x = (source - source.mean(0)) / source.std(0)
    head = source_head(torch.from_numpy(x), torch.from_numpy(labels), 5)
    fresh, truth, _ = shifted(seed=0, noise=3.0, rows=600)
    fresh = (fresh - source.mean(0)) / source.std(0)
    ours = head.scores(torch.from_numpy(fresh)).argmax(dim=1).numpy()
    chosen = LogisticRegressionCV(Cs=5, class_weight="balanced", max_iter=2000).fit(x, labels)
    assert (ours == truth).mean() >= (chosen.predict(fresh) == truth).mean() - 0.015
    totals = torch.zeros(5).index_add(0, torch.from_numpy(labels), balanced_weights(torch.from_numpy(labels), 5))
    assert torch.allclose(totals, totals[0].expand(5))


def test_whitening_makes_classes_round():
    source, labels, _ = shifted(noise=2.0)
    x, y = torch.from_numpy(source), torch.from_numpy(labels)
    covariance = within_class_covariance(x, y, torch.ones(len(y)), 5)
    residual = x.numpy() - np.stack([source[labels == k].mean(0) for k in range(5)])[labels]
    assert np.allclose(covariance.numpy(), residual.T @ residual / len(x), atol=1e-4)
    white = whitening(covariance, 0.0)
    assert torch.allclose(white.T @ covariance @ white, torch.eye(20), atol=1e-3)


def test_refining_is_the_formula():
    _, _, target = shifted(rows=40)
    units = F.normalize(torch.from_numpy(target), dim=1).double()
    prior = torch.rand(40, 5, generator=torch.Generator().manual_seed(1)).double().softmax(dim=1)
    neighbours = nearest_neighbours(units, 3)
    found = refine_prototypes(units, prior, prior, neighbours, 7.0, steps=2)
    z = prior.numpy()
    for _ in range(2):
        centres = [sum(z[i, k] * units[i].numpy() for i in range(40)) for k in range(5)]
        centres = [c / np.linalg.norm(c) for c in centres]
        new = np.zeros_like(z)
        for i in range(40):
            near = z[neighbours[i].numpy()].mean(axis=0)
            logits = np.array(
                [7.0 * units[i].numpy() @ centres[k] + np.log(prior[i, k]) + 5 * near[k] for k in range(5)]
            )
            new[i] = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        z = new
    assert np.allclose(found.numpy(), z, atol=1e-9)


def test_means_over_neighbours_need_no_table_of_all_neighbours():
    rows = torch.rand(30, 4)
    neighbours = torch.randint(30, (30, 7))
    assert torch.allclose(mean_over_neighbours(rows, neighbours), rows[neighbours].mean(dim=1), atol=1e-6)


def test_principal_axes_hold_the_largest_variance():
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(300, 400, generator=generator) * torch.linspace(3, 0.01, 400)
    axes = principal_axes(wide, wide, 20)
    assert torch.allclose(axes.T @ axes, torch.eye(20), atol=1e-4)
    best = torch.linalg.eigvalsh((wide.T @ wide / 300).double())[-20:].sum()
    assert float((wide @ axes).square().sum() / 300) > 0.98 * float(best)
    assert torch.equal(principal_axes(wide[:, :9], wide[:, :9]), torch.eye(9))


@pytest.mark.parametrize("seed", range(3))
def test_adapting_gains_and_the_student_agrees(seed):
    source, labels, target = shifted(seed, noise=2.6)
    here, there = ((x - x.mean(0)) / x.std(0) for x in (torch.from_numpy(source), torch.from_numpy(target)))
    head = source_head(here, torch.from_numpy(labels), 5)
    adapted = adapt_prototypes(here, torch.from_numpy(labels), there, 5)
    student_head = adapted.student(here, torch.from_numpy(labels), there)
    student = student_head.scores(there).argmax(dim=1)
    before = (head.scores(there).argmax(dim=1).numpy() == labels).mean()
    after = (student.numpy() == labels).mean()
    assert after >= before
    assert after > 0.9
    assert float((student == adapted.found.argmax(dim=1)).float().mean()) > 0.98
    again = adapt_prototypes(here, torch.from_numpy(labels), there, 5)
    assert torch.equal(again.student(here, torch.from_numpy(labels), there).weight, student_head.weight)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(1, 12),
    st.integers(4, 30),
    st.integers(6, 40),
    st.sampled_from(["", "constant", "same"]),
)
def test_odd_data_gives_finite_heads(classes, width, targets, sources, kind):
    generator = torch.Generator().manual_seed(classes * width + targets)
    source, target = (torch.randn(n, width, generator=generator) for n in (max(sources, classes), targets))
    if kind == "constant":
        source[:, 0], target[:, 0] = 0.0, 0.0
    if kind == "same":
        target[:] = target[0].clone()
    labels = torch.arange(len(source)) % classes
    adapted = adapt_prototypes(source, labels, target, classes)
    heads = [source_head(source, labels, classes), plain_head(source, labels, target, classes)]
    heads += [adapted.student(source, labels, target)] if adapted else []
    assert all(part.isfinite().all() for head in heads for part in head if part is not None)
    assert 0 <= agreement_of_halves(source, labels, target, classes) <= 1
    assert adapted is None or adapted.found.isfinite().all()


def test_many_rows_are_searched_approximately_and_rightly(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 16, generator=generator)
    rows = centres[torch.randint(20, (3000,), generator=generator)] + 0.5 * torch.randn(3000, 16, generator=generator)
    rows[7] = rows[8]
    exact = nearest_neighbours(rows, 10)
    monkeypatch.setattr("biwaa.functional.neighbours.EXACT", 1000)
    found = nearest_neighbours(rows, 10)
    assert found.shape == exact.shape
    assert not (found == torch.arange(3000)[:, None]).any()
    assert float((found[:, :, None] == exact[:, None, :]).any(dim=2).float().mean()) > 0.98
    assert torch.equal(found, nearest_neighbours(rows, 10))


def test_the_default_on_features_is_solved(tmp_path):
    source, labels, target = shifted()
    run = biwaa.adapt((source, labels), (target, labels), out=tmp_path / "run", verbose=False)
    result = run.result
    assert result.method == "prototypes"
    assert [stage.name for stage in result.stages] == ["source-only", "round 0"]
    assert result.cost.steps == 0
    assert result.accuracy.adapted.over_images > 0.9
    assert (run.predict(target) == labels).mean() == pytest.approx(result.accuracy.adapted.over_images, abs=0.01)
    again = biwaa.adapt((source, labels), (target, labels), out=tmp_path / "again", verbose=False)
    shuffled = biwaa.adapt((source, labels), (target, labels[::-1].copy()), out=tmp_path / "shuffled", verbose=False)
    models = [(one.folder / "model.safetensors").read_bytes() for one in (run, again, shuffled)]
    assert models[0] == models[1] == models[2]
