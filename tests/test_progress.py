"""What long work shows: one live line in a terminal, plain lines elsewhere; what it will cost, and what is left."""

import io
import re
import sys
import time

import pytest
from conftest import TINY

from biwaa import progress
from biwaa.bench.command import at_work
from biwaa.bench.grid import Work
from biwaa.progress import Whole, duration, track, was_done, whole
from biwaa.training.cost import foretold, planned_images, stage_names


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59, "59 s"), (200, "3 min 20 s"), (3599, "60 min"), (7500, "2 h 5 min"), (400_000, "5 days")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_what_is_left_is_of_all_parts(clock):
    """By the speed of this sitting, the first step left out; what was done earlier and what lies between count."""
    told = []
    work = Whole(100, lambda seconds: told.append(seconds) or "told")
    for step in range(4):
        clock[0] += 50 if step == 0 else 2
        work.add(10)
    assert (told, work.left()) == ([pytest.approx(0.2)], "12 s left in all")
    clock[0] += 6  # a prediction
    assert work.left() == "24 s left in all"


def test_the_words_of_the_cost():
    """Source-only sees one domain, a round both; a frozen backbone is offered where it would be quicker and can be."""
    recipe = TINY.replace(method="mcc", backbone="resnet50", weights="auto", rounds=5, steps=300, batch_size=72)
    assert stage_names(recipe) == ["source-only", *(f"round {number}" for number in range(5))]
    assert planned_images(recipe) == 300 * 72 * (1 + 2 * 5)
    words = foretold(recipe, 2470)
    assert words(1 / 6).startswith(
        "about 11 h 0 min of training in all, by the first steps (source-only: 300 steps of 12 s, rounds: 5 times 300 "
        "steps of 24 s). Faster: --freeze-backbone passes each of the 2470 images through the backbone once; this run"
    )
    assert "Faster" not in words(1e-5)
    for other in ({"weights": "none"}, {"method": "fixmatch"}, {"freeze_backbone": True}):
        assert "Faster" not in foretold(recipe.replace(**other), 2470)(1.0)
    assert not planned_images(recipe.replace(method="prototypes", freeze_backbone=True, baseline=True))


def test_one_live_line(monkeypatch, clock):
    """A finished bar goes from the screen; what stays is what was said."""
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with whole(30, lambda seconds: "the whole is foretold"):
        for stage in ("source-only", "round 0"):
            with track(stage, 3, work=5) as advance:
                for step in range(3):
                    clock[0] += 2
                    advance(step + 1, {"loss": 1.0})
    text = screen.getvalue()
    assert "left in all" in text
    assert text.count("the whole is foretold") == 1
    assert text.count("\x1b[2K") >= 2  # lines that were erased


def test_plain_lines_tell_the_time_left_of_all(capsys, clock):
    with whole(60, str):
        was_done(20)
        with track("round 1", 4, start=1, work=10) as advance:
            for step in range(1, 4):
                clock[0] += 12
                advance(step + 1)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("round 1")]
    assert lines[-2:] == ["round 1: 3/4 steps, 0.1/s, 12 s left in all", "round 1: 4/4 steps, 0.1/s, 0 s left in all"]


def test_a_bench_tells_what_its_processes_do(tmp_path, monkeypatch, capsys):
    """Time passes and features are computed in other processes; a run that was finished before is no speed."""
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.05)
    monkeypatch.setattr(progress, "CALM_SECONDS", 0.0)
    work = Work("A2W.mcc.1", "a", "b", None, {}, tmp_path, tmp_path)
    assert at_work([work]) == ""
    work.run.parent.mkdir()
    work.running.write_text("1")
    work.log.write_text("first\nfeatures of amazon: 320/2817 images, 14.0/s, 2 min 58 s left\n")
    with track("office31/methods", 6, "runs", 2, others=lambda: at_work([work])) as advance:
        advance(2)
        time.sleep(0.2)
    line = next(line for line in capsys.readouterr().err.splitlines() if "amazon" in line)
    told = r"in training: A2W\.mcc\.1 \(features of amazon: 320/2817 images, 14\.0/s, 2 min 58 s left\)"
    assert re.fullmatch(rf"office31/methods: 2/6 runs, \d s so far  {told}", line)
