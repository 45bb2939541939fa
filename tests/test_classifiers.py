"""A timm classifier as a source: its class list, sums of outputs, runs through the command and Python, and refusals."""

import json
import shlex

import pytest
import timm
import torch
from conftest import write_images

import biwaa
from biwaa.cli import main
from biwaa.device import open_fabric
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.images.augment import Transform
from biwaa.models.backbone import build_backbone
from biwaa.models.classifiers import open_classifier
from biwaa.models.features import store_features
from biwaa.models.weight_files import packaged_file
from biwaa.models.weights import load_weights
from biwaa.result import read_result
from biwaa.solvers.logistic import Head, source_head
from biwaa.solvers.remembered import Memory

MODEL = "test_resnet"
NAMES = ["eel", "", "cat", "dog", "cat"]
"""Of the model's outputs: the second is of no class, and two are cats."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A target of three classes, and `w.pth`: a classifier with five outputs, trained on other images of them."""
    folder = tmp_path_factory.mktemp("timm")
    write_images(folder / "a", {"cat": 12, "dog": 12, "eel": 12}, seed=1)
    write_images(folder / "t", {"cat": 12, "dog": 12, "eel": 12}, seed=2)
    torch.manual_seed(0)
    model = timm.create_model(MODEL, num_classes=5)
    backbone = build_backbone(MODEL)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    backbone.module.load_state_dict(state)
    domain = open_domain(str(folder / "a"))
    size = backbone.image_size
    transform = Transform(round(size / 0.95), size, backbone.mean, backbone.std, 1)
    rows = torch.from_numpy(store_features(domain.images, "a", backbone, transform, open_fabric("cpu")).rows.copy())
    mean, deviation = rows.mean(dim=0), rows.std(dim=0)
    deviation[deviation < 1e-6] = 1.0
    head = source_head((rows - mean) / deviation, torch.from_numpy(domain.labels), 3)
    weight = head.weight @ head.projection / deviation
    bias = head.bias - weight @ mean
    order = torch.tensor([2, 0, 0, 1, 0])  # of cat, dog, eel
    with torch.no_grad():
        model.fc.weight.copy_(weight[order])
        model.fc.bias.copy_(bias[order])
        model.fc.bias[1] += 100  # of the output that counts for nothing
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, folder / "w.pth"
    )
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def test_a_classifier_is_a_source_for_the_command(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec, target, names = f"timm:{MODEL}@{place / 'w.pth'}", str(place / "t"), str(place / "names.txt")
    assert main(["check", spec, target, "--classes", names]) == 0
    assert "3 classes on test_resnet, with a head alone" in capsys.readouterr().out
    assert main(["check", spec, target, "--classes", names, "--json"]) == 0
    assert [fact["spec"] for fact in json.loads(capsys.readouterr().out)] == [spec, target]
    assert main(["train", "--source", spec, "--classes", names, "--target", target, "--out", "run"]) == 0
    assert "its head alone" in capsys.readouterr().out
    result = read_result(tmp_path / "run")
    assert result.classes == ("eel", "cat", "dog")
    assert result.baseline.accuracy.over_images > 0.9
    assert result.selected.accuracy.over_images > 0.9
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert main(["train", "--resume", "--out", "run"]) == 0  # it knows its classes
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    assert main(["suggest", "run", "--count", "3", "--out", "some.csv"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("then: "))
    lines = (tmp_path / "some.csv").read_text().splitlines()
    labelled = [f"{line}{line.split('/')[-2]}" for line in lines[1:]]
    (tmp_path / "some.csv").write_text("\n".join([lines[0], *labelled]) + "\n")
    assert main(command[1:]) == 0
    assert read_result(tmp_path / "run-labelled").target.labels_given == 3
    new = biwaa.Run("run").update(str(place / "a"))
    assert new.result.accuracy.adapted.over_images > 0.9
    assert "--classes" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    "classes",
    [NAMES, [name or None for name in NAMES], "0 eel,2 cat,3 dog,4 cat", {"cat": [2, "4"], "dog": 3, "eel": 0}],
)
def test_lists_texts_and_mappings_say_the_same(place, classes):
    known = open_classifier(f"timm:{MODEL}@{place / 'w.pth'}", classes)
    assert known.classes == ("eel", "cat", "dog")
    assert known.outputs.tolist() == [0, 1, 1, 2]
    assert known.named == tuple(NAMES)


def test_from_python(place):
    files = [path for name in ("cat", "dog") for path in sorted((place / "t" / name).iterdir())]
    spec = f"timm:{MODEL}@{place / 'w.pth'}"
    run = biwaa.adapt(spec, files, classes={"cat": 2, "dog": 3}, verbose=False)
    assert (run.predict(str(place / "a" / "cat")) == "cat").mean() > 0.9


def test_probabilities_of_outputs_with_one_name_are_added():
    torch.manual_seed(0)
    head, rows = Head(None, torch.randn(4, 6), torch.randn(4)), torch.randn(9, 6)
    each = (rows @ head.weight.T + head.bias).softmax(dim=1)
    said = Memory(None, head, torch.tensor([0, 1, 1, 2])).said(rows).softmax(dim=1)
    torch.testing.assert_close(said, torch.stack([each[:, 0], each[:, 1] + each[:, 2], each[:, 3]], dim=1))
    torch.testing.assert_close(Memory(None, head).said(rows).softmax(dim=1), each)


@pytest.mark.parametrize(
    "spec, classes, says",
    [
        ("W", "cat,dog", "has 5 outputs, and --classes has 2 names"),
        ("W", None, "has 5 outputs without names"),
        ("W", ["5 cat", "1 dog"], "has no output 5: its 5 are numbered from 0 to 4"),
        ("W", {"cat": 1, "dog": "one"}, "has no output one"),
        ("W", {"cat": 1, "dog": [0, 1]}, "output 1 of W both cat and dog"),
        ("W", ["a", "a", "a", "a", "a"], "name two or more"),
        ("W", "gone.txt", "no such file of classes: gone.txt"),
        (f"timm:{MODEL}@gone.pth", "a,b", "no such weights file: gone.pth"),
        (f"timm:{MODEL}@BARE", "a,b", "has no classifier fc of test_resnet"),
        (f"timm:{MODEL}@PICKLE", "a,b", "is not a state dict of tensors"),
        ("timm:resnet18@W", "a,b", "does not fit resnet18"),
        (f"timm:{MODEL}", "a,b", f"timm:{MODEL}@FILE"),
        ("timm:alexnet", "a,b", "is no model of timm"),
        ("timm:resnet1888", "a,b", "no backbone is called"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_a_sentence(place, tmp_path, monkeypatch, spec, classes, says):
    monkeypatch.setattr("biwaa.models.weights.hub_file", lambda config: 1 / 0)  # there is no connection
    whole = timm.create_model(MODEL, num_classes=0)
    torch.save(whole.state_dict(), tmp_path / "bare.pth")
    torch.save({"args": Memory}, tmp_path / "pickle.pth")
    own = f"timm:{MODEL}@{place / 'w.pth'}"
    named = spec.replace("BARE", str(tmp_path / "bare.pth")).replace("PICKLE", str(tmp_path / "pickle.pth"))
    named = own if spec == "W" else named.replace("@W", f"@{place / 'w.pth'}")
    with pytest.raises(BiwaaError) as error:
        biwaa.adapt(named, str(place / "t"), classes=classes, verbose=False)
    assert says in str(error.value).replace(own, "W")


def test_what_a_classifier_is_not(place, tmp_path, capsys):
    spec, target = f"timm:{MODEL}@{place / 'w.pth'}", str(place / "t")
    refused = {
        "is a source by itself": ["train", "--source", spec, "--source", str(place / "a"), "--target", target],
        "which is the teacher": ["train", "--source", spec, "--target", target, "--zero-shot"],
        "leave --backbone resnet18 out": ["train", "--source", spec, "--target", target, "--backbone", "resnet18"],
    }
    for says, words in refused.items():
        assert main([*words, "--classes", str(place / "names.txt"), "--out", str(tmp_path / "run")]) == 2
        assert says in capsys.readouterr().err
    assert main(["check", str(place / "a"), spec, target, "--classes", "a,b"]) == 2
    assert "is a source by itself" in capsys.readouterr().err
    assert main(["check", str(place / "a"), target, "--classes", "cat,dog,eel"]) == 2
    assert "is of a timm classifier's outputs" in capsys.readouterr().err


def test_imagenets_outputs_have_names_of_their_own(capsys):
    if not packaged_file("tf_efficientnet_lite0"):
        pytest.skip("needs the extra [offline]")
    known = open_classifier("timm:efficientnet-lite0", ["n02123045 cat", "282 cat", "n02504458 elephant"])
    assert "cat: 281 tabby, 282 tiger cat, elephant: 386 African elephant" in capsys.readouterr().err
    assert known.outputs.tolist() == [0, 0, 1]
    assert open_classifier("timm:efficientnet-lite0", ["n02504458", "n02123045"]).classes == ("n02123045", "n02504458")
    backbone = build_backbone("efficientnet-lite0")
    load_weights(backbone, "auto", frozen=True)
    for one, other in zip(known.backbone.module.parameters(), backbone.module.parameters(), strict=True):
        assert torch.equal(one, other)
