"""All mathematics as pure functions, with shapes and sources.

- `paper`: BIWAA's feature weights, class centroids, semantic losses, two schedules, and average over rounds
- `teacher`: ours, not the paper's: smoothing over neighbours, label distribution
- `neighbours`: nearest images by their features
- `other_methods`: class confusion, nuclear norm, discrepancies of features, CORAL
- `probabilities`: entropy, reliability, temperature scaling

B images, D features, K classes, R rounds, N target images. Sections without a name are those of Westfechtel et al.,
"Backprop Induced Feature Weighting for Adversarial Domain Adaptation with Iterative Label Distribution
Alignment", WACV 2023; constants that the paper leaves open are the published implementation's defaults.
"""

from biwaa.functional.neighbours import nearest_among, nearest_neighbours, neighbours_of_a_class
from biwaa.functional.other_methods import class_confusion, coral, covariance_distance, mean_discrepancy, nuclear_norm
from biwaa.functional.paper import (
    adversarial_ramp,
    average_rounds,
    feature_weights,
    inverse_decay,
    semantic_losses,
    update_centroids,
)
from biwaa.functional.probabilities import entropy, log_probabilities, reliability, with_temperature
from biwaa.functional.teacher import align_distribution, smooth_over_neighbours, teacher_cross_entropy

__all__ = [
    "adversarial_ramp",
    "align_distribution",
    "average_rounds",
    "class_confusion",
    "coral",
    "covariance_distance",
    "entropy",
    "feature_weights",
    "inverse_decay",
    "log_probabilities",
    "mean_discrepancy",
    "nearest_among",
    "nearest_neighbours",
    "neighbours_of_a_class",
    "nuclear_norm",
    "reliability",
    "semantic_losses",
    "smooth_over_neighbours",
    "teacher_cross_entropy",
    "update_centroids",
    "with_temperature",
]
