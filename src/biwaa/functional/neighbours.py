"""Nearest images by their features, exactly or, where there are many on a CPU, approximately."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2**24
"""Similarities that are held at a time: 64 MB."""
EXACT = 20_000
"""Rows on the CPU above which neighbours are searched for approximately: the exact search takes N^2 D steps."""
PROBES = 32
"""Cells of an inverted file that are searched for a row's neighbours, of 4 sqrt(N)."""


def nearest_neighbours(features: Tensor, count: int) -> Tensor:
    """(N, D) features to (N, M) rows of the nearest images by cosine; M is `count`, or N - 1 if that is less.

    An image is no neighbour of its own. In O(BLOCK + N (D + M)) memory.
    """
    size, directions = len(features), F.normalize(features.detach().float(), dim=1)
    if size > EXACT and directions.device.type == "cpu":
        return _approximate_neighbours(directions, count)
    rows = max(BLOCK // size, 1)
    found = []
    for start in range(0, size, rows):
        similarity = directions[start : start + rows] @ directions.T
        here = torch.arange(len(similarity), device=similarity.device)
        similarity[here, start + here] = -torch.inf
        found.append(similarity.topk(min(count, size - 1), dim=1).indices)
    return torch.cat(found)


def _approximate_neighbours(directions: Tensor, count: int) -> Tensor:
    """(N, D) unit rows to (N, M) rows of nearest images, by faiss's inverted file; deterministic, in O(N D) memory."""
    import faiss  # takes long to import

    faiss.omp_set_num_threads(torch.get_num_threads())
    rows, (size, width) = directions.contiguous().numpy(), directions.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, int(4 * size**0.5), faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBES
    index.train(rows[:: max(size // 100_000, 1)])
    index.add(rows)
    found = torch.from_numpy(index.search(rows, count + 1)[1])
    # A row is usually its own nearest; where a duplicate comes first, the row is taken out wherever it stands.
    others = found != torch.arange(size)[:, None]
    order = others.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return found.gather(1, order).clamp(min=0)


def nearest_among(features: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest of other images to each image, by cosine: their cosines and their rows, nearest first.

    Args:
        features: (N, D).
        others: (O, D), `BLOCK` similarities to which are held at a time.
        count: M, or O if that is less.

    Returns:
        Both (N, M).
    """
    mine, theirs = (F.normalize(part.detach().float(), dim=1) for part in (features, others))
    blocks = torch.split(mine, max(BLOCK // len(theirs), 1))
    cosines, rows = zip(*((part @ theirs.T).topk(min(count, len(theirs)), dim=1) for part in blocks), strict=True)
    return torch.cat(cosines), torch.cat(rows)


def neighbours_of_a_class(features: Tensor, count: int, classes: int) -> Tensor:
    """`nearest_neighbours`, at most half as many as a class of even size has images, so that they can be of one class.

    Args:
        features: (N, D).
        count: neighbours an image; three where a class is too small for half of it to be as many.
        classes: K.

    Returns:
        (N, M).
    """
    return nearest_neighbours(features, max(3, min(count, len(features) // (2 * classes))))
