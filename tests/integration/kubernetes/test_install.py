"""What we ship for Kubernetes is rendered, taken by a real API server, and runs: a platform in the cluster that it manages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from testbed import control_plane, images, mainstay_image, node, programs, relay
from testbed.control_plane import ControlPlane
from testbed.fixtures import unavailable, until
from testbed.node import Node
from tests import postgres
from tests.e2e import warm
from tests.integration.kubernetes.installed import MANIFESTS, kubectl, objects
from tests.unit.clusters.kubernetes.restricted import faults

pytestmark = pytest.mark.xdist_group("kubernetes")

ROOT = MANIFESTS.parents[1]
OVERLAYS = sorted((MANIFESTS / "overlays").iterdir())
PAGE = ROOT / "docs" / "how-to" / "install-on-kubernetes.md"
POSTGRESQL_PORT = 5432
START_SECONDS = 120.0
SERVERS = "app.kubernetes.io/component=server"


def rendered(overlay: Path) -> list[dict[str, Any]]:
    if programs.missing():
        unavailable("the programs of the test bed are not built; hint: make testbed-programs")
    done = subprocess.run([programs.path("kubectl"), "kustomize", overlay], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a warning of kustomize"
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda overlay: overlay.name)
def test_an_overlay_is_rendered_and_everything_in_it_has_its_place(overlay: Path) -> None:
    for document in rendered(overlay):
        namespace = document["metadata"].get("namespace")
        if document["kind"] in {
            "Deployment",
            "Service",
            "Secret",
            "ConfigMap",
            "Role",
            "NetworkPolicy",
            "ServiceAccount",
        }:
            assert namespace == "mainstay"
        assert namespace in {None, "mainstay"}
        assert document["metadata"]["name"].startswith("mainstay")


def test_the_platform_passes_the_restricted_profile_and_is_probed() -> None:
    (deployment,) = [
        document for document in rendered(MANIFESTS / "overlays" / "example") if document["kind"] == "Deployment"
    ]
    template = deployment["spec"]["template"]
    assert not faults(template)
    (server,) = template["spec"]["containers"]
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= server.keys()
    assert deployment["spec"]["replicas"] > 1
    for container in (server, *template["spec"]["initContainers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert re.search(r":\d", container["image"]), "no version"


def test_no_secret_is_shipped() -> None:
    for overlay in OVERLAYS:
        for document in rendered(overlay):
            assert document["kind"] != "Secret" or "data" not in document.keys() | document.get("stringData", {}).keys()


def test_the_image_is_made_of_what_is_pinned_and_runs_as_nobody_special() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", lines, re.MULTILINE)
    assert len(stages) == 2
    assert not [stage for stage in stages if ":" not in stage or stage.endswith(":latest")]
    assert lines.count("--require-hashes") == 2
    assert re.findall(r"^USER (\S+)", lines, re.MULTILINE) == ["65532:65532"]
    assert not re.search(r"apt-get|curl|wget|ADD ", lines)
    for path in re.findall(r"^COPY (?!--from)(.+) \S+$", lines, re.MULTILINE):
        assert all((ROOT / name).exists() for name in path.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A platform in a cluster, and the command line of a user outside of it."""

    plane: ControlPlane
    node: Node
    environment: dict[str, str]

    def mainstay(self, *arguments: str, seconds: float = 150) -> str:
        """What a command prints; one that fails or hangs shows what runs in the cluster and what the replicas logged."""
        try:
            done = subprocess.run(
                warm.command(*arguments),
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as error:
            said = error.output.decode() if isinstance(error.output, bytes) else error.output
            pytest.fail(f"{arguments} did not end in {seconds:.0f} s\n{said}\n{seen(self.plane)}")
        assert done.returncode == 0, f"{done.stdout}\n{seen(self.plane)}"
        return done.stdout

    def replicas(self) -> list[str]:
        found = objects(self.plane, "pods", "--namespace=mainstay", f"--selector={SERVERS}")
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The example overlay with the values of this test bed: PostgreSQL and an object store outside, two replicas in pods."""
    if reason := node.why_not():
        unavailable(reason)
    folder = tmp_path_factory.mktemp("installation")
    with contextlib.ExitStack() as parts:
        plane = parts.enter_context(control_plane.running())
        plane.scheduler.start()
        worker = parts.enter_context(node.running(plane))
        for image in (images.busybox(), mainstay_image.mainstay()):
            worker.load(image)
        outer = worker.machine.network.outer
        database = parts.enter_context(database_at(outer))
        store = parts.enter_context(object_store_at(outer))
        write_overlay(folder, plane, worker)
        shell = Shell(plane=plane, folder=folder, database=database, store=store)
        secrets_made, started, used = tried()
        shell.run(secrets_made)
        try:
            shell.run(started)
        except AssertionError:
            print(seen(plane))
            raise
        (service,) = objects(plane, "services", "--namespace=mainstay")
        shell.url = f"https://{worker.address}:{service['spec']['ports'][0]['nodePort']}"
        shell.run(f"{used}\nenv > {folder}/environment")
        environment = dict(
            line.split("=", 1) for line in (folder / "environment").read_text().splitlines() if "=" in line
        )
        yield Installed(plane=plane, node=worker, environment=environment)


def seen(plane: ControlPlane) -> str:
    """What somebody would look at who wonders why an installation does not do what it should."""
    pods = kubectl(plane, "get", "pods", "--all-namespaces", "--output=wide")
    told = kubectl(plane, "--namespace=mainstay", "describe", "pods")[-6_000:]
    logged = kubectl(
        plane, "--namespace=mainstay", "logs", "--all-containers", "--prefix", "--tail=200", f"--selector={SERVERS}"
    )
    return f"{pods}\n{told}\n{logged}"


def tried() -> list[str]:
    """The commands of the page that say that they are tried here."""
    return re.findall(rf"<!-- tried: \S*{Path(__file__).name} -->\n```sh\n(.+?)```", PAGE.read_text(), re.DOTALL)


@dataclass(slots=True, kw_only=True)
class Shell:
    """Somebody who follows the page, with the values of this test bed where it has examples."""

    plane: ControlPlane
    folder: Path
    database: str
    store: str
    url: str = ""

    def run(self, commands: str) -> None:
        for example, value in self._values():
            commands = commands.replace(example, value)
        paths = (programs.path("kubectl").parent, Path(sys.executable).parent, os.environ["PATH"])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
        environment = {
            **kept,
            "PATH": ":".join(map(str, paths)),
            "KUBECONFIG": str(self.plane.kubeconfig),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"

    def _values(self) -> Iterator[tuple[str, str]]:
        yield "deploy/kubernetes/overlays/mine", str(self.folder)
        yield "tls.crt", str(self.folder / "tls.crt")
        yield "tls.key", str(self.folder / "tls.key")
        yield (
            "postgresql://mainstay:PASSWORD@db.example.com/mainstay?sslmode=verify-full&sslrootcert=system",
            self.database,
        )
        more = {
            "AWS_ENDPOINT": self.store,
            "AWS_ALLOW_HTTP": "true",
            # The image of the test bed trusts nobody, and the client of the store asks for somebody to trust.
            "SSL_CERT_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        }
        options = "".join(f" --from-literal={name}={value}" for name, value in more.items())
        yield " --from-literal=AWS_REGION=eu-central-1", f"{options} --from-literal=AWS_REGION=us-east-1"
        yield "MAINSTAY_SERVER=https://mainstay.example.com", f"MAINSTAY_SERVER={self.url}"
        yield "MAINSTAY_CA_FILE=ca.crt", f"MAINSTAY_CA_FILE={self.plane.keys.authority.certificate}"
        image = f"localhost/mainstay:{mainstay_image.version()} --helper-image {images.BUSYBOX}"
        yield "registry.example.com/mainstay:0.1", image


@contextlib.contextmanager
def database_at(address: str) -> Iterator[str]:
    """A PostgreSQL outside of the cluster, reached from its pods; its URL."""
    with postgres.running() as server:
        server.create_database("mainstay")
        ways = [f"{address}:{POSTGRESQL_PORT}", str(server.socket / f".s.PGSQL.{POSTGRESQL_PORT}")]
        carrying = subprocess.Popen([sys.executable, relay.__file__, *ways])
        try:
            yield f"postgresql://postgres@{address}:{POSTGRESQL_PORT}/mainstay?sslmode=disable"
        finally:
            carrying.terminate()
            carrying.wait()


@contextlib.contextmanager
def object_store_at(address: str) -> Iterator[str]:
    """A server that speaks S3; its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        httpx2.put(f"http://{host}:{port}/artifacts").raise_for_status()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def write_overlay(folder: Path, plane: ControlPlane, worker: Node) -> None:
    """The example with our image and addresses, and a way in from outside of the cluster."""
    keys = plane.keys.authority.server("mainstay", "mainstay.mainstay.svc", worker.address)
    (folder / "tls.crt").write_bytes(keys.certificate.read_bytes())
    (folder / "tls.key").write_bytes(keys.key.read_bytes())
    example = MANIFESTS / "overlays" / "example"
    document = yaml.safe_load((example / "kustomization.yaml").read_text())
    for kind in ("resources", "components"):
        document[kind] = [os.path.relpath(example / path, folder) for path in document[kind]]
    document["images"] = [{"name": "mainstay", "newName": "localhost/mainstay", "newTag": mainstay_image.version()}]
    document["replicas"] = [{"name": "mainstay", "count": 2}]
    (settings,) = document["configMapGenerator"]
    settings["literals"] = ["artifacts=s3://artifacts/one", "public-url=https://mainstay.mainstay.svc"]
    outside = [{"op": "add", "path": "/spec/type", "value": "NodePort"}]
    document["patches"] = [{"target": {"kind": "Service", "name": "mainstay"}, "patch": json.dumps(outside)}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))


