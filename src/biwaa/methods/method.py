"""What a method is: from the two domains' features and logits to named losses.

- its parameters (a discriminator, say) are trained along with the heads; its buffers (memories) are checkpointed
- of the target it is given features, logits and row numbers: there is no label to see
- its settings are a small group in its own file; `groups` names those that its constructor takes
"""

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from biwaa.models.network import Output
from biwaa.solvers.logistic import Head
from biwaa.solvers.remembered import Memory
from biwaa.solvers.several import Standing
from biwaa.teachers.fusion import Teacher


class Batch(NamedTuple):
    """Both domains after their forward passes."""

    source: Output
    source_labels: Tensor
    """(B,) true labels."""
    target: Output
    target_rows: Tensor
    """(B,) which target images these are."""
    strong: Output | None = None
    """The target's strongly augmented views, for methods that ask for them."""


class Loss(NamedTuple):
    """A term of the total: `weight * value`."""

    value: Tensor
    weight: float = 1.0


class Task(NamedTuple):
    """The task of a stage, as its method sees it."""

    width: int
    """D, of the bottleneck features."""
    classes: int
    """K."""
    targets: int
    """N, how many target images there are."""
    steps: int
    """Of the stage."""
    previous: Tensor | None = None
    """(N, K) averaged predictions of earlier rounds; None in the first."""
    teacher: Teacher | None = None
    """What another model says of the images, where one was given and the method is `taught`."""
    given: Tensor | None = None
    """(N,) classes of target images whose labels were handed over, MISSING for all others; None: no labels were."""
    memory: Memory | None = None
    """What stands in the place of the source's images."""
    origins: Tensor | None = None
    """(Ns,) which of several sources each source image is of; None for one."""


class Method(nn.Module):
    """Base of all methods."""

    groups: ClassVar[tuple[str, ...]] = ()
    """Groups of the recipe's settings that the constructor takes after the task, in this order."""
    sees_target: ClassVar[bool] = True
    """False: the target is not even passed through the network."""
    strong_view: ClassVar[bool] = False
    """True: strongly augmented views of the target go through the network too; needs images, not features."""
    frozen: ClassVar[bool] = False
    """True: the backbone is never trained."""
    solves: ClassVar[bool] = False
    """True: on a frozen backbone the head is solved for (`solve`), without steps."""
    taught: ClassVar[bool] = False
    """True: it learns from a teacher, and from a teacher alone where there is no source."""
    labelled: ClassVar[bool] = False
    """True: it reads `Task.given` itself. For other methods that see the target, those images join the source's."""
    bottleneck: ClassVar[bool] = True
    """False: the classifier stands on the backbone's features themselves."""
    statistics: ClassVar[str | None] = None
    """How frozen features are standardised, where the method decides and not the recipe."""

    def __init__(self, task: Task) -> None:
        """Start a stage."""
        super().__init__()
        self.task = task
        self.standing: Standing | None = None
        """What each of several sources was found to be worth, where the method compares them."""
        self.said: Tensor | None = None
        """(Nt, K) what it predicts of the target, where its head is but a student that says nearly the same."""

    @classmethod
    def solved(cls, frozen: bool) -> bool:
        """Whether the head is solved for, without steps, where the backbone is `frozen` or not."""
        return cls.solves and frozen

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """The named terms of the loss at `step`, counted from 0."""
        raise NotImplementedError

    def solve(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """The head on frozen features, where the method `solves`.

        Args:
            source: (Ns, F) standardised features; no row where a `taught` method has no source.
            labels: (Ns,) true classes.
            target: (Nt, F) standardised features; without labels.
        """
        raise NotImplementedError


def classification(batch: Batch) -> Loss:
    """Cross-entropy of the source."""
    return Loss(F.cross_entropy(batch.source.logits, batch.source_labels))
