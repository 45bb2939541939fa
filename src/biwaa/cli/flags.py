"""What is read of the command line before tyro does: flags that every command has, and words that cannot be right."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tyro import MISSING

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
    return [f"{FREEZE}={SWITCHES[word]}" if word in SWITCHES else word for word in arguments]


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


def values_that_fit(
    command: str, arguments: Sequence[str], options: Sequence[Option], example: str, *, complete: bool = True
) -> None:
    """Refuse a value that a flag does not take, a flag without its value, and a command without what it needs.

    Args:
        command: its name.
        arguments: the words after it, each flag among them known.
        options: what the command takes.
        example: of a whole command line.
        complete: whether what is needed has to be there; a run that goes on knows its own.

    Raises:
        BiwaaError: one of these.
    """
    flags = {option.name: option for option in options if not option.positional}
    places = [option for option in options if option.positional]
    given, loose = dict[str, list[str]](), list[str]()
    awaiting: Option | None = None
    for word in arguments:
        if word.startswith("--") and word != "--":
            name, equals, value = word[2:].partition("=")
            option = flags.get(name.replace("-", "_"))
            awaiting = option if option and option.metavar and not equals else None
            if option and option.metavar:
                given.setdefault(option.name, []).extend([value] if equals else [])
        elif awaiting:
            given[awaiting.name].append(word)
            awaiting = awaiting if awaiting.several else None
        else:
            loose.append(word)
    for name, values in given.items():
        for value in values:
            _fitting(flags[name], value)
        if not values and not flags[name].several:
            raise BiwaaError(f"{flags[name].flag} needs {flags[name].metavar} after it, as in `{example}`.")
    if len(loose) > len(places) and not any(option.several for option in places):
        raise BiwaaError(
            f"`biwaa {command}` does not take the word {loose[len(places)]!r}: write it as in `{example}`."
        )
    needed = [option for option in options if option.default is MISSING and option.name not in given]
    lacking = [option for option in needed if not option.positional]
    lacking += [option for option in places[len(loose) :] if option in needed]
    if lacking and complete:
        words = " and ".join(f"{option.words} ({_lower(option.meaning)})" for option in lacking)
        raise BiwaaError(f"`biwaa {command}` needs {words}, as in `{example}`.")


def _fitting(option: Option, value: str) -> None:
    """Refuse a value that is no number where one is asked for, or not among the choices."""
    if option.choices and value not in option.choices:
        raise BiwaaError(f"{option.flag} is one of {', '.join(option.choices)}, not {value!r}.")
    kind = {"N": int, "X": float}.get(option.metavar.removesuffix(" .."))
    if kind is None or value == "None":
        return
    try:
        kind(value)
    except ValueError:
        raise BiwaaError(f"{option.flag} is a {'whole ' if kind is int else ''}number, not {value!r}.") from None


def _lower(meaning: str) -> str:
    """A meaning within a sentence; a first word in capitals keeps them."""
    return meaning if meaning[1:2].isupper() else meaning[:1].lower() + meaning[1:]


def _hint(command: str, name: str, known: Mapping[str, Option]) -> str:
    elsewhere = {asked: other for asked, other in ELSEWHERE.items() if other in known}
    found = name if name in elsewhere else next(iter(nearest(name, [*known, *elsewhere])), None)
    if found is None:
        return f"`biwaa {command} --help` lists those that it has."
    option = known[elsewhere.get(found, found)]
    counted = f"{command} counts steps of --batch-size images, not epochs; " if found == "epochs" else ""
    return f"{counted}did you mean {option.flag} ({_lower(option.meaning)})?"
