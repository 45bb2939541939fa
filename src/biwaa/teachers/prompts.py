"""From names of classes to texts that a zero-shot model compares images with.

- folder names become words: underscores, CamelCase and numbering go; what came of them is shown and can be corrected
- a classes file gives a class other words, several names, or whole prompts
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from biwaa.errors import BiwaaError, listed, one_line
from biwaa.files import expanded
from biwaa.progress import say

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
MARK = "{}"
"""Where a prompt's template takes the name."""
Texts = dict[str, tuple[str, ...]]  # Class -> names, or whole prompts
SHOWN = 12  # Classes whose words are shown


def in_words(name: str) -> str:
    """A folder's name as words: 001.Desk_Lamp -> desk lamp, ToothBrush -> tooth brush, TV -> TV, 7 -> seven."""
    if name.isdigit() and int(name) < len(DIGITS):
        return DIGITS[int(name)]
    text = re.sub(r"^\d+[\s._-]+(?=\S)", "", name)  # the class's number in front of its name
    text = re.sub(r"[\s._-]+", " ", text)
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    words = text.split()
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words) or name


def read_entries(given: str) -> list[Any] | dict[str, Any]:
    """The value of --classes: names with commas between them, a .txt file with one a line, or a YAML file.

    The YAML file holds class names, or a mapping from each to what stands for it. All of it may stand under `classes:`.

    Returns:
        Names in their order, an empty one for an empty line; or class -> what stands for it.

    Raises:
        BiwaaError: no such file, or it holds something else.
    """
    path = expanded(given)
    kind = path.suffix.lower()
    if kind not in (".yaml", ".yml", ".txt"):
        names = [name.strip() for name in given.split(",")]
        if not all(names):
            raise BiwaaError(f"--classes {given[:200]} has an empty name: write cat,dog or name a .txt or .yaml file.")
        return list(names)
    try:
        text = path.read_text(encoding="utf-8-sig")
        held = [line.strip() for line in text.rstrip().splitlines()] if kind == ".txt" else yaml.safe_load(text)
    except OSError as error:
        raise BiwaaError(f"no such file of classes: {path} ({error.strerror}).") from None
    except Exception as error:  # on hostile text the reader raises what it likes
        what = "text in UTF-8" if kind == ".txt" else "YAML"
        raise BiwaaError(f"{path} is not readable as {what}: {one_line(error)}.") from None
    if isinstance(held, dict) and set(held) == {"classes"}:
        held = held["classes"]
    if not isinstance(held, list | dict) or not held:
        raise BiwaaError(f"{path} must hold a list of classes, or lines `class: its name`.")
    return {str(name): value for name, value in held.items()} if isinstance(held, dict) else held


def read_classes(given: str) -> dict[str, Any]:
    """The value of --classes where images have words: class -> its words, None where there are none.

    Words are a name, a list of names, or `prompts:` with whole texts.

    Raises:
        BiwaaError: as of `read_entries`, or a class is named twice.
    """
    held = read_entries(given)
    if isinstance(held, dict):
        return held
    names = [str(name) for name in held if name not in ("", None)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BiwaaError(f"--classes names {twice[0]} twice: name each class once.")
    return dict.fromkeys(names)


def texts(classes: Sequence[str], given: Mapping[str, Any], templates: Sequence[str]) -> Texts:
    """All texts that each class is compared with.

    Args:
        classes: of the run.
        given: as of `read_classes`; classes that it lacks get the words of their own name.
        templates: with `{}` for the name.

    Raises:
        BiwaaError: a template without its mark, a class that the run does not have, or something that is no text.
    """
    if bad := [template for template in templates if MARK not in template]:
        raise BiwaaError(f"the prompt {bad[0]!r} has no {MARK} for the class's name: write 'a photo of a {MARK}'.")
    if extra := [name for name in given if name not in classes]:
        raise BiwaaError(f"--classes names {listed(extra)}, and the source's classes are {listed(list(classes))}.")
    found: Texts = {}
    spoken = []
    for name in classes:
        value = given.get(name)
        if isinstance(value, dict) and set(value) == {"prompts"}:
            found[name] = _strings(name, value["prompts"])
        else:
            names = (in_words(name),) if value is None else _strings(name, value)
            found[name] = tuple(template.replace(MARK, word) for word in names for template in templates)
            if names != (name,):
                spoken.append(f"{name}: {' / '.join(names)}")
    if spoken:
        say(f"classes as the model reads them (--classes FILE.yaml corrects them): {listed(spoken, SHOWN)}")
    if numbered := [name for name in classes if re.fullmatch(r"n?\d{3,}", name) and not given.get(name)]:
        say(f"{listed(numbered)} are no words: give them names with --classes FILE.yaml")
    return found


def _strings(name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(one, str | int | float) and str(one).strip() for one in values):
        raise BiwaaError(f"the class {name} must have a name, a list of names, or `prompts:` with a list of texts.")
    return tuple(str(one) for one in values)
