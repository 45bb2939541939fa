"""What training sees of the two domains: of the target no label but those that were handed over for it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from biwaa.domains.labels import MISSING
from biwaa.images.batches import Inputs, Joined
from biwaa.solvers.remembered import Memory
from biwaa.teachers.fusion import Teacher

Given = NDArray[np.int64]
GIVEN_SHARE = 0.25
"""Of the source's images, where labelled target images join them: those are repeated until they are so many."""


@dataclass(frozen=True)
class Data:
    """All that training sees: the source with labels, the target without, but for a few that were handed over."""

    source: Inputs  # Empty where a teacher stands in its place
    source_labels: NDArray[np.int64]  # (Ns,) indices of classes
    target: Inputs
    classes: int
    source_held_out: Inputs | None = None
    """Source images that are not used in training: stages are judged and calibrated by them."""
    source_held_out_labels: NDArray[np.int64] | None = None
    origins: NDArray[np.int64] | None = None
    """(Ns,) which of several sources each source image is of."""
    memory: Memory | None = None
    """What stands in the place of the source's images."""
    teacher: Teacher | None = None
    """What another model says of the images that are trained on."""
    given: Given | None = None
    """(Nt,) classes of target images whose labels were handed over by name, MISSING for all others."""

    def joined(self) -> "Data":
        """With the target images whose labels were handed over among the source's."""
        if self.given is None:
            return self
        rows = np.flatnonzero(self.given != MISSING)
        wanted = len(self.source) * GIVEN_SHARE / (1 - GIVEN_SHARE)
        rows = np.tile(rows, max(round(wanted / len(rows)), 1))
        labels = np.concatenate([self.source_labels, self.given[rows]])
        return replace(self, source=Joined(self.source, self.target, rows), source_labels=labels, origins=None)
