"""The classifier network and the domain discriminator.

- backbone -> standardisation (of frozen features) -> bottleneck f -> classifier
- gradient reversal -> three-layer discriminator
- new linear layers start with Xavier normal weights and zero bias
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from biwaa.solvers.logistic import Head


class Output(NamedTuple):
    """A network's output for a batch."""

    features: Tensor  # (B, D) bottleneck features f
    logits: Tensor  # (B, K)


class Standardise(nn.Module):
    """(x - mean) / deviation for each column; constant columns become zero."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        """Store (F,) statistics as buffers."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", torch.where(deviation > 1e-6, deviation, torch.inf))

    @classmethod
    def of(cls, features: Tensor) -> "Standardise":
        """The statistics of (N, F) features."""
        return cls(features.mean(dim=0), features.std(dim=0, correction=0))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, F)."""
        return (features - self.mean) / self.deviation


class Network(nn.Module):
    """Images, or features of a frozen backbone, to bottleneck features and logits."""

    def __init__(
        self, backbone: nn.Module, inputs: int, bottleneck: int | None, classes: int, dropout: float = 0.0
    ) -> None:
        """Add to `backbone` a bottleneck (inputs -> bottleneck; None for none) and a classifier to `classes`."""
        super().__init__()
        self.backbone = backbone
        self.standardise: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.bottleneck: nn.Module = nn.Linear(inputs, bottleneck) if bottleneck else nn.Identity()
        self.classifier = nn.Linear(bottleneck or inputs, classes)
        start_new_layers(*(layer for layer in (self.bottleneck, self.classifier) if isinstance(layer, nn.Linear)))

    def forward(self, inputs: Tensor) -> Output:
        """(B, 3, H, W) or (B, F) -> features and logits."""
        return self.head(self.pooled(inputs))

    def pooled(self, inputs: Tensor) -> Tensor:
        """The backbone's (B, F) features, standardised if the backbone is frozen."""
        pooled: Tensor = self.standardise(self.backbone(inputs))
        return pooled

    def head(self, pooled: Tensor) -> Output:
        """(B, F) -> features and logits."""
        features = self.bottleneck(self.dropout(pooled))
        return Output(features, self.classifier(features))

    def install(self, head: Head) -> None:
        """Take a solved head in the place of bottleneck and classifier."""
        self.bottleneck = nn.Identity() if head.projection is None else _linear(head.projection)
        self.classifier = _linear(head.weight, head.bias)


def linear_head(network: Network) -> Head:
    """What a network does after its backbone, as one head on the backbone's features as they are."""
    layers = [layer for layer in (network.bottleneck, network.classifier) if isinstance(layer, nn.Linear)]
    weight, bias = layers[-1].weight.detach(), layers[-1].bias.detach()
    for layer in layers[:-1]:
        weight, bias = weight @ layer.weight.detach(), bias + weight @ layer.bias.detach()
    if isinstance(network.standardise, Standardise):  # a constant column has an infinite deviation
        weight = weight / network.standardise.deviation
        bias = bias - weight @ network.standardise.mean
    return Head(None, weight, bias)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return layer


def start_new_layers(*layers: nn.Linear) -> None:
    """Set Xavier normal weights and zero bias."""
    for layer in layers:
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)


class Discriminator(nn.Module):
    """(B, D) features to (B,) domain logits; high means source."""

    def __init__(self, features: int, hidden: int = 1024, dropout: float = 0.5) -> None:
        """Three linear layers, the first two followed by ReLU and dropout."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, 1),
        )  # fmt: skip
        start_new_layers(*(layer for layer in self.layers if isinstance(layer, nn.Linear)))

    def forward(self, features: Tensor) -> Tensor:
        """Domain logits of (B, D) features."""
        logits: Tensor = self.layers(features)
        return logits[:, 0]


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, coefficient: float) -> Tensor:
        ctx.coefficient = coefficient
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.coefficient * gradients[0], None


def reverse_gradient(features: Tensor, coefficient: float) -> Tensor:
    """The identity forward; backward, the gradient times -coefficient (Ganin et al. 2016, section 4.2)."""
    reversed_: Tensor = _Reverse.apply(features, coefficient)
    return reversed_
