"""Secrets for the pods of a cluster, asked of the control plane each time: an agent keeps none."""

from __future__ import annotations

from mainstay.agent.connection import Connection
from mainstay.domain.allocation import Owner
from mainstay.domain.secret import Handed, SecretUse
from mainstay.wire import agent as wire


class RemoteSecrets:
    """Implements `ports.Secrets`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def of(self, pod: str, *, owner: Owner) -> tuple[Handed, ...]:
        """Raises Forbidden as well, for a pod of another cluster."""
        said = await self._connection.acall("POST", "secrets", wire.SecretsSaid, body=_asked(pod, owner))
        return tuple(
            Handed(use=SecretUse(name=one.name, env=one.env, file=one.file), value=one.value) for one in said.secrets
        )

    async def handed(self, pod: str, *, owner: Owner) -> tuple[bytes, ...]:
        """Raises Forbidden as well, for a pod of another cluster."""
        said = await self._connection.acall("POST", "secrets/handed", wire.HandedSaid, body=_asked(pod, owner))
        return said.values


def _asked(pod: str, owner: Owner) -> wire.SecretsAsked:
    return wire.SecretsAsked(pod=pod, tenant=owner.tenant, project=owner.project)
