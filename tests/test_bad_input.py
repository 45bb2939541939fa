"""Wrong input: one clear sentence, exit code 2, no traceback, nothing lost.

Most commands run within the tests' process: starting one takes seconds. Some start the installed command.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import COMMAND, installed, write_images
from conftest import command as biwaa

from biwaa.errors import BiwaaError
from biwaa.inference.classifier import load
from biwaa.tensors import load_tensors

TINY = ["--backbone", "cnn", "--weights", "none", "--image-size", "12", "--resize", "12", "--augment", "none",
        "--crops", "1", "--steps", "4", "--rounds", "1", "--batch-size", "6", "--bottleneck", "8",
        "--discriminator", "8"]  # fmt: skip


def train(source, target, out, *more, by=biwaa):
    return by("train", "--source", source, "--target", target, "--out", out, *TINY, *more)


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
    refused(train(tmp_path / "gone", pair[1], tmp_path / "run", by=installed), "no such folder", tmp_path / "gone")
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
        ("cat/1.png -2", ("line 2", "-2", "out of range")),
        ("cat/1.png -1", ("no label for 1 of its 3 images", "cat/1.png")),
        ("cat/1.png 999", ("line 2", "999", "out of range")),
        (f"cat/1.png {'9' * 30}", ("line 2", "99999", "out of range")),
        (f"{'x' * 300}.png 0", ("line 2", "no such image")),
        ("cat/gone.png 0", ("line 2", "no such image", "gone.png")),
    ],
)
def test_list_lines(pair, tmp_path, line, words):
    listing = tmp_path / "list.txt"
    listing.write_text(f"cat/0.png 0\n{line}\ndog/0.png 1\n")
    refused(train(f"{listing}@{pair[0]}", pair[1], tmp_path / "run"), listing, *words)


def test_list_with_names_for_labels(pair, tmp_path):
    (tmp_path / "list.txt").write_text("cat/0.png cat\ndog/0.png dog\n")
    refused(
        train(f"{tmp_path / 'list.txt'}@{pair[0]}", pair[1], tmp_path / "run"), "line 1", "'cat' is not a whole number"
    )


def test_list_with_spaces_in_paths_works(pair, tmp_path):
    (pair[0] / "cat").rename(pair[0] / "my cat")
    (pair[1] / "cat").rename(pair[1] / "my cat")
    lines = [f"{name}/{index}.png {label}" for label, name in enumerate(("my cat", "dog")) for index in range(7)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    done = train(f"{tmp_path / 'list.txt'}@{pair[0]}", pair[1], tmp_path / "run")
    assert done.returncode == 0, done.stderr


def test_identical_domains(pair, tmp_path):
    (tmp_path / "link").symlink_to(pair[0])
    for same in (f"{pair[0]}/", f"{pair[1]}/../source", tmp_path / "link"):
        refused(train(pair[0], same, tmp_path / "run"), "the same images")


def test_output_that_cannot_be_written(pair, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(train(*pair, tmp_path / "file" / "run"), "cannot be made")
    refused(train(*pair, tmp_path / "file"), "is a file")
    assert train(*pair, tmp_path / "run").returncode == 0
    (tmp_path / "folder").mkdir()
    refused(biwaa("predict", tmp_path / "run", pair[1], "--out", tmp_path / "folder"), "is a folder")
    refused(biwaa("evaluate", tmp_path / "run", pair[1], "--out", tmp_path / "folder"), "is a folder")
    refused(biwaa("demo", "--out", pair[0]), "holds other things")
    (tmp_path / "run" / "run.json").write_text("{")
    refused(train(*pair, tmp_path / "run", "--resume"), "is damaged")


def test_images_that_are_none_of_ours_are_left_alone(pair, tmp_path):
    """Hidden files that other systems leave behind are no images; names may hold any bytes."""
    (pair[0] / "cat" / "._0.png").write_text("left by a zip")
    odd = os.fsencode(pair[1] / "cat") + b"/caf\xe9.png"
    shutil.copy(pair[1] / "cat" / "0.png", odd)
    done = train(*pair, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9.png" in (tmp_path / "run" / "predictions.csv").read_bytes()


def test_check_says_what_training_would(pair, tmp_path):
    (pair[1] / "cat" / "0.png").write_text("broken")
    done = biwaa("check", *pair, "--batch-size", "6")
    refused(done, "1 unreadable image", "0.png")
    assert "16 images, 2 classes" in done.stdout
    assert "can be adapted" not in done.stdout


def test_no_command_writes_over_a_file_unasked(pair, tmp_path):
    """Before any work is done; --overwrite replaces it."""
    there = tmp_path / "there.csv"
    there.write_text("mine")
    for words in (
        ["predict", "run", pair[1]], ["evaluate", "run", pair[1]], ["export", "run"], ["explain", "run", pair[1]],
        ["report", "run"],
    ):  # fmt: skip
        refused(biwaa(*words, "--out", there), "is there already", "--overwrite")
    assert there.read_text() == "mine"
    assert train(*pair, tmp_path / "run").returncode == 0
    assert biwaa("predict", tmp_path / "run", pair[1], "--out", there, "--overwrite").returncode == 0
    assert there.read_text().startswith("path,label,confidence,error")


def test_evaluate_on_some_of_the_classes(pair, tmp_path):
    assert train(*pair, tmp_path / "run").returncode == 0
    shutil.rmtree(pair[1] / "dog")
    done = biwaa("evaluate", tmp_path / "run", pair[1], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["by_class"]["dog"] is None


@pytest.fixture
def diverging():
    """Flags under which the loss stays finite for some steps, then does not."""
    return [
        "--recipe",
        "paper",
        "--learning-rate",
        "1e4",
        "--head-factor",
        "1",
        "--weight-decay",
        "1",
        "--steps",
        "50",
        "--no-baseline",
    ]


def test_nan_loss_names_loss_and_step_and_keeps_the_last_good_state(pair, tmp_path, diverging):
    run = tmp_path / "run"
    done = train(*pair, run, *diverging, "--checkpoint-every", "1")
    refused(done, "loss became", "at step", "round 0", "last good state", "--learning-rate")
    broke = int(re.search(r"at step (\d+)", done.stderr)[1])
    state, facts = load_tensors(run / "checkpoints" / "unfinished.safetensors")
    assert facts["stage"] == "round 0"
    assert 1 <= facts["step"] < broke
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (run / "model.safetensors").exists()


def test_overwrite_keeps_the_old_run_until_there_is_a_new_model(pair, tmp_path, diverging):
    run = tmp_path / "run"
    assert train(*pair, run).returncode == 0
    before = (run / "model.safetensors").read_bytes()
    for _ in range(2):
        refused(train(*pair, run, "--overwrite", *diverging), "loss became")
        assert (run / "replaced" / "model.safetensors").read_bytes() == before
        assert (run / "replaced" / "checkpoints").is_dir()
    assert train(*pair, run, "--overwrite").returncode == 0
    assert not (run / "replaced").exists()
    assert (run / "model.safetensors").read_bytes() == before


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
    refused(train(f"{file}:s", pair[1], tmp_path / "run"), "uint8", "features floating of shape (rows, features)")
    refused(train(file, pair[1], tmp_path / "run"), "does not name its arrays")
    file.write_text("not a zip")
    refused(train(f"{file}:s", pair[1], tmp_path / "run"), "not readable as arrays")


def test_features(pair, tmp_path):
    """Rows that are not finite are named; rows without length and constant columns work; images do not go with them."""
    rng, file, run = np.random.default_rng(0), tmp_path / "f.npz", tmp_path / "run"
    labels = np.arange(24) % 2
    good = rng.normal(size=(24, 4)) + labels[:, None]
    good[:, 1], good[5] = 3, 0  # constant but for a row without length
    nan, inf, large = good.copy(), good.copy(), good.copy()
    nan[7, 2] = nan[9, 0] = np.nan
    inf[3, 1] = -np.inf
    large[11, 0] = 1e39  # finite in 64 bits alone
    arrays = {"good": good, "nan": nan, "inf": inf, "large": large, "flat": good[:, 0], "bare": good[:, :0],
              "none": good[:0], "wide": rng.normal(size=(24, 5)), "other": (good + 1).astype(np.float16)}  # fmt: skip
    np.savez(file, **{f"{name}_x": array for name, array in arrays.items()}, good_y=labels, wide_y=labels)
    good_one = f"{file}:good"
    for name, words in (
        ("nan", ("nan_x has a feature that is not finite in row 7 and 1 more",)),
        ("inf", ("inf_x has a feature that is not finite in row 3:",)),
        ("large", ("large_x has a feature that is not finite in row 11:",)),
        ("flat", ("flat_x is float64 of shape (24,)",)),
        ("bare", ("bare_x has shape (24, 0): it holds no features",)),
        ("none", ("none_x has shape (0, 4): it holds no features",)),
        ("wide", ("differ in kind: 4 features a row, 5 features a row",)),
    ):
        refused(train(good_one, f"{file}:{name}", run), *words)
        refused(biwaa("check", good_one, f"{file}:{name}"), *words)
    refused(train(good_one, pair[1], run), "differ in kind: 4 features a row, images")
    refused(train(good_one, good_one, run), "source and target are the same images")
    assert not run.exists()
    assert train(good_one, f"{file}:other", run, "--weights", "auto").returncode == 0
    refused(biwaa("explain", run, good_one), "was trained on features: there is no image to explain")


def test_recipes_and_names(pair, tmp_path):
    (tmp_path / "r.yaml").write_text("stepz: 3\n")
    (tmp_path / "t.yaml").write_text("steps: many\n")
    run = tmp_path / "run"
    refused(train(*pair, run, "--recipe", tmp_path / "r.yaml"), "unknown setting 'stepz'", "did you mean 'steps'")
    refused(train(*pair, run, "--recipe", tmp_path / "t.yaml"), "steps")
    refused(train(*pair, run, "--recipe", "papr"), "no recipe 'papr'", "paper")
    refused(train(*pair, run, "--method", "danny"), "no method is called 'danny'", "dann")
    refused(train(*pair, run, "--backbone", "resnet55"), "resnet55", "did you mean resnet50")
    refused(train(*pair, run, "--steps", "0"), "steps must be at least 1")
    refused(train(*pair, run, "--resize", "8"), "resize (8) must not be smaller than image_size (12)")
    refused(train(*pair, run, "--seed", "-1"), "seed must lie between")
    refused(train(*pair, run, "--batch-size", "1"), "batch_size must be at least 2")
    if not torch.backends.mps.is_available():
        refused(train(*pair, run, "--device", "mps"), "cannot run on mps", "--device auto")
    refused(biwaa("trian"), "no command 'trian'", "train")
    assert not run.exists()


def test_evaluate_and_predict(pair, tmp_path):
    refused(biwaa("evaluate", tmp_path, pair[1]), "no model in")
    (tmp_path / "model.safetensors").write_text("not one")
    refused(biwaa("evaluate", tmp_path, pair[1]), "is not a file that biwaa wrote")
    refused(biwaa("predict", tmp_path / "gone", pair[1]), "no model in")
    assert train(*pair, tmp_path / "run").returncode == 0
    out = tmp_path / "p.csv"
    refused(biwaa("predict", tmp_path / "run", tmp_path / "gone.png", "--out", out), "no such folder", "gone.png")
    refused(biwaa("evaluate", tmp_path / "run", pair[1] / "cat"), "no labels")
    (tmp_path / "no.png").write_text("no image")
    rows = tmp_path / "rows.csv"
    refused(biwaa("predict", tmp_path / "run", tmp_path / "no.png", "--out", rows), "none of the 1 images", rows)
    assert rows.read_text().splitlines()[1].startswith(f"{tmp_path / 'no.png'},,,not an image")
    (pair[1] / "dog").rename(pair[1] / "wolf")
    refused(biwaa("evaluate", tmp_path / "run", pair[1]), "only in", "wolf")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--source", "a", "--target", "b"], "needs --out RUN (run folder to make), as in `biwaa train --so"),
        (["train", "--source", "a", "--target", "b", "--out"], "--out needs RUN after it"),
        (["train", "a", "b"], "`biwaa train` does not take the word 'a'"),
        (["train", "--source", "a", "--target", "b", "--out", "r", "--rounds", "two"], "a whole number, not 'two'"),
        (["train", "--source", "a", "--target", "b", "--out", "r", "--learning-rate=fast"], "a number, not 'fast'"),
        (
            ["train", "--source", "a", "--target", "b", "--out", "r", "--device", "tpu"],
            "auto, cpu, cuda, mps, not 'tpu'",
        ),
        (["evaluate"], "needs RUN (a run folder) and SPEC (labelled images, as for biwaa train)"),
        (["report", "a", "b"], "does not take the word 'b': write it as in `biwaa report run`"),
        (["export", "run", "--out", "m", "--crops", "3"], "--crops is one of 1, 10, not '3'"),
        (["bench", "digits", "--freeze-backbone", "--seeds", "1", "b"], "--seeds is a whole number, not 'b'"),
        (["bench", "--freeze-backbone", "--out", "x"], "`biwaa bench` needs SUITE (BENCHMARK"),
    ],
)
def test_words_that_cannot_be_right_are_answered_in_one_sentence(words, told):
    refused(biwaa(*words), told)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "--epochs", "3"), "counts steps of --batch-size images, not epochs; did you mean --steps (training"),
        (("bench", "digits", "--epoch=3"), "did you mean --steps"), (("train", "--lr", "1"), "--learning-rate"),
        (("train", "--sorce", "a"), "train has no flag --sorce: did you mean --source (labelled images"),
        (("predict", "run", "--batchsize", "2"), "did you mean --batch-size"),
        (("check", "a", "--no-jsn"), "did you mean --json"),
        (("evaluate", "run", "--steps", "2"), "`biwaa evaluate --help` lists those that it has"),
        (("check", "a", "--plugin"), "--plugin needs a Python file"), (("trian",), "did you mean 'train'"),
        (("check", "Office_31:amazn"), "did you mean 'office31'"), (("bench", "digits/robst"), "did you mean 'robust'"),
    ],
)  # fmt: skip
def test_misspelt_words_are_answered_with_those_that_exist(words, told):
    refused(biwaa(*words, *["--out", "x"] * (words[0] == "bench")), told)


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "RUN", "RUN", "--batch-size", "0"), ("predict", "RUN", "RUN", "--batch-size", "-1"),
        ("evaluate", "RUN", "RUN", "--batch-size", "0"), ("check", "RUN", "--batch-size", "1"),
        ("explain", "RUN", "RUN", "--rows", "0"), ("explain", "RUN", "RUN", "--seed", "-1"),
        ("demo", "--seed", "-1", "--out", "OUT"), ("bench", "digits", "--seeds", "-1", "--out", "OUT"),
        ("bench", "digits", "--processes", "-1", "--out", "OUT"), ("predict", "RUN", "RUN", "--top-k", "0"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_every_command(words, tiny_run, tmp_path):
    done = biwaa(*({"RUN": tiny_run, "OUT": tmp_path / "out"}.get(word, word) for word in words))
    refused(done, "must")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BiwaaError, match="batch_size must be at least 1"):
        load(tiny_run, batch_size=0)


def test_paths_that_are_none_of_this_machine(tiny_run, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, told in (
        ("s3://bucket/cats", "s3://bucket/cats is an address: biwaa reads and writes files of this machine"),
        ("file:///data/cats", "write the path alone, /data/cats."), (r"C:\cats", "is a path of Windows"),
    ):  # fmt: skip
        refused(biwaa("check", path), told)
        refused(biwaa("predict", tiny_run, path), told)
        refused(train(*pair, tmp_path / "run", "--recipe", path), told)
    for words in (("train", "--source", pair[0], "--target", pair[1]), ("predict", tiny_run, pair[0]),
                  ("bench", "digits", "--recipe", "demo"), ("demo",)):  # fmt: skip
        refused(biwaa(*words, "--out", "s3://bucket/out.csv"), "s3:/bucket/out.csv", " is an address")
    refused(biwaa("evaluate", "gs://bucket/run", pair[1]), "gs:/bucket/run is an address")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_names_that_start_with_a_tilde(tiny_run, pair, tmp_path, monkeypatch):
    """A file ~pic.jpg is no home folder; a shell hands it over as it is where it matched *.jpg."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(pair[0] / "cat" / "0.png", "~pic.png")
    pair[0].rename("~photos")
    done = biwaa("predict", tiny_run, "~pic.png", "--out", "~p.csv")
    assert done.returncode == 0, done.stderr
    assert "~pic.png,cat" in Path("~p.csv").read_text()
    assert biwaa("check", "~photos").returncode == 0
    refused(biwaa("check", "~nobody-is-called-so"), "no such folder: ~nobody-is-called-so")


