"""From stored 8-bit pixels to what the backbone sees: crops, flips, normalisation.

- `Transform` travels in the model's metadata: a model knows how its images are to be prepared
- ten crops are ten views of one stored image
- random draws come from torch's global generator, which the training step seeds
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F2


@dataclass(frozen=True)
class Transform:
    """How images become input."""

    resize: int
    """Pixels a side after resizing, aspect not kept."""
    image_size: int
    """Pixels a side of the crop."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crops: Literal[1, 10] = 10
    """Views whose predictions are averaged."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (..., 3, H, W) -> float32, channels standardised by the backbone's mean and deviation."""
        mean = torch.tensor(self.mean, device=pixels.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std

    def views(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, resize, resize) -> uint8 (V, B, 3, image_size, image_size), V = `crops`."""
        if self.crops == 1:
            return self._centre(pixels)[None]
        return torch.stack(F2.ten_crop(pixels, [self.image_size]))

    def _centre(self, pixels: Tensor) -> Tensor:
        centre: Tensor = F2.center_crop(pixels, [self.image_size])
        return centre

    def augmented(self, pixels: Tensor, how: Literal["crop_flip", "crop", "none"]) -> Tensor:
        """One random view of each image: uint8 (B, 3, resize, resize) -> (B, 3, image_size, image_size)."""
        if how == "none":
            return self._centre(pixels)
        steps: list[torch.nn.Module] = [v2.RandomResizedCrop(self.image_size, antialias=True)]
        if how == "crop_flip":
            steps.append(v2.RandomHorizontalFlip())
        random_view = v2.Compose(steps)
        return torch.stack([random_view(image) for image in pixels])

    def distorted(self, pixels: Tensor, how: Literal["crop_flip", "crop", "none"]) -> Tensor:
        """`augmented`, then RandAugment and a grey square over part of the image (FixMatch, section 2.3)."""
        square = v2.RandomErasing(p=1.0, scale=(0.02, 0.25), ratio=(1.0, 1.0), value=127)
        strong = v2.Compose([v2.RandAugment(num_ops=2, magnitude=10), square])
        return torch.stack([strong(image) for image in self.augmented(pixels, how)])
