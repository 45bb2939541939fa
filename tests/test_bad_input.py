"""Wrong input through the installed command: one clear sentence, exit code 2, no traceback, nothing lost."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_images

COMMAND = Path(sys.executable).parent / "biwaa"
TINY = ["--backbone", "cnn", "--weights", "none", "--image-size", "12", "--resize", "12", "--augment", "none",
        "--crops", "1", "--steps", "4", "--rounds", "1", "--batch-size", "6", "--bottleneck", "8",
        "--discriminator", "8"]  # fmt: skip


def biwaa(*words, cwd=None):
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [COMMAND, *map(str, words)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


def train(source, target, out, *more):
    return biwaa("train", "--source", source, "--target", target, "--out", out, *TINY, *more)


def refused(done, *words):
    """Exit code 2 and one sentence with `words` in it."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("biwaa: error:")]
    for word in words:
        assert str(word) in line, line


@pytest.fixture
def pair(tmp_path):
    """A source and a target that work."""
    source = write_images(tmp_path / "source", {"cat": 8, "dog": 8}, seed=0)
    target = write_images(tmp_path / "target", {"cat": 7, "dog": 7}, seed=1)
    return source, target


def test_no_such_folder(pair, tmp_path):
    refused(train(tmp_path / "gone", pair[1], tmp_path / "run"), "no such folder", tmp_path / "gone")
    assert not (tmp_path / "run").exists()


def test_empty_class(pair, tmp_path):
    (pair[0] / "eel").mkdir()
    refused(train(*pair, tmp_path / "run"), "no image in class folder", "eel")


def test_one_class(pair, tmp_path):
    shutil.rmtree(pair[0] / "dog")
    refused(train(*pair, tmp_path / "run"), "one class", "cat", "two or more")


def test_class_in_one_domain_only(pair, tmp_path):
    (pair[1] / "dog").rename(pair[1] / "wolf")
    refused(train(*pair, tmp_path / "run"), "only in", "dog", "wolf")


def test_fewer_images_than_a_batch(pair, tmp_path):
    refused(train(*pair, tmp_path / "run", "--batch-size", "15"), "14 images", "batch of 15", "--batch-size 14")


