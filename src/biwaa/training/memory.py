"""After memory ran out in a run: the largest batch that does fit here, found by trying.

Gradients are not accumulated over parts of a batch in its place. BatchNorm, centroids, class confusion and balanced
batches are of a whole batch: parts would train something else under the same name (docs/reliability.md).
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric

from biwaa.device import free, ran_out
from biwaa.errors import BiwaaError
from biwaa.evaluation.predict import average_views
from biwaa.methods import method_named
from biwaa.progress import say
from biwaa.recipe import Recipe
from biwaa.training.prepare import Prepared
from biwaa.training.step import build_optimizer, training_step

LEAST = 2
"""Images: one has no batch statistics."""


@contextmanager
def naming_what_fits(prepared: Prepared, recipe: Recipe, fabric: Fabric) -> Iterator[None]:
    """Turn an allocation that fails within the block into a sentence that names the largest batch that fits.

    Raises:
        BiwaaError: memory ran out.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        said = ran_out(error)
        if not said:
            raise
        free(error)  # all that the step held
    raise BiwaaError(
        f"memory ran out with batches of {recipe.batch_size} images ({said}): {_advice(prepared, recipe, fabric)}, "
        "or lower --image-size or take a smaller --backbone. What was finished is kept."
    ) from None


def _advice(prepared: Prepared, recipe: Recipe, fabric: Fabric) -> str:
    size, ranks = recipe.batch_size, fabric.world_size
    if ranks > 1:  # the others wait in the middle of a step: nothing can be tried together
        half = size // 2 // ranks * ranks
        return f"try --batch-size {half}" if half >= LEAST else "take fewer --devices"
    say(f"memory ran out; trying which batches below {size} images fit")
    fits = largest_batch(prepared, recipe, fabric)
    if not fits:
        return f"not even {LEAST} fit"
    if fits == size:
        return f"by now {size} do fit, so close what else takes memory and go on with --resume"
    return f"--batch-size {fits} fits, the largest that does by trying (a run of its own: --resume cannot change it)"


def largest_batch(prepared: Prepared, recipe: Recipe, fabric: Fabric) -> int:
    """Images of each domain that training and prediction have memory for, at most the recipe's; 0 for none.

    To one image, by halving. Each size is tried on a fresh network of its own; the run's state is left alone.
    """
    sizes = range(LEAST, recipe.batch_size + 1)
    fitting = bisect_left(sizes, True, key=lambda size: not _fits(size, prepared, recipe, fabric))
    return sizes[fitting - 1] if fitting else 0


def _fits(size: int, prepared: Prepared, recipe: Recipe, fabric: Fabric) -> bool:
    try:
        _try(size, prepared, recipe, fabric)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        free(error)
        return False
    return True


def _try(size: int, prepared: Prepared, recipe: Recipe, fabric: Fabric) -> None:
    """Two steps, the second of which has momentum, and one prediction, of `size` images of each domain."""
    data = prepared.data
    network = prepared.fresh_network(recipe.seed).to(fabric.device).to(memory_format=torch.channels_last).train()
    method = method_named(recipe.method)(recipe, data.classes, len(data.target), None).to(fabric.device)
    wrapped, stepper = fabric.setup(network, build_optimizer(network, method, recipe))
    source, target = (np.resize(np.arange(len(inputs)), size) for inputs in (data.source, data.target))
    labels = torch.from_numpy(data.source_labels[source]).to(fabric.device)
    rows = torch.from_numpy(target).to(fabric.device)
    for step in range(2):
        training_step(
            network, method, stepper, (data.source.batch(source), labels),
            (data.target.batch(target) if method.sees_target else labels[:0], rows),
            step, fabric.backward, wrapped, data.target.strong(target) if method.strong_view else None,
        )  # fmt: skip
    network.eval()
    with torch.inference_mode(), fabric.autocast():
        average_views(network, data.target.views(target))
