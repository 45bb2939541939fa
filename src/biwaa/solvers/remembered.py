"""A source without its images (source-free adaptation): what a run keeps of it, and adapting from that.

Kept are means and covariances, of which the metric and the prior of `prototypes` are made (docs/sources.md says of how
many images, and what they give away). N rows of the source, Nt of the target, F features, R kept axes, K classes.
"""

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_neighbours
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head
from biwaa.solvers.metric import (
    NEIGHBOURS,
    balanced_weights,
    fit_scale,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import FIRST_RIDGE, Start, head_like, hear, neighbours_guide, refined
from biwaa.solvers.taught import teach_prototypes
from biwaa.teachers.fusion import Teacher


class Remembered(NamedTuple):
    """Statistics of a labelled source, whose features were standardised by its own mean and deviation."""

    counts: Tensor
    """(K,) images of each class."""
    means: Tensor
    """(K, F) of each class."""
    axes: Tensor
    """(F, R) principal axes."""
    variances: Tensor
    """(R,) along them."""
    within: Tensor
    """(R, R) covariance around the class means, on the axes."""
    rest: Tensor
    """() the same variance in each direction beyond the axes."""
    scale: Tensor
    """() factor on cosines with the class means."""
    guided: Tensor
    """() 1 where the source's neighbours are of one class, so that they are a guide; else 0."""

    @classmethod
    def of(cls, source: Tensor, labels: Tensor, classes: int) -> Self:
        """The statistics of (N, F) standardised rows with (N,) labels."""
        width, truth, weights = source.shape[1], one_hot(labels, classes), balanced_weights(labels, classes)
        counts = truth.sum(dim=0)
        means = truth.T @ source / counts.clamp(min=1)[:, None]
        axes = principal_axes(source, source)
        here = source @ axes
        within = within_class_covariance(here, labels, torch.ones_like(weights), classes)
        beyond = (source - means[labels]).square().sum(dim=1).mean() - within.trace()
        metric = whitening(within, FIRST_RIDGE)
        known = F.normalize(here @ metric, dim=1)
        cosines = known @ F.normalize(truth.T @ known, dim=1).T
        guided = neighbours_guide(here * width**-0.5, known, labels, classes)
        return cls(
            counts, means, axes, here.square().mean(dim=0), within, beyond.clamp(min=0) / max(width - len(within), 1),
            torch.tensor(fit_scale(cosines, labels, weights)), torch.tensor(float(guided)),
        )  # fmt: skip

    def to(self, where: Tensor) -> Self:
        """On a tensor's device."""
        return type(self)(*(part.to(where) for part in self))

    def first(self, classes: int) -> Self:
        """Of the first classes alone."""
        return self._replace(counts=self.counts[:classes], means=self.means[:classes])


class Memory(NamedTuple):
    """What training gets of a source whose images are not there."""

    statistics: Remembered | None
    """None where only a head is known."""
    head: Head | None
    """Source-only's, on features that are standardised by the target's own statistics."""
    outputs: Tensor | None = None
    """(M,) the class of each of the head's rows, where a class has several of them; None: one each."""

    def to(self, where: Tensor) -> Self:
        """On a tensor's device."""
        head = self.head and Head(*(None if part is None else part.to(where) for part in self.head))  # type: ignore[arg-type]
        outputs = None if self.outputs is None else self.outputs.to(where.device)
        return type(self)(self.statistics and self.statistics.to(where), head, outputs)

    def first(self, classes: int) -> Self:
        """Of the first classes alone, where a class has one output."""
        head = self.head and self.head._replace(weight=self.head.weight[:classes], bias=self.head.bias[:classes])
        return self._replace(statistics=self.statistics and self.statistics.first(classes), head=head)

    def said(self, rows: Tensor) -> Tensor:
        """(N, K) logits of (N, F) rows by the head; probabilities of outputs of one class are added."""
        assert self.head is not None
        logits = self.head.scores(rows)
        if self.outputs is None:
            return logits
        each = logits.log_softmax(dim=1)
        classes = range(int(self.outputs.max()) + 1)
        return torch.stack([each[:, self.outputs == one].logsumexp(dim=1) for one in classes], dim=1)


def solve_remembered(
    memory: Memory, target: Tensor, count: int = NEIGHBOURS, teacher: Teacher | None = None,
    anchors: Anchors | None = None,
) -> Head:  # fmt: skip
    """The head for a target whose source is known by statistics, or by a head alone.

    A head alone is heard as a teacher is (`teach_prototypes`), and so is source-only's where the source's neighbours
    were no guide, unless there is another teacher.

    Args:
        memory: of the source.
        target: (Nt, F) standardised.
        count: neighbours of a row.
        teacher: of the target's rows.
        anchors: the target's rows with a label.
    """
    known, head = memory.statistics, memory.head
    if known is not None and (known.guided > 0 or head is None):
        return adapt_remembered(known, target, count, teacher, anchors)[1]
    assert head is not None  # one of the two is there
    said = memory.said(target)
    return teach_prototypes(target, said.shape[1], teacher or as_teacher(said), count, anchors)[1]


def as_teacher(said: Tensor) -> Teacher:
    """A head alone, of its (Nt, K) logits, is heard as a teacher is."""
    return Teacher.of("source", said.cpu().numpy(), None).to(said.device)


def begin_remembered(
    source: Remembered, target: Tensor, count: int = NEIGHBOURS, anchors: Anchors | None = None
) -> tuple[Start, Tensor]:
    """The start, and the (K, D) class means in its metric at length 1; arguments as of `adapt_remembered`."""
    kept = len(source.variances)
    axes = principal_axes((source.axes * (source.variances * kept).sqrt()).T, target)
    turn = axes.T @ source.axes  # (D, R)
    within = turn @ source.within @ turn.T + source.rest * (torch.eye(axes.shape[1]).to(target) - turn @ turn.T)
    metric = whitening(within, FIRST_RIDGE)
    there = target @ axes
    units, means = F.normalize(there @ metric, dim=1), F.normalize(source.means @ axes @ metric, dim=1)
    prior = (float(source.scale) * units @ means.T).softmax(dim=1)
    near = nearest_neighbours(units, count)
    return Start(axes, there, within, units, prior, float(source.scale), near, anchors), means


def adapt_remembered(
    source: Remembered, target: Tensor, count: int = NEIGHBOURS, teacher: Teacher | None = None,
    anchors: Anchors | None = None,
) -> tuple[Tensor, Head]:  # fmt: skip
    """As `adapt_prototypes`, from what is known of a source; the student learns from the target alone.

    Args:
        source: its statistics.
        target: (Nt, F) standardised.
        count: neighbours of a row.
        teacher: of the target's rows.
        anchors: the target's rows with a label.

    Returns:
        (Nt, K) probabilities, and the student.
    """
    classes = len(source.counts)
    start, _ = begin_remembered(source, target, count, anchors)
    if teacher:
        start = hear(start, teacher, count)
    found, metric = refined(start, classes, count)
    return found, head_like(target, found, start.axes @ metric)


def check_memory(memory: Memory, width: int, classes: int) -> None:
    """Make sure that a memory's parts fit together, and to so many features and classes.

    Raises:
        ValueError: they do not.
    """
    known, head = memory.statistics, memory.head
    if known is not None:
        kept = len(known.variances)
        wanted = [(classes,), (classes, width), (width, kept), (kept,), (kept, kept), (), (), ()]
        if [tuple(part.shape) for part in known] != wanted or not all(part.isfinite().all() for part in known):
            raise ValueError("its statistics of the source do not fit its classes and features")
    if head is not None:
        inner = width if head.projection is None else len(head.projection)
        fits = head.weight.shape == (classes, inner) and head.bias.shape == (classes,)
        if not fits or (head.projection is not None and head.projection.shape != (inner, width)):
            raise ValueError("its head for the source does not fit its classes and features")
