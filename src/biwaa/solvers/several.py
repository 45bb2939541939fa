"""Prototypes from several sources, each with statistics of its own and a weight that was measured (docs/sources.md).

J sources, Ns rows of all of them, Nt target rows, D features, K classes. A source may lack classes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import nearest_neighbours
from biwaa.solvers.anchors import Anchors, anchored_prior
from biwaa.solvers.logistic import Head, fit_logistic
from biwaa.solvers.metric import (
    NEIGHBOURS,
    balanced_weights,
    fit_scale,
    one_hot,
    principal_axes,
    whitening,
    within_class_covariance,
)
from biwaa.solvers.prototypes import FIRST_RIDGE, Start, hear, neighbours_guide, refined, student
from biwaa.teachers.fusion import Teacher

FACTORS = (0.25, 0.5, 0.75, 1.0)
"""Factors on both experts' logits that are tried; the regression's may also be 0."""
HARDLY = 0.05
"""Agreement between sources, from chance to 1, up to which they contradict each other. Real places reach 0.37 and more,
a source whose classes were exchanged less than 0."""
UNHEARD = 1e-3
"""Weight of a source that contradicts the others: only classes that it alone has are learned from it."""
NOTHING = -1e4
"""Logit of a class that an expert has never seen."""


class Standing(NamedTuple):
    """What each of several sources is worth."""

    weights: Tensor
    """(J,) of its rows, in shares of the sum."""
    relevance: Tensor
    """(J,) share of the target on which it says the same by itself as all sources and the target together."""
    agreement: Tensor
    """(J,) accuracy of it on the others and of the others on it; NaN where they share fewer than two classes."""
    chance: Tensor
    """(J,) what guessing would reach there."""

    @property
    def contradicts(self) -> Tensor:
        """(J,) whether its labels are not those of the others."""
        return self.agreement < self.chance + HARDLY * (1 - self.chance)


def balanced(weights: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(N,) weights of rows, of mean 1, by which every class has the same total."""
    totals = torch.zeros(classes).to(weights).index_add(0, labels, weights)
    found = weights / totals[labels]
    return found / found.mean()


def renumbered(origins: Tensor) -> Tensor:
    """(N,) numbers of sources without gaps, where some sources have no rows left."""
    found: Tensor = torch.unique(origins, return_inverse=True)[1]
    return found


class Heard(NamedTuple):
    """What several sources say of a target, weighed."""

    found: Tensor
    """(Nt, K) probabilities."""
    head: Head
    """The student."""
    standing: Standing
    start: Start
    """Where the last refinement began."""
    means: Tensor
    """(K, D) mean over the sources of their class means, in the start's metric and at length 1."""
    weights: Tensor
    """(Ns,) of all rows."""


