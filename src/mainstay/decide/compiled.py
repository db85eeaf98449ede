"""Inner loops over arrays, compiled where Numba is installed (`pip install mainstay[fast]`); else Python runs the same lines.

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


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """The same function as machine code, made at its first call and kept on disk, where a directory for that can be written."""
    return _compiled(function, called_by_python=True)


def inner(function: Callable[P, T]) -> Callable[P, T]:
    """The same for a function that is called by compiled ones only."""
    return _compiled(function, called_by_python=False)


def _compiled(function: Callable[P, T], *, called_by_python: bool) -> Callable[P, T]:
    if numba is None:
        return function
    options = {"no_cpython_wrapper": not called_by_python, "no_cfunc_wrapper": True}
    fast: Callable[P, T]
    try:
        fast = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # There is no such directory: each process compiles for itself.
        fast = numba.njit(**options)(function)
    return fast
