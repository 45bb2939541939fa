"""What is read of the command line before tyro does: flags that every command has, and misspelt ones."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from biwaa.cli.help import Option
from biwaa.errors import BiwaaError, nearest

ELSEWHERE = {
    "epochs": "steps", "iterations": "steps", "iters": "steps", "max_steps": "steps", "lr": "learning_rate",
    "batch": "batch_size", "bs": "batch_size", "model": "backbone", "arch": "backbone", "net": "backbone",
    "src": "source", "tgt": "target", "output": "out", "output_dir": "out", "save_dir": "out", "gpu": "device",
    "gpus": "devices", "cuda": "device", "pretrained": "weights", "img_size": "image_size", "size": "image_size",
    "input_size": "image_size", "freeze": "freeze_backbone", "frozen": "freeze_backbone", "algorithm": "method",
    "config": "recipe", "force": "overwrite", "data": "data_root", "root": "data_root", "test": "held_out",
    "val": "held_out", "wd": "weight_decay", "workers": "processes", "topk": "top_k",
}  # fmt: skip
"""What other programs call a flag -> its name here."""


def common_flags(words: Iterable[str]) -> tuple[bool, list[Path], list[str]]:
    """Take out the flags that every command has.

    Returns:
        Whether to be quiet, the plug-ins' files, and the other words.

    Raises:
        BiwaaError: --plugin without a file.
    """
    silent, plugins, others = False, list[Path](), list[str]()
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name == "--plugin":
            file = value if equals else next(left, "")
            if not file or file.startswith("--"):
                raise BiwaaError("--plugin needs a Python file after it.")
            plugins.append(Path(file))
        elif word == "--quiet":
            silent = True
        else:
            others.append(word)
    return silent, plugins, others


FREEZE = "--freeze-backbone"
SWITCHES = {FREEZE: "True", "--no-freeze-backbone": "False", "--finetune": "False"}
"""Flags that turn the setting on or off, which may also be left open -> its value, as tyro reads it."""


def with_switches(arguments: Sequence[str]) -> list[str]:
    """The words of a command line, with the value of a setting that has three after its flag."""
    return [part for word in arguments for part in ((FREEZE, SWITCHES[word]) if word in SWITCHES else (word,))]


def known_flags_only(command: str, arguments: Sequence[str], options: Sequence[Option]) -> None:
    """Refuse a flag that the command does not have, and name the one that was meant.

    Raises:
        BiwaaError: there is such a flag.
    """
    known = {option.name: option for option in options if not option.positional}
    for word in arguments:
        if not word.startswith("--") or word == "--" or word.startswith("--tyro"):
            continue
        name = word[2:].partition("=")[0].replace("-", "_")
        plain = name.removeprefix("no_")
        if name in known or (plain in known and not known[plain].metavar):
            continue
        raise BiwaaError(f"{command} has no flag {word.partition('=')[0]}: {_hint(command, plain, known)}")


def _hint(command: str, name: str, known: Mapping[str, Option]) -> str:
    elsewhere = {asked: other for asked, other in ELSEWHERE.items() if other in known}
    found = name if name in elsewhere else next(iter(nearest(name, [*known, *elsewhere])), None)
    if found is None:
        return f"`biwaa {command} --help` lists those that it has."
    option = known[elsewhere.get(found, found)]
    counted = f"{command} counts steps of --batch-size images, not epochs; " if found == "epochs" else ""
    meaning = option.meaning[:1].lower() + option.meaning[1:]
    return f"{counted}did you mean --{option.name.replace('_', '-')} ({meaning})?"
