"""etcd, the API server and its controllers on loopback, in a folder of their own.

Ready in a few seconds. It can be stopped, killed, started again and set back to an older state: what a client of a real
cluster has to live through.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from testbed import folders, programs
from testbed.certificates import Authority, Pair
from testbed.processes import STOP_SECONDS_MAX, Running

START_SECONDS_MAX = 90.0
API_SERVER_STOP_SECONDS = 3.0
"""It waits a minute for its watches, which end by themselves only then."""
SERVICE_ADDRESSES = "10.96.0.0/16"
API_ADDRESS, API_NAME = "10.96.0.1", "kubernetes.default.svc"
"""Of the service by which pods reach the API server: the first of them, always."""
ADMIN_GROUP = "system:masters"
CONTROLLERS_OF_ALL = (
    "--controllers=namespace-controller,serviceaccount-controller,serviceaccount-token-controller,node-lifecycle-controller",
)
"""Those of our version that get along with API servers of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What the parts trust each other by."""

    authority: Authority
    server: Pair
    kubelet_client: Pair
    service_accounts: Path
    token: str
    tokens: Path


class ControlPlane:
    """One cluster without nodes."""

    def __init__(self, folder: Path, *, durable: bool = False, audited: str = "", version: str = "") -> None:
        """`durable`: etcd waits for the disk, as it must outside of tests. `audited`: what this user asks for is written down.
        `version`: of `programs.OTHERS`, an API server that is not the usual one.
        """
        self.folder = folder
        self.keys = _keys(folder / "keys")
        self._data = folder / "etcd"
        etcd_port, peer_port, self.port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd_url = f"http://127.0.0.1:{etcd_port}"
        self.kubeconfig = folder / "kubeconfig"
        self._http = httpx2.Client(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=str(self.keys.authority.certificate)),
            headers={"Authorization": f"Bearer {self.keys.token}"},
            timeout=10.0,
            trust_env=False,
        )
        self.etcd = self._program("etcd", *_etcd_options(self._data, etcd_port, peer_port, durable=durable))
        self._audit_log = folder / "audit.log"
        options = [*_api_server_options(self.keys, self.port, etcd_port, folder), *self._audit_options(audited)]
        server = programs.api_server(version).name if version else "kube-apiserver"
        self.api_server = self._program(server, *options)
        write_kubeconfig(
            self.kubeconfig,
            url=self.url,
            authority=self.keys.authority.certificate,
            user={"token": self.keys.token},
        )
        controllers = (*_controller_options(self.keys, self.kubeconfig), *(CONTROLLERS_OF_ALL if version else ()))
        self.controllers = self._program("kube-controller-manager", *controllers)
        self.scheduler = self._program("kube-scheduler", *_scheduler_options(self.kubeconfig))
        """It runs only if it is started: to bind claims, and for comparison."""

    def start(self) -> None:
        """Until requests are answered and namespaces have their service accounts."""
        self.etcd.start()
        self.start_api_server()
        self.controllers.start()
        self.api_server.wait_until(self._has_default_account, seconds=START_SECONDS_MAX)

    def start_api_server(self) -> None:
        """Until it is ready."""
        self.api_server.start()
        self.api_server.wait_until(self._is_ready, seconds=START_SECONDS_MAX)

    def stop(self) -> None:
        """Everything, the last started first."""
        for part in (self.scheduler, self.controllers, self.api_server, self.etcd):
            part.stop()

    def _halt(self) -> None:
        """Stop everything; what the API server was asked to do is done, or is not."""
        self.api_server.kill()
        self.stop()

    def close(self) -> None:
        """Stop everything and let go of the connections."""
        self.stop()
        self._http.close()

    def saved(self) -> Path:
        """A copy of its whole state. Everything is stopped for it and started again."""
        self._halt()
        copy = self.folder / f"saved-{secrets.token_hex(4)}"
        shutil.copytree(self._data, copy)
        self.start()
        return copy

    def restore(self, saved: Path) -> None:
        """Set the cluster back: resource versions go back with it."""
        self._halt()
        shutil.rmtree(self._data)
        shutil.copytree(saved, self._data)
        self.start()

    def ask(self, path: str, *, method: str = "GET", body: Any = None, user: str = "") -> Any:
        """The answer to one request of the administrator, or of a user as whom it asks; a patch is merged. Raises
        httpx2.HTTPError.
        """
        headers = {"Impersonate-User": user} if user else {}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        answer = self._http.request(method, path, json=body, headers=headers)
        answer.raise_for_status()
        return answer.json() if answer.headers["content-type"].startswith("application/json") else answer.text

    def audit(self) -> list[dict[str, Any]]:
        """Every request of the audited user that was answered, oldest first: as audit.k8s.io/v1 Events, with what was sent."""
        return [json.loads(line) for line in self._audit_log.read_text().splitlines()]

    def _audit_options(self, user: str) -> Iterator[str]:
        if user:
            policy = self.folder / "audit-policy.json"
            rules = [{"level": "Request", "users": [user]}, {"level": "None"}]
            content = {
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": ["RequestReceived"],
                "rules": rules,
            }
            policy.write_text(json.dumps(content))
            yield from (f"--audit-policy-file={policy}", f"--audit-log-path={self._audit_log}")

    def _program(self, name: str, *options: str) -> Running:
        command, log = [str(programs.path(name)), *options], self.folder / f"{name}.log"
        seconds = API_SERVER_STOP_SECONDS if name.startswith("kube-apiserver") else STOP_SECONDS_MAX
        return Running(name, command, log=log, stop_seconds_max=seconds)

    def _is_ready(self) -> bool:
        return self._answers("/readyz")

    def _has_default_account(self) -> bool:
        return self._answers("/api/v1/namespaces/default/serviceaccounts/default")

    def _answers(self, path: str) -> bool:
        try:
            self.ask(path)
        except httpx2.HTTPError:  # not there yet, or not ready
            return False
        return True


@contextlib.contextmanager
def running(*, durable: bool = False, audited: str = "", version: str = "") -> Iterator[ControlPlane]:
    """A control plane until the end of the block, in a temporary folder. Options as for `ControlPlane`."""
    with folders.temporary() as folder:
        control_plane = ControlPlane(folder, durable=durable, audited=audited, version=version)
        try:
            control_plane.start()
            yield control_plane
        finally:
            control_plane.close()


def write_kubeconfig(path: Path, *, url: str, authority: Path, user: Mapping[str, str], server_name: str = "") -> None:
    """For kubectl and every other client; JSON is YAML. `server_name`: the name that the server has to prove."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}
    if server_name:
        cluster["tls-server-name"] = server_name
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user"}}],
        "current-context": "testbed",
    }
    path.touch(0o600)
    path.write_text(json.dumps(content, indent=2))


