"""A finished model on new images without labels: the estimate, what moved, and a pipeline's gate."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY, command, installed, write_images
from test_bad_input import refused
from test_place import rows

import biwaa
from biwaa.judging.later import COMBINED, later_estimates, moved_classes
from biwaa.judging.metrics import agreement_with_neighbours
from biwaa.report.later import Thresholds, later_prometheus
from biwaa.tensors import load_tensors, save_tensors
from biwaa.training.folder import RunFolder
from biwaa.training.later import estimate_later
from biwaa.training.stage import BESIDE, load_network_state, load_sample, load_stage

CLASSES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory, _own_cache):
    """A solved run on features, and an .npz file with new rows of the target and the source."""
    place = tmp_path_factory.mktemp("later")
    (source, labels), (target, _) = rows(240, "source", 0), rows(240, "target", 1)
    biwaa.adapt((source, labels), target, out=place / "run", verbose=False)
    new = {}
    for name in ("source", "target"):
        new[f"{name}_x"], new[f"{name}_y"] = rows(150, name, 2)
    new["one_x"] = new["target_x"][new["target_y"] == 1]
    new["near_x"], new["near_y"] = new["target_x"] + np.float32(0.8) * (np.arange(16) > 2), new["target_y"]
    new["few_x"] = new["target_x"][:1]
    new["narrow_x"] = new["target_x"][:, :5]
    np.savez(place / "new.npz", **new)
    return place / "run"


def new(run, name):
    return f"{run.parent / 'new.npz'}:{name}"


def accuracy(run, name):
    kept = np.load(run.parent / "new.npz")
    return float((biwaa.load(run).predict(kept[f"{name}_x"]) == kept[f"{name}_y"]).mean())


def told(run, name, *words):
    done = command("estimate", run, new(run, name), "--json", *words)
    assert done.stdout.count("\n") == 1, done
    return json.loads(done.stdout), done.returncode


def test_new_images_of_the_place_have_an_estimate_that_holds_the_accuracy(run):
    found, code = told(run, "target")
    right = accuracy(run, "target")
    given = found["estimated_accuracy"]
    assert set(COMBINED) <= set(given["readings"])
    assert given["low"] <= right <= given["high"]
    assert abs(given["value"] - right) < 0.05
    assert (found["moved"], found["adapt_again"], found["images"], code) == (False, False, 150, 0)
    assert not any(one["moved"] for one in found["classes"].values())


def test_the_runs_own_target_gets_the_runs_own_estimate(run):
    result = biwaa.Run(run).result
    found = biwaa.Run(run).estimate(rows(240, "target", 1)[0])
    assert found.estimated_accuracy == result.estimated_accuracy
    assert (found.estimated_accuracy.value, found.moved) == (found.estimate_of_the_run, False)


def test_labels_are_not_looked_at(run, tmp_path):
    kept = dict(np.load(run.parent / "new.npz"))
    np.savez(tmp_path / "new.npz", target_x=kept["target_x"], target_y=(kept["target_y"] + 1) % CLASSES)
    done = command("estimate", run, f"{tmp_path / 'new.npz'}:target", "--json")
    found, _ = told(run, "target")
    assert json.loads(done.stdout) | {"spec": ""} == found | {"spec": ""}


def test_another_place_is_told(run):
    """Nearby with an estimate that holds the accuracy."""
    found, _ = told(run, "near")
    assert found["moved"] is found["adapt_again"] is True
    assert found["shift"] > found["shift_limit"]
    right = accuracy(run, "near")
    given = found["estimated_accuracy"]
    assert given["low"] <= right <= given["high"]


def test_a_place_far_away_gets_no_estimate(run):
    """Here every reading is sure, and most images are wrong."""
    found, _ = told(run, "source")
    assert (found["moved"], found["withheld"]) == (True, "moved_far")
    assert found["estimated_accuracy"]["value"] is None
    assert min(found["estimated_accuracy"]["readings"].values()) > 0.8
    assert accuracy(run, "source") < 0.5
    assert "farther than any" in command("estimate", run, new(run, "source")).stdout


def test_other_shares_of_classes_are_no_other_place(run):
    found, _ = told(run, "one")
    assert found["moved"] is False
    assert found["estimated_accuracy"]["value"] > 0.9
    assert all(one["moved"] for one in found["classes"].values())
    assert found["shares_moved_by"] == pytest.approx(2 / 3, abs=0.03)


def test_few_images_have_no_interval(run):
    found, _ = told(run, "few")
    assert found["moved"] is False
    assert found["estimated_accuracy"]["value"] > 0.9
    assert found["estimated_accuracy"]["low"] is None
    done = command("estimate", run, new(run, "few"))
    assert "not measured for fewer than 50 images" in done.stdout


@pytest.mark.parametrize(
    "words, name, unmet",
    [
        (("--least-accuracy", "0.8"), "target", []),
        (("--least-bound", "0.7", "--not-moved"), "target", []),
        (("--least-bound", "1"), "target", ["least_bound"]),
        (("--least-accuracy", "0.99"), "source", ["least_accuracy"]),
        (("--not-moved", "--least-accuracy", "0"), "near", ["not_moved"]),
    ],
)
def test_a_threshold_decides_the_exit_code(run, words, name, unmet):
    found, code = told(run, name, *words)
    assert found["unmet"] == unmet
    assert code == (1 if unmet else 0)
    done = command("estimate", run, new(run, name), *words)
    assert done.returncode == code
    assert done.stdout.count("not met: ") == len(unmet)


def test_the_installed_command_is_a_gate(run, tmp_path):
    out = tmp_path / "biwaa.prom"
    done = installed("estimate", run, new(run, "source"), "--not-moved", "--prometheus", "--out", out)
    assert done.returncode == 1, done.stderr
    assert done.stdout == out.read_text()
    assert "\nbiwaa_moved{" in done.stdout
    assert "Traceback" not in done.stderr


def test_prometheus_text_is_parsed_by_its_own_grammar(run, tmp_path):
    """Each line a comment or NAME{LABELS} NUMBER; quotes, newlines and backslashes in names are escaped."""
    folder = tmp_path / 'a "new"\\run'
    shutil.copytree(run, folder)
    found = estimate_later(folder, biwaa.domains.spec.open_domain(new(run, "target")))
    text = later_prometheus(found, Thresholds())
    metrics = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            series, _, number = line.rpartition(" ")
            metrics[series.partition("{")[0]] = float(number)
            assert 'run="' + str(folder).replace("\\", "\\\\").replace('"', '\\"') + '"' in series
    assert metrics["biwaa_estimated_accuracy"] == pytest.approx(found.estimated_accuracy.value)
    assert metrics["biwaa_moved"] == 0
    assert text.count("# TYPE biwaa_predicted_share gauge") == 1
    assert text.count("\nbiwaa_predicted_share{") == CLASSES


def test_from_python(run):
    features, _ = rows(150, "target", 2)
    found = biwaa.Run(run).estimate(features)
    assert found.estimated_accuracy.value == pytest.approx(told(run, "target")[0]["estimated_accuracy"]["value"])
    assert found.images == 150


def test_a_model_file_alone_has_confidence_without_an_interval(run, tmp_path):
    found = json.loads(command("estimate", run / "model.safetensors", new(run, "target"), "--json").stdout)
    assert list(found["estimated_accuracy"]["readings"]) == ["confidence"]
    assert found["estimated_accuracy"]["low"] is None
    assert found["moved"] is False
    words = command("estimate", run / "model.safetensors", new(run, "target"), "--least-bound", "0.1")
    assert words.returncode == 1  # what is unknown meets no threshold
    assert "mean confidence alone" in words.stdout
    moved = json.loads(command("estimate", run / "model.safetensors", new(run, "source"), "--json").stdout)
    assert moved["withheld"] == "moved_far"
    moved = json.loads(command("estimate", run / "model.safetensors", new(run, "near"), "--json").stdout)
    assert moved["withheld"] == "moved"
    assert moved["estimated_accuracy"]["value"] is None


def test_a_run_in_doubt_gives_no_estimate(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    result["warnings"] = [{"code": "far_from_source", "share": 0.9}]
    result["estimated_accuracy"]["value"] = None  # as a run with this warning writes it
    (tmp_path / "run" / "result.json").write_text(json.dumps(result))
    found = json.loads(command("estimate", tmp_path / "run", new(run, "target"), "--json").stdout)
    assert found["withheld"] == "run_in_doubt"
    assert found["estimated_accuracy"]["value"] is None
    assert "no class of the source" in command("estimate", tmp_path / "run", new(run, "target")).stdout


def test_a_run_without_its_stages_still_has_something_to_say(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    found = json.loads(command("estimate", tmp_path / "run", new(run, "target"), "--json").stdout)
    assert found["estimated_accuracy"]["value"] is None
    assert found["moved"] is False
    assert "kept nothing to estimate from" in command("estimate", tmp_path / "run", new(run, "target")).stdout


def test_a_sample_is_read_and_every_image_counted(run, monkeypatch):
    read = []

    def spied(new, *others):
        read.append(len(new.probabilities))
        return later_estimates(new, *others)

    monkeypatch.setattr("biwaa.training.later.SAMPLE", 60)
    monkeypatch.setattr("biwaa.training.later.later_estimates", spied)
    found, (every, _) = biwaa.Run(run).estimate(rows(150, "target", 2)[0]), told(run, "target")
    assert (found.images, read) == (150, [60, 60])
    assert {name: one.now for name, one in found.classes.items()} == {
        name: one["now"] for name, one in every["classes"].items()
    }
    assert found.shift == pytest.approx(every["shift"])


def test_of_a_finished_stage_a_sample_of_the_target_is_loaded(run, tmp_path):
    tensors, facts = load_tensors(RunFolder(run).stage("round 0"))
    rows = torch.tensor([3, 5, 200])
    shutil.copytree(run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    some = tensors | {"rows": rows, "features": tensors["features"][rows]}
    save_tensors(folder.stage("round 0"), some, **facts)
    (found, places), whole = load_sample(folder, "round 0"), load_stage(folder, "round 0").evidence
    assert places.tolist() == rows.tolist()
    assert torch.equal(found.probabilities, whole.probabilities[rows])
    assert torch.equal(found.predicted, whole.predicted)
    assert found.features.shape == (3, tensors["features"].shape[1])
    state = load_network_state(folder, "round 0")
    assert "classifier.weight" in state
    assert not BESIDE & set(state)


def test_a_source_only_run_is_its_own_reference(tmp_path):
    (source, labels), (target, _) = rows(240, "target", 0), rows(240, "target", 1)
    run = biwaa.adapt((source, labels), target, out=tmp_path / "run", method="source_only", verbose=False)
    found = run.estimate(rows(150, "target", 2)[0]).estimated_accuracy
    assert set(COMBINED) <= set(found.readings)
    assert found.low is not None


def test_stages_of_another_run_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "source-only.safetensors"
    state, facts = load_tensors(path)
    save_tensors(path, {name: part for name, part in state.items() if name != "classifier.weight"}, **facts)
    refused(command("estimate", tmp_path / "run", new(run, "target")), "no finished stage of this run")


def test_images_and_a_network_trained_whole(tmp_path):
    """Without an interval, since errors were not measured; an unreadable image is an error or left out."""
    source = write_images(tmp_path / "source", {"cat": 20, "dog": 20}, seed=0)
    target = write_images(tmp_path / "target", {"cat": 30, "dog": 30}, seed=1)
    recipe = TINY.replace("test", steps=10, crops=1)
    run = biwaa.adapt(source, target, out=tmp_path / "run", recipe=recipe, verbose=False).folder
    later = write_images(tmp_path / "later", {"cat": 8, "dog": 8}, seed=2)
    found = json.loads(command("estimate", run, later, "--json").stdout)
    assert found["estimated_accuracy"]["low"] is None
    assert found["images"] == 16
    (later / "cat" / "0.png").write_text("no image")
    refused(command("estimate", run, later), "--skip-unreadable")
    found = json.loads(command("estimate", run, later, "--skip-unreadable", "--json").stdout)
    assert (found["images"], found["left_out"]) == (15, 1)


@pytest.mark.parametrize(
    "words, why",
    [
        (("--least-accuracy", "70"), "between 0 and 1"),
        (("--json", "--prometheus"), "give one"),
        (("--batch-size", "0"), "at least 1"),
    ],
)
def test_what_is_refused(run, words, why):
    refused(command("estimate", run, new(run, "target"), *words), why)


def test_bad_folders_are_refused(run, tmp_path):
    refused(command("estimate", run, new(run, "narrow")), "16 a row")
    refused(command("estimate", tmp_path, new(run, "target")), "no model")
    (tmp_path / "empty").mkdir()
    refused(command("estimate", run, tmp_path / "empty"), "")


def test_a_class_moves_beyond_chance_alone():
    """False alarms over draws of the same shares are at most 5 %; a third that becomes a half is found."""
    rng = np.random.default_rng(0)
    shares, alarms = np.array([0.1, 0.3, 0.6]), 0
    for _ in range(200):
        before, now = rng.multinomial(300, shares), rng.multinomial(120, shares)
        alarms += moved_classes(before, now).any()
    assert alarms <= 12
    found = moved_classes(np.array([100, 100, 100]), np.array([150, 75, 75]))
    assert found.tolist() == [True, False, False]


@pytest.mark.parametrize("block", [18, 2**24])
def test_neighbours_among_others_against_a_slow_loop(block, monkeypatch):
    monkeypatch.setattr("biwaa.functional.neighbours.BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    mine, theirs = torch.randn(7, 4, generator=generator), torch.randn(9, 4, generator=generator)
    predicted, others = torch.arange(7) % 2, torch.arange(9) % 2
    total = 0.0
    for row, label in zip(mine, predicted, strict=True):
        cosines = [float(row @ one / row.norm() / one.norm()) for one in theirs]
        nearest = sorted(range(9), key=lambda one: -cosines[one])[:5]
        total += sum(int(others[one] == label) for one in nearest) / 5
    assert agreement_with_neighbours(mine, predicted, theirs, others) == pytest.approx(total / 7)


def test_update_adapts_to_the_new_images_in_a_folder_of_its_own(run, tmp_path):
    """The old run stays byte for byte; the new one is named after it; thresholds are still those of the old."""
    for name in ("source", "target"):
        features, labels = rows(240, name, 0 if name == "source" else 1)
        np.savez(tmp_path / f"{name}.npz", all_x=features, all_y=labels)
    old = biwaa.adapt(f"{tmp_path}/source.npz:all", f"{tmp_path}/target.npz:all", out=tmp_path / "run", verbose=False)
    before = {path: path.read_bytes() for path in old.folder.rglob("*") if path.is_file()}
    assert biwaa.Run(old.folder).result.target.spec.endswith("target.npz:all")
    done = command("estimate", old.folder, new(run, "near"), "--json", "--update", "--not-moved")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["updated"] == str(tmp_path / "run-2")
    assert {path: path.read_bytes() for path in old.folder.rglob("*") if path.is_file()} == before
    updated = biwaa.Run(tmp_path / "run-2")
    kept = np.load(run.parent / "new.npz")
    assert updated.result.target.images == len(kept["near_x"])
    assert (updated.predict(kept["near_x"]) == kept["near_y"]).mean() > 0.9
    assert updated.update(new(run, "target")).folder == tmp_path / "run-3"
    assert biwaa.Run(old.folder).update(new(run, "target"), out=tmp_path / "named").folder == tmp_path / "named"
    (tmp_path / "source.npz").unlink()
    done = command("estimate", old.folder, new(run, "near"), "--update")
    refused(done, "cannot be opened to adapt from it again", "source.npz")
