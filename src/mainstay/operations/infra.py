"""Where a job must run: whether the fleet has that cluster."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import Stay
from mainstay.ports import Store


def require_known(store: Store, names: Iterable[str]) -> None:
    """Raises Invalid for a cluster that is not of the fleet, with the nearest spelling; the empty name is any."""
    asked = sorted(set(names) - {""})
    if not asked:
        return
    known = {row.name for row in store.clusters() if row.wanted is not Stay.REMOVED}
    for name in asked:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the fleet has: {', '.join(sorted(known)) or 'no cluster'}"
            msg = f"infra: there is no cluster {name!r}"
            raise Invalid(msg, object_="infra", hint=hint)