def _keys(folder: Path) -> Keys:
    authority = Authority(folder)
    token = secrets.token_hex(16)
    tokens = folder / "tokens.csv"
    tokens.write_text(f'{token},admin,admin,"{ADMIN_GROUP}"\n')
    return Keys(
        authority=authority,
        server=authority.server("kube-apiserver", "127.0.0.1", "localhost", API_NAME, API_ADDRESS),
        kubelet_client=authority.client("kubelet-client", user="kube-apiserver", group=ADMIN_GROUP),
        service_accounts=authority.service_account_key(),
        token=token,
        tokens=tokens,
    )


def _etcd_options(data: Path, port: int, peer_port: int, *, durable: bool) -> Iterator[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    yield f"--data-dir={data}"
    yield from (f"--listen-client-urls={client}", f"--advertise-client-urls={client}")
    yield from (f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}")
    yield f"--initial-cluster=default={peer}"
    yield from ("--log-level=error", "--quota-backend-bytes=8589934592")
    if not durable:
        yield "--unsafe-no-fsync"


def _api_server_options(keys: Keys, port: int, etcd_port: int, folder: Path) -> Iterator[str]:
    yield f"--etcd-servers=http://127.0.0.1:{etcd_port}"
    yield from (f"--secure-port={port}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1")
    yield f"--cert-dir={folder / 'certificates'}"
    yield from (f"--tls-cert-file={keys.server.certificate}", f"--tls-private-key-file={keys.server.key}")
    yield f"--client-ca-file={keys.authority.certificate}"
    yield f"--token-auth-file={keys.tokens}"
    yield from (f"--service-account-key-file={keys.service_accounts}", "--service-account-issuer=https://testbed")
    yield f"--service-account-signing-key-file={keys.service_accounts}"
    yield f"--kubelet-client-certificate={keys.kubelet_client.certificate}"
    yield f"--kubelet-client-key={keys.kubelet_client.key}"
    yield f"--kubelet-certificate-authority={keys.authority.certificate}"
    yield "--kubelet-preferred-address-types=InternalIP"  # no name server knows the nodes
    yield from ("--authorization-mode=Node,RBAC", f"--service-cluster-ip-range={SERVICE_ADDRESSES}")
    yield "--endpoint-reconciler-type=none"  # an address on loopback is refused as an endpoint
    yield from ("--allow-privileged=true", "--v=0")


def _controller_options(keys: Keys, kubeconfig: Path) -> Iterator[str]:
    yield f"--kubeconfig={kubeconfig}"
    yield f"--service-account-private-key-file={keys.service_accounts}"
    yield f"--root-ca-file={keys.authority.certificate}"
    yield from ("--leader-elect=false", "--use-service-account-credentials=true", "--secure-port=0", "--v=0")
    yield from ("--kube-api-qps=500", "--kube-api-burst=1000", "--concurrent-gc-syncs=8")


def _scheduler_options(kubeconfig: Path) -> Iterator[str]:
    yield f"--kubeconfig={kubeconfig}"
    yield from ("--leader-elect=false", "--secure-port=0", "--v=0")
    yield from ("--kube-api-qps=5000", "--kube-api-burst=5000")


def free_ports(count: int) -> list[int]:
    """Different ones: all are held until the last is found."""
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]
