"""Small networks for digits, with three channels, for images of any size.

- LeNet (LeCun et al. 1998) as the field uses it for MNIST and USPS: 20 and 50 filters, 500 features
- DTN, three strided convolutions with BatchNorm, as the field uses it for SVHN: 512 features
- a network of three 3 x 3 convolutions with BatchNorm, small enough for the demo: 128 features
"""

from torch import Tensor, nn


class _Digits(nn.Module):
    """Convolutions, then a fully connected layer."""

    def __init__(self, convolutions: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, features)."""
        features: Tensor = self.head(self.convolutions(images).flatten(1))
        return features


def lenet(size: int) -> nn.Module:
    """LeNet for `size` x `size` pixels."""
    side = ((size - 4) // 2 - 4) // 2
    convolutions = nn.Sequential(
        nn.Conv2d(3, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(20, 50, 5), nn.Dropout2d(0.5), nn.MaxPool2d(2), nn.ReLU(),
    )  # fmt: skip
    head = nn.Sequential(nn.Linear(50 * side * side, 500), nn.ReLU(), nn.Dropout(0.5))
    return _Digits(convolutions, head)


def dtn(size: int) -> nn.Module:
    """Three convolutions of stride 2 for `size` x `size` pixels."""
    layers: list[nn.Module] = []
    for inputs, outputs, dropout in ((3, 64, 0.1), (64, 128, 0.3), (128, 256, 0.5)):
        layers += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2), nn.BatchNorm2d(outputs)]
        layers += [nn.Dropout2d(dropout), nn.ReLU()]
    side = -(-size // 8)
    head = nn.Sequential(nn.Linear(256 * side * side, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Dropout(0.5))
    return _Digits(nn.Sequential(*layers), head)


def cnn(size: int) -> nn.Module:
    """Three 3 x 3 convolutions with BatchNorm for `size` x `size` pixels."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if outputs != inputs else []
    head = nn.Sequential(nn.Linear(64 * (size // 4) ** 2, 128), nn.BatchNorm1d(128), nn.ReLU())
    return _Digits(nn.Sequential(*layers), head)
