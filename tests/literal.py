"""The method written down as slowly and literally as its formulas read: loops, one number after another.

Nothing here calls the package. The fast code must give the same.
"""

import math

import torch
import torch.nn.functional as F


def feature_weights(features, labels, weight, bias, scale=10.0):
    """w = scale g / ||g||, g = dCE/df, a sample at a time, in float64."""
    out = torch.zeros(features.shape, dtype=torch.float64)
    for b in range(len(features)):
        f = features[b].double().clone().requires_grad_()
        z = weight.double() @ f + bias.double()
        y = int(labels[b])
        # -log softmax(z)[y] written so that float64 keeps its digits when the class is all but certain
        loss = torch.log1p(sum(torch.exp(z[k] - z[y]) for k in range(len(z)) if k != y))
        (g,) = torch.autograd.grad(loss, f)
        norm = math.sqrt(sum(float(x) ** 2 for x in g))
        if norm > 0:
            out[b] = scale * g / norm
    return out


def update_centroids(centroids, features, labels, rate=0.3):
    """C[k] <- (1 - rate) C[k] + rate mean, a class at a time."""
    rows = []
    for k in range(len(centroids)):
        members = [features[b] for b in range(len(features)) if int(labels[b]) == k]
        if members:
            mean = sum(members) / len(members)
            rows.append((1 - rate) * centroids[k] + rate * mean)
        else:
            rows.append(centroids[k])
    return torch.stack(rows)


def cosine(a, b):
    """x.y / (|x| |y|), zero where either is zero."""
    na, nb = float(a.detach().norm()), float(b.detach().norm())
    if na == 0 or nb == 0:
        return (a * b).sum() * 0.0
    return (a / a.norm()) @ (b / b.norm())


def cross_cosine(a, b):
    """Sum over i != j of cos(a[i], b[j]), divided by (K - 1)^2."""
    k = len(a)
    total = a.sum() * 0.0
    for i in range(k):
        for j in range(k):
            if i != j:
                total = total + cosine(a[i], b[j])
    return total / (k - 1) ** 2 if k > 1 else total


def semantic_losses(source, target, cosine_pull=False):
    """alignment, separation."""
    k = len(source)
    apart = (lambda a, b: 1 - cosine(a, b)) if cosine_pull else lambda a, b: ((a - b) ** 2).sum()
    inter = sum(apart(source[i], target[i]) for i in range(k)) / k
    return inter + cross_cosine(source, target) + cross_cosine(target, target), cross_cosine(source, source)


def ramp(step, horizon):
    """2 / (1 + exp(-10 i / horizon)) - 1."""
    return 2 / (1 + math.exp(-10 * step / horizon)) - 1


class LiteralTrainer:
    """Whole steps on plain tensors: one linear body with ReLU, bottleneck, classifier, three-layer discriminator."""

    def __init__(self, parameters, classes, targets, previous=None, lr0=0.01):
        self.p = {name: value.double().clone().requires_grad_() for name, value in parameters.items()}
        self.velocity = dict.fromkeys(parameters)
        dim = parameters["bottleneck.weight"].shape[0]
        self.cs = torch.zeros(classes, dim, dtype=torch.float64)
        self.ct = torch.zeros(classes, dim, dtype=torch.float64)
        self.memory = torch.zeros(targets, classes, dtype=torch.float64)
        self.seen = set()
        self.previous = previous
        self.lr0 = lr0

    def forward(self, x):
        """Features and logits."""
        p = self.p
        hidden = (x @ p["body.weight"].T + p["body.bias"]).relu()
        f = hidden @ p["bottleneck.weight"].T + p["bottleneck.bias"]
        return f, f @ p["fc.weight"].T + p["fc.bias"]

    def pseudo(self, logits, rows, step):
        """Label memory, then argmax q."""
        labels = []
        for b, row in enumerate(rows.tolist()):
            prob = logits[b].detach().softmax(0)
            self.memory[row] = 0.9 * prob + 0.1 * self.memory[row] if row in self.seen else prob
            self.seen.add(row)
            q = self.memory[row]
            if self.previous is not None:
                pi = ramp(step, 500)
                q = (1 - pi) * self.previous[row] + pi * q
            labels.append(int(q.argmax()))
        return torch.tensor(labels)

    def step(self, xs, ys, xt, rows, i):
        """One step; the four losses."""
        p = self.p
        fs, logits_s = self.forward(xs.double())
        ft, logits_t = self.forward(xt.double())
        yt = self.pseudo(logits_t, rows, i)
        ws = feature_weights(fs.detach(), ys, p["fc.weight"].detach(), p["fc.bias"].detach())
        wt = feature_weights(ft.detach(), yt, p["fc.weight"].detach(), p["fc.bias"].detach())
        ce = F.cross_entropy(logits_s, ys)
        domain = torch.zeros((), dtype=torch.float64)
        weighted = torch.cat([fs * ws, ft * wt])
        # Gradient reversal: a value equal to `weighted` whose gradient is -coefficient times.
        coefficient = ramp(i + 1, 20000)
        reverse = (1 + coefficient) * weighted.detach() - coefficient * weighted
        for b in range(len(reverse)):
            h = (p["d1.weight"] @ reverse[b] + p["d1.bias"]).relu()
            h = (p["d2.weight"] @ h + p["d2.bias"]).relu()
            z = (p["d3.weight"] @ h + p["d3.bias"])[0]
            domain = domain + (F.softplus(-z) if b < len(fs) else F.softplus(z)) / len(reverse)
        cs = update_centroids(self.cs, fs, ys)
        ct = update_centroids(self.ct, ft, yt)
        alignment, separation = semantic_losses(cs, ct)
        total = ce + domain + ramp(i, 20000) * alignment + separation
        gradients = torch.autograd.grad(total, list(p.values()))
        self.cs, self.ct = cs.detach(), ct.detach()
        for (name, value), gradient in zip(list(p.items()), gradients, strict=True):
            rate = self.lr0 * (1 if name.startswith("body") else 10) * (1 + 0.001 * i) ** -0.75
            g = gradient + 1e-3 * value.detach()
            v = g if self.velocity[name] is None else 0.9 * self.velocity[name] + g
            self.velocity[name] = v
            p[name] = (value.detach() - rate * (g + 0.9 * v)).requires_grad_()
        return ce, domain, alignment, separation, yt
