"""Every call of the API as a flow: one function each, shared by the sync and the async client."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from mainstay.sdk.errors import NameRefused
from mainstay.sdk.files import FileSink, Folder, destination, scan
from mainstay.sdk.request import Flow, Request, plain, write
from mainstay.wire.audit import AuditAnchorsView, AuditRowsView, RedactRequest
from mainstay.wire.job import Job
from mainstay.wire.requests import (
    BulkSubmission,
    ClusterRequest,
    CordonRequest,
    DeployRequest,
    DrainRequest,
    FlavorRequest,
    FlavorsRequest,
    LocalQueueRequest,
    LocalQueuesRequest,
    NamedFlavorRequest,
    NamedQueueRequest,
    PlanRequest,
    PriorityClassRequest,
    PriorityRequest,
    QuarantineRequest,
    QueueHistoryRequest,
    QueueRequest,
    QueuesRequest,
    Submission,
    WebhookRequest,
)
from mainstay.wire.views import (
    AgentTokenView,
    AuditView,
    BulkView,
    ClusterView,
    CostView,
    DeliveryView,
    EndpointView,
    EventView,
    ExplanationView,
    FlavorView,
    GpuView,
    KeyView,
    LocalQueueView,
    LogView,
    MissingView,
    ModelVersionView,
    NamedVolumeView,
    NodeView,
    Page,
    PlanView,
    PriorityClassView,
    QueueHistoryView,
    QueueView,
    SecretView,
    ServerView,
    SignInView,
    TreeView,
    WebhookTestView,
    WebhookView,
    WorkloadView,
)

PAGE_MAX = 1_000
Item = TypeVar("Item")
PREDICT_SECONDS = 120.0
ADD_SECONDS = 90.0
ANY_CLUSTER = "-"
"""In the place of a cluster: whichever has a node of that name."""


def server() -> Flow[ServerView]:
    """Who answers, and as whom you are known."""
    return (yield Request(method="GET", path="/v1/server")).read(ServerView)


def sign_in() -> Flow[SignInView]:
    """A link that signs a browser in, once."""
    return (yield write("POST", "/v1/sign-in")).read(SignInView)


def upload(folder: Path, *, project: str) -> Flow[str]:
    """Send the files of a folder that its project does not have yet; the digest of the tree."""
    return (yield from send(scan(folder), project=project))


def send(content: Folder, *, project: str) -> Flow[str]:
    """Announce, send what is missing, announce again: until nothing is missing."""
    of = {"project": project}
    while True:
        answer = (yield Request(method="POST", path="/v1/trees", params=of, json=content.manifest)).read(MissingView)
        if not answer.missing:
            return answer.tree
        for digest in answer.missing:
            yield Request(method="PUT", path=f"/v1/blobs/{digest}", params=of, file=content.files[digest])


def submit(job: Job, *, base: Path | None = None, key: str | None = None) -> Flow[WorkloadView]:
    """Send the job's files, then the job. When this returns, the job is on the platform's disk."""
    code = yield from _code(job, base, {})
    body = _json(Submission(job=job, code=code))
    return (yield write("POST", "/v1/workloads", json=body, key=key)).read(WorkloadView)


def submit_many(jobs: Sequence[Job], *, base: Path | None = None, key: str | None = None) -> Flow[list[WorkloadView]]:
    """Up to 1,000 jobs, accepted together or not at all."""
    known: dict[tuple[str, str], str] = {}
    submissions = []
    for job in jobs:
        code = yield from _code(job, base, known)
        submissions.append(Submission(job=job, code=code))
    body = _json(BulkSubmission(jobs=submissions))
    return (yield write("POST", "/v1/workloads/bulk", json=body, key=key)).read(BulkView).items


def _code(job: Job, base: Path | None, known: dict[tuple[str, str], str]) -> Flow[str]:
    """The digest of the job's workdir; the same folder is sent once to each project."""
    if not job.workdir:
        return ""
    what = job.project, job.workdir
    if what not in known:
        folder = (base or Path.cwd()) / Path(job.workdir).expanduser()
        known[what] = yield from upload(folder, project=job.project)
    return known[what]


def plan(job: Job) -> Flow[PlanView]:
    """What submitting would do now."""
    return (yield Request(method="POST", path="/v1/plan", json=_json(PlanRequest(job=job)))).read(PlanView)


