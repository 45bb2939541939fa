"""Which image a path names: the one that is called so, or the only one whose path ends alike."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath


def places(wanted: Sequence[str], names: Sequence[str]) -> list[int | None]:
    """Where each of `wanted` stands among `names`; None for one that is not there, or fits several.

    One of the two may be the longer: `run/1.png` fits `/data/run/1.png`, and the other way round.
    """
    if not wanted:
        return []
    exact = {name: place for place, name in enumerate(names)}
    found = [exact.get(name) for name in wanted]
    if None not in found:
        return found
    tails = defaultdict(list)
    for place, name in enumerate(names):
        tails[PurePath(name).name].append(place)
    return [
        _by_tail(name, names, tails[PurePath(name).name]) if place is None else place
        for name, place in zip(wanted, found, strict=True)
    ]


def _by_tail(name: str, names: Sequence[str], candidates: Sequence[int]) -> int | None:
    parts, fitting = PurePath(name).parts, list[int]()
    for place in candidates:
        others = PurePath(names[place]).parts
        length = min(len(parts), len(others))
        if length and parts[-length:] == others[-length:]:
            fitting.append(place)
    return fitting[0] if len(fitting) == 1 else None
