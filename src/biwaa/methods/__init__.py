"""Adaptation methods by name. A new one is a file with a `Method` and a line here; outside, `register_method`."""

from collections.abc import Callable

from biwaa.errors import BiwaaError
from biwaa.methods.biwaa import Biwaa
from biwaa.methods.bnm import Bnm
from biwaa.methods.cdan import Cdan, CdanE
from biwaa.methods.dan import Dan
from biwaa.methods.dann import Dann
from biwaa.methods.deep_coral import DeepCoral
from biwaa.methods.fixmatch import FixMatch
from biwaa.methods.linear_probe import LinearProbe
from biwaa.methods.mcc import Mcc
from biwaa.methods.mdd import Mdd
from biwaa.methods.method import Method
from biwaa.methods.mstn import Mstn
from biwaa.methods.pace import Pace
from biwaa.methods.self_training import SelfTraining
from biwaa.methods.source_only import SourceOnly
from biwaa.plugins import load_plugins

METHODS: dict[str, type[Method]] = {
    "biwaa": Biwaa,
    "source_only": SourceOnly,
    "linear_probe": LinearProbe,
    "dann": Dann,
    "cdan": Cdan,
    "cdan_e": CdanE,
    "mdd": Mdd,
    "mstn": Mstn,
    "mcc": Mcc,
    "bnm": Bnm,
    "deep_coral": DeepCoral,
    "dan": Dan,
    "self_training": SelfTraining,
    "pace": Pace,
    "fixmatch": FixMatch,
}


BUILT_IN = frozenset(METHODS)


def register_method(name: str) -> Callable[[type[Method]], type[Method]]:
    """Decorate a subclass of `Method`, so that `method=NAME` trains it.

    Raises:
        BiwaaError: the name is one of biwaa's own.
    """
    if name in BUILT_IN:
        raise BiwaaError(f"the method {name!r} exists already: register yours under another name.")

    def register(method: type[Method]) -> type[Method]:
        METHODS[name] = method
        return method

    return register


def method_named(name: str) -> type[Method]:
    """Look a method up.

    Raises:
        BiwaaError: there is none of that name.
    """
    if name not in METHODS:
        load_plugins()
    if name not in METHODS:
        raise BiwaaError(f"no method is called {name!r}: there are {', '.join(METHODS)}.")
    return METHODS[name]