def workloads(
    *, name: str = "", project: str = "", phase: Sequence[str] = (), everything: bool = False, most: int = 0
) -> Flow[list[WorkloadView]]:
    """Newest first, all pages; at most `most` where that is given."""
    params = plain({"name": name, "project": project, "phase": ",".join(phase), "all": everything})
    return (yield from pages("/v1/workloads", Page[WorkloadView], params, most=most))


def pages(path: str, page: type[Page[Item]], params: dict[str, Any], *, most: int = 0) -> Flow[list[Item]]:
    """The items of all pages of a list, at most `most` where that is given."""
    found: list[Item] = []
    cursor = ""
    while True:
        limit = min(PAGE_MAX, most - len(found)) if most else PAGE_MAX
        asked = {**params, "limit": limit, **plain({"cursor": cursor})}
        answer = (yield Request(method="GET", path=path, params=asked)).read(page)
        found += answer.items
        cursor = answer.next
        if not cursor or (most and len(found) >= most):
            return found


def workload(ref: str) -> Flow[WorkloadView]:
    """One workload with its pods."""
    return (yield Request(method="GET", path=f"/v1/workloads/{segment(ref)}")).read(WorkloadView)


def stop(ref: str) -> Flow[WorkloadView]:
    """Ask for its end."""
    return (yield write("POST", f"/v1/workloads/{segment(ref)}/stop")).read(WorkloadView)


def hold(ref: str) -> Flow[WorkloadView]:
    """Let it wait until it is released."""
    return (yield write("POST", f"/v1/workloads/{segment(ref)}/hold")).read(WorkloadView)


def release(ref: str) -> Flow[WorkloadView]:
    """Let it have its turn."""
    return (yield write("POST", f"/v1/workloads/{segment(ref)}/release")).read(WorkloadView)


def reprioritize(ref: str, priority: int | str) -> Flow[WorkloadView]:
    """Give it another priority."""
    body = _json(PriorityRequest(priority=priority))
    return (yield write("POST", f"/v1/workloads/{segment(ref)}/priority", json=body)).read(WorkloadView)


def explain(ref: str) -> Flow[ExplanationView]:
    """Why it is where it is."""
    return (yield Request(method="GET", path=f"/v1/workloads/{segment(ref)}/explain")).read(ExplanationView)


def events(
    *,
    workload: str = "",
    kinds: Sequence[str] = (),
    about: str = "",
    after: int = 0,
    limit: int = 100,
    newest: bool = False,
) -> Flow[list[EventView]]:
    """Events, oldest first; with `newest` the last ones."""
    given = {"workload": workload, "kind": list(kinds), "object": about, "newest": newest}
    params = {"limit": limit, **plain({**given, "cursor": str(after) if after else ""})}
    return (yield Request(method="GET", path="/v1/events", params=params)).read(Page[EventView]).items


def log_piece(ref: str, *, rank: int = 0, attempt: int = 0, offset: int = 0) -> Flow[LogView]:
    """A piece of a log."""
    params = plain({"rank": rank, "attempt": attempt, "offset": offset})
    return (yield Request(method="GET", path=f"/v1/workloads/{segment(ref)}/logs", params=params)).read(LogView)


def nodes() -> Flow[list[NodeView]]:
    """Every node."""
    return (yield from pages("/v1/nodes", Page[NodeView], {}))


def node(ref: str) -> Flow[NodeView]:
    """One node with its pods."""
    return (yield Request(method="GET", path=_node(ref))).read(NodeView)


def cordon_node(ref: str, *, reason: str = "") -> Flow[NodeView]:
    """Place nothing new on it."""
    body = _json(CordonRequest(reason=reason))
    return (yield write("POST", f"{_node(ref)}/cordon", json=body)).read(NodeView)


def uncordon_node(ref: str) -> Flow[NodeView]:
    """Let it take work again."""
    return (yield write("POST", f"{_node(ref)}/uncordon")).read(NodeView)


def drain_node(ref: str, *, reason: str = "", wait: str = "") -> Flow[NodeView]:
    """Move away what runs on it."""
    body = _json(DrainRequest(reason=reason, wait=wait))
    return (yield write("POST", f"{_node(ref)}/drain", json=body)).read(NodeView)


def quarantine_node(ref: str, *, reason: str = "", duration: str = "") -> Flow[NodeView]:
    """Keep it out for a suspicion."""
    body = _json(QuarantineRequest(reason=reason, duration=duration))
    return (yield write("POST", f"{_node(ref)}/quarantine", json=body)).read(NodeView)


def release_node(ref: str) -> Flow[NodeView]:
    """End its quarantine."""
    return (yield write("POST", f"{_node(ref)}/release")).read(NodeView)


