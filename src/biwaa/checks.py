"""Ranges of settings, each refused in one sentence."""

from typing import Any

from biwaa.errors import BiwaaError


def at_least(settings: Any, least: float, *names: str, above: bool = False) -> None:
    """Refuse numbers below `least`, or equal to it where they must be `above`; None counts as unset."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and above and not value > least:
            raise BiwaaError(f"{name} must be above {least:g}, not {value}.")
        if value is not None:
            not_below(least, **{name: value})


def not_below(least: float, **values: float) -> None:
    """Refuse values below `least`, each by its name."""
    for name, value in values.items():
        if not value >= least:
            raise BiwaaError(f"{name} must be at least {least:g}, not {value}.")


def between(settings: Any, low: float, high: float, *names: str) -> None:
    """Refuse numbers outside [low, high]."""
    for name in names:
        value = getattr(settings, name)
        if not low <= value <= high:
            raise BiwaaError(f"{name} must lie between {low:g} and {high:g}, not {value}.")
