"""`biwaa cache`: where the cache is, what lies in it, and emptying it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from biwaa.images.cache import Entry


def cache(clear: bool = False, older_than: float | None = None) -> None:
    """Show the cache of decoded images and features, or empty it.

    What is removed is computed anew by the next run that needs it. What a running process uses is kept.

    Example: biwaa cache --clear --older-than 30

    Args:
        clear: remove what is listed.
        older_than: only what no run has used for so many days.
    """
    from biwaa.files import cache_dir
    from biwaa.images import cache as store

    found = store.entries()
    print(f"{cache_dir()}: {_amount(found)} (BIWAA_CACHE names another folder)")
    for kind, count, size in store.summed(found):
        print(f"  {kind:<18}{count:>6}{_bytes(size):>12}")
    chosen = found if older_than is None else store.older(found, older_than)
    unused = "" if older_than is None else f", not used for {older_than:g} days"
    if clear:
        removed, kept = store.clear(chosen)
        print(f"removed {_amount(removed)}{unused}")
        if kept:
            print(f"kept {_amount(kept)} that a running process uses, or that cannot be removed")
    elif chosen:
        flags = "--clear" if older_than is None else f"--clear --older-than {older_than:g}"
        print(f"`biwaa cache {flags}` would remove {_amount(chosen)}{unused}; runs that need it compute it anew")


def _amount(found: "Sequence[Entry]") -> str:
    many = f"{len(found)} {'entry' if len(found) == 1 else 'entries'}"
    return f"{many}, {_bytes(sum(entry.size for entry in found))}"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
