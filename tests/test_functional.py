"""The mathematics against the golden vectors, and against loops written from the formulas."""

import json

import hypothesis.strategies as st
import literal
import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given, settings
from torch import nn

from biwaa import functional
from biwaa.methods.dann import discriminate
from biwaa.models.network import Discriminator, reverse_gradient

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def load(name):
    with np.load(GOLDEN / name) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive}


def case(arrays, name):
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def test_signatures_are_the_contract():
    assert functional.feature_weights.__defaults__ == (10.0,)
    assert functional.update_centroids.__defaults__ == (0.3,)
    assert functional.adversarial_ramp.__defaults__ == (20000, 10.0)
    assert functional.inverse_decay.__defaults__ == (1e-3, 0.75)
    assert functional.average_rounds.__defaults__ == (0.2,)


@pytest.mark.parametrize("name", ["small", "office31"])
@pytest.mark.parametrize("general", [False, True], ids=["linear", "any classifier"])
def test_golden_weighting(name, general):
    g = case(load("weighting.npz"), name)
    classifier = linear(g["weight"], g["bias"])
    classifier = nn.Sequential(classifier) if general else classifier
    weights = functional.feature_weights(g["features"], g["labels"], classifier)
    torch.testing.assert_close(weights, g["feature_weights"], **CLOSE)
    torch.testing.assert_close(g["features"] * weights, g["weighted_features"], **CLOSE)


@pytest.mark.parametrize("name", ["small", "sparse", "office31", "officehome"])
def test_golden_semantic(name):
    g = case(load("semantic.npz"), name)
    source, target = g["source_features"].requires_grad_(), g["target_features"].requires_grad_()
    cs = functional.update_centroids(g["source_centroids"], source, g["source_labels"])
    ct = functional.update_centroids(g["target_centroids"], target, g["target_labels"])
    torch.testing.assert_close(cs, g["new_source_centroids"], **CLOSE)
    torch.testing.assert_close(ct, g["new_target_centroids"], **CLOSE)
    alignment, separation = functional.semantic_losses(cs, ct)
    torch.testing.assert_close(alignment, g["alignment_loss"], **CLOSE)
    torch.testing.assert_close(separation, g["source_separation_loss"], **CLOSE)
    (g["lam"] * alignment + separation).backward()
    torch.testing.assert_close(source.grad, g["source_grad"], **CLOSE)
    torch.testing.assert_close(target.grad, g["target_grad"], **CLOSE)


def test_a_pull_by_cosine():
    """Nothing for a class whose centroids point the same way however long they are, 2 where they point apart."""
    source = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pull = functional.semantic_losses(source, torch.tensor([[5.0, 0.0], [0.0, -1.0]]), cosine_pull=True)[0]
    assert pull == pytest.approx((0 + 2) / 2)  # the pairs of different classes are at right angles
    unseen = torch.zeros(2, 2, requires_grad=True)
    functional.semantic_losses(source, unseen, cosine_pull=True)[0].backward()
    assert not unseen.grad.any()


@pytest.mark.parametrize("name", ["early", "late"])
def test_golden_adversarial(name):
    g = case(load("adversarial.npz"), name)
    hidden, width = g["ad_layer1.weight"].shape
    discriminator = Discriminator(width, hidden, dropout=0.0)
    for layer, index in ((1, 0), (2, 3), (3, 6)):
        discriminator.layers[index].load_state_dict({part: g[f"ad_layer{layer}.{part}"] for part in ("weight", "bias")})
    features = g["features"].requires_grad_()
    half = len(features) // 2
    ramp = functional.adversarial_ramp(int(g["iteration"]))
    loss, _ = discriminate(discriminator, features[:half], features[half:], ramp)
    loss.backward()
    torch.testing.assert_close(loss, g["loss"], **CLOSE)
    torch.testing.assert_close(features.grad, g["feature_grad"], **CLOSE)
    for layer, index in ((1, 0), (2, 3), (3, 6)):
        for part in ("weight", "bias"):
            gradient = getattr(discriminator.layers[index], part).grad
            torch.testing.assert_close(gradient, g[f"grad.ad_layer{layer}.{part}"], **CLOSE)


def test_golden_schedules():
    g = json.loads((GOLDEN / "schedules.json").read_text())
    for index, step in enumerate(g["iteration"]):
        assert functional.adversarial_ramp(step) == pytest.approx(g["adversarial_coefficient"][index], rel=1e-9)
        assert functional.adversarial_ramp(step, 500) == pytest.approx(g["bootstrap_weight_500"][index], rel=1e-9)
        assert 1e-3 * functional.inverse_decay(step) == pytest.approx(g["learning_rate_base_0_001"][index], rel=1e-9)


def test_golden_rounds():
    g = load("rounds.npz")
    torch.testing.assert_close(functional.average_rounds(g["rounds"], float(g["update"])), g["average"])


