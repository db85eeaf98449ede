"""A worker: throws points at a square and counts those inside of the circle."""

import json
import os
import random
import socket
import time

POINTS = 200_000
JOIN_SECONDS = 60  # the head may start later


def main():
    number, workers = int(os.environ["MAINSTAY_SET_RANK"]), int(os.environ["MAINSTAY_SET_NODES"])
    print(f"{os.environ['MAINSTAY_SET']} {number} of {workers}: rank {os.environ['RANK']}", flush=True)
    dice = random.Random(number)
    inside = sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(POINTS))
    with head() as connection:
        connection.sendall(json.dumps({"worker": number, "inside": inside, "points": POINTS}).encode() + b"\n")


def head():
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            return socket.create_connection(
                (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=JOIN_SECONDS
            )
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
