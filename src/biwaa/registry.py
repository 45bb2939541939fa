"""Methods, backbones and benchmarks by name: biwaa's own and those that others register.

- a file that `--plugin` names is run before anything else is done, in this process and in those that it starts
- a package names its module in its pyproject.toml; biwaa imports it when it meets a name that it does not know:

    [project.entry-points."biwaa.plugins"]
    mine = "my_package.my_module"
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, TypeVar

from biwaa.errors import BiwaaError, choices
from biwaa.files import expanded

GROUP = "biwaa.plugins"
T = TypeVar("T")
E = TypeVar("E")


class Registry(Mapping[str, T]):
    """Entries of one kind; an unknown name makes it load the plugins."""

    added: ClassVar[int] = 0
    """Entries that were added to registries of any kind, so that a plug-in that adds none is noticed."""

    def __init__(self, kind: str, built_in: Mapping[str, T]) -> None:
        """Start with biwaa's own entries; `kind` names them in errors."""
        self.kind = kind
        self.built_in = frozenset(built_in)
        self._entries = dict(built_in)

    def __getitem__(self, name: str) -> T:
        """Look an entry up.

        Raises:
            BiwaaError: there is none of that name.
        """
        if name not in self._entries:
            load_plugins()
        if name not in self._entries:
            known = choices(name, self._entries)
            raise BiwaaError(f"no {self.kind} is called {name!r}: {known}; --plugin FILE adds your own.")
        return self._entries[name]

    def find(self, name: str) -> T | None:
        """The entry; None of a plug-in that is not installed here."""
        try:
            return self[name]
        except BiwaaError:
            return None

    def __iter__(self) -> Iterator[str]:
        """Names, biwaa's own first."""
        return iter(self._entries)

    def __len__(self) -> int:
        """How many are known so far."""
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Whether it is known so far; plugins are not loaded for it."""
        return name in self._entries

    def add(self, name: str, entry: T) -> None:
        """Register an entry; a name that was registered before gets the new one.

        Raises:
            BiwaaError: the name is one of biwaa's own.
        """
        self._check_free(name)
        self._entries[name] = entry
        Registry.added += 1

    def register(self, name: str) -> Callable[[E], E]:
        """A decorator that adds the decorated object.

        Raises:
            BiwaaError: the name is one of biwaa's own.
        """
        self._check_free(name)

        def decorate(entry: E) -> E:
            self.add(name, entry)  # type: ignore[arg-type]
            return entry

        return decorate

    def _check_free(self, name: str) -> None:
        if name in self.built_in:
            raise taken(self.kind, name)


def taken(kind: str, name: str) -> BiwaaError:
    """The error for a name that cannot be registered."""
    return BiwaaError(f"the {kind} {name!r} exists already: register yours under another name.")


@cache
def load_plugins() -> None:
    """Import the modules that installed packages list under the group, once.

    Raises:
        BiwaaError: one cannot be imported.
    """
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # another package's code may raise anything
            what = f"the plugin {entry.name} = {entry.value} cannot be imported"
            raise BiwaaError(f"{what} ({type(error).__name__}: {error}): fix or uninstall it.") from error


_FILES: list[Path] = []  # What `load_plugin_file` has run in this process


def load_plugin_file(path: Path) -> None:
    """Run a Python file that registers methods, backbones or benchmarks; once, however often it is asked for.

    Raises:
        BiwaaError: there is no such file, it raises an error (the message has its line), or it registers nothing.
    """
    file = expanded(path).resolve()
    if file in _FILES:
        return
    name = f"biwaa_plugin_{len(_FILES)}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise BiwaaError(f"--plugin {path}: there is no such Python file; its name ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and others look their module up
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # for modules beside it, after all others
    before = Registry.added
    try:
        spec.loader.exec_module(module)
    except BiwaaError as error:
        raise BiwaaError(f"{path}: {error}") from error
    except Exception as error:  # anybody's code may raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}, line {line}" if line else str(path)
        raise BiwaaError(f"{where}: the plug-in cannot be run ({type(error).__name__}: {error}).") from error
    if Registry.added == before:
        raise BiwaaError(
            f"{path} registers nothing: put @biwaa.register_method(NAME), or register_backbone or register_benchmark, "
            "into it."
        )
    _FILES.append(file)


def plugin_files() -> tuple[Path, ...]:
    """The files that were run in this process; those that it starts have to run them too."""
    return tuple(_FILES)
