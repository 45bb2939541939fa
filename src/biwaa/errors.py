"""The one error that people are meant to read."""


class BiwaaError(Exception):
    """Something the user can mend: what is wrong, where, and what to do, in one sentence.

    The command line prints it without a traceback and exits with code 2.
    Anything else that escapes is a bug.
    """


def printable(text: str) -> str:
    """One line that shows what is in it: control characters, marks that turn text around and stray bytes escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def listed(names: list[str], most: int = 5) -> str:
    """Join names for a message, naming at most `most` of them and counting the rest."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
