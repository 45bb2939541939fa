"""The error that users see, and the form of names in it."""

import difflib
import re
from collections.abc import Collection, Iterable

NEAR = 0.6  # Least similarity of a misspelling to what was meant, as `difflib` counts it
MOST = 300  # Letters that are shown of another library's error


class BiwaaError(Exception):
    """Something that the user can fix: what is wrong, where, and what to do, in one sentence.

    The command line prints it without a traceback and exits with code 2. Any other exception that reaches the user is
    a bug.
    """


def printable(text: str) -> str:
    """One line with all characters visible: control characters, marks of direction and stray bytes are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(error: BaseException) -> str:
    """What an error of another library says, on one line and cut short; its kind where it says nothing."""
    return " ".join(str(error).split())[:MOST] or type(error).__name__


def listed(names: list[str], most: int = 5) -> str:
    """Join names for a message: at most `most` of them, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def nearest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Known names of which `name` may be another spelling, the likeliest first, and of equal ones the first known.

    Case, hyphens, underscores and the like do not count; of names that differ in these alone the first known stands.
    """
    by_plain: dict[str, str] = {}
    for one in known:
        by_plain.setdefault(_plain(one), one)
    matcher = difflib.SequenceMatcher(b=_plain(name))
    scores: dict[str, float] = {}
    for plain, one in by_plain.items():
        matcher.set_seq1(plain)
        if matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR:
            scores[one] = matcher.ratio()
    return sorted(scores, key=lambda one: -scores[one])[:most]


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "", name.lower())


def choices(name: str, known: Collection[str]) -> str:
    """The end of an error about a name that is not `known`: the nearest one, and all there are."""
    near = nearest(name, known)
    return f"did you mean {near[0]!r}? There are {', '.join(known)}" if near else f"there are {', '.join(known)}"
