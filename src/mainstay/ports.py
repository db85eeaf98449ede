"""All that the outside must offer, on one page: a store, clusters, artifacts and a clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mainstay.chain import Head
from mainstay.chain.anchors import Anchor
from mainstay.domain.access import Authority, GroupRole, MemberRecord, OwnRole, Project, Standing, Tenant, TokenRecord
from mainstay.domain.allocation import Allocation, ClusterAction, Owner, Progress, Wanted
from mainstay.domain.artifact import Tree
from mainstay.domain.billing import Charge, GroupBy, Ledger, Price, UsageRecord
from mainstay.domain.capacity import Closure, ClusterState, LogChunk, Node
from mainstay.domain.caps import CapUse
from mainstay.domain.flavor import NodeFlavorRecord
from mainstay.domain.fleet import ClusterFacts, ClusterRecord, ClusterSettings, Credentials
from mainstay.domain.history import HistoryRecord
from mainstay.domain.identity import DeviceBegun, Identity, SignedOut, SignInBegun
from mainstay.domain.plan import AuditRow, CommitResult, Epoch, Event, Idempotency, Plan
from mainstay.domain.queue import LocalQueueRecord, PriorityClass, QueueRecord
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.secret import Handed, Sealed, SecretRecord, SecretVersion
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeRecord, VolumeRef
from mainstay.domain.webhook import Delivery, WebhookRecord
from mainstay.domain.workload import Phase, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFilter:
    """Which workloads to list; empty fields do not restrict. Newest first."""

    tenant: str = ""
    project: str = ""
    projects: tuple[str, ...] | None = None
    """In one of these; None: in any."""
    name: str = ""
    phases: tuple[Phase, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events to list; empty fields do not restrict."""

    platform: bool = False
    """Those of the platform too, which are no tenant's: of nodes, clusters and prices."""
    kinds: tuple[str, ...] = ()
    object: str = ""
    """About what has this name and belongs to no workload."""


ALL_EVENTS = EventFilter()


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedChanges:
    """What has changed of the wanted side of a cluster between two versions."""

    version: int
    """Up to this one, and not beyond."""
    whole: bool
    """`rows` are all there is: what was known before is void."""
    rows: tuple[Wanted, ...]
    """New and changed ones, by key."""
    closed: tuple[int, ...] = ()
    """Keys of allocations that are no longer wanted; it may name some that were never known."""
    guests: tuple[Workload, ...] = ()
    """New and changed workloads of guests, by key."""
    finished: tuple[int, ...] = ()
    """Keys of workloads of guests that are final; as `closed`."""
    closed_nodes: Mapping[str, Closure] | None = None
    """All nodes that somebody keeps out, by name; None: as before."""
    removals: tuple[VolumeRef, ...] | None = None
    """All volumes that somebody wants gone; None: as before."""

    @property
    def any(self) -> bool:
        """Whether anything has changed."""
        changed = self.rows or self.closed or self.guests or self.finished
        return self.whole or bool(changed) or self.closed_nodes is not None or self.removals is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease as it was taken last. `until` in UTC microseconds: renewed until then, whether that has passed or not."""

    holder: str
    epoch: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRecord:
    """A replica has said that a line of the agent of a cluster ends at it. It may be dead since."""

    cluster: str
    replica: str
    """The name of its process: another one after each start."""
    address: str
    """host:port where other replicas reach it."""


class LoopStore(Protocol):
    """As much of the store as an effect loop needs: the same for the database and for one that is far away."""

    def acquire(self, lease: str, *, holder: str, now: int, seconds: float) -> Epoch | None:
        """Take or renew a lease: the tenure, or None while someone else holds it. A new holder gets a higher epoch."""

    def wanted(self, cluster: str) -> tuple[Wanted, ...]:
        """Every allocation of a cluster that is not closed, by key."""

    def closed(self, cluster: str, pods: Collection[str]) -> tuple[Wanted, ...]:
        """The allocations of a cluster that are closed, of those whose pods have these names; names may be anybody's."""

    def guests(self, cluster: str) -> tuple[Workload, ...]:
        """The workloads of guests of a cluster that are not final, by key."""

    def closed_nodes(self, cluster: str) -> Mapping[str, Closure]:
        """The nodes of a cluster that somebody keeps out, by name."""

    def removals(self, cluster: str) -> tuple[VolumeRef, ...]:
        """The volumes of a cluster that are there and that somebody wants gone."""

    def commit(self, plan: Plan) -> CommitResult:
        """Apply a plan where its guards hold. Raises Fenced (nothing applied) if its epoch has passed, KeyReused,
        and Conflict if the plan is atomic and a guard of it failed; Forbidden, if that was a cap of a token, and TooMany, if
        the tenant has too many open workloads.
        """


