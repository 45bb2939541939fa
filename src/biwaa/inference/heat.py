"""Where in an image the features come from that a discriminator aligns: class activation by gradients.

- a discriminator sees a vector v of each image: the features, or BIWAA's weighted ones; mapped is |v|^2 / 2, how much
  there is to align, since neither features nor weights have a sign that means something by itself
- gradient times activation place by place (HiResCAM: Draelos and Carin, arXiv 2011.08891, 2020), which is Grad-CAM
  (Selvaraju et al., ICCV 2017) for a backbone that ends in average pooling, and right for one that flattens its maps
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.errors import BiwaaError
from biwaa.functional import feature_weights
from biwaa.images.augment import Transform
from biwaa.models.network import Network


class Heat(NamedTuple):
    """Maps of a batch."""

    plain: Tensor
    """(B, H, W) of the features as they are, from 0 to 1, the largest of each image 1 (or all 0)."""
    weighted: Tensor
    """(B, H, W) of the weighted features."""
    predicted: Tensor
    """(B,) classes, for which the weights are taken."""


@torch.enable_grad()
def heat_maps(network: Network, images: Tensor, of: Literal["length", "sum"] = "length") -> Heat:
    """Maps over the image of what is aligned, without weights and with them.

    With A the (C, h, w) activations of the last layer that keeps places, a map is ReLU(sum_c dq/dA_c * A_c), enlarged.

    Args:
        network: takes images, in evaluation mode.
        images: (B, 3, H, W), normalised.
        of: q of the vector v that is seen: length, |v|^2 / 2; or sum, the sum of v, whose sign is arbitrary.

    Raises:
        BiwaaError: no layer of the backbone keeps places.
    """
    caught: list[object] = []
    hooks = [
        layer.register_forward_hook(lambda *found: caught.append(found[-1])) for layer in _layers(network.backbone)
    ]
    try:
        features, logits = network(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    predicted = logits.argmax(dim=1)
    weights = feature_weights(features, predicted, network.classifier)

    def drawn(seen: Tensor) -> Tensor:
        quantity = seen.sum() if of == "sum" else seen.square().sum() / 2
        return _map(network.backbone, caught, quantity, (images.shape[-2], images.shape[-1]))

    return Heat(drawn(features), drawn(features * weights), predicted)


def _map(backbone: nn.Module, caught: list[object], quantity: Tensor, size: tuple[int, int]) -> Tensor:
    for out in reversed(caught):
        if not isinstance(out, Tensor) or _places(backbone, out) is None or not out.requires_grad:
            continue
        (slope,) = torch.autograd.grad(quantity, out, retain_graph=True, allow_unused=True)
        along = None if slope is None else _places(backbone, slope)
        # Behind the last layer that keeps places, or tokens that nothing reads any more.
        if along is None or not along.any():
            continue
        places = _places(backbone, out)
        assert places is not None  # asked for above
        heat = F.relu((along * places).sum(dim=1, keepdim=True)).detach()
        heat = F.interpolate(heat, size, mode="bilinear", align_corners=False)[:, 0]
        return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    raise BiwaaError(f"{type(backbone).__name__} has no layer that says where in the image a feature comes from.")


def centre_views(transform: Transform, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (B, 3, resize, resize) to the centre crop: (B, 3, H, W) as it is, and normalised."""
    views = transform.centre(pixels)
    return views, transform.normalise(views)


def _layers(backbone: nn.Module) -> list[nn.Module]:
    """The backbone's parts and their parts: stages and blocks."""
    children = list(backbone.children())
    return [*children, *(grandchild for child in children for grandchild in child.children())]


def _places(backbone: nn.Module, out: Tensor) -> Tensor | None:
    """As (B, C, h, w): maps, maps with their channels last, or tokens of a grid; None where there are no places."""
    width = getattr(backbone, "num_features", None)
    if out.ndim == 4:
        if out.shape[-1] == width and out.shape[1] != width:
            out = out.permute(0, 3, 1, 2)
        return out if out.shape[2] * out.shape[3] > 1 else None
    if out.ndim == 3:
        tokens = out[:, getattr(backbone, "num_prefix_tokens", 0) :]
        grid = tuple(getattr(getattr(backbone, "patch_embed", None), "grid_size", None) or ())
        if len(grid) != 2 or math.prod(grid) != tokens.shape[1]:
            grid = (math.isqrt(tokens.shape[1]),) * 2
        if math.prod(grid) == tokens.shape[1] > 1:
            return tokens.transpose(1, 2).reshape(len(out), -1, *grid)
    return None
