"""The kernel as machine code where there is much to do, and as the plain lines that it is where there is little.

Numba (`pip install mainstay[fast]`) takes a second and 60 MiB to be there at all, so a small fleet never loads it. The kernel
keeps to whole numbers, floats and arrays that it is given, walks them in plain loops, and is tested both ways.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from mainstay.decide import columns, kernel

STEPS_MAX = 300_000
"""Nodes looked at, as plain lines: about as long as machine code takes to be read from disk."""


def kernel_for(steps: int) -> ModuleType:
    """The kernel for so many steps: as machine code if they are many, or if it is there anyway."""
    return machine_code() if steps > STEPS_MAX or machine_code.cache_info().currsize else kernel


@functools.cache
def machine_code() -> ModuleType:
    """The same functions, each compiled at its first call and kept on disk, where a directory for that can be written.

    Without Numba it is the kernel itself.
    """
    try:
        import numba
    except ImportError:
        return kernel
    spec = importlib.util.spec_from_file_location(f"{kernel.__name__}_compiled", kernel.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # What is kept on disk names the module that it belongs to; without, it cannot be read.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    sources = kernel.__file__, columns.__file__, __file__
    digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()[:16]
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__:
            # And is found by this name: what another version kept speaks of tuples that may not be there any more.
            function.__qualname__ = f"{name}_{digest}"
            # Whoever calls keeps the arrays, and nothing makes one here: that each call counts all of them as used, and then as
            # used no more, took more time than all the rest (`_nrt` is Numba's option for that).
            options = {"no_cpython_wrapper": name.startswith("_"), "no_cfunc_wrapper": True, "_nrt": False}
            try:
                fast = numba.njit(cache=True, **options)(function)
            except RuntimeError:  # There is no such directory: each process compiles for itself.
                fast = numba.njit(**options)(function)
            setattr(module, name, fast)
    return module
