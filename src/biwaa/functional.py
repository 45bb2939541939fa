"""All mathematics as pure functions: BIWAA, the teacher, and other methods' losses.

- BIWAA: feature weights from the classifier's own gradient, class centroids, semantic losses, two schedules, the
  average over rounds
- the teacher (ours, not the paper's): neighbours, label distribution, reliability
- other methods' losses: class confusion, nuclear norm, discrepancies of features; temperature scaling

B images, D features, K classes, R rounds, N target images. Sections without a name are those of Westfechtel et al.,
"Backprop Induced Feature Weighting for Adversarial Domain Adaptation with Iterative Label Distribution
Alignment", WACV 2023; constants that the paper leaves open are the published implementation's defaults.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Of the Gaussian kernels of `mean_discrepancy`, in mean squared distances."""
LEAST = torch.finfo(torch.float32).tiny
"""A softmax in float32 can round a probability to 0; below this it could not have told it from 0 either."""
BLOCK = 2**24
"""Similarities that `nearest_neighbours` holds at a time: 64 MB."""
EXACT = 20_000
"""Rows on the CPU above which neighbours are searched for approximately: the exact search takes N^2 D steps."""
PROBES = 32
"""Cells of an inverted file that are searched for a row's neighbours, of 4 sqrt(N)."""


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


def smooth_over_neighbours(
    probabilities: Tensor, neighbours: Tensor, pull: float = 0.95, iterations: int = 10
) -> Tensor:
    """Move each uncertain prediction towards the mean of its neighbours'; certain ones stay and pull the others.

    G <- (1 - a) P + a mean of G over the neighbours, a = pull (1 - r(P)^4) an image, r as of `reliability`: label
    spreading (Zhou et al., NeurIPS 2003) whose clamping grows with confidence.

    Args:
        probabilities: (N, K).
        neighbours: (N, M) rows of each image's neighbours.
        pull: weight of the neighbours where the prediction is no better than chance.
        iterations: steps; information travels one edge a step.

    Returns:
        (N, K), rows sum to 1.
    """
    share = pull * (1 - reliability(probabilities)[:, None] ** 4)
    smooth = probabilities
    for _ in range(iterations):
        smooth = (1 - share) * probabilities + share * smooth[neighbours].mean(dim=1)
    return smooth


def align_distribution(probabilities: Tensor, damping: float = 0.75, iterations: int = 50) -> Tensor:
    """Rescale the classes until their shares are the predicted ones moved towards an even distribution.

    The new shares are mean(P)^damping, normalised; columns and rows are normalised in turn (Sinkhorn and Knopp,
    Pacific Journal of Mathematics 1967).

    Args:
        probabilities: (N, K).
        damping: 1 keeps the predicted distribution, 0 makes it even.
        iterations: of the two normalisations.

    Returns:
        (N, K), rows sum to 1. A class that is never predicted stays without images.
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    shares = probabilities.mean(dim=0) ** damping
    shares = shares / shares.sum()
    aligned = probabilities
    for _ in range(iterations):
        aligned = aligned * (shares / aligned.mean(dim=0).clamp(min=tiny))
        aligned = aligned / aligned.sum(dim=1, keepdim=True).clamp(min=tiny)
    return aligned


def reliability(probabilities: Tensor) -> Tensor:
    """How far the largest probability lies above chance: (max p - 1/K) / (1 - 1/K), (N, K) -> (N,) in [0, 1]."""
    chance = 1 / probabilities.shape[1]
    return ((probabilities.amax(dim=1) - chance) / (1 - chance)).clamp(0, 1)


def class_confusion(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """How much the classes of a batch are confused with each other (Jin et al., "MCC", ECCV 2020, equations 3 to 7).

    Args:
        logits: (B, K) of the target.
        temperature: T of equation 3, which rescales the logits; 2.5 is the paper's for all tasks.

    Returns:
        A scalar in [0, 1 - 1/K].
    """
    probabilities = (logits / temperature).softmax(dim=1)  # (B, K)
    certainty = 1 + torch.exp(-entropy(probabilities).detach())
    weights = len(logits) * certainty / certainty.sum()  # (B,), mean 1 (equation 5)
    confusion = (probabilities * weights[:, None]).T @ probabilities  # (K, K), equation 4
    confusion = confusion / confusion.sum(dim=1, keepdim=True)  # equation 6
    return (confusion.sum() - confusion.trace()) / len(confusion)


def entropy(probabilities: Tensor) -> Tensor:
    """(.., K) -> (..) in nats."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1)


def nuclear_norm(probabilities: Tensor) -> Tensor:
    """Sum of the singular values of (N, K) probabilities, over N (Cui et al., "BNM", CVPR 2020, equation 9)."""
    norm: Tensor = torch.linalg.matrix_norm(probabilities, ord="nuc")
    return norm / len(probabilities)


