"""What the API accepts besides the job itself. Unknown fields are refused."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import Base64Encoder, BaseModel, BeforeValidator, ConfigDict, EncodedBytes, Field

from mainstay.wire.job import Job
from mainstay.wire.job_values import NAME, Cpu, Duration, Gpu, Memory, Priority
from mainstay.wire.node_labels import Lines, Tolerations
from mainstay.wire.views import TreeEntry

LABEL = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
"""The name of a label, as Kubernetes has it."""

LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
"""Its value, likewise."""


class Request(BaseModel):
    """Base of all request bodies. Strict: "1" is no number and 1 no yes, as the description of the API has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Submission(Request):
    """A job and the digest of its uploaded `workdir` (empty: no code)."""

    job: Job
    code: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class BulkSubmission(Request):
    """Up to 1,000 jobs, accepted together or not at all."""

    jobs: Annotated[list[Submission], Field(min_length=1, max_length=1_000)]


class PlanRequest(Request):
    """A job to be thought about, not submitted."""

    job: Job


class DeployRequest(Request):
    """Serve the model that a workload made. `endpoint` and `model` default to the workload's name."""

    workload: Annotated[str, Field(min_length=1, max_length=120)]
    endpoint: Annotated[str, Field(pattern=NAME)] | None = None
    model: Annotated[str, Field(pattern=NAME)] | None = None
    path: Annotated[str, Field(max_length=200)] = "model"
    """Folder of the model inside the workload's output."""
    infra: Annotated[str, Field(max_length=40)] = ""
    """The cluster where it must run; empty: any."""
    cpu: str = "1"
    memory: str = "1GB"


class SimulatedNodes(Request):
    """So many equal nodes of a simulated cluster."""

    count: Annotated[int, Field(ge=1, le=10_000)]
    cpu: Cpu = "1"
    memory: Memory = "1GB"
    gpu: Gpu = "0"
    labels: Annotated[
        dict[Annotated[str, Field(pattern=LABEL)], Annotated[str, Field(pattern=LABEL_VALUE)]], Field(max_length=50)
    ] = Field(default_factory=dict)
    taints: Tolerations = Field(default_factory=list)
    """KEY=VALUE:EFFECT; without an effect NoSchedule."""


class ClusterRequest(Request):
    """A cluster to be added. One way in: `kubeconfig`, `context` alone (of the platform's own), `in_cluster`; or none
    for `simulated` and `agent`.
    """

    name: Annotated[str, Field(pattern=NAME)]
    kubeconfig: Annotated[str, Field(max_length=512 * 1024, repr=False)] = ""
    """The text of one, without programs to run and without paths to files. It is kept encrypted and never shown."""
    context: Annotated[str, Field(max_length=253)] = ""
    in_cluster: bool = False
    namespaces_per_project: Annotated[int, Field(ge=1, le=100)] = 1
    helper_image: Annotated[str, Field(max_length=500)] = ""
    image: Annotated[str, Field(max_length=500)] = ""
    """Of jobs that name none."""
    topology: dict[Literal["zone", "block", "rack"], Annotated[str, Field(pattern=LABEL)]] = Field(default_factory=dict)
    """Level -> the label of its nodes that says in which one they are; of others, the labels that are known."""
    agent: bool = False
    """An agent beside the cluster carries it, and calls us."""
    simulated: Annotated[list[SimulatedNodes], Field(max_length=20)] = Field(default_factory=list)


class WholeBase64(Base64Encoder):
    """As RFC 4648 has it. The decoder of pydantic skips what is no base 64, and a value would be stored that nobody meant."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        """Line breaks are left out, as tools put them in. The error shows nothing of the value."""
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error:
            msg = "not base 64; encode the value, as `base64 FILE` does"
            raise ValueError(msg) from None


Why = Annotated[str, Field(max_length=500)]


class CordonRequest(Request):
    """Keep new pods off a node."""

    reason: Why = ""


class DrainRequest(Request):
    """Move away what runs on a node."""

    reason: Why = ""
    wait: Duration = ""
    """What reaches its own max_duration within so long is left to its end; empty: nothing is."""


class QuarantineRequest(Request):
    """Keep a node out for a suspicion."""

    reason: Why = ""
    duration: Duration = ""
    """It is released after so long; empty: when somebody says so."""


def _amount(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Amount = Annotated[
    str,
    BeforeValidator(_amount, json_schema_input_type=str | int | float),
    Field(max_length=30, examples=["8", "500m", "1TB"]),
]
"""As in a job: cores (`64`, `500m`), memory (`1TB`; a plain number is in GB), a count of GPUs or pods. 0 is an amount."""


class QuotaRequest(Request):
    """What a queue or cohort has of one resource of one flavor."""

    resource: Literal["cpu", "memory", "gpu", "pods"]
    flavor: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    """A flavor of nodes: what pods on them use. A GPU model or the shape of slices: what pods with such GPUs use elsewhere.
    `default`: what all others use."""
    nominal: Amount
    borrowing_limit: Amount | None = None
    """How much above its own it may use while others leave it idle; null: all that is left."""
    lending_limit: Amount | None = None
    """How much of its own others may use while it leaves it idle; null: all of it."""


class FlavorRequest(Request):
    """Nodes of which queues have quotas, by their labels, or what is to change of such a flavor: null stays as it is."""

    node_labels: Annotated[Lines, Field(min_length=1, examples=[["disk=ssd"]])] | None = None
    """What its nodes are, as of a job's `node_labels`; all of them must hold."""
    before: Annotated[str, Field(max_length=63)] = ""
    """The flavor that it is to come just before: a node is of the first that it meets, and work takes the first that it may use.
    Empty: it stays where it is, and a new one comes last."""


