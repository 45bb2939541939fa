"""What training sees of the two domains."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from biwaa.images.batches import Inputs
from biwaa.teachers.voice import Teacher


@dataclass(frozen=True)
class Data:
    """All that training sees: the source with labels, the target without."""

    source: Inputs  # Empty where a teacher stands in its place
    source_labels: NDArray[np.int64]  # (Ns,) indices of classes
    target: Inputs
    classes: int
    source_held_out: Inputs | None = None
    """Source images that are not used in training: stages are judged and calibrated by them."""
    source_held_out_labels: NDArray[np.int64] | None = None
    teacher: Teacher | None = None
    """What another model says of the images that are trained on."""
