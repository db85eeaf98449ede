"""Agents: their tokens, what they may do for their one cluster, and the lines over which they are asked.

A token speaks for a cluster and for nothing else. Whoever holds a stolen one can lie about that cluster, and read what its pods
mount; it can place or stop nothing, and see or write nothing of others (docs/decisions/0010).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from mainstay.decide.keeping import QUARANTINE_SECONDS
from mainstay.domain.access import Permission
from mainstay.domain.addresses import Tunnel
from mainstay.domain.allocation import Allocation, Owner, PodState, Wanted
from mainstay.domain.artifact import Tree
from mainstay.domain.errors import Conflict, Denied, Forbidden, Invalid, NotFound, NotYet, Unauthenticated, Unavailable
from mainstay.domain.fleet import AGENT_IS_AWAY, ClusterKind, ClusterRecord, Contact, NewCluster, Stay, lease_of
from mainstay.domain.plan import (
    Action,
    AddCluster,
    Advance,
    ClosePod,
    CommitResult,
    Epoch,
    IdentifyCluster,
    NewWorkload,
    ObserveCluster,
    ObserveNodes,
    ObservePod,
    ObserveVolumes,
    OfCluster,
    Plan,
    QuarantineNode,
    Submit,
)
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.queue import PRIORITY_MAX
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import REACH_PREFIX, VolumeState
from mainstay.domain.workload import Kind, Phase
from mainstay.operations.denials import Denials
from mainstay.operations.lines import Lines, Ways
from mainstay.operations.principal import Principal, RequestKey, replayed
from mainstay.operations.sealing import Sealing
from mainstay.operations.submit import NAME
from mainstay.ports import Artifacts, ArtifactStore, Clock, Held, Store
from mainstay.wire.agent import HOLDER, LOGS, TOKEN_PREFIX, owner_said

TOKEN_HINT = "`mainstay cluster token NAME` makes a new one"  # noqa: S105 words
TOKEN_BYTES = 32
"""256 bits of randomness (security.md C3)."""
SHOWN = "shown"
"""What is kept of the answer that showed a token."""
LEASE_SECONDS_MAX = 10.0
TREES_MAX = 64
POLLS_MAX = 16
"""Of one token, that wait for changes at the same time. An agent has one, and leaves some behind when it is cut off."""
PORTS = 1 << 16
LOCAL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
"""As Kubernetes has the value of a label."""
_POD_CODES = frozenset({Code.POD_STARTING, Code.POD_RUNNING, Code.POD_ENDED, Code.POD_LOST})
_CONTACT_CODES = frozenset({Code.CLUSTER_READY, Code.CLUSTER_UNREACHABLE, Code.CLUSTER_REFUSED})


class Agents:
    """What one process knows of agents beside the record. All of it may be lost at any moment."""

    def __init__(self, clock: Clock, *, lines: Lines | None = None, ways: Ways | None = None) -> None:
        """`lines`: those that end here; `ways`: these, and those that end at other replicas, where there are any."""
        self.lines = lines or Lines()
        self.ways = ways or self.lines
        self._clock = clock
        self._mounted: dict[str, tuple[tuple[Wanted, ...], frozenset[tuple[Owner, str]]]] = {}
        self._blobs: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.denials = Denials(clock)
        self._polls: Counter[str] = Counter()

    @contextmanager
    def polling(self, cluster: str) -> Iterator[None]:
        """While an agent waits for changes. Raises Unavailable if too many wait already under its token."""
        if self._polls[cluster] >= POLLS_MAX:
            msg = f"{POLLS_MAX} requests of the agent of {cluster} wait for changes already"
            hint = (
                f"one agent asks once at a time: does another program use its token? mainstay cluster token {cluster}"
            )
            raise Unavailable(msg, object_=cluster, hint=hint)
        self._polls[cluster] += 1
        try:
            yield
        finally:
            self._polls[cluster] -= 1

    def mounted(self, store: Store, cluster: str) -> frozenset[tuple[Owner, str]]:
        """The trees that pods of a cluster mount, each with whose pods these are."""
        rows = store.wanted(cluster)
        known = self._mounted.get(cluster)
        if known is None or known[0] is not rows:
            known = rows, frozenset((row.allocation.owner, mount.tree) for row in rows for mount in row.spec.mounts)
            self._mounted[cluster] = known
        return known[1]

    async def blobs(self, artifacts: Artifacts, tree: str) -> frozenset[str]:
        """The blobs of a tree, which never change."""
        if tree not in self._blobs:
            self._blobs[tree] = frozenset(entry.digest for entry in (await artifacts.tree(tree)).entries)
        self._blobs.move_to_end(tree)
        while len(self._blobs) > TREES_MAX:
            self._blobs.popitem(last=False)
        return self._blobs[tree]


def new_token() -> tuple[str, str]:
    """A token, and what is kept of it."""
    token = f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"
    return token, digest_of(token)


def digest_of(token: str) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def authenticated(store: Store, token: str) -> Principal | None:
    """Whose token it is. Read from the record each time: a token that has ended is refused at once, by every replica."""
    given, found = digest_of(token), None
    for row in store.clusters():
        known = row.kind is ClusterKind.AGENT and row.wanted is not Stay.REMOVED and row.settings.agent_token
        if known and hmac.compare_digest(known, given):
            found = Principal(name=f"{HOLDER}{row.name}", tenant="", role="agent", cluster=row.name, token=known)
    return found


def renewed(store: Store, principal: Principal) -> Principal:
    """The same agent as of now. Raises Unauthenticated if its token was replaced, or its cluster removed."""
    for row in store.clusters():
        if (
            row.name == principal.cluster
            and row.settings.agent_token == principal.token
            and row.wanted is not Stay.REMOVED
        ):
            return principal
    msg = "this token of an agent is not valid: it was replaced, or its cluster was removed"
    raise Unauthenticated(msg, object_=principal.cluster, hint=TOKEN_HINT)


def renew_token(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> str:
    """A new token for the agent of a cluster; the one before it ends. Empty for a repetition: it was shown, and is not kept.

    Raises NotFound, Conflict.
    """
    principal.require(Permission.MANAGE)
    if replayed(store, principal, request):
        return ""
    cluster = store.cluster(name)
    if cluster.kind is not ClusterKind.AGENT:
        msg = f"cluster {name} is reached without an agent"
        raise Conflict(msg, object_=name, hint="only `mainstay cluster add NAME --agent` makes one that has a token")
    token, digest = new_token()
    new = NewCluster(
        name=name,
        kind=cluster.kind,
        settings=replace(cluster.settings, agent_token=digest),
        identity=cluster.identity,
    )
    reason = Reason(code=Code.AGENT_TOKEN_MADE, object=name, numbers={"by": principal.name})
    action = AddCluster(cluster=new, reason=reason)
    once = request.with_reply(SHOWN, principal) if request else None
    plan = Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=once)
    return "" if store.commit(plan).reply else token


def greet(store: Store, principal: Principal, *, identity: str, server: str, one_user: bool, now: int) -> ClusterRecord:
    """An agent has tried its cluster and is let in: the record as it is to be used.

    Raises Denied for another cluster, and for one that runs all jobs as one user where there are several tenants.
    """
    name = _own(principal)
    reason = Reason(code=Code.CLUSTER_FOUND, object=name)
    action = IdentifyCluster(cluster=name, identity=identity, server=server, one_user=one_user, reason=reason)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    except Conflict as error:
        hint = "start it for the cluster that it was; or drain that one, remove it as lost and add it again"
        if "tenants" in error.numbers:
            hint = "start the agent beside a Kubernetes cluster, without --local"
        raise Denied(error.message, object_=name, hint=hint) from error
    return store.cluster(name)


def lead(
    store: Store, principal: Principal, *, holder: str, seconds: float, now: int
) -> tuple[Epoch | None, Held | None]:
    """Take or renew the lease of its cluster; who has it. Our clock measures it: that of an agent may be anything."""
    lease = lease_of(_own(principal))
    epoch = store.acquire(lease, holder=HOLDER + holder, now=now, seconds=min(max(seconds, 1.0), LEASE_SECONDS_MAX))
    if epoch is None:
        return None, store.held(lease)
    _note_return(store, principal.cluster, epoch, now=now)
    return epoch, None


def _note_return(store: Store, cluster: str, epoch: Epoch, *, now: int) -> None:
    """That it is away is true no more; how it finds its cluster it tells when that has been so for some seconds."""
    if store.cluster(cluster).seen_reason.code in AGENT_IS_AWAY:
        reason = Reason(code=Code.AGENT_CATCHES_UP, object=cluster)
        back = ObserveCluster(cluster=cluster, seen=Contact.UNREACHABLE, reason=reason)
        store.commit(Plan(actor=f"cluster/{cluster}", now=now, actions=(back,), epoch=epoch))


SILENT_SINCE = "since"
"""In the reason why a cluster does not answer: when its agent was heard last, as people read it."""


def is_heard(store: Store, cluster: str, *, now: int) -> bool:
    """Whether an agent leads its cluster at this moment."""
    held = store.held(lease_of(cluster))
    return held is not None and held.holder.startswith(HOLDER) and held.until > now


def require_heard(store: Store, cluster: str, *, now: int) -> None:
    """Raises Unavailable, with since when, if an agent is to carry this cluster and none does."""
    record = next((row for row in store.clusters() if row.name == cluster), None)
    if record is None or record.kind is not ClusterKind.AGENT or is_heard(store, cluster, now=now):
        return
    since = record.seen_reason.numbers.get(SILENT_SINCE, "")
    msg = f"the agent of cluster {cluster} is away" + (f" since {since}" if since else "")
    hint = "is `mainstay agent` running beside that cluster, and does it reach the platform? Its pods run on meanwhile"
    raise Unavailable(msg, object_=cluster, hint=hint)


def commit(
    store: Store, principal: Principal, rows: tuple[Wanted, ...], *, epoch: int, actions: tuple[Action, ...], now: int
) -> CommitResult:
    """What an effect loop of this very cluster may commit; `rows` is what is wanted of it. Raises Forbidden, Invalid, Fenced."""
    name = _own(principal)
    keys = {action.allocation_key for action in actions if isinstance(action, ObservePod)}
    observed = {row.allocation.key: row.allocation for row in rows if row.allocation.key in keys} if keys else {}
    guarded = tuple(_guarded(action, name, observed, now=now) for action in actions)
    plan = Plan(actor=f"cluster/{name}", now=now, actions=guarded, epoch=Epoch(name=lease_of(name), number=epoch))
    result = store.commit(plan)
    for refused in result.refused:
        if refused.reason.code is Code.OTHER_CLUSTER:
            raise not_its_own(refused.reason.sentence, object_=refused.reason.object)
    return result


def _guarded(action: Action, cluster: str, observed: Mapping[int, Allocation], *, now: int) -> Action:
    """The action as it may be committed; the store refuses what it says of others' allocations."""
    match action:
        case ObservePod(allocation_key=key, state=state):
            _require_words(action, _POD_CODES)
            ours = OfCluster(kind="allocation", key=key, cluster=cluster)
            allocation = observed.get(key)
            tunnel = _tunnel(state, cluster, allocation.pod if allocation else "") if state.address else ""
            state = replace(_in_our_time(state, allocation, now=now), address=tunnel)
            return replace(action, state=state, guards=(ours, *action.guards))
        case ClosePod(allocation_key=key):
            _require_words(action, _POD_CODES)
            ours = OfCluster(kind="allocation", key=key, cluster=cluster)
            return replace(action, guards=(ours, *action.guards))
        case Submit(workload=new) if new.spec.kind is Kind.POD and new.spec.cluster == cluster:
            _require_names(new)
            return action
        case Advance(workload_key=key, phase=Phase.STOPPED):
            ours = OfCluster(kind="workload", key=key, cluster=cluster)
            return replace(action, guards=(ours, *action.guards))
        case ObserveNodes() if action.cluster == cluster:
            _require_words(action, frozenset({Code.NODE_CHANGED}))
            # No later than our own time: what is witnessed in the future of a wrong clock would be charged too early.
            return replace(action, at=min(action.at, now))
        case ObserveVolumes() if action.cluster == cluster:
            _require_words(action, frozenset({Code.VOLUME_FOUND}))
            for volume in action.volumes:
                _require_volume(volume)
            return action
        case QuarantineNode() if action.cluster == cluster and action.refused_at > 0:
            _require_words(action, frozenset({Code.NODE_REFUSES}))
            # A suspicion, and for no longer than one lasts: it never goes before the word of a person.
            return replace(action, until=min(action.until, now + QUARANTINE_SECONDS * MICROSECONDS_PER_SECOND))
        case ObserveCluster() if action.cluster == cluster:
            _require_words(action, _CONTACT_CODES)
            return action
    msg = f"an agent does not commit {type(action).__name__}"
    raise not_its_own(msg, object_=cluster)