def test_it_runs_jobs_in_the_cluster_that_it_lives_in(installed: Installed) -> None:
    assert len(installed.replicas()) == 2
    until(lambda: json.loads(installed.mainstay("nodes", "--json")))
    said = installed.mainstay("apply", "-y", "-f", str(ROOT / "examples" / "01-first-job" / "job.yaml"))
    assert "accuracy" in said
    assert {run["phase"] for run in json.loads(installed.mainstay("ps", "--all", "--json"))} == {"succeeded"}
    pods = objects(installed.plane, "pods", "--all-namespaces", "--selector=mainstay.dev/gang")
    assert {(pod["spec"]["nodeName"], pod["metadata"]["namespace"][:3]) for pod in pods} == {
        (installed.node.name, "ms-")
    }


def test_a_replica_that_is_deleted_is_replaced_and_no_job_notices(installed: Installed) -> None:
    before = set(installed.replicas())
    with following(installed, "sh", "-c", "sleep 15; echo through") as job:
        kubectl(installed.plane, "--namespace=mainstay", "delete", "pod", min(before), "--wait=false")
        assert job() == "through\n"
    until(lambda: len(set(installed.replicas()) - before) == 1)
    kubectl(
        installed.plane,
        "--namespace=mainstay",
        "rollout",
        "status",
        "deployment/mainstay",
        f"--timeout={START_SECONDS:.0f}s",
    )