class Store(LoopStore, Protocol):
    """The truth. Sync; every method is one short transaction; thread-safe.

    Raises StorageFull or Unavailable when it cannot write, StateUnusable at opening, never a driver's own error.
    """

    def snapshot(self, *, now: int, seed: int, fresh: bool = True) -> Snapshot:
        """The world as columns. Costs what changed since the last call, plus a memcpy of the tables that changed.

        If it need not be `fresh`, the world as somebody looked at it last, if anybody did: that costs nothing.
        """

    def run_times_on(self, *, tenant: str, project: str, name: str) -> Mapping[str, Sequence[int]]:
        """In seconds, by `kind_of_gpus`: of the last runs of a name that succeeded at once, the newest first."""

    def typical_now(self, keys: Collection[int]) -> Mapping[int, tuple[int, int]]:
        """Of workloads by their keys: (seconds, thousandths) as of `workload.typical`, by the runs that have ended up to now.

        What a snapshot says of one that waits was known when it was queued. Costs a look or two at an index for each name.
        """

    def replied(self, request: Idempotency) -> str | None:
        """The reply kept under the key of a request, whatever its own `reply`; None if it is new. Raises KeyReused."""

    def held(self, lease: str) -> Held | None:
        """Who holds a lease, or held it last; None if nobody ever did."""

    def lines(self, cluster: str) -> tuple[LineRecord, ...]:
        """Where lines of the agent of a cluster end, or did: the newest first, and never more than four."""

    def open_line(self, line: LineRecord) -> None:
        """Put it on record, as the newest of its cluster; one that was there is the newest again."""

    def end_line(self, cluster: str, *, replica: str) -> None:
        """Take it off the record; nothing happens if it is not there."""

    def wanted_changes(self, cluster: str, *, since: int) -> WantedChanges:
        """What has changed of `wanted` and `guests` after a version; all of it for one that was never reached, e.g. -1."""

    def system(self) -> str:
        """Identity of this database, made when it was."""

    def version(self) -> int:
        """The version of the last commit: cheap, to see whether anything changed."""

    def open_workloads(self, tenant: str) -> int:
        """How many workloads of a tenant are not final. O(1)."""

    def workload(self, reference: str, *, tenant: str, projects: tuple[str, ...] | None = None) -> Workload:
        """By id, or the newest by name, in one of these projects; None: in any. Raises NotFound."""

    def workloads(self, which: WorkloadFilter, *, before: int, limit: int) -> tuple[Workload, ...]:
        """Newest first, keys below `before` (0: from the newest)."""

    def allocations(self, workload_key: int) -> tuple[Allocation, ...]:
        """All allocations of a workload, closed ones too, by attempt and rank."""

    def progress(self, workload_keys: Sequence[int]) -> Mapping[int, Progress]:
        """How far each of these workloads has come; none of one that never had a place."""

    def pod(self, name: str) -> Wanted:
        """The allocation of a pod of any tenant, with its specification. Raises NotFound, also once it is closed."""

    def secrets(self, *, tenant: str, after: str = "", limit: int = 0) -> tuple[SecretRecord, ...]:
        """Secrets of a tenant by name, those that follow `after`; every one where `limit` is 0. Their values are not read."""

    def sealed_secrets(self, names: Collection[str], *, tenant: str) -> Mapping[str, Sealed]:
        """The sealed values of secrets of a tenant by name; those that are not there are left out."""

    def handed_secrets(self, allocation_key: int) -> tuple[Sealed, ...]:
        """What the pod of an allocation was handed, also what was changed or removed since; nothing once that is closed."""

    def tenants(self) -> tuple[Tenant, ...]:
        """All on record by name, those that were removed among them."""

    def projects(self, *, tenant: str) -> tuple[Project, ...]:
        """Of a tenant by name, without the default one; those that were removed among them."""

    def own_roles(self, *, tenant: str) -> tuple[OwnRole, ...]:
        """Those that a tenant has made, by name."""

    def members(self, *, tenant: str) -> tuple[MemberRecord, ...]:
        """Of a tenant by name."""

    def tokens(self, *, tenant: str, member: str = "") -> tuple[TokenRecord, ...]:
        """Of a member, or of all of a tenant where `member` is empty, the oldest first; revoked and expired ones too."""

    def cap_uses(self, ids: Collection[str]) -> Mapping[str, CapUse]:
        """What the runs of these tokens take of their caps, by the id of the token; none of a token that is not there."""

    def capped_runs(self, token: str, *, limit: int) -> tuple[str, ...]:
        """Ids of open runs that take of the caps of a token, the newest first."""

    def tokens_of_session(self, *, issuer: str, session: str) -> tuple[TokenRecord, ...]:
        """Of sign-ins in this session of an identity provider, of whichever member, the oldest first; ended ones too."""

    def group_roles(self, *, tenant: str) -> tuple[GroupRole, ...]:
        """What groups of the identity provider may in a tenant, by group and project."""

    def roles_of_groups(self, groups: Collection[str]) -> tuple[GroupRole, ...]:
        """What these groups may, in all tenants."""

    def standing(self, *, issuer: str, subject: str) -> Standing | None:
        """Who somebody is here whom an identity provider knows; None for nobody."""

    def authority(self, token: str) -> Authority | None:
        """All that decides what the token of an id may now; None if there is no such token."""

    def webhooks(self, *, tenant: str = "", after: str = "", limit: int = 0) -> tuple[WebhookRecord, ...]:
        """Of a tenant by name, those that follow `after`; of all tenants where it is empty; every one where `limit` is 0."""

    def webhook(self, name: str, *, tenant: str) -> WebhookRecord:
        """Raises NotFound, with the nearest name as a hint."""

    def deliveries(self, name: str, *, tenant: str, before: int, limit: int) -> tuple[Delivery, ...]:
        """Of one webhook, newest first, with numbers below `before` (0: from the newest)."""

    def due_deliveries(self, name: str, *, tenant: str, now: int, limit: int) -> tuple[Delivery, ...]:
        """Those of one webhook that are to be sent by `now`, the longest due first."""

    def pending_deliveries(self, name: str, *, tenant: str) -> int:
        """How many of one webhook are neither delivered nor given up."""

    def sealed_with_others(self, key: str, *, after: SecretVersion, limit: int) -> tuple[Sealed, ...]:
        """What is sealed with other keys than this one, by `place`, those that follow `after`: ("", "", 0) is before all."""

    def sealed_by_key(self) -> Mapping[str, int]:
        """How many secrets and credentials are sealed with each key, by its name."""

    def volumes(
        self, *, tenant: str, after: tuple[str, str, str] = ("", "", ""), limit: int = 0
    ) -> tuple[VolumeRecord, ...]:
        """Of a tenant, by (cluster, project, name), those that follow `after`; every one where `limit` is 0."""

    def queues(self) -> tuple[QueueRecord, ...]:
        """All queues and cohorts that somebody has set, by name."""

    def default_limits(self) -> Mapping[str, int]:
        """Queue -> seconds: the time limit of jobs that say none, of queues that have one."""

    def local_queues(self) -> tuple[LocalQueueRecord, ...]:
        """Names that namespaces of clusters have for queues, by namespace and name."""

    def node_flavors(self) -> tuple[NodeFlavorRecord, ...]:
        """All flavors of nodes, in their order."""

    def history_policy(self) -> HistoryRecord:
        """Whether what queues used lately counts, and how; off where nobody has said so."""

    def queue_counts(self, *, tenant: str = "") -> Mapping[str, tuple[int, int]]:
        """Queue, as workloads name it -> how many of the open ones wait, and how many have a place. Empty: of all tenants."""

    def priority_classes(self) -> tuple[PriorityClass, ...]:
        """The most urgent first, then by name."""

    def nodes(self, *, after: tuple[str, str] = ("", ""), limit: int = 0) -> tuple[Node, ...]:
        """Nodes by cluster and name, those that follow `after`; every one where `limit` is 0."""

    def node(self, cluster: str, name: str) -> Node:
        """By its name in a cluster, or in any where `cluster` is empty. Raises NotFound, Conflict if several have it."""

    def allocations_on(self, node_key: int) -> tuple[Allocation, ...]:
        """Those that have not ended, by key."""

    def clusters(self) -> tuple[ClusterRecord, ...]:
        """Every cluster on record, removed ones too, by name."""

    def cluster(self, name: str) -> ClusterRecord:
        """Raises NotFound, also for a removed one, with the nearest name as a hint."""

    def events(
        self, *, tenant: str, workload: str, after: int, limit: int, which: EventFilter = ALL_EVENTS
    ) -> tuple[Event, ...]:
        """Events with seq > `after`, oldest first; of one workload, or of all where `workload` is empty."""

    def last_events(
        self, *, tenant: str, workload: str, limit: int, which: EventFilter = ALL_EVENTS
    ) -> tuple[Event, ...]:
        """The last `limit` events, oldest first; chosen as by `events`."""

    def audit(self, *, after: int, limit: int) -> tuple[AuditRow, ...]:
        """Audit rows with seq > `after`, oldest first."""

    def audit_head(self) -> Head:
        """The newest row of the audit, as the last commit left it."""

    def last_audit(self, *, before: int, limit: int) -> tuple[AuditRow, ...]:
        """Audit rows with seq < `before` (0: all), newest first."""

    def usage(self, *, tenant: str, since: int, until: int) -> tuple[tuple[UsageRecord, tuple[Charge, ...]], ...]:
        """Usage records that start in [since, until) with their charges, oldest first."""

    def ledger(self, *, tenant: str, group_by: GroupBy, since: int, until: int) -> Ledger:
        """Usage that starts in [since, until) and its charges, summed by group, and what accrues: in one read."""

    def prices(self) -> tuple[Price, ...]:
        """The price book, by SKU and date."""

    def model_versions(
        self, *, tenant: str, model: str, before: tuple[int, str, int] | None = None, limit: int = 0
    ) -> tuple[ModelVersion, ...]:
        """Versions of one model, or of all where `model` is empty, newest first.

        Those that follow `before`, its (registered_at, model, version); every one where `limit` is 0.
        """

    def endpoints(self, *, tenant: str, after: str = "", limit: int = 0) -> tuple[Endpoint, ...]:
        """Endpoints that are not removed, by name, those that follow `after`; every one where `limit` is 0."""

    def endpoint(self, name: str, *, tenant: str) -> Endpoint:
        """Raises NotFound, also for a removed one."""

    def close(self) -> None:
        """Release the database. Further calls fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What an address outside answered: its status, and the beginning of what it said. That is hostile text."""

    status: int
    content: bytes = b""


