"""neighbor_allgather: every dtype, rows that differ, the order of sources."""

import pytest
import torch
from ranks import run_ranks
from support import FLOATS, TRANSPORTS, assert_same, start, value_of

import bluefog_pg as bf

GATHERED = [
    *FLOATS, torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.complex64, torch.complex128, torch.float8_e4m3fn,
]  # fmt: skip


def gather(rank, n, transport):
    start(transport)
    graph = bf.exponential(n)
    bf.set_topology(graph)
    sources = sorted(set(graph.pred[rank]) - {rank})
    for dtype in GATHERED:
        big = (1 << 20, 3) if dtype in (torch.int16, torch.complex64) else (100, 3)
        for shape in [(5,), (2, 3), (4, 0), (0, 3), big]:
            mine = value_of(rank, (shape[0] + rank, *shape[1:]), dtype)
            y = bf.neighbor_allgather(mine)
            parts = [value_of(j, (shape[0] + j, *shape[1:]), dtype) for j in sources]
            assert y.dtype == dtype
            bits = torch.uint8 if dtype.itemsize == 1 else dtype
            assert_same(y.view(bits), torch.cat([part.view(bits) for part in parts]))
    y = bf.neighbor_allgather(torch.tensor(rank))
    assert_same(y, torch.tensor(sources))
    x = torch.complex(value_of(rank, (2, 3)), value_of(rank + 1, (2, 3)))
    assert_same(
        bf.neighbor_allgather(x.conj().mT, src_ranks=[(rank + 1) % n], dst_ranks=[(rank - 1) % n]),
        torch.complex(
            value_of((rank + 1) % n, (2, 3)), value_of((rank + 1) % n + 1, (2, 3))
        ).mH.clone(),
    )
    # In the order given; here every rank turns the ranks' order round.
    others = [j for j in reversed(range(n)) if j != rank]
    y = bf.neighbor_allgather(torch.full((2,), rank), src_ranks=others, dst_ranks=others)
    assert y.tolist() == [j for j in others for _ in range(2)]
    y = bf.neighbor_allgather(torch.ones(3, 2, requires_grad=True), src_ranks=[], dst_ranks=[])
    assert y.shape == (0, 2) and not y.requires_grad


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_allgather(transport):
    run_ranks(gather, 4, transport)
