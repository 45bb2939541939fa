"""Each label-free score against a slow loop from its formula, and on candidates made so that one is right."""

import dataclasses
import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from biwaa.judging import evidence as evidence_module
from biwaa.judging import validators
from biwaa.judging.evidence import Evidence
from biwaa.judging.importance import FOLD, controlled_risk, density_ratio
from biwaa.judging.mixval import MIX, interpolation_consistency, mixing_pairs, mixval
from biwaa.judging.validators import (
    NEEDS,
    TEMPERATURE,
    VALIDATORS,
    agreement,
    ami,
    dev,
    ensv,
    information_maximisation,
    negative_entropy,
    nuclear_norm,
    scores,
    snd,
    source_accuracy,
    v_measure,
)

shapes = given(st.integers(2, 9), st.integers(2, 5), st.integers(0, 2**31))
quick = settings(max_examples=25, deadline=None)
CLASSES, WIDTH = 4, 16


def drawn(seed, *shape):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def predictions(seed, images, classes):
    return drawn(seed, images, classes).softmax(dim=1)


def one_hot(labels, classes=CLASSES, confidence=0.97):
    return torch.full((len(labels), classes), (1 - confidence) / (classes - 1)).scatter(1, labels[:, None], confidence)


def blobs(images, noise, seed, shift=0.0):
    """Features around one centre a class (the same for every seed), and the classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    spread = noise * torch.randn(images, WIDTH, generator=generator)
    return 4 * torch.eye(CLASSES, WIDTH)[labels] + shift + spread, labels


def linear(features):
    """The nearest centre, softly."""
    return (features @ torch.eye(WIDTH, CLASSES)).softmax(dim=1)


def plogp(values):
    return sum(v * math.log(v) for v in values if v > 0)


# Scores of the probabilities alone.


@shapes
@quick
def test_information_maximisation(images, classes, seed):
    p = predictions(seed, images, classes).tolist()
    mean = [sum(row[k] for row in p) / images for k in range(classes)]
    expected = -plogp(mean) + sum(plogp(row) for row in p) / images
    assert information_maximisation(torch.tensor(p)) == pytest.approx(expected, abs=1e-5)


@shapes
@quick
def test_nuclear_norm(images, classes, seed):
    p = predictions(seed, images, classes)
    eigenvalues = torch.linalg.eigvalsh(p.T @ p).clamp(min=0)
    assert nuclear_norm(p) == pytest.approx(sum(math.sqrt(v) for v in eigenvalues.tolist()) / images, abs=1e-6)


@shapes
@quick
def test_negative_entropy(images, classes, seed):
    p = predictions(seed, images, classes)
    assert negative_entropy(p) == pytest.approx(sum(plogp(row) for row in p.tolist()) / images, rel=1e-9)


@shapes
@quick
def test_soft_neighbourhood_density(images, classes, seed):
    p = predictions(seed, images, classes).tolist()
    norm = [math.sqrt(sum(v * v for v in row)) for row in p]
    expected = 0.0
    for i in range(images):
        near = {
            j: math.exp(sum(a * b for a, b in zip(p[i], p[j], strict=True)) / norm[i] / norm[j] / TEMPERATURE)
            for j in range(images)
            if j != i
        }
        expected -= plogp([v / sum(near.values()) for v in near.values()]) / images
    assert snd(torch.tensor(p, dtype=torch.float64)) == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_soft_neighbourhood_density_is_the_same_in_blocks(monkeypatch):
    p = predictions(0, 50, 3)
    whole = snd(p)
    monkeypatch.setattr(validators, "BLOCK", 7)
    assert snd(p) == pytest.approx(whole, rel=1e-12)
    assert snd(p[:1]) == 0.0


def test_a_collapse_loses_where_diversity_counts_and_wins_where_it_does_not():
    features, labels = blobs(200, 0.5, seed=0)
    good = Evidence(one_hot(labels, confidence=0.9), features)
    collapsed = Evidence(one_hot(torch.zeros_like(labels), confidence=0.999), features)
    for name in ("information_maximisation", "nuclear_norm", "v_measure", "ami"):
        better, worse = VALIDATORS[name]([good, collapsed])
        assert better > worse, name
    # Known failures, named in their docstrings.
    for name in ("entropy", "snd"):
        better, worse = VALIDATORS[name]([good, collapsed])
        assert better < worse, name
    assert snd(collapsed.probabilities) == pytest.approx(math.log(199), rel=1e-9)


# Agreement with clusters.


def literal_mutual_information(a, b):
    """Mutual information and the two entropies, in nats."""
    n, joint, left, right = len(a), Counter(zip(a, b, strict=True)), Counter(a), Counter(b)
    mutual = sum(c / n * math.log(n * c / left[i] / right[j]) for (i, j), c in joint.items())
    return mutual, *(-plogp([c / n for c in counts.values()]) for counts in (left, right))


def literal_expected_information(a, b):
    """Over all tables with the same margins (Vinh et al. 2010): each cell is hypergeometric."""
    n, total = len(a), 0.0
    for x in Counter(a).values():
        for y in Counter(b).values():
            for cell in range(max(1, x + y - n), min(x, y) + 1):
                chance = math.comb(y, cell) * math.comb(n - y, x - cell) / math.comb(n, x)
                total += chance * cell / n * math.log(n * cell / x / y)
    return total


@given(st.integers(0, 2**31))
@quick
def test_agreement_with_clusters(seed):
    features, _ = blobs(40, 2.0, seed)
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:40]
    evidence = Evidence(predictions(seed, 60, CLASSES), features, rows)
    classes, clusters = (part.tolist() for part in evidence.grouping)
    assert classes == evidence.probabilities.argmax(dim=1)[rows].tolist()
    mutual, h_classes, h_clusters = literal_mutual_information(classes, clusters)
    homogeneity, completeness = mutual / h_classes, mutual / h_clusters
    harmonic = 2 * homogeneity * completeness / (homogeneity + completeness)
    assert v_measure(evidence) == pytest.approx(harmonic, abs=1e-9)
    chance = literal_expected_information(classes, clusters)
    adjusted = (mutual - chance) / ((h_classes + h_clusters) / 2 - chance)
    assert ami(evidence) == pytest.approx(adjusted, abs=1e-9)


def test_clusters_that_are_the_classes_score_one_whatever_their_scale():
    features, labels = blobs(120, 0.1, seed=1)
    renamed = one_hot((labels + 1) % CLASSES)
    lengths = torch.logspace(-3, 3, 120)[:, None]
    for part in (features, lengths * features):
        assert v_measure(Evidence(renamed, part)) == pytest.approx(1)
        assert ami(Evidence(renamed, part)) == pytest.approx(1)


def test_chance_scores_near_zero_by_ami_alone():
    features, _ = blobs(60, 0.5, seed=2)
    evidence = [Evidence(predictions(seed, 60, CLASSES), features) for seed in range(20)]
    assert abs(np.mean([ami(one) for one in evidence])) < 0.02
    assert min(v_measure(one) for one in evidence) > 0


def test_features_that_fell_together_are_worth_nothing(recwarn):
    evidence = Evidence(one_hot(torch.zeros(30, dtype=torch.long)), torch.zeros(30, WIDTH))
    assert v_measure(evidence) == ami(evidence) == 0
    assert not recwarn.list


def test_fewer_images_than_classes():
    evidence = Evidence(one_hot(torch.arange(3), classes=5), drawn(0, 3, WIDTH))
    assert v_measure(evidence) == pytest.approx(1)  # a cluster each


def test_large_targets_are_sampled_alike(monkeypatch):
    features, labels = blobs(300, 0.1, seed=3)
    evidence = Evidence(one_hot(labels), features)
    monkeypatch.setattr(evidence_module, "SAMPLE", 100)
    classes, clusters = evidence.grouping
    assert len(classes) == len(clusters) == 100
    assert v_measure(evidence) == pytest.approx(1)  # so classes and clusters are of the same images
    assert snd(one_hot(torch.zeros(300, dtype=torch.long))) == pytest.approx(math.log(99))
    assert evidence.grouping[0] is classes


# The source's part.


def test_source_accuracy():
    _, labels = blobs(50, 1.0, seed=4)
    predicted = torch.where(torch.arange(50) < 20, (labels + 1) % CLASSES, labels)
    evidence = Evidence(one_hot(labels), source_probabilities=one_hot(predicted), source_labels=labels)
    assert source_accuracy(evidence) == pytest.approx(0.6)


@given(st.integers(2, 12), st.integers(0, 2**31))
@quick
def test_controlled_risk(images, seed):
    rng = np.random.default_rng(seed)
    losses, weights = rng.integers(0, 2, images).astype(float), rng.lognormal(size=images)
    weighted = [w * v for w, v in zip(weights, losses, strict=True)]
    mean_l, mean_w = sum(weighted) / images, sum(weights) / images
    covariance = sum((a - mean_l) * (b - mean_w) for a, b in zip(weighted, weights, strict=True)) / (images - 1)
    variance = sum((b - mean_w) ** 2 for b in weights) / (images - 1)
    eta = -covariance / variance
    assert controlled_risk(losses, weights) == pytest.approx(mean_l + eta * mean_w - eta, rel=1e-7, abs=1e-9)


def test_equal_weights_leave_the_plain_risk():
    losses = np.array([0.0, 1, 1, 0, 1])
    assert controlled_risk(losses, np.ones(5)) == pytest.approx(0.6)
    assert controlled_risk(losses[:1], np.ones(1)) == 0


def dev_evidence(shift, images=600, wrong=None):
    trained, target, held_out = (blobs(images, 1.0, seed, at) for seed, at in ((5, 0.0), (6, shift), (7, 0.0)))
    predicted = (
        held_out[1] if wrong is None else torch.where(wrong(held_out[0]), (held_out[1] + 1) % CLASSES, held_out[1])
    )
    return Evidence(
        one_hot(target[1]),
        features=target[0],
        source_probabilities=one_hot(predicted),
        source_features=held_out[0],
        source_labels=held_out[1],
        trained_features=trained[0],
    )


def test_dev_of_equal_domains_is_the_plain_risk():
    evidence = dev_evidence(0.0, wrong=lambda x: torch.arange(len(x)) % 3 == 0)
    assert dev(evidence) == pytest.approx(-(1 - source_accuracy(evidence)), abs=0.02)
    same = dataclasses.replace(evidence, trained_features=evidence.features)
    assert dev(same) == pytest.approx(-(1 - source_accuracy(evidence)), abs=0.02)


def test_dev_counts_errors_where_the_target_is():
    """Two candidates wrong on as many source images, on the target's side or on the other; the true risks are known."""
    risks = []
    for side in (lambda x: x.mean(dim=1) > 0.3, lambda x: x.mean(dim=1) < 0.2):
        evidence = dev_evidence(0.25, wrong=side)
        true = float(side(evidence.features).float().mean())
        assert 1 - source_accuracy(evidence) == pytest.approx(0.42, abs=0.03)
        assert -dev(evidence) == pytest.approx(true, abs=0.12)
        risks.append((-dev(evidence), true))
    assert risks[0][0] > 0.6 > 0.2 > risks[1][0]


