"""The command line: a command is a function, its signature the flags.

- settings of training are the fields of `Recipe`'s groups; flags win over the recipe that --recipe names
- what the user can fix ends in one sentence and exit code 2; an interrupt in 130, SIGTERM in 143; a threshold that is
  not met in 1
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
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from biwaa.cli.bench import PANEL, BenchFlags, bench
from biwaa.cli.cache import cache
from biwaa.cli.evaluation import estimate, evaluate, export, predict, push
from biwaa.cli.flags import common_flags, known_flags_only, values_that_fit, with_switches
from biwaa.cli.help import Command, about, all_options, command_help, overview
from biwaa.cli.labels import suggest
from biwaa.cli.report import check, explain, report
from biwaa.cli.training import ZERO_SHOT, TrainFlags, demo, resumed, train, with_model
from biwaa.errors import BiwaaError, choices, printable
from biwaa.files import cache_dir, local
from biwaa.progress import quiet
from biwaa.registry import load_plugin_file
from biwaa.version import __version__

COMMANDS: dict[str, Command] = {
    "demo": demo, "train": TrainFlags, "check": check, "evaluate": evaluate, "estimate": estimate,
    "suggest": suggest, "predict": predict, "bench": BenchFlags, "report": report, "explain": explain,
    "export": export, "push": push, "cache": cache,
}  # fmt: skip
"""What declares the flags: a function that takes them, or a class of flags that settings of a recipe join."""
WITH_RECIPE: dict[str, Callable[..., None]] = {"train": train, "bench": bench}
"""Commands that take a class of flags and a recipe."""


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Read a command's flags and do it, or print its help.

    Raises:
        BiwaaError: anything that the user can fix.
        SystemExit: flags that it does not know.
    """
    command = COMMANDS[name]
    start, folder = None, None
    if name in WITH_RECIPE:
        folder = _resumed(name, arguments)
        start = named(arguments, "--recipe", str(folder / "recipe.yaml") if folder else command.recipe)  # type: ignore[attr-defined]
    if {"-h", "--help", "--help-all"} & set(arguments):
        print(command_help(name, command, start, every="--help-all" in arguments))
        return
    arguments = with_switches(arguments) if start else arguments
    every = all_options(command, start)
    known_flags_only(name, arguments, every)
    if name == "train" and ZERO_SHOT in arguments:
        arguments = with_model(arguments)
    values_that_fit(name, arguments, every, about(command)[2], complete=folder is None)
    if start:
        WITH_RECIPE[name](*_with_settings(name, command, start, arguments, folder))
    else:
        tyro.cli(command, args=arguments, prog=f"biwaa {name}")


def _resumed(name: str, arguments: Sequence[str]) -> Path | None:
    """The folder of the run that training goes on with, where that is asked for and it holds one.

    Raises:
        BiwaaError: it holds none, and the command does not say what to train on.
    """
    out = named(arguments, "--out", "")
    if name != "train" or "--resume" not in arguments or not out:
        return None
    folder = local(Path(out))
    if all((folder / file).is_file() for file in ("recipe.yaml", "run.json")):
        return folder
    if not named(arguments, "--source", ""):
        raise BiwaaError(f"{folder} holds no run to go on with: name --source and --target to start one there.")
    return None


def _with_settings(
    name: str, command: Any, start: str, arguments: Sequence[str], folder: Path | None = None
) -> tuple[Any, Any]:
    """A command's flags, and the recipe named `start` with the settings that are flags as well.

    Args:
        name: of the command.
        command: its class of flags.
        start: name of the recipe.
        arguments: the words after the command's name.
        folder: of the run that goes on, whose images need not be named again.
    """
    from biwaa.recipe import Recipe, load_recipe  # brings torch

    def read(recipe: str, settings: Recipe) -> tuple[Any, Any]:
        # Settings are flags by their own names, without their groups'.
        flags = command.starting_from(recipe)
        flags = resumed(flags, folder) if folder else flags
        if named(arguments, "--source", ""):  # given sources take the place of the run's own, and are not added to them
            flags = replace(flags, source=())
        flat, default = (tyro.conf.OmitArgPrefixes,), (flags, settings)
        return tyro.cli(tuple[command, Recipe], args=arguments, prog=f"biwaa {name}", default=default, config=flat)

    found = read(start, load_recipe(start))
    if isinstance(found[0], BenchFlags) and found[0].suite == PANEL:  # it has defaults of its own
        from biwaa.bench.panel import panel_recipe

        start = named(arguments, "--recipe", "robust")
        found = read(start, panel_recipe(start))
    return found


def named(arguments: Sequence[str], flag: str, default: str) -> str:
    """A flag's value: recipe and run folder must be known before the flags are read, since they set defaults."""
    found = default
    for here, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if here == flag and following:
            found = following
        if here.startswith(f"{flag}="):
            found = here.removeprefix(f"{flag}=")
    return found  # the last one, as with any flag


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
    _open_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in words if word in COMMANDS), "")
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # such an image is reported as unreadable
    try:
        # Its list of fonts, too, stays in our cache.
        os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))
        with _ending_cleanly():
            _obey(words)
            sys.stdout.flush()  # a reader that has gone is noticed here
    except BiwaaError as error:
        return _fail(f"error: {error}", 2)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - the output's reader has gone; nothing to flush
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        then = _what_then(name, error) if full else ": check the path and its permissions" if where else ""
        return _fail(f"error: {where}{error.strerror or error}{then}.", 2)
    except _Terminated as end:
        return _fail(f"terminated{_what_then(name, end)}", 143)
    except KeyboardInterrupt as end:
        return _fail(f"interrupted{_what_then(name, end)}", 130)
    return 0


def _obey(words: Sequence[str]) -> None:
    """Do what the words of the command line say."""
    silent, plugins, words = common_flags(words)
    if not words or words[0] in ("-h", "--help"):
        print(overview(COMMANDS))
    elif words[0] == "--version":
        print(f"biwaa {__version__}")
    elif words[0] == "--completion":
        shell = words[1] if len(words) > 1 else "bash"
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="biwaa", args=["--tyro-print-completion", shell])
    elif words[0] not in COMMANDS:
        raise BiwaaError(f"no command {words[0]!r}: {choices(words[0], COMMANDS)}.")
    else:
        with quiet(silent):
            for file in plugins:
                load_plugin_file(file)
            run_command(words[0], words[1:])


def _open_streams() -> None:
    """Have standard output and error to write to, also where the caller has closed them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets this number, which a file that is opened later must not get
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 - as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show


def _what_then(name: str, ended: BaseException) -> str:
    """How a command that ended early goes on: as the error's notes say, where it has any."""
    notes = [*getattr(ended, "__notes__", ()), *(["the same command goes on"] if name == "bench" else [])]
    return "".join(f"; {note}" for note in notes)


def _fail(text: str, code: int) -> int:
    print(f"biwaa: {printable(text)}", file=sys.stderr)
    return code


def entry() -> None:
    """The installed command."""
    sys.exit(main())
