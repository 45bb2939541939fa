"""Scores that select among candidate models without target labels. HIGHER IS ALWAYS BETTER.

A candidate is source-only or a round. Some scores read one candidate, some compare it with the whole pool.
None is reliable everywhere: each docstring names the known failure. A result names the score that was used.
"""

from collections.abc import Callable, Sequence
from itertools import compress

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from biwaa import functional
from biwaa.functional import entropy
from biwaa.judging import metrics
from biwaa.judging.evidence import Evidence, given, sample
from biwaa.judging.importance import controlled_risk, density_ratio
from biwaa.judging.mixval import mixval

TEMPERATURE = 0.05  # Of SND's similarities, the paper's value
BLOCK = 1024  # Rows of SND's (N, N) similarities that are in memory at a time


Validator = Callable[[Sequence[Evidence]], list[float]]


def v_measure(evidence: Evidence) -> float:
    """Harmonic mean of homogeneity and completeness between predicted classes and k-means clusters, in [0, 1].

    Rosenberg and Hirschberg, EMNLP 2007; as a validator in Ericsson et al., "Better Practices for Domain Adaptation",
    AutoML 2023. Reads probabilities and features. A prediction of a single class scores 0, against the definition,
    by which a network whose features fell together as well would score 1.
    """
    from sklearn.metrics import v_measure_score  # takes long to import

    classes, clusters = evidence.grouping
    return float(v_measure_score(classes, clusters)) if np.ptp(classes) else 0.0


