"""From stored 8-bit pixels to the backbone's input: crops, flips, normalisation.

- `Transform` is part of a model's metadata, so a model knows how its images are prepared
- on a GPU, random views of a whole batch are two matrix products (`resample`)
- on the CPU, torch's own 8-bit resizing of one box at a time is twenty times faster, and each view is normalised
  while it is still in a core's cache (`each_view`)
- channels are last in memory, (B, H, W, 3) seen as (B, 3, H, W), from the store to the backbone
- random numbers come from torch's global generator, which the training step seeds
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from biwaa.device import with_threads

Augmentation = Literal["crop_flip", "crop", "none"]

RATIO = (3 / 4, 4 / 3)  # Width over height of a random crop
TRIES = 10  # Boxes drawn for an image until one fits; then the whole image is taken
THREAD_PIXELS = 2**18
"""Fewest pixels of views for each thread on the CPU; with fewer, starting threads costs more than it saves."""


def as_tensor(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Stored (B, H, W, 3) -> (B, 3, H, W) on the device, channels last in memory."""
    return host_tensor(pixels, device).to(device, non_blocking=True).permute(0, 3, 1, 2)


def host_tensor(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The same array; for a GPU in pinned memory, so that the host need not wait for the copy."""
    ready = torch.from_numpy(pixels)
    return ready.pin_memory() if device.type == "cuda" else ready


class Boxes(NamedTuple):
    """The place of each of B views in its image, in whole pixels: (B,) int64 each."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class Transform:
    """How images become the backbone's input."""

    resize: int  # Pixels a side after resizing, aspect not kept
    image_size: int  # Pixels a side of the crop
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crops: Literal[1, 10] = 10  # Views whose predictions are averaged

    def normalise(self, pixels: Tensor) -> Tensor:
        """(..., 3, H, W) of 0 to 255 -> float32, each channel standardised by the backbone's mean and deviation."""
        *many, channels, height, width = pixels.shape
        lines = pixels.movedim(-3, -1).reshape(*many, height, width * channels)  # whole lines make long inner loops
        whitened = _whiten(lines.float(), *self._line(width, pixels.device))
        return whitened.view(*many, height, width, channels).movedim(-1, -3)

    def _line(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation for a line of `width` pixels, (3 width,) each."""
        mean, std = (torch.tensor(values, device=device).repeat(width) for values in (self.mean, self.std))
        return mean, std

    def views(self, pixels: Tensor) -> Tensor:
        """uint8 (B, 3, resize, resize) -> uint8 (V, B, 3, image_size, image_size), V = `crops`."""
        return torch.stack(self.cropped(pixels))

    def cropped(self, images: Tensor) -> list[Tensor]:
        """(B, 3, resize, resize) -> V views: the centre; or corners and centre, of the images and of their mirrors."""
        size, room = self.image_size, self.resize - self.image_size
        middle = round(room / 2)
        places, sides = [(middle, middle)], [images]
        if self.crops == 10:
            places, sides = [(0, 0), (0, room), (room, 0), (room, room), *places], [images, images.flip(3)]
        return [side[:, :, top : top + size, left : left + size] for side in sides for top, left in places]

    def centre(self, pixels: Tensor) -> Tensor:
        """(B, 3, resize, resize) -> the centre crop (B, 3, image_size, image_size)."""
        return replace(self, crops=1).cropped(pixels)[0]

    def augmented(self, pixels: Tensor, augment: Augmentation, crop_area: float = 0.08) -> Tensor:
        """One random view of each image: uint8 (B, 3, resize, resize) -> (B, 3, image_size, image_size), 0 to 255."""
        if augment == "none":
            return self.centre(pixels)
        boxes, flip = self._draw_boxes(len(pixels), augment, crop_area)
        if pixels.device.type != "cpu":
            return resample(pixels, boxes, flip, self.image_size)
        return one_by_one(pixels.permute(0, 2, 3, 1).numpy(), np.arange(len(pixels)), boxes, flip, self.image_size)

    def training_views(
        self, store: NDArray[np.uint8], rows: NDArray[np.int64], augment: Augmentation, crop_area: float = 0.08
    ) -> Tensor:
        """`normalise(augmented(..))` of rows of a store, on the CPU, without copying whole images.

        Args:
            store: (M, resize, resize, 3).
            rows: (B,) of the store.
            augment: kind of views.
            crop_area: least share of an image that a crop covers.

        Returns:
            (B, 3, image_size, image_size) float32, channels last in memory.
        """
        if augment == "none":
            return self.normalise(self.centre(as_tensor(store[rows], torch.device("cpu"))))
        size = self.image_size
        boxes, flip = self._draw_boxes(len(rows), augment, crop_area)
        line = self._line(size, torch.device("cpu"))
        # NumPy asks the system for huge pages: the first write to a large batch costs less.
        lines = torch.from_numpy(np.empty((len(rows), size, size * 3), dtype=np.float32))

        def normalise_into(number: int, view: Tensor) -> None:
            _whiten(lines[number].copy_(view.permute(1, 2, 0).reshape(size, size * 3)), *line)

        each_view(store, rows, boxes, flip, size, normalise_into)
        return lines.view(len(rows), size, size, 3).permute(0, 3, 1, 2)

    def _draw_boxes(self, count: int, augment: Augmentation, crop_area: float) -> tuple["Boxes", Tensor]:
        with with_threads(1):
            boxes = random_boxes(count, self.resize, crop_area)
            return boxes, torch.rand(count) < 0.5 if augment == "crop_flip" else torch.zeros(count, dtype=torch.bool)

    def distorted(self, pixels: Tensor, augment: Augmentation, crop_area: float = 0.08) -> Tensor:
        """`augmented`, then RandAugment, then a grey square over part of the image (FixMatch, section 2.3)."""
        square = v2.RandomErasing(p=1.0, scale=(0.02, 0.25), ratio=(1.0, 1.0), value=127)
        strong = v2.Compose([v2.RandAugment(num_ops=2, magnitude=10), square])
        views = self.augmented(pixels, augment, crop_area).round().to(torch.uint8)
        return torch.stack([strong(image) for image in views])


def _whiten(lines: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardise (.., 3 width) of 0 to 255, in place."""
    return lines.div_(255).sub_(mean).div_(std)


def random_boxes(count: int, side: int, least: float) -> Boxes:
    """Crops of random area and shape, distributed as torchvision's RandomResizedCrop draws them.

    Args:
        count: B.
        side: of the square images, in pixels.
        least: least share of an image that a crop covers (0.08 in Szegedy et al., CVPR 2015, section 6).
    """
    area = side**2 * torch.empty(count, TRIES).uniform_(least, 1.0)
    ratio = torch.empty(count, TRIES).uniform_(math.log(RATIO[0]), math.log(RATIO[1])).exp()
    wide, high = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (wide <= side) & (high <= side) & (wide > 0) & (high > 0)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    wide = torch.where(found, wide.gather(1, first)[:, 0], side)
    high = torch.where(found, high.gather(1, first)[:, 0], side)
    top = (torch.rand(count) * (side - high + 1)).long()
    left = (torch.rand(count) * (side - wide + 1)).long()
    return Boxes(top, left, high, wide)


def resample(pixels: Tensor, boxes: Boxes, flip: Tensor, size: int) -> Tensor:
    """Cut a box from every image, resize and flip it: rows times pixels times columns.

    Args:
        pixels: (B, C, H, W) uint8.
        boxes: of the views.
        flip: (B,) bool; mirror left and right.
        size: S, pixels a side.

    Returns:
        (B, C, S, S) float32 of 0 to 255: bilinear with antialiasing, as torchvision resizes the cut box, without its
        rounding to whole numbers.
    """
    count, channels, height, width = pixels.shape
    rows = bilinear(boxes.top, boxes.height, height, size).to(pixels.device, non_blocking=True)
    columns = bilinear(boxes.left, boxes.width, width, size)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns).to(pixels.device, non_blocking=True)
    across = torch.bmm(pixels.float().flatten(1, 2), columns.transpose(1, 2))  # (B, C H, S)
    upright = across.view(count, channels, height, size).transpose(1, 2).reshape(count, height, channels * size)
    return torch.bmm(rows, upright).view(count, size, channels, size).transpose(1, 2)


def one_by_one(store: NDArray[np.uint8], rows: NDArray[np.int64], boxes: Boxes, flip: Tensor, size: int) -> Tensor:
    """As `resample`, for rows of a store (M, H, W, 3), rounded to uint8."""
    views = torch.empty(len(rows), size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    each_view(store, rows, boxes, flip, size, views.__setitem__)
    return views


def each_view(
    store: NDArray[np.uint8], rows: NDArray[np.int64], boxes: Boxes, flip: Tensor, size: int,
    receive: Callable[[int, Tensor], None],
) -> None:  # fmt: skip
    """Pass each view, (3, S, S) uint8 with channels last in memory, to `receive`; on several threads if that pays.

    Args:
        store: (M, H, W, 3).
        rows: (B,) of the store.
        boxes: of the views.
        flip: (B,) bool; mirror left and right.
        size: S, pixels a side.
        receive: gets a view's number among B and the view; called from several threads at once.
    """
    places = torch.stack(boxes, dim=1).tolist()
    mirrored = flip.tolist()
    images = np.asarray(store)  # slices of a memory map would be memory maps, which are slow to make

    def resize_some(numbers: range) -> None:
        for number in numbers:
            top, left, height, width = places[number]
            box = np.array(images[rows[number], None, top : top + height, left : left + width], order="C")
            pixels = torch.from_numpy(box).permute(0, 3, 1, 2)
            view = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
            receive(number, (view.flip(3) if mirrored[number] else view)[0])

    threads = min(torch.get_num_threads(), len(rows) * size**2 // THREAD_PIXELS)
    with with_threads(1):  # torch's own would go on waiting for work on the cores of these
        if threads < 2:
            resize_some(range(len(rows)))
            return
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(resize_some, range(first, len(rows), threads)) for first in range(threads)]:
                done.result()


def bilinear(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """The weight of each of `pixels` in a line for each of `size` output pixels: (B, size, pixels).

    Args:
        start: (B,) the first pixel of the box.
        length: (B,) of the box, in pixels.
        pixels: in the whole line.
        size: of the output, in pixels; if it is smaller than the box, the triangle widens (antialiasing).
    """
    scale = length[:, None, None] / size
    centre = (torch.arange(size)[:, None] + 0.5) * scale  # (B, size, 1) within the box
    place = torch.arange(pixels) + 0.5 - start[:, None, None]  # (B, 1, pixels)
    weight = (1 - (place - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((place > 0) & (place < length[:, None, None]))
    return weight / weight.sum(dim=2, keepdim=True)
