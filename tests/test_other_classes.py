"""A target with some of the source's classes: which are left out, and what a run says of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import biwaa
from biwaa.domains.domain import Domain
from biwaa.domains.objects import as_domain
from biwaa.domains.shift import check_rule, shifted_rows
from biwaa.domains.trainable import check_pair
from biwaa.errors import BiwaaError
from biwaa.judging.estimate import combined
from biwaa.judging.signs import Signs
from biwaa.judging.warnings import find_warnings
from biwaa.methods.method import Task
from biwaa.methods.prototypes import Prototypes, PrototypesSettings
from biwaa.report.run_page import run_page
from biwaa.result.warnings import ClassesAbsent, Collapsed
from biwaa.settings import ScheduleSettings
from biwaa.solvers.absence import expected_shares, seem_absent

CLASSES = 10


def domains(present, seed=0, width=40):
    """Round classes in two places; the second has `present` of them. Standardised, a domain at a time."""
    rng = np.random.default_rng(seed)
    centres = 1.6 * rng.normal(size=(CLASSES, width))
    labels = np.arange(600) % CLASSES
    source = centres[labels] + rng.normal(size=(600, width))
    truth = rng.choice(present, size=400)
    target = (centres[truth] + rng.normal(size=(400, width))) * rng.uniform(0.6, 1.6, size=width) + 2
    scaled = [torch.from_numpy(((part - part.mean(0)) / part.std(0)).astype(np.float32)) for part in (source, target)]
    return scaled[0], torch.from_numpy(labels), scaled[1], torch.from_numpy(truth)


def solved(present, absent_classes="auto", seed=0):
    source, labels, target, truth = domains(present, seed)
    task = Task(width=16, classes=CLASSES, targets=len(target), steps=1)
    head = Prototypes(task, ScheduleSettings(), PrototypesSettings(absent_classes)).solve(source, labels, target)
    predicted = F.linear(F.linear(target, head.projection), head.weight, head.bias).argmax(dim=1)
    return head, float((predicted == truth).double().mean())


def test_absent_classes_are_left_out():
    head, accuracy = solved([0, 1, 2, 3])
    assert head.absent.tolist() == [False] * 4 + [True] * 6
    assert accuracy > max(0.97, solved([0, 1, 2, 3], "off")[1])


def test_a_closed_target_costs_nothing_and_changes_nothing():
    automatic, everything = solved(range(CLASSES))[0], solved(range(CLASSES), "off")[0]
    assert automatic.absent is None
    assert torch.equal(automatic.weight, everything.weight)
    assert torch.equal(automatic.projection, everything.projection)


def test_one_class_that_is_not_there_is_left_alone():
    """It may as well be rare, or taken for another."""
    assert solved(range(CLASSES - 1))[0].absent is None


def test_likelihood_finds_the_shares():
    source, labels, target, truth = domains([0, 1, 2, 3])
    shares = expected_shares(source, labels, target, CLASSES)
    expected = torch.bincount(truth, minlength=CLASSES) / len(truth)
    assert float((shares - expected).abs().sum()) < 0.1
    found = F.one_hot(truth, CLASSES).float()
    assert seem_absent(found, source, labels, target, 0.2).tolist() == [False] * 4 + [True] * 6
    assert not seem_absent(found, source, labels, target, 0.7).any()  # six of ten are fewer


def test_warnings_know_of_absent_classes():
    shares, absent = np.array([0.5, 0.5, 0.0, 0.0, 0.0]), np.array([False, False, True, True, True])
    signs = Signs(tuple("abcde"), 400, "round 0", predicted_shares=shares, source_shares=np.full(5, 0.2))
    assert any(isinstance(one, Collapsed) for one in find_warnings(signs))
    known = Signs(
        tuple("abcde"), 400, "round 0", predicted_shares=shares, source_shares=np.full(5, 0.2), absent=absent,
        estimated_shares=shares,
    )  # fmt: skip
    assert find_warnings(known) == [ClassesAbsent(classes=("c", "d", "e"))]


def test_a_run_says_which_classes_seem_absent(tmp_path, capsys):
    source, labels, target, truth = domains([0, 1, 2, 3])
    names = np.array([f"class {k}" for k in range(CLASSES)])
    given = {"out": tmp_path / "run", "source_held_out": 0.1, "batch_size": 24, "verbose": True}
    run = biwaa.adapt((source.numpy(), names[labels]), (target.numpy(), names[truth]), **given)
    (said,) = (one for one in run.result.warnings if isinstance(one, ClassesAbsent))
    assert said.classes == tuple(names[4:])
    assert not any(isinstance(one, Collapsed) for one in run.result.warnings)
    assert "has no image of 6 of the 10 classes" in capsys.readouterr().err
    assert "The target seems to have no image of 6 of the source" in run_page(tmp_path / "run")
    assert run.result.accuracy.adapted.over_images > 0.97
    assert run.result.estimated_accuracy == combined(run.result.estimated_accuracy.readings, 400, True, absent=True)
    assert run.result.model.stage == "round 0"
    again = biwaa.adapt((source.numpy(), names[labels]), target.numpy(), **{**given, "out": tmp_path / "again"})
    model = [(one.folder / "model.safetensors").read_bytes() for one in (run, again)]
    assert model[0] == model[1]  # which classes the labels have changes nothing


def test_a_rule_selects_classes():
    domain = as_domain((np.zeros((6, 3), np.float32), ["a", "b", "c"] * 2), "target")
    assert shifted_rows(domain, "classes:2-3").tolist() == [1, 2, 4, 5]
    for wrong in ("classes:3-2", "classes:0-2", "classes:2"):
        with pytest.raises(BiwaaError, match="classes:A-B"):
            check_rule(wrong)


def test_a_misspelt_class_is_still_found():
    """With one class too few and one too many, a name is wrong."""
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    source, target = (as_domain((rows + k, names), "x") for k, names in ((0, ["a", "b"] * 2), (1, ["a", "c"] * 2)))
    assert isinstance(source, Domain)
    with pytest.raises(BiwaaError, match=r"only in x: b; only in x: c"):
        check_pair(source, target, 2)