class Outbound(Protocol):
    """Requests to addresses that tenants and registries give, each to one that was checked and to no other (security.md E3)."""

    async def check(self, url: str) -> None:
        """Raises Invalid if nothing may be sent there or nobody knows where it is, Unavailable if that cannot be found out now.
        Nothing is sent.
        """

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Heard:
        """Send once; a redirect is an answer like any other. Raises Invalid as `check` does, Unavailable if nobody answers."""

    async def get(self, url: str, *, headers: Mapping[str, str], most: int) -> Heard:
        """As `post`, of an answer at most so many bytes. The URL may be long: object stores put signatures there."""


class Connector(Protocol):
    """The way into clusters of one kind."""

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
        """Try the credentials, changing nothing. Raises Invalid if they cannot be used as they are written,
        Unavailable if nobody answers, Denied if they are not accepted. No message may repeat a credential.
        """

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:
        """What of them `open` needs; nothing else of them is stored. Raises Invalid as `check` does."""

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> Cluster:
        """The cluster of a record, without waiting for it. Raises Invalid, Denied."""


class Channel(StrEnum):
    """Where output of a process came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Stream(Protocol):
    """A connection to a port of a pod: bytes both ways. One may send while another receives."""

    async def send(self, data: bytes) -> None:
        """All of it is handed on. Raises Unavailable if the connection has ended."""

    async def end(self) -> None:
        """No more will be sent. A way that knows no half-closed connection (Kubernetes) does not pass it on."""

    async def receive(self) -> bytes | None:
        """What came; None at the end. Raises Unavailable, with the words of the other side, if nobody listens there."""

    async def close(self) -> None:
        """Let go."""


class Process(Protocol):
    """A process that was started inside a pod, beside its own. One may send while another receives."""

    @property
    def exit_status(self) -> int | None:
        """None until `receive` has said that it ended; then as a shell has it, or -1: then `failure` says why."""

    @property
    def failure(self) -> str:
        """Why it could not be started, or why nobody saw its end; else empty."""

    async def send(self, data: bytes) -> None:
        """To its standard input. Raises Unavailable if the connection has ended; input that nobody takes is dropped."""

    async def end_input(self) -> None:
        """No more input will come. Raises Invalid where the cluster knows no way to say so."""

    async def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when the process has ended. Raises Unavailable if the connection broke before."""

    async def resize(self, *, columns: int, rows: int) -> None:
        """Of its terminal."""

    async def close(self) -> None:
        """Let go. A process with a terminal is hung up."""