def test_density_ratio_of_two_gaussians():
    """N(0, 1) against N(1, 1), four times as many of the one: exp(x - 1/2), by which the sizes do not count."""
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 1, (8000, 1)), rng.normal(1, 1, (2000, 1))
    x = np.linspace(-1, 2, 7)[:, None]
    np.testing.assert_allclose(density_ratio(source, target, x), np.exp(x[:, 0] - 0.5), rtol=0.12)
    assert density_ratio(source, target, source).mean() == pytest.approx(1, abs=0.05)


def test_domains_too_small_to_tell_apart():
    few = np.random.default_rng(0).normal(size=(FOLD - 1, 3))
    assert density_ratio(few, few + 9, few).tolist() == [1.0] * (FOLD - 1)


# Scores within a pool.


@given(st.integers(1, 5), st.integers(1, 9), st.integers(2, 4), st.integers(0, 2**31))
@quick
def test_agreement_within_the_pool(candidates, images, classes, seed):
    pool = [Evidence(predictions(seed + c, images, classes)) for c in range(candidates)]
    predicted = [evidence.probabilities.argmax(dim=1).tolist() for evidence in pool]
    p = [evidence.probabilities.tolist() for evidence in pool]
    ensemble = []
    for i in range(images):
        summed = [sum(p[c][i][k] for c in range(candidates)) for k in range(classes)]
        ensemble.append(summed.index(max(summed)))
    for c in range(candidates):
        expected = sum(predicted[c][i] == ensemble[i] for i in range(images)) / images
        assert ensv(pool)[c] == pytest.approx(expected)
        others = [d for d in range(candidates) if d != c]
        shares = [sum(predicted[c][i] == predicted[d][i] for i in range(images)) / images for d in others]
        assert agreement(pool)[c] == pytest.approx(sum(shares) / len(shares) if shares else 1)