def _node(ref: str) -> str:
    """`NODE`, or `CLUSTER/NODE` where several clusters have one of that name."""
    cluster, _, name = ref.rpartition("/")
    return f"/v1/nodes/{segment(cluster or ANY_CLUSTER)}/{segment(name)}"


def gpus() -> Flow[list[GpuView]]:
    """GPUs by model and cluster."""
    return (yield Request(method="GET", path="/v1/gpus")).read(Page[GpuView]).items


def clusters() -> Flow[list[ClusterView]]:
    """Every cluster of the fleet."""
    return (yield from pages("/v1/clusters", Page[ClusterView], {}))


def cluster(name: str) -> Flow[ClusterView]:
    """One cluster."""
    return (yield Request(method="GET", path=f"/v1/clusters/{segment(name)}")).read(ClusterView)


def add_cluster(request: ClusterRequest, *, key: str | None = None) -> Flow[ClusterView]:
    """Try its credentials and add it. Trying may take longer than other calls."""
    asked = write("POST", "/v1/clusters", json=_json(request), key=key)
    return (yield replace(asked, timeout=ADD_SECONDS)).read(ClusterView)


def renew_agent_token(name: str) -> Flow[AgentTokenView]:
    """A new token for its agent; the one before it ends."""
    return (yield write("POST", f"/v1/clusters/{segment(name)}/token")).read(AgentTokenView)


def drain_cluster(name: str) -> Flow[ClusterView]:
    """Place nothing new on it."""
    return (yield write("POST", f"/v1/clusters/{segment(name)}/drain")).read(ClusterView)


def resume_cluster(name: str) -> Flow[ClusterView]:
    """Let it take work again."""
    return (yield write("POST", f"/v1/clusters/{segment(name)}/resume")).read(ClusterView)


def remove_cluster(name: str, *, lost: bool = False) -> Flow[None]:
    """Take it out of the fleet."""
    yield write("DELETE", f"/v1/clusters/{segment(name)}", params=plain({"lost": lost}))


def volumes() -> Flow[list[NamedVolumeView]]:
    """All volumes that outlive runs."""
    return (yield from pages("/v1/volumes", Page[NamedVolumeView], {}))


def volume(name: str, *, project: str, cluster: str) -> Flow[NamedVolumeView]:
    """One of them."""
    params = plain({"project": project, "cluster": cluster})
    return (yield Request(method="GET", path=f"/v1/volumes/{segment(name)}", params=params)).read(NamedVolumeView)


def remove_volume(name: str, *, project: str, cluster: str) -> Flow[None]:
    """Have it deleted."""
    params = plain({"project": project, "cluster": cluster})
    yield write("DELETE", f"/v1/volumes/{segment(name)}", params=params)


def queues() -> Flow[list[QueueView]]:
    """Every queue and cohort."""
    return (yield from pages("/v1/queues", Page[QueueView], {}))


def queue(name: str) -> Flow[QueueView]:
    """One queue or cohort."""
    return (yield Request(method="GET", path=f"/v1/queues/{segment(name)}")).read(QueueView)


def set_queue(name: str, request: QueueRequest) -> Flow[QueueView]:
    """Set it, or change it. Without a key: twice is once anyway."""
    return (yield Request(method="PUT", path=f"/v1/queues/{segment(name)}", json=_json(request))).read(QueueView)


def set_queues(requests: Sequence[NamedQueueRequest]) -> Flow[list[QueueView]]:
    """Set several together, or none."""
    body = _json(QueuesRequest(queues=list(requests)))
    return (yield Request(method="PUT", path="/v1/queues", json=body)).read(Page[QueueView]).items


def remove_queue(name: str) -> Flow[None]:
    """Forget it."""
    yield write("DELETE", f"/v1/queues/{segment(name)}")


def flavors() -> Flow[list[FlavorView]]:
    """Every flavor of nodes."""
    return (yield Request(method="GET", path="/v1/flavors")).read(Page[FlavorView]).items


def set_flavor(name: str, request: FlavorRequest) -> Flow[FlavorView]:
    """Set it, or change it. Without a key: twice is once anyway."""
    return (yield Request(method="PUT", path=f"/v1/flavors/{segment(name)}", json=_json(request))).read(FlavorView)


def set_flavors(requests: Sequence[NamedFlavorRequest]) -> Flow[list[FlavorView]]:
    """Set several together, or none."""
    body = _json(FlavorsRequest(flavors=list(requests)))
    return (yield Request(method="PUT", path="/v1/flavors", json=body)).read(Page[FlavorView]).items


