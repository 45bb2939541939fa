"""Two domains that need no download: clean handwritten digits, and digits blended into photographs.

- plain: one half of scikit-learn's handwritten digits, white on black
- photographs: the other half, each blended into a patch of scikit-learn's two photographs by MNIST-M's recipe, the
  absolute difference of patch and digit (Ganin et al. 2016, section 5.2.4)
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F2

from biwaa.domains.domain import Domain
from biwaa.domains.sources import open_arrays
from biwaa.files import cache_dir, replacing

SIZE = 24
"""Pixels a side of an image."""
DIGIT = 18
"""Pixels a side of the digit in it, which comes as 8 x 8; like MNIST's it keeps a margin."""
CONTRAST = 3.0
"""Strokes blurred by the enlargement become as sharp as MNIST's."""
SEED = 42
"""Of the halves and the patches, where the catalogue draws them."""


def draw_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits as (N, SIZE, SIZE) from 0 to 255, and their (N,) classes."""
    digits = load_digits()
    small = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    large = F2.resize(small, [DIGIT, DIGIT], interpolation=InterpolationMode.BICUBIC, antialias=True)
    large = ((large - 0.5) * CONTRAST + 0.5).clip(0, 1) * 255
    return F2.pad(large, [(SIZE - DIGIT) // 2])[:, 0].numpy(), digits.target.astype(np.int64)


def make_data(path: Path, seed: int) -> None:
    """Write plain_x, plain_y, photographs_x and photographs_y, two halves of the digits that share no digit.

    Args:
        path: the .npz file to write; plain_x is (N, SIZE, SIZE), photographs_x is (M, SIZE, SIZE, 3).
        seed: of the halves and the patches.
    """
    rng = np.random.default_rng(seed)
    digits, classes = draw_digits()
    order = rng.permutation(len(digits))
    ours, theirs = order[: len(order) // 2], order[len(order) // 2 :]
    photographs = load_sample_images().images
    blended = []
    for index in theirs:
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(side - SIZE + 1) for side in photograph.shape[:2])
        patch = photograph[top : top + SIZE, left : left + SIZE].astype(np.float32)
        blended.append(np.abs(patch - digits[index][..., None]))
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            plain_x=digits[ours].round().astype(np.uint8),
            plain_y=classes[ours],
            photographs_x=np.stack(blended).round().astype(np.uint8),
            photographs_y=classes[theirs],
        )


def bundled_digits(spec: str, name: str) -> Domain:
    """`plain` or `photographs`, drawn once and kept in the cache."""
    file = cache_dir() / f"bundled-digits-{SEED}.npz"
    if not file.is_file():
        make_data(file, SEED)
    return open_arrays(spec, file, name)