def ami(evidence: Evidence) -> float:
    """Mutual information between predicted classes and k-means clusters, adjusted for chance: at most 1, 0 by chance.

    Vinh et al., JMLR 2010, with the arithmetic mean of the entropies; as a validator "ClassAMI" in Musgrave et al.,
    "Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", 2022. Reads
    probabilities and features. A prediction of a single class scores 0, as in `v_measure`.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    classes, clusters = evidence.grouping
    return float(adjusted_mutual_info_score(classes, clusters)) if np.ptp(classes) else 0.0


def information_maximisation(probabilities: Tensor) -> float:
    """H(mean p) - mean H(p) in nats: sure of each image, and of all classes (Musgrave et al. 2022, "IM").

    Args:
        probabilities: (N, K).
    """
    return float(entropy(probabilities.mean(dim=0)) - entropy(probabilities).mean())


def nuclear_norm(probabilities: Tensor) -> float:
    """||P||_* / N: sure and diverse (Cui et al., "BNM", CVPR 2020, as a validator in Musgrave et al. 2022).

    Args:
        probabilities: (N, K).
    """
    return float(functional.nuclear_norm(probabilities))


def negative_entropy(probabilities: Tensor) -> float:
    """-mean H(p) in nats: sure of each image (Morerio et al., "Minimal-Entropy Correlation Alignment", ICLR 2018).

    Known failure: it is highest for a model that predicts one class for every image with certainty.

    Args:
        probabilities: (N, K).
    """
    return -metrics.mean_entropy(probabilities)


def snd(probabilities: Tensor) -> float:
    """Soft neighbourhood density: mean entropy in nats of each image's similarities to the others, at most log(N - 1).

    Saito et al., "Tune it the Right Way", ICCV 2021: cosines of softmax outputs over `TEMPERATURE`, a softmax over all
    other images, its entropy. Known failure: it is highest for a
    model that predicts the same for every image. Quadratic: at most `SAMPLE` images.

    Args:
        probabilities: (N, K).
    """
    units = F.normalize(sample(probabilities).double(), dim=1)
    if len(units) < 2:
        return 0.0
    total = 0.0
    for start in range(0, len(units), BLOCK):
        similarity = units[start : start + BLOCK] @ units.T / TEMPERATURE
        weights = similarity.exp()  # at most exp(1 / TEMPERATURE): no maximum has to be taken out
        itself = torch.arange(len(weights))
        weights[itself, start + itself] = 0
        norm = weights.sum(dim=1)
        total += float((norm.log() - (weights * similarity).sum(dim=1) / norm).sum())
    return total / len(units)


def source_accuracy(evidence: Evidence) -> float:
    """Share of held-out source images that are right, over images, in [0, 1]. Knows nothing of the target."""
    return 1 - float(_source_errors(evidence).mean())


def dev(evidence: Evidence) -> float:
    """Minus the target risk as Deep Embedded Validation estimates it, from weighted errors on held-out source images.

    You et al., ICML 2019, with control variate; `importance` says how. The loss is 0/1, as in the authors' code, and
    bounded: no image with a large weight decides by how sure it is. Reads features, source_probabilities,
    source_features, source_labels and trained_features. Can lie outside [-1, 0].
    """
    trained, target, held_out = given(evidence.trained_features, evidence.features, evidence.source_features)
    weights = density_ratio(sample(trained).numpy(), sample(target).numpy(), held_out.numpy())
    return -controlled_risk(_source_errors(evidence), weights)


def ensv(pool: Sequence[Evidence]) -> list[float]:
    """Share of target images on which a candidate agrees with the mean prediction of the whole pool, in [0, 1].

    EnsV: Hu et al., "Towards Reliable Model Selection for Unsupervised Domain Adaptation: An Empirical Study and a
    Certified Baseline", NeurIPS 2024 (Datasets and Benchmarks). Reads probabilities. Known failure: where most
    of the pool makes the same mistakes, so does the choice.
    """
    mean = torch.stack([evidence.probabilities for evidence in pool]).mean(dim=0)
    return [metrics.agreement(evidence.probabilities, mean) for evidence in pool]


def agreement(pool: Sequence[Evidence]) -> list[float]:
    """Mean over the other candidates of the share of target images on which both agree, in [0, 1].

    Not from a paper: EnsV's question by votes instead of probabilities. Reads probabilities. 1 for a candidate alone.
    """
    if len(pool) == 1:
        return [1.0]
    classes = torch.stack([evidence.probabilities.argmax(dim=1) for evidence in pool])  # (C, N)
    same = torch.stack([(classes == one).double().mean(dim=1) for one in classes])  # (C, C), ones on the diagonal
    values: list[float] = ((same.sum(dim=1) - 1) / (len(pool) - 1)).tolist()
    return values


def _source_errors(evidence: Evidence) -> NDArray[np.float64]:
    probabilities, labels = given(evidence.source_probabilities, evidence.source_labels)
    errors: NDArray[np.float64] = (probabilities.argmax(dim=1) != labels).double().numpy()
    return errors


def _each(score: Callable[[Evidence], float]) -> Validator:
    return lambda pool: [score(evidence) for evidence in pool]


def _by_probabilities(score: Callable[[Tensor], float]) -> Validator:
    return lambda pool: [score(evidence.probabilities) for evidence in pool]


VALIDATORS: dict[str, Validator] = {
    "v_measure": _each(v_measure),
    "ami": _each(ami),
    "information_maximisation": _by_probabilities(information_maximisation),
    "nuclear_norm": _by_probabilities(nuclear_norm),
    "source_accuracy": _each(source_accuracy),
    "dev": _each(dev),
    "mixval": mixval,
    "ensv": ensv,
    "agreement": agreement,
    "snd": _by_probabilities(snd),
    "entropy": _by_probabilities(negative_entropy),
}  # By name; each from a pool of candidates to a score a candidate

NEEDS: dict[str, tuple[str, ...]] = {
    "v_measure": ("features",),
    "ami": ("features",),
    "source_accuracy": ("source_probabilities", "source_labels"),
    "dev": ("features", "source_probabilities", "source_labels", "source_features", "trained_features"),
    "mixval": ("mixed", "pairs"),
}  # Which fields of `Evidence` a validator reads besides the probabilities


def scores(pool: Sequence[Evidence], only: str | None = None) -> dict[str, list[float | None]]:
    """Every validator's score of every candidate, or one's; None where the evidence for it is missing or empty.

    A candidate without the evidence for a validator is left out of that validator's pool.
    """
    found: dict[str, list[float | None]] = {}
    for name, validator in VALIDATORS.items():
        if only not in (None, name):
            continue
        fields = [[getattr(evidence, field) for field in NEEDS.get(name, ())] for evidence in pool]
        able = [all(part is not None and len(part) for part in parts) for parts in fields]
        values = iter(validator(list(compress(pool, able))) if any(able) else [])
        found[name] = [next(values) if one else None for one in able]
    return found