def remove_flavor(name: str) -> Flow[None]:
    """Forget it."""
    yield write("DELETE", f"/v1/flavors/{segment(name)}")


def local_queues() -> Flow[list[LocalQueueView]]:
    """Every one."""
    return (yield Request(method="GET", path="/v1/local-queues")).read(Page[LocalQueueView]).items


def set_local_queues(requests: Sequence[LocalQueueRequest]) -> Flow[list[LocalQueueView]]:
    """Set several together, or none."""
    body = _json(LocalQueuesRequest(local_queues=list(requests)))
    return (yield Request(method="PUT", path="/v1/local-queues", json=body)).read(Page[LocalQueueView]).items


def remove_local_queue(namespace: str, name: str, *, cluster: str) -> Flow[None]:
    """Forget it."""
    path = f"/v1/local-queues/{segment(namespace)}/{segment(name)}"
    yield write("DELETE", path, params={"cluster": cluster} if cluster else {})


def queue_history() -> Flow[QueueHistoryView]:
    """As it is on record."""
    return (yield Request(method="GET", path="/v1/queue-history")).read(QueueHistoryView)


def set_queue_history(request: QueueHistoryRequest) -> Flow[QueueHistoryView]:
    """Without a key: twice is once anyway."""
    return (yield Request(method="PUT", path="/v1/queue-history", json=_json(request))).read(QueueHistoryView)


def audit(*, most: int = 0) -> Flow[list[AuditView]]:
    """Newest first, all pages; at most `most` where that is given."""
    return (yield from pages("/v1/audit", Page[AuditView], {}, most=most))


def audit_rows(*, after: int = 0, limit: int = PAGE_MAX) -> Flow[AuditRowsView]:
    """Oldest first, as they are chained."""
    params = {"after": after, "limit": limit}
    return (yield Request(method="GET", path="/v1/audit/rows", params=params)).read(AuditRowsView)


def audit_anchors() -> Flow[AuditAnchorsView]:
    """The newest."""
    return (yield Request(method="GET", path="/v1/audit/anchors")).read(AuditAnchorsView)


def redact_audit(seq: int, why: str) -> Flow[None]:
    """Take a detail out."""
    yield write("POST", f"/v1/audit/{seq}/redact", json=_json(RedactRequest(why=why)))


def priorities() -> Flow[list[PriorityClassView]]:
    """Every priority class."""
    return (yield Request(method="GET", path="/v1/priorities")).read(Page[PriorityClassView]).items


def set_priority(name: str, priority: int, *, preemptible: bool = True) -> Flow[PriorityClassView]:
    """Give a priority a name. Without a key: twice is once anyway."""
    body = _json(PriorityClassRequest(priority=priority, preemptible=preemptible))
    return (yield Request(method="PUT", path=f"/v1/priorities/{segment(name)}", json=body)).read(PriorityClassView)


def remove_priority(name: str) -> Flow[None]:
    """Forget a name."""
    yield write("DELETE", f"/v1/priorities/{segment(name)}")


def secrets() -> Flow[list[SecretView]]:
    """The names of all secrets."""
    return (yield from pages("/v1/secrets", Page[SecretView], {}))


def set_secret(name: str, value: bytes) -> Flow[SecretView]:
    """Store a secret. Without a key: twice is once anyway, and nothing of the value is to be kept but itself."""
    body = json.dumps({"value": base64.b64encode(value).decode()})
    return (yield Request(method="PUT", path=f"/v1/secrets/{segment(name)}", json=body)).read(SecretView)


def sealing_keys() -> Flow[list[KeyView]]:
    """By name."""
    return (yield Request(method="GET", path="/v1/sealing-keys")).read(Page[KeyView]).items


def remove_secret(name: str) -> Flow[None]:
    """Forget a secret."""
    yield write("DELETE", f"/v1/secrets/{segment(name)}")


def webhooks() -> Flow[list[WebhookView]]:
    """All of the tenant."""
    return (yield from pages("/v1/webhooks", Page[WebhookView], {}))


def add_webhook(request: WebhookRequest) -> Flow[WebhookView]:
    """Add one; its secret is in the answer."""
    return (yield write("POST", "/v1/webhooks", json=_json(request))).read(WebhookView)


def remove_webhook(name: str) -> Flow[None]:
    """Forget one."""
    yield write("DELETE", f"/v1/webhooks/{segment(name)}")


def rotate_webhook(name: str) -> Flow[WebhookView]:
    """Make a new secret; it is in the answer."""
    return (yield write("POST", f"/v1/webhooks/{segment(name)}/rotate")).read(WebhookView)


