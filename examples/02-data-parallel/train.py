"""Data-parallel training: every rank computes gradients on its part of the data, and all take the summed step.

Softmax regression on handwritten digits in plain NumPy; the exchange is a few lines over TCP: nothing is hidden.
At the end the job proves itself: all ranks hold the same weights, bit for bit, and they agree with a training of the
same steps in a single process. It fails (exit status 1) if either is not so.
"""

import gzip
import hashlib
import json
import os
import socket
import struct
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

SEED = 7
STEPS = 300
LEARNING_RATE = 0.5
WEIGHT_DECAY = 1e-4
HELD_OUT_SHARE = 0.25
JOIN_SECONDS = 60  # the other ranks may still be starting
PEER_SECONDS = 60  # a rank that is silent for so long is lost, and with it the run
WEIGHT_TOLERANCE = 1e-9  # sums of two halves and of the whole differ in the last bits only


def main():
    rank, ranks, address, port = place()
    print(f"rank {rank} of {ranks}: process {os.getpid()}, meeting at {address}:{port}", flush=True)
    train, held_out = split(*digits())
    mine = part(train, rank, ranks)
    print(f"rank {rank}: {len(mine[0])} of {len(train[0])} training images are mine", flush=True)

    group = Group(rank, ranks, address, port)
    weights = fit(mine, len(train[0]), group.sum, log=rank == 0)
    checksum = hashlib.sha256(weights.tobytes()).hexdigest()
    seen = group.sum(np.eye(ranks)[rank] * len(mine[0]))  # entry r: the images that rank r trained on
    same = group.gather(checksum)
    group.close()

    print(f"rank {rank}: weights sha256 {checksum[:16]}, images per rank {seen.astype(int).tolist()}", flush=True)
    problems = [] if len(set(same)) == 1 else [f"ranks hold different weights: {same}"]
    if seen.sum() != len(train[0]) or not (seen > 0).all():
        problems.append(f"the ranks did not share the data: {seen.tolist()}")
    if rank == 0:
        problems += report(weights, train, held_out, ranks, checksum)
    if problems:
        sys.exit("; ".join(problems))


def place():
    """Rank, number of ranks, meeting point. One process per node: torchrun's variables and the platform's agree."""
    pairs = {
        "RANK": "MAINSTAY_NODE_RANK",
        "GROUP_RANK": "MAINSTAY_NODE_RANK",
        "WORLD_SIZE": "MAINSTAY_NUM_NODES",
        "MASTER_ADDR": "MAINSTAY_MASTER_ADDR",
    }
    for theirs, ours in pairs.items():
        if os.environ.get(theirs, "") != os.environ.get(ours, ""):
            sys.exit(f"{theirs} is {os.environ.get(theirs)!r}, but {ours} is {os.environ.get(ours)!r}")
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    nodes = os.environ["MAINSTAY_NODE_IPS"].replace(",", " ").split()
    if len(nodes) != ranks:
        sys.exit(f"MAINSTAY_NODE_IPS names {len(nodes)} nodes, expected {ranks}: {nodes}")
    print(f"nodes: {nodes}, GPUs per node: {os.environ['MAINSTAY_GPUS_PER_NODE']}", flush=True)
    return rank, ranks, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def digits():
    """Images as rows of 64 pixels in [0, 1] with a constant 1 for the bias, and labels; read without scikit-learn."""
    package = find_spec("sklearn")  # found, not imported: only its data file is wanted
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",")
    pixels = table[:, :64] / 16
    return np.hstack([pixels, np.ones((len(table), 1))]), table[:, 64].astype(int)


def split(images, labels):
    """Training and held-out rows. Every rank shuffles with the same seed, so all agree on who holds what."""
    order = np.random.default_rng(SEED).permutation(len(images))
    held = int(len(images) * HELD_OUT_SHARE)
    return (images[order[held:]], labels[order[held:]]), (images[order[:held]], labels[order[:held]])


def part(rows, rank, ranks):
    """Every ranks-th row, starting with the rank."""
    images, labels = rows
    return images[rank::ranks], labels[rank::ranks]


