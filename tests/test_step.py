"""Whole training steps: the golden runs, the literal trainer, and one backward through the backbone."""

import literal
import numpy as np
import pytest
import torch
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from biwaa.methods import METHODS
from biwaa.methods.method import Task
from biwaa.models.network import Network
from biwaa.recipe import recipe_from
from biwaa.training.step import build_optimizer, training_step

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def settings_of(**changed):
    return recipe_from({"batch_size": 8, "dropout": 0.0, **changed}, "test")


def method_of(recipe, classes, targets, previous=None):
    """The recipe's method, as a stage builds it."""
    kind = METHODS[recipe.method]
    task = Task(recipe.network.bottleneck, classes, targets, recipe.schedule.steps, previous)
    return kind(task, *(getattr(recipe, group) for group in kind.groups))


def toy(inputs, hidden, width, classes, targets, previous=None, disc=32, lr=0.01):
    recipe = settings_of(bottleneck=width, discriminator=disc, learning_rate=lr)
    network = Network(nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU()), hidden, width, classes)
    method = method_of(recipe, classes, targets, previous)
    return network, method, build_optimizer(network, method, recipe.optimizer), recipe


def parts(network, method):
    """Our parameters under the golden vectors' names."""
    names = {"model.body.0": network.backbone[0], "model.bottleneck": network.bottleneck}
    names["model.fc"] = network.classifier
    names |= {f"discriminator.ad_layer{n}": method.discriminator.layers[3 * (n - 1)] for n in (1, 2, 3)}
    return {f"{name}.{part}": getattr(layer, part) for name, layer in names.items() for part in ("weight", "bias")}


@pytest.mark.parametrize("which", ["first", "later"])
def test_golden_five_steps(which):
    with np.load(GOLDEN / f"steps_{which}_round.npz") as archive:
        g = {key: torch.from_numpy(archive[key]) for key in archive}
    previous = g["previous_round_probabilities"] if which == "later" else None
    network, method, optimizer, recipe = toy(10, 24, 16, 6, 40, previous)
    with torch.no_grad():
        for name, parameter in parts(network, method).items():
            parameter.copy_(g[f"init.{name}"])
    pseudo = []
    original = method.pseudo_labels

    def watched(*args):
        pseudo.append(original(*args))
        return pseudo[-1]

    method.pseudo_labels = watched
    for i in range(5):
        losses = training_step(
            network, method, optimizer, recipe, i,
            source=(g["step.xs"][i], g["step.ys"][i]), target=(g["step.xt"][i], g["step.idx"][i]),
        )  # fmt: skip
        assert torch.equal(pseudo[-1], g["step.pseudo"][i])
        theirs_to_ours = {"ce": "classification", "domain": "domain", "align": "alignment", "sep": "separation"}
        for theirs, ours in theirs_to_ours.items():
            torch.testing.assert_close(losses[ours].value.detach(), g[f"step.{theirs}"][i], **CLOSE)
    for name, parameter in parts(network, method).items():
        torch.testing.assert_close(parameter.detach(), g[f"final.{name}"], **CLOSE)
    torch.testing.assert_close(method.source_centroids, g["final.source_centroids"], **CLOSE)
    torch.testing.assert_close(method.target_centroids, g["final.target_centroids"], **CLOSE)
    torch.testing.assert_close(method.memory, g["final.label_memory"], **CLOSE)


