"""A platform in the middle of a busy day, for pages to show: every state that a run can be in, and what belongs to it."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.allocation import End, Owner, Seen
from mainstay.domain.plan import Deploy, DropCandidate, ObserveVolumes, RegisterModel, SetQueue, SwitchEndpoint
from mainstay.domain.queue import QueueSpec, Quota, Resource
from mainstay.domain.reason import Code
from mainstay.domain.volume import VolumeState
from mainstay.domain.workload import Kind, Phase, Volume, Workload
from tests.stores import TENANT
from tests.unit.web.site import Site, size, why

DAY = 86_400
HOUR = 3_600
HOSTILE = (
    b"<script>window.hacked = true</script><img src=x onerror='window.hacked = true'>\n"
    b"\x1b[31mred\x1b[0m and \x1b]0;a title\x07plain\n"
    b"</div></main><h1>not a heading</h1>\n"
    b"a\x00b \xe2\x80\xae drowkcab \xff\xfe end\n" + b"x" * 200_000 + b"\n"
    b"  0%|          | 0/3\r 66%|######    | 2/3\r100%|##########| 3/3\n"
)
MODEL = {"MLmodel": b"flavors: {}\n", "model.skops": b"\x00" * 48_231}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The runs that tests look at."""

    running: Workload
    waiting: Workload
    impossible: Workload
    succeeded: Workload
    failed: Workload
    stopped: Workload
    service: Workload


def furnish(site: Site) -> World:
    """Fill an empty platform."""
    site.at(12 * DAY).prices()
    site.at(12 * DAY).fleet()
    _history(site)
    succeeded = _succeeded(site)
    service = _endpoints(site, succeeded)
    failed = _failed(site)
    stopped = _stopped(site)
    running = _running(site)
    _queues(site)
    _volumes(site)
    waiting = site.at(420).scene.submit(
        name="sweep", choices=(size(cpus=8, gib=64, gpus=8, gpu_model="H100"),), project="vision", priority=60
    )
    site.at(419).advance(
        waiting, Phase.QUEUED, Code.WAITS_FOR_CAPACITY, needs="8 × H100", free="4 × H100 on boreas", object=waiting.id
    )
    impossible = site.at(200).scene.submit(name="giant", choices=(size(cpus=256, gib=64),))
    site.at(199).advance(
        impossible, Phase.QUEUED, Code.NEVER_FITS, needs="256 CPU", largest="64 CPU", object=impossible.id
    )
    site.at(0)
    read = site.scene.workload
    return World(
        running=read(running.id),
        waiting=read(waiting.id),
        impossible=read(impossible.id),
        succeeded=read(succeeded.id),
        failed=read(failed.id),
        stopped=read(stopped.id),
        service=read(service.id),
    )


def _queues(site: Site) -> None:
    """A cohort of two; one of them borrows CPUs of the other, which has little left of its own."""
    cores = ("default", Resource.CPU)
    rows = (
        QueueSpec(name="research", cohort=True),
        QueueSpec(name="nlp", parent="research", quotas={cores: Quota(nominal=4_000, borrowing_limit=8_000)}),
        QueueSpec(name="vision", parent="research", weight=2.0, quotas={cores: Quota(nominal=8_000)}),
    )
    site.at(900).scene.applied(*(SetQueue(queue=row, reason=why(Code.QUEUE_SET, by="ada")) for row in rows))
    work = site.at(890).scene.submit(name="corpus", queue="nlp", choices=(size(cpus=10, gib=8),))
    site.place(work, "atlas")
    site.running(work)


def _volumes(site: Site) -> None:
    """One that a run uses, one that nobody does, and one without storage."""
    project = Owner(tenant=TENANT, project="default")
    once = ("ReadWriteOnce",)
    states = (
        VolumeState(owner=project, name="bert-ckpt", size_bytes=100 * 10**9, access=once, place="on node boreas"),
        VolumeState(owner=project, name="datasets", size_bytes=1 << 40, access=("ReadWriteMany",), storage_class="nfs"),
        VolumeState(owner=project, name="scratchpad", access=once, bound=False),
    )
    site.at(800).scene.applied(ObserveVolumes(cluster="local", volumes=states, reason=why(Code.VOLUME_FOUND)))
    work = site.scene.submit(
        name="reads", volumes=(Volume(path="data", name="datasets"),), choices=(size(cpus=1, gib=1),)
    )
    site.place(work, "atlas")
    site.running(work)


def _history(site: Site) -> None:
    """Runs of the last days, with their cost."""
    sizes = {"tokenize": (8, 32, 0), "pretrain": (16, 128, 4), "evaluate": (4, 16, 1), "embed": (8, 64, 2)}
    for day in range(11, 0, -1):
        for number, (name, (cpus, gib, gpus)) in enumerate(sizes.items()):
            if (day + number) % 3 == 0:
                continue
            hours = 1 + (day * 7 + number * 5) % 4
            project = ("nlp", "search")[number % 2]
            model = "H100" if gpus else ""
            work = site.at(day * DAY).scene.submit(
                name=name, project=project, choices=(size(cpus=cpus, gib=gib, gpus=gpus, gpu_model=model),)
            )
            site.place(work, "boreas")
            site.running(work)
            (pod,) = site.pods(work)
            site.at(day * DAY - hours * HOUR)
            site.bill(pod, start=pod.started_at, end=site.scene.now, project=project)
            site.ended(work)
            site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)


