"""Heat maps: where in an image the features come from that a discriminator aligns.

- a discriminator gets a vector v of each image: the features, or BIWAA's weighted features. The map is of |v|^2 / 2,
  the amount that there is to align, since the signs of features and weights have no meaning of their own
- gradient times activation at each place (HiResCAM: Draelos and Carin, arXiv 2011.08891, 2020): the same as Grad-CAM
  (Selvaraju et al., ICCV 2017) for a backbone that ends in average pooling, and correct for one that flattens its maps
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
    """(B, H, W) of the unweighted features, from 0 to 1; the largest value of each image is 1 (or all are 0)."""
    weighted: Tensor  # (B, H, W) of the weighted features, scaled likewise
    predicted: Tensor  # (B,) predicted classes, for which the weights are computed


@torch.enable_grad()
def heat_maps(network: Network, images: Tensor, of: Literal["length", "sum"] = "length") -> Heat:
    """Maps of aligned features over each image, without weights and with them.

    A map is ReLU(sum_c dq/dA_c * A_c), enlarged, where A are the (C, h, w) activations of the last spatial layer.

    Args:
        network: takes images, in evaluation mode.
        images: (B, 3, H, W), normalised.
        of: the quantity q of the discriminator's input v: length for |v|^2 / 2; sum for the sum of v, whose sign is
            arbitrary.

    Raises:
        BiwaaError: the backbone has no spatial layer.
    """
    outputs: list[object] = []
    hooks = [layer.register_forward_hook(lambda *call: outputs.append(call[-1])) for layer in _layers(network.backbone)]
    try:
        features, logits = network(images.detach().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    predicted = logits.argmax(dim=1)
    weights = feature_weights(features, predicted, network.classifier)

    def heat_map(seen: Tensor) -> Tensor:
        quantity = seen.sum() if of == "sum" else seen.square().sum() / 2
        return _map(network.backbone, outputs, quantity, len(images), (images.shape[-2], images.shape[-1]))

    return Heat(heat_map(features), heat_map(features * weights), predicted)


def _map(backbone: nn.Module, outputs: list[object], quantity: Tensor, images: int, size: tuple[int, int]) -> Tensor:
    if not quantity:  # nothing is seen: a prediction without any doubt has weights of zero
        return quantity.new_zeros(images, *size)
    for out in reversed(outputs):
        if not isinstance(out, Tensor) or _places(backbone, out) is None or not out.requires_grad:
            continue
        (slope,) = torch.autograd.grad(quantity, out, retain_graph=True, allow_unused=True)
        along = None if slope is None else _places(backbone, slope)
        # No gradient reaches it: it comes after the last spatial layer, or its tokens are not used.
        if along is None or not along.any():
            continue
        places = _places(backbone, out)
        assert places is not None  # checked above
        heat = F.relu((along * places).sum(dim=1, keepdim=True)).detach()
        heat = F.interpolate(heat, size, mode="bilinear", align_corners=False)[:, 0]
        return heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
    raise BiwaaError(
        f"{type(backbone).__name__} has no spatial layer, so there is no map of where its features come from."
    )


def centre_views(transform: Transform, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 (B, 3, resize, resize) -> the centre crops (B, 3, H, W), as uint8 and normalised."""
    views = transform.centre(pixels)
    return views, transform.normalise(views)


def _layers(backbone: nn.Module) -> list[nn.Module]:
    """The backbone's children and their children: its stages and blocks."""
    children = list(backbone.children())
    return [*children, *(grandchild for child in children for grandchild in child.children())]


def _places(backbone: nn.Module, out: Tensor) -> Tensor | None:
    """Maps, maps with channels last, or tokens of a grid, as (B, C, h, w); None for outputs that are not spatial."""
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
