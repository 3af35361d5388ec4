"""neighbor_allreduce beside its rivals. `make bench`, or this file with --help.

All contenders run interleaved in the same processes. The time of an iteration is that of its
slowest rank. With S bytes and d neighbours: algbw = S / t, busbw = S * d / t. Inputs are such that
results are exact in float32 where weights are powers of two; #wrong counts ranks whose result is
not (or, for other weights, is off by more than rounding).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

import bluefog_pg as bf
from bluefog_pg.group import backend_of

Operation = Callable[[torch.Tensor, torch.Tensor], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--bytes", type=int, nargs="+", default=[4, 4096, 2**20, 2**24, 10**8])
    parser.add_argument("--topology", nargs="+", default=["exponential", "one_peer_exponential"])
    parser.add_argument("--rounds", type=int, default=5, help="how often the contenders take turns")
    parser.add_argument(
        "--json", type=Path, help="also append one JSON object per row to this file"
    )
    args = parser.parse_args()
    if "RANK" in os.environ:
        run(args)
        return
    for ranks in args.ranks:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc_per_node", str(ranks), __file__, *sys.argv[1:]]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def run(args: argparse.Namespace) -> None:
    dist.init_process_group("bluefog")
    if dist.get_rank() == 0:
        describe_machine()
    for name in args.topology:
        bf.set_topology(name)
        contenders = make_contenders(bf.get_topology())
        for nbytes in args.bytes:
            rows = compare(contenders, nbytes, name, args.rounds)
            if dist.get_rank() == 0:
                report(rows, args.json)
    dist.destroy_process_group()


def make_contenders(topology: object) -> dict[str, Operation]:
    """Returns name -> operation(x, y) that leaves the result in y."""
    rank, size = dist.get_rank(), dist.get_world_size()
    gloo = dist.new_group(backend="gloo")
    plan = first_plan(topology, rank)
    buffers: dict[int, list[torch.Tensor]] = {}

    def bluefog(x: torch.Tensor, y: torch.Tensor) -> None:
        bf.neighbor_allreduce(x, step=0, out=y)

    def gloo_p2p(x: torch.Tensor, y: torch.Tensor) -> None:
        self_weight, sources, destinations = plan
        received = buffers.setdefault(x.numel(), [torch.empty_like(x) for _ in sources])
        works = [
            *(dist.P2POp(dist.irecv, b, r, gloo) for b, r in zip(received, sources, strict=True)),
            *(dist.P2POp(dist.isend, x, r, gloo) for r in destinations),
        ]
        for work in dist.batch_isend_irecv(works):
            work.wait()
        torch.mul(x, self_weight, out=y)
        for buffer, weight in zip(received, sources.values(), strict=True):
            y.add_(buffer, alpha=weight)

    def gloo_allreduce(x: torch.Tensor, y: torch.Tensor) -> None:
        y.copy_(x)
        dist.all_reduce(y, group=gloo)
        y.div_(size)

    return {"bluefog": bluefog, "gloo p2p": gloo_p2p, "gloo all_reduce": gloo_allreduce}


def first_plan(topology: object, rank: int) -> tuple[float, dict[int, float], list]:
    graph = topology(0) if isinstance(topology, bf.Schedule) else topology
    return *bf.topology.recv_weights(graph, rank), bf.topology.send_ranks(graph, rank)


def compare(
    contenders: dict[str, Operation], nbytes: int, topology: str, rounds: int
) -> list[dict[str, object]]:
    rank, size = dist.get_rank(), dist.get_world_size()
    x = torch.arange(nbytes // 4, dtype=torch.float32) % 1024 + 64 * rank
    outputs = {name: torch.zeros_like(x) for name in contenders}
    iterations = max(3, min(200, int(2e8 // max(nbytes, 1) // 4)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, operation in contenders.items():
            dist.barrier()
            for _ in range(iterations):
                start = time.perf_counter()
                operation(x, outputs[name])
                times[name].append(time.perf_counter() - start)
    graph = bf.get_topology()
    graph = graph(0) if isinstance(graph, bf.Schedule) else graph
    rows = []
    for name, own in times.items():
        slowest = torch.tensor(own[iterations:], dtype=torch.float64)  # the first round warms up
        dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
        degree = size - 1 if "all_reduce" in name else len(bf.topology.recv_weights(graph, rank)[1])
        rows.append(
            {
                "ranks": size,
                "bytes": nbytes,
                "topology": topology,
                "transport": name if name != "bluefog" else backend_of().transport_of(rank ^ 1),
                "contender": name,
                "us": [float(v) * 1e6 for v in quantiles(slowest)],
                "busbw": nbytes * degree / float(slowest.median()) / 1e9,
                "algbw": nbytes / float(slowest.median()) / 1e9,
                "wrong": count_wrong(name, graph, outputs[name]),
            }
        )
    return rows


def quantiles(times: torch.Tensor) -> torch.Tensor:
    return torch.quantile(times, torch.tensor([0, 0.5, 0.99, 1], dtype=torch.float64))


def count_wrong(name: str, graph: object, y: torch.Tensor) -> int:
    """Compares with the exact result: the ramp, plus the weighted mean of 64 * rank."""
    rank, size = dist.get_rank(), dist.get_world_size()
    if "all_reduce" in name:
        offset = 64 * (size - 1) / 2
    else:
        self_weight, sources = bf.topology.recv_weights(graph, rank)
        offset = 64 * (self_weight * rank + sum(w * r for r, w in sources.items()))
    expected = torch.arange(y.numel(), dtype=torch.float32) % 1024 + offset
    exact_weights = "all_reduce" in name or all(
        (1 / w).is_integer() and int(1 / w) & (int(1 / w) - 1) == 0
        for w in bf.topology.recv_weights(graph, rank)[1].values()
    )
    right = torch.equal(y, expected) if exact_weights else torch.allclose(y, expected, rtol=1e-6)
    wrong = torch.tensor([0 if right else 1])
    dist.all_reduce(wrong)
    return int(wrong)


def describe_machine() -> None:
    from bluefog_pg import _build_info

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(
            (ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), cpu
        )
    print(f"\n# {os.cpu_count()} cores, {cpu}; torch {torch.__version__}")
    if _build_info.BUILD_TYPE.lower() not in ("release", "relwithdebinfo"):
        print(f"# WARNING: bluefog_pg is a {_build_info.BUILD_TYPE} build; times mean little")
    print(
        f"{'ranks':>5} {'bytes':>10} {'topology':<21}{'contender':<16} |"
        f"{'min us':>10} {'p50':>10} {'p99':>10} {'max':>10} |"
        f"{'algbw':>7} {'busbw':>7} GB/s | #wrong | p50 / bluefog's"
    )


def report(rows: list[dict], json_file: Path | None) -> None:
    own = rows[0]["us"][1]
    for row in rows:
        us = " ".join(f"{value:10.1f}" for value in row["us"])
        print(
            f"{row['ranks']:>5} {row['bytes']:>10} {row['topology']:<21}{row['contender']:<16} |"
            f"{us} |{row['algbw']:7.3f} {row['busbw']:7.3f}      | {row['wrong']:>6} | "
            f"{row['us'][1] / own:.2f}",
            flush=True,
        )
    if json_file:
        with json_file.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
