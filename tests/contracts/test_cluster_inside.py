"""What every cluster promises of looking into its pods: commands beside their own, and connections to their ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mainstay.domain.allocation import DeletePod, ForgetPod, Seen
from mainstay.domain.errors import Gone, Invalid, MainstayError, NotFound, NotYet, Unavailable
from mainstay.ports import Channel, Process
from tests.agents import behind_agent
from tests.clusters import Program, Rig, kubernetes_rig, local_rig, simulated_rig

pytestmark = pytest.mark.xdist_group("local-cluster")
KUBERNETES = pytest.param("kubernetes", marks=pytest.mark.xdist_group("kubernetes"))
LONG = Program(runs_for=60)
PATIENCE_SECONDS = 20


async def rig_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Rig:
    match kind:
        case "local":
            return local_rig(folder)
        case "simulated":
            return simulated_rig(folder)
        case _:
            return await kubernetes_rig(request.getfixturevalue("real_cluster"), folder)


@asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Rig]:
    """Itself, or over the line of an agent."""
    cluster, _, behind = kind.partition(" ")
    async with AsyncExitStack() as stack:
        made = await rig_of(cluster, request, folder)
        if behind:
            made = await stack.enter_async_context(behind_agent(made, folder))
        stack.push_async_callback(made.close)
        yield made


@pytest.fixture(params=["local", "simulated", KUBERNETES, "local behind an agent"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Every cluster."""
    async with opened(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture(params=["local", KUBERNETES, "local behind an agent"])
async def real(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """One where processes are processes, with a pod `p` that runs."""
    async with opened(request.param, request, tmp_path) as made:
        await made.create("p", LONG, env=(("COLOUR", "blue"),))
        await made.seen("p", Seen.RUNNING)
        yield made


async def output(process: Process) -> tuple[str, str]:
    """(standard output, standard error) up to its end."""
    said: dict[Channel, bytes] = dict.fromkeys(Channel, b"")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (message := await process.receive()) is not None:
            said[message[0]] += message[1]
    return said[Channel.STDOUT].decode(), said[Channel.STDERR].decode()


async def ran(rig: Rig, script: str, *, given: bytes | None = None, tty: bool = False) -> tuple[str, str, int | None]:
    async with rig.cluster.exec("p", ["/bin/sh", "-c", script], stdin=given is not None, tty=tty) as process:
        async with asyncio.TaskGroup() as group:
            if given is not None:
                group.create_task(fed(process, given))
            out, err = await output(process)
        return out, err, process.exit_status


async def fed(process: Process, given: bytes) -> None:
    for start in range(0, len(given), 10_000):
        await process.send(given[start : start + 10_000])
    await process.end_input()


async def refusal(rig: Rig, pod: str) -> list[type[MainstayError]]:
    """What both verbs raise."""
    raised = []
    for opening in (lambda: rig.cluster.exec(pod, ["true"]), lambda: rig.cluster.connect(pod, 1)):
        with pytest.raises(MainstayError) as refused:
            async with opening():
                pass
        raised.append(next(kind for kind in (NotFound, NotYet, Gone, Invalid) if isinstance(refused.value, kind)))
    return raised


async def test_who_is_not_there_or_has_ended_lets_nobody_in(rig: Rig):
    assert await refusal(rig, "nobody") == [NotFound, NotFound]
    await rig.create("p", Program())
    await rig.seen("p", Seen.ENDED)
    assert await refusal(rig, "p") == [Gone, Gone]
    await rig.until(ForgetPod(name="p"))
    rig.again()
    assert set(await refusal(rig, "p")) <= {Gone, NotFound}


async def test_a_name_that_is_no_name_of_a_pod_is_not_found(rig: Rig):
    for name in ("../p", "p/../../etc", "", "p\n"):
        assert await refusal(rig, name) == [NotFound, NotFound]


async def test_what_is_simulated_says_so(tmp_path: Path):
    rig = simulated_rig(tmp_path)
    await rig.create("p", LONG)
    assert await refusal(rig, "p") == [NotYet, NotYet]
    await rig.seen("p", Seen.RUNNING)
    assert await refusal(rig, "p") == [Invalid, Invalid]


async def test_a_command_runs_beside_the_program_with_its_environment_and_folder(real: Rig):
    await ran(real, "echo made > here")
    assert await ran(real, "echo $COLOUR; cat here; echo oops >&2; exit 3") == ("blue\nmade\n", "oops\n", 3)
    assert (await real.state("p")).seen is Seen.RUNNING


async def test_input_arrives_whole_and_its_end_is_told(real: Rig):
    given = b"".join(b"line %d\n" % number for number in range(20_000))
    assert await ran(real, "cat; echo end", given=given) == (given.decode() + "end\n", "", 0)


async def test_without_input_there_is_none(real: Rig):
    assert await ran(real, "cat; echo end") == ("end\n", "", 0)


async def test_a_terminal_is_one_with_a_size_that_changes(real: Rig):
    async with real.cluster.exec("p", ["/bin/sh"], stdin=True, tty=True) as process:
        await process.resize(columns=100, rows=33)
        await process.send(b"test -t 0 && echo yes-$((6*7)); stty size; exit 5\n")
        said, none = await output(process)
    assert ("yes-42" in said, "33 100" in said, none, process.exit_status) == (True, True, "", 5)


async def test_ctrl_c_reaches_the_command_and_not_the_program(real: Rig):
    script = "trap 'echo caught; exit 7' INT; echo up; while :; do sleep 0.1; done"
    async with real.cluster.exec("p", ["/bin/sh", "-c", script], stdin=True, tty=True) as process:
        assert await process.receive() == (Channel.STDOUT, b"up\r\n")
        await process.send(b"\x03")
        said, _ = await output(process)
    assert ("caught" in said, process.exit_status) == (True, 7)
    assert (await real.state("p")).seen is Seen.RUNNING


@pytest.mark.parametrize("argv", [["/no/such/program"], ["no-such-program", "x"]])
async def test_what_cannot_be_run_is_told_in_words(real: Rig, argv: Sequence[str]):
    async with real.cluster.exec("p", argv) as process:
        await output(process)
    assert process.exit_status == -1
    assert argv[0] in process.failure


async def test_a_command_killed_by_a_signal_ends_as_in_a_shell(real: Rig):
    assert (await ran(real, "kill -9 $$"))[2] == 137


async def test_much_output_comes_whole_however_slowly_it_is_read(real: Rig):
    async with real.cluster.exec("p", ["/bin/sh", "-c", "seq 1 200000"]) as process:
        await real.let_pass(0.5)
        said, _ = await output(process)
    assert said == "".join(f"{number}\n" for number in range(1, 200_001))


async def test_commands_end_with_their_pod(real: Rig):
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(real.cluster.exec("p", ["/bin/sh", "-c", "echo up; sleep 100"]))
        assert await process.receive() == (Channel.STDOUT, b"up\n")
        await real.act(DeletePod(name="p", grace_seconds=0))
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while await process.receive() is not None:
                    pass
            except Unavailable:
                return
        assert process.exit_status in {-1, 137}


async def test_a_port_is_a_stream_of_bytes_both_ways(real: Rig):
    """`nc` of busybox, which both kinds have: it serves one connection."""
    serve = ["/bin/sh", "-c", "echo up; busybox nc -l -p 18431 -e cat || nc -l -p 18431 -e cat"]
    async with real.cluster.exec("p", serve) as server:
        assert await server.receive() == (Channel.STDOUT, b"up\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            heard = await echoed(real, b"x" * 300_000)
    assert heard == b"x" * 300_000


async def echoed(rig: Rig, data: bytes) -> bytes:
    """What a port that repeats everything says; the server may need a moment to listen."""
    while True:
        try:
            async with rig.cluster.connect("p", 18431) as stream, asyncio.TaskGroup() as group:
                sending = group.create_task(stream.send(data))
                heard = b""
                while len(heard) < len(data) and (part := await stream.receive()) is not None:
                    heard += part
                await sending
                return heard
        except* Unavailable:
            await asyncio.sleep(0.05)


async def test_a_port_where_nobody_listens_is_unavailable(real: Rig):
    async def answer() -> bytes | None:
        async with real.cluster.connect("p", 18432) as stream:
            return await stream.receive()

    with pytest.raises(Unavailable):
        await answer()


async def test_a_port_of_somebody_else_on_this_machine_is_none_of_the_run(tmp_path: Path):
    rig = local_rig(tmp_path)
    await rig.create("p", LONG)
    await rig.seen("p", Seen.RUNNING)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match="listens"):
        async with rig.cluster.connect("p", port):
            pass
    server.close()
    await rig.close()
