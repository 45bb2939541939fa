"""BIWAA (Westfechtel et al., WACV 2023): feature weights, centroids and their losses, schedules, average of rounds."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def feature_weights(features: Tensor, labels: Tensor, classifier: nn.Module, scale: float = 10.0) -> Tensor:
    """Signed weights w = scale * g / ||g|| with g = d CE(classifier(f), y) / d f (section 3.1).

    Only the classifier is differentiated, never the backbone. A sample whose gradient is zero gets
    zero weights. Computed in float32 at least, whatever the precision of the features.

    Args:
        features: (B, D) bottleneck features.
        labels: (B,) true labels of the source or pseudo-labels of the target.
        classifier: maps (B, D) to logits (B, K); `nn.Linear` takes a closed form.
        scale: length of each weight vector.

    Returns:
        (B, D) in the dtype of `features`, detached.
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        inputs = features.detach().to(precise)
        if isinstance(classifier, nn.Linear):
            weight = classifier.weight.detach().to(precise)
            bias = None if classifier.bias is None else classifier.bias.detach().to(precise)
            residual = _residual(F.linear(inputs, weight, bias), labels)
            gradient = _rescale(residual) @ weight  # (B, K) @ (K, D)
        else:
            with torch.enable_grad():
                logits = classifier(inputs.requires_grad_())
            residual = _residual(logits.detach().to(precise), labels)
            (gradient,) = torch.autograd.grad(logits, inputs, _rescale(residual).to(logits.dtype))
        gradient = _rescale(gradient)
        norm = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        return torch.where(norm > 0, scale * gradient / norm, 0.0).to(features.dtype)


def _residual(logits: Tensor, labels: Tensor) -> Tensor:
    """softmax(logits) - onehot(labels), (B, K), without the cancellation of p - 1 near p = 1."""
    others = logits.softmax(dim=1).scatter(1, labels[:, None], 0.0)
    return others.scatter(1, labels[:, None], -others.sum(dim=1, keepdim=True))


def _rescale(rows: Tensor) -> Tensor:
    """Divide each row by its largest magnitude, so that squares neither under- nor overflow."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    return torch.where(largest > 0, rows / largest, 0.0)


def update_centroids(centroids: Tensor, features: Tensor, labels: Tensor, rate: float = 0.3) -> Tensor:
    """C[k] <- (1 - rate) C[k] + rate mean(features of class k); classes not in the batch stay (section 3.2).

    The gradient flows through `features`. Detach the result before it becomes the next step's memory.

    Args:
        centroids: (K, D) memory.
        features: (B, D).
        labels: (B,) in [0, K).
        rate: share of the new mean.

    Returns:
        (K, D) in the dtype of `centroids`.
    """
    with torch.autocast(features.device.type, enabled=False):
        memory = centroids.to(torch.promote_types(centroids.dtype, torch.float32))
        members = F.one_hot(labels, len(memory)).to(memory.dtype)  # (B, K)
        counts = members.sum(dim=0)[:, None]  # (K, 1)
        means = members.T @ features.to(memory.dtype) / counts.clamp(min=1)
        return torch.where(counts > 0, (1 - rate) * memory + rate * means, memory).to(centroids.dtype)


def semantic_losses(
    source_centroids: Tensor, target_centroids: Tensor, cosine_pull: bool = False
) -> tuple[Tensor, Tensor]:
    """Alignment and separation of the class centroids (section 3.2).

    alignment = mean_k ||Cs[k] - Ct[k]||^2 + cos(Cs, Ct) + cos(Ct, Ct), separation = cos(Cs, Cs), where
    cos(A, B) sums the cosines of all pairs of different classes and divides by (K - 1)^2. The sum over
    i != j is (sum of unit rows of A) . (sum of unit rows of B) minus the diagonal, so it needs no pairs.

    Args:
        source_centroids: (K, D).
        target_centroids: (K, D).
        cosine_pull: mean_k 1 - cos(Cs[k], Ct[k]) in the place of the squared distances, which have no bound. (Ours.)

    Returns:
        Two scalars, float32 at least. With one class there are no pairs and the cosine terms are zero.
    """
    precise = torch.promote_types(source_centroids.dtype, torch.float32)
    source_centroids, target_centroids = source_centroids.to(precise), target_centroids.to(precise)
    source, target = _unit_rows(source_centroids), _unit_rows(target_centroids)
    if cosine_pull:
        inter = 1 - (source * target).sum(dim=1).mean()
    else:
        inter = (source_centroids - target_centroids).square().sum(dim=1).mean()
    alignment = inter + _cross_cosine(source, target) + _cross_cosine(target, target)
    return alignment, _cross_cosine(source, source)


def _unit_rows(rows: Tensor) -> Tensor:
    """Rows of length one; a row without direction stays zero and gets no gradient instead of a huge one."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norm > 1e-8, norm, torch.inf)


def _cross_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Sum over i != j of a[i] . b[j], divided by (K - 1)^2: the reference's divisor, not the count of pairs."""
    pairs = a.sum(dim=0) @ b.sum(dim=0) - (a * b).sum()
    return pairs / max(len(a) - 1, 1) ** 2 if len(a) > 1 else pairs * 0.0


def adversarial_ramp(step: float, horizon: float = 20000, alpha: float = 10.0) -> float:
    """2 / (1 + exp(-alpha step / horizon)) - 1: from 0 at step 0 towards 1 (Ganin et al. 2016, section 5.2.2).

    Used for the gradient reversal, the alignment loss and, with horizon 500, the trust in the label memory.
    """
    return 2.0 / (1.0 + math.exp(-alpha * step / horizon)) - 1.0


def inverse_decay(step: float, rate: float = 1e-3, power: float = 0.75) -> float:
    """(1 + rate step)^-power: the factor on the initial learning rate."""
    return float((1.0 + rate * step) ** -power)


def average_rounds(probabilities: Tensor, update: float = 0.2) -> Tensor:
    """Weighted mean of the rounds' predictions, the newest weighing most (section 3.3).

    P = sum_j (1 - update)^j P_(r-j) / sum_j (1 - update)^j, j = 0 the newest.

    Args:
        probabilities: (R, N, K), oldest round first.
        update: 0 averages evenly, 1 keeps the newest alone.

    Returns:
        (N, K).
    """
    ages = torch.arange(len(probabilities) - 1, -1, -1, device=probabilities.device)
    weights = (1.0 - update) ** ages.to(probabilities.dtype)
    return torch.einsum("r,rnk->nk", weights / weights.sum(), probabilities)
