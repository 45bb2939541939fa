"""Methods, backbones and benchmarks by name: biwaa's own and those that other packages register.

A package names its module in its pyproject.toml; biwaa imports that module when it meets a name that it does not know:

    [project.entry-points."biwaa.plugins"]
    mine = "my_package.my_module"
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from biwaa.errors import BiwaaError

GROUP = "biwaa.plugins"
T = TypeVar("T")
E = TypeVar("E")


class Registry(Mapping[str, T]):
    """Entries of one kind; an unknown name makes it load the plugins."""

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
            near = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"did you mean {near[0]!r}? There are" if near else "there are"
            raise BiwaaError(f"no {self.kind} is called {name!r}: {hint} {', '.join(self._entries)}.")
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
