"""Which decoder fills the store fastest, and how far its pixels lie from Pillow's plain decoding.

python benchmarks/decode.py --data-root DATA --out benchmarks/results/decode.json

- every image of a set from its file to 8-bit RGB of one size, files in the page cache; sets in turns, best of three
- "store" is what the store does; torchvision's decoders are deprecated since 0.29
- on one thread and on a thread a core; torch itself on one
- simplejpeg by itself is compared on JPEG files only
"""

import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import tyro
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from biwaa.device import hardware
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.images.decoding import Pixels, decoded
from biwaa.images.images import FileImages
from biwaa.images.store import resized
from biwaa.training.describe import versions

SETS = ("office10:dslr", "office10:webcam", "office10:amazon", "pacs:photo")


def by_pillow(image: Image.Image, size: int) -> Pixels:
    """Pillow's resizing."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def pillow(data: bytes, least: int) -> Image.Image:
    """By Pillow; a JPEG at a half, a quarter or an eighth where `least` pixels a side are left."""
    image = Image.open(io.BytesIO(data))
    if least:
        image.draft(None, (least, least))
    return image.convert("RGB")


def torchvision(data: bytes, size: int) -> Pixels:
    """decode_image."""
    image = decode_image(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB, apply_exif_orientation=True
    )
    return resized(image.permute(1, 2, 0).numpy(), size)


def small_jpeg(data: bytes, size: int, least: int) -> Pixels:
    """simplejpeg, scaled in eighths where `least` pixels a side are left."""
    return resized(simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least), size)


DECODERS: dict[str, Callable[[bytes, int], Pixels]] = {
    "store": lambda data, size: resized(decoded(data, size), size),
    "pillow": lambda data, size: by_pillow(pillow(data, 0), size),
    "pillow, torch's resize": lambda data, size: resized(np.array(pillow(data, 0)), size),
    "pillow, draft": lambda data, size: by_pillow(pillow(data, size), size),
    "pillow, draft, torch's resize": lambda data, size: resized(np.array(pillow(data, size)), size),
    "torchvision, torch's resize": torchvision,
    "simplejpeg, torch's resize": lambda data, size: small_jpeg(data, size, 0),
    "simplejpeg, scaled, torch's resize": lambda data, size: small_jpeg(data, size, size),
}


def rate(files: list[Path], decoder: Callable[[bytes, int], Pixels], size: int, threads: int) -> float:
    """Images a second."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: decoder(path.read_bytes(), size).shape, files):
            pass
    return len(files) / (time.perf_counter() - begin)


def compare(files: list[Path], size: int, cores: int, repeats: int) -> dict[str, Any]:
    """Every decoder on one set."""
    found: dict[str, Any] = {}
    jpeg = Image.open(files[0]).format == "JPEG"
    able = {
        name: decoder for name, decoder in DECODERS.items()
        if (jpeg or "draft" not in name) and ("simplejpeg" not in name or jpeg)
    }  # fmt: skip
    for name, decoder in able.items():
        away = [
            np.abs(decoder(data, size).astype(int) - DECODERS["pillow"](data, size))
            for data in (path.read_bytes() for path in files[:100])
        ]
        found[name] = {"mean_difference": float(np.mean(away)), "largest_difference": int(np.max(away))}
    for threads in sorted({1, cores}):
        rates: dict[str, list[float]] = {name: [] for name in able}
        for _ in range(repeats):
            for name, decoder in able.items():
                rates[name].append(rate(files, decoder, size, threads))
        for name, measured in rates.items():
            found[name][f"images_per_second_on_{threads}"] = round(max(measured), 1)
    return found


def main(data_root: Path, out: Path, size: int = 256, most: int = 500, repeats: int = 3) -> None:
    """Measure all sets, of at most so many images each, and write it."""
    torch.set_num_threads(1)
    cores = torch.multiprocessing.cpu_count()
    facts = hardware("cpu") | {"versions": versions(), "simplejpeg": simplejpeg.__version__}
    found: dict[str, Any] = {"size": size, "cores": cores, "hardware": facts, "sets": {}}
    for spec in SETS:
        images = open_domain(spec, data_root).images
        assert isinstance(images, FileImages)
        rows = np.random.default_rng(0).permutation(len(images))[:most]
        found["sets"][spec] = compare([images.paths[row] for row in rows], size, cores, repeats)
        print(spec, json.dumps(found["sets"][spec], indent=1), flush=True)
    write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
