"""Source and target features before and after adaptation in one plane, and how far the two domains are mixed."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from biwaa.judging.evidence import Evidence

SAMPLE = 400  # Images of each domain: t-SNE of two states takes about five seconds on one core
NEIGHBOURS = 10
SEED = 0
Positions = tuple[NDArray[np.float64], NDArray[np.float64]]  # (n, 2) positions of source and (m, 2) of target images


@dataclass(frozen=True, eq=False)
class State:
    """A sample of both domains' features under one network, at unit length."""

    stage: str
    source: NDArray[np.float32]  # (n, D)
    target: NDArray[np.float32]  # (m, D)
    source_labels: NDArray[np.int64] | None  # (n,) classes of the source images, where the run kept them
    target_rows: NDArray[np.int64]  # (m,) which target images


def state(stage: str, evidence: Evidence) -> State | None:
    """The same images whatever the stage; None where the stage kept too little."""
    features, trained = evidence.features, evidence.trained_features
    if features is None or trained is None or min(len(features), len(trained)) < 5:
        return None
    ours, theirs = (_rows(len(part)) for part in (trained, features))
    labels = evidence.trained_labels
    rows = np.arange(len(features)) if evidence.rows is None else evidence.rows.numpy()
    return State(
        stage, _units(trained[ours]), _units(features[theirs]),
        None if labels is None else labels.numpy()[ours], rows[theirs],
    )  # fmt: skip


def _rows(count: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(SEED).permutation(count)[:SAMPLE])


def _units(features: torch.Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = F.normalize(features.float(), dim=1).numpy()
    return found


def plane(states: list[State]) -> list[Positions]:
    """One t-SNE of all states together: the positions of each.

    Each network has a feature space of its own, so the states lie apart; one fit gives them one scale.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    parts = [part for one in states for part in (one.source, one.target)]
    widest = max(part.shape[1] for part in parts)  # a solved head has a width of its own
    every = np.concatenate([np.pad(part, ((0, 0), (0, widest - part.shape[1]))) for part in parts])
    width = min(50, every.shape[1], len(every) - 1)
    reduced = PCA(width, random_state=SEED).fit_transform(every)
    perplexity = min(30.0, (len(every) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=SEED, max_iter=750).fit_transform(reduced)
    bounds = np.cumsum([len(part) for part in parts])[:-1]
    places = [part.astype(np.float64) for part in np.split(found, bounds)]
    return list(zip(places[::2], places[1::2], strict=True))


def mixing(one: State) -> tuple[float, float]:
    """Mean share of source images among a target image's nearest in the features, and what full mixing would give.

    Both in [0, 1]; nearest by cosine among the sample, the image itself left out.
    """
    count = len(one.source) + len(one.target) - 1
    similarity = one.target @ np.concatenate([one.source, one.target]).T
    own = np.arange(len(one.target))
    similarity[own, len(one.source) + own] = -np.inf
    nearest = np.argsort(-similarity, axis=1)[:, : min(NEIGHBOURS, count)]
    return float((nearest < len(one.source)).mean()), len(one.source) / count


def like_nearest_source(one: State, classes: NDArray[np.int64]) -> float | None:
    """Share of target images whose nearest source image is of their class; None where the source's are not known.

    Args:
        one: the features.
        classes: (N,) of all target images; those below 0 are missing and are passed over.
    """
    known = classes[one.target_rows] >= 0
    if one.source_labels is None or not known.any():
        return None
    nearest = (one.target[known] @ one.source.T).argmax(axis=1)
    return float((one.source_labels[nearest] == classes[one.target_rows][known]).mean())
