"""What a container says of its own end is told without what its pod was handed, by whichever replica looks."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.pods import DEAD_MAN_WORDS
from mainstay.domain.allocation import End, Seen
from mainstay.domain.errors import Unavailable
from mainstay.domain.secret import SecretUse
from tests.clusters import OWNER
from tests.unit.clusters.kubernetes.test_cluster_faults import POD, Bed, bed, creation

__all__ = ["bed"]
USES = (SecretUse(name="hf-token"),)
VALUE = b"canary-3d0e"


async def spoken(bed: Bed) -> None:
    """A pod was handed a secret, and ends with words of its own that quote it; the secret has been changed since."""
    bed.drawer.values["hf-token"], bed.drawer.pods[POD] = VALUE, (OWNER, USES)
    await bed.act(creation(secrets=USES))
    await bed.drawer.of(POD, owner=OWNER)
    bed.drawer.values["hf-token"] = b"another"
    bed.server.run(POD)
    await bed.settle()
    said = f"{DEAD_MAN_WORDS} {VALUE.decode()} {'x' * 750} {VALUE.decode() * 9}"
    ended = {"exitCode": 1, "startedAt": bed.server.stamp(), "finishedAt": bed.server.stamp(), "message": said}
    main: dict[str, Any] = {"name": names.MAIN, "state": {"terminated": ended}}
    bed.server.status(POD, phase="Failed", containerStatuses=[main])


async def test_a_termination_message_is_masked_also_where_it_is_cut_off_and_by_a_replica_that_handed_nothing(bed: Bed):
    await spoken(bed)
    for cluster in (bed.cluster, bed.fresh(), bed.fresh()):
        bed.cluster = cluster
        state = await bed.state()
        assert state is not None
        assert (state.seen, state.end) == (Seen.ENDED, End.LOST)
        assert state.detail.startswith(f"{DEAD_MAN_WORDS} *********** xxx")
        assert "cana" not in state.detail


async def test_what_has_not_changed_is_the_same_object_again_and_is_not_asked_for(bed: Bed):
    await spoken(bed)
    first = await bed.cluster.observe()
    await bed.settle()
    first = await bed.cluster.observe()
    bed.drawer.pods.clear()
    assert (await bed.cluster.observe()).pods is first.pods


async def test_of_a_pod_that_is_not_on_record_no_words_are_passed_on(bed: Bed):
    await spoken(bed)
    bed.drawer.pods.clear()
    state = await bed.state()
    assert state is not None
    assert (state.end, state.detail) == (End.LOST, "")


async def test_nothing_is_reported_while_nobody_can_tell_what_a_pod_was_handed(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
):
    await spoken(bed)
    await bed.settle()

    async def away(*_: object, **__: object) -> None:
        raise Unavailable(POD)

    with monkeypatch.context() as patched:
        patched.setattr(type(bed.drawer), "handed", away)
        with pytest.raises(Unavailable):
            await bed.cluster.observe()
    state = await bed.state()
    assert state is not None
    assert "cana" not in state.detail
