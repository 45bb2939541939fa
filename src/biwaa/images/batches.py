"""A domain as training sees it: rows to batches on the device, without labels.

- pixels of the store, augmented anew each time; or features of a frozen backbone
- a store that lies on no GPU is read for the next batch while the network is busy with this one
- `views` is the same for prediction: one view an image, or ten crops
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biwaa.images.augment import How, Transform, host_tensor

SHARE = 0.5
"""Of a GPU's free memory that stored pixels may take; the network and its gradients need the rest."""


class Inputs(Protocol):
    """What a network can be fed with."""

    def __len__(self) -> int:
        """Images in the domain."""

    def select(self, rows: NDArray[np.int64]) -> "Inputs":
        """Only the images at `rows`."""

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """Training inputs of `rows`, (B, ..) on the device."""

    def strong(self, rows: NDArray[np.int64]) -> Tensor:
        """Strongly augmented training inputs of `rows`, (B, ..) on the device."""

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """Prediction's inputs of `rows`, (V, B, ..) on the device."""

    def view(self, rows: NDArray[np.int64]) -> Tensor:
        """One view alone, the centre: (1, B, ..)."""

    def expect(self, rows: NDArray[np.int64]) -> None:
        """`rows` are the next batch but one at most: what is slow to read may be read from now on."""


class ReadAhead:
    """Pixels that a thread of its own reads before they are asked for; nothing random is drawn there."""

    def __init__(self, fetch: Callable[[NDArray[np.int64]], Tensor]) -> None:
        """Read by `fetch`, which takes rows of the store."""
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, "biwaa-read-ahead")
        # Of this batch and of the next.
        self._expected: deque[tuple[bytes, Future[Tensor]]] = deque(maxlen=2)

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Start to read."""
        self._expected.append((rows.tobytes(), self._thread.submit(self._fetch, rows)))

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """What `fetch` gives, at once where the rows were expected."""
        wanted = rows.tobytes()
        for known, read in self._expected:
            if known == wanted:
                return read.result()
        return self._fetch(rows)


def reads_ahead(store: NDArray[np.uint8] | Tensor, device: torch.device) -> bool:
    """Whether there is anything to win: on a CPU the network takes all cores, and a `placed` store needs no reading."""
    return device.type == "cuda" and not isinstance(store, Tensor)


@dataclass(frozen=True)
class PixelInputs:
    """Stored pixels."""

    store: NDArray[np.uint8] | Tensor
    """(M, resize, resize, 3), memory-mapped; or on the device as a whole, as of `placed`."""
    rows: NDArray[np.int64]
    """(N,) the store's rows that belong to the domain."""
    transform: Transform
    augment: How
    crop_area: float
    device: torch.device

    def __len__(self) -> int:
        """Images in the domain."""
        return len(self.rows)

    def select(self, rows: NDArray[np.int64]) -> "PixelInputs":
        """Only the images at `rows`."""
        return replace(self, rows=self.rows[rows])

    def _stored(self, rows: NDArray[np.int64]) -> Tensor:
        """uint8 (B, 3, resize, resize) on the device, channels last in memory."""
        if isinstance(self.store, Tensor):
            return self.store[torch.from_numpy(self.rows[rows]).to(self.device)].permute(0, 3, 1, 2)
        pixels = (self._ahead or self._fetch)(self.rows[rows])
        return pixels.to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    def _fetch(self, stored: NDArray[np.int64]) -> Tensor:
        return host_tensor(np.asarray(self.store[stored]), self.device)

    @cached_property
    def _ahead(self) -> ReadAhead | None:
        return ReadAhead(self._fetch) if reads_ahead(self.store, self.device) else None

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Read the pixels on another thread, where that pays."""
        if self._ahead:
            self._ahead.expect(self.rows[rows])

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """One random view of each image, normalised, channels last."""
        if self.device.type == "cpu" and not isinstance(self.store, Tensor) and not self._ahead:
            return self.transform.training_views(self.store, self.rows[rows], self.augment, self.crop_area)
        return self.transform.normalise(self.transform.augmented(self._stored(rows), self.augment, self.crop_area))

    def strong(self, rows: NDArray[np.int64]) -> Tensor:
        """One random view of each image, distorted beyond `augment`."""
        return self.transform.normalise(self.transform.distorted(self._stored(rows), self.augment, self.crop_area))

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """The views that predictions average, normalised."""
        return self.transform.normalise(self.transform.views(self._stored(rows)))

    def view(self, rows: NDArray[np.int64]) -> Tensor:
        """The centre alone, normalised."""
        return self.transform.normalise(self.transform.centre(self._stored(rows)))[None]


def placed(stores: list[NDArray[np.uint8]], device: torch.device) -> list[NDArray[np.uint8] | Tensor]:
    """The stores on a GPU, where all of them fit into SHARE of its free memory; else as they are."""
    if device.type == "cuda" and sum(store.nbytes for store in stores) < SHARE * torch.cuda.mem_get_info(device)[0]:
        return [torch.from_numpy(np.asarray(store)).to(device) for store in stores]
    return [*stores]


@dataclass(frozen=True)
class FeatureInputs:
    """Standardised features of a frozen backbone."""

    features: Tensor
    """(N, F) on the device."""

    def __len__(self) -> int:
        """Images in the domain."""
        return len(self.features)

    def select(self, rows: NDArray[np.int64]) -> "FeatureInputs":
        """Only the images at `rows`."""
        return FeatureInputs(self.batch(rows))

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """(B, F)."""
        return self.features[torch.from_numpy(rows).to(self.features.device)]

    def strong(self, rows: NDArray[np.int64]) -> Tensor:
        """Features have no augmentation."""
        raise NotImplementedError

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """(1, B, F)."""
        return self.batch(rows)[None]

    view = views

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Features are there already."""
