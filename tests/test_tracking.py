"""Trackers hear what log.jsonl says: TensorBoard in its own files; W&B and MLflow through stand-ins of their calls."""

import contextlib
import json
import sys
import types

import pytest
from conftest import TINY

import biwaa
from biwaa.cli import main
from biwaa.recipe import dump_recipe
from biwaa.training.tracking import track_run


def test_tensorboard_has_the_log(tiny_run, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    place = tiny_run.parent
    (tmp_path / "tiny.yaml").write_text(dump_recipe(TINY))
    words = ["train", "--source", place / "source", "--target", place / "target", "--out", tmp_path / "run"]
    assert main([*map(str, words), "--recipe", str(tmp_path / "tiny.yaml"), "--track", "tensorboard"]) == 0
    run = biwaa.Run(tmp_path / "run")
    assert (run.folder / "model.safetensors").read_bytes() == (tiny_run / "model.safetensors").read_bytes()
    events = EventAccumulator(str(tmp_path / "tracking" / "run"))
    events.Reload()
    log = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for stage in ("source-only", "round 0"):
        expected = [(line["step"], line["classification"]) for line in log if line["stage"] == stage]
        found = events.Scalars(f"{stage.replace(' ', '_')}/classification")
        assert [(event.step, event.value) for event in found] == [
            (step, pytest.approx(value)) for step, value in expected
        ]
    accuracy = run.result.accuracy.adapted
    assert events.Scalars("accuracy/over_images")[0].value == pytest.approx(accuracy.over_images)
    assert events.Scalars("accuracy/over_classes")[0].value == pytest.approx(accuracy.over_classes)
    estimate = run.result.estimated_accuracy.value
    assert events.Scalars("estimated_accuracy/value")[0].value == pytest.approx(estimate)


class Recorder:
    """Remembers calls, whatever they are."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*values, **named):
            self.calls.append((name, values, named))
            return contextlib.nullcontext(self)

        return call


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_calls_of_the_others(name, tmp_path, monkeypatch):
    recorder = Recorder()
    fake = types.ModuleType(name)
    fake.__getattr__ = lambda attribute: getattr(recorder, attribute)
    monkeypatch.setitem(sys.modules, name, fake)
    with track_run([name], tmp_path / "run", TINY) as tracker:
        tracker.listeners[0]({"stage": "round 0", "step": 20, "classification": 0.5})
    assert recorder.calls[0][2].get("name", recorder.calls[0][2].get("run_name")) == "run"
    assert any(TINY.schedule.steps == values.get("steps") for call in recorder.calls for values in _mappings(call))
    assert any(values.get("round 0/classification") == 0.5 for call in recorder.calls for values in _mappings(call))


def _mappings(call):
    _, values, named = call
    return [part for part in (*values, *named.values()) if isinstance(part, dict)]


def test_the_first_process_alone_tracks(tmp_path, monkeypatch):
    fake = types.ModuleType("wandb")
    recorder = Recorder()
    fake.init = recorder.init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID"):
        with monkeypatch.context() as second:
            second.setenv(name, "1")
            with track_run(["wandb"], tmp_path / "run", TINY) as tracker:
                assert not tracker.listeners
    assert not recorder.calls
    with track_run(["wandb"], tmp_path / "run", TINY) as tracker:
        assert tracker.listeners


def test_a_tracker_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with (
        pytest.raises(biwaa.BiwaaError, match="--track mlflow needs mlflow: pip install 'mlflow'"),
        track_run(["mlflow"], tmp_path / "run", TINY),
    ):
        pass
    with (
        pytest.raises(biwaa.BiwaaError, match="no tracker is called 'paper'"),
        track_run(["paper"], tmp_path / "run", TINY),
    ):
        pass