def _in_our_time(state: PodState, allocation: Allocation | None, *, now: int) -> PodState:
    """No pod ran before it had its place, nor later than now: what a clock or a thief says beyond that would be charged."""
    first = allocation.created_at if allocation else 0
    started = max(first, min(state.started_at, now)) if state.started_at else 0
    ended = max(started, first, min(state.ended_at, now)) if state.ended_at else 0
    return replace(state, started_at=started, ended_at=ended)


def _tunnel(state: PodState, cluster: str, pod: str) -> str:
    """To that very pod, through the agent of its cluster, whatever the address says; empty for one that is not known here.

    An address that is taken as it is said would be asked with the requests of users, and could be anybody's. Raises Invalid.
    """
    _, _, port = state.address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < PORTS):
        msg = f"not the address of a pod: {state.address}"
        raise Invalid(msg, object_=state.name)
    return str(Tunnel(cluster=cluster, pod=pod, port=int(port))) if pod else ""


def _require_words(action: Action, codes: frozenset[Code]) -> None:
    """Raises Invalid for the reason of something else: users believe what stands in their events."""
    if action.reason.code not in codes:
        msg = f"not a reason of this action: {action.reason.code}"
        raise Invalid(msg, object_=type(action).__name__)


def _require_names(new: NewWorkload) -> None:
    """Raises Invalid for what could not be submitted under these names by anybody else."""
    names = (new.spec.name, new.tenant, new.project, *(() if _is_local(new) else (new.queue,)))
    wrong = [name for name in names if not NAME.fullmatch(name)]
    if wrong or not 0 <= new.priority <= PRIORITY_MAX:
        msg = f"not a name: {wrong[0]}" if wrong else f"not a priority: {new.priority}"
        raise Invalid(msg, object_=new.id)


