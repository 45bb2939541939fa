"""Exported models against PyTorch, in the runtimes that others would use."""

import json
import sys

import numpy as np
import pytest
import torch

from biwaa.cli import main
from biwaa.functional import with_temperature
from biwaa.images.augment import Transform
from biwaa.inference import export as module
from biwaa.inference.export import Deployed, export_run
from biwaa.inference.predict import average_views
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network
from biwaa.models.saved import SavedModel, load_model, save_model

SOME = [("resnet18", 32), ("vit_tiny_patch16_224", 32)]
"""Of the families; benchmarks/export.py runs them all, which takes minutes."""


def saved(path, name, size, crops=1, **changed):
    torch.manual_seed(0)
    backbone = build_backbone(name, size)
    network = Network(backbone.module, backbone.features, 16, 5).eval()
    transform = Transform(size * 8 // 7, backbone.image_size, backbone.mean, backbone.std, crops)
    save_model(path, SavedModel(network, tuple("abcde"), transform, backbone.name, 1.7))
    return path


def test_a_run_in_onnxruntime(tiny_run, tmp_path, capsys):
    """Ten crops, any batch, the metadata: what comes out is what the run itself predicts of the same pixels."""
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "m.onnx"
    assert main(["export", str(tiny_run), "--out", str(out)]) == 0
    assert "differ from PyTorch's by" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]  # one file
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    model = load_model(tiny_run)
    rng = np.random.default_rng(0)
    for batch in (1, 3, 8):
        pixels = rng.integers(0, 256, (batch, 3, 14, 14), dtype=np.uint8)
        said = session.run(["probabilities"], {"pixels": pixels})[0]
        views = model.transform.normalise(model.transform.views(torch.from_numpy(pixels)))
        with torch.no_grad():
            expected = with_temperature(average_views(model.network, views).probabilities, model.temperature)
        assert np.abs(said - expected.numpy()).max() < 1e-4
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["cat", "dog", "eel"]
    assert {key: json.loads(facts[key]) for key in ("resize", "crop", "crops", "opset")} == {
        "resize": 14, "crop": 12, "crops": 10, "opset": 18,
    }  # fmt: skip
    assert json.loads(facts["temperature"]) == model.temperature
    assert tuple(json.loads(facts["mean"])) == model.transform.mean


def test_a_run_in_torch_export(tiny_run, tmp_path):
    out = tmp_path / "m.pt2"
    assert main(["export", str(tiny_run), "--format", "pt2", "--out", str(out), "--crops", "1"]) == 0
    extra = {"biwaa.json": ""}
    module = torch.export.load(out, extra_files=extra).module()
    assert json.loads(extra["biwaa.json"])["crops"] == "1"
    pixels = torch.randint(0, 256, (5, 3, 14, 14), dtype=torch.uint8)
    model = load_model(tiny_run)
    centre = model.transform.normalise(pixels[:, :, 1:13, 1:13])
    with torch.no_grad():
        expected = (model.network(centre).logits / model.temperature).softmax(dim=1)
        assert (module(pixels) - expected).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name, size", SOME)
def test_families_export(tmp_path, name, size):
    """export_run compares with PyTorch itself, at two batch sizes; that it does is tested below."""
    pytest.importorskip("onnxruntime")
    path = saved(tmp_path / "model.safetensors", name, size)
    assert export_run(path, tmp_path / "m.onnx", "onnx") < 1e-4
    assert (tmp_path / "m.onnx").stat().st_size > 0


@pytest.mark.parametrize("size, crops", [(21, 10), (28, 10), (21, 1), (28, 1)])
def test_crops_are_those_of_prediction(tmp_path, size, crops):
    """Rooms that are odd and even: mirrored centres are not the mirrored centre."""
    model = load_model(saved(tmp_path / "model.safetensors", "lenet", size, crops))
    pixels = torch.randint(0, 256, (3, 3, size * 8 // 7, size * 8 // 7), dtype=torch.uint8)
    with torch.no_grad():
        found = Deployed(model)(pixels)
        assert (found - module._expected(model, pixels)).abs().max() < 1e-6


def test_the_comparison_is_made_where_the_model_is_unsure():
    """A network that is certain nearly everywhere: noise would show no difference of an exported file at all."""
    torch.manual_seed(0)
    weights = 0.05 * torch.randn(5, 3 * 16 * 16)

    def certain(pixels):
        return (pixels.float().flatten(1) @ weights.T).softmax(dim=1)

    noise = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8)
    assert certain(noise).amax(dim=1).median() > 0.99999
    found = module.unsure_images(certain, 16)
    assert found.shape == (module.PROBES, 3, 16, 16)
    assert certain(found).amax(dim=1)[0] < 0.99
    assert (certain(found) - certain(found) * 0.999).abs().max() > module.TOLERANCE
    constant = module.unsure_images(lambda pixels: torch.eye(5)[torch.zeros(len(pixels), dtype=torch.long)], 16)
    assert len(constant) == module.PROBES


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch, tiny_run, capsys):
    monkeypatch.setattr(module, "_expected", lambda model, pixels: torch.zeros(len(pixels), 3))
    assert main(["export", str(tiny_run), "--format", "pt2", "--out", str(tmp_path / "m.pt2")]) == 2
    assert "differs from PyTorch" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(tiny_run), "--out", str(tmp_path / "m.onnx")]) == 2
    assert "pip install 'biwaa[export]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
