"""All loops of a process, and how they run side by side. No business rule lives here."""

from __future__ import annotations

import asyncio

import structlog

from mainstay.control import decisions
from mainstay.control.anchoring import Anchoring
from mainstay.control.decisions import DECISIONS, Decision
from mainstay.control.fleet import Fleet
from mainstay.control.loop import Due, Loop, forever
from mainstay.control.member import Member
from mainstay.control.resealing import Resealing
from mainstay.control.tenure import Tenure
from mainstay.control.webhooks import Teller
from mainstay.domain.errors import Fenced
from mainstay.operations.services import Services
from mainstay.ports import Cluster

log = structlog.get_logger()


def loops(services: Services, *, holder: str) -> tuple[Loop, ...]:
    """Every loop of this process: one per decision, one per cluster that it brought along, one that tells webhooks, one that
    seals anew, one that anchors the audit, and the one that follows the table of clusters, which runs one for each of the others.
    This list is all that runs.
    """

    def start(loop: Loop) -> asyncio.Task[None]:
        return asyncio.create_task(forever(loop, services), name=loop.name)

    return (
        *(_decision_loop(services, decision, holder=holder) for decision in DECISIONS),
        *(_brought_along(services, cluster, holder=holder) for cluster in services.clusters.values()),
        Teller(services, holder=holder).loop(),
        Fleet(services, holder=holder, start=start).loop(),
        Resealing(services, holder=holder).loop(),
        *(Anchoring(services, anchors, holder=holder).loop() for anchors in (services.anchors,) if anchors),
    )


async def run(all_loops: tuple[Loop, ...], services: Services) -> None:
    """Run until cancelled. A turn that fails is logged and tried again later; a loop never dies.

    Unless the disk has failed: then the process must end, and another one read what is truly stored (reliability.md R8).
    Raises that error, in a group.
    """
    async with asyncio.TaskGroup() as group:
        for loop in all_loops:
            group.create_task(forever(loop, services), name=loop.name)


def _decision_loop(services: Services, decision: Decision, *, holder: str) -> Loop:
    tenure = Tenure(services.store, services.clock, lease=f"{decisions.LEASE}/{decision.name}", holder=holder)

    async def turn() -> Due:
        try:
            committed = await services.offload(decisions.turn, services.store, services.clock, tenure, decision)
        except Fenced:
            tenure.lost()
            raise
        if committed is None:
            return Due(wait=decision.period_seconds)
        result = committed.result
        for refusal in result.refused:
            log.debug("action_refused", loop=decision.name, reason=refusal.reason.sentence)
        if result.applied:
            services.pulse.beat(committed.news)
            log.debug("committed", loop=decision.name, applied=result.applied, version=result.version)
        return Due(wait=0.0 if committed.again else decision.period_seconds)

    return Loop(name=decision.name, turn=turn, woken_by=decision.woken_by)


def _brought_along(services: Services, cluster: Cluster, *, holder: str) -> Loop:
    async def opened() -> Cluster:
        return cluster

    return Member(services, cluster.name, opened, holder=holder).loop()