def enable_webhook(name: str) -> Flow[WebhookView]:
    """Without a key: twice is once anyway."""
    return (yield Request(method="PUT", path=f"/v1/webhooks/{segment(name)}/enabled")).read(WebhookView)


def test_webhook(name: str) -> Flow[WebhookTestView]:
    """Not repeated: each try sends a message."""
    path = f"/v1/webhooks/{segment(name)}/test"
    return (yield Request(method="POST", path=path, retried=False)).read(WebhookTestView)


def deliveries(name: str, *, most: int = 0) -> Flow[list[DeliveryView]]:
    """Newest first, all pages; at most `most` where that is given."""
    return (yield from pages(f"/v1/webhooks/{segment(name)}/deliveries", Page[DeliveryView], {}, most=most))


def cost(
    *,
    group_by: str = "workload",
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    tenant: str = "",
) -> Flow[CostView]:
    """The bill."""
    when = plain({"since": _instant(since), "until": _instant(until)})
    params = {"group_by": group_by, **when, **plain({"tenant": tenant})}
    return (yield Request(method="GET", path="/v1/cost", params=params)).read(CostView)


def models(*, model: str = "") -> Flow[list[ModelVersionView]]:
    """Registered versions, newest first."""
    return (yield from pages("/v1/models", Page[ModelVersionView], plain({"model": model})))


def endpoints() -> Flow[list[EndpointView]]:
    """Every endpoint."""
    return (yield from pages("/v1/endpoints", Page[EndpointView], {}))


def endpoint(name: str) -> Flow[EndpointView]:
    """One endpoint."""
    return (yield Request(method="GET", path=f"/v1/endpoints/{segment(name)}")).read(EndpointView)


def deploy(request: DeployRequest, *, key: str | None = None) -> Flow[EndpointView]:
    """Serve the model that a workload made."""
    return (yield write("POST", "/v1/endpoints", json=_json(request), key=key)).read(EndpointView)


def remove_endpoint(name: str) -> Flow[None]:
    """Take an endpoint away."""
    yield write("DELETE", f"/v1/endpoints/{segment(name)}")


def predict(name: str, body: dict[str, Any], *, model: str = "") -> Flow[dict[str, Any]]:
    """Ask a model (Open Inference Protocol v2). `model` is the name of the endpoint's model if it has another."""
    path = f"/endpoints/{segment(name)}/v2/models/{segment(model or name)}/infer"
    answer = yield Request(method="POST", path=path, json=json.dumps(body), timeout=PREDICT_SECONDS, retried=False)
    content: dict[str, Any] = json.loads(answer.content)
    return content


def outputs(ref: str) -> Flow[TreeView]:
    """The files that a run left."""
    return (yield Request(method="GET", path=f"/v1/workloads/{segment(ref)}/outputs")).read(TreeView)


def download(ref: str, folder: Path) -> Flow[list[Path]]:
    """Write the files that a run left under a folder; their paths. Raises FilesRefused."""
    run = yield from workload(ref)
    tree = yield from outputs(run.id)
    paths = []
    for entry in tree.entries:
        sink = FileSink(destination(folder, entry), entry)
        try:
            of = {"project": run.project}
            yield Request(method="GET", path=f"/v1/blobs/{segment(entry.digest)}", params=of, sink=sink)
        except BaseException:
            sink.drop()
            raise
        paths.append(sink.keep())
    return paths


Body = (
    Submission
    | BulkSubmission
    | PlanRequest
    | DeployRequest
    | ClusterRequest
    | CordonRequest
    | DrainRequest
    | QuarantineRequest
    | FlavorRequest
    | FlavorsRequest
    | RedactRequest
    | LocalQueuesRequest
    | QueueHistoryRequest
    | QueueRequest
    | QueuesRequest
    | PriorityClassRequest
    | PriorityRequest
    | WebhookRequest
)


def _json(request: Body) -> str:
    return request.model_dump_json(exclude_defaults=True)


def _instant(moment: datetime | str | None) -> str:
    return moment.isoformat() if isinstance(moment, datetime) else moment or ""


def segment(text: str) -> str:
    """As one segment of a path. Raises NameRefused for what would be none, or would lead to another path."""
    if text in {"", ".", ".."} or "/" in text:
        msg = f"not a name: {text!r}"
        raise NameRefused(msg, hint="names are of letters, digits, `-`, `_` and `.`, never empty, and have no `/`")
    return quote(text, safe="")