class NamedFlavorRequest(FlavorRequest):
    """A flavor of several."""

    name: Annotated[str, Field(max_length=63)]


class FlavorsRequest(Request):
    """Flavors that are set together or not at all, one after the other."""

    flavors: Annotated[list[NamedFlavorRequest], Field(min_length=1, max_length=64)]


class PreemptionRequest(Request):
    """Whose place the work of a queue may take. All of it is said together: what is left out is as in a new queue."""

    within_queue: Literal["never", "lower-priority", "lower-or-newer-equal-priority"] = "never"
    """Within the queue itself: that of less urgent work, or also of work that is as urgent and newer."""
    reclaim: Literal["never", "lower-priority", "any"] = "never"
    """That of others who have borrowed what is this queue's own."""
    borrow: Literal["never", "lower-priority"] = "never"
    """That of less urgent others who have borrowed, also where it borrows itself. Needs `reclaim`."""
    borrow_priority_max: Annotated[int, Field(ge=0, le=100)] | None = None
    """With `borrow`: no work above this priority; null: any that is less urgent."""
    fair_share: Literal["never", "final-share", "initial-share"] = "never"
    """That of queues which hold more for their weight: where this one then holds no more than the other is left with
    (`final-share`), or less than the other did before (`initial-share`)."""
    min_runtime: Duration = ""
    """So long after it has been placed, work of this queue is left alone."""


class QueueRequest(Request):
    """A queue, or what is to change of it: what is left out, or null, stays as it is."""

    parent: Annotated[str, Field(max_length=40)] | None = None
    """The cohort that it belongs to; empty: none. One that is not there is made without a quota of its own."""
    cohort: bool | None = None
    """An inner node: it takes no workloads, and shares what those below it leave."""
    weight: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    quotas: Annotated[list[QuotaRequest], Field(max_length=500)] | None = None
    """All of them."""
    preemption: PreemptionRequest | None = None
    reserved_after: Duration = ""
    """So long its work waits, finding no room, before a start is reserved for it: ten minutes at first."""
    placement: Annotated[str, Field(max_length=40)] | None = None
    """The policy by which nodes are chosen for its work: `least-waste`, `best-fit` or `spread`; empty: as for everybody."""
    order: Annotated[str, Field(max_length=40)] = ""
    """Which of its work goes first of what is as urgent: `fair` at first, which takes turns between those who submit; `fifo`,
    `strict` (first come, and nothing passes what does not fit), `srtf`, `srsf`."""
    default_max_duration: Duration = ""
    """The max_duration of a job that is submitted to it from now on and says none; `0`: none."""
    users: Annotated[list[Annotated[str, Field(max_length=81)]], Field(max_length=1_000)] | None = None
    """Whose jobs it takes, each `TENANT` or `TENANT/PROJECT`: all of them. An empty list: everybody's."""


class NamedQueueRequest(QueueRequest):
    """A queue of several."""

    name: Annotated[str, Field(max_length=40)]


class QueuesRequest(Request):
    """Queues and cohorts that are set together or not at all."""

    queues: Annotated[list[NamedQueueRequest], Field(min_length=1, max_length=2_048)]


class LocalQueueRequest(Request):
    """The name that a namespace has for a queue: pods that others make there may say it."""

    cluster: Annotated[str, Field(max_length=40)] = ""
    """Only there; empty: in every cluster that says nothing else of that name."""
    namespace: Annotated[str, Field(min_length=1, max_length=63)]
    name: Annotated[str, Field(min_length=1, max_length=63)]
    queue: Annotated[str, Field(min_length=1, max_length=40)]


class LocalQueuesRequest(Request):
    """Names that are set together or not at all."""

    local_queues: Annotated[list[LocalQueueRequest], Field(min_length=1, max_length=1_000)]


class QueueHistoryRequest(Request):
    """Whether what queues have used lately counts, and how. All of it is said together, for all queues."""

    half_life: Annotated[str, Field(min_length=1, max_length=20, examples=["7d"])]
    """What was used so long ago counts half: `7d`, `12h`. 0: no history is kept, and what there is is forgotten."""
    weight: Annotated[float, Field(ge=0, le=1_000)] = 1
    """How many times as much as what is held now; 0: it is kept and shown, and does not count."""
    entry: Duration = ""
    """Every pod counts at once as if it had run for so long, however soon it ends. At most the half-life."""


class PriorityClassRequest(Request):
    """What a name for a priority stands for."""

    priority: Annotated[int, Field(ge=0, le=100)]
    preemptible: bool = True
    """More urgent work may take the place of what has it."""


class PriorityRequest(Request):
    """The priority that a workload is to have: a number or a name."""

    priority: Priority


class SecretRequest(Request):
    """The value of a secret, in base 64."""

    model_config = ConfigDict(strict=False)  # JSON has no bytes: they come as text.

    value: Annotated[bytes, EncodedBytes(encoder=WholeBase64), Field(repr=False)]


class WebhookRequest(Request):
    """An address outside that is to be told what happens."""

    url: Annotated[str, Field(min_length=1, max_length=2_000)]
    """https, or http to this machine where the operator allows it."""
    events: Annotated[list[Annotated[str, Field(max_length=60)]], Field(max_length=50)] = Field(default_factory=list)
    """Types such as `run.failed`; `run.finished` is every end of a run. None: all."""
    name: Annotated[str, Field(max_length=40)] = ""
    """Empty: after the host."""
    project: Annotated[str, Field(max_length=120)] = ""
    """Only runs of this project; empty: whatever the tenant has."""


class TreeUpload(Request):
    """The files of a tree. Answered with what is missing; send those blobs, then ask again."""

    entries: Annotated[list[TreeEntry], Field(max_length=20_000)]
