"""A process that submits and places, and says what is acknowledged: python -m tests.integration.store.writer STATE DIE_AT."""

from __future__ import annotations

import os
import sys
import traceback
from itertools import count
from pathlib import Path

import sqlalchemy as sa

from mainstay.domain.plan import Submit
from mainstay.store import open_sqlite
from tests.stores import WHY, Scene, idempotency

KILLED = 137


def write(state: Path, *, die_at: int) -> None:
    """Four workloads; the process ends at this point of them: statements before and after, and commits. 0: at none."""
    scene, points = Scene(open_sqlite(state)), count(1)
    scene.fleet()

    def step(*_: object) -> None:
        if next(points) == die_at:
            os._exit(KILLED)

    for name in ("before_cursor_execute", "commit", "after_cursor_execute"):
        sa.event.listen(sa.Engine, name, step)
    for number in range(4):
        work = scene.new(id=f"train-{number}")
        scene.commit(Submit(workload=work, reason=WHY), atomic=True, idempotency=idempotency(str(number)))
        step()
        print(work.id, flush=True)
        scene.commit(scene.allocate(scene.workload(work.id)))


def forked(state: Path, *, die_at: int) -> tuple[int, list[str]]:
    """The same in a process that has imported everything already; its exit code, and what was acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            sys.stdout = os.fdopen(writing, "w")
            write(state, die_at=die_at)
            code = 0
        except Exception:  # noqa: BLE001 - the fork ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as told:
        acknowledged = told.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), acknowledged


if __name__ == "__main__":
    write(Path(sys.argv[1]), die_at=int(sys.argv[2]))