def compare_with_literal(classes, batch, seed, later, first, steps=3):
    """Train a toy network both ways and hold every loss, parameter and memory against each other."""
    torch.manual_seed(seed)
    targets = 10
    previous = torch.rand(targets, classes).softmax(dim=1) if later else None
    network, method, optimizer, recipe = toy(5, 7, 4, classes, targets, previous, disc=6)
    ours = {"body": network.backbone[0], "bottleneck": network.bottleneck, "fc": network.classifier}
    ours |= {f"d{n}": method.discriminator.layers[3 * (n - 1)] for n in (1, 2, 3)}
    named = {f"{name}.{part}": getattr(layer, part) for name, layer in ours.items() for part in ("weight", "bias")}
    slow = literal.LiteralTrainer({name: p.detach() for name, p in named.items()}, classes, targets, previous)
    network.double()
    method.double()
    for i in range(first, first + steps):
        xs, xt = torch.randn(2, batch, 5)
        ys = torch.randint(classes, (batch,))
        rows = torch.randperm(targets)[:batch]
        losses = training_step(
            network, method, optimizer, recipe, i, source=(xs.double(), ys), target=(xt.double(), rows)
        )
        expected = slow.step(xs, ys, xt, rows, i)
        trained = [losses[name] for name in ("classification", "domain", "alignment", "separation")]
        for loss, value in zip(trained, expected[:4], strict=True):
            torch.testing.assert_close(loss.value.detach(), value.detach(), rtol=1e-4, atol=1e-6)
    for name, parameter in named.items():
        torch.testing.assert_close(parameter.detach(), slow.p[name].detach(), rtol=1e-4, atol=1e-6)
    seen = sorted(slow.seen)
    torch.testing.assert_close(method.memory[seen], slow.memory[seen], rtol=1e-4, atol=1e-6)
    assert bool((method.memory[[row for row in range(targets) if row not in slow.seen]] == -1).all())


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**31), st.booleans(), st.sampled_from([0, 3, 400, 6000]))
@settings(max_examples=20, deadline=None)
def test_steps_equal_the_literal_trainer(classes, batch, seed, later, first):
    compare_with_literal(classes, batch, seed, later, first)


@pytest.mark.slow
@pytest.mark.parametrize("classes, steps", [(65, 2), (126, 1)])
def test_steps_equal_the_literal_trainer_with_many_classes(classes, steps):
    compare_with_literal(classes, 6, 0, True, 100, steps)


def test_one_forward_of_each_domain_and_one_backward():
    calls = {"forward": 0, "backward": 0}

    class Counting(nn.Linear):
        def forward(self, x):
            calls["forward"] += 1
            out = super().forward(x)
            out.register_hook(lambda _: calls.__setitem__("backward", calls["backward"] + 1))
            return out

    network, method, optimizer, recipe = toy(5, 7, 4, 3, 10)
    network.backbone = Counting(5, 7)
    source, target = (torch.randn(6, 5), torch.randint(3, (6,))), (torch.randn(6, 5), torch.arange(6))
    training_step(network, method, optimizer, recipe, 0, source=source, target=target)
    # One backward pass reaches the two forwards' outputs once each.
    assert calls == {"forward": 2, "backward": 2}


def test_source_only_never_sees_the_target():
    recipe = settings_of(method="source_only", bottleneck=4, batch_size=6)
    network = Network(nn.Linear(5, 7), 7, 4, 3)
    method = method_of(recipe, 3, 10)
    poison = torch.full((6, 5), torch.nan)
    source = (torch.randn(6, 5), torch.randint(3, (6,)))
    optimizer = build_optimizer(network, method, recipe.optimizer)
    training_step(network, method, optimizer, recipe, 0, source=source, target=(poison, torch.arange(6)))
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_parts_switch_off():
    full = settings_of(bottleneck=4, discriminator=8, batch_size=6)
    torch.manual_seed(0)
    network = Network(nn.Linear(5, 7), 7, 4, 3)
    source, target = (torch.randn(6, 5), torch.randint(3, (6,))), (torch.randn(6, 5), torch.arange(6))
    found = {}
    for name, recipe in {
        "all": full,
        "weighting": full.replace(alignment=0.0, separation=0.0),
        "plain": full.replace(alignment=0.0, separation=0.0, weighting=False),
        "dann": full.replace(method="dann"),
    }.items():
        torch.manual_seed(1)
        method = method_of(recipe, 3, 10)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        optimizer.param_groups[0]["initial"] = 0.0
        losses = training_step(network, method, optimizer, recipe, 5, source=source, target=target)
        found[name] = {key: float(loss.value.detach()) for key, loss in losses.items()}
    assert set(found["all"]) == {"classification", "domain", "domain_accuracy", "alignment", "separation"}
    assert set(found["weighting"]) == {"classification", "domain", "domain_accuracy"}
    assert found["all"]["domain"] == found["weighting"]["domain"] != found["plain"]["domain"]
    assert found["plain"] == found["dann"]