def _succeeded(site: Site) -> Workload:
    """Lost a node once, went well on the second attempt, and left a model."""
    output = site.tree(
        {
            **{f"model/{path}": data for path, data in MODEL.items()},
            "metrics.json": b'{"accuracy": 0.97}\n',
            "plots/confusion matrix.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        }
    )
    scene = site.scene
    work = site.at(3 * HOUR).scene.submit(
        name="digits",
        run=("/bin/sh", "-c", "python train.py --epochs 20 --seed 7 \\\n  --out $MAINSTAY_OUTPUT_DIR/model"),
        env=(("OMP_NUM_THREADS", "4"), ("WANDB_MODE", "offline")),
        choices=(size(cpus=4, gib=8),),
    )
    site.at(3 * HOUR - 240).place(work, "atlas")
    site.at(3 * HOUR - 250).running(work)
    (pod,) = site.pods(work)
    site.cluster.logs[pod.pod] = b"loading data\nepoch 1 loss 0.9\n"
    site.cluster.ended.add(pod.pod)
    site.at(3 * HOUR - 900)
    scene.applied(
        scene.see(pod, Seen.ENDED, end=End.LOST, ended_at=scene.now, started_at=pod.started_at, detail="node went away")
    )
    work = site.advance(work, Phase.PENDING, Code.BACKING_OFF, attempt=2, seconds=10)
    site.at(3 * HOUR - 1200).place(work, "boreas")
    site.at(3 * HOUR - 1215).running(work)
    (pod,) = site.pods(work)
    lines = [f"epoch {epoch} loss {1 / (epoch + 1):.4f} accuracy {1 - 0.5 / (epoch + 1):.4f}" for epoch in range(1, 21)]
    site.cluster.logs[pod.pod] = "\n".join(["loading data", *lines, "saved the model", ""]).encode()
    site.at(3 * HOUR - 2400).bill(pod, start=pod.started_at, end=scene.now)
    site.ended(work, output=output)
    return site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)


def _endpoints(site: Site, made: Workload) -> Workload:
    """One that switches to its second version, one that is starting."""
    scene = site.scene
    tree = site.tree(MODEL)
    for version in (1, 2):
        site.at(2 * HOUR - version)
        reason = why(Code.MODEL_REGISTERED, model="digits", version=version)
        scene.applied(
            RegisterModel(
                model="digits",
                version=version,
                tenant=TENANT,
                project="default",
                tree=tree,
                workload=made.id,
                reason=reason,
            )
        )
    service = _deployed(site, "digits", version=1, ago=1.9 * HOUR)
    site.place(service, "atlas")
    site.running(service)
    switched = why(Code.ENDPOINT_SWITCHED, endpoint="digits", version=1)
    scene.applied(SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=switched))
    candidate = _deployed(site, "digits", version=2, ago=90)
    site.place(candidate, "atlas")
    _deployed(site, "digits-canary", version=2, ago=80)
    failed = _deployed(site, "digits-old", version=1, ago=70)
    site.place(failed, "atlas")
    site.ended(failed, end=End.START_FAILED, exit_code=None)
    site.advance(failed, Phase.FAILED, Code.START_FAILED, rank=0, detail="the model does not load")
    scene.applied(
        DropCandidate(
            tenant=TENANT,
            endpoint="digits-old",
            reason=why(Code.DEPLOY_FAILED, endpoint="digits-old", version=1, detail="the model does not load"),
        )
    )
    return scene.workload(service.id)


def _deployed(site: Site, endpoint: str, *, version: int, ago: float) -> Workload:
    new = site.at(ago).scene.new(
        name=endpoint, kind=Kind.SERVICE, run=("python", "-m", "mainstay.serving"), choices=(size(cpus=1, gib=1),)
    )
    site.scene.applied(
        Deploy(
            endpoint=endpoint,
            tenant=TENANT,
            project="default",
            model="digits",
            version=version,
            workload=new,
            reason=why(Code.DEPLOY_REQUESTED, endpoint=endpoint, model="digits", version=version),
        )
    )
    return site.scene.workload(new.id)


def _failed(site: Site) -> Workload:
    work = site.at(1800).scene.submit(name="tokenizer-test", choices=(size(cpus=2, gib=4),), project="nlp")
    site.at(1790).place(work, "atlas")
    site.at(1786).running(work)
    (pod,) = site.pods(work)
    site.cluster.logs[pod.pod] = (
        b"Traceback (most recent call last):\n  File \"train.py\", line 3\nKeyError: 'labels'\n"
    )
    site.at(1500).bill(pod, start=pod.started_at, end=site.scene.now, project="nlp")
    site.ended(work, exit_code=1)
    return site.advance(work, Phase.FAILED, Code.USER_FAILURE, rank=0, exit_code=1)


def _stopped(site: Site) -> Workload:
    work = site.at(5400).scene.submit(name="notebook-check", choices=(size(cpus=2, gib=4),))
    site.at(5390).place(work, "atlas")
    site.at(5388).running(work)
    site.at(5000).scene.applied(site.scene.stop(work))
    site.ended(work, end=End.STOPPED, exit_code=None)
    return site.advance(work, Phase.STOPPED, Code.STOPPED)


def _running(site: Site) -> Workload:
    """A gang of four that writes a log which means harm."""
    work = site.at(1500).scene.submit(
        name="bert",
        nodes=4,
        run=("torchrun", "--nnodes", "4", "train.py", "--note", "it's fine"),
        choices=(size(cpus=8, gib=64, gpus=1, gpu_model="H100"),),
        project="search",
        stop_grace_seconds=60,
    )
    site.at(1380).place(work, "boreas")
    site.at(1350).running(work)
    for pod in site.pods(work):
        site.cluster.logs[pod.pod] = b"rank %d is here\n" % pod.rank
    site.cluster.logs[f"{work.id}-1-0"] += HOSTILE + b"epoch 1 loss 0.51\n"
    return site.scene.workload(work.id)
