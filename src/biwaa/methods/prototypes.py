"""Class prototypes of the target, for frozen features: what the recipe `robust` does with a frozen backbone.

Classes are made round by whitening their covariance; prototypes and the target's classes are found in turn, with the
source's classifier as prior and each image's neighbours as company (`solvers.prototypes`; ours, docs/robust.md).
Several sources are weighed (`solvers.several`). A teacher's voice joins the prior; without a source it is the prior
(docs/zero_shot.md). Target images whose labels were handed over stay at them (docs/labels.md). Without teacher and
labels, classes that the target seems to have no image of are left out (`solvers.absence`; docs/other_classes.md).
Nothing is drawn at random and nothing is trained by steps.
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
from biwaa.solvers.absence import Adapted, standardised_each, without_absent, without_absent_beside_unknown
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head, plain_head
from biwaa.solvers.metric import one_hot
from biwaa.solvers.prototypes import adapt_prototypes, head_from, head_of_both
from biwaa.solvers.remembered import solve_remembered
from biwaa.solvers.several import Heard, adapt_several, renumbered
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
        """Adapt; with `unknown`, the last class is that of images of no class."""
        if self.own.unknown == "off":
            return self._solved(source, labels, target, self.task.classes)
        known = self.task.classes - 1
        begun = self._begun(source, labels, target, known, self._teacher(known, target))
        anchors = Anchors.of(self.task.given, known + 1, target.device)
        labelled = anchors is not None and bool((anchors.labels == known).any())  # somebody has seen unknown images
        seen = begun.unknown(anchors, self.own.rate)
        if self.own.rate is None and seen.evidence < EVIDENCE and not labelled:
            return never(self._solved(source, labels, target, known))
        found = self._at_rate(seen.found)
        # What seems absent was not measured with other evidence than one source's.
        alone = len(source) and self.task.origins is None and not (self.task.memory or anchors or begun.teacher)
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
        """What is known of one source, of several as they are weighed, of a remembered one, or of a teacher alone."""
        count = self.neighbours
        if self.task.memory:
            return Begun.remembered(self.task.memory.to(target), target, count, teacher)
        if not len(source):
            assert teacher is not None  # without either there is nothing to learn from
            return Begun.taught(target, teacher, count)
        if self.task.origins is not None:
            origins = self.task.origins.to(source.device)
            if heard := adapt_several(source, labels, target, known, origins, count, teacher):  # weighs them
                self.standing = heard.standing
                return Begun.weighed(heard.start, heard.means, source, labels, heard.weights, teacher)
        return Begun.of(source, labels, target, known, count, teacher)

    def _solved(self, source: Tensor, labels: Tensor, target: Tensor, classes: int) -> Head:
        """Adapt, and again without classes that seem absent; where neighbours are no guide, only the source counts."""
        anchors = Anchors.of(self.task.given, classes, target.device)
        teacher = self._teacher(classes, target)
        if self.task.memory:
            return solve_remembered(self.task.memory.to(target), target, self.neighbours, teacher, anchors)
        if not len(source):
            assert teacher is not None  # without either there is nothing to learn from
            return teach_prototypes(target, classes, teacher, self.neighbours, anchors)[1]
        origins = None if self.task.origins is None else self.task.origins.to(source.device)
        several: list[Heard] = []
        known = (self.neighbours, teacher, anchors)

        def adapt(kept: Tensor, their_labels: Tensor, number: int) -> Adapted:
            places = None if origins is None else renumbered(origins[kept])
            rows = source if kept.all() else standardised_each(source[kept], places)  # as the target's classes are
            if places is not None and int(places.max()) > 0:
                if heard := adapt_several(rows, their_labels, target, number, places, *known):
                    several.append(heard)
                    return heard.found, lambda: heard.head
            elif found := adapt_prototypes(rows, their_labels, target, number, *known):
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
        self.standing = several[0].standing if several else None
        # What seems absent was not measured with other evidence than the sources'.
        if not self.may_leave_out or teacher or anchors or (origins is not None and not several):
            return first[1]()
        present = without_absent(first, source, labels, target, adapt)
        if not present:
            return first[1]()
        if not several:
            return head_of_both(source, labels, target, present.found)._replace(absent=present.absent)
        (axes, _, within, *_), weights, truth = several[0].start, several[0].weights, one_hot(labels, classes)
        assert within is not None  # there are sources
        head = head_from(axes, within, source, truth, weights, target, present.found)
        return head._replace(absent=present.absent)
