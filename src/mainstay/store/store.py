"""The store: `mainstay.ports.Store` over one database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from mainstay.chain import Head
from mainstay.domain.access import Authority, GroupRole, MemberRecord, OwnRole, Project, Standing, Tenant, TokenRecord
from mainstay.domain.allocation import Allocation, Progress, Wanted
from mainstay.domain.billing import Charge, GroupBy, Ledger, Price, UsageRecord
from mainstay.domain.capacity import Closure, Node
from mainstay.domain.caps import CapUse
from mainstay.domain.errors import StateUnusable
from mainstay.domain.flavor import NodeFlavorRecord
from mainstay.domain.fleet import ClusterRecord
from mainstay.domain.history import HistoryRecord
from mainstay.domain.plan import AuditRow, CommitResult, Epoch, Event, Idempotency, Plan, Refused
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.queue import LocalQueueRecord, PriorityClass, QueueRecord
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.secret import Sealed, SecretRecord
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeRecord, VolumeRef
from mainstay.domain.webhook import Delivery, WebhookRecord
from mainstay.domain.workload import Workload
from mainstay.ports import ALL_EVENTS, EventFilter, Held, LineRecord, WantedChanges, WorkloadFilter
from mainstay.store import access, bills, caps, history, queries, sealed, wanted, webhooks
from mainstay.store.commit import NothingToWrite, commit_in, stored_reply
from mainstay.store.engine import Database, Postgresql, Sqlite
from mainstay.store.failures import WAIT_SECONDS, Contradiction
from mainstay.store.guests import GuestCache
from mainstay.store.leases import acquire_in, held_in
from mainstay.store.lines import end_in, lines_in, open_in
from mainstay.store.migrations import migrate
from mainstay.store.run_times import run_times_on, typical_now
from mainstay.store.snapshot import SnapshotCache
from mainstay.store.wanted import WantedCache


def open_sqlite(path: Path, *, durable: bool = True, wait_seconds: float = WAIT_SECONDS) -> SqlStore:
    """Open or make a database file. Raises StateUnusable.

    `durable` False does not wait for the disk: only for simulations, where a lost power supply is none of the faults.
    """
    return SqlStore(Sqlite(path, durable=durable, wait_seconds=wait_seconds))


def open_postgresql(url: str, *, wait_seconds: float = WAIT_SECONDS) -> SqlStore:
    """Open a database on a server and make our tables if it is empty. Raises StateUnusable, Unavailable."""
    hint = "give one such as postgresql://user:password@host/mainstay"
    try:
        scheme = sa.make_url(url).get_backend_name()
    except (sa.exc.ArgumentError, ValueError) as error:
        # What was given is not repeated: it may hold a password.
        msg = "the address of the database is none"
        raise StateUnusable(msg, hint=hint) from error
    if scheme not in {"postgresql", "postgres"}:
        msg = f"not the address of a PostgreSQL database: it begins with {scheme}"
        raise StateUnusable(msg, hint=hint)
    return SqlStore(Postgresql(url, wait_seconds=wait_seconds))


class SqlStore:
    """The same code for both databases. See `ports.Store` for what each method promises."""

    def __init__(self, database: Database) -> None:
        """Takes ownership of the database and brings its schema up to date."""
        self._database = database
        try:
            database.write(migrate)
            self._system = database.read(queries.head)["system"]
        except BaseException:
            database.close()
            raise
        self._snapshots = SnapshotCache(database)
        self._wanted = WantedCache(database)
        self._guests = GuestCache(database)

    def snapshot(self, *, now: int, seed: int, fresh: bool = True) -> Snapshot:
        """The open part of the world as columns."""
        return self._snapshots.snapshot(now=now, seed=seed, fresh=fresh)

    def run_times_on(self, *, tenant: str, project: str, name: str) -> Mapping[str, Sequence[int]]:
        """What the last runs of a name have taken, by what they had."""
        return self._database.read(
            lambda connection: run_times_on(connection, tenant=tenant, project=project, name=name)
        )

    def typical_now(self, keys: Collection[int]) -> Mapping[int, tuple[int, int]]:
        """What runs like these take, by all that have ended."""
        return self._database.read(lambda connection: typical_now(connection, keys))

    def commit(self, plan: Plan) -> CommitResult:
        """Apply a plan where its guards hold.

        What the database itself refuses is refused alone: one bad row must not hold up the decisions about all others.
        """
        try:
            return self._database.write(lambda connection: commit_in(connection, plan))
        except NothingToWrite as nothing:
            return nothing.result
        except Contradiction:
            if plan.atomic or plan.idempotency:
                raise
            return self._without_the_contradiction(plan)

    def replied(self, request: Idempotency) -> str | None:
        """The reply kept under the key of a request."""
        return self._database.read(lambda connection: stored_reply(connection, request))

    def acquire(self, lease: str, *, holder: str, now: int, seconds: float) -> Epoch | None:
        """Take or renew a lease."""
        until = now + round(seconds * MICROSECONDS_PER_SECOND)

        def work(connection: sa.Connection) -> Epoch | None:
            return acquire_in(connection, lease, holder=holder, now=now, until=until)

        return self._database.write(work)

    def wanted(self, cluster: str) -> tuple[Wanted, ...]:
        """The allocations of a cluster that are not closed."""
        return self._wanted.wanted(cluster)

    def held(self, lease: str) -> Held | None:
        """Who has a lease, or had it last."""
        return self._database.read(lambda connection: held_in(connection, lease))

    def lines(self, cluster: str) -> tuple[LineRecord, ...]:
        """Where lines of an agent end."""
        return self._database.read(lambda connection: lines_in(connection, cluster))

    def open_line(self, line: LineRecord) -> None:
        """As the newest."""
        self._database.write(lambda connection: open_in(connection, line))

    def end_line(self, cluster: str, *, replica: str) -> None:
        """If it is there."""
        self._database.write(lambda connection: end_in(connection, cluster, replica))

    def wanted_changes(self, cluster: str, *, since: int) -> WantedChanges:
        """What has changed for a cluster."""
        return self._database.read(lambda connection: wanted.changes(connection, cluster, since=since))

    def closed(self, cluster: str, pods: Collection[str]) -> tuple[Wanted, ...]:
        """By the names of their pods."""
        return self._database.read(lambda connection: wanted.closed(connection, cluster, pods))

    def guests(self, cluster: str) -> tuple[Workload, ...]:
        """Open workloads of guests."""
        return self._guests.guests(cluster)

    def closed_nodes(self, cluster: str) -> Mapping[str, Closure]:
        """By name."""
        return self._database.read(lambda connection: queries.closed_nodes(connection, cluster))

    def removals(self, cluster: str) -> tuple[VolumeRef, ...]:
        """Volumes that are to go."""
        return self._database.read(lambda connection: queries.removals(connection, cluster))

    def volumes(
        self, *, tenant: str, after: tuple[str, str, str] = ("", "", ""), limit: int = 0
    ) -> tuple[VolumeRecord, ...]:
        """By cluster, project and name."""
        return self._database.read(
            lambda connection: queries.volumes(connection, tenant=tenant, after=after, limit=limit)
        )

    def system(self) -> str:
        """Identity of this database."""
        return self._system

    def version(self) -> int:
        """The version of the last commit."""
        return self._database.read(queries.version)

    def open_workloads(self, tenant: str) -> int:
        """As it is kept by every commit."""
        return self._database.read(lambda connection: queries.open_workloads(connection, tenant))

    def workload(self, reference: str, *, tenant: str, projects: tuple[str, ...] | None = None) -> Workload:
        """By id or newest of a name."""
        return self._database.read(
            lambda connection: queries.workload(connection, reference, tenant=tenant, projects=projects)
        )

    def workloads(self, which: WorkloadFilter, *, before: int, limit: int) -> tuple[Workload, ...]:
        """Newest first."""
        return self._database.read(lambda connection: queries.workloads(connection, which, before=before, limit=limit))

    def allocations(self, workload_key: int) -> tuple[Allocation, ...]:
        """Of one workload, by attempt and rank."""
        return self._database.read(lambda connection: queries.allocations(connection, workload_key))

    def progress(self, workload_keys: Sequence[int]) -> Mapping[int, Progress]:
        """How far each of these workloads has come."""
        return self._database.read(lambda connection: queries.progress(connection, workload_keys))

    def pod(self, name: str) -> Wanted:
        """By its name, of any tenant."""
        return self._database.read(lambda connection: queries.pod(connection, name))

    def secrets(self, *, tenant: str, after: str = "", limit: int = 0) -> tuple[SecretRecord, ...]:
        """By name."""
        return self._database.read(
            lambda connection: queries.secrets(connection, tenant=tenant, after=after, limit=limit)
        )

    def sealed_secrets(self, names: Collection[str], *, tenant: str) -> Mapping[str, str]:
        """Sealed as they are."""
        return self._database.read(lambda connection: queries.sealed_secrets(connection, names, tenant=tenant))

    def tenants(self) -> tuple[Tenant, ...]:
        """By name."""
        return self._database.read(access.tenants)

    def projects(self, *, tenant: str) -> tuple[Project, ...]:
        """By name."""
        return self._database.read(lambda connection: access.projects(connection, tenant))

    def own_roles(self, *, tenant: str) -> tuple[OwnRole, ...]:
        """By name."""
        return self._database.read(lambda connection: access.own_roles(connection, tenant))

    def members(self, *, tenant: str) -> tuple[MemberRecord, ...]:
        """By name."""
        return self._database.read(lambda connection: access.members(connection, tenant))

    def tokens(self, *, tenant: str, member: str = "") -> tuple[TokenRecord, ...]:
        """The oldest first."""
        return self._database.read(lambda connection: access.tokens(connection, tenant, member))

    def cap_uses(self, ids: Collection[str]) -> Mapping[str, CapUse]:
        """In one read."""
        found = self._database.read(lambda connection: caps.of_tokens(connection, ids))
        return {id_: used for id_, (_, used) in found.items()}

    def capped_runs(self, token: str, *, limit: int) -> tuple[str, ...]:
        """The newest first."""
        return self._database.read(lambda connection: caps.runs(connection, token, limit=limit))

    def tokens_of_session(self, *, issuer: str, session: str) -> tuple[TokenRecord, ...]:
        """Of whichever member, the oldest first."""
        return self._database.read(lambda connection: access.tokens_of_session(connection, issuer, session))

    def group_roles(self, *, tenant: str) -> tuple[GroupRole, ...]:
        """By group and project."""
        return self._database.read(lambda connection: access.group_roles(connection, tenant))

    def roles_of_groups(self, groups: Collection[str]) -> tuple[GroupRole, ...]:
        """Of all tenants."""
        return self._database.read(lambda connection: access.roles_of_groups(connection, groups))

    def standing(self, *, issuer: str, subject: str) -> Standing | None:
        """Who somebody is here."""
        return self._database.read(lambda connection: access.standing(connection, issuer, subject))

    def authority(self, token: str) -> Authority | None:
        """What a token may now."""
        return self._database.read(lambda connection: access.authority(connection, token))

    def webhooks(self, *, tenant: str = "", after: str = "", limit: int = 0) -> tuple[WebhookRecord, ...]:
        """By name."""
        return self._database.read(
            lambda connection: webhooks.webhooks(connection, tenant=tenant, after=after, limit=limit)
        )

    def webhook(self, name: str, *, tenant: str) -> WebhookRecord:
        """One by its name."""
        return self._database.read(lambda connection: webhooks.webhook(connection, name, tenant=tenant))

    def deliveries(self, name: str, *, tenant: str, before: int, limit: int) -> tuple[Delivery, ...]:
        """Newest first."""
        return self._database.read(
            lambda connection: webhooks.deliveries(connection, name, tenant=tenant, before=before, limit=limit)
        )

    def due_deliveries(self, name: str, *, tenant: str, now: int, limit: int) -> tuple[Delivery, ...]:
        """The longest due first."""
        return self._database.read(
            lambda connection: webhooks.due(connection, name, tenant=tenant, now=now, limit=limit)
        )

    def pending_deliveries(self, name: str, *, tenant: str) -> int:
        """How many."""
        return self._database.read(lambda connection: webhooks.pending(connection, name, tenant=tenant))

    def sealed_with_others(self, key: str, *, after: tuple[str, str], limit: int) -> tuple[Sealed, ...]:
        """By place."""
        return self._database.read(
            lambda connection: sealed.sealed_with_others(connection, key, after=after, limit=limit)
        )

    def sealed_by_key(self) -> Mapping[str, int]:
        """By name of the key."""
        return self._database.read(sealed.sealed_by_key)

    def nodes(self, *, after: tuple[str, str] = ("", ""), limit: int = 0) -> tuple[Node, ...]:
        """By cluster and name."""
        return self._database.read(lambda connection: queries.nodes(connection, after=after, limit=limit))

    def node(self, cluster: str, name: str) -> Node:
        """One by its name."""
        return self._database.read(lambda connection: queries.node(connection, cluster, name))

    def allocations_on(self, node_key: int) -> tuple[Allocation, ...]:
        """By key."""
        return self._database.read(lambda connection: queries.allocations_on(connection, node_key))

    def clusters(self) -> tuple[ClusterRecord, ...]:
        """By name."""
        return self._database.read(queries.clusters)

    def cluster(self, name: str) -> ClusterRecord:
        """One by its name."""
        return self._database.read(lambda connection: queries.cluster(connection, name))

    def events(
        self, *, tenant: str, workload: str, after: int, limit: int, which: EventFilter = ALL_EVENTS
    ) -> tuple[Event, ...]:
        """Oldest first."""
        return self._database.read(
            lambda connection: queries.events(
                connection, tenant=tenant, workload=workload, after=after, limit=limit, which=which
            )
        )

    def last_events(
        self, *, tenant: str, workload: str, limit: int, which: EventFilter = ALL_EVENTS
    ) -> tuple[Event, ...]:
        """The newest, oldest first."""
        return self._database.read(
            lambda connection: queries.last_events(
                connection, tenant=tenant, workload=workload, limit=limit, which=which
            )
        )

    def audit(self, *, after: int, limit: int) -> tuple[AuditRow, ...]:
        """Oldest first."""
        return self._database.read(lambda connection: queries.audit(connection, after=after, limit=limit))

    def audit_head(self) -> Head:
        """As the last commit left it."""
        row = self._database.read(queries.head)
        return Head(seq=row["audit_seq"], hash=row["audit_hash"])

    def last_audit(self, *, before: int, limit: int) -> tuple[AuditRow, ...]:
        """Newest first."""
        return self._database.read(lambda connection: queries.last_audit(connection, before=before, limit=limit))

    def usage(self, *, tenant: str, since: int, until: int) -> tuple[tuple[UsageRecord, tuple[Charge, ...]], ...]:
        """With charges, oldest first."""
        return self._database.read(lambda connection: bills.usage(connection, tenant=tenant, since=since, until=until))

    def ledger(self, *, tenant: str, group_by: GroupBy, since: int, until: int) -> Ledger:
        """Sums by group, and what accrues."""
        return self._database.read(
            lambda connection: bills.ledger(connection, tenant=tenant, group_by=group_by, since=since, until=until)
        )

    def prices(self) -> tuple[Price, ...]:
        """The price book."""
        return self._database.read(bills.prices)

    def model_versions(
        self, *, tenant: str, model: str, before: tuple[int, str, int] | None = None, limit: int = 0
    ) -> tuple[ModelVersion, ...]:
        """Newest first."""
        return self._database.read(
            lambda connection: queries.model_versions(
                connection, tenant=tenant, model=model, before=before, limit=limit
            )
        )

    def endpoints(self, *, tenant: str, after: str = "", limit: int = 0) -> tuple[Endpoint, ...]:
        """By name."""
        return self._database.read(
            lambda connection: queries.endpoints(connection, tenant=tenant, after=after, limit=limit)
        )

    def endpoint(self, name: str, *, tenant: str) -> Endpoint:
        """One by its name."""
        return self._database.read(lambda connection: queries.endpoint(connection, name, tenant=tenant))

    def queues(self) -> tuple[QueueRecord, ...]:
        """By name."""
        return self._database.read(queries.queues)

    def default_limits(self) -> Mapping[str, int]:
        """By name of the queue."""
        return self._database.read(queries.default_limits)

    def local_queues(self) -> tuple[LocalQueueRecord, ...]:
        """By namespace and name."""
        return self._database.read(queries.local_queues)

    def node_flavors(self) -> tuple[NodeFlavorRecord, ...]:
        """In their order."""
        return self._database.read(queries.node_flavors)

    def history_policy(self) -> HistoryRecord:
        """How what queues used lately counts."""
        return self._database.read(history.history_policy)

    def queue_counts(self, *, tenant: str = "") -> Mapping[str, tuple[int, int]]:
        """By queue."""
        return self._database.read(lambda connection: queries.queue_counts(connection, tenant=tenant))

    def priority_classes(self) -> tuple[PriorityClass, ...]:
        """The most urgent first."""
        return self._database.read(queries.priority_classes)

    def close(self) -> None:
        """Release the database."""
        self._database.close()

    def _without_the_contradiction(self, plan: Plan) -> CommitResult:
        """Both halves by themselves, down to the one action that the database refuses."""
        if len(plan.actions) == 1:
            refused = Refused(index=0, reason=Reason(code=Code.CONTRADICTION))
            return CommitResult(version=self.version(), applied=0, refused=(refused,))
        middle = len(plan.actions) // 2
        first = self.commit(replace(plan, actions=plan.actions[:middle]))
        second = self.commit(replace(plan, actions=plan.actions[middle:]))
        later = tuple(replace(refused, index=middle + refused.index) for refused in second.refused)
        return CommitResult(
            version=second.version, applied=first.applied + second.applied, refused=first.refused + later
        )