class Cluster(Protocol):
    """Something that runs pods. Every method but `exec` is idempotent and safe to repeat after a crash.

    Each may raise Unavailable while the cluster does not answer, and Denied while it does not let us in; none waits
    longer than a minute for it.
    """

    name: str
    acts_at_once: int
    """So many actions may be under way at the same time."""

    async def observe(self) -> ClusterState:
        """All nodes and all our pods, in one look."""

    async def act(self, action: ClusterAction, *, epoch: int) -> None:
        """Carry out one action. Raises Fenced if a higher epoch has acted, Gone if the name has a tombstone,
        NoCapacity if there is no room, NotYet to be asked again, Invalid if the pod can never run here.

        A pod has been created when this returns: one that is not reported afterwards has vanished, and is not made again.
        """

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """At most `limit` bytes of a pod's output from a global offset. Raises NotFound."""

    def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """Output files of an ended pod: (relative path, size, executable, content). Regular files only."""

    async def copy_out(self, pod: str) -> None:
        """Have what an ended pod left for object stores copied there, from the beginning each time. Nothing happens if there is
        nothing. Raises Invalid, with the words of the store, if it does not take it; Unavailable while it does not answer.
        """

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:
        """A connection to a port of a running pod, let go of at the end of the block.

        Raises NotFound, NotYet before it runs, Gone once it has ended, Unavailable, Invalid where there is no such thing.
        """

    def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        """A process inside a running pod: where its own was started, with its environment and within its limits.

        It ends with the pod at the latest. Not idempotent. Raises as `connect`.
        """

    async def close(self) -> None:
        """Let go. Pods run on."""