@given(st.integers(0, 2**31))
@quick
def test_a_clear_majority_never_elects_the_worst(seed):
    """Four candidates wrong on a tenth, each elsewhere, and one that guesses."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (200,), generator=generator)
    pool = []
    for share in (0.1, 0.1, 0.1, 0.1, 1.0):
        wrong = torch.rand(200, generator=generator) < share
        noise = torch.randint(CLASSES, (200,), generator=generator)
        pool.append(Evidence(one_hot(torch.where(wrong, noise, labels))))
    for score in (ensv, agreement):
        values = score(pool)
        assert values.index(min(values)) == 4


@shapes
@quick
def test_mixing_pairs(images, classes, seed):
    p = predictions(seed, images, classes)
    predicted = p.argmax(dim=1).tolist()
    pairs = mixing_pairs(p, 20, seed)
    assert torch.equal(pairs, mixing_pairs(p, 20, seed))
    assert pairs.shape == (20, 2)
    intra = [(a, b) for a, b in pairs.tolist() if predicted[a] == predicted[b]]
    inter = [(a, b) for a, b in pairs.tolist() if predicted[a] != predicted[b]]
    assert all(a != b for a, b in intra)
    sizes = Counter(predicted)
    with_partner = {
        "intra": [i for i in range(images) if sizes[predicted[i]] > 1],
        "inter": [i for i in range(images) if sizes[predicted[i]] < images],
    }
    half = 10 if all(with_partner.values()) else 20
    for kind, part in (("intra", intra), ("inter", inter)):
        assert len(part) == (half if with_partner[kind] else 0)
        firsts = Counter(a for a, _ in part)
        if with_partner[kind]:
            counts = [firsts[i] for i in with_partner[kind]]
            assert sum(counts) == len(part)
            assert max(counts) - min(counts) <= 1


def test_every_partner_is_drawn():
    predicted = torch.tensor([0, 1, 0, 2, 1, 0])
    drawn_pairs = {tuple(pair) for pair in mixing_pairs(one_hot(predicted), 4000, 0).tolist()}
    assert drawn_pairs == {(a, b) for a in range(6) for b in range(6) if a != b and not (a == 3 == b)}
    assert mixing_pairs(one_hot(predicted[:1]), 5, 0).shape == (0, 2)


@given(st.integers(2, 5), st.integers(0, 2**31))
@quick
def test_mixval(candidates, seed):
    images, count = 12, 30
    pool = []
    for c in range(candidates):
        p = predictions(seed + c, images, 3)
        pairs = mixing_pairs(p, count, seed)
        pool.append(Evidence(p, mixed=predictions(seed + 100 + c, count, 3), pairs=pairs))
    accuracy = {"intra": [], "inter": []}
    for evidence in pool:
        hits = {"intra": [], "inter": []}
        for (a, b), mixed in zip(evidence.pairs.tolist(), evidence.mixed, strict=True):
            one, other = (int(evidence.probabilities[i].argmax()) for i in (a, b))
            hits["intra" if one == other else "inter"].append(int(mixed.argmax()) == one)
        for kind, found in hits.items():
            accuracy[kind].append(sum(found) / len(found) if found else -1)
        got = interpolation_consistency(evidence)
        for value, kind in zip(got, accuracy, strict=True):
            assert (-1 if math.isnan(value) else value) == pytest.approx(accuracy[kind][-1])

    def rank(values, c):
        below, same = (sum(f(v, values[c]) for v in values) for f in (float.__lt__, float.__eq__))
        return below + (same + 1) / 2

    parts = [[float(v) for v in values] for values in accuracy.values()]
    expected = [sum(rank(values, c) for values in parts) / 2 for c in range(candidates)]
    assert mixval(pool) == pytest.approx(expected)


def probed(predict, features, seed=0):
    p = predict(features)
    pairs = mixing_pairs(p, 400, seed)
    mixed = MIX * features[pairs[:, 0]] + (1 - MIX) * features[pairs[:, 1]]
    return Evidence(p, mixed=predict(mixed), pairs=pairs)


def test_mixval_prefers_a_model_that_keeps_the_dominant_class():
    features, _ = blobs(200, 0.2, seed=8)
    generator = torch.Generator().manual_seed(0)
    scattered = drawn(9, WIDTH, 64), drawn(10, 64, CLASSES)

    def wild(x):
        return ((20 * x.double() @ scattered[0]).sin() @ scattered[1]).softmax(dim=1)

    def collapsed(x):
        return torch.eye(CLASSES)[torch.zeros(len(x), dtype=torch.long)]

    def guessing(x):
        return torch.rand(len(x), CLASSES, generator=generator)

    good, bad, constant, chance = (probed(model, features) for model in (linear, wild, collapsed, guessing))
    intra, inter = interpolation_consistency(good)
    assert intra == 1
    assert inter > 0.95
    values = mixval([good, bad, chance])
    assert values[0] == max(values) == 3
    # Without pairs across classes a collapse ranks last there, though first within.
    assert math.isnan(interpolation_consistency(constant)[1])
    assert mixval([good, constant]) == [1.75, 1.25]


# All of them at once.


def full(seed):
    features, _ = blobs(80, 1.0, seed)
    source, source_labels = blobs(40, 1.0, seed + 1000)
    probe = probed(linear, features)
    trained, trained_labels = blobs(50, 1.0, seed + 2000)
    return Evidence(
        linear(features), features, torch.arange(80), linear(source), source, source_labels,
        trained, probe.mixed, probe.pairs, trained_labels,
    )  # fmt: skip


def test_scores_of_a_whole_pool_are_finite_and_come_out_again():
    pool = [full(seed) for seed in range(3)]
    found = scores(pool)
    assert list(found) == list(VALIDATORS)
    for values in found.values():
        assert len(values) == 3
        assert all(math.isfinite(value) for value in values)
    assert scores([full(seed) for seed in range(3)]) == found
    assert all(type(value) is float for values in found.values() for value in values)


def test_scores_are_none_where_the_evidence_is_missing():
    bare, whole = Evidence(full(0).probabilities), full(1)
    found = scores([bare, whole, dataclasses.replace(whole, source_labels=torch.empty(0, dtype=torch.long))])
    for name, (first, second, third) in found.items():
        assert (first is None) == (name in NEEDS), name
        assert second is not None
        assert (third is None) == ("source_labels" in NEEDS.get(name, ())), name
    assert found["mixval"] == [None, 1.5, 1.5]  # ranks among those that can be ranked
    assert found["ensv"] == ensv([bare, whole, whole])
    for field in dataclasses.fields(Evidence):
        lacking = dataclasses.replace(whole, **{field.name: None}) if field.name != "probabilities" else whole
        without = {name for name, values in scores([lacking]).items() if values == [None]}
        assert without == {name for name, needs in NEEDS.items() if field.name in needs}


def test_a_pool_of_one():
    found = scores([full(0)])
    assert found["ensv"] == found["agreement"] == found["mixval"] == [1.0]


def test_evidence_is_left_as_it_was():
    evidence = full(0)
    kept = (field.name for field in dataclasses.fields(evidence) if getattr(evidence, field.name) is not None)
    before = {name: getattr(evidence, name).clone() for name in kept}
    scores([evidence])
    for name, tensor in before.items():
        assert torch.equal(getattr(evidence, name), tensor), name


def test_half_precision_features():
    evidence = full(0)
    fields = ("features", "source_features", "trained_features")
    halved = dataclasses.replace(evidence, **{field: getattr(evidence, field).half() for field in fields})
    assert v_measure(halved) == pytest.approx(v_measure(evidence), abs=0.05)
    assert dev(halved) == pytest.approx(dev(evidence), abs=0.02)