@contextlib.contextmanager
def following(installed: Installed, *command: str) -> Iterator[Callable[[], str]]:
    """A job that runs; at the end its log is asked for."""
    installed.mainstay("run", "-d", "-y", "-n", "through", "--", *command)
    until(lambda: json.loads(installed.mainstay("show", "through", "--json"))["phase"] == "running")

    def log() -> str:
        until(lambda: json.loads(installed.mainstay("show", "through", "--json"))["phase"] == "succeeded")
        # That it has ended is on record before its log is kept.
        until(lambda: "no log yet" not in installed.mainstay("logs", "through"))
        return installed.mainstay("logs", "through")

    yield log


def test_only_one_replica_may_go_at_a_time(installed: Installed) -> None:
    (budget,) = objects(installed.plane, "poddisruptionbudgets", "--namespace=mainstay")
    until(
        lambda: (
            objects(installed.plane, "poddisruptionbudgets", "--namespace=mainstay")[0]["status"].get(
                "disruptionsAllowed"
            )
            == 1
        )
    )
    assert budget["spec"]["maxUnavailable"] == 1


def test_its_requests_have_a_queue_of_their_own(installed: Installed) -> None:
    told = installed.plane.ask("/metrics")
    served = re.findall(
        r'apiserver_flowcontrol_dispatched_requests_total\{flow_schema="mainstay",priority_level="mainstay"\} (\d+)',
        told,
    )
    assert int(served[0]) > 0
