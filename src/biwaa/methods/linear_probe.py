"""Linear probe: softmax regression of the source on the frozen backbone's features; no bottleneck, the target unseen.

Alain and Bengio, "Understanding intermediate layers using linear classifier probes", ICLR workshops 2017, section 3.2.
"""

from typing import ClassVar

from biwaa.methods.source_only import SourceOnly


class LinearProbe(SourceOnly):
    """How good the backbone's features are as they are."""

    frozen: ClassVar[bool] = True
    bottleneck: ClassVar[bool] = False