def _is_local(new: NewWorkload) -> bool:
    """Whether its queue is the name that the namespace of its own pods has for one; that of another it cannot borrow."""
    namespace, slash, name = new.queue.partition("/")
    own = {pod.namespace for pod in new.spec.guests} == {namespace}
    return bool(slash) and own and LOCAL_NAME.fullmatch(name) is not None


def _require_volume(state: VolumeState) -> None:
    """Raises Invalid for one that no job could name."""
    names = (state.owner.tenant, state.owner.project)
    plain = all(" " not in word for word in (state.name, *state.access, state.storage_class, state.reach))
    if not all(NAME.fullmatch(name) for name in names) or not state.name or not plain:
        msg = f"not a volume of a project: {state.name}"
        raise Invalid(msg, object_=state.name)
    if state.reach and not state.reach.startswith(REACH_PREFIX):
        msg = f"not what a volume asks of nodes: {state.reach}"
        raise Invalid(msg, object_=state.name)


async def require_output(artifacts: ArtifactStore, rows: tuple[Wanted, ...], actions: tuple[Action, ...]) -> None:
    """Raises Forbidden for an output that the attempt itself has not committed: it would show somebody else's files."""
    named = {
        action.allocation_key: action.output for action in actions if isinstance(action, ObservePod) and action.output
    }
    for row in rows if named else ():
        allocation = row.allocation
        output = named.get(allocation.key)
        if not output:
            continue
        if not await _is_head(artifacts.of(allocation.owner), output_slot(allocation), allocation.attempt, output):
            msg = "the output of a pod is what was committed to its slot"
            raise not_its_own(msg, object_=allocation.pod)


