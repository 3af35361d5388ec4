"""A rank of test_partition.py, in a network namespace of its own: prints what it saw as JSON."""

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import torch
import torch.distributed as dist
from harness import links

import bluefog_pg as bf
from bluefog_pg.group import backend_of

TIMEOUT = 1.5  # s
FAILURES = 6


def main():
    rank = links.join()
    torch.set_num_threads(1)
    dist.init_process_group("bluefog", timeout=timedelta(seconds=60))
    bf.set_topology(bf.ring(2))
    seen = {"transport": backend_of().transport_of(1 - rank), "errors": [], "seconds": []}
    assert average(rank) == 0.5
    dist.barrier()
    dist.group.WORLD.set_timeout(timedelta(seconds=TIMEOUT))
    # All that this rank sends goes to a card that is not there. (What the rank's own kernel drops
    # would not make its TCP wait longer and longer before it tries again.)
    neighbor("replace", 1 - rank, "lladdr", "02:00:00:00:00:99", "nud", "permanent")
    for _ in range(FAILURES):
        began = time.monotonic()
        try:
            average(rank)
        except bf.BluefogError as error:
            seen["errors"].append(type(error).__name__)
        seen["seconds"].append(time.monotonic() - began)
    dist.group.WORLD.set_timeout(timedelta(seconds=60))
    neighbor("del", 1 - rank)
    began = time.monotonic()
    seen["after"] = [average(rank) for _ in range(3)]
    seen["healed"] = time.monotonic() - began
    dist.barrier()
    if rank == 0:
        print(json.dumps(seen))
    dist.destroy_process_group()


def average(rank):
    return bf.neighbor_allreduce(torch.full((300_000,), float(rank))).unique().item()


def neighbor(verb, rank, *arguments):
    device = ("dev", links.DEVICE)
    subprocess.run(["ip", "neigh", verb, links.address(rank), *device, *arguments], check=True)


if __name__ == "__main__":
    main()
