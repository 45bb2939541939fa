"""Three domains that need no download: clean handwritten digits, and digits on photographs in two ways.

- plain: one half of scikit-learn's handwritten digits, white on black
- photographs: the other half, each blended into a patch of scikit-learn's two photographs by MNIST-M's recipe, the
  absolute difference of patch and digit (Ganin et al. 2016, section 5.2.4)
- painted: the same half in white on the same patches, each brought to the same mean brightness
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
from biwaa.files import cache_dir, open_cache, replacing

SIZE = 24  # Pixels a side of an image
DIGIT = 18  # Pixels a side of the digit in it, which comes as 8 x 8; like MNIST's it keeps a margin
CONTRAST = 3.0  # Strokes blurred by the enlargement become as sharp as MNIST's
BRIGHTNESS = 110.0
"""Mean of a patch that a digit is painted on. As they are, the bright patches hide white strokes and the dark ones do
not, and the target falls into two places."""
SEED = 42  # Of the halves and the patches, where the catalogue draws them


def draw_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's digits as (N, SIZE, SIZE) from 0 to 255, and their (N,) classes."""
    digits = load_digits()
    small = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]
    large = F2.resize(small, [DIGIT, DIGIT], interpolation=InterpolationMode.BICUBIC, antialias=True)
    large = ((large - 0.5) * CONTRAST + 0.5).clip(0, 1) * 255
    return F2.pad(large, [(SIZE - DIGIT) // 2])[:, 0].numpy(), digits.target.astype(np.int64)


def make_data(path: Path, seed: int) -> None:
    """Write NAME_x and NAME_y of plain, photographs and painted; plain shares no digit with the two others.

    Args:
        path: the .npz file to write; plain_x is (N, SIZE, SIZE), the others are (M, SIZE, SIZE, 3).
        seed: of the halves and the patches.
    """
    rng = np.random.default_rng(seed)
    digits, classes = draw_digits()
    order = rng.permutation(len(digits))
    ours, theirs = order[: len(order) // 2], order[len(order) // 2 :]
    photographs = load_sample_images().images
    blended, painted = [], []
    for index in theirs:
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(side - SIZE + 1) for side in photograph.shape[:2])
        patch = photograph[top : top + SIZE, left : left + SIZE].astype(np.float32)
        digit = digits[index][..., None]
        blended.append(np.abs(patch - digit))
        even = (patch * (BRIGHTNESS / patch.mean())).clip(0, 255)
        painted.append(even * (1 - digit / 255) + digit)
    with replacing(path) as draft, draft.open("wb") as file:
        np.savez_compressed(
            file,
            plain_x=digits[ours].round().astype(np.uint8),
            plain_y=classes[ours],
            photographs_x=np.stack(blended).round().astype(np.uint8),
            photographs_y=classes[theirs],
            painted_x=np.stack(painted).round().astype(np.uint8),
            painted_y=classes[theirs],
        )


def bundled_digits(spec: str, name: str) -> Domain:
    """`plain`, `photographs` or `painted`, drawn once and kept in the cache."""
    file = cache_dir() / f"bundled-digits-{SEED}-painted.npz"  # a file without the addition may be left from before
    if not file.is_file():
        open_cache()
        make_data(file, SEED)
    return open_arrays(spec, file, name)