async def _is_head(artifacts: Artifacts, slot: str, attempt: int, tree: str) -> bool:
    try:
        return await artifacts.head(slot) == (attempt, tree)
    except NotFound:
        return False


def require_pod(store: Store, principal: Principal, pod: str) -> None:
    """Raises Forbidden unless the pod is one of its own, NotFound."""
    if store.pod(pod).allocation.cluster != _own(principal):
        msg = "it is none of its pods"
        raise not_its_own(msg, object_=pod)


def require_owner(store: Store, principal: Principal, said: str) -> Owner | None:
    """Whose files a request names; None: they are logs of its pods. Raises Forbidden unless pods of that owner are its own."""
    if said == LOGS:
        _own(principal)
        return None
    for row in store.wanted(_own(principal)):
        owner = row.allocation.owner
        if owner_said(tenant=owner.tenant, project=owner.project) == said:
            return owner
    msg = "none of its pods has these files"
    raise not_its_own(msg, object_=said)


def files_of(artifacts: ArtifactStore, owner: Owner | None) -> Artifacts:
    """Those of an owner; None: the logs."""
    return artifacts.logs if owner is None else artifacts.of(owner)


def require_slot(store: Store, principal: Principal, slot: str, *, attempt: int | None = None) -> Owner | None:
    """Whose the slot is; None: it keeps the log of a pod. Raises Forbidden unless it is one of its pods: its log, or the
    output of an attempt that it runs.
    """
    name = _own(principal)
    if is_log_slot(slot, name):
        return None
    for row in store.wanted(name):
        allocation = row.allocation
        if slot == output_slot(allocation) and attempt in {None, allocation.attempt}:
            return allocation.owner
    msg = f"slot {slot} belongs to none of its pods"
    raise not_its_own(msg, object_=slot)


