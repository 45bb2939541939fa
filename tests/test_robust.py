"""What the recipe `robust` adds: a teacher out of earlier rounds, class confusion, held-out source, a choice."""

import csv
import json
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import train_pair, write_images
from hypothesis import given, settings

from biwaa.cli import main
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.functional import (
    align_distribution,
    coral,
    neighbours_of_a_class,
    reliability,
    smooth_over_neighbours,
    teacher_cross_entropy,
)
from biwaa.judging.choice import choose
from biwaa.judging.evidence import Evidence
from biwaa.methods.biwaa import Biwaa, BiwaaSettings
from biwaa.methods.dann import DannSettings
from biwaa.methods.method import Task
from biwaa.methods.pace import most_confident
from biwaa.named_recipes import NAMED
from biwaa.recipe import load_recipe, recipe_from, with_method
from biwaa.result import read_result
from biwaa.result.warnings import Collapsed, DiscriminatorIdle
from biwaa.tensors import load_tensors

quick = settings(max_examples=30, deadline=None)
shapes = given(st.integers(2, 12), st.integers(2, 5), st.integers(0, 2**31))


def drawn(count, classes, seed):
    logits = 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(dim=1)


@shapes
@quick
def test_smoothing_is_the_formula(count, classes, seed):
    p = drawn(count, classes, seed)
    neighbours = torch.randint(count, (count, 3), generator=torch.Generator().manual_seed(seed))
    g = p.tolist()
    for _ in range(4):
        after = []
        for i in range(count):
            r = (max(p[i].tolist()) - 1 / classes) / (1 - 1 / classes)
            a = 0.9 * (1 - r**4)
            mean = [sum(g[j][k] for j in neighbours[i].tolist()) / 3 for k in range(classes)]
            after.append([(1 - a) * float(p[i, k]) + a * mean[k] for k in range(classes)])
        g = after
    found = smooth_over_neighbours(p, neighbours, pull=0.9, iterations=4)
    torch.testing.assert_close(found, torch.tensor(g, dtype=torch.float64))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(count, dtype=torch.float64))


def test_certain_images_pull_uncertain_ones():
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.45, 0.55]])
    found = smooth_over_neighbours(p, torch.tensor([[1, 2], [0, 2], [0, 1]]))
    assert found.argmax(dim=1).tolist() == [0, 0, 0]
    torch.testing.assert_close(found[:2], p[:2])


@given(st.integers(5, 40), st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([0.0, 0.5, 0.75, 1.0]))
@quick
def test_aligned_distribution_has_the_damped_shares(count, classes, seed, damping):
    p = drawn(count, classes, seed)
    wanted = p.mean(dim=0) ** damping
    wanted = wanted / wanted.sum()
    found = align_distribution(p, damping, iterations=2000)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(count, dtype=torch.float64))
    torch.testing.assert_close(found.mean(dim=0), wanted, rtol=0.02, atol=5e-3)


def test_a_class_that_is_never_predicted_makes_no_nan():
    p = torch.tensor([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    found = align_distribution(p, 0.75)
    assert found.isfinite().all()
    assert found[:, 2].sum() == 0


def test_reliability_runs_from_chance_to_certainty():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0], [0.625, 0.125, 0.125, 0.125]])
    torch.testing.assert_close(reliability(p), torch.tensor([0.0, 1.0, 0.5]))


@shapes
@quick
def test_teacher_cross_entropy(batch, classes, seed):
    logits, teacher = drawn(batch, classes, seed) * 4, drawn(batch, classes, seed + 1)
    total = 0.0
    for row, theirs in zip(logits.tolist(), teacher.tolist(), strict=True):
        label = theirs.index(max(theirs))
        r = (max(theirs) - 1 / classes) / (1 - 1 / classes)
        total -= r**2 * (row[label] - math.log(sum(math.exp(v) for v in row)))
    assert float(teacher_cross_entropy(logits, teacher)) == pytest.approx(total / batch, rel=1e-8)