@st.composite
def batches(draw):
    """Features, labels and a classifier: K from 2 to 345, one sample or many, any number of classes present."""
    classes = draw(st.sampled_from([2, 3, 7, 31, 345]))
    size = draw(st.integers(1, 12))
    width = draw(st.integers(2, 16))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.01, 1.0, 5.0]))
    features = scale * torch.randn(size, width, generator=rng)
    present = draw(st.integers(1, classes))
    labels = torch.randint(present, (size,), generator=rng)
    weight = torch.randn(classes, width, generator=rng)
    bias = torch.randn(classes, generator=rng)
    return features, labels, weight, bias


@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=60, deadline=None)
def test_weights_equal_the_loop(batch, dtype):
    features, labels, weight, bias = batch
    features = features.to(dtype)
    fast = functional.feature_weights(features, labels, linear(weight, bias))
    assert fast.dtype == dtype
    assert not fast.requires_grad
    slow = literal.feature_weights(features, labels, weight, bias)
    tolerance = {"rtol": 1e-4, "atol": 2e-4} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    torch.testing.assert_close(fast.double(), slow, **tolerance)


@pytest.mark.parametrize("general", [False, True], ids=["linear", "any classifier"])
def test_zero_gradient_gives_zero_weights(general):
    features = torch.randn(4, 5)
    same = linear(torch.ones(3, 5), torch.zeros(3))  # moving f changes all logits equally
    certain = linear(torch.zeros(3, 5), torch.tensor([1e4, 0.0, 0.0]))  # the label's probability is exactly 1
    one = linear(torch.randn(1, 5), torch.zeros(1))
    for classifier in (same, certain, one):
        module = nn.Sequential(classifier) if general else classifier
        weights = functional.feature_weights(features, torch.zeros(4, dtype=torch.long), module)
        assert torch.equal(weights, torch.zeros(4, 5))


def test_tiny_gradients_keep_their_direction():
    """p = 1 - 1e-20 rounds to 1 in float32; the weights still point where they do in float64."""
    weight, bias = torch.randn(3, 5), torch.tensor([46.0, 0.0, 0.0])
    features = 0.1 * torch.randn(4, 5)
    labels = torch.zeros(4, dtype=torch.long)
    fast = functional.feature_weights(features, labels, linear(weight, bias))
    slow = functional.feature_weights(features.double(), labels, linear(weight.double(), bias.double()))
    torch.testing.assert_close(fast.double(), slow, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.norm(dim=1), torch.full((4,), 10.0))


@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=40, deadline=None)
def test_centroids_equal_the_loop(batch, dtype):
    features, labels, weight, _ = batch
    features = features.to(dtype)
    fast = functional.update_centroids(weight, features, labels)
    slow = literal.update_centroids(weight.double(), features.double(), labels)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-5)
    absent = torch.ones(len(weight), dtype=torch.bool)
    absent[labels] = False
    assert torch.equal(fast[absent], weight[absent])


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**31), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_semantic_losses_and_gradients_equal_the_loop(classes, width, seed, empty, cosine_pull):
    rng = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, classes, width, generator=rng, dtype=torch.float64)
    if empty:  # a class never seen still has its zero start
        source[0], target[-1] = 0.0, 0.0
    results = []
    for losses in (functional.semantic_losses, literal.semantic_losses):
        a, b = source.clone().requires_grad_(), target.clone().requires_grad_()
        alignment, separation = losses(a, b, cosine_pull)
        (alignment + 2 * separation).backward()
        results.append((alignment.detach(), separation.detach(), a.grad, b.grad))
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)


def test_semantic_losses_of_bfloat16_centroids_equal_the_loop():
    source, target = torch.randn(2, 7, 16).bfloat16()
    slow = literal.semantic_losses(source.double(), target.double())
    for fast, expected in zip(functional.semantic_losses(source, target), slow, strict=True):
        torch.testing.assert_close(fast.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_semantic_losses_equal_the_loop_with_many_classes():
    source, target = torch.randn(2, 126, 8, dtype=torch.float64)
    for fast, slow in zip(
        functional.semantic_losses(source, target), literal.semantic_losses(source, target), strict=True
    ):
        torch.testing.assert_close(fast, slow, rtol=1e-8, atol=1e-10)


def test_reversal_is_identity_forward_and_minus_the_coefficient_backward():
    x = torch.randn(3, 4, requires_grad=True)
    y = reverse_gradient(x, 0.25)
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((3, 4), -0.25))


@given(st.integers(1, 6), st.floats(0.0, 1.0))
def test_average_of_rounds_is_a_distribution(rounds, update):
    probabilities = torch.rand(rounds, 5, 4, dtype=torch.float64).softmax(dim=2)
    average = functional.average_rounds(probabilities, update)
    torch.testing.assert_close(average.sum(dim=1), torch.ones(5, dtype=torch.float64))
    if rounds == 1 or update == 1.0:
        torch.testing.assert_close(average, probabilities[-1])
