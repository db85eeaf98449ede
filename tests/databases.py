"""Empty databases whose schema is there already: making it takes ten times as long as copying it."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from mainstay.store import SqlStore, open_sqlite


def empty_sqlite(path: Path, *, durable: bool = False) -> SqlStore:
    """A store in a new file. All of a test process are of the same system: who needs two opens one by itself."""
    shutil.copyfile(_with_schema(), path)
    return open_sqlite(path, durable=durable)


@functools.cache
def _with_schema() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mainstay-schema-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    open_sqlite(folder / "mainstay.db", durable=False).close()
    return folder / "mainstay.db"