@pytest.mark.parametrize(
    ("factors", "kept"),
    [
        ({}, set()),
        ({"adversarial": 1.0}, {"discriminator", "memory"}),
        ({"adversarial": 1.0, "weighting": False}, {"discriminator"}),
        ({"separation": 1.0}, {"source_centroids", "target_centroids", "memory"}),
    ],
)
def test_what_no_loss_reads_is_not_kept(factors, kept):
    """Neither in memory nor in checkpoints: of ten million images the label memory alone would be gigabytes."""
    none = {"adversarial": 0.0, "alignment": 0.0, "separation": 0.0}
    method = Biwaa(Task(8, 3, 20, 100), DannSettings(), BiwaaSettings(**none | factors))
    assert {name.split(".")[0] for name in method.state_dict()} == kept


def test_neighbours_are_the_nearest(monkeypatch):
    monkeypatch.setattr("biwaa.functional.neighbours.BLOCK", 7 * 40)
    features = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    found = neighbours_of_a_class(features, 4, 5)
    for i in range(40):
        cosines = [float(F.cosine_similarity(features[i], features[j], dim=0)) if j != i else -2 for j in range(40)]
        assert sorted(found[i].tolist()) == sorted(np.argsort(cosines)[::-1][:4].tolist())
    assert neighbours_of_a_class(features, 30, 5).shape == (40, 4)  # half of a class
    assert neighbours_of_a_class(features[:3], 30, 5).shape == (3, 2)


@shapes
@quick
def test_most_confident_share_of_each_class(count, classes, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(count) * (rng.random(count) > 0.2)
    predicted = rng.integers(classes, size=count)
    expected = np.zeros(count)
    for k in range(classes):
        rows = [i for i in range(count) if predicted[i] == k and confidence[i] > 0]
        rows.sort(key=lambda i: -confidence[i])
        expected[rows[: round(0.4 * len(rows))]] = 1
    found = most_confident(torch.from_numpy(confidence), torch.from_numpy(predicted), 0.4)
    assert found.tolist() == expected.tolist()


def test_coral_gives_the_source_the_targets_covariance():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=generator)
    source = 20 * torch.randn(3000, 4, generator=generator)  # wide, so that the added identity hardly counts
    target = 20 * torch.randn(3000, 4, generator=generator) @ mix
    source, target = source - source.mean(0), target - target.mean(0)
    found = coral(source, target)
    torch.testing.assert_close(torch.cov(found.T), torch.cov(target.T), rtol=0.02, atol=3.0)


GOOD = Evidence(F.one_hot(torch.arange(30) % 3, 3).float() * 0.9 + 1 / 30)
DEAD = Evidence(torch.tensor([[0.9, 0.05, 0.05]]).repeat(30, 1))


def test_choice():
    pool = {"source-only": GOOD, "round 0": DEAD, "round 1": DEAD}
    assert choose(pool, "last") == "round 1"
    assert choose(pool, "information_maximisation") == "source-only"
    assert choose({"source-only": GOOD, "round 0": GOOD}, "information_maximisation") == "source-only"
    assert choose({"source-only": DEAD, "round 0": GOOD}, "nuclear_norm") == "round 0"
    with pytest.raises(BiwaaError, match="source-held-out"):
        choose(pool, "source_accuracy")
    with pytest.raises(BiwaaError, match="no choice 'best'"):
        choose(pool, "best")


TINY = recipe_from(
    {**NAMED["robust"], "backbone": "cnn", "weights": "none", "steps": 6, "rounds": 3, "scouts": 2, "batch_size": 8,
     "image_size": 12, "resize": 14, "crops": 1, "augment": "none", "bottleneck": 8, "discriminator": 16,
     "source_held_out": 0.25, "log_every": 2, "checkpoint_every": 4},
    "test",
)  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    source = write_images(tmp_path / "source", {"cat": 16, "dog": 12, "eel": 14}, seed=0, size=16)
    target = write_images(tmp_path / "target", {"cat": 9, "dog": 12, "eel": 11}, seed=1, size=24)
    return open_domain(str(source)), open_domain(str(target))


