"""How NCCL is made to let several ranks have one GPU: each way is tried with two of them."""

import os

import torch
import torch.distributed as dist

from gpu.launch import NCCL_WAYS, Rank, run_ranks
from gpu.rows import Row, emit, parser


def main() -> int:
    parser(__doc__).parse_args()
    works = False
    for way in NCCL_WAYS:
        if way == "NCCL_MULTI_RANK_GPU_ENABLE" and torch.cuda.nccl.version() < (2, 30):
            continue
        rows = try_way(way)
        ok = all(row["ok"] for row in rows)
        # A way that does not work is a finding, and no failure while there is another.
        detail = {} if ok else {"error": rows[-1].get("error")}
        emit({"check": f"two ranks, {way}", "works": ok, "way": way, **detail})
        works = works or ok
        if ok:
            break
    emit({"check": "several ranks on one GPU", "ok": works})
    return 0 if works else 1


def try_way(way: str) -> list[Row]:
    os.environ["GPU_CHECK_NCCL"] = way
    return run_ranks(way, adds_up, 2, seconds=40)


def adds_up(rank: Rank) -> None:
    def wrong() -> int:
        x = torch.full([1000], float(rank.rank + 1), device=rank.device.torch)
        dist.all_reduce(x)
        return int((x != 3).sum())

    rank.check("all_reduce", wrong)


if __name__ == "__main__":
    raise SystemExit(main())
