"""The client for ordinary code. Every method runs a flow of `calls`; here is only how it waits."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from mainstay.sdk import calls, calls_access
from mainstay.sdk.config import find, trusted
from mainstay.sdk.errors import ApiError, RunFailed
from mainstay.sdk.inside import (
    Command,
    CommandResult,
    Output,
    PortConnection,
    beside,
    command_request,
    port_request,
)
from mainstay.sdk.request import Answer, Flow, Request, Result, Tries, not_ours, require_success
from mainstay.sdk.runs import FINAL, RunView
from mainstay.sdk.sockets import Socket, opening
from mainstay.sdk.streams import SILENCE_SECONDS, FollowEvents, Following, FollowLog, Parser
from mainstay.wire.access import (
    GroupRoleView,
    Kind,
    MemberView,
    NewAdministratorView,
    NewTenantView,
    NewTokenView,
    ProjectView,
    RoleView,
    SignedInView,
    SignInCodeView,
    SignInWaysView,
    TenantView,
    TokenRequest,
    TokenView,
)
from mainstay.wire.audit import AuditAnchorsView, AuditRowsView
from mainstay.wire.job import Job
from mainstay.wire.requests import (
    ClusterRequest,
    DeployRequest,
    FlavorRequest,
    LocalQueueRequest,
    NamedFlavorRequest,
    NamedQueueRequest,
    QueueHistoryRequest,
    QueueRequest,
    WebhookRequest,
)
from mainstay.wire.sockets import EXEC_PROTOCOL, PORT_PROTOCOL
from mainstay.wire.views import (
    AgentTokenView,
    AuditView,
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
    ModelVersionView,
    NamedVolumeView,
    NodeView,
    PlanView,
    PriorityClassView,
    QueueHistoryView,
    QueueView,
    SecretView,
    ServerView,
    SignInView,
    WebhookTestView,
    WebhookView,
    WorkloadView,
)

Item = TypeVar("Item")
LOOK_SECONDS, LOOK_SECONDS_MAX = 0.05, 1.0
CHUNK_BYTES = 1 << 20


class Client:
    """Talks to a platform. Without arguments: the one that `mainstay login` or `mainstay up` made known.

    Raises NotConfigured when made, and from every call ApiError for a refusal and Unreachable if nobody answers.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        retries: int = 5,
        timeout: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        found = find(server=server, token=token)
        self.url = found.url
        self._retries = retries
        self._sleep = sleep
        self._http = httpx2.Client(
            base_url=found.url,
            headers={"Authorization": f"Bearer {found.token}"},
            timeout=timeout,
            trust_env=False,
            verify=trusted(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def server(self) -> ServerView:
        """Who answers, and as whom you are known."""
        return self._run(calls.server())

    def sign_in(self) -> SignInView:
        """A link that signs a browser in, once."""
        return self._run(calls.sign_in())

    def submit(self, job: Job, *, base: Path | None = None, key: str | None = None) -> Run:
        """Submit a job; its `workdir` (relative to `base`, or to here) is sent first."""
        return Run(self, self._run(calls.submit(job, base=base, key=key)))

    def submit_many(self, jobs: Sequence[Job], *, base: Path | None = None, key: str | None = None) -> list[Run]:
        """Submit up to 1,000 jobs, together or not at all."""
        return [Run(self, view) for view in self._run(calls.submit_many(jobs, base=base, key=key))]

    def plan(self, job: Job) -> PlanView:
        """What submitting would do now."""
        return self._run(calls.plan(job))

    def list(
        self,
        *,
        name: str = "",
        project: str = "",
        phase: Sequence[str] = (),
        all: bool = False,  # noqa: A002 its public name
        most: int = 0,
    ) -> list[Run]:
        """Runs, newest first; without `phase` and `all` those that have not finished. `most` 0: all pages."""
        found = self._run(calls.workloads(name=name, project=project, phase=phase, everything=all, most=most))
        return [Run(self, view) for view in found]

    def get(self, ref: str) -> Run:
        """By id, or the newest by name."""
        return Run(self, self._run(calls.workload(ref)))

    def stop(self, ref: str) -> Run:
        """Ask for the end of a run."""
        return Run(self, self._run(calls.stop(ref)))

    def hold(self, ref: str) -> Run:
        """Let a run that waits wait on, whatever is free, until it is released."""
        return Run(self, self._run(calls.hold(ref)))

    def release(self, ref: str) -> Run:
        """Let a run that was held have its turn."""
        return Run(self, self._run(calls.release(ref)))

    def reprioritize(self, ref: str, priority: int | str) -> Run:
        """Give a run another priority: 0 to 100, or a name; it keeps its age."""
        return Run(self, self._run(calls.reprioritize(ref, priority)))

    def explain(self, ref: str) -> ExplanationView:
        """Why a run is where it is and what would let it start."""
        return self._run(calls.explain(ref))

    def events(
        self,
        *,
        workload: str = "",
        kinds: Sequence[str] = (),
        about: str = "",
        after: int = 0,
        limit: int = 100,
        newest: bool = False,
    ) -> builtins.list[EventView]:
        """Events, oldest first, after `after`; with `newest` the last ones. `kinds`: such as node and cluster.

        `about`: the name of a node, cluster, endpoint, model, secret or volume.
        """
        return self._run(
            calls.events(workload=workload, kinds=kinds, about=about, after=after, limit=limit, newest=newest)
        )

    def follow_events(
        self, *, workload: str = "", kinds: Sequence[str] = (), about: str = "", after: int = 0
    ) -> Iterator[EventView]:
        """Events as they happen, without gaps across broken connections. Ends never."""
        return self._follow(FollowEvents(workload=workload, kinds=kinds, about=about, after=after))

    def read_log(self, ref: str, *, rank: int = 0, attempt: int = 0, offset: int = 0) -> LogView:
        """A piece of a log."""
        return self._run(calls.log_piece(ref, rank=rank, attempt=attempt, offset=offset))

    def logs(self, ref: str, *, rank: int = 0, attempt: int = 0, follow: bool = False) -> Iterator[LogView]:
        """The log of one rank in pieces: what there is of an attempt (0: the newest), or with `follow` all from it on."""
        if follow:
            yield from self._follow(FollowLog(ref, rank=rank, attempt=attempt))
            return
        piece = self.read_log(ref, rank=rank, attempt=attempt)
        while piece.text or piece.dropped:
            yield piece
            if piece.ended:
                return
            piece = self.read_log(ref, rank=rank, attempt=piece.attempt, offset=piece.next_offset)

    def nodes(self) -> builtins.list[NodeView]:
        """Every node."""
        return self._run(calls.nodes())

    def node(self, ref: str) -> NodeView:
        """A node with the pods on it: `NODE`, or `CLUSTER/NODE` where several clusters have one of that name."""
        return self._run(calls.node(ref))

    def cordon_node(self, ref: str, *, reason: str = "") -> NodeView:
        """Place nothing new on a node; what runs there runs on."""
        return self._run(calls.cordon_node(ref, reason=reason))

    def uncordon_node(self, ref: str) -> NodeView:
        """Let a node that was cordoned or is drained take work again."""
        return self._run(calls.uncordon_node(ref))

    def drain_node(self, ref: str, *, reason: str = "", wait: str = "") -> NodeView:
        """Place nothing new on a node and move away what runs. `wait`: a duration such as `30m`; what reaches its own
        max_duration within it is left to its end.
        """
        return self._run(calls.drain_node(ref, reason=reason, wait=wait))

    def quarantine_node(self, ref: str, *, reason: str = "", duration: str = "") -> NodeView:
        """Keep a node out for a suspicion: for a duration such as `2h`, or until it is released."""
        return self._run(calls.quarantine_node(ref, reason=reason, duration=duration))

    def release_node(self, ref: str) -> NodeView:
        """End the quarantine of a node."""
        return self._run(calls.release_node(ref))

    def gpus(self) -> builtins.list[GpuView]:
        """GPUs by model and cluster."""
        return self._run(calls.gpus())

    def clusters(self) -> builtins.list[ClusterView]:
        """Every cluster of the fleet, with its state."""
        return self._run(calls.clusters())

    def cluster(self, name: str) -> ClusterView:
        """One cluster."""
        return self._run(calls.cluster(name))

    def add_cluster(self, request: ClusterRequest, *, key: str | None = None) -> ClusterView:
        """Try the credentials of a cluster and add it; one that is there takes new settings and credentials."""
        return self._run(calls.add_cluster(request, key=key))

    def renew_agent_token(self, name: str) -> AgentTokenView:
        """Make a new token for the agent of a cluster; the one before it ends at once."""
        return self._run(calls.renew_agent_token(name))

    def drain_cluster(self, name: str) -> ClusterView:
        """Place nothing new on a cluster; what runs there runs on."""
        return self._run(calls.drain_cluster(name))

    def resume_cluster(self, name: str) -> ClusterView:
        """Let a drained cluster take work again."""
        return self._run(calls.resume_cluster(name))

    def remove_cluster(self, name: str, *, lost: bool = False) -> None:
        """Take a cluster out of the fleet. `lost`: it is drained, and for certain nothing runs there any more."""
        self._run(calls.remove_cluster(name, lost=lost))

    def volumes(self) -> builtins.list[NamedVolumeView]:
        """The volumes of the tenant that outlive runs: where each lies, how large it is, and what uses it."""
        return self._run(calls.volumes())

    def volume(self, name: str, *, project: str = "", cluster: str = "") -> NamedVolumeView:
        """One volume. Raises Refused (409) if several have the name."""
        return self._run(calls.volume(name, project=project, cluster=cluster))

    def remove_volume(self, name: str, *, project: str = "", cluster: str = "") -> None:
        """Have its cluster delete a volume with all that is in it. Refused (409) while a workload uses it."""
        self._run(calls.remove_volume(name, project=project, cluster=cluster))

    def queues(self) -> builtins.list[QueueView]:
        """Every queue and cohort with its quotas and what is used of them, parents before their children."""
        return self._run(calls.queues())

    def queue(self, name: str) -> QueueView:
        """A queue or cohort."""
        return self._run(calls.queue(name))

    def set_queue(self, name: str, request: QueueRequest) -> QueueView:
        """Set a queue or cohort, or change one that is there: what the request leaves out stays as it is."""
        return self._run(calls.set_queue(name, request))

    def set_queues(self, requests: Sequence[NamedQueueRequest]) -> builtins.list[QueueView]:
        """Set several together or none; those that are not named stay as they are."""
        return self._run(calls.set_queues(requests))

    def remove_queue(self, name: str) -> None:
        """Forget a queue or cohort. Refused while open runs are in it or others are below it."""
        self._run(calls.remove_queue(name))

    def flavors(self) -> builtins.list[FlavorView]:
        """Every flavor of nodes in their order, with what its nodes have."""
        return self._run(calls.flavors())

    def set_flavor(self, name: str, request: FlavorRequest) -> FlavorView:
        """Set a flavor of nodes, or change one that is there: what the request leaves out stays as it is."""
        return self._run(calls.set_flavor(name, request))

    def set_flavors(self, requests: Sequence[NamedFlavorRequest]) -> builtins.list[FlavorView]:
        """Set several together or none, one after the other; those that are not named stay as they are. All there are then."""
        return self._run(calls.set_flavors(requests))

    def remove_flavor(self, name: str) -> None:
        """Forget a flavor of nodes. Refused while a queue or cohort has a quota of it."""
        self._run(calls.remove_flavor(name))

    def local_queues(self) -> builtins.list[LocalQueueView]:
        """Names that namespaces of clusters have for queues, which pods of others may say."""
        return self._run(calls.local_queues())

    def set_local_queues(self, requests: Sequence[LocalQueueRequest]) -> builtins.list[LocalQueueView]:
        """Set several together or none; those that are not named stay as they are. All there are then."""
        return self._run(calls.set_local_queues(requests))

    def remove_local_queue(self, namespace: str, name: str, *, cluster: str = "") -> None:
        """Forget one. Pods that say it from now on wait in the default queue."""
        self._run(calls.remove_local_queue(namespace, name, cluster=cluster))

    def queue_history(self) -> QueueHistoryView:
        """Whether what queues have used lately counts towards their turns, and how."""
        return self._run(calls.queue_history())

    def set_queue_history(self, half_life: str, *, weight: float = 1, entry: str = "") -> QueueHistoryView:
        """Say it anew, for all queues: what was used a half-life ago (`7d`) counts half; `0` turns it off and forgets."""
        request = QueueHistoryRequest(half_life=half_life, weight=weight, entry=entry)
        return self._run(calls.set_queue_history(request))

    def audit(self, *, most: int = 0) -> builtins.list[AuditView]:
        """Every change with who made it, newest first; `most` 0: all of them. For administrators."""
        return self._run(calls.audit(most=most))

    def audit_rows(self, *, after: int = 0, limit: int = 1_000) -> AuditRowsView:
        """Rows after that number as they are chained, oldest first, and the newest of all. For administrators."""
        return self._run(calls.audit_rows(after=after, limit=limit))

    def audit_anchors(self) -> AuditAnchorsView:
        """The newest signed heads that are kept outside of the database, and the public keys. For administrators."""
        return self._run(calls.audit_anchors())

    def redact_audit(self, seq: int, why: str) -> None:
        """Take the detail of a row out, for good, and say why on record. For administrators."""
        self._run(calls.redact_audit(seq, why))

    def priorities(self) -> builtins.list[PriorityClassView]:
        """Every priority class, the most urgent first."""
        return self._run(calls.priorities())

    def set_priority(self, name: str, priority: int, *, preemptible: bool = True) -> PriorityClassView:
        """Give a priority a name. Runs keep the number that they were submitted with."""
        return self._run(calls.set_priority(name, priority, preemptible=preemptible))

    def remove_priority(self, name: str) -> None:
        """Forget a name. Job files that give it are refused from now on."""
        self._run(calls.remove_priority(name))

    def secrets(self) -> builtins.list[SecretView]:
        """The secrets of the tenant: their names, never their values."""
        return self._run(calls.secrets())

    def set_secret(self, name: str, value: bytes | str) -> SecretView:
        """Store a secret, or a new value of one that is there: pods that start from now on are handed that."""
        return self._run(calls.set_secret(name, value.encode() if isinstance(value, str) else value))

    def sealing_keys(self) -> builtins.list[KeyView]:
        """The keys that seal secrets, and how much each has sealed. For administrators."""
        return self._run(calls.sealing_keys())

    def remove_secret(self, name: str) -> None:
        """Forget a secret. Pods that have it keep it; those that start later fail, in words."""
        self._run(calls.remove_secret(name))

    def sign_in_ways(self) -> SignInWaysView:
        """How one signs in at this platform."""
        return self._run(calls_access.sign_in_ways())

    def begin_device(self) -> SignInCodeView:
        """Begin to sign a terminal in: a code to show to who sits there."""
        return self._run(calls_access.begin_device())

    def finish_device(self, device: str) -> SignedInView:
        """A token for twelve hours, once the code was entered at the identity provider; until then ApiError `not_yet`."""
        return self._run(calls_access.finish_device(device))

    def tenants(self, *, removed: bool = False) -> builtins.list[TenantView]:
        """Every tenant, for who administers the platform; else your own. `removed`: those that were removed, instead."""
        return self._run(calls_access.tenants(removed=removed))

    def create_tenant(self, name: str, *, administrator: str) -> NewTenantView:
        """Make a tenant and its first administrator, whose token is shown here and never again."""
        return self._run(calls_access.create_tenant(name, administrator=administrator))

    def appoint_administrator(self, tenant: str, *, administrator: str) -> NewAdministratorView:
        """Make somebody administrator of a tenant, if you administer the platform. Their token is shown here and never again."""
        return self._run(calls_access.appoint_administrator(tenant, administrator=administrator))

    def remove_tenant(self, name: str) -> None:
        """End a tenant for good, with its members, tokens and secrets. Refused while anything lives there."""
        self._run(calls_access.remove_tenant(name))

    def projects(self) -> builtins.list[ProjectView]:
        """The projects of the tenant that you may look into."""
        return self._run(calls_access.projects())

    def create_project(self, name: str) -> None:
        """Make a project of your tenant."""
        self._run(calls_access.create_project(name))

    def remove_project(self, name: str) -> None:
        """End a project of your tenant for good. Refused while anything lives in it."""
        self._run(calls_access.remove_project(name))

    def roles(self) -> builtins.list[RoleView]:
        """Every role with all that it may."""
        return self._run(calls_access.roles())

    def set_role(self, name: str, may: Sequence[str]) -> RoleView:
        """Make a role of the tenant's own, or say anew what it may."""
        return self._run(calls_access.set_role(name, may))

    def remove_role(self, name: str) -> None:
        """Forget a role of the tenant's own. Refused while a member has it."""
        self._run(calls_access.remove_role(name))

    def members(self) -> builtins.list[MemberView]:
        """Everybody of the tenant with their roles."""
        return self._run(calls_access.members())

    def set_member(
        self,
        name: str,
        role: str,
        *,
        project: str = "",
        kind: Kind | None = None,
        subject: str = "",
        issuer: str = "",
    ) -> MemberView:
        """Give somebody a role, in all of the tenant or in one project. `subject`: who they sign in as, at `issuer`."""
        flow = calls_access.set_member(name, role, project=project, kind=kind, subject=subject, issuer=issuer)
        return self._run(flow)

    def group_roles(self) -> builtins.list[GroupRoleView]:
        """What groups of the identity provider may in your tenant."""
        return self._run(calls_access.group_roles())

    def set_group_role(self, group: str, role: str, *, project: str = "") -> GroupRoleView:
        """Give the members of a group a role, in all of the tenant or in one project."""
        return self._run(calls_access.set_group_role(group, role, project=project))

    def remove_group_role(self, group: str, *, project: str = "") -> None:
        """Take it back."""
        self._run(calls_access.remove_group_role(group, project=project))

    def remove_member(self, name: str, *, project: str = "") -> None:
        """Take somebody out of the tenant, with all tokens, or out of one project: from their next request on."""
        self._run(calls_access.remove_member(name, project=project))

    def tokens(self) -> builtins.list[TokenView]:
        """Your own tokens, or, for who may administer members, those of all. None of them is shown."""
        return self._run(calls_access.tokens())

    def token(self, token_id: str) -> TokenView:
        """One of these tokens, with what its runs have used of its caps."""
        return self._run(calls_access.token(token_id))

    def create_token(self, wish: TokenRequest) -> NewTokenView:
        """Make a token for yourself or, if you administer members, for another. It is shown here and never again."""
        return self._run(calls_access.create_token(wish))

    def revoke_token(self, token_id: str) -> None:
        """End a token at once, on every replica."""
        self._run(calls_access.revoke_token(token_id))

    def webhooks(self) -> builtins.list[WebhookView]:
        """The addresses outside that are told what happens, without their secrets."""
        return self._run(calls.webhooks())

    def add_webhook(self, url: str, *, events: Sequence[str] = (), name: str = "", project: str = "") -> WebhookView:
        """Tell an address what happens from now on: all, or `events` such as `run.finished`. `secret` is shown only here."""
        request = WebhookRequest(url=url, events=[*events], name=name, project=project)
        return self._run(calls.add_webhook(request))

    def remove_webhook(self, name: str) -> None:
        """Forget a webhook, and what is on its way to it."""
        self._run(calls.remove_webhook(name))

    def rotate_webhook(self, name: str) -> WebhookView:
        """Make a new `secret`; messages are signed with the one before it, too, for a day."""
        return self._run(calls.rotate_webhook(name))

    def enable_webhook(self, name: str) -> WebhookView:
        """Send again what was not sent since it was disabled."""
        return self._run(calls.enable_webhook(name))

    def test_webhook(self, name: str) -> WebhookTestView:
        """Send one message now: what was answered."""
        return self._run(calls.test_webhook(name))

    def deliveries(self, name: str, *, most: int = 0) -> builtins.list[DeliveryView]:
        """What was told to a webhook, newest first, and what became of it; at most `most` where that is given."""
        return self._run(calls.deliveries(name, most=most))

    def cost(
        self,
        *,
        group_by: str = "workload",
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        tenant: str = "",
    ) -> CostView:
        """The bill, by `workload`, `project` or `day`; of the last 30 days if nothing is said.

        `tenant`: another than your own, be it removed, if you administer the platform.
        """
        return self._run(calls.cost(group_by=group_by, since=since, until=until, tenant=tenant))

    def models(self, *, model: str = "") -> builtins.list[ModelVersionView]:
        """Registered versions of models, newest first."""
        return self._run(calls.models(model=model))

    def endpoints(self) -> builtins.list[EndpointView]:
        """Every endpoint."""
        return self._run(calls.endpoints())

    def endpoint(self, name: str) -> EndpointView:
        """One endpoint."""
        return self._run(calls.endpoint(name))

    def deploy(
        self,
        ref: str,
        *,
        endpoint: str | None = None,
        model: str | None = None,
        path: str = "model",
        infra: str = "",
        cpu: str = "1",
        memory: str = "1GB",
        key: str | None = None,
    ) -> EndpointView:
        """Serve the model that a run made, on the cluster `infra` or on any. What serves now goes on until the new
        version is healthy.
        """
        request = DeployRequest(
            workload=ref, endpoint=endpoint, model=model, path=path, infra=infra, cpu=cpu, memory=memory
        )
        return self._run(calls.deploy(request, key=key))

    def remove_endpoint(self, name: str) -> None:
        """Take an endpoint away and stop what serves it."""
        self._run(calls.remove_endpoint(name))

    def predict(self, endpoint: str, body: dict[str, Any], *, model: str = "") -> dict[str, Any]:
        """Ask an endpoint (Open Inference Protocol v2). `model` where it has another name than the endpoint."""
        return self._run(calls.predict(endpoint, body, model=model))

    def exec(self, ref: str, argv: Sequence[str], *, input: bytes = b"", rank: int = 0) -> CommandResult:  # noqa: A002
        """Run a command in a pod that runs, beside its own program, to its end. All of its output is held in memory."""
        output = Output()
        with self.command(ref, argv, stdin=bool(input), rank=rank) as command:
            with beside(lambda: _feed(command, input)):
                while (said := command.receive()) is not None:
                    output.add(*said)
            return output.result(command)

    @contextmanager
    def command(
        self, ref: str, argv: Sequence[str], *, stdin: bool = True, tty: bool = False, rank: int = 0
    ) -> Iterator[Command]:
        """A command in a pod that runs, to talk with; with `tty` it has a terminal. It ends with the block."""
        request = command_request(ref, argv, rank=rank, stdin=stdin, tty=tty)
        with self._socket(request, EXEC_PROTOCOL) as socket:
            yield Command(socket)

    @contextmanager
    def connect(self, ref: str, port: int, *, rank: int = 0) -> Iterator[PortConnection]:
        """A connection to a port of a pod that runs. It ends with the block."""
        with self._socket(port_request(ref, port, rank=rank), PORT_PROTOCOL) as socket:
            yield PortConnection(socket)

    def upload(self, folder: Path, *, project: str = "default") -> str:
        """Send a folder; the digest of its tree."""
        return self._run(calls.upload(Path(folder), project=project))

    def download(self, ref: str, folder: Path | str) -> builtins.list[Path]:
        """Write the output files of a run under a folder; their paths."""
        return self._run(calls.download(ref, Path(folder)))

    def _run(self, flow: Flow[Result]) -> Result:
        try:
            request = next(flow)
            while True:
                try:
                    answer = self._send(request)
                except BaseException as error:  # noqa: BLE001 the flow decides, and most let it pass
                    request = flow.throw(error)
                else:
                    request = flow.send(answer)
        except StopIteration as end:
            result: Result = end.value
            return result

    def _send(self, request: Request) -> Answer:
        tries = Tries(self._retries if request.retried else 0)
        while True:
            try:
                answer = self._once(request)
            except httpx2.TransportError as error:
                pause: float | None = tries.pause_after_failure(self.url, error)
            else:
                pause = tries.pause_after_answer(answer)
                if pause is None:
                    return require_success(answer)
            self._sleep(pause or 0.0)

    def _once(self, request: Request) -> Answer:
        content: str | Iterator[bytes] | None = chunks(request.file) if request.file else request.json or None
        built = self._http.build_request(
            request.method,
            request.path,
            params=request.params,
            headers=request.headers,
            content=content,
            timeout=request.timeout or self._http.timeout,
        )
        response = self._http.send(built, stream=request.sink is not None)
        try:
            if request.sink is not None and response.status_code == 200:
                request.sink.begin()
                for chunk in response.iter_bytes():
                    request.sink.write(chunk)
                return Answer(status=200, headers=response.headers, content=b"")
            return Answer(status=response.status_code, headers=response.headers, content=response.read())
        finally:
            response.close()

    @contextmanager
    def _socket(self, request: Request, protocol: str) -> Iterator[Socket]:
        """An open WebSocket. Not tried again: a command may have begun. Raises ApiError, Unreachable."""
        try:
            response = self._http.send(
                self._http.build_request(
                    request.method, request.path, params=request.params, headers=opening(protocol)
                ),
                stream=True,
            )
        except httpx2.TransportError as error:
            Tries(0).pause_after_failure(self.url, error)
            raise
        try:
            if response.status_code != 101:
                content = response.read()
                require_success(Answer(status=response.status_code, headers=response.headers, content=content))
                raise ApiError(not_ours(response.status_code))
            socket = Socket(response.extensions["network_stream"])
            try:
                yield socket
            finally:
                socket.close()
        finally:
            response.close()

    def _follow(self, following: Following[Item]) -> Iterator[Item]:
        """Across connections; a try counts as new once something has arrived."""
        tries = Tries(self._retries)
        while not following.finished:
            request, parser = following.request(), Parser()
            try:
                with self._http.stream(
                    request.method,
                    request.path,
                    params=request.params,
                    headers={"Accept": "text/event-stream"},
                    timeout=httpx2.Timeout(SILENCE_SECONDS),
                ) as response:
                    answer = Answer(status=response.status_code, headers=response.headers, content=b"")
                    if response.status_code >= 400:
                        answer = Answer(status=response.status_code, headers=response.headers, content=response.read())
                        pause = tries.pause_after_answer(answer)
                        if pause is None:
                            require_success(answer)
                        self._sleep(pause or 0.0)
                        continue
                    for chunk in response.iter_bytes():
                        tries.made = 0
                        for message in parser.feed(chunk):
                            if (item := following.take(message)) is not None:
                                yield item
            except httpx2.TransportError as error:
                self._sleep(tries.pause_after_failure(self.url, error))


class Run(RunView):
    """A run, as it was when last asked."""

    def __init__(self, client: Client, view: WorkloadView) -> None:
        super().__init__(view)
        self._client = client

    def refresh(self) -> Self:
        """Ask again."""
        self.view = self._client.get(self.id).view
        return self

    def wait(self, timeout: float | None = None, *, check: bool = True) -> Self:
        """Until it has finished. Raises TimeoutError, and RunFailed (unless `check` is off) if it did not succeed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = LOOK_SECONDS
        while self.refresh().phase not in FINAL:
            if deadline is not None and time.monotonic() >= deadline:
                msg = f"{self.id} is still {self.phase}"
                raise TimeoutError(msg)
            time.sleep(pause)
            pause = min(pause * 1.2, LOOK_SECONDS_MAX)
        if check and self.phase != "succeeded":
            raise RunFailed(self.view)
        return self

    def logs(self, *, rank: int = 0, attempt: int = 0, follow: bool = False) -> Iterator[LogView]:
        """Its log in pieces; `attempt` 0 is the newest."""
        return self._client.logs(self.id, rank=rank, attempt=attempt, follow=follow)

    def exec(self, argv: Sequence[str], *, input: bytes = b"", rank: int = 0) -> CommandResult:  # noqa: A002
        """Run a command in one of its pods, beside its own program, to its end."""
        return self._client.exec(self.id, argv, input=input, rank=rank)

    def stop(self) -> Self:
        """Ask for its end."""
        self.view = self._client.stop(self.id).view
        return self

    def hold(self) -> Self:
        """Let it wait on until it is released."""
        self.view = self._client.hold(self.id).view
        return self

    def release(self) -> Self:
        """Let it have its turn."""
        self.view = self._client.release(self.id).view
        return self

    def reprioritize(self, priority: int | str) -> Self:
        """Give it another priority: 0 to 100, or a name."""
        self.view = self._client.reprioritize(self.id, priority).view
        return self

    def explain(self) -> ExplanationView:
        """Why it is where it is."""
        return self._client.explain(self.id)

    def download(self, folder: Path | str) -> list[Path]:
        """Write its output files under a folder; their paths."""
        return self._client.download(self.id, folder)

    def deploy(self, *, endpoint: str | None = None, model: str | None = None) -> EndpointView:
        """Serve the model that it made."""
        return self._client.deploy(self.id, endpoint=endpoint, model=model)


def chunks(path: Path) -> Iterator[bytes]:
    """A file in pieces, so that a large one never lies in memory."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _feed(command: Command, data: bytes) -> None:
    """All of the input, and its end. A command that does not want it may end before."""
    if data:
        command.send(data)
        command.end_input()
