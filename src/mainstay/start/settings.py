"""Everything that can be chosen at the start of a platform."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mainstay.domain.outbound import Range
from mainstay.domain.workload import OPEN_MAX

PORT = 8650


@dataclass(frozen=True, slots=True, kw_only=True)
class Oidc:
    """An identity provider, and how it knows us."""

    issuer: str
    client: str
    secret: Path | None = None
    """The file of the client's secret; None: a public client."""
    groups_claim: str = "groups"
    machines: tuple[str, ...] = ()
    """Further issuers, of tokens that machines bring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen at start. `database` empty: SQLite in the state directory."""

    state: Path
    host: str = "127.0.0.1"
    port: int = PORT
    database: str = ""
    artifacts: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    audit_anchor: str = ""
    """Where the head of the audit is kept: a directory or the URL of a bucket. Empty: with the artifacts."""
    secrets_key: Path | None = None
    """The key that seals credentials of clusters, where replicas share one; else it lies in the state directory."""
    public_url: str = ""
    """Where users reach the platform, if that is another address than it listens on: a proxy stands in front of it."""
    replica_address: str = ""
    """host:port where other replicas reach this one. Empty: a free port of `host`, if that is one address."""
    oidc: Oidc | None = None
    """Where people sign in; None: members have tokens only."""
    open_max: int = OPEN_MAX
    """So many workloads of one tenant may be open at a time; 0: no limit."""
    outbound_allow: tuple[Range, ...] = ()
    """Ranges of addresses to which webhooks may be sent beside the public network."""
    allow_image: tuple[str, ...] = ()
    """Registries and repositories of which jobs may name images; empty: any."""
    pin_images: bool = False
    """Tags become digests when a job is submitted, and what an image brings along is looked at."""
    image_key: tuple[str, ...] = ()
    """Files of public keys, each as FILE or REPOSITORY=FILE: images there must be signed by one of them."""
    registry_credentials: Path | None = None
    """Who we are at registries, in the form of Docker's config.json; None: nobody."""
    allow_toleration: tuple[str, ...] = ()
    """Keys of taints that jobs may tolerate; empty: any that is not the system's."""
    rate_max: int = 0
    """So many reads a second of one tenant are answered, half as many of one member; a write counts as eight. 0: no limit."""
    local_cluster: bool = True
    log_level: str = "info"

    @property
    def scheme(self) -> str:
        """https where there is a certificate."""
        return "https" if self.tls_certificate else "http"
