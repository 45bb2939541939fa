"""Source-only: cross-entropy on the source, the target unseen. The figure every other has to beat."""

from typing import ClassVar

from torch import nn

from biwaa.methods.method import Batch, Loss, Method, classification


class SourceOnly(Method):
    """No adaptation."""

    sees_target: ClassVar[bool] = False

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification alone."""
        return {"classification": classification(batch)}
