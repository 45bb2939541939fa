"""How far a teacher is believed: its scores become log-probabilities by likelihood, on labels that are known or found.

A teacher at chance gets the factor 0 and says nothing; of classes that it mixes up nothing is heard.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biwaa.functional import reliability


@dataclass(frozen=True, eq=False)
class Teacher:
    """A teacher's scores of a run's images, in the run's order of classes."""

    where: str
    """The file or model."""
    target: Tensor
    """(Nt, K) logits up to a temperature."""
    source: Tensor | None
    """(Ns, K) the same of the source; None: it says nothing of the source."""
    known: Tensor
    """(K,) whether it knows the class; columns of others are NaN."""

    @classmethod
    def of(cls, where: str, target: NDArray[np.float32], source: NDArray[np.float32] | None) -> "Teacher":
        """A teacher of matched scores; both domains' columns are of the same classes."""
        there, here = torch.from_numpy(target), None if source is None else torch.from_numpy(source)
        known = ~there[0].isnan()
        if here is not None and len(here):
            known = known & ~here[0].isnan()
        # One scale for both: only their temperature is fitted.
        spread = there[:, known].std(correction=0).clamp(min=1e-6)
        return cls(where, there / spread, None if here is None or not len(here) else here / spread, known)

    def select(self, target: NDArray[np.int64], source: NDArray[np.int64]) -> "Teacher":
        """Only some rows of each domain."""
        of_source = None if self.source is None else self.source[torch.from_numpy(source)]
        return replace(self, target=self.target[torch.from_numpy(target)], source=of_source)

    def first(self, classes: int) -> "Teacher":
        """Of the first classes alone."""
        of_source = None if self.source is None else self.source[:, :classes]
        return replace(self, target=self.target[:, :classes], source=of_source, known=self.known[:classes])

    def to(self, device: torch.device) -> "Teacher":
        """All tensors on the device."""
        of_source = None if self.source is None else self.source.to(device)
        return replace(self, target=self.target.to(device), source=of_source, known=self.known.to(device))


def fit_temperature(scores: Tensor, labels: Tensor, weights: Tensor) -> float:
    """The factor a >= 0 on scores under which the labels are likeliest: mean_i w_i CE(y_i, softmax(a s_i)) is least.

    Temperature scaling (Guo et al., ICML 2017), with 1 / a for T. Scores at chance get 0.

    Args:
        scores: (N, C), of the classes that the teacher knows.
        labels: (N, C) distributions, or parts of one: mass on other classes does not count.
        weights: (N,) of the rows.
    """
    from scipy.optimize import minimize  # takes long to import

    rows, truth = scores.double(), labels.double()
    share = (weights / weights.sum().clamp(min=1e-9)).double()[:, None]
    mass = truth.sum(dim=1, keepdim=True)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = float(flat[0]) * rows
        total = logits.logsumexp(dim=1, keepdim=True)
        loss = (share * (mass * total - (truth * logits).sum(dim=1, keepdim=True))).sum()
        slope = (share * (mass * (logits - total).exp() - truth) * rows).sum()
        return float(loss), np.array([float(slope)])

    return float(minimize(objective, [1.0], jac=True, method="L-BFGS-B", bounds=[(0, None)]).x[0])


def mastered(scores: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The classes that a teacher mostly has right: rows that it names so, and rows that are so.

    Args:
        scores: (N, C).
        labels: (N, C) distributions, or parts of one.
        weights: (N,) of the rows.

    Returns:
        (C,) whether k is the most frequent label where it says k, and its most frequent word where the label is k.
    """
    named = torch.nn.functional.one_hot(scores.argmax(dim=1), scores.shape[1]).to(scores)
    confusion = (named * weights[:, None]).T @ labels
    own = torch.arange(len(confusion), device=scores.device)
    return (confusion.argmax(dim=0) == own) & (confusion.argmax(dim=1) == own) & (confusion.diagonal() > 0)


def fused(
    prior: Tensor, teacher: Teacher, labels: Tensor | None, weights: Tensor | None, found: Tensor, near: Tensor
) -> Tensor:
    """The source's prediction times the teacher's voice: a product of experts.

    Heard are the classes that the teacher has mastered: by the source's labels where it covers the source, otherwise by
    the target's classes as found without it. Its temperature is that of `own_temperature`.

    Args:
        prior: (Nt, K) what the source predicts.
        teacher: of both domains.
        labels: (Ns, K) one-hot, of the source.
        weights: (Ns,) of its rows.
        found: (Nt, K) the target's classes as found without the teacher.
        near: (Nt, M) neighbours of each target image.

    Returns:
        (Nt, K) probabilities. The teacher moves probability among the classes that it has mastered, and to no other.
    """
    heard, one = teacher.known.clone(), torch.ones(len(found)).to(found)
    if teacher.source is not None and labels is not None and weights is not None:
        heard[teacher.known] = mastered(teacher.source[:, heard], labels[:, heard], weights)
    else:
        heard[teacher.known] = mastered(teacher.target[:, heard], found[:, heard], one)
    scale = own_temperature(teacher, labels, weights, near, heard)
    result = prior.clone()
    voice, mass = (teacher.target[:, heard] * scale).log_softmax(dim=1), prior[:, heard].sum(dim=1, keepdim=True)
    logs = prior[:, heard].clamp(min=1e-12).log()
    if teacher.source is not None and heard.any():
        # The source's prediction is as sure here as it was at home: the teacher, who was measured, says if it may be.
        own = logs.softmax(dim=1)
        trust = reliability(voice.exp())[:, None] * mass
        logs = logs * min(fit_temperature(logs, trust * voice.exp() + (1 - trust) * own, one), 1.0)
    result[:, heard] = (logs + voice).softmax(dim=1) * mass
    return result


def own_temperature(
    teacher: Teacher, labels: Tensor | None, weights: Tensor | None, near: Tensor, classes: Tensor
) -> float:
    """The factor on the scores of some classes, without a label of the target.

    It is the one at which the teacher predicts best what it says of most of an image's neighbours: a teacher at chance
    says one thing of an image and another of those beside it. Where it covers the source, the factor that fits the
    source's labels is a bound.

    Args:
        teacher: of both domains.
        labels: (Ns, K) one-hot, of the source; None where there are none.
        weights: (Ns,) of its rows.
        near: (Nt, M) neighbours of each target image.
        classes: (K,) whether a class counts.
    """
    if not classes.any():
        return 0.0
    target = teacher.target[:, classes]
    votes, one = torch.zeros_like(target), torch.ones(len(target), 1).to(target)
    for column in near.T:
        votes.scatter_add_(1, target[column].argmax(dim=1, keepdim=True), one)
    majority = torch.nn.functional.one_hot(votes.argmax(dim=1), target.shape[1]).to(target)
    factor = fit_temperature(target, majority, one[:, 0])
    if teacher.source is not None and labels is not None and weights is not None:
        factor = min(factor, fit_temperature(teacher.source[:, classes], labels[:, classes], weights))
    return factor


def own_probabilities(teacher: Teacher, labels: Tensor | None, weights: Tensor | None, near: Tensor) -> Tensor:
    """(Nt, K) what the teacher says by itself; arguments as of `own_temperature`."""
    known = teacher.known
    factor = max(own_temperature(teacher, labels, weights, near, known), 1e-3)  # at chance, its order is kept
    result = torch.zeros_like(teacher.target)
    result[:, known] = (teacher.target[:, known] * factor).softmax(dim=1)
    return result