def test_streams_that_are_closed_and_docstrings_that_are_stripped(pair, tmp_path):
    """Output that nobody reads is lost, and nothing else; the help is read from the source where it has to be."""
    whole = installed("predict", "--help").stdout
    for command, out in (
        (f"PYTHONOPTIMIZE=2 {COMMAND} predict --help", whole),
        (f"{COMMAND} check {pair[0]} 0<&- 2>&-", f"{pair[0]}: 16 images, 2 classes\n  cat       8\n  dog       8\n"),
        (f"{COMMAND} --help >&-", ""),
    ):
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, out, ""), command


PLUGIN = """import biwaa
from biwaa.methods.source_only import SourceOnly
from torch import nn


@biwaa.register_method("mine")
class Mine(SourceOnly):
    pass


@biwaa.register_backbone("flat", image_size=12)
def flat(size):
    return nn.Sequential(nn.AvgPool2d(size), nn.Flatten())
"""


def test_a_file_that_registers_a_method(pair, tmp_path):
    """It trains through the installed command; what reads the run needs it only where the network comes from it."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    plugin, run = ("--plugin", tmp_path / "mine.py"), tmp_path / "run"
    done = train(*pair, run, "--method", "mine", *plugin, by=installed)
    assert done.returncode == 0, done.stderr
    assert biwaa("predict", run, pair[1], "--out", tmp_path / "p.csv").returncode == 0
    assert biwaa("evaluate", run, pair[1]).returncode == 0
    assert biwaa("report", run).returncode == 0
    refused(train(*pair, tmp_path / "no", "--method", "mine"), "no method is called 'mine'")
    for code, told in (
        ("x = 1\n", "registers nothing"), ("import biwaa\n\n1 / 0\n", "line 3: the plug-in cannot be run (Zero"),
        ("def f(:\n", "line 1"), (PLUGIN.replace('"mine"', '"mcc"'), "mine.py: the method 'mcc' exists already"),
    ):  # fmt: skip
        (tmp_path / "mine.py").write_text(code)
        refused(biwaa("check", pair[0], *plugin), told)
