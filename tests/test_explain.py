"""Maps of what a discriminator aligns: by a literal computation, on every kind of backbone, through the command."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, write_images
from PIL import Image
from torch import nn

from biwaa.api import adapt
from biwaa.cli import main
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError
from biwaa.functional import feature_weights
from biwaa.images.augment import Transform
from biwaa.inference.heat import centre_views, heat_maps
from biwaa.models.backbone import build_backbone
from biwaa.models.network import Network


def test_against_a_literal_computation():
    """Image by image and place by place, for the house's CNN, whose maps are flattened and not averaged."""
    torch.manual_seed(0)
    backbone = build_backbone("cnn")
    network = Network(backbone.module, backbone.features, 8, 3).eval()
    images = torch.randn(4, 3, 24, 24)
    found = heat_maps(network, images)
    for row, image in enumerate(images):
        maps = backbone.module.convolutions(image[None]).detach().requires_grad_()
        features = network.bottleneck(backbone.module.head(maps.flatten(1)))
        predicted = int(network.classifier(features).argmax())
        assert found.predicted[row] == predicted
        weights = feature_weights(features, torch.tensor([predicted]), network.classifier)
        for seen, ours in ((features, found.plain), (features * weights, found.weighted)):
            (slope,) = torch.autograd.grad(seen.pow(2).sum() / 2, maps, retain_graph=True)
            heat = torch.zeros(6, 6)
            for y in range(6):
                for x in range(6):
                    heat[y, x] = max(0.0, float(slope[0, :, y, x] @ maps[0, :, y, x].detach()))
            heat = F.interpolate(heat[None, None], (24, 24), mode="bilinear")[0, 0]
            torch.testing.assert_close(ours[row], heat / heat.max(), rtol=1e-4, atol=1e-5)


class Spot(nn.Module):
    """Brightness over a threshold, pooled: features come from the bright places and from nowhere else."""

    def __init__(self, inplace):
        super().__init__()
        self.bright = nn.Conv2d(3, 2, 3, padding=1)
        nn.init.constant_(self.bright.weight, 1 / 27)
        nn.init.constant_(self.bright.bias, -0.3)
        self.over = nn.ReLU(inplace)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images):
        return self.pool(self.over(self.bright(images))).flatten(1)


@pytest.mark.parametrize("inplace", [False, True])
def test_heat_lies_where_the_features_come_from(inplace):
    torch.manual_seed(0)
    images = torch.zeros(2, 3, 20, 20)
    images[0, :, 2:6, 3:8] = images[1, :, 12:18, 10:14] = 1
    with torch.no_grad():
        found = heat_maps(Network(Spot(inplace), 2, 4, 3).eval(), images)
    for maps in (found.plain, found.weighted):
        outside = maps * (F.max_pool2d(images[:, :1], 5, 1, 2)[:, 0] == 0)
        assert (outside == 0).all()
        assert maps.amax(dim=(1, 2)).tolist() == [1, 1]


def test_a_prediction_without_any_doubt_has_an_empty_weighted_map():
    """Its weights are zero, which is no fault of the backbone."""
    torch.manual_seed(0)
    backbone = build_backbone("cnn")
    network = Network(backbone.module, backbone.features, 8, 3).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(1e4)
    found = heat_maps(network, torch.randn(1, 3, 24, 24))
    assert found.plain.amax() == 1
    assert found.weighted.shape == (1, 24, 24)
    assert not found.weighted.any()


@pytest.mark.parametrize(
    ("name", "size"),
    [("lenet", None), ("dtn", None), ("alexnet", 64), ("resnet18", 64), ("tf_efficientnet_lite0", 64),
     ("vit_tiny_patch16_224", 64), ("swin_tiny_patch4_window7_224", 64), ("deit_tiny_distilled_patch16_224", 64)],
)  # fmt: skip
def test_kinds_of_backbones(name, size):
    """Convolutions, and tokens with and without a class token: maps with a top and with differences."""
    torch.manual_seed(0)
    backbone = build_backbone(name, size)
    network = Network(backbone.module, backbone.features, 8, 3).eval()
    side = backbone.image_size
    found = heat_maps(network, torch.randn(2, 3, side, side))
    for maps in (found.plain, found.weighted):
        assert maps.shape == (2, side, side)
        assert maps.isfinite().all()
        assert maps.amax(dim=(1, 2)).tolist() == [1, 1]
        assert (maps.amin(dim=(1, 2)) < 0.9).all()
    assert not any(part._forward_hooks for part in network.modules())


def test_a_backbone_without_places_is_refused():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    with pytest.raises(BiwaaError, match="has no spatial layer"):
        heat_maps(Network(flat, 6, 4, 3).eval(), torch.randn(2, 3, 4, 4))


def test_the_centre_is_shown():
    transform = Transform(6, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crops=10)
    pixels = torch.arange(36, dtype=torch.uint8).reshape(1, 1, 6, 6).repeat(1, 3, 1, 1)
    views, inputs = centre_views(transform, pixels)
    assert torch.equal(views, pixels[..., 1:5, 1:5])
    torch.testing.assert_close(inputs, views.float() / 255)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    source = write_images(root / "source", {"cat": 12, "d$o_g$": 12}, size=16)
    target = write_images(root / "target", {"cat": 12, "d$o_g$": 12}, seed=1, size=24)
    pair = open_domain(str(source)), open_domain(str(target))
    for name, settings in (("run", {}), ("dann", {"method": "dann"})):
        adapt(*pair, out=root / name, recipe=TINY, baseline=False, verbose=False, **settings)
    return root


def test_the_command(runs, tmp_path, capsys):
    """A row an image and a column a map; the same draw the same picture; what cannot be read is named."""
    words = ["explain", str(runs / "run"), str(runs / "target"), "--rows", "3"]
    assert main([*words, "--out", str(tmp_path / "a.png")]) == 0
    assert "3 of 24 images" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "again.png")]) == 0
    assert main([*words, "--out", str(tmp_path / "other.png"), "--seed", "1"]) == 0
    assert main([*words, "--out", str(tmp_path / "b.png"), "--beside", str(runs / "dann")]) == 0
    a, again, other, b = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("a", "again", "other", "b"))
    assert np.array_equal(a, again)
    assert a.shape == other.shape
    assert not np.array_equal(a, other)
    assert b.shape[0] == a.shape[0]
    assert b.shape[1] == pytest.approx(4 / 3 * a.shape[1], rel=0.02)
    one = runs / "target" / "cat" / "0.png"
    broken = tmp_path / "broken.jpg"
    broken.write_text("broken")
    capsys.readouterr()
    assert main(["explain", str(runs / "run"), str(one), str(broken), "--out", str(tmp_path / "c.png")]) == 0
    told = capsys.readouterr()
    assert "1 of 2 images" in told.out
    assert "unreadable: " in told.err
    assert np.asarray(Image.open(tmp_path / "c.png")).shape[0] < a.shape[0] / 2


def test_what_the_command_refuses(runs, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_text("broken")
    run, target, out = str(runs / "run"), str(runs / "target"), str(tmp_path / "x.png")
    for words, why in (
        ([run, str(broken)], "none of these images can be read"),
        ([run, str(tmp_path / "nothing")], "no such folder"),
        ([run, target, "--rows", "0"], "rows must be at least 1"),
        ([str(tmp_path), target], "no model in"),
        ([run, target, "--beside", str(tmp_path)], "no model in"),
    ):
        assert main(["explain", *words, "--out", out]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