@pytest.mark.parametrize("frozen", [False, True], ids=["end to end", "frozen"])
def test_unreadable_images_stop_before_training_and_can_be_skipped(pair, tmp_path, frozen):
    whole = (pair[1] / "cat" / "0.png").read_bytes()
    (pair[1] / "cat" / "0.png").write_bytes(whole[: len(whole) // 2])
    (pair[0] / "dog" / "3.png").write_text("no image at all")
    kind = ["--freeze-backbone", "--backbone", "tf_efficientnet_lite0", "--weights", "auto"] if frozen else []
    if frozen:
        kind += ["--image-size", "32", "--resize", "32"]
    refused(train(*pair, tmp_path / "run", *kind), "3.png", "--skip-unreadable")
    assert not (tmp_path / "run").exists()
    done = train(*pair, tmp_path / "run", *kind, "--skip-unreadable")
    assert done.returncode == 0, done.stderr
    assert "left out 1 unreadable image in" in done.stderr
    assert "0.png" in done.stderr
    predictions = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert len(predictions) == 1 + 13
    assert not any("cat/0.png" in line for line in predictions)


@pytest.mark.parametrize(
    "line, words",
    [
        ("cat/1.png", ("line 2", "no label", "cat/1.png")),
        ("cat/1.png -1", ("line 2", "-1", "out of range")),
        ("cat/1.png 999", ("line 2", "999", "out of range")),
        ("cat/gone.png 0", ("line 2", "no such image", "gone.png")),
    ],
)
def test_list_lines(pair, tmp_path, line, words):
    listing = tmp_path / "list.txt"
    listing.write_text(f"cat/0.png 0\n{line}\ndog/0.png 1\n")
    refused(train(f"{listing}@{pair[0]}", pair[1], tmp_path / "run"), listing, *words)


def test_list_with_spaces_in_paths_works(pair, tmp_path):
    (pair[0] / "cat").rename(pair[0] / "my cat")
    (pair[1] / "cat").rename(pair[1] / "my cat")
    lines = [f"{name}/{index}.png {label}" for label, name in enumerate(("my cat", "dog")) for index in range(7)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    done = train(f"{tmp_path / 'list.txt'}@{pair[0]}", pair[1], tmp_path / "run")
    assert done.returncode == 0, done.stderr


def test_identical_domains(pair, tmp_path):
    refused(train(pair[0], f"{pair[0]}/", tmp_path / "run"), "the same images")


def test_nan_loss_names_loss_and_step_and_keeps_the_last_good_state(pair, tmp_path):
    run = tmp_path / "run"
    rate = ["--learning-rate", "1e30", "--head-factor", "1"]
    done = train(*pair, run, *rate, "--steps", "50", "--checkpoint-every", "1", "--no-baseline")
    refused(done, "loss became", "at step", "round 0", "last good state", "--learning-rate")
    assert (run / "checkpoints" / "unfinished.safetensors").exists()
    assert not (run / "model.safetensors").exists()


def test_output_folder_that_holds_a_run(pair, tmp_path):
    run = tmp_path / "run"
    assert train(*pair, run).returncode == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    refused(train(*pair, run), "already holds a run", "--resume", "--overwrite")
    refused(train(*pair, run, "--resume", "--steps", "5"), "steps = 4, not 5")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert train(*pair, run, "--resume").returncode == 0
    assert (run / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert train(*pair, run, "--overwrite", "--steps", "5").returncode == 0


def test_output_folder_that_holds_something_else(pair, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("work of years")
    refused(train(*pair, tmp_path / "mine", "--overwrite"), "holds no run")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "work of years"


def test_source_without_labels(pair, tmp_path):
    refused(train(pair[0] / "cat", pair[1], tmp_path / "run"), "no labels")


def test_arrays(pair, tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, s_x=np.zeros((9, 4, 4)), s_y=np.zeros(9))
    refused(train(f"{file}:t", pair[1], tmp_path / "run"), "no array t_x", "it has s")
    refused(train(f"{file}:s", pair[1], tmp_path / "run"), "uint8")
    refused(train(file, pair[1], tmp_path / "run"), "which arrays")
    file.write_text("not a zip")
    refused(train(f"{file}:s", pair[1], tmp_path / "run"), "not readable as arrays")


def test_recipes_and_names(pair, tmp_path):
    (tmp_path / "r.yaml").write_text("stepz: 3\n")
    (tmp_path / "t.yaml").write_text("steps: many\n")
    run = tmp_path / "run"
    refused(train(*pair, run, "--recipe", tmp_path / "r.yaml"), "unknown setting 'stepz'", "did you mean 'steps'")
    refused(train(*pair, run, "--recipe", tmp_path / "t.yaml"), "steps")
    refused(train(*pair, run, "--recipe", "papr"), "no recipe 'papr'", "paper")
    refused(train(*pair, run, "--method", "dan"), "no method is called 'dan'", "dann")
    refused(train(*pair, run, "--backbone", "resnet55"), "resnet55", "Did you mean")
    refused(train(*pair, run, "--steps", "0"), "steps must be at least 1")
    if not torch.backends.mps.is_available():
        refused(train(*pair, run, "--device", "mps"), "cannot run on mps", "--device auto")
    refused(biwaa("trian"), "no command 'trian'", "train")
    assert not run.exists()


def test_evaluate_and_predict(pair, tmp_path):
    refused(biwaa("evaluate", tmp_path, pair[1]), "no model in")
    (tmp_path / "model.safetensors").write_text("not one")
    refused(biwaa("evaluate", tmp_path, pair[1]), "is not a model")
    refused(biwaa("predict", tmp_path / "gone", pair[1]), "no model in")
    assert train(*pair, tmp_path / "run").returncode == 0
    out = tmp_path / "p.csv"
    refused(biwaa("predict", tmp_path / "run", tmp_path / "gone.png", "--out", out), "no such folder", "gone.png")
    refused(biwaa("evaluate", tmp_path / "run", pair[1] / "cat"), "no labels")
    (pair[1] / "dog").rename(pair[1] / "wolf")
    refused(biwaa("evaluate", tmp_path / "run", pair[1]), "only in", "wolf")
    assert not out.exists()
