"""What the API accepts besides the job itself. Unknown fields are refused."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import Base64Encoder, BaseModel, ConfigDict, EncodedBytes, Field

from mainstay.wire.job import NAME, Cpu, Gpu, Job, Memory
from mainstay.wire.views import TreeEntry


class Request(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


class SecretRequest(Request):
    """The value of a secret, in base 64."""

    value: Annotated[bytes, EncodedBytes(encoder=WholeBase64), Field(repr=False)]


class TreeUpload(Request):
    """The files of a tree. Answered with what is missing; send those blobs, then ask again."""

    entries: Annotated[list[TreeEntry], Field(max_length=20_000)]
