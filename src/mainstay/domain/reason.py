"""Why: a reason is data (code, object, numbers), carried by every action and every refusal, shown by API, CLI and page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from mainstay.domain.quantity import counted, written


class Code(StrEnum):
    """Every reason that mainstay gives. The sentence of each is in `SENTENCES`."""

    SUBMITTED = "Submitted"
    WAITS_FOR_CAPACITY = "WaitsForCapacity"
    WAITS_FOR_QUOTA = "WaitsForQuota"
    NO_QUOTA = "NoQuota"
    EXCEEDS_QUOTA = "ExceedsQuota"
    WAITS_BEHIND = "WaitsBehind"
    WAITS_IN_STRICT = "WaitsInStrict"
    START_RESERVED = "StartReserved"
    WAITS_FOR_RESERVED = "WaitsForReserved"
    KEPT_FOR_GPUS = "KeptForGpus"
    NEVER_FITS = "NeverFits"
    BACKING_OFF = "BackingOff"
    NO_NODES = "NoNodes"
    PLACED = "Placed"
    PLACED_ELASTIC = "PlacedElastic"
    POD_STARTING = "PodStarting"
    POD_RUNNING = "PodRunning"
    POD_ENDED = "PodEnded"
    POD_LOST = "PodLost"
    COMPLETED = "Completed"
    USER_FAILURE = "UserFailure"
    OUT_OF_MEMORY = "OutOfMemory"
    START_FAILED = "StartFailed"
    OUTPUT_NOT_STORED = "OutputNotStored"
    COPY_REFUSED = "CopyRefused"
    INFRASTRUCTURE_FAILURE = "InfrastructureFailure"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    MAX_DURATION_REACHED = "MaxDurationReached"
    GANG_MEMBER_ENDED = "GangMemberEnded"
    STOP_REQUESTED = "StopRequested"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    HELD = "Held"
    RELEASED = "Released"
    NOT_WAITING = "NotWaiting"
    REPRIORITIZED = "Reprioritized"
    QUEUE_SET = "QueueSet"
    QUEUE_REMOVED = "QueueRemoved"
    QUEUE_HISTORY_SET = "QueueHistorySet"
    QUEUE_IN_USE = "QueueInUse"
    QUEUE_IMPOSSIBLE = "QueueImpossible"
    NO_SUCH_QUEUE = "NoSuchQueue"
    TENANT_ADDED = "TenantAdded"
    TENANT_THERE = "TenantThere"
    NO_SUCH_TENANT = "NoSuchTenant"
    TENANT_REMOVED = "TenantRemoved"
    TENANT_IN_USE = "TenantInUse"
    TENANT_GONE = "TenantGone"
    BUILT_IN = "BuiltIn"
    ONE_USER = "OneUser"
    PROJECT_ADDED = "ProjectAdded"
    PROJECT_THERE = "ProjectThere"
    NO_SUCH_PROJECT = "NoSuchProject"
    PROJECT_REMOVED = "ProjectRemoved"
    PROJECT_IN_USE = "ProjectInUse"
    PROJECT_GONE = "ProjectGone"
    ROLE_SET = "RoleSet"
    ROLE_REMOVED = "RoleRemoved"
    ROLE_IN_USE = "RoleInUse"
    NO_SUCH_ROLE = "NoSuchRole"
    MEMBER_SET = "MemberSet"
    MEMBER_THERE = "MemberThere"
    MEMBER_SIGNED_IN = "MemberSignedIn"
    IDENTITY_TAKEN = "IdentityTaken"
    GROUP_ROLE_SET = "GroupRoleSet"
    GROUP_ROLE_REMOVED = "GroupRoleRemoved"
    NO_SUCH_GROUP_ROLE = "NoSuchGroupRole"
    MEMBER_REMOVED = "MemberRemoved"
    NO_SUCH_MEMBER = "NoSuchMember"
    MORE_THAN_ONESELF = "MoreThanOneself"
    LAST_ADMINISTRATOR = "LastAdministrator"
    TOKEN_MADE = "TokenMade"  # noqa: S105 no secret
    TOKEN_REVOKED = "TokenRevoked"  # noqa: S105
    TOKEN_SPENT = "TokenSpent"  # noqa: S105
    NO_SUCH_TOKEN = "NoSuchToken"  # noqa: S105
    GPU_CAP_REACHED = "GpuCapReached"
    SPEND_CAP_REACHED = "SpendCapReached"
    ATTEMPTS_USED_UP = "AttemptsUsedUp"
    LOCAL_QUEUE_SET = "LocalQueueSet"
    LOCAL_QUEUE_REMOVED = "LocalQueueRemoved"
    NO_SUCH_LOCAL_QUEUE = "NoSuchLocalQueue"
    NODE_FLAVOR_SET = "NodeFlavorSet"
    NODE_FLAVOR_REMOVED = "NodeFlavorRemoved"
    NODE_FLAVOR_IN_USE = "NodeFlavorInUse"
    NO_SUCH_NODE_FLAVOR = "NoSuchNodeFlavor"
    TOO_MANY_NODE_FLAVORS = "TooManyNodeFlavors"
    TOO_MANY_OPEN = "TooManyOpen"
    PRIORITY_CLASS_SET = "PriorityClassSet"
    PRIORITY_CLASS_REMOVED = "PriorityClassRemoved"
    NO_SUCH_PRIORITY_CLASS = "NoSuchPriorityClass"
    COMMAND_RUN = "CommandRun"
    SECRET_SET = "SecretSet"  # noqa: S105 the name of a reason
    SECRET_REMOVED = "SecretRemoved"  # noqa: S105 the name of a reason
    SECRETS_HANDED = "SecretsHanded"
    RESEALED = "Resealed"
    SEALED_ANEW = "SealedAnew"
    NO_SUCH_SECRET = "NoSuchSecret"  # noqa: S105 the name of a reason
    WEBHOOK_ADDED = "WebhookAdded"
    WEBHOOK_REMOVED = "WebhookRemoved"
    WEBHOOK_ROTATED = "WebhookRotated"
    WEBHOOK_ENABLED = "WebhookEnabled"
    WEBHOOK_DISABLED = "WebhookDisabled"
    WEBHOOK_KNOWN = "WebhookKnown"
    WEBHOOK_IS_AHEAD = "WebhookIsAhead"
    NO_SUCH_WEBHOOK = "NoSuchWebhook"
    TOO_MANY_WEBHOOKS = "TooManyWebhooks"
    TOLD = "Told"
    METERED = "Metered"
    MODEL_REGISTERED = "ModelRegistered"
    DEPLOY_REQUESTED = "DeployRequested"
    ENDPOINT_SWITCHED = "EndpointSwitched"
    DEPLOY_FAILED = "DeployFailed"
    REPLACED = "Replaced"
    ENDPOINT_REMOVED = "EndpointRemoved"
    PRICE_SET = "PriceSet"
    OTHER_CURRENCY = "OtherCurrency"
    NODE_CHANGED = "NodeChanged"
    NODE_NOT_READY = "NodeNotReady"
    NODE_CORDONED = "NodeCordoned"
    NODE_UNCORDONED = "NodeUncordoned"
    NODE_DRAINED = "NodeDrained"
    NODE_QUARANTINED = "NodeQuarantined"
    NODE_REFUSES = "NodeRefuses"
    NODE_RELEASED = "NodeReleased"
    QUARANTINE_OVER = "QuarantineOver"
    NODE_CLOSED_OTHERWISE = "NodeClosedOtherwise"
    NO_SUCH_NODE = "NoSuchNode"
    WAITS_FOR_NODE = "WaitsForNode"
    WAITS_FOR_VOLUME = "WaitsForVolume"
    VOLUME_FOUND = "VolumeFound"
    VOLUME_GONE = "VolumeGone"
    VOLUME_REMOVED = "VolumeRemoved"
    VOLUME_IN_USE = "VolumeInUse"
    NO_SUCH_VOLUME = "NoSuchVolume"
    MOVED = "Moved"
    WAITS_AFTER_MOVE = "WaitsAfterMove"
    EVICTED = "Evicted"
    PREEMPTS = "Preempts"
    PREEMPTED = "Preempted"
    SHRUNK = "Shrunk"
    GROWN = "Grown"
    WAITS_AFTER_PREEMPTION = "WaitsAfterPreemption"
    NOMINATION_DROPPED = "NominationDropped"
    ENDPOINT_MOVES = "EndpointMoves"
    CLUSTER_ADDED = "ClusterAdded"
    CLUSTER_CHANGED = "ClusterChanged"
    CLUSTER_READY = "ClusterReady"
    CLUSTER_UNREACHABLE = "ClusterUnreachable"
    CLUSTER_REFUSED = "ClusterRefused"
    AGENT_AWAITED = "AgentAwaited"
    AGENT_SILENT = "AgentSilent"
    AGENT_CATCHES_UP = "AgentCatchesUp"
    CLUSTER_DRAINED = "ClusterDrained"
    CLUSTER_RESUMED = "ClusterResumed"
    CLUSTER_REMOVED = "ClusterRemoved"
    CLUSTER_KNOWN = "ClusterKnown"
    CLUSTER_FOUND = "ClusterFound"
    CREDENTIALS_USED = "CredentialsUsed"
    CLUSTER_SWAPPED = "ClusterSwapped"
    AGENT_TOKEN_MADE = "AgentTokenMade"  # noqa: S105 the name of a reason
    OTHER_CLUSTER = "OtherCluster"
    FORBIDDEN = "Forbidden"
    NOT_LET_IN = "NotLetIn"
    AUDIT_REDACTED = "AuditRedacted"
    NO_SUCH_AUDIT_ROW = "NoSuchAuditRow"
    CLUSTER_NAME_TAKEN = "ClusterNameTaken"
    CLUSTER_IN_USE = "ClusterInUse"
    NO_SUCH_CLUSTER = "NoSuchCluster"
    WAITS_FOR_CLUSTER = "WaitsForCluster"
    NO_NODE_ADMITS = "NoNodeAdmits"
    NO_SUCH_NODES = "NoSuchNodes"
    WAITS_FOR_GROUP = "WaitsForGroup"
    WAITS_BEHIND_GROUP = "WaitsBehindGroup"
    CANNOT_BE_PLACED = "CannotBePlaced"
    WITHDRAWN = "Withdrawn"
    NOT_BOUND = "NotBound"
    GUARD_FAILED = "GuardFailed"
    CAPACITY_TAKEN = "CapacityTaken"
    EPOCH_PASSED = "EpochPassed"
    DUPLICATE = "Duplicate"
    CONTRADICTION = "Contradiction"


SENTENCES: Mapping[Code, str] = MappingProxyType(
    {
        Code.SUBMITTED: "accepted; waits for its first scheduling cycle",
        Code.WAITS_FOR_QUOTA: (
            "waits for the quota of queue {object}: needs {needs}, and may use {left} more of {resource} ({flavor}): it uses"
            " {used}, {nominal} are its own"
        ),
        Code.EXCEEDS_QUOTA: (
            "queue {object} may never use so much: needs {needs}, and may have {left} of {resource} ({flavor}) at most: {nominal}"
            " are its own"
        ),
        Code.NO_QUOTA: "queue {object} has no quota for what it needs: {needs}",
        Code.WAITS_FOR_CAPACITY: "waits for capacity: needs {needs}, the most that is free on one node is {free}",
        Code.START_RESERVED: "waits for capacity: needs {needs}; its start is reserved for {at} at the latest, on {nodes}",
        Code.WAITS_FOR_RESERVED: (
            "waits for capacity: what is free for {needs} is kept from {at} on for work whose turn is before; it starts now only"
            " if its max_duration ends it by then"
        ),
        Code.KEPT_FOR_GPUS: (
            "waits for capacity: what is free for {needs} is on nodes with idle GPUs, and kept for GPU work that waits"
        ),
        Code.WAITS_BEHIND: "waits behind {ahead:workload} by priority, turn or age",
        Code.WAITS_IN_STRICT: (
            "waits behind {head}, which finds no place: queue {object} is strict, so nothing of it starts past its head"
        ),
        Code.NEVER_FITS: "cannot run on this fleet: needs {needs}, the largest node has {largest}",
        Code.BACKING_OFF: "attempt {attempt} starts in {seconds:duration}, after a failure",
        Code.NO_NODES: "no node is ready",
        Code.PLACED: "placed on {nodes}",
        Code.PLACED_ELASTIC: "placed with {ranks:node} of {range} on {nodes}",
        Code.POD_STARTING: "pods are starting",
        Code.POD_RUNNING: "runs",
        Code.POD_ENDED: "pod ended: {end}, exit code {exit_code}",
        Code.POD_LOST: "the pod was lost: {detail}",
        Code.COMPLETED: "all pods ended with exit code 0",
        Code.USER_FAILURE: "rank {rank} ended with exit code {exit_code}",
        Code.OUT_OF_MEMORY: "rank {rank} was killed: out of memory at {limit_bytes} bytes",
        Code.START_FAILED: "rank {rank} could not start: {detail}",
        Code.OUTPUT_NOT_STORED: "rank {rank} ended well, but its output could not be kept: {detail}",
        Code.COPY_REFUSED: "rank {rank} ended well and its output is kept, but what it left could not be copied: {detail}",
        Code.INFRASTRUCTURE_FAILURE: "rank {rank} was lost to the infrastructure: {detail}",
        Code.RETRIES_EXHAUSTED: "gave up after {attempts:attempt}; the last: {last}",
        Code.MAX_DURATION_REACHED: "stopped at its max_duration of {seconds:duration}",
        Code.GANG_MEMBER_ENDED: "stopped because rank {rank} of its gang ended",
        Code.STOP_REQUESTED: "stop requested by {by}",
        Code.STOPPING: "was told to end",
        Code.STOPPED: "stopped on request",
        Code.HELD: "held by {by}: waits until it is released",
        Code.RELEASED: "released by {by}; waits for its next scheduling cycle",
        Code.NOT_WAITING: "{object} does not wait: it is {phase}",
        Code.REPRIORITIZED: "priority {priority} instead of {before}, by {by}",
        Code.QUEUE_SET: "queue {object} set by {by}",
        Code.QUEUE_REMOVED: "queue {object} removed by {by}",
        Code.QUEUE_HISTORY_SET: "usage history of queues set by {by}: {detail}",
        Code.QUEUE_IN_USE: "queue {object} is in use: {workloads:open workload} in it, {children:queue} below it",
        Code.QUEUE_IMPOSSIBLE: "{detail}",
        Code.NO_SUCH_QUEUE: "no such queue: {object}",
        Code.TENANT_ADDED: "tenant {object} added by {by}",
        Code.TENANT_THERE: "there is a tenant {object} already",
        Code.NO_SUCH_TENANT: "no such tenant: {object}",
        Code.TENANT_REMOVED: "tenant {object} removed by {by}",
        Code.TENANT_IN_USE: "tenant {object} is in use: {detail}",
        Code.TENANT_GONE: "tenant {object} was removed on {date}, and its name stays taken",
        Code.BUILT_IN: "{object} is built in, and stays",
        Code.ONE_USER: "cluster {object} runs all jobs as one user: it serves one tenant only, and there would be {tenants}",
        Code.PROJECT_ADDED: "project {object} added by {by}",
        Code.PROJECT_THERE: "there is a project {object} already",
        Code.NO_SUCH_PROJECT: "no such project: {object}",
        Code.PROJECT_REMOVED: "project {object} removed by {by}",
        Code.PROJECT_IN_USE: "project {object} is in use: {detail}",
        Code.PROJECT_GONE: "project {object} was removed on {date}, and its name stays taken",
        Code.ROLE_SET: "role {object} set by {by}: it may {detail}",
        Code.ROLE_REMOVED: "role {object} removed by {by}",
        Code.ROLE_IN_USE: "role {object} is in use by {members}",
        Code.NO_SUCH_ROLE: "no such role: {object}",
        Code.MEMBER_SET: "{object} has the role {role} {where} by {by}",
        Code.MEMBER_THERE: "there is a member {object} already",
        Code.MEMBER_SIGNED_IN: "{object} signed in at {issuer}",
        Code.IDENTITY_TAKEN: "{object} is the same person to the identity provider",
        Code.GROUP_ROLE_SET: "group {object} has the role {role} {where} by {by}",
        Code.GROUP_ROLE_REMOVED: "group {object} has no role {where} any more, by {by}",
        Code.NO_SUCH_GROUP_ROLE: "group {object} has no role there",
        Code.MEMBER_REMOVED: "{object} removed {where} by {by}",
        Code.NO_SUCH_MEMBER: "no such member: {object}",
        Code.MORE_THAN_ONESELF: "nobody gives or takes more than they have: {object} may {detail}, too",
        Code.LAST_ADMINISTRATOR: "{object} is the last who may administer the platform",
        Code.TOKEN_MADE: "token {object} made by {by} for {member}: {detail}",
        Code.TOKEN_REVOKED: "token {object} of {member} revoked by {by}",
        Code.TOKEN_SPENT: "token {object} was used before, or has ended",
        Code.NO_SUCH_TOKEN: "no such token: {object}",
        Code.GPU_CAP_REACHED: (
            "token {object} may hold {cap:GPU} at a time: its open runs ask for {held}, and {asked} more would be too many"
        ),
        Code.SPEND_CAP_REACHED: (
            "token {object} may spend {cap}: its runs have cost {spent}, those that are open may cost {reserved} more, and"
            " {asked} on top would be too much"
        ),
        Code.ATTEMPTS_USED_UP: "has made {attempts:attempt}, and the spend cap of its token counts no more; the last: {last}",
        Code.LOCAL_QUEUE_SET: "local queue {object} set by {by}: it stands for queue {queue}",
        Code.LOCAL_QUEUE_REMOVED: "local queue {object} removed by {by}",
        Code.NO_SUCH_LOCAL_QUEUE: "no such local queue: {object}",
        Code.NODE_FLAVOR_SET: "flavor {object} set by {by}: nodes with {detail}",
        Code.NODE_FLAVOR_REMOVED: "flavor {object} removed by {by}",
        Code.NODE_FLAVOR_IN_USE: "flavor {object} is in use: these have a quota of it: {queues}",
        Code.NO_SUCH_NODE_FLAVOR: "no such flavor of nodes: {object}",
        Code.TOO_MANY_OPEN: "tenant {object} has {open:workload} that are not over, and there may be {most}: no more are taken",
        Code.TOO_MANY_NODE_FLAVORS: "flavor {object} would be one too many: there may be {most}",
        Code.PRIORITY_CLASS_SET: "priority class {object} set by {by}",
        Code.PRIORITY_CLASS_REMOVED: "priority class {object} removed by {by}",
        Code.NO_SUCH_PRIORITY_CLASS: "no such priority class: {object}",
        Code.COMMAND_RUN: "{by} runs a command in it: {command}",
        Code.SECRET_SET: "secret {object} set by {by}",
        Code.SECRET_REMOVED: "secret {object} removed by {by}",
        Code.SECRETS_HANDED: "secrets handed to it: {names}",
        Code.RESEALED: "{object} is sealed with the key {key} now",
        Code.SEALED_ANEW: "{object} was sealed anew or removed meanwhile",
        Code.NO_SUCH_SECRET: "no such secret: {object}",
        Code.WEBHOOK_ADDED: "webhook {object} to {host} added by {by}",
        Code.WEBHOOK_REMOVED: "webhook {object} removed by {by}",
        Code.WEBHOOK_ROTATED: "webhook {object} has a new secret, made by {by}; the one before it counts for a day",
        Code.WEBHOOK_ENABLED: "webhook {object} enabled by {by}",
        Code.WEBHOOK_DISABLED: "webhook {object} is disabled: {detail}",
        Code.WEBHOOK_KNOWN: "there is a webhook {object} already",
        Code.WEBHOOK_IS_AHEAD: "somebody else has told webhook {object} since it was read",
        Code.NO_SUCH_WEBHOOK: "no such webhook: {object}",
        Code.TOO_MANY_WEBHOOKS: "there are {count} webhooks already, as many as a tenant may have",
        Code.TOLD: "told to webhook {object}",
        Code.METERED: "usage recorded",
        Code.MODEL_REGISTERED: "model {model} version {version} registered",
        Code.DEPLOY_REQUESTED: "endpoint {endpoint} is to serve {model} version {version}",
        Code.ENDPOINT_SWITCHED: "endpoint {endpoint} now serves version {version}",
        Code.DEPLOY_FAILED: "version {version} did not become healthy; endpoint {endpoint} is unchanged: {detail}",
        Code.REPLACED: "stopped because version {version} of endpoint {endpoint} took over",
        Code.ENDPOINT_REMOVED: "endpoint {endpoint} removed by {by}",
        Code.PRICE_SET: "price of {object} set",
        Code.OTHER_CURRENCY: "{object} is priced in {given}, but the price book is in {currency}",
        Code.NODE_CHANGED: "node {node} is {state}",
        Code.NODE_NOT_READY: "{detail}",
        Code.NODE_CORDONED: "cordoned by {by}",
        Code.NODE_UNCORDONED: "uncordoned by {by}: takes work again",
        Code.NODE_DRAINED: "drained by {by}",
        Code.NODE_QUARANTINED: "quarantined by {by}",
        Code.NODE_REFUSES: "quarantined for {seconds:duration}: {detail}",
        Code.NODE_RELEASED: "released by {by}: takes work again",
        Code.QUARANTINE_OVER: "its quarantine is over: takes work again",
        Code.NODE_CLOSED_OTHERWISE: "node {object} is {state}, not {asked}",
        Code.NO_SUCH_NODE: "no such node: {object}",
        Code.WAITS_FOR_NODE: "waits for node {object}: {detail}",
        Code.WAITS_FOR_VOLUME: "waits for volume {object}: {detail}",
        Code.VOLUME_FOUND: "volume {object} lies {where}",
        Code.VOLUME_GONE: "volume {object} is gone from cluster {cluster}",
        Code.VOLUME_REMOVED: "volume {object} in cluster {cluster} removed by {by}",
        Code.VOLUME_IN_USE: "volume {object} is used by {users}",
        Code.NO_SUCH_VOLUME: "no such volume: {object}",
        Code.MOVED: "moved: node {object} is being drained",
        Code.WAITS_AFTER_MOVE: "its node was drained; waits for another place",
        Code.EVICTED: "its pod was evicted: its node was drained",
        Code.PREEMPTS: "waits for {pods:pod} of {runs:run} to yield to it: its places on {nodes} are kept",
        Code.GROWN: "goes on with {ranks:node} of {range}: {count} more on {nodes}",
        Code.SHRUNK: "goes on without {count:node}: {why}",
        Code.PREEMPTED: "preempted for {object}: {why}",
        Code.WAITS_AFTER_PREEMPTION: "was preempted: {why}; waits for another place with its age",
        Code.NOMINATION_DROPPED: "nothing is kept for it any more: {detail}",
        Code.ENDPOINT_MOVES: "endpoint {endpoint} comes up elsewhere: node {object} is being drained",
        Code.CLUSTER_ADDED: "cluster {object} added by {by}",
        Code.CLUSTER_CHANGED: "settings of cluster {object} changed by {by}",
        Code.CLUSTER_READY: "the cluster answers",
        Code.CLUSTER_UNREACHABLE: "the cluster does not answer: {detail}",
        Code.CLUSTER_REFUSED: "the cluster cannot be used: {detail}",
        Code.AGENT_AWAITED: "waits for its agent to call for the first time",
        Code.AGENT_SILENT: "its agent has not been heard since {since}",
        Code.AGENT_CATCHES_UP: "its agent is connected again and catches up; what it finds is told in some seconds",
        Code.CLUSTER_DRAINED: "drained by {by}: nothing new is placed here",
        Code.CLUSTER_RESUMED: "resumed by {by}: takes work again",
        Code.CLUSTER_REMOVED: "removed from the fleet by {by}",
        Code.CLUSTER_KNOWN: "this cluster is in the fleet already, as {other}",
        Code.CREDENTIALS_USED: "the credentials of cluster {object} opened by {by}, to connect to it",
        Code.CLUSTER_FOUND: "the agent of cluster {object} has found it, and is let in",
        Code.CLUSTER_SWAPPED: "the agent of {object} found another cluster than the one that it was: {found}, not {known}",
        Code.AGENT_TOKEN_MADE: "{by} made a new token for the agent of {object}; the one before it has ended",
        Code.OTHER_CLUSTER: "{object} is not of cluster {cluster}",
        Code.AUDIT_REDACTED: "the detail of row {object} was taken out: {why}",
        Code.NO_SUCH_AUDIT_ROW: "the audit has no row {object}",
        Code.FORBIDDEN: "refused, it may not do that: {detail}",
        Code.NOT_LET_IN: "not let in: {detail}",
        Code.CLUSTER_NAME_TAKEN: "the name {object} is taken by another cluster of the fleet",
        Code.CLUSTER_IN_USE: "cluster {object} still holds {pods:pod}",
        Code.NO_SUCH_CLUSTER: "no such cluster: {object}",
        Code.WAITS_FOR_CLUSTER: "waits for cluster {object}: {detail}",
        Code.NO_SUCH_NODES: "no node is as it needs: needs {needs}, but {detail}",
        Code.NO_NODE_ADMITS: "no node meets what the pod requires: its selector, affinity, tolerations and kind of devices",
        Code.WAITS_FOR_GROUP: "waits for its group {object}: {present} of {size} pods are there",
        Code.WAITS_BEHIND_GROUP: "waits behind {ahead:pod} of its group {object}, which are placed first",
        Code.CANNOT_BE_PLACED: "cannot be placed by mainstay: {detail}",
        Code.WITHDRAWN: "its pod was deleted in its cluster",
        Code.NOT_BOUND: "could not be given its place and waits for another: {detail}",
        Code.GUARD_FAILED: "{object} changed since it was read (version {read}, now {now})",
        Code.CAPACITY_TAKEN: "the capacity of {node} was taken in the meantime",
        Code.EPOCH_PASSED: "another leader has taken over (epoch {held}, now {now})",
        Code.DUPLICATE: "already recorded",
        Code.CONTRADICTION: "the database refused it: it contradicts what is stored",
    }
)


IN_FULL = "; in full: "
"""Behind this a detail repeats word for word what it has said in our words: for who must search for it, not for a list."""
BRIEF_CHARACTERS = 200
"""A sentence of our own is hardly ever longer; what others say may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something was done or refused. `object` is what it is about, `numbers` the figures behind it."""

    code: Code
    object: str = ""
    numbers: Mapping[str, int | float | str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The reason in words; a number that was not given shows as `?`. A detail that has no place in it follows."""
        template = SENTENCES[self.code]
        figures = {name: _Figure(value) for name, value in self.numbers.items()}
        words = template.format_map(_Figures({"object": _Figure(self.object), **figures}))
        detail = self.numbers.get("detail")
        return f"{words}: {detail}" if detail and "{detail}" not in template else words

    @property
    def brief(self) -> str:
        """The sentence as a list shows it: without what it repeats in full, and not too much of it."""
        words = self.sentence.partition(IN_FULL)[0]
        if len(words) <= BRIEF_CHARACTERS:
            return words
        cut = words[: BRIEF_CHARACTERS - 1]
        return f"{cut.rpartition(' ')[0] or cut}…"


DURATION = "duration"


class _Figure:
    """`{pods:pod}` in a sentence is `1 pod` or `3 pods`, and `{seconds:duration}` is `6m31s`."""

    def __init__(self, value: float | str) -> None:
        self._value = value

    def __format__(self, noun: str) -> str:
        if not noun:
            return str(self._value)
        if noun == DURATION and isinstance(self._value, int):
            return written(self._value)
        return f"{self._value} {noun}s" if isinstance(self._value, str) else counted(self._value, noun)


class _Figures(dict[str, _Figure]):
    def __missing__(self, key: str) -> _Figure:
        return _Figure("?")