class ArtifactStore(Protocol):
    """The files of everybody, those of each project for themselves: what one has stored is not there for another."""

    def of(self, owner: Owner) -> Artifacts:
        """Those of one project of one tenant. Raises Invalid for names that are none."""

    @property
    def logs(self) -> Artifacts:
        """Logs of pods that have ended: they are read through their pod, and never by their digest."""


class Artifacts(Protocol):
    """Files by content, and slots: names whose content only a newer attempt may replace."""

    async def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """Which of these blobs are not stored."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a blob; its size. Raises Invalid if the content has another digest."""

    def get(self, digest: str) -> AsyncIterator[bytes]:
        """The content of a blob in chunks. Raises NotFound."""

    async def put_tree(self, tree: Tree) -> str:
        """Store a tree; its digest. Raises NotYet, naming them, while blobs are missing; Invalid if one has another size."""

    async def tree(self, digest: str) -> Tree:
        """Raises NotFound."""

    async def commit(self, slot: str, *, attempt: int, tree: str) -> None:
        """Make `tree` the content of a slot. Raises Fenced if a newer attempt has committed (R6)."""

    async def head(self, slot: str) -> tuple[int, str]:
        """(attempt, tree) of a slot. Raises NotFound."""


class Anchors(Protocol):
    """Signed heads of the audit, kept outside of the database. Nothing is ever changed or taken away."""

    async def keep(self, anchor: Anchor) -> None:
        """Add one; the same once more is once. Raises Conflict if its row was anchored as another one, Unavailable."""

    async def newest(self, limit: int) -> tuple[Anchor, ...]:
        """The last so many, oldest first. Raises Unavailable."""


