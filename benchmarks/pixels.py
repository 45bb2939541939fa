"""What images cost before they reach the network, each figure with its floor, in turns in one process.

python benchmarks/pixels.py loader cost training extraction --data-root DATA --out benchmarks/results/pixels.json

- loader: random views out of the store over a DataLoader that decodes every image again; and writing the floats alone
- cost: the same two in processor time, where the machine is not free for `loader`
- training: steps that read the store over steps on tensors that are there already
- extraction: features of a frozen backbone over the bare network
"""

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import tyro
from PIL import Image
from speed import BATCH, Steps, in_turns
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms import v2

from biwaa.device import hardware, open_fabric, with_threads
from biwaa.domains.spec import open_domain
from biwaa.files import write_text
from biwaa.images.augment import Transform
from biwaa.images.batches import PixelInputs, placed
from biwaa.images.images import FileImages, Images
from biwaa.images.store import decode_batches, store_pixels
from biwaa.models.backbone import build_backbone
from biwaa.models.features import store_features
from biwaa.training.describe import versions


class Anew(Dataset[tuple[Tensor, int]]):
    """Every image decoded by Pillow, resized, cropped and normalised each time it is asked for."""

    def __init__(self, images: Images, rows: Any, size: int, transform: Transform) -> None:
        """The images at `rows`."""
        assert isinstance(images, FileImages)
        self.paths = [images.paths[row] for row in rows]
        self.view = v2.Compose([
            v2.Resize((size, size)), v2.RandomResizedCrop(transform.image_size, antialias=True),
            v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(transform.mean, transform.std),
        ])  # fmt: skip

    def __len__(self) -> int:
        """Images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A view."""
        with Image.open(self.paths[index]) as image:
            return self.view(image.convert("RGB")), index


