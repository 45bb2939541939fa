"""One thread, a cache of the tests' own, and where the real images are."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """No test may read or fill the user's cache; the commands the tests start inherit this one."""
    os.environ["BIWAA_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def data_root():
    """Folder of real images; tests that need it skip where it is missing."""
    root = Path(os.environ.get("BIWAA_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip("no real images: set BIWAA_DATA to a folder with pacs/, office10/ and digits.npz")
    return root


def write_images(folder: Path, counts: dict[str, int], size: int = 20, seed: int = 0, suffix: str = ".png") -> Path:
    """Class folders of noise around a brightness of the class's own, easy to tell apart."""
    rng = np.random.default_rng(seed)
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            level = 40 + 170 * number // max(len(counts) - 1, 1)
            pixels = rng.normal(level, 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}{suffix}")
    return folder
