"""The head: adds up what the workers have counted. It needs next to nothing, and the workers meet at its address."""

import json
import os
import socket
from pathlib import Path

JOIN_SECONDS = 60  # the workers may still be starting


def main():
    sets = dict(one.split(":") for one in os.environ["MAINSTAY_SETS"].split(","))
    workers = int(sets["worker"])
    print(f"{os.environ['MAINSTAY_SET']}: rank {os.environ['RANK']}, waiting for {workers} workers", flush=True)
    found = []
    with socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))) as listener:
        listener.settimeout(JOIN_SECONDS)
        while len(found) < workers:
            worker, _ = listener.accept()
            with worker, worker.makefile() as lines:
                found.append(json.loads(lines.readline()))
    inside, points = (sum(one[name] for one in found) for name in ("inside", "points"))
    result = {"workers": sorted(one["worker"] for one in found), "points": points, "pi": 4 * inside / points}
    print(f"pi is about {result['pi']:.3f}, by {points:,} points of workers {result['workers']}", flush=True)
    output = Path(os.environ["MAINSTAY_OUTPUT_DIR"])
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.json").write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
