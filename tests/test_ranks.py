"""Two processes train what one trains: the installed command with --devices 2, on the CPU through gloo."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import command, write_images

from biwaa.errors import BiwaaError
from biwaa.recipe import Recipe
from biwaa.settings import DataSettings, MachineSettings
from biwaa.tensors import load_tensors

# Without BatchNorm, which the CPU cannot synchronise, and without dropout, which differs between ranks.
TINY = [
    "--device", "cpu", "--backbone", "convnext_atto", "--weights", "none", "--image-size", "32", "--resize", "32",
    "--augment", "none", "--crops", "1", "--batch-size", "8", "--dropout", "0", "--input-dropout", "0", "--steps", "4",
    "--bottleneck", "8", "--discriminator", "16", "--log-every", "1", "--checkpoint-every", "2",
    "--learning-rate", "0.003",
]  # fmt: skip
WHOLE = {
    "robust": ["--recipe", "robust", "--rounds", "2", "--scouts", "1", "--source-held-out", "0.2"],
    "biwaa": ["--recipe", "paper", "--rounds", "2", "--source-held-out", "0.2"],
}
"""All of a method's losses, and two rounds, the second of which learns from the first."""


@pytest.fixture
def domains(tmp_path):
    source = write_images(tmp_path / "source", {"cat": 8, "dog": 9, "eel": 10}, seed=0, size=32)
    target = write_images(tmp_path / "target", {"cat": 7, "dog": 5, "eel": 7}, seed=1, size=32)
    return ["--source", str(source), "--target", str(target)]


def train(domains, out, *words):
    """In processes of their own, where there are several."""
    words = ["train", *domains, "--out", str(out), *TINY, *words]
    if "--devices" not in words:
        return command(*words)
    return subprocess.run([sys.executable, "-m", "biwaa", *words], capture_output=True, text=True, timeout=300)


def losses(out):
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("stage", "steps_per_second")} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WHOLE)
def test_two_processes_train_what_one_trains(domains, tmp_path, recipe):
    for name, devices in (("one", []), ("two", ["--devices", "2"])):
        done = train(domains, tmp_path / name, *WHOLE[recipe], *devices)
        assert done.returncode == 0, done.stderr
    assert done.stdout.count("target accuracy in percent") == 1  # one process prints
    for one, two in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        # Weights agree to 1e-5; a loss of a discriminator that is nearly certain says three times as much of them.
        assert two == pytest.approx(one, rel=3e-5, abs=1e-5)
    for stage in ("source-only", "round_0", "round_1"):
        states = [load_tensors(tmp_path / name / "checkpoints" / f"{stage}.safetensors")[0] for name in ("one", "two")]
        assert states[0].keys() == states[1].keys()
        for key, tensor in states[0].items():
            if key == "neighbours":  # images equally near are in either order
                continue
            # Weights agree to 1e-5; predictions of such weights to less.
            close = 1e-5 if "." in key else 1e-3
            assert torch.allclose(tensor.double(), states[1][key].double(), rtol=close, atol=close), key
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


@pytest.mark.slow
def test_batch_normalisation_and_augmentation_over_two_processes(domains, tmp_path):
    """Not synchronised on the CPU: each rank draws and normalises by itself, and still all end with one model."""
    words = ["--recipe", "paper", "--rounds", "1", "--no-baseline", "--backbone", "cnn", "--augment", "crop_flip",
             "--devices", "2"]  # fmt: skip
    done = train(domains, tmp_path / "run", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["finished"]
    # One process prints and writes the page; the others end without an error too.
    assert done.stdout.count("target accuracy in percent") == done.stderr.count("the report is") == 1
    assert "Traceback" not in done.stderr


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(BiwaaError, match="a batch of 7 cannot be divided over 2 processes: set --batch-size 6"):
        Recipe(data=DataSettings(batch_size=7), machine=MachineSettings(devices=2))