def is_log_slot(slot: str, cluster: str) -> bool:
    """Whether a slot keeps the log of a pod of this cluster. No workload's slot looks so: its second part is no pod."""
    folder, _, pod = slot.partition("/")
    _, attempt, rank = ("", "", *pod.rsplit("-", 2))[-3:]
    return folder == f"log-{cluster}" and attempt.isdecimal() and rank.isdecimal()


def output_slot(allocation: Allocation) -> str:
    """Where the output files of a workload go."""
    return f"{allocation.workload}/output"


async def require_tree(
    mounted: frozenset[tuple[Owner, str]],
    files: Artifacts,
    principal: Principal,
    tree: str,
    *,
    owner: Owner | None,
    slot: str,
) -> None:
    """Raises Forbidden unless its pods of that owner mount the tree, or the slot named is one of its logs and holds it."""
    if owner is not None and (owner, tree) in mounted:
        return
    if owner is None and is_log_slot(slot, _own(principal)) and await _is_head(files, slot, 1, tree):
        return
    msg = "none of its pods needs this tree"
    raise not_its_own(msg, object_=tree)


class Receipts:
    """Proofs of one agent that it has sent a content for one owner (None: as a log), under the key that all replicas share:
    any of them may be shown one.
    """

    def __init__(self, sealing: Sealing, principal: Principal, owner: Owner | None) -> None:
        self._key = hmac.digest(sealing.key, b"mainstay receipts of agents", "sha256")
        whose = LOGS if owner is None else owner_said(tenant=owner.tenant, project=owner.project)
        self._what = f"{_own(principal)}/{whose}"

    def of(self, digest: str) -> str:
        """Of the content with this digest."""
        return hmac.new(self._key, f"{self._what}/{digest}".encode(), hashlib.sha256).hexdigest()

    def proves(self, digest: str, receipt: str) -> bool:
        """Whether it is that of this very agent and content."""
        return hmac.compare_digest(self.of(digest).encode(), receipt.encode("utf-8", "surrogatepass"))


async def put_tree(
    artifacts: Artifacts, tree: Tree, *, receipts: Receipts, shown: Mapping[str, str]
) -> tuple[str, ...]:
    """Store a tree of what its agent has sent; the blobs that are missing. What others have sent counts as missing."""
    digests = dict.fromkeys(entry.digest for entry in tree.entries)
    if missing := tuple(digest for digest in digests if not receipts.proves(digest, shown.get(digest, ""))):
        return missing
    try:
        await artifacts.put_tree(tree)
    except NotYet as error:
        return tuple(str(error.numbers["missing"]).split())
    return ()


async def fill_slot(
    artifacts: Artifacts, slot: str, *, attempt: int, tree: str, receipts: Receipts, shown: str
) -> None:
    """Raises NotYet for a tree that was not sent: send it again."""
    if not receipts.proves(tree, shown):
        msg = f"the tree {tree} was not sent"
        raise NotYet(msg, object_=slot, hint="send its files and the tree again")
    await artifacts.commit(slot, attempt=attempt, tree=tree)


def not_its_own(what: str, *, object_: str) -> Forbidden:
    """A token speaks for one cluster: the refusal of everything else."""
    return Forbidden(what, object_=object_, hint="the token of an agent speaks for its own cluster only")


def _own(principal: Principal) -> str:
    principal.require(Permission.CARRY)
    assert principal.cluster, "an agent has a cluster"
    return principal.cluster
