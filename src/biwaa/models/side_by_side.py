"""Several backbones as one: their features side by side."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from biwaa.images.augment import bilinear

MOST_PARTS = 4
BLACK, WHOLE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Mean and deviation of its images: pixels in [0, 1], which every part standardises by its own."""


def several(name: str) -> bool:
    """Whether a backbone's name is of several, as in `a,b` or `a@224,b@384`."""
    return "," in name


def parts_of(name: str) -> list[tuple[str, int | None]]:
    """The name of each part, and its own image size where the name has one."""
    found: list[tuple[str, int | None]] = []
    for part in name.split(","):
        plain, at, size = part.strip().rpartition("@")
        sized = bool(at) and size.isascii() and size.isdigit() and len(size) < 6
        found.append((plain, int(size)) if sized else (part.strip(), None))
    return found


class SideBySide(nn.Module):
    """(B, 3, size, size) of 0 to 1 -> (B, F), F the sum of the parts' features."""

    def __init__(
        self, modules: Sequence[nn.Module], sizes: Sequence[int], means: Sequence[tuple[float, ...]],
        stds: Sequence[tuple[float, ...]],
    ) -> None:  # fmt: skip
        """Each part has a module, its pixels a side, and the mean and deviation of its channels."""
        super().__init__()
        self.parts = nn.ModuleList(modules)
        largest = max(sizes)
        for number, (size, mean, std) in enumerate(zip(sizes, means, stds, strict=True)):
            # They follow from the name, so they are no part of a model's file.
            self._keep(f"mean{number}", torch.tensor(mean).view(3, 1, 1))
            self._keep(f"std{number}", torch.tensor(std).view(3, 1, 1))
            if size != largest:  # two products export everywhere; antialiased interpolation does not
                self._keep(f"rows{number}", bilinear(torch.tensor([0]), torch.tensor([largest]), largest, size)[0])

    def _keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Each part sees the images at its own size, standardised its own way."""
        found = []
        for number, part in enumerate(self.parts):
            rows = getattr(self, f"rows{number}", None)
            seen = images if rows is None else rows @ images @ rows.T
            found.append(part((seen - getattr(self, f"mean{number}")) / getattr(self, f"std{number}")))
        return torch.cat(found, dim=1)