def fit(rows, rows_total, reduce_sum, *, log):
    """Full-batch gradient descent. `reduce_sum` adds up what the ranks computed; all start from zeros."""
    images, labels = rows
    wanted = np.eye(10)[labels]
    weights = np.zeros((images.shape[1], 10))
    for step in range(1, STEPS + 1):
        chances = softmax(images @ weights)
        loss = -np.log(chances[np.arange(len(labels)), labels]).sum()
        local = np.append((images.T @ (chances - wanted)).ravel(), loss)
        total = reduce_sum(local) / rows_total
        weights -= LEARNING_RATE * (total[:-1].reshape(weights.shape) + WEIGHT_DECAY * weights)
        if log and (step == 1 or step % 50 == 0):
            print(f"step {step:3d}/{STEPS}  loss {total[-1]:.4f}", flush=True)
    return weights


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def accuracy(weights, rows):
    images, labels = rows
    return float(((images @ weights).argmax(axis=1) == labels).mean())


def report(weights, train, held_out, ranks, checksum):
    """Compare with the same steps in one process, write the metrics; returns what is wrong."""
    alone = fit(train, len(train[0]), lambda local: local, log=False)
    difference = float(np.abs(weights - alone).max())
    metrics = {
        "ranks": ranks,
        "accuracy_held_out": accuracy(weights, held_out),
        "accuracy_held_out_single_process": accuracy(alone, held_out),
        "weight_difference_max": difference,
        "weights_sha256": checksum,
    }
    print(f"held-out accuracy: {metrics['accuracy_held_out']:.4f} on {len(held_out[0])} images", flush=True)
    print(
        f"single process:    {metrics['accuracy_held_out_single_process']:.4f}, "
        f"weights differ by at most {difference:.1e}",
        flush=True,
    )
    output = Path(os.environ["MAINSTAY_OUTPUT_DIR"])
    output.mkdir(parents=True, exist_ok=True)
    (output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    if difference > WEIGHT_TOLERANCE:
        return [f"data-parallel and single-process weights differ by {difference:.1e}"]
    return []


class Group:
    """All ranks of the job. Rank 0 listens at MASTER_ADDR:MASTER_PORT; frames are a length and that many bytes."""

    def __init__(self, rank, ranks, address, port):
        self.rank = rank
        self.peers = self._accepted(address, port, ranks) if rank == 0 else [self._joined(rank, address, port)]

    def sum(self, local):
        """The sum over all ranks, the same bits on every rank: rank 0 adds in rank order and sends the result back."""
        if self.rank != 0:
            send(self.peers[0], local.tobytes())
            return np.frombuffer(receive(self.peers[0]))
        total = local.copy()
        for peer in self.peers:
            total += np.frombuffer(receive(peer))
        for peer in self.peers:
            send(peer, total.tobytes())
        return total

    def gather(self, text):
        """Everybody's text, by rank, on every rank."""
        if self.rank != 0:
            send(self.peers[0], text.encode())
            return json.loads(receive(self.peers[0]))
        texts = [text] + [receive(peer).decode() for peer in self.peers]
        for peer in self.peers:
            send(peer, json.dumps(texts).encode())
        return texts

    def close(self):
        for peer in self.peers:
            peer.close()

    @staticmethod
    def _accepted(address, port, ranks):
        """Connections in rank order; each peer says its rank first."""
        peers = {}
        with socket.create_server((address, port)) as listener:
            listener.settimeout(JOIN_SECONDS)
            while len(peers) < ranks - 1:
                peer, _ = listener.accept()
                tune(peer)
                peers[int(receive(peer))] = peer
        return [peers[rank] for rank in range(1, ranks)]

    @staticmethod
    def _joined(rank, address, port):
        """Rank 0 may start later than we do: try until JOIN_SECONDS are over."""
        deadline = time.monotonic() + JOIN_SECONDS
        while True:
            try:
                peer = socket.create_connection((address, port), timeout=PEER_SECONDS)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        tune(peer)
        send(peer, str(rank).encode())
        return peer


def tune(peer):
    peer.settimeout(PEER_SECONDS)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # many small frames, each awaited


def send(peer, content):
    peer.sendall(struct.pack("!Q", len(content)) + content)


def receive(peer):
    (length,) = struct.unpack("!Q", receive_exactly(peer, 8))
    return receive_exactly(peer, length)


def receive_exactly(peer, length):
    content = bytearray()
    while len(content) < length:
        chunk = peer.recv(length - len(content))
        if not chunk:
            sys.exit("another rank hung up before the end")
        content += chunk
    return bytes(content)


if __name__ == "__main__":
    main()
