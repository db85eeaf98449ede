"""Runs, their pods, and what they were asked to be."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from mainstay.wire.views.base import Problem, ReasonView, ResourcesView, View


class PodView(View):
    """One pod of an attempt."""

    pod: str
    attempt: int
    rank: int
    node: str
    cluster: str
    state: str
    """What was seen of it last: nothing, pulling, starting, running, unknown, ended; or `stopping` once it was told to end."""
    ready: bool
    address: str = ""
    resources: ResourcesView
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stopping_since: datetime | None = None
    """When it was told to end, while it has not."""
    surplus: bool = False
    """The attempt goes on without it."""
    end: str = ""
    exit_code: int | None = None
    detail: str = ""


class SecretUseView(View):
    """A secret that a workload is handed, by name; `env`: also as this variable."""

    name: str
    env: str = ""


class VolumeView(View):
    """A volume as it was asked for. With a name a claim that outlives the run, without one scratch."""

    path: str
    name: str = ""
    size_bytes: int = 0
    """0: none was asked for."""
    storage_class: str = ""
    access: str = ""
    read_only: bool = False
    source: str = ""
    target: str = ""
    secret: str = ""


class PodSetView(View):
    """Some of the ranks of a job whose ranks are not all alike; those of the first set come first."""

    name: str
    nodes: int
    resources: ResourcesView
    run: list[str] = Field(default_factory=list)
    """Empty: what the job runs."""


class WorkloadView(View):
    """A workload as `ps` and `show` display it. `pods` only where a single workload was asked for."""

    id: str
    name: str
    kind: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    preemptible: bool = True
    """More urgent work may take its place."""
    held: bool = False
    """It waits until it is released, whatever is free."""
    token: str = ""
    """Id of the token with which it was submitted, though that be revoked since; empty: without one."""
    phase: str
    state: str = ""
    """In one word, for people: `phase`, or `stopping` from the request for its end until its last pod has ended."""
    reason: ReasonView
    attempt: int
    nodes: int
    nodes_min: int = 0
    """Of an elastic job: without so many it does not start; 0 of any other."""
    nodes_max: int = 0
    """Likewise: it never has more."""
    ranks: int = 0
    """So many nodes its last attempt has, or had at its end; 0 before it had any. Only where workloads were asked for."""
    resources: ResourcesView
    """Of one pod; of several pod sets, of one of the first. Where there is a choice, what it got, while it waits the first."""
    choices: list[ResourcesView] = Field(default_factory=list)
    """While it waits and may be given one of several: all of them, in the order in which they are written."""
    sets: list[PodSetView] = Field(default_factory=list)
    """Where not all pods ask for the same."""
    infra: str = ""
    """The cluster where it must run; empty: any."""
    topology: str = ""
    """How near to each other its pods are to lie: `required rack`, `preferred block`; empty: anywhere in one cluster."""
    spread: str = ""
    """How far apart: `at most 1 per host`, `evenly over zones`; empty: it does not say."""
    max_duration_seconds: int = 0
    """Its time limit, of an attempt: its own, or that of its queue when it was submitted; 0: none."""
    node_labels: list[str] = Field(default_factory=list)
    """What the labels of its nodes must be, all of it: `disk=ssd`, `zone in (a, b)`."""
    node_preferences: list[str] = Field(default_factory=list)
    """Which nodes go before others, with their weight: `disk=nvme (10)`."""
    tolerations: list[str] = Field(default_factory=list)
    """Taints that it puts up with: `dedicated=ml:NoSchedule`."""
    spot: Literal["never", "auto", "only"] = "auto"
    """Whether nodes that may be taken away will do."""
    run: list[str]
    guests: list[str] = Field(default_factory=list)
    """Of the kind `pod`: the pods that others made, as NAMESPACE/NAME by rank."""
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[SecretUseView] = Field(default_factory=list)
    volumes: list[VolumeView] = Field(default_factory=list)
    devices: list[str] = Field(default_factory=list)
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ran_seconds: float = 0
    """How long the attempts that do not run any more ran, together; what it waited between them does not count. Only where
    workloads were asked for, as `running_since` and `stopping_since`.
    """
    running_since: datetime | None = None
    """When the attempt that runs has begun to."""
    stop_requested: bool = False
    stopping_since: datetime | None = None
    """When the first of its pods that have not ended was told to end: because somebody stopped it, or to be moved."""
    output: str = ""
    """Digest of the tree of output files; empty until it succeeded."""
    pods: list[PodView] = Field(default_factory=list)


class BulkView(View):
    """The answers to a bulk submission. All jobs are accepted, or none."""

    items: list[WorkloadView]


Problem.model_rebuild()