def contents(path):
    return (path / "model.safetensors").read_bytes(), (path / "predictions.csv").read_bytes()


def test_a_robust_run_reports_how_far_to_trust_it(pair, tmp_path):
    run = train_pair(*pair, TINY, tmp_path / "run")
    result = run.result
    assert result.finished
    assert result.method == read_result(tmp_path / "run").method == "mcc_teacher"
    assert [stage.name for stage in result.stages] == ["source-only", "round 0", "round 1", "round 2"]
    assert all(stage.validators and None not in stage.validators.values() for stage in result.stages)
    assert all(0 <= value <= 1 for value in result.estimated_accuracy.readings.values())
    assert result.calibration.temperature > 0
    assert None not in (result.calibration.held_out_source, result.calibration.target)
    with (tmp_path / "run" / "log.jsonl").open() as file:
        terms = {entry["stage"]: set(entry) for entry in map(json.loads, file)}
    assert all("confusion" in terms[f"round {number}"] for number in range(3))
    assert [name for name, losses in terms.items() if "pseudo_label" in losses] == ["round 2"]  # the scouts have none
    assert not any("domain" in losses for losses in terms.values())
    held = load_tensors(run.folder.stage("round 0"))[0]["source_labels"]
    assert len(held) == 4 + 3 + round(0.25 * 14)
    predicted = load_tensors(run.folder.stage(result.model.stage))[0]["probabilities"].argmax(dim=1).tolist()
    with (tmp_path / "run" / "predictions.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == [result.classes[k] for k in predicted]


def test_a_robust_run_goes_on_to_the_byte(pair, tmp_path):
    train_pair(*pair, TINY, tmp_path / "whole")
    run = train_pair(*pair, TINY, tmp_path / "cut")
    run.folder.stage("round 2").unlink()
    train_pair(*pair, TINY, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_the_model_is_that_of_the_selected_stage(pair, tmp_path):
    """The stage with the best score of that name; the model's tensors are that stage's."""
    run = train_pair(*pair, TINY.replace(choice="entropy"), tmp_path / "run")
    best = max(run.result.stages, key=lambda stage: stage.validators["entropy"]).name
    assert (run.result.model.stage, run.result.model.chosen_by) == (best, "entropy")
    assert run.result.selected.name == best
    model, stage = load_tensors(run.folder.model)[0], load_tensors(run.folder.stage(best))[0]
    assert torch.equal(model["classifier.weight"], stage["classifier.weight"])


def test_warnings_of_runs_that_fail_so(pair, tmp_path):
    """A discriminator that cannot learn, and a target that is one class for the model: each has its warning."""
    source, target = pair
    still = TINY.replace(method="biwaa", learning_rate=1e-9, choice="last")
    found = train_pair(source, Domain(target.spec, target.images), still, tmp_path / "still").result.warnings
    assert any(isinstance(warning, DiscriminatorIdle) for warning in found)
    grey = write_images(tmp_path / "grey", {"x": 30}, seed=3, size=24)
    same = open_domain(str(grey / "x"))
    found = train_pair(source, same, TINY.replace(steps=60), tmp_path / "grey-run").result.warnings
    assert any(isinstance(warning, Collapsed) for warning in found)


def test_bad_settings_are_refused_by_name(pair, tmp_path, capsys):
    words = ["train", "--source", pair[0].spec, "--target", pair[1].spec, "--out", str(tmp_path / "run"), "--backbone",
             "cnn", "--weights", "none", "--image-size", "12", "--batch-size", "8"]  # fmt: skip
    assert main([*words, "--choice", "best"]) == 2
    assert "no choice 'best'" in capsys.readouterr().err
    assert main([*words, "--source-held-out", "0.9"]) == 2
    assert "--source-held-out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_robust_is_the_default_of_train(capsys):
    assert main(["train", "--help"]) == 0
    assert "[robust]" in capsys.readouterr().out
    for frozen, choice in ((True, "last"), (False, "nuclear_norm")):
        assert with_method(load_recipe("robust").replace(freeze_backbone=frozen)).schedule.choice == choice
