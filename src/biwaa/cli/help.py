"""What `--help` prints: at most 40 lines of 80 columns, each with an example. tyro's own help has twice the lines.

- every flag with its meaning and default comes from the command's signature and docstring, as tyro reads them
- a command with a recipe shows the settings of every day; `--help-all` shows them all, under the recipe's headings
- the site's command reference is made of the same
"""

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from biwaa.cli.metavars import ImagePaths
from biwaa.named_recipes import NAMED
from biwaa.version import __version__

WIDTH, COLUMN = 80, 22

Command = Callable[..., Any]
METAVARS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag, or a word without a flag."""

    name: str
    """Of the field or argument."""
    metavar: str
    """Placeholder for its value; empty for a flag that is on or off."""
    meaning: str
    default: Any
    """tyro.MISSING where it must be given."""
    positional: bool
    heading: str = ""
    """Of the group that a recipe's setting belongs to."""
    choices: tuple[str, ...] = ()
    """The only values that it takes; empty where others are taken too."""

    @property
    def several(self) -> bool:
        """Whether more than one value may follow."""
        return self.metavar.endswith("..")

    @property
    def flag(self) -> str:
        """`--data-root`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def words(self) -> str:
        """As it is typed: `--out PATH`."""
        if self.positional:
            return self.metavar
        return f"--[no-]{self.flag[2:]}" if self.default is True else f"{self.flag} {self.metavar}".strip()

    @property
    def default_words(self) -> str:
        """The default as it would be typed, or nothing."""
        if self.default is True:
            return "on"
        if self.default is tyro.MISSING or self.default is None or self.default is False:
            return ""
        return " ".join(map(str, self.default)) if isinstance(self.default, tuple | dict) else str(self.default)


PLUGIN = Option(
    "plugin", "FILE", "Python file that registers a method, backbone or benchmark", default=None, positional=False
)
"""A flag of every command, which `flags.common_flags` reads."""


def options(command: Command, start: Any = None, heading: str = "") -> list[Option]:
    """Every flag of a command or setting of a recipe, in order; those of groups last.

    Args:
        command: a function, or a dataclass of flags; groups of settings in it are dataclasses too.
        start: an instance of the dataclass that holds the defaults.
        heading: of a group's settings.
    """
    # Fields are described in the source, which has its docstrings even where Python strips them.
    parse = docstring_parser.parse_from_object if isinstance(command, type) else _parsed
    meanings = {part.arg_name: part.description or "" for part in parse(command).params}
    hints = get_type_hints(command, include_extras=True)
    found: list[Option] = []
    settings: list[Option] = []
    for name, parameter in inspect.signature(command).parameters.items():
        default = getattr(start, name) if start is not None else parameter.default
        default = tyro.MISSING if default is inspect.Parameter.empty else default
        if dataclasses.is_dataclass(default):
            group = type(default)
            settings += options(group, default, about(group)[0].removesuffix("."))
            continue
        meaning = " ".join(meanings[name].split()).removesuffix(".")
        meaning = meaning[:1].upper() + meaning[1:]
        if choices := _choices(hints[name]):
            meaning += f": {', '.join(choices)}"
        positional = _marks(ImagePaths)[-1] in _marks(hints[name])
        metavar, only = _metavar(hints[name]), () if "|" in _metavar(hints[name]) else tuple(choices)
        found.append(Option(name, metavar, meaning, default, positional, heading, only))
    return found + settings


def docstring(command: Command) -> str:
    """A command's docstring, from its source where Python was told to strip docstrings (-OO)."""
    found = inspect.getdoc(command) if sys.flags.optimize < 2 else None
    if found is None:
        node = ast.parse(textwrap.dedent(inspect.getsource(command))).body[0]
        assert isinstance(node, ast.FunctionDef | ast.ClassDef)
        found = ast.get_docstring(node)
    return found or ""


def _parsed(command: Command) -> docstring_parser.Docstring:
    return docstring_parser.parse(docstring(command))


def about(command: Command) -> tuple[str, str, str]:
    """A command's sentence, what else its docstring says, and its example."""
    text = docstring(command).split("\n\nArgs:")[0]
    sentence, _, rest = text.partition("\n\n")
    more, _, example = rest.rpartition("Example: ")
    return sentence, " ".join(more.split()), " ".join(example.split())