class Registries(Protocol):
    """Where images come from."""

    async def pinned(self, image: str) -> str:
        """The same image with the digest that its tag means now. Raises Invalid if there is none, Unavailable."""


class Secrets(Protocol):
    """What lets pods have the secrets that their workloads ask for."""

    async def of(self, pod: str, *, owner: Owner) -> tuple[Handed, ...]:
        """The values of now, in the order asked for, once it is on record that the pod is handed them.

        Raises NotFound for a pod that is not on record or has another owner, Gone once it has ended, and Invalid, in words for
        its user, if a secret is not there any more or cannot be opened.
        """

    async def handed(self, pod: str, *, owner: Owner) -> tuple[bytes, ...]:
        """Every value that a pod was handed by whomever, also those that were changed or removed since: it may print them.

        Raises NotFound for a pod that is not on record, or not any more, or has another owner.
        """


class Clock(Protocol):
    """Time. Wall time stamps what users see; only monotonic time measures waits and leases."""

    def now(self) -> int:
        """UTC microseconds."""

    def monotonic(self) -> float:
        """Seconds that never go back."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class Identities(Protocol):
    """Providers of identity that we trust."""

    @property
    def provider(self) -> str:
        """The issuer at which people sign in."""

    async def of_token(self, token: str) -> Identity:
        """Whom a bearer token of a trusted issuer stands for. Raises Unauthenticated, Unavailable."""

    async def begin(self, *, back: str) -> SignInBegun:
        """Where a browser goes to sign in, to come back to `back`. Raises Unavailable."""

    async def finish(self, code: str, *, begun: SignInBegun, back: str) -> Identity:
        """Who has come back with a code. Raises Unauthenticated, Unavailable."""

    async def sign_out(self, *, back: str) -> str:
        """Where a browser goes to sign out at the provider, to come back to `back`; empty where it has no such page.
        Raises Unavailable.
        """

    async def signed_out(self, token: str) -> SignedOut:
        """Who has signed out there, as the provider tells us. Raises Unauthenticated for what it did not say, Unavailable."""

    async def begin_device(self) -> DeviceBegun:
        """What a terminal shows. Raises Invalid where the provider does not offer it, Unavailable."""

    async def finish_device(self, device_code: str) -> Identity:
        """Who has entered the code. Raises NotYet until somebody has, Unauthenticated, Unavailable."""

    async def close(self) -> None:
        """Let go of all connections."""