class Places(NamedTuple):
    """Rows of several sources on the same axes."""

    rows: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    classes: int

    def but(self, left_out: int) -> "Places":
        """All but one."""
        kept = [number for number in range(len(self.rows)) if number != left_out]
        return Places(tuple(self.rows[n] for n in kept), tuple(self.labels[n] for n in kept), self.classes)

    def within(self, weights: Tensor) -> Tensor:
        """(D, D) covariance around the class means of each source."""
        parts = [
            weight * within_class_covariance(rows, labels, torch.ones(len(rows)).to(rows), self.classes)
            for weight, rows, labels in zip(weights, self.rows, self.labels, strict=True)
        ]
        return torch.stack(parts).sum(dim=0) / weights.sum()

    def holds(self) -> Tensor:
        """(J, K) which classes each source has."""
        return torch.stack([labels.bincount(minlength=self.classes) > 0 for labels in self.labels])

    def every(self, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All rows, their labels, and their weights."""
        labels = torch.cat(self.labels)
        of_rows = torch.cat([weight.expand(len(rows)) for weight, rows in zip(weights, self.rows, strict=True)])
        return torch.cat(self.rows), labels, balanced(of_rows, labels, self.classes)


class Experts(NamedTuple):
    """What sources say of rows that are not theirs."""

    within: Tensor
    """(D, D)."""
    units: Tensor
    """(N, D) the rows in the metric, at length 1."""
    scale: float
    means: Tensor
    """(K, D) mean over sources of their class means, at length 1."""
    cosines: Tensor
    """(N, K) logits: cosines with the mean over sources of their class means."""
    regression: Tensor
    """(N, K) logits of one logistic regression in the metric."""
    alone: Tensor
    """(J, N) the class that each source names by its own class means."""


def ask_experts(places: Places, rows: Tensor, weights: Tensor) -> Experts:
    """Fit both experts to the sources and ask them of (N, D) rows, with (J,) weights of the sources."""
    within, holds = places.within(weights), places.holds()
    metric = whitening(within, FIRST_RIDGE)
    units = F.normalize(rows @ metric, dim=1)
    known = [F.normalize(part @ metric, dim=1) for part in places.rows]
    means = torch.stack(
        [
            F.normalize(one_hot(labels, places.classes).T @ part, dim=1)
            for part, labels in zip(known, places.labels, strict=True)
        ]
    )
    joint = F.normalize((weights[:, None, None] * means).sum(dim=0), dim=1)
    every, labels, of_rows = places.every(weights)
    scale = fit_scale(torch.cat(known) @ joint.T, labels, of_rows)
    narrow = metric * metric.shape[1] ** -0.5
    head = fit_logistic(every @ narrow, one_hot(labels, places.classes), of_rows)
    unseen = ~holds.any(dim=0)
    cosines, regression = scale * units @ joint.T, F.linear(rows @ narrow, *head)
    alone = torch.stack([(units @ mean.T).masked_fill(~held, NOTHING).argmax(dim=1)
                         for mean, held in zip(means, holds, strict=True)])  # fmt: skip
    cosines, regression = (part.masked_fill(unseen, NOTHING) for part in (cosines, regression))
    return Experts(within, units, scale, joint, cosines, regression, alone)


def between(places: Places) -> tuple[Tensor, Tensor]:
    """(J,) mean accuracy of each source's class means on the others' rows, and of theirs on its; (J,) chance.

    Over the classes that two sources share; NaN where it shares fewer than two with each of the others.
    """
    count, holds = len(places.rows), places.holds()
    metric = whitening(places.within(torch.ones(count).to(places.rows[0])), FIRST_RIDGE)
    known = [F.normalize(part @ metric, dim=1) for part in places.rows]
    right, guessed = torch.full((2, count, count), torch.nan)
    for one in range(count):
        means = F.normalize(one_hot(places.labels[one], places.classes).T @ known[one], dim=1)
        for other in range(count):
            both = holds[one] & holds[other]
            if one == other or both.sum() < 2:
                continue
            counted = both[places.labels[other]]
            truth = places.labels[other][counted]
            said = (known[other][counted] @ means.T).masked_fill(~both, NOTHING).argmax(dim=1)
            right[one, other] = ((said == truth) * balanced_weights(truth, places.classes)).mean()
            guessed[one, other] = 1 / both.sum()
    return tuple(torch.cat([part, part.T], dim=1).nanmean(dim=1) for part in (right, guessed))  # type: ignore[return-value]


def fit_mix(places: Places, weights: Tensor) -> tuple[float, float]:
    """Factors on the logits of cosines and regression: those that predict each source best from the others.

    Args:
        places: two sources or more.
        weights: (J,).
    """
    mixes = [(one, other) for one in FACTORS for other in (0.0, *FACTORS)]
    loss = dict.fromkeys(mixes, 0.0)
    for number, (rows, labels, weight) in enumerate(zip(places.rows, places.labels, weights.tolist(), strict=True)):
        others = places.but(number)
        counted = others.holds().any(dim=0)[labels]
        if not counted.any():
            continue
        kept = torch.arange(len(weights), device=weights.device) != number
        said, truth = ask_experts(others, rows[counted], weights[kept]), labels[counted]
        balance = balanced_weights(truth, places.classes)
        for one, other in mixes:
            entropy = F.cross_entropy(one * said.cosines + other * said.regression, truth, reduction="none")
            loss[one, other] += weight * float((balance * entropy).mean())
    return min(mixes, key=lambda mix: loss[mix])


def adapt_several(
    source: Tensor,
    labels: Tensor,
    target: Tensor,
    classes: int,
    origins: Tensor,
    count: int = NEIGHBOURS,
    teacher: Teacher | None = None,
    anchors: Anchors | None = None,
) -> Heard | None:
    """As `adapt_prototypes`, from several sources.

    1. within-class whitening around each source's own class means
    2. the sources' prediction: cosines with their mean class means, and logistic regression, mixed as it predicts each
       source best from the others; a source that contradicts the others is not heard
    3. prototypes and metric are refined on the target, twice: the second time every source has a weight, the square of
       the share of the target on which it says by itself what was found
    4. a student: logistic regression on all labels and the target's probabilities

    Args:
        source: (Ns, F), each source standardised by its own statistics.
        labels: (Ns,).
        target: (Nt, F) standardised.
        classes: K.
        origins: (Ns,) number of each row's source, 0 to J - 1.
        count: neighbours of a row.
        teacher: of these rows.
        anchors: the target's rows with a label; with them the prior is logistic regression alone, as with one source.

    Returns:
        None where the sources' own neighbours are of other classes, so that neighbours are no guide.
    """
    number = int(origins.max()) + 1
    many = origins.bincount(minlength=number)
    axes = principal_axes(source * (len(source) / number / many[origins])[:, None].sqrt(), target)
    here, there = source @ axes, target @ axes
    places = Places(
        tuple(here[origins == one] for one in range(number)), tuple(labels[origins == one] for one in range(number)),
        classes,
    )  # fmt: skip
    equal = torch.ones(number).to(source)
    agreement, chance = between(places)
    standing = Standing(equal, equal, agreement, chance)
    metric = whitening(places.within(equal), FIRST_RIDGE)
    if not neighbours_guide(here * source.shape[1] ** -0.5, F.normalize(here @ metric, dim=1), labels, classes):
        return None
    bad = standing.contradicts.to(source.device)
    weights = heard = torch.where(bad, UNHEARD, equal) if not bad.all() else equal  # else nobody knows who is right
    mix = fit_mix(places, weights)
    truth, holds = one_hot(labels, classes), places.holds()
    for turn in range(2):
        said = ask_experts(places, there, weights)
        prior = (mix[0] * said.cosines + mix[1] * said.regression).softmax(dim=1)
        if anchors:
            every, named, of_rows = places.every(weights)
            scaled = whitening(said.within, FIRST_RIDGE) * here.shape[1] ** -0.5
            prior = anchored_prior(every @ scaled, one_hot(named, classes), of_rows, there @ scaled, anchors)
        near = nearest_neighbours(said.units, count)
        start = Start(axes, there, said.within, said.units, prior, said.scale, near, anchors)
        if teacher:
            start = hear(start, teacher, count, truth, balanced_weights(labels, classes))
        found, metric = refined(start, classes, count)
        named = found.argmax(dim=1)
        judged = holds[:, named]  # a source is asked of the classes that it has
        relevance = ((said.alone == named) & judged).sum(dim=1) / judged.sum(dim=1).clamp(min=1)
        if turn == 0:
            weights = heard * (relevance / relevance.max().clamp(min=1e-6)).square().clamp(min=UNHEARD)
    share = min(1.0, len(target) / len(source))  # many sources must not outweigh the target
    of_rows = balanced(weights[origins], labels, classes) * share
    head = student(axes @ metric, source, truth, of_rows, target, found)
    standing = standing._replace(weights=weights / weights.sum(), relevance=relevance)
    return Heard(found, head, standing, start, said.means, of_rows)