def stored(spec: str, root: Path, size: int, device: torch.device) -> PixelInputs:
    """A domain's random views of `size` pixels, decoded already and on the device where it is a GPU."""
    domain = open_domain(spec, root)
    transform = Transform(round(size * 8 / 7), size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    rows = store_pixels(domain.images, domain.spec, transform.resize).rows
    np.asarray(rows).sum()  # into the page cache
    store = placed([rows], device)[0]
    return PixelInputs(store, np.arange(len(rows)), transform, "crop_flip", 0.08, device)


def loader(root: Path, device: torch.device, spec: str = "pacs:photo", images: int = 1440) -> dict[str, Any]:
    """Images a second of 224-pixel views, in a domain's batches, from the warm store and from a DataLoader."""
    domain = open_domain(spec, root)
    inputs = stored(spec, root, 224, device)
    rows = np.random.default_rng(0).permutation(len(domain.images))[:images]

    def from_store() -> None:
        for start in range(0, len(rows), BATCH):
            inputs.batch(rows[start : start + BATCH])

    workers = torch.multiprocessing.cpu_count()
    files = Anew(domain.images, rows, 256, inputs.transform)
    anew = DataLoader(files, BATCH, num_workers=workers, persistent_workers=True)

    def from_files() -> None:
        for batch, _ in anew:
            batch.to(device)

    ready = torch.empty(BATCH, 224, 224, 3)

    def writing() -> None:
        for _ in range(0, len(rows), BATCH):
            ready.fill_(1.0)

    seconds = in_turns({"store": from_store, "files": from_files, "writing": writing}, 5, device)
    return {
        "images_per_second": {name: len(rows) / taken for name, taken in seconds.items()}, "workers": workers,
        "store_over_files": seconds["files"] / seconds["store"],
    }  # fmt: skip


def cost(root: Path, spec: str = "pacs:photo", images: int = 360) -> dict[str, Any]:
    """Milliseconds of processor time that a 224-pixel view takes on one thread: fairly the same on a busy machine."""
    inputs = stored(spec, root, 224, torch.device("cpu"))
    rows = np.random.default_rng(0).permutation(len(inputs))[:images]
    files = Anew(open_domain(spec, root).images, rows, 256, inputs.transform)
    taken: dict[str, list[float]] = {"store": [], "files": []}
    with with_threads(1):
        for _ in range(5):
            begin = time.process_time()
            for start in range(0, images, BATCH):
                inputs.batch(rows[start : start + BATCH])
            middle = time.process_time()
            for start in range(0, images // 5, BATCH):
                default_collate([files[row] for row in range(start, start + BATCH)])
            taken["store"].append((middle - begin) / images)
            taken["files"].append((time.process_time() - middle) / (images // 5))
    each = {name: 1000 * float(np.median(values)) for name, values in taken.items()}
    return {"milliseconds_per_view": each, "files_over_store": each["files"] / each["store"]}


def training(root: Path, device: torch.device, fabric: Any, repeats: int) -> list[dict[str, Any]]:
    """Steps of BIWAA on images of the store over the same steps on tensors that are there already."""
    found = []
    for backbone, size in (("resnet18", 64), ("resnet50", 224)):
        made = Steps(backbone, size, 65, device, fabric)
        source, target = stored("pacs:photo", root, size, device), stored("pacs:art_painting", root, size, device)
        seconds = in_turns({"store": partial(_reading, made, source, target), "ready": made.biwaa}, repeats, device)
        entry = {"backbone": backbone, "pixels": size, "seconds": seconds}
        found.append(entry | {"throughput_over_ready": seconds["ready"] / seconds["store"]})
    return found


def _reading(made: Steps, source: PixelInputs, target: PixelInputs) -> None:
    rows = [np.random.default_rng(made.step).permutation(len(inputs))[:BATCH] for inputs in (source, target)]
    made.biwaa(source.batch(rows[0]), target.batch(rows[1]))


def extraction(root: Path, device: torch.device, fabric: Any, repeats: int) -> dict[str, Any]:
    """Images a second of a frozen backbone: bare, decoding included, from kept pixels; and of decoding alone."""
    backbone = build_backbone("efficientnet_lite0", 224)
    transform = Transform(256, 224, backbone.mean, backbone.std, 1)
    whole = open_domain("pacs:photo", root).images.select(np.arange(640))
    module = backbone.module.to(device).to(memory_format=torch.channels_last).eval()
    ready = torch.randn(32, 3, 224, 224, device=device).contiguous(memory_format=torch.channels_last)
    turn = 0

    def images() -> Images:  # in another order each time: features already kept would be found again
        return whole.select(np.roll(np.arange(640), turn))

    def bare() -> None:
        nonlocal turn
        turn += 1
        with torch.inference_mode():
            for _ in range(len(whole) // 32):
                module(ready)

    def decoding() -> None:
        for _ in decode_batches(images(), transform.resize, 32):
            pass

    def extracting() -> None:
        store_features(images(), "photo", backbone, transform, fabric)

    def warm() -> None:
        for name in Path(os.environ["BIWAA_CACHE"]).glob("*/rows.npy"):
            name.unlink()  # so that nothing but pixels is found
        store_pixels(images(), "photo", transform.resize)
        begin = time.perf_counter()
        extracting()
        kept_ready.append(time.perf_counter() - begin)

    kept_ready: list[float] = []
    with tempfile.TemporaryDirectory() as cache, patch.dict("os.environ", {"BIWAA_CACHE": cache}):
        works: dict[str, Callable[[], object]] = {"bare": bare, "decoding": decoding, "extraction": extracting}
        seconds = in_turns(works | {"warm": warm}, repeats, device)
    seconds["warm"] = float(np.median(kept_ready[1:]))
    return {
        "images_per_second": {name: len(whole) / taken for name, taken in seconds.items()},
        "extraction_over_bare": seconds["bare"] / seconds["extraction"],
        "floor_of_both_in_a_row": seconds["bare"] / (seconds["bare"] + seconds["decoding"]),
        "from_kept_pixels_over_bare": seconds["bare"] / seconds["warm"],
    }  # fmt: skip


def main(
    parts: tyro.conf.Positional[tuple[Literal["loader", "cost", "training", "extraction"], ...]],
    data_root: Path, out: Path, device: str = "cpu", repeats: int = 5,
) -> None:  # fmt: skip
    """Measure what is asked for and write it."""
    fabric = open_fabric(device, "32-true")
    found = json.loads(out.read_text()) if out.exists() else {}
    found |= {"hardware": hardware(fabric.device.type), "versions": versions()}
    for what in parts:
        if what == "loader":
            found[what] = loader(data_root, fabric.device)
        elif what == "cost":
            found[what] = cost(data_root)
        else:
            measure = training if what == "training" else extraction
            found[what] = measure(data_root, fabric.device, fabric, repeats)
        print(what, json.dumps(found[what], indent=1), flush=True)
        write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
