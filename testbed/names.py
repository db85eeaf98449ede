"""`python names.py ADDRESS KUBECONFIG`: a name server for the pods of a test cluster, over UDP.

It knows services and, behind those without an address, their endpoints, also by host name: what ranks of a job find each
other by (github.com/kubernetes/dns, docs/specification.md, 2.3 and 2.4). It asks the API server for each question, so it
has nothing to keep and nothing to miss. Only addresses of version 4, as many as fit into one datagram.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import socketserver
import ssl
import struct
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PORT = 53
SUFFIX = ("svc", "cluster", "local")
TTL_SECONDS = 5
ASK_SECONDS_MAX = 5.0
ANSWERS_MAX = 24
"""16 bytes each: a datagram of 512 bytes holds them with the question."""

_HEADER = struct.Struct("!6H")
_IS_ANSWER, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8400, 0x0100, 0x0080
_NO_ERROR, _SERVER_FAILURE, _NO_SUCH_NAME = 0, 2, 3
_A, _IN = 1, 1


class Unknown(Exception):
    """No such name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a pod asks: the labels of a name in small letters, and the bytes to repeat in the answer."""

    number: int
    labels: tuple[str, ...]
    kind: int
    raw: bytes
    flags: int

    @classmethod
    def read(cls, packet: bytes) -> Question:
        """Raises ValueError, IndexError or struct.error for what is none (RFC 1035, 4.1)."""
        number, flags, *_ = _HEADER.unpack_from(packet)
        labels, at = [], _HEADER.size
        while length := packet[at]:
            labels.append(packet[at + 1 : at + 1 + length].decode("ascii").lower())
            at += 1 + length
        kind, _ = struct.unpack_from("!2H", packet, at + 1)
        raw = packet[_HEADER.size : at + 5]
        return cls(number=number, labels=tuple(labels), kind=kind, raw=raw, flags=flags)

    def answer(self, addresses: list[str], *, code: int = _NO_ERROR) -> bytes:
        """The addresses, or an error."""
        flags = _IS_ANSWER | _RECURSION_AVAILABLE | (self.flags & _RECURSION_DESIRED) | code
        records = [
            struct.pack("!3HIH", 0xC00C, _A, _IN, TTL_SECONDS, 4) + ipaddress.IPv4Address(address).packed
            for address in addresses[:ANSWERS_MAX]
        ]
        return _HEADER.pack(self.number, flags, 1, len(records), 0, 0) + self.raw + b"".join(records)


class Cluster:
    """What the API server says of services."""

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self._url: str = cluster["server"]
        self._headers = {"Authorization": f"Bearer {content['users'][0]['user']['token']}"}
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def addresses(self, labels: tuple[str, ...]) -> list[str]:
        """Of a service, or of one endpoint of it. Raises Unknown."""
        if labels[-len(SUFFIX) :] != SUFFIX or not 2 <= len(labels) - len(SUFFIX) <= 3:
            raise Unknown
        *endpoint, service, namespace = (urllib.parse.quote(label, safe="") for label in labels[: -len(SUFFIX)])
        found = self._get(f"/api/v1/namespaces/{namespace}/services/{service}")
        own: str = found["spec"].get("clusterIP", "None")
        if own != "None" and not endpoint:
            return [own]
        behind = dict(self._endpoints(namespace, service))
        if endpoint:
            behind = {address: name for address, name in behind.items() if name == endpoint[0]}
            if not behind:
                raise Unknown
        return sorted(behind)

    def _endpoints(self, namespace: str, service: str) -> Iterator[tuple[str, str]]:
        """Address and name of each that is ready. One without a host name is named by its address."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        slices = self._get(f"{path}?labelSelector=kubernetes.io%2Fservice-name%3D{service}")["items"]
        for one in (endpoint for each in slices for endpoint in each.get("endpoints") or ()):
            if one.get("conditions", {}).get("ready", True):
                for address in one["addresses"]:
                    yield address, one.get("hostname") or address.replace(".", "-")

    def _get(self, path: str) -> Any:
        try:
            with self._opener.open(
                urllib.request.Request(self._url + path, headers=self._headers), timeout=ASK_SECONDS_MAX
            ) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                raise Unknown from error
            raise


class _Asked(socketserver.BaseRequestHandler):
    """One datagram."""

    def handle(self) -> None:
        packet, socket = self.request
        try:
            question = Question.read(packet)
        except (ValueError, IndexError, struct.error):
            return
        socket.sendto(self._answer(question), self.client_address)

    def _answer(self, question: Question) -> bytes:
        assert isinstance(self.server, _Server)
        try:
            addresses = self.server.cluster.addresses(question.labels)
        except Unknown:
            return question.answer([], code=_NO_SUCH_NAME)
        except OSError:  # the API server does not answer
            return question.answer([], code=_SERVER_FAILURE)
        return question.answer(addresses if question.kind == _A else [])


class _Server(socketserver.ThreadingUDPServer):
    daemon_threads = True

    def __init__(self, address: str, cluster: Cluster) -> None:
        super().__init__((address, PORT), _Asked)
        self.cluster = cluster


def main() -> None:
    """Until it is ended."""
    with _Server(sys.argv[1], Cluster(Path(sys.argv[2]))) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
