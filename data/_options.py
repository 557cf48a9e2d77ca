"""Checks the options of a data set, and says which values there are."""

from __future__ import annotations

from collections.abc import Iterable

from ftkit.errors import SettingError


def one_of(option: str, value: str, allowed: Iterable[str]) -> None:
    """Raise SettingError when a value of an option is not among those allowed."""
    if value not in allowed:
        raise SettingError(f"{option}={value!r}: expected one of {', '.join(map(repr, allowed))}.")


def in_range(option: str, value: int, low: int, high: int) -> None:
    """Raise SettingError when a number is below `low` or above `high`."""
    if not low <= value <= high:
        raise SettingError(f"{option}={value}: expected a number from {low} to {high}.")
