"""One training step: one forward of each domain, one backward through the backbone.

- source and target go through the network apart, source first: BatchNorm normalises each by its own batch;
  its running averages, which predictions use, are of both or of the target alone
- the feature weights need the head's gradient alone, so nothing is backpropagated twice
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from biwaa.functional import inverse_decay
from biwaa.methods.method import Batch, Loss, Method
from biwaa.models.network import Network, Output
from biwaa.recipe import Recipe


def build_optimizer(network: Network, method: Method, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum; all that stands on the backbone learns `head_factor` times faster."""
    backbone = list(network.backbone.parameters())
    heads = [*network.bottleneck.parameters(), *network.classifier.parameters(), *method.parameters()]
    groups = [
        {"params": backbone, "initial": recipe.learning_rate},
        {"params": heads, "initial": recipe.learning_rate * recipe.head_factor},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """lr0 (1 + decay_rate i)^-decay_power for every group."""
    factor = inverse_decay(step, recipe.decay_rate, recipe.decay_power)
    for group in optimizer.param_groups:
        group["lr"] = group["initial"] * factor


def training_step(
    network: Network,
    method: Method,
    optimizer: torch.optim.Optimizer,
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    step: int,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
    forward: Callable[[Tensor], Output] | None = None,
    strong: Tensor | None = None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Loss]:
    """Renew network, method and optimiser by one step.

    Args:
        network: in train mode.
        method: turns features and logits into losses.
        optimizer: as of `build_optimizer`; its learning rate is set here.
        source: inputs (B, ..) and labels (B,).
        target: inputs (B, ..) and row numbers (B,); no labels.
        step: from 0.
        backward: how to backpropagate (Fabric's scales mixed precision).
        forward: how to call the network (Fabric's wrapper); None calls it as it is.
        strong: strongly augmented target inputs (B, ..), where the method asks for them.
        between: called after the forwards and before the losses.

    Returns:
        The losses, still on the device.
    """
    set_learning_rate(optimizer, method.recipe, step)
    batch = forward_batch(network, method, source, target, forward or network, strong)
    between()
    losses = method.losses(network.classifier, batch, step)
    optimizer.zero_grad(set_to_none=True)
    backward(torch.stack([loss.weight * loss.value for loss in losses.values()]).sum())
    optimizer.step()
    return losses


def forward_batch(
    network: Network, method: Method, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor],
    forward: Callable[[Tensor], Output], strong: Tensor | None,
) -> Batch:  # fmt: skip
    """The forward passes of a step; arguments as of `training_step`."""
    with running_averages_kept(network, method.sees_target and method.recipe.batch_norm == "target"):
        from_source = forward(source[0])
    # A method that does not see the target gets an empty one.
    from_target = forward(target[0]) if method.sees_target else Output(from_source[0][:0], from_source[1][:0])
    return Batch(from_source, source[1], from_target, target[1], None if strong is None else forward(strong))


@contextmanager
def running_averages_kept(network: Network, keep: bool) -> Iterator[None]:
    """While it lasts, and where `keep`, batches are normalised by themselves as ever and leave no trace behind."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)] if keep else []
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
