"""--compile: what it trains, what it leaves behind, and what happens where nothing can be compiled."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from conftest import SMALL, SMALL_FILE, write_images
from torch import nn

from biwaa.domains.spec import open_domain
from biwaa.evaluation.summary import read_result
from biwaa.models import backbone
from biwaa.recipe import recipe_from
from biwaa.tensors import load_tensors
from biwaa.training import leg
from biwaa.training.run import adapt

# BatchNorm's momentum differs between the domains, and dropout draws: both have to come out as they do eagerly.
TINY = recipe_from(
    {**SMALL, "steps": 6, "rounds": 2, "batch_size": 8, "image_size": 12, "resize": 14, "bottleneck": 8,
     "discriminator": 16, "augment": "crop_flip", "batch_norm": "target", "input_dropout": 0.5, "checkpoint_every": 2,
     "backbone": "test-compiles", "compile": True},
    "test",
)  # fmt: skip


class Small(nn.Module):
    """One convolution with BatchNorm: two seconds to compile, where a whole network takes many."""

    def __init__(self, unsupported=False):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.unsupported = unsupported

    def forward(self, images):
        features = self.layers(images)
        return features.relu() if self.unsupported and features.sum().item() > 0 else features


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "REGISTERED", dict(backbone.REGISTERED))
    for name, unsupported in (("test-compiles", False), ("test-unsupported", True)):
        backbone.register_backbone(name, 12)(lambda size, unsupported=unsupported: Small(unsupported))
    source = write_images(tmp_path / "source", {"cat": 12, "dog": 9, "eel": 10}, seed=0, size=16)
    target = write_images(tmp_path / "target", {"cat": 9, "dog": 12, "eel": 11}, seed=1, size=24)
    return open_domain(str(source)), open_domain(str(target))


def leg_files(run):
    files = sorted((run.folder.path / "checkpoints").iterdir())
    return {path.name: load_tensors(path)[0] for path in files}


@pytest.mark.slow
def test_compiled_trains_what_eager_trains_and_resumes_to_the_bit(pair, tmp_path, monkeypatch):
    eager = adapt(*pair, dataclasses.replace(TINY, compile=False), tmp_path / "eager")
    assert eager.result["compiled"] == {}
    ours = leg.compile_network

    # What the rehearsal compiled is all that the steps may need; what round 0 compiled, all that round 1 may.
    def once(*given):
        torch.compiler.set_stance("fail_on_recompile" if given[0] == "round 1" else "default")
        found = ours(*given)
        torch.compiler.set_stance("fail_on_recompile")
        return found

    monkeypatch.setattr(leg, "compile_network", once)
    try:
        whole = adapt(*pair, TINY, tmp_path / "whole")
    finally:
        torch.compiler.set_stance("default")
    said = whole.result["compiled"]
    if said["source-only"]["failed"].startswith("InductorError: InvalidCxxCompiler"):
        pytest.skip("no C++ compiler")
    assert set(said) == {"source-only", "round 0", "round 1"}
    assert not any(of["failed"] for of in said.values())
    assert all(type(of["seconds"]) is float for of in said.values())
    for (name, here), there in zip(leg_files(whole).items(), leg_files(eager).values(), strict=True):
        assert list(here) == list(there)
        for key in here:
            if "." in key:
                atol = 5e-4 if name.startswith("round_1") else 1e-5  # round 0's last digits teach it
                torch.testing.assert_close(here[key], there[key], rtol=1e-4, atol=atol, msg=f"{name} {key}")

    monkeypatch.setattr(leg, "compile_network", ours)
    calls = []

    def stops(*given, **named):
        calls.append(1)
        if len(calls) == 10:  # in the second leg, after its second checkpoint
            raise KeyboardInterrupt
        return step(*given, **named)

    step = leg.training_step
    with monkeypatch.context() as patch:
        patch.setattr(leg, "training_step", stops)
        with pytest.raises(KeyboardInterrupt):
            adapt(*pair, TINY, tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoints" / "unfinished.safetensors").exists()
    cut = adapt(*pair, TINY, tmp_path / "cut", resume=True)
    for name in ("model.safetensors", "predictions.csv"):
        assert (cut.folder.path / name).read_bytes() == (whole.folder.path / name).read_bytes()


def test_unsupported_backbone_is_trained_eagerly_after_a_sentence(pair, tmp_path, capsys):
    recipe = dataclasses.replace(TINY, backbone="test-unsupported")
    eager = adapt(*pair, dataclasses.replace(recipe, compile=False), tmp_path / "eager")
    asked = adapt(*pair, recipe, tmp_path / "asked")
    assert "round 1: not compiled, trained eagerly instead (" in capsys.readouterr().err
    assert all("data-dependent" in of["failed"] for of in asked.result["compiled"].values())
    for name in ("model.safetensors", "predictions.csv"):
        assert (asked.folder.path / name).read_bytes() == (eager.folder.path / name).read_bytes()


@pytest.mark.slow
def test_without_a_compiler(pair, tmp_path):
    command = [
        sys.executable, "-m", "biwaa", "train", "--source", pair[0].spec, "--target", pair[1].spec,
        "--out", str(tmp_path / "run"), "--recipe", str(SMALL_FILE), "--steps", "3", "--rounds", "1",
        "--batch-size", "8", "--no-baseline", "--compile",
    ]  # fmt: skip
    settings = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "round 0: not compiled, trained eagerly instead (" in done.stderr
    assert "Traceback" not in done.stderr
    assert "compiler" in read_result(tmp_path / "run")["compiled"]["round 0"]["failed"]
