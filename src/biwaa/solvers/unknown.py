"""Images of no known class: centres of their own, beside those of the known classes.

Ns source rows, Nt target rows, F features, K known classes; features are standardised, a domain at a time.
"""

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.solvers.absence import standardised
from biwaa.solvers.anchors import Anchors
from biwaa.solvers.logistic import Head, fit_logistic
from biwaa.solvers.metric import (
    NEIGHBOURS,
    balanced_weights,
    mean_over_neighbours,
    one_hot,
)
from biwaa.solvers.prototypes import PULL, Start, begin, head_from, hear
from biwaa.solvers.remembered import Memory, as_teacher, begin_remembered
from biwaa.solvers.taught import begin_taught
from biwaa.teachers.fusion import Teacher

STEPS = 4
"""Updates of the centres."""
FAMILIAR = 2.0
"""Logits that one deviation of the familiarity takes from the centres of unknown images."""
ROWS_A_CENTRE, ROUNDS = 5, 15
"""Least rows for each centre of unknown images, and updates of k-means."""
TOGETHER, EVIDENCE = 0.35, 0.75
"""Weight of the likeness of known and unknown halves of a class, and the least evidence of unknown images: closed tasks
of our benchmarks have 0.718 at most (docs/other_classes.md)."""

NEVER = -1e4
"""The bias of a class that is never predicted."""
TINY = 1e-37
"""Least probability that float32 divides by."""


class Unknown(NamedTuple):
    """What is found where the target may have images of no known class."""

    found: Tensor
    """(Nt, K + 1) probabilities, of unknown last."""
    evidence: float
    """How clearly known and unknown images are apart; above `EVIDENCE` where there are some."""


class Begun(NamedTuple):
    """What is known of the source, and the target in its metric."""

    start: Start
    means: Tensor
    """(K, D) of the source's classes, in the start's metric and at length 1."""
    logits: Tensor
    """(Nt, K) of the source's logistic regression; without a source, of its head or of the teacher."""
    source: Tensor
    """(Ns, F); no rows where its images are not there."""
    labels: Tensor
    """(Ns,)."""
    teacher: Teacher | None = None
    """Whose voice is in the start's prior already."""

    @classmethod
    def of(
        cls, source: Tensor, labels: Tensor, target: Tensor, classes: int, count: int = NEIGHBOURS,
        teacher: Teacher | None = None,
    ) -> Self:  # fmt: skip
        """From sources.

        Args:
            source: (Ns, F).
            labels: (Ns,) of all K classes.
            target: (Nt, F).
            classes: K.
            count: neighbours of a row.
            teacher: of these rows.
        """
        start, _, rows = begin(source, labels, target, classes, count)
        truth, weights = one_hot(labels, classes), balanced_weights(labels, classes)
        if teacher:
            start = hear(start, teacher, count, truth, weights)
        width = len(start.axes) ** -0.5
        head = fit_logistic(source @ start.axes * width, truth, weights)
        logits = F.linear(start.target * width, *head)
        return cls(start, F.normalize(truth.T @ rows, dim=1), logits, source, labels, teacher)

    @classmethod
    def remembered(
        cls, memory: Memory, target: Tensor, count: int = NEIGHBOURS, teacher: Teacher | None = None
    ) -> Self:
        """From statistics of a source; a head alone is heard as a teacher is."""
        statistics = memory.statistics
        if statistics is None:
            said = memory.said(target)
            return cls.taught(target, as_teacher(said), count)._replace(logits=said)
        start, means = begin_remembered(statistics, target, count)
        said = memory.said(target) if memory.head else start.scale * start.units @ means.T
        start = hear(start, teacher, count) if teacher else start
        return cls._without_images(start, means, said, target)._replace(teacher=teacher)

    @classmethod
    def taught(cls, target: Tensor, teacher: Teacher, count: int = NEIGHBOURS) -> Self:
        """From a teacher's word alone."""
        start, means = begin_taught(target, teacher.target.shape[1], teacher, count)
        return cls._without_images(start, means, teacher.target, target)

    @classmethod
    def _without_images(cls, start: Start, means: Tensor, said: Tensor, target: Tensor) -> Self:
        nothing = torch.zeros(0, dtype=torch.int64, device=target.device)
        return cls(start, means, said, target[:0], nothing)

    def unknown(self, anchors: Anchors | None = None, rate: float | None = None) -> Unknown:
        """As `unknown_among`."""
        return unknown_among(self.start, self.means, self.logits, anchors, rate, self.teacher)

    def head(self, target: Tensor, found: Tensor) -> Head:
        """A head for both places, of what was found: (Nt, K + 1)."""
        truth, weights = one_hot(self.labels, found.shape[1]), balanced_weights(self.labels, len(self.means))
        return head_from(self.start.axes, self.start.within, self.source, truth, weights, target, found)


