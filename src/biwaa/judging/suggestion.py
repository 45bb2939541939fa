"""Which target images to label next: those that models are unsure of or at odds over, spread over the features.

M images, K classes, D features.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from biwaa.functional import entropy

ITERATIONS = 50


def suggested_rows(probabilities: Tensor, features: Tensor, count: int, labelled: Tensor) -> Tensor:
    """The image nearest to each centre of a k-means whose images weigh as much as they are uncertain (entropy).

    Prabhu et al., "Active Domain Adaptation via Clustering Uncertainty-weighted Embeddings" (CLUE), ICCV 2021; on the
    features that the model's classifier stands on, at unit length.

    Args:
        probabilities: (M, K) the mean of what the model and source-only predict: a model that adapted to a mistake is
            sure of it, and source-only often says otherwise.
        features: (M, D).
        count: how many.
        labelled: rows whose labels are known, which are not suggested.

    Returns:
        Rows, those of the clusters with the most uncertainty first; fewer than `count` where there are no more.
    """
    from sklearn.cluster import KMeans  # takes long to import
    from sklearn.exceptions import ConvergenceWarning

    free = torch.ones(len(features), dtype=torch.bool)
    free[labelled] = False
    rows = free.nonzero()[:, 0]
    unsure = entropy(probabilities[rows].double()).clamp(min=1e-6)
    if count >= len(rows):
        return rows[unsure.argsort(descending=True, stable=True)]
    units = F.normalize(features[rows].float(), dim=1).numpy()
    clusters = KMeans(count, n_init=1, max_iter=ITERATIONS, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # there may be fewer distinct images than clusters
        member = torch.from_numpy(clusters.fit_predict(units, sample_weight=unsure.numpy())).long()
    distances = torch.from_numpy(clusters.transform(units))
    weight = torch.zeros(count, dtype=torch.double).index_add(0, member, unsure)
    taken: list[int] = []
    for cluster in weight.argsort(descending=True, stable=True).tolist():
        nearest = int(distances[:, cluster].argmin())
        taken.append(nearest)
        distances[nearest] = torch.inf  # centres can share their nearest image
    return rows[taken]
