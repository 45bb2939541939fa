"""Class prototypes of the target, for frozen features: what the recipe `robust` does with a frozen backbone.

Classes are made round by whitening their covariance; prototypes and the target's classes are found in turn, with the
source's classifier as prior and each image's neighbours as company (`solvers.prototypes`; ours, docs/robust.md). Of
several sources, those that contradict the others are not heard (`solvers.several`). A teacher's voice joins the prior;
without a source it is the prior (docs/zero_shot.md). Target images whose labels were handed over stay at them
(docs/labels.md). Without teacher and labels, classes that the target seems to have no image of are left out
(`solvers.absence`; docs/other_classes.md). Nothing is drawn at random and nothing is trained by steps.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from biwaa.errors import BiwaaError
from biwaa.methods.method import Method, Task
from biwaa.settings import ScheduleSettings
from biwaa.solvers.absence import Adapted, without_absent, without_absent_beside_unknown
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head, plain_head
from biwaa.solvers.prototypes import adapt_prototypes, head_of_both
from biwaa.solvers.remembered import solve_remembered
from biwaa.solvers.several import REGRESSION, Sources
from biwaa.solvers.taught import teach_head, teach_prototypes
from biwaa.solvers.unknown import EVIDENCE, Begun, find_unknown, never, with_rate
from biwaa.teachers.fusion import Teacher


@dataclass(frozen=True)
class PrototypesSettings:
    """Prototypes of the target's classes."""

    absent_classes: Literal["auto", "off"] = "auto"
    """Classes of the source that the target seems to have no image of: auto leaves them out, off adapts to all."""
    unknown: str = "off"
    """Images of no class of the source get the label unknown: off for none, auto, or their share as 0.3."""

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            BiwaaError: it is none.
        """
        if self.unknown not in ("off", "auto") and not re.fullmatch(r"0?\.\d{1,6}", self.unknown):
            raise BiwaaError(f"--unknown is off, auto or a share above 0 and below 1 as 0.3, not {self.unknown!r}.")

    @property
    def rate(self) -> float | None:
        """The share that was named."""
        return None if self.unknown in ("off", "auto") else float(self.unknown)


class Prototypes(Method):
    """A linear head that follows the target's prototypes."""

    groups: ClassVar[tuple[str, ...]] = ("schedule", "prototypes")
    frozen: ClassVar[bool] = True
    solves: ClassVar[bool] = True
    taught: ClassVar[bool] = True
    labelled: ClassVar[bool] = True

    def __init__(self, task: Task, settings: ScheduleSettings, own: PrototypesSettings) -> None:
        """Keep the number of neighbours, and whether all classes are adapted to; see `Method`."""
        super().__init__(task)
        self.neighbours = settings.neighbours
        self.may_leave_out = own.absent_classes == "auto"
        self.own = own

    def solve(self, source: Tensor, labels: Tensor, target: Tensor) -> Head:
        """Adapt from one source, or from those of several that do not contradict the others."""
        if self.task.origins is None:
            return self._adapted(source, labels, target)
        origins, known = self.task.origins.to(source.device), self.task.classes - (self.own.unknown != "off")
        sources = Sources.of(source, labels, origins, known)
        standing = sources.standing()
        rows = sources.heard(standing.contradicts)
        head = self._adapted(source[rows], labels[rows], target, origins[rows])
        self.standing = standing._replace(relevance=sources.relevance(target, head.scores(target).argmax(dim=1)))
        return head

    def _adapted(self, source: Tensor, labels: Tensor, target: Tensor, origins: Tensor | None = None) -> Head:
        """The head; with `unknown`, the last class is that of images of no class."""
        if self.own.unknown == "off":
            return self._solved(source, labels, target, self.task.classes, origins)
        known = self.task.classes - 1
        begun = self._begun(source, labels, target, known, self._teacher(known, target))
        anchors = Anchors.of(self.task.given, known + 1, target.device)
        labelled = anchors is not None and bool((anchors.labels == known).any())  # somebody has seen unknown images
        seen = begun.unknown(anchors, self.own.rate)
        if self.own.rate is None and seen.evidence < EVIDENCE and not labelled:
            return never(self._solved(source, labels, target, known, origins))
        found = self._at_rate(seen.found)
        # What seems absent was not measured with other evidence than one source's.
        alone = len(source) and origins is None and not (self.task.memory or anchors or begun.teacher)
        if not self.may_leave_out or not alone:
            return begun.head(target, found)

        def find(rows: Tensor, their_labels: Tensor, number: int) -> Tensor:
            return find_unknown(rows, their_labels, target, number, self.own.rate).found

        are_known = found[:, -1] < 0.5
        present = without_absent_beside_unknown(seen.found, are_known, source, labels, target, find)
        if not present:
            return begun.head(target, found)
        return begun.head(target, self._at_rate(present.found))._replace(absent=present.absent)

    def _at_rate(self, found: Tensor) -> Tensor:
        """(Nt, K + 1) probabilities, of which the share that was named is of unknown images."""
        return found if self.own.rate is None else with_rate(found, self.own.rate)

    def _teacher(self, classes: int, target: Tensor) -> Teacher | None:
        """The teacher, of so many classes."""
        return self.task.teacher.to(target.device).first(classes) if self.task.teacher else None

    def _begun(self, source: Tensor, labels: Tensor, target: Tensor, known: int, teacher: Teacher | None) -> Begun:
        """What is known of the sources, of a remembered one, or of a teacher alone."""
        count = self.neighbours
        if self.task.memory:
            return Begun.remembered(self.task.memory.to(target), target, count, teacher)
        if not len(source):
            assert teacher is not None  # without either there is nothing to learn from
            return Begun.taught(target, teacher, count)
        return Begun.of(source, labels, target, known, count, teacher)

    def _solved(self, source: Tensor, labels: Tensor, target: Tensor, classes: int, origins: Tensor | None) -> Head:
        """Adapt, and again without classes that seem absent; where neighbours are no guide, only the source counts."""
        anchors = Anchors.of(self.task.given, classes, target.device)
        teacher = self._teacher(classes, target)
        if self.task.memory:
            return solve_remembered(self.task.memory.to(target), target, self.neighbours, teacher, anchors)
        if not len(source):
            assert teacher is not None  # without either there is nothing to learn from
            return teach_prototypes(target, classes, teacher, self.neighbours, anchors)[1]
        known = (self.neighbours, teacher, anchors, 0.0 if origins is None else REGRESSION)

        def adapt(kept: Tensor, their_labels: Tensor, number: int) -> Adapted:
            rows = source if kept.all() else source[kept]
            if found := adapt_prototypes(rows, their_labels, target, number, *known):
                return found.found, partial(found.student, rows, their_labels, target)
            if teacher:
                taught, student = teach_head(rows, their_labels, target, number, teacher, anchors)
                return taught, lambda: student
            if anchors:  # they are rows like the source's
                rows = torch.cat([rows, target[anchors.rows]])
                their_labels = torch.cat([their_labels, anchors.labels])
            head = plain_head(rows, their_labels, target, number)
            return head.scores(target).softmax(dim=1), lambda: head

        first = adapt(torch.ones_like(labels, dtype=torch.bool), labels, classes)
        # What seems absent was not measured with other evidence than the sources'.
        if not self.may_leave_out or teacher or anchors:
            return first[1]()
        present = without_absent(first, source, labels, target, adapt)
        if not present:
            return first[1]()
        return head_of_both(source, labels, target, present.found)._replace(absent=present.absent)