def find_unknown(source: Tensor, labels: Tensor, target: Tensor, classes: int, rate: float | None = None) -> Unknown:
    """As `unknown_among`, from one source; arguments as of `Begun.of`."""
    return Begun.of(source, labels, target, classes).unknown(rate=rate)


def familiarity(cosines: Tensor, logits: Tensor, neighbours: Tensor, voice: Tensor | None = None) -> Tensor:
    """(Nt,) how much an image looks like one of the source's classes, with mean 0 and deviation 1.

    The sum of two readings that err on different targets, both averaged over neighbours: the cosine to the nearest
    class mean, in which each class is standardised over the target, and the largest logit of logistic regression. A
    teacher's largest score is a third: it counts as far as neighbours have it in common, so that noise hardly does.

    Args:
        cosines: (Nt, K) to the class means.
        logits: (Nt, K).
        neighbours: (Nt, M).
        voice: (Nt, C) a teacher's scores.
    """
    readings = torch.stack([standardised(cosines).amax(dim=1), logits.amax(dim=1)], dim=1)
    total = standardised(mean_over_neighbours(readings, neighbours)).sum(dim=1, keepdim=True)
    if voice is not None:
        total = total + mean_over_neighbours(standardised(voice.amax(dim=1, keepdim=True)), neighbours)
    return standardised(total)[:, 0]


