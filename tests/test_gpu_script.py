"""Of benchmarks/gpu.py, on the CPU: its parts are written one by one, and the same call goes on after the last."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from gpu import measure, parts, trainings

MACHINE = {"hardware": "this one"}


def test_it_goes_on_after_the_last_part(tmp_path, capsys):
    out, done, broken = tmp_path / "gpu.json", [], [True]

    def first():
        done.append("first")
        return {"value": 1}

    def second():
        if broken.pop() if broken else False:
            raise RuntimeError("the device is gone")
        done.append("second")
        return {"value": 2}

    todo = [("first", first), ("second", second)]
    with pytest.raises(RuntimeError):
        measure(iter(todo), out, MACHINE, 9.0)
    assert json.loads(out.read_text())["parts"] == {"first": {"value": 1}}
    found = measure(iter(todo), out, MACHINE, 9.0)
    assert done == ["first", "second"]
    assert found == json.loads(out.read_text())
    assert found["parts"] == {"first": {"value": 1}, "second": {"value": 2}}
    assert found["hardware"] == "this one"
    with pytest.raises(SystemExit, match="another machine"):
        measure(iter(todo), out, {"hardware": "that one"}, 9.0)


def test_no_part_begins_that_would_not_end_in_time(tmp_path, capsys):
    """By the longest one of its kind so far: the second training is not begun, as the first took too long."""
    out = tmp_path / "gpu.json"
    out.write_text(json.dumps({**MACHINE, "parts": {"training A": 1}, "took": {"training A": 600.0}}))
    todo = [("training A", None), ("training B", lambda: 1 / 0)]
    assert "training B" not in measure(iter(todo), out, MACHINE, 9.0)["parts"]
    assert "9.0 minutes are over before 'training B'" in capsys.readouterr().out


def test_its_parts_in_small(tmp_path):
    """Steps are near float64's, and the paper's method and its bounded form are trained end to end in rounds."""
    trained = trainings("digits", ("plain2photographs",), None, True, (42,))
    every = list(parts(torch.device("cpu"), True, None, trained))
    names = [name for name, _ in every]
    assert names[:5] == ["correctness", "losses", "crops", "32-true", "bf16-mixed"]
    runs = [f"training plain2photographs.{name}.42" for name in ("source_only", "dann", "weighting", "paper", "biwaa")]
    assert names[5:] == runs
    chosen = [part for part in every if part[0] in ("correctness", runs[0], runs[4])]
    found = measure(iter(chosen), tmp_path / "gpu.json", MACHINE, 9.0)["parts"]
    assert max(found["correctness"].values()) < 1e-5
    assert len(found[runs[0]]["by_round"]) == 1
    assert len(found[runs[4]]["by_round"]) == 2
    assert found[runs[4]]["steps"] == 4
