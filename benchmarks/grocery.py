"""Make a second place of photographs that were taken in one: python benchmarks/grocery.py PHOTOGRAPHS DATA_ROOT.

The photographs of each class are parted into two halves. `clean` holds one half as it is. The other is blurred,
darkened, made noisy and crushed by JPEG, at three strengths: `corrupted1`, `corrupted2`, `corrupted3`. The catalogue
knows the four as `grocery:clean` and so on, below `DATA_ROOT/grocery_corrupted`.

The strengths: logistic regression on frozen EfficientNet-Lite0 features, each domain standardised by its own
statistics, learned from `clean`, is right on 62, 48 and 30 % of the corrupted images.

Nothing is random: halves and noise follow from the photographs' names, so every run makes the same files. Keep
DATA_ROOT outside the project, since the photographs have a licence of their own (Klasson et al. 2019, MIT).
"""

import hashlib
import io
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from PIL import Image, ImageFilter

from biwaa.domains.listing import is_image


class Strength(NamedTuple):
    """How far a photograph is spoiled."""

    blur: float  # Radius of the Gaussian, in pixels of an image whose shorter side has 144
    light: float  # Brightness that is left, 1 for all
    noise: float  # Standard deviation of Gaussian noise, in levels of 255
    quality: int  # Of JPEG


STRENGTHS = {
    "corrupted1": Strength(1.0, 0.68, 10, 34),
    "corrupted2": Strength(1.15, 0.625, 12, 30),
    "corrupted3": Strength(1.33, 0.56, 14, 25),
}


def digest(name: str) -> int:
    """A number that follows from a name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def corrupted(image: Image.Image, strength: Strength, seed: int) -> bytes:
    """An RGB photograph as a spoiled JPEG file; `seed` draws the noise."""
    blurred = image.filter(ImageFilter.GaussianBlur(strength.blur * min(image.size) / 144))
    pixels = np.asarray(blurred, np.float32) * strength.light
    pixels = pixels + np.random.default_rng(seed).normal(0, strength.noise, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8)).save(file, "JPEG", quality=strength.quality)
    return file.getvalue()


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """A class's photographs in two halves, the first the larger where their number is odd."""
    files = sorted((path for path in folder.iterdir() if is_image(path)), key=lambda path: digest(path.stem))
    middle = (len(files) + 1) // 2
    return sorted(files[:middle]), sorted(files[middle:])


def make(photographs: Path, out: Path) -> None:
    """Write the four domains below `out`; `photographs` has a folder for each class."""
    for folder in sorted(path for path in photographs.iterdir() if path.is_dir()):
        first, second = halves(folder)
        for name in ("clean", *STRENGTHS):
            (out / name / folder.name).mkdir(parents=True, exist_ok=True)
        for path in first:
            shutil.copyfile(path, out / "clean" / folder.name / path.name)
        for path in second:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            for name, strength in STRENGTHS.items():
                spoiled = corrupted(image, strength, digest(f"{folder.name}/{path.stem}"))
                (out / name / folder.name / f"{path.stem}.jpg").write_bytes(spoiled)


def main(photographs: tyro.conf.Positional[Path], data_root: tyro.conf.Positional[Path]) -> None:
    """Make them of a folder of class folders, where biwaa finds benchmarks."""
    place = data_root / "grocery_corrupted"
    make(photographs, place)
    print(f"wrote {', '.join(('clean', *STRENGTHS))} to {place}; see `biwaa check grocery`")


if __name__ == "__main__":
    tyro.cli(main)