def unknown_among(
    start: Start, means: Tensor, said: Tensor, anchors: Anchors | None = None, rate: float | None = None,
    teacher: Teacher | None = None,
) -> Unknown:  # fmt: skip
    """Find known classes and unknown images together, by EM in the metric in which the source's classes are round.

    1. Images are split in two by their familiarity: at the rate, or where both parts vary least (Otsu).
    2. Unfamiliar images get as many centres as there are known classes (k-means); known classes start at the source's
       means.
    3. Centres and memberships in turn: an image follows its centre, its neighbours and its familiarity, and among the
       known classes the geometric mean of two predictions: the prior, with a teacher in it, and logistic regression.

    Args:
        start: where the refinement of prototypes begins.
        means: (K, D) of the source's classes, in the start's metric and at length 1.
        said: (Nt, K) logits of the source's logistic regression, or of what stands in its place.
        anchors: the target's rows with a label, K for unknown; they stay at it.
        rate: share of unknown images, where it is known.
        teacher: beside the source.
    """
    units, scale, near, classes = start.units, start.scale, start.neighbours, len(means)
    cosines = units @ means.T
    voice = teacher.target if teacher and teacher.known.all() else None  # else classes unknown to it seem unfamiliar
    familiar = familiarity(cosines, said, near, voice)
    if rate is None:
        known = familiar > split(familiar)
    else:
        unfamiliar = familiar.argsort(stable=True)[: max(round(rate * len(units)), 1)]
        known = torch.ones_like(familiar, dtype=torch.bool).index_fill(0, unfamiliar, False)
    logs = (start.prior.clamp(min=1e-12).log() + said.log_softmax(dim=1)) / 2
    logs = logs - logs.amax(dim=1, keepdim=True)
    far = units[~known]
    others = k_means(far, min(classes, max(len(far) // ROWS_A_CENTRE, 1)))
    parts = logs.softmax(dim=1) * known[:, None], (scale * units @ others.T).softmax(dim=1) * ~known[:, None]
    found = torch.cat(parts, dim=1)
    found = _fixed(found, anchors, scale * units @ others.T, classes)
    for _ in range(STEPS):
        centres = F.normalize(found.T @ units, dim=1)
        centres[:classes] = F.normalize(centres[:classes] + means, dim=1)
        logits = scale * units @ centres.T + PULL * mean_over_neighbours(found, near)
        logits[:, :classes] += logs + FAMILIAR * familiar[:, None]
        found = _fixed(logits.softmax(dim=1), anchors, logits[:, classes:], classes)
    every = torch.cat([found[:, :classes], found[:, classes:].sum(dim=1, keepdim=True)], dim=1)
    best, nearest = cosines.max(dim=1)
    return Unknown(every, _evidence(units, near, best, nearest, every[:, -1] < 0.5, classes))


def _fixed(found: Tensor, anchors: Anchors | None, far: Tensor, classes: int) -> Tensor:
    """(Nt, K + M) memberships, those of labelled rows at their labels; (Nt, M) logits say where an unknown one is."""
    if anchors is None:
        return found
    known = anchors.truth[:, :classes]
    unknown = far[anchors.rows].softmax(dim=1) * anchors.truth[:, classes:]
    return found.index_copy(0, anchors.rows, torch.cat([known, unknown], dim=1))


def with_rate(found: Tensor, rate: float) -> Tensor:
    """(Nt, K + 1) probabilities under which a share `rate` of the rows is unknown: those most likely to be."""
    known = found[:, :-1].clamp(min=TINY)
    mass = known.sum(dim=1, keepdim=True)
    odds = found[:, -1].clamp(min=TINY).log() - mass[:, 0].log()  # many a probability is 1 in float32
    chosen = torch.zeros_like(mass)
    chosen[odds.argsort(descending=True, stable=True)[: round(rate * len(found))]] = 1
    return torch.cat([known / mass * (1 - chosen), chosen], dim=1)


def never(head: Head) -> Head:
    """A head with one more class, which is never predicted."""
    weight = torch.cat([head.weight, torch.zeros_like(head.weight[:1])])
    bias = torch.cat([head.bias, torch.full_like(head.bias[:1], NEVER)])
    absent = None if head.absent is None else torch.cat([head.absent, torch.zeros_like(head.absent[:1])])
    return head._replace(weight=weight, bias=bias, absent=absent)


def split(values: Tensor) -> float:
    """The threshold that leaves the least variance within both parts of (N,) values (Otsu, 1979)."""
    precise = values.double().cpu()
    edges = torch.linspace(float(precise.quantile(0.02)), float(precise.quantile(0.98)), 100).double()
    low = precise[None] <= edges[:, None]
    share = low.double().mean(dim=1)
    mean_low = (low * precise).sum(dim=1) / low.sum(dim=1).clamp(min=1)
    mean_high = (~low * precise).sum(dim=1) / (~low).sum(dim=1).clamp(min=1)
    return float(edges[(share * (1 - share) * (mean_low - mean_high).square()).argmax()])


def k_means(units: Tensor, count: int) -> Tensor:
    """(count or fewer, D) centres of (N, D) unit rows, from rows that are drawn far from each other."""
    generator = torch.Generator().manual_seed(0)
    centres = units[:1]
    for _ in range(count - 1):
        distance = (1 - (units @ centres.T).amax(dim=1)).clamp(min=1e-9)
        centres = torch.cat(
            [centres, units[torch.multinomial(distance.cpu(), 1, generator=generator).to(units.device)]]
        )
    for _ in range(ROUNDS):
        sums = one_hot((units @ centres.T).argmax(dim=1), len(centres)).T @ units
        centres = F.normalize(sums[sums.norm(dim=1) > 1e-6], dim=1)
    return centres


def _evidence(units: Tensor, near: Tensor, best: Tensor, nearest: Tensor, known: Tensor, classes: int) -> float:
    """Unknown images lie together, and apart from the known images of the class that they are nearest to.

    The autocorrelation of the distances within a class over neighbours (Moran's I), less a share of the cosine between
    the means of its known and of its other images, in units of their own coherence.
    """
    member = one_hot(nearest, classes)
    away = best - ((member.T @ best) / member.sum(dim=0).clamp(min=1))[nearest]
    together = float((away[:, None] * away[near]).mean() / away.var().clamp(min=1e-12))
    halves = [(member * part[:, None]) for part in (known, ~known)]
    means = [F.normalize(half.T @ units, dim=1) for half in halves]
    smaller = torch.minimum(*(half.sum(dim=0) for half in halves))
    weight = smaller * (smaller >= 3)
    if not weight.sum() > 0:
        return 0.0
    alike = float((weight * (means[0] * means[1]).sum(dim=1)).sum() / weight.sum())
    own = 1.0
    for mean, part in zip(means, (known, ~known), strict=True):
        own *= max(float((units * mean[nearest]).sum(dim=1)[part].mean()), 1e-3)
    return together - TOGETHER * alike / math.sqrt(own)
