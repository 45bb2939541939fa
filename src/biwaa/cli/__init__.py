"""The command line: a command is a function, its signature the flags.

- settings of training are the fields of `Recipe`'s groups; flags win over the recipe that --recipe names
- what the user can fix ends in one sentence and exit code 2; an interrupt in 130, SIGTERM in 143
- torch is imported only once there is work for it
"""

import errno
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

from biwaa.cli.bench import PANEL, BenchFlags, bench
from biwaa.cli.evaluation import evaluate, export, predict, push
from biwaa.cli.help import Command, command_help, overview
from biwaa.cli.report import check, explain, report
from biwaa.cli.training import ZERO_SHOT, TrainFlags, demo, train, with_model
from biwaa.errors import BiwaaError, printable
from biwaa.files import cache_dir
from biwaa.progress import quiet
from biwaa.version import __version__

COMMANDS: dict[str, Command] = {
    "demo": demo, "train": TrainFlags, "check": check, "evaluate": evaluate, "predict": predict, "bench": BenchFlags,
    "report": report, "explain": explain, "export": export, "push": push,
}  # fmt: skip
"""What declares the flags: a function that takes them, or a class of flags that settings of a recipe join."""
WITH_RECIPE: dict[str, Callable[..., None]] = {"train": train, "bench": bench}
"""Commands that take a class of flags and a recipe."""

AFTER_INTERRUPT = {"train": "; `--resume` goes on from the last checkpoint", "bench": "; the same command goes on"}


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Read a command's flags and do it, or print its help.

    Raises:
        BiwaaError: anything that the user can fix.
        SystemExit: flags that it does not know.
    """
    command = COMMANDS[name]
    start = named_recipe(arguments, command.recipe) if name in WITH_RECIPE else None  # type: ignore[attr-defined]
    if {"-h", "--help", "--help-all"} & set(arguments):
        print(command_help(name, command, start, every="--help-all" in arguments))
    elif start:
        if name == "train" and ZERO_SHOT in arguments:
            arguments = with_model(arguments)
        WITH_RECIPE[name](*_with_settings(name, command, start, arguments))
    else:
        tyro.cli(command, args=arguments, prog=f"biwaa {name}")


def _with_settings(name: str, command: Any, start: str, arguments: Sequence[str]) -> tuple[Any, Any]:
    """A command's flags, and the recipe named `start` with the settings that are flags as well."""
    from biwaa.recipe import Recipe, load_recipe  # brings torch

    def read(recipe: str, settings: Recipe) -> tuple[Any, Any]:
        # Settings are flags by their own names, without their groups'.
        flat, default = (tyro.conf.OmitArgPrefixes,), (command.starting_from(recipe), settings)
        return tyro.cli(tuple[command, Recipe], args=arguments, prog=f"biwaa {name}", default=default, config=flat)

    found = read(start, load_recipe(start))
    if isinstance(found[0], BenchFlags) and found[0].suite == PANEL:  # it has defaults of its own
        from biwaa.bench.panel import panel_recipe

        start = named_recipe(arguments, "robust")
        found = read(start, panel_recipe(start))
    return found


def named_recipe(arguments: Sequence[str], default: str) -> str:
    """The recipe must be known before the flags can be read, since it sets their defaults."""
    named = default
    for here, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if here == "--recipe" and following:
            named = following
        if here.startswith("--recipe="):
            named = here.removeprefix("--recipe=")
    return named  # the last one, as with any flag


class _Terminated(KeyboardInterrupt):
    """Another process asked this one to end (SIGTERM)."""


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """SIGTERM unwinds as an interrupt does: drafts are removed, processes ended."""

    def end(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(overview(COMMANDS))
        return 0
    if words[0] == "--version":
        print(f"biwaa {__version__}")
        return 0
    if words[0] == "--completion":
        shell = words[1] if len(words) > 1 else "bash"
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="biwaa", args=["--tyro-print-completion", shell])
    silent = "--quiet" in words
    words = [word for word in words if word != "--quiet"]
    name, rest = words[0] if words else "", words[1:]
    os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))  # its list of fonts, too, stays in our cache
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # such an image is reported as unreadable
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    try:
        with quiet(silent), _ending_cleanly():
            if name not in COMMANDS:
                raise BiwaaError(f"no command {name!r}: there are {', '.join(COMMANDS)}.")
            run_command(name, rest)
    except BiwaaError as error:
        return _fail(f"error: {error}", 2)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the output's reader has gone; nothing to flush
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = AFTER_INTERRUPT.get(name, "") if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        return _fail(f"error: {where}{error.strerror or error}{full}.", 2)
    except _Terminated:
        return _fail(f"terminated{AFTER_INTERRUPT.get(name, '')}", 143)
    except KeyboardInterrupt:
        return _fail(f"interrupted{AFTER_INTERRUPT.get(name, '')}", 130)
    return 0


def _fail(text: str, code: int) -> int:
    print(f"biwaa: {printable(text)}", file=sys.stderr)
    return code


def entry() -> None:
    """The installed command."""
    sys.exit(main())