def mean_discrepancy(source: Tensor, target: Tensor) -> Tensor:
    """Squared MMD of (B, D) features (Long et al., "DAN", ICML 2015, equations 1 to 4), mean over the kernels.

    Pairs of a sample with itself are left out.

    k(x, y) = exp(-||x - y||^2 / (2 w m)) with m the mean squared distance of all pairs, w in `WIDTHS`.
    """
    both = torch.cat([source, target])
    distances = (both[:, None] - both[None]).square().sum(dim=2)  # (2B, 2B)
    count = len(both)
    scale = distances.detach().sum() / max(count * count - count, 1)
    kernel = torch.stack([torch.exp(-distances / (2 * width * scale.clamp(min=1e-12))) for width in WIDTHS]).mean(0)
    half = len(source)
    within_source, within_target = _off_diagonal(kernel[:half, :half]), _off_diagonal(kernel[half:, half:])
    return within_source + within_target - 2 * kernel[:half, half:].mean()


def _off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.trace()) / max(count * count - count, 1)


def covariance_distance(source: Tensor, target: Tensor) -> Tensor:
    """||Cov(source) - Cov(target)||_F^2 / (4 D^2) of (B, D) features; covariances divide by B - 1.

    Sun and Saenko, "Deep CORAL", ECCV workshops 2016, equations 1 to 3.
    """
    width = source.shape[1]
    return (_covariance(source) - _covariance(target)).square().sum() / (4 * width**2)


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(dim=0)
    return centred.T @ centred / max(len(features) - 1, 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """CORAL: source (Cs + I)^-1/2 (Ct + I)^1/2 with C the covariances of centred (N, F) features.

    Sun et al., "Return of Frustratingly Easy Domain Adaptation", AAAI 2016, algorithm 1.
    """

    def root(features: Tensor, power: float) -> Tensor:
        wide = features.double()
        covariance = wide.T @ wide / max(len(wide) - 1, 1)
        covariance.diagonal().add_(1.0)
        values, vectors = torch.linalg.eigh(covariance)
        return torch.mm(vectors * values**power, vectors.T)

    return torch.mm(source.double(), root(source, -0.5) @ root(target, 0.5)).to(source.dtype)


def teacher_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean of -r^2 log p(argmax teacher) with r the teacher's `reliability`; (B, K) logits and teacher -> scalar."""
    losses = F.cross_entropy(logits, teacher.argmax(dim=1), reduction="none")
    return (losses * reliability(teacher) ** 2).mean()


def with_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T): softer for T above 1, sharper below, the same predicted class (Guo et al., ICML 2017).

    Args:
        probabilities: (N, K).
        temperature: above 0.

    Returns:
        (N, K) in the dtype of `probabilities`, on the CPU.
    """
    return (log_probabilities(probabilities) / temperature).softmax(dim=1).to(probabilities.dtype)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Log p in float64 on the CPU; what float32 rounded to 0 counts as the smallest number that it can hold."""
    return probabilities.detach().cpu().double().clamp(min=LEAST).log()


def nearest_neighbours(features: Tensor, count: int) -> Tensor:
    """(N, D) features to (N, M) rows of the nearest images by cosine; M is `count`, or N - 1 if that is less.

    An image is no neighbour of its own. In O(BLOCK + N (D + M)) memory.
    """
    size, directions = len(features), F.normalize(features.detach().float(), dim=1)
    if size > EXACT and directions.device.type == "cpu":
        return _approximate_neighbours(directions, count)
    rows = max(BLOCK // size, 1)
    found = []
    for start in range(0, size, rows):
        similarity = directions[start : start + rows] @ directions.T
        here = torch.arange(len(similarity), device=similarity.device)
        similarity[here, start + here] = -torch.inf
        found.append(similarity.topk(min(count, size - 1), dim=1).indices)
    return torch.cat(found)


def _approximate_neighbours(directions: Tensor, count: int) -> Tensor:
    """(N, D) unit rows to (N, M) rows of nearest images, by faiss's inverted file; deterministic, in O(N D) memory."""
    import faiss  # takes long to import

    faiss.omp_set_num_threads(torch.get_num_threads())
    rows, (size, width) = directions.contiguous().numpy(), directions.shape
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, int(4 * size**0.5), faiss.METRIC_INNER_PRODUCT)
    index.nprobe = PROBES
    index.train(rows[:: max(size // 100_000, 1)])
    index.add(rows)
    found = torch.from_numpy(index.search(rows, count + 1)[1])
    # A row is usually its own nearest; where a duplicate comes first, the row is taken out wherever it stands.
    others = found != torch.arange(size)[:, None]
    order = others.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    return found.gather(1, order).clamp(min=0)


def neighbours_of_a_class(features: Tensor, count: int, classes: int) -> Tensor:
    """`nearest_neighbours`, at most half as many as a class of even size has images, so that they can be of one class.

    Args:
        features: (N, D).
        count: neighbours an image; three where a class is too small for half of it to be as many.
        classes: K.

    Returns:
        (N, M).
    """
    return nearest_neighbours(features, max(3, min(count, len(features) // (2 * classes))))
