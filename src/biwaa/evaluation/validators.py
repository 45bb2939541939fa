"""Scores by which a choice among candidate models can be made without a target label. HIGHER IS ALWAYS BETTER.

A candidate is source-only or a round. Some scores read a candidate by itself, some against the pool it stands in.
None is reliable everywhere; what each is known to fall for is said beside it. Who chooses by a score says by which.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score
from torch import Tensor

from biwaa.evaluation import metrics
from biwaa.evaluation.calibration import neighbour_agreement
from biwaa.evaluation.importance import controlled_risk, density_ratio
from biwaa.methods.bnm import mean_nuclear_norm
from biwaa.methods.mcc import entropy

SAMPLE = 5000
"""Images at most that are clustered, compared with each other, or told from the other domain's."""
SEED = 0
"""Of the sample and of k-means: the same for every candidate of a pool."""
MIX = 0.55
"""Share of the dominant image in MixVal's mixed pairs, the paper's value."""
TEMPERATURE = 0.05
"""Of SND's similarities, the paper's value."""
BLOCK = 1024
"""Rows of SND's (N, N) similarities that are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What label-free scores may see of a candidate: its outputs, and the source's labels; no label of the target.

    On the CPU. The candidates of a pool predict the same images in the same order.
    """

    probabilities: Tensor
    """(N, K), target images."""
    features: Tensor | None = None
    """(M, D) behind the bottleneck, of the target images `rows`."""
    rows: Tensor | None = None
    """(M,) which target images `features` belong to; None: all, in order."""
    source_probabilities: Tensor | None = None
    """(S, K), held-out source images."""
    source_features: Tensor | None = None
    """(S, D), held-out source images."""
    source_labels: Tensor | None = None
    """(S,) classes of the held-out source images."""
    trained_features: Tensor | None = None
    """(T, D), source images that were trained on."""
    mixed: Tensor | None = None
    """(P, K) predictions of MIX times the first image of each pair, and 1 - MIX times the second."""
    pairs: Tensor | None = None
    """(P, 2) target images of the mixed pairs, the dominant one first."""
    trained_labels: Tensor | None = None
    """(T,) classes of the source images that were trained on."""

    @property
    def said(self) -> Tensor:
        """(M,) predicted classes of the images that `features` belong to."""
        predicted = self.probabilities.argmax(dim=1)
        return predicted if self.rows is None else predicted[self.rows]

    @property
    def held_out(self) -> tuple[Tensor, NDArray[np.int64]] | None:
        """(S, K) predictions of the held-out source and its (S,) labels, where there are any."""
        if self.source_probabilities is None or self.source_labels is None:
            return None
        return self.source_probabilities, self.source_labels.numpy()

    @cached_property
    def neighbours_alike(self) -> float | None:
        """`calibration.neighbour_agreement`, computed once however often a run is described; None without features."""
        if self.features is None or len(self.features) < 2:
            return None
        return neighbour_agreement(self.features, self.said)

    @cached_property
    def grouping(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(M,) predicted classes and (M,) k-means clusters, or of a sample of `SAMPLE`; computed once for both readers.

        K clusters, from k-means++ and not from the predictions, with which they would agree beyond merit. A candidate's
        own features are clustered, at unit length: by direction, as a linear classifier nearly tells classes apart.
        Musgrave et al.'s code offers this and features as they are.
        """
        (features,) = _given(self.features)
        classes = _sample(self.said)
        units = F.normalize(_sample(features).double(), dim=1)
        k_means = KMeans(min(self.probabilities.shape[1], len(units)), n_init=3, random_state=SEED)
        with warnings.catch_warnings():
            # Features that fell together have fewer distinct points than clusters; the scores say so well enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            return classes.numpy(), k_means.fit_predict(units.numpy())


Validator = Callable[[Sequence[Evidence]], list[float]]


def v_measure(evidence: Evidence) -> float:
    """Harmonic mean of homogeneity and completeness between predicted classes and k-means clusters, in [0, 1].

    Rosenberg and Hirschberg, EMNLP 2007; as a validator in Ericsson et al., "Better Practices for Domain Adaptation",
    AutoML 2023. Reads probabilities and features. A prediction of a single class scores 0, against the definition,
    by which a network whose features fell together as well would score 1.
    """
    classes, clusters = evidence.grouping
    return float(v_measure_score(classes, clusters)) if np.ptp(classes) else 0.0


def ami(evidence: Evidence) -> float:
    """Mutual information between predicted classes and k-means clusters, adjusted for chance: at most 1, 0 by chance.

    Vinh et al., JMLR 2010, with the arithmetic mean of the entropies; as a validator "ClassAMI" in Musgrave et al.,
    "Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", 2022. Reads
    probabilities and features. A prediction of a single class scores 0, as in `v_measure`.
    """
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
    return float(mean_nuclear_norm(probabilities))


def negative_entropy(probabilities: Tensor) -> float:
    """-mean H(p) in nats: sure of each image (Morerio et al., "Minimal-Entropy Correlation Alignment", ICLR 2018).

    Best for whoever says one class of every image and is sure of it.

    Args:
        probabilities: (N, K).
    """
    return -float(entropy(probabilities).mean())


def snd(probabilities: Tensor) -> float:
    """Soft neighbourhood density: mean entropy in nats of each image's similarities to the others, at most log(N - 1).

    Saito et al., "Tune it the Right Way", ICCV 2021: cosines of softmax outputs over `TEMPERATURE`, a softmax over all
    other images, its entropy. Best for whoever says the same of every image. Quadratic: at most `SAMPLE` images.

    Args:
        probabilities: (N, K).
    """
    units = F.normalize(_sample(probabilities).double(), dim=1)
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
    trained, target, held_out = _given(evidence.trained_features, evidence.features, evidence.source_features)
    weights = density_ratio(_sample(trained).numpy(), _sample(target).numpy(), held_out.numpy())
    return -controlled_risk(_source_errors(evidence), weights)


def ensv(pool: Sequence[Evidence]) -> list[float]:
    """Share of target images on which a candidate says what the mean prediction of the whole pool says, in [0, 1].

    EnsV: Hu et al., "Towards Reliable Model Selection for Unsupervised Domain Adaptation: An Empirical Study and a
    Certified Baseline", NeurIPS 2024 (Datasets and Benchmarks). Reads probabilities. As good as the mean is: where most
    of the pool fails alike, so does the choice.
    """
    mean = torch.stack([evidence.probabilities for evidence in pool]).mean(dim=0)
    return [metrics.agreement(evidence.probabilities, mean) for evidence in pool]


def agreement(pool: Sequence[Evidence]) -> list[float]:
    """Mean over the other candidates of the share of target images on which both say the same class, in [0, 1].

    Not from a paper: EnsV's question by votes instead of probabilities. Reads probabilities. 1 for a candidate alone.
    """
    if len(pool) == 1:
        return [1.0]
    said = torch.stack([evidence.probabilities.argmax(dim=1) for evidence in pool])  # (C, N)
    same = torch.stack([(said == one).double().mean(dim=1) for one in said])  # (C, C), ones on the diagonal
    values: list[float] = ((same.sum(dim=1) - 1) / (len(pool) - 1)).tolist()
    return values


def mixval(pool: Sequence[Evidence]) -> list[float]:
    """Mean of a candidate's ranks by intra- and inter-cluster consistency: 1 is the worst, the pool's size the best.

    MixVal: Hu et al., "Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation", NeurIPS 2023.
    Reads probabilities, mixed and pairs. Ties share their mean rank. A candidate without pairs of a kind, as one that
    says a single class, ranks last in that kind, where the authors' code divides by zero.
    """
    consistency = np.array([interpolation_consistency(evidence) for evidence in pool])  # (C, 2)
    ranks = rankdata(np.nan_to_num(consistency, nan=-1.0), axis=0)
    values: list[float] = ranks.mean(axis=1).tolist()
    return values


def interpolation_consistency(evidence: Evidence) -> tuple[float, float]:
    """MixVal's ICE: the share of mixed pairs that are given the class of their dominant image, for each kind of pairs.

    Intra-cluster pairs are those of which the candidate itself gives both images the same class.

    Returns:
        Over intra- and over inter-cluster pairs, each in [0, 1]; NaN without such pairs.
    """
    mixed, pairs = _given(evidence.mixed, evidence.pairs)
    first, second = evidence.probabilities.argmax(dim=1)[pairs].unbind(dim=1)
    right = (mixed.argmax(dim=1) == first).double()
    return float(right[first == second].mean()), float(right[first != second].mean())


def mixing_pairs(probabilities: Tensor, count: int, seed: int) -> Tensor:
    """Draw pairs of target images for MixVal: half within a predicted class, half across two.

    Every image comes first as often as any other, to within one, among those that have a partner. Where one kind does
    not exist, all pairs are of the other.

    Args:
        probabilities: (N, K) of the candidate that is to be probed.
        count: of pairs.
        seed: of the draw.

    Returns:
        (P, 2) rows, the dominant image first; P is `count`, or 0 for a target of one image.
    """
    generator = torch.Generator().manual_seed(seed)
    said = probabilities.argmax(dim=1)
    order = said.argsort(stable=True)  # images class after class, so that a step along it stays in a class or leaves it
    size = said.bincount(minlength=probabilities.shape[1])
    begin = (size.cumsum(0) - size)[said[order]]  # (N,) where the class of each place begins
    size = size[said[order]]  # (N,) and how many it has
    places = torch.arange(len(said))
    within, across = places[size > 1], places[size < len(said)]
    inside = count // 2 if len(within) and len(across) else count * bool(len(within))
    first, shift = _draw(within, size - 1, inside, generator)
    intra = torch.stack([first, begin[first] + (first - begin[first] + 1 + shift) % size[first]], dim=1)
    first, shift = _draw(across, len(said) - size, (count - inside) * bool(len(across)), generator)
    inter = torch.stack([first, (begin[first] + size[first] + shift) % len(said)], dim=1)
    return order[torch.cat([intra, inter])]


def _draw(places: Tensor, choices: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` of `places`, evenly, and for each a number below its `choices`."""
    times = -(-count // max(len(places), 1))
    shuffled = [places[torch.randperm(len(places), generator=generator)] for _ in range(times)]
    drawn = torch.cat([places[:0], *shuffled])[:count]
    part = torch.rand(count, generator=generator, dtype=torch.float64)
    return drawn, (part * choices[drawn]).long()


def sample_rows(count: int, most: int) -> Tensor:
    """(M,) rows of at most `most` of `count` images, in order, the same every time."""
    return torch.from_numpy(np.sort(np.random.default_rng(SEED).permutation(count)[:most]))


def _sample(rows: Tensor) -> Tensor:
    """At most `SAMPLE` of the rows, in order: the same of any tensor of that length."""
    return rows[sample_rows(len(rows), SAMPLE)]


def _given(*parts: Tensor | None) -> list[Tensor]:
    given = [part for part in parts if part is not None]
    assert len(given) == len(parts)  # `scores` asks only where everything is there
    return given


def _source_errors(evidence: Evidence) -> NDArray[np.float64]:
    probabilities, labels = _given(evidence.source_probabilities, evidence.source_labels)
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
}
"""By name; each from a pool of candidates to a score a candidate."""

NEEDS: dict[str, tuple[str, ...]] = {
    "v_measure": ("features",),
    "ami": ("features",),
    "source_accuracy": ("source_probabilities", "source_labels"),
    "dev": ("features", "source_probabilities", "source_labels", "source_features", "trained_features"),
    "mixval": ("mixed", "pairs"),
}
"""Which fields of `Evidence` a validator reads besides the probabilities."""


def scores(pool: Sequence[Evidence], only: str | None = None) -> dict[str, list[float | None]]:
    """Every validator's score of every candidate, or one's; None where the evidence for it is missing or empty.

    Who lacks the evidence for a validator is not in its pool.
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
