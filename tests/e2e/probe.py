"""What is reached from inside of a pod: one line of JSON, those of the places that answer. It runs there by its text alone.

`python -c TEXT SECONDS PLACE...`. A place is `tcp:ADDRESS:PORT`, where somebody takes a connection, or `dns:ADDRESS:PORT`, where
somebody answers a question. It asks the first place until that is out of reach, for so many seconds at most, and only then
all: a network that has not heard of a new pod yet lets it pass for a moment.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SECONDS = 3.0
"""Long enough for whoever listens on a busy machine; a network that drops what it refuses says nothing at all."""
QUESTION = bytes.fromhex(
    "beef 0100 0001 0000 0000 0000 0a 6b756265726e65746573 07 64656661756c74 03 737663 07 636c7573746572"
)
QUESTION += bytes.fromhex("05 6c6f63616c 00 0001 0001")
"""The address of kubernetes.default.svc.cluster.local."""


def answers(place: str) -> bool:
    way, address, port = place.split(":")
    with contextlib.suppress(OSError):
        if way == "tcp":
            socket.create_connection((address, int(port)), timeout=SECONDS).close()
            return True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(SECONDS)
            asking.sendto(QUESTION, (address, int(port)))
            return asking.recv(512)[:2] == QUESTION[:2]
    return False


def main() -> None:
    patience, places = float(sys.argv[1]), sys.argv[2:]
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and answers(places[0]):
        time.sleep(0.1)
    with ThreadPoolExecutor(len(places)) as asking:
        print(json.dumps([place for place, open_ in zip(places, asking.map(answers, places), strict=True) if open_]))


if __name__ == "__main__":
    main()