def usage(name: str, found: list[Option]) -> str:
    """What has to be typed at least."""
    needed = [option.words for option in found if option.positional or option.default is tyro.MISSING]
    return " ".join(["biwaa", name, *needed, "[flags]"])


def all_options(command: Command, recipe: str | None) -> list[Option]:
    """A command's flags; with a recipe's name also all settings as that recipe has them."""
    if recipe is None:
        return [*options(command), PLUGIN]
    from biwaa.recipe import Recipe, load_recipe  # brings torch

    start = command.starting_from(recipe)  # type: ignore[attr-defined]
    return [*options(command, start), PLUGIN, *options(Recipe, load_recipe(recipe), "Method and seed")]


def command_help(name: str, command: Command, recipe: str | None = None, every: bool = False) -> str:
    """The help of one command.

    Args:
        name: of the command.
        command: its function, or its dataclass of flags.
        recipe: whose settings are flags as well.
        every: all of a recipe's settings instead of those of every day.
    """
    found = all_options(command, recipe)
    sentence, more, example = about(command)
    settings = [option for option in found if option.heading]
    everyday = getattr(command, "EVERYDAY", ())
    shown = [option for option in found if every or not option.heading or option.name in everyday]
    lines = [usage(name, found), "", *textwrap.wrap(f"{sentence} {more}", WIDTH), f"Example: {example}", ""]
    heading = ""
    for option in shown:
        below = option.heading if every else option.heading and f"Settings, as in the recipe {recipe}"
        if below != heading:
            heading = below
            lines += ["", f"{heading}:"]
        lines += _columns(option)
    if settings and not every:
        lines += ["", f"`biwaa --help` explains SPEC; `biwaa {name} --help-all` lists all {len(settings)} settings."]
    return "\n".join(lines)


def overview(commands: Mapping[str, Command]) -> str:
    """`biwaa --help`."""
    lines = [f"biwaa {__version__}: from labelled images of one place and unlabelled images of another,"]
    lines += ["a classifier that works there, and how far to trust it.", ""]
    lines += [f"Example: {about(commands['train'])[2]}", ""]
    lines += [f"  {name:<10}{about(command)[0]}" for name, command in commands.items()]
    return "\n".join(lines) + EPILOGUE


EPILOGUE = f"""

SPEC is a folder of class folders, a folder of images (a target),
LIST.txt[@ROOT], TABLE.csv[@ROOT], FILE.npz:NAME, BENCHMARK:DOMAIN below
--data-root (office31:amazon, digits:plain ..), or hf:DATASET[?column=value].
Recipes: {", ".join(NAMED)}, or a YAML file.

`biwaa COMMAND --help` lists a command's flags. With --quiet, a command prints
only errors and results. `biwaa --completion bash` (or zsh) prints what a shell
needs to complete commands and flags; `biwaa --version` prints the version.
Exit codes: 0 done, 1 a threshold is not met (estimate), 2 something to fix,
130 interrupted, 143 terminated."""


def _columns(option: Option) -> list[str]:
    left = f"  {option.words}"
    default = f" [{option.default_words}]" if option.default_words else ""
    right = textwrap.wrap(option.meaning + default, WIDTH - COLUMN, break_on_hyphens=False) or [""]
    first = [left, " " * COLUMN + right[0]] if len(left) >= COLUMN else [f"{left:<{COLUMN}}{right[0]}"]
    return [*first, *(" " * COLUMN + line for line in right[1:])]


def _marks(hint: Any) -> tuple[Any, ...]:
    return tuple(getattr(hint, "__metadata__", ()))


def _metavar(hint: Any) -> str:
    for mark in _marks(hint):
        if getattr(mark, "metavar", None):
            return str(mark.metavar)
    if get_origin(hint) is Annotated:
        return _metavar(get_args(hint)[0])
    kinds = [kind for kind in get_args(hint) if kind not in (type(None), ...)]
    origin = get_origin(hint)
    if hint is bool:
        return ""
    if origin is Literal:
        return "NAME" if isinstance(kinds[0], str) else "N"
    if origin is tuple:
        return f"{_metavar(kinds[0])} .."
    if origin is dict:
        return "KEY VALUE .."
    if origin in (Union, types.UnionType):
        return "|".join(_metavar(kind) for kind in kinds)
    return METAVARS[hint]


def _choices(hint: Any) -> list[str]:
    """The values of a Literal, however it is wrapped."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    return [value for part in get_args(hint) for value in _choices(part)]
