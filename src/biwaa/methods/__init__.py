"""Adaptation methods by name. A new one is a file with a `Method` and a line here."""

from biwaa.errors import BiwaaError
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.dann import Dann
from biwaa.methods.method import Method
from biwaa.methods.source_only import SourceOnly

METHODS: dict[str, type[Method]] = {"biwaa": Biwaa, "dann": Dann, "source_only": SourceOnly}


def method_named(name: str) -> type[Method]:
    """Look a method up.

    Raises:
        BiwaaError: there is none of that name.
    """
    if name not in METHODS:
        raise BiwaaError(f"no method is called {name!r}: there are {', '.join(METHODS)}.")
    return METHODS[name]
