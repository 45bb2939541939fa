"""Linear probe: softmax regression of the source on the frozen backbone's features; no bottleneck, the target unseen.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshops 2017, section 3.2.
"""

from typing import ClassVar

from torch import Tensor

from biwaa.methods.source_only import SourceOnly
from biwaa.solvers.logistic import Head


class LinearProbe(SourceOnly):
    """How good the backbone's features are as they are."""

    frozen: ClassVar[bool] = True
    bottleneck: ClassVar[bool] = False

    def solve(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """Source-only's head, as weights of the features themselves."""
        head = super().solve(source, labels, target)
        assert head.projection is not None  # source-only has one
        return Head(None, head.weight @ head.projection, head.bias, head.left_out)
