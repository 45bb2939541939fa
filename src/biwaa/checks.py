"""Ranges of settings, each refused in one sentence."""

from typing import Any

from biwaa.errors import BiwaaError


def at_least(settings: Any, least: float, *names: str, above: bool = False) -> None:
    """Refuse numbers below `least`, or equal to it where they must be `above`; None counts as unset."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (value > least if above else value >= least):
            raise BiwaaError(f"{name} must be {'above' if above else 'at least'} {least:g}, not {value}.")


def between(settings: Any, low: float, high: float, *names: str) -> None:
    """Refuse numbers outside [low, high]."""
    for name in names:
        value = getattr(settings, name)
        if not low <= value <= high:
            raise BiwaaError(f"{name} must lie between {low:g} and {high:g}, not {value}.")
