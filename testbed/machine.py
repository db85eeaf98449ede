"""A machine inside this one: processes, mounts and a network of its own, over one folder.

What runs in it cannot outlive it. Its first process waits for the end of a pipe that the maker holds, so it ends even when
the maker is killed; the kernel then ends every process in it, and mounts and network go with the last. What is left is
a folder. Nothing of this machine's own network, mounts or settings is changed, so many fit beside each other.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.folders import MARK
from testbed.processes import Running

OWN = {"run": "/run", "lib": "/var/lib", "log": "/var/log"}
"""What the machine has to itself: in its folder, and where it sees it."""
NETWORKS_MAX = 250
BOOT_SECONDS_MAX = 10.0
BOOTED = "booted"

SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What kubelet would set for all: it finds it done, and the settings of this machine stay as they are."""

_FIRST_PROCESS = """
set -e
mount --make-rshared /
while [ $# -gt 1 ]; do mount --bind "$1" "$2"; shift 2; done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
: > "$1"
cat
"""
"""The shell stays: as the first process it has to wait for the children of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Two small networks: between this machine and the inner one, and for its pods."""

    number: int

    @property
    def device(self) -> str:
        """This machine's end of the cable."""
        return f"testbed{self.number}"

    @property
    def link(self) -> ipaddress.IPv4Network:
        """Of the cable."""
        return ipaddress.IPv4Network(f"10.213.{self.number}.0/24")

    @property
    def outer(self) -> str:
        """The address of this machine."""
        return str(self.link[1])

    @property
    def inner(self) -> str:
        """The address of the machine inside."""
        return str(self.link[2])

    @property
    def pods(self) -> ipaddress.IPv4Network:
        """Reached through the inner machine."""
        return ipaddress.IPv4Network(f"10.214.{self.number}.0/24")


class Machine:
    """One machine. It may be switched off and on again, and keeps its folder and its addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in OWN:
            (folder / name).mkdir(parents=True)
        self._log = folder / "machine.log"
        self._outside: subprocess.Popen[bytes] | None = None
        self._network: Network | None = None

    @property
    def network(self) -> Network:
        """Since it was switched on first."""
        assert self._network is not None
        return self._network

    @property
    def first_process(self) -> int:
        """As this machine numbers it."""
        assert self._outside is not None
        return _children(self._outside.pid)[0]

    def switch_on(self) -> None:
        """Until it has its network. Raises RuntimeError with what went wrong."""
        booted = self.folder / BOOTED
        booted.unlink(missing_ok=True)
        command = ["unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child"]
        command += ["sh", "-c", _FIRST_PROCESS, "sh", *self._mounts(), str(booted)]
        with self._log.open("ab") as log:
            self._outside = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, MARK: str(self.folder)},
            )
        deadline = time.monotonic() + BOOT_SECONDS_MAX
        while not booted.exists():
            if self._outside.poll() is not None or time.monotonic() >= deadline:
                msg = f"a machine does not start: {self._log.read_text(errors='replace').strip()}"
                raise RuntimeError(msg)
            time.sleep(0.01)
        self._network = self._connected(deadline)

    def switch_off(self) -> None:
        """At once, as without power: no process in it hears of it."""
        if self._outside is None:
            return
        with contextlib.suppress(IndexError, ProcessLookupError):
            os.kill(self.first_process, signal.SIGKILL)
        self._outside.communicate()
        self._outside = None

    def program(self, name: str, command: Callable[[], Sequence[str]]) -> Running:
        """Runs inside. It is not started yet; its command is asked for when it is, since the network is known then."""
        return _Inside(name, command, machine=self)

    def do(self, *command: str) -> str:
        """What a command says inside. Raises CalledProcessError."""
        return _output([*self.entering(), *command])

    def entering(self) -> list[str]:
        """The words before a command that runs inside."""
        return ["nsenter", f"--target={self.first_process}", "--mount", "--net", "--pid", "--ipc", "--"]

    def _mounts(self) -> list[str]:
        pairs = [(str(self.folder / name), place) for name, place in OWN.items()]
        for number, (setting, value) in enumerate(SETTINGS.items()):
            file = self.folder / f"setting-{number}"
            file.write_text(value + "\n")
            pairs.append((str(file), f"/proc/sys/{setting}"))
        return [word for pair in pairs if Path(pair[1]).exists() for word in pair]

    def _connected(self, deadline: float) -> Network:
        """The first network that is free, or the one that it had. That may take a moment to go after a switch-off."""
        while True:
            for network in [self._network] if self._network else map(_network, range(NETWORKS_MAX)):
                if not _is_used(network) and self._connects(network):
                    return network
            if time.monotonic() >= deadline:
                msg = "no network is free for a machine"
                raise RuntimeError(msg)
            time.sleep(0.05)

    def _connects(self, network: Network) -> bool:
        """False if another was faster: a device has its name once."""
        peer = ["peer", "name", "eth0", "netns", str(self.first_process)]
        try:
            _output(["ip", "link", "add", network.device, "type", "veth", *peer])
        except subprocess.CalledProcessError:
            return False
        length = network.link.prefixlen
        _output(["ip", "address", "add", f"{network.outer}/{length}", "dev", network.device])
        _output(["ip", "link", "set", network.device, "up"])
        self.do("ip", "address", "add", f"{network.inner}/{length}", "dev", "eth0")
        self.do("ip", "link", "set", "eth0", "up")
        self.do("ip", "route", "add", "default", "via", network.outer)
        _output(["ip", "route", "add", str(network.pods), "via", network.inner])
        return True


class _Inside(Running):
    """A program in a machine: a process out here waits for it, and signals go to the one inside."""

    def __init__(self, name: str, command: Callable[[], Sequence[str]], *, machine: Machine) -> None:
        super().__init__(name, (), log=machine.folder / f"{name}.log")
        self._inner = command
        self._machine = machine

    @property
    def pid(self) -> int:
        return next(iter(_children(super().pid)), super().pid)

    def start(self) -> None:
        self._command = [*self._machine.entering(), *self._inner()]
        super().start()


def _network(number: int) -> Network:
    return Network(number=number)


def _is_used(network: Network) -> bool:
    """Whether this machine has a route into one of its addresses."""
    routes = json.loads(_output(["ip", "-json", "-4", "route"]))
    taken = [ipaddress.IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]
    return any(one.overlaps(ours) for one in taken for ours in (network.link, network.pods))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
