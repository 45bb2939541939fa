"""A domain as training sees it: row numbers in, batches on the device out, without labels.

- stored pixels, augmented anew each time (`PixelInputs`), or features of a frozen backbone (`FeatureInputs`)
- where the network runs on a GPU and the pixels do not fit there, the next batch is read during the current step
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

from biwaa.images.augment import Augmentation, Transform, host_tensor

SHARE = 0.5  # The part of a GPU's free memory that stored pixels may take; the network and its gradients need the rest


class Viewed(Protocol):
    """Images, or features, as a network predicts them."""

    def __len__(self) -> int:
        """How many there are."""

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """All V views of `rows` that a prediction averages, (V, B, ..) on the device."""


class Inputs(Viewed, Protocol):
    """A domain as a network is trained on it."""

    def select(self, rows: NDArray[np.int64]) -> "Inputs":
        """Only the images at `rows`."""

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """Training inputs of `rows`, (B, ..) on the device."""

    def strong(self, rows: NDArray[np.int64]) -> Tensor:
        """Strongly augmented training inputs of `rows`, (B, ..) on the device."""

    def view(self, rows: NDArray[np.int64]) -> Tensor:
        """The centre view alone, (1, B, ..) on the device."""

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Announce a batch that will be used soon, so that reading can start; the last two are remembered."""


class ReadAhead:
    """Reads announced batches on a second thread. Nothing random is drawn there, so results do not depend on it."""

    def __init__(self, fetch: Callable[[NDArray[np.int64]], Tensor]) -> None:
        """Read with `fetch`, which takes row numbers of the store."""
        self._fetch = fetch
        self._thread = ThreadPoolExecutor(1, "biwaa-read-ahead")
        # The current batch and the next.
        self._expected: deque[tuple[bytes, Future[Tensor]]] = deque(maxlen=2)

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Start to read `rows`."""
        self._expected.append((rows.tobytes(), self._thread.submit(self._fetch, rows)))

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """The result of `fetch`; announced rows are read already or are being read."""
        wanted = rows.tobytes()
        for known, read in self._expected:
            if known == wanted:
                return read.result()
        return self._fetch(rows)


def reads_ahead(store: NDArray[np.uint8] | Tensor, device: torch.device) -> bool:
    """Whether reading ahead pays: on a CPU the network uses all cores, and a `placed` store needs no reading."""
    return device.type == "cuda" and not isinstance(store, Tensor)


@dataclass(frozen=True)
class PixelInputs:
    """Stored pixels."""

    store: NDArray[np.uint8] | Tensor  # (M, resize, resize, 3), memory-mapped, or all of it on the device (`placed`)
    rows: NDArray[np.int64]  # (N,) the store's rows that belong to the domain
    transform: Transform
    augment: Augmentation
    crop_area: float
    device: torch.device

    def __len__(self) -> int:
        """Images in the domain."""
        return len(self.rows)

    def select(self, rows: NDArray[np.int64]) -> "PixelInputs":
        """Only the images at `rows`."""
        return replace(self, rows=self.rows[rows])

    def _stored(self, rows: NDArray[np.int64]) -> Tensor:
        """Pixels of `rows`: uint8 (B, 3, resize, resize) on the device, channels last in memory."""
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
        """Start to read the pixels on another thread, where that pays."""
        if self._ahead:
            self._ahead.expect(self.rows[rows])

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """One random view of each image, normalised, channels last in memory."""
        if self.device.type == "cpu" and not isinstance(self.store, Tensor) and not self._ahead:
            return self.transform.training_views(self.store, self.rows[rows], self.augment, self.crop_area)
        return self.transform.normalise(self.transform.augmented(self._stored(rows), self.augment, self.crop_area))

    def strong(self, rows: NDArray[np.int64]) -> Tensor:
        """One random view of each image, distorted more strongly than by `augment`, normalised."""
        return self.transform.normalise(self.transform.distorted(self._stored(rows), self.augment, self.crop_area))

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """The views that predictions average, normalised."""
        return self.transform.normalise(self.transform.views(self._stored(rows)))

    def view(self, rows: NDArray[np.int64]) -> Tensor:
        """The centre alone, normalised."""
        return self.transform.normalise(self.transform.centre(self._stored(rows)))[None]


def placed(stores: list[NDArray[np.uint8]], device: torch.device) -> list[NDArray[np.uint8] | Tensor]:
    """The stores on the GPU, if all of them fit into SHARE of its free memory; otherwise as they are."""
    if device.type == "cuda" and sum(store.nbytes for store in stores) < SHARE * torch.cuda.mem_get_info(device)[0]:
        return [torch.from_numpy(np.asarray(store)).to(device) for store in stores]
    return [*stores]


@dataclass(frozen=True)
class FeatureInputs:
    """Standardised features of a frozen backbone."""

    features: Tensor  # (N, F) on the device

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
        """Features are in memory already."""


@dataclass(frozen=True)
class Joined:
    """One domain's images, and after them some of another's, to train on."""

    first: Inputs
    second: Inputs
    rows: NDArray[np.int64]  # (M,) of the second; repeats are allowed

    def __len__(self) -> int:
        """Of both parts."""
        return len(self.first) + len(self.rows)

    def _divided(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the first, and rows of the second."""
        late = rows >= len(self.first)
        return rows[~late], self.rows[rows[late] - len(self.first)]

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """One training input of each, in the order of `rows`."""
        first, second = self._divided(rows)
        parts = [of.batch(some) for of, some in ((self.first, first), (self.second, second)) if len(some)]
        order = np.argsort(np.argsort(rows >= len(self.first), kind="stable"))
        both = torch.cat(parts)
        return both[torch.from_numpy(order).to(both.device)]

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Start to read, where that pays."""
        first, second = self._divided(rows)
        self.first.expect(first)
        self.second.expect(second)

    def select(self, rows: NDArray[np.int64]) -> "Joined":
        """They are joined for training alone."""
        raise NotImplementedError

    def views(self, rows: NDArray[np.int64]) -> Tensor:
        """They are joined for training alone."""
        raise NotImplementedError

    strong = view = views