@pytest.mark.parametrize(("whose", "method"), [("shared", "biwaa"), ("target", "biwaa"), ("target", "source_only")])
def test_batch_norm_averages_are_of_both_domains_or_of_the_target(whose, method):
    torch.manual_seed(0)
    recipe = settings_of(method=method, bottleneck=4, discriminator=8, batch_norm=whose)
    network = Network(nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 6)), 6, 4, 3)
    made = method_of(recipe, 3, 20)
    source, target = torch.randn(8, 5) + 10, torch.randn(8, 5) - 10
    labels = torch.arange(8) % 3
    optimizer = build_optimizer(network, made, recipe.optimizer)
    training_step(network, made, optimizer, recipe, 0, source=(source, labels), target=(target, torch.arange(8)))
    mean = torch.zeros(5)
    seen = [source] * (whose == "shared" or method == "source_only") + [target] * (method != "source_only")
    for batch in seen:
        mean = 0.9 * mean + 0.1 * batch.mean(dim=0)
    assert torch.allclose(network.backbone[0].running_mean, mean, atol=1e-5)
    assert network.backbone[0].momentum == 0.1


class Crossings(TorchDispatchMode):
    """Notes every operation that moves numbers between host and device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        devices = {each.device for each in (*args, out) if isinstance(each, torch.Tensor)}
        if "copy" in str(operation) and len(devices) > 1:
            self.found.append(str(operation))
        return out


def on_a_gpu_that_is_not_there(name, later):
    """A step up to its losses; a value that the host wants to know cannot be had, and raises."""
    recipe = settings_of(method=name, bottleneck=8, discriminator=8, dropout=0.5)
    with FakeTensorMode(), torch.device("cuda"):
        backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        network = Network(backbone, 4 * 6 * 6, 8, 3).train()
        method = method_of(recipe, 3, 10, torch.rand(10, 3) if later else None)
        source, target, strong = (torch.rand(6, 3, 8, 8) for _ in range(3))
        labels, rows = torch.zeros(6, dtype=torch.long), torch.arange(6)
        optimizer = build_optimizer(network, method, recipe.optimizer)
        with Crossings() as crossings:
            for step in range(2):
                training_step(
                    network, method, optimizer, recipe, step, source=(source, labels),
                    target=(target if method.sees_target else target[:0], rows),
                    strong=strong if method.strong_view else None, backward=lambda loss: None,
                )  # fmt: skip
    return crossings.found


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("name", [name for name in METHODS if name != "prototypes"])  # which takes no steps
def test_no_step_makes_the_host_wait_for_the_device(name, later):
    assert on_a_gpu_that_is_not_there(name, later) == []


@pytest.mark.parametrize(
    "waiting",
    [lambda loss: loss.item(), lambda loss: loss.tolist(), lambda loss: loss.cpu(), lambda loss: loss[loss > 0],
     lambda loss: loss + torch.ones(1, device="cpu").to(loss.device)],
)  # fmt: skip
def test_a_step_that_makes_the_host_wait_is_found(monkeypatch, waiting):
    class Waiting(METHODS["source_only"]):
        def losses(self, classifier, batch, step):
            found = super().losses(classifier, batch, step)
            waiting(found["classification"].value)
            return found

    monkeypatch.setitem(METHODS._entries, "waiting", Waiting)
    try:
        found = on_a_gpu_that_is_not_there("waiting", later=False)
    except (RuntimeError, DataDependentOutputException, DynamicOutputShapeException) as error:
        found = [error]
    assert found
