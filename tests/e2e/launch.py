"""Stands for a program that `warm.py` forks: hands on its arguments, environment, directory, streams and signals."""

# Started for every command of the tests: it imports next to nothing.
import array
import json
import os
import signal
import socket
import sys

KILL = signal.SIGRTMIN
"""Asks for the end of the fork by SIGKILL."""
FORWARDED = (
    KILL,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


def launch(place: str, arguments: list[str]) -> int:
    """Ask for a fork, hand signals on to it, and end as it ends."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(place)
    asked = {"arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}  # noqa: PTH109 see above
    said = (json.dumps(asked) + "\n").encode()
    sent = line.sendmsg([said], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    line.sendall(said[sent:])
    for number in FORWARDED:
        signal.signal(number, lambda number, _: line.send(bytes([signal.SIGKILL if number == KILL else number])))
    # Let go of what the fork alone should hold: whoever reads its output waits for the end of all who could write.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    code = int(line.makefile().readline() or 1)
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2:]))
