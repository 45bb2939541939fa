"""The error that users see, and the form of names in it."""


class BiwaaError(Exception):
    """Something that the user can fix: what is wrong, where, and what to do, in one sentence.

    The command line prints it without a traceback and exits with code 2. Any other exception that reaches the user is
    a bug.
    """


def printable(text: str) -> str:
    """One line with all characters visible: control characters, marks of direction and stray bytes are escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def listed(names: list[str], most: int = 5) -> str:
    """Join names for a message: at most `most` of them, and the number of the others."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
