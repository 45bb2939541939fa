"""torch.compile for a leg's network, tried out before the first step.

- the training forward alone: predictions go through the network's parts and stay eager, names of parameters as they are
- a rehearsal compiles forward and backward of both domains and leaves no trace in the network, so a compiler that
  fails costs a sentence and no step
- dropout draws what it draws eagerly, and no kernel is chosen by a timing: a compiled run can be repeated to the bit
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from lightning_fabric import Fabric

from biwaa.models.network import Network, Output
from biwaa.progress import say

OPTIONS: dict[str, str | int | bool | Callable[..., object]] = {"fallback_random": True, "deterministic": True}
"""Of inductor: eager's random numbers; nothing chosen by measuring on the device."""


class Compiled(NamedTuple):
    """What became of compiling a leg's network."""

    seconds: float = 0.0
    """The first pass less a second one."""
    failed: str = ""
    """Why the leg is trained eagerly; empty where it is compiled."""


def forget_compiled() -> None:
    """Forget what earlier runs of this process compiled: kept code is limited, and a run must not hang on others."""
    torch.compiler.reset()


def compile_network(
    name: str, network: Network, rehearse: Callable[[], Iterable[Output]], fabric: Fabric
) -> Compiled:  # fmt: skip
    """Compile the training forward of `network` in place, or leave it as it was after a sentence that says why.

    Args:
        name: of the leg, for the sentence.
        network: on its device, in train mode; buffers, gradients and the generator are left as they were.
        rehearse: runs the forwards of a step and gives what comes out of them, to be summed and backpropagated.
        fabric: precision; what one process cannot compile, none does.
    """
    settled = [buffer.clone() for buffer in network.buffers()]
    network.forward = torch.compile(  # type: ignore[method-assign]
        network.forward, fullgraph=True, dynamic=False, options=OPTIONS
    )
    taken: list[float] = []
    failed = ""
    try:
        for _ in range(2):
            begin = time.perf_counter()
            with torch.random.fork_rng(devices=_own(fabric)):
                with fabric.autocast():
                    outputs = list(rehearse())
                parts = [part.float().sum() for output in outputs for part in output]
                torch.autograd.backward(torch.stack(parts).sum())
            if fabric.device.type == "cuda":
                torch.cuda.synchronize(fabric.device)
            taken.append(time.perf_counter() - begin)
    except Exception as error:  # a compiler can fail in any way; training without it is right all the same
        failed = _reason(error)
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(network.buffers(), settled, strict=True):
                buffer.copy_(before)
    if fabric.world_size > 1:
        failures = fabric.all_reduce(torch.tensor(float(bool(failed)), device=fabric.device), reduce_op="sum")
        failed = failed or ("another process could not" if failures else "")
    if failed:
        release(network)
        say(f"{name}: not compiled, trained eagerly instead ({failed})")
        return Compiled(failed=failed)
    seconds = max(round(taken[0] - taken[1], 2), 0.0)
    if seconds >= 0.1:  # less where an earlier leg's code fits
        say(f"{name}: compiled in {seconds:.1f} s")
    return Compiled(seconds)


def release(network: Network) -> None:
    """Make the network eager again."""
    network.__dict__.pop("forward", None)


def _own(fabric: Fabric) -> list[int]:
    return [torch.cuda.current_device()] if fabric.device.type == "cuda" else []


def _reason(error: Exception) -> str:
    """What went wrong, without the advice and stack that compilers add."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
