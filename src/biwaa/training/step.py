"""One training step: one forward of each domain, one backward through the backbone.

- source and target go through the network apart, source first: BatchNorm normalises each by its own batch;
  its running averages, which predictions use, are of both or of the target alone
- the feature weights need the head's gradient alone, so nothing is backpropagated twice
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from biwaa.functional import inverse_decay
from biwaa.methods.method import Batch, Loss, Method
from biwaa.models.network import Network, Output
from biwaa.ranks import all_gather
from biwaa.recipe import Recipe
from biwaa.settings import OptimizerSettings


def build_optimizer(network: Network, method: Method, settings: OptimizerSettings) -> torch.optim.SGD:
    """SGD with Nesterov momentum; everything on top of the backbone learns `head_factor` times faster."""
    backbone = list(network.backbone.parameters())
    heads = [*network.bottleneck.parameters(), *network.classifier.parameters(), *method.parameters()]
    groups = [
        {"params": backbone, "initial": settings.learning_rate},
        {"params": heads, "initial": settings.learning_rate * settings.head_factor},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: OptimizerSettings, step: int) -> None:
    """lr0 (1 + decay_rate i)^-decay_power for every group."""
    factor = inverse_decay(step, settings.decay_rate, settings.decay_power)
    for group in optimizer.param_groups:
        group["lr"] = group["initial"] * factor


def training_step(
    network: Network,
    method: Method,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
    *,
    source: tuple[Tensor, Tensor],
    target: tuple[Tensor, Tensor],
    strong: Tensor | None = None,
    backward: Callable[[Tensor], object] = torch.Tensor.backward,
    forward: Callable[[Tensor], Output] | None = None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Loss]:
    """Update network, method and optimiser by one step.

    Args:
        network: in train mode.
        method: turns features and logits into losses.
        optimizer: as of `build_optimizer`; its learning rate is set here.
        recipe: all settings.
        step: from 0.
        source: inputs (B, ..) and labels (B,).
        target: inputs (B, ..) and row numbers (B,); no labels.
        strong: strongly augmented target inputs (B, ..), where the method asks for them.
        backward: how to backpropagate (Fabric's scales mixed precision).
        forward: how to call the network (Fabric's wrapper); None calls it as it is.
        between: called after the forwards and before the losses.

    Returns:
        The losses, still on the device.
    """
    set_learning_rate(optimizer, recipe.optimizer, step)
    forward = forward or network
    with running_averages_kept(network, method.sees_target and recipe.network.batch_norm == "target"):
        from_source = forward(source[0])
    # A method that does not see the target gets an empty one.
    from_target = forward(target[0]) if method.sees_target else Output(from_source[0][:0], from_source[1][:0])
    batch = Batch(from_source, source[1], from_target, target[1], None if strong is None else forward(strong))
    between()
    losses = method.losses(network.classifier, batch, step)
    optimizer.zero_grad(set_to_none=True)
    backward(torch.stack([loss.weight * loss.value for loss in losses.values()]).sum())
    optimizer.step()
    return losses


def gathered_forward(network: Callable[[Tensor], Output], fabric: Fabric, inputs: Tensor) -> Output:
    """Outputs of the global batch, of this process's part of the inputs."""
    return Output(*(all_gather(part, fabric) for part in network(inputs)))


@contextmanager
def running_averages_kept(network: Network, keep: bool) -> Iterator[None]:
    """Where `keep`: BatchNorm normalises by the batch as ever, and its running averages stay as they are."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)] if keep else []
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
