"""Inner loops over arrays, compiled where Numba is installed (`pip install mainstay[fast]`); without it Python runs the same lines.

What is compiled here keeps to whole numbers, floats and arrays, walks them in plain loops, and is tested both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

try:
    import numba
except ImportError:
    numba = None

P = ParamSpec("P")
T = TypeVar("T")

IS_COMPILED = numba is not None


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """The same function as machine code, made at its first call and kept on disk, where a directory for that can be written."""
    if numba is None:
        return function
    try:
        fast: Callable[P, T] = numba.njit(cache=True)(function)
    except RuntimeError:  # There is no such directory: each process compiles for itself.
        fast = numba.njit(function)
    return fast
