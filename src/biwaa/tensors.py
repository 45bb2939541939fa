"""Tensors and facts about them in a safetensors file, for models and checkpoints; a hash of weights. No unpickling."""

import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from biwaa.errors import BiwaaError, one_line
from biwaa.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], **facts: Any) -> None:
    """Write tensors and facts about them, completely or not at all."""
    # Clones: safetensors refuses tensors that share memory.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        try:
            save_file(plain, draft, metadata={"biwaa": json.dumps(facts)})
        except safetensors.SafetensorError as error:
            code = re.search(r"(?:os error |Os { code: )(\d+)", str(error))  # a full disk, for example
            if not code:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None


def load_tensors(
    path: Path,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    rows_of: Mapping[str, str] | None = None,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of a file that `save_tensors` wrote.

    Args:
        path: of the file.
        only: names of the tensors to load; all unless given.
        without: names of those to leave where they are.
        rows_of: tensors of which some rows are loaded alone, with the name of the tensor that says which.

    Raises:
        BiwaaError: not such a file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get("biwaa")
            if written is None:
                raise ValueError("it has tensors alone")
            facts = json.loads(written)
            if not isinstance(facts, dict):
                raise ValueError("its facts have no names")
            names, chosen = set(file.keys()), rows_of or {}
            wanted = (names if only is None else names & set(only)) - set(without)
            found = {}
            for name in sorted(wanted):
                mapped, rows = file.get_tensor(name), chosen.get(name)
                # Copies are aligned in memory as new tensors are, so arithmetic on them rounds in the same way.
                found[name] = mapped[file.get_tensor(rows)] if rows in names else mapped.clone()
        return found, facts
    except Exception as error:  # on a file of another kind the readers may raise anything
        raise BiwaaError(f"{path} is not a file that biwaa wrote ({one_line(error)}).") from None


def taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, taken out; without that beginning."""
    return {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}


def weights_digest(module: nn.Module) -> str:
    """Hash of every parameter and buffer."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
