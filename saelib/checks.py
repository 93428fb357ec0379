"""Numbers are checked where they come in, by name; numpy's and torch's are numbers too."""

from __future__ import annotations

import math
from collections.abc import Sized
from numbers import Integral
from operator import index

import numpy as np

LARGEST = 2**53  # beyond it floats have gaps


def whole(name: str, value: object, least: int = 1, most: int = LARGEST) -> int:
    """The whole number `value` in least..most; raises ValueError for anything else."""
    try:
        found = index(None if isinstance(value, bool) else value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if not least <= found <= most:
        span = f"at least {least}" if found < least and most == LARGEST else f"in {least}..{most}"
        raise ValueError(f"{name} must be {span}, not {found}")
    return found


def one_each(what: str, given: Sized, n: int) -> None:
    """Raise ValueError where there is not one of `given` for each of n texts."""
    if len(given) != n:
        raise ValueError(f"{len(given)} {what} for {n} texts: give one for each")


def number(name: str, value: object, most: float | None = None, zero: bool = False) -> float:
    """The finite number `value`, positive (or not negative, with `zero`) and at most `most`."""
    try:
        found = float(None if isinstance(value, (bool, np.bool_, str, bytes)) else value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(found) or found < 0 or (found == 0 and not zero):
        raise ValueError(
            f"{name} must {'not be negative' if zero else 'be positive'} and finite, but is {found}"
        )
    if most is not None and found > most:
        raise ValueError(f"{name} must be at most {most}, not {found}")
    return index(value) if isinstance(value, Integral) and found < LARGEST else found
