"""neighbor_allreduce with a payload_dtype: rounded values are sent, and differences averaged.

Results are compared bit for bit with the equation, one rounding after the other.
"""

from functools import partial

import networkx as nx
import numpy as np
import pytest
import torch
from ranks import run_ranks
from support import raises, start

import bluefog_pg as bf
from bluefog_pg.ops import bytes_sent
from bluefog_pg.topology import recv_weights

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
PAIRS = [
    (torch.float32, torch.bfloat16),
    *((own, f8) for own in (torch.float32, torch.float16, torch.bfloat16) for f8 in (E4M3, E5M2)),
]
SHAPES = [(), (0,), (1,), (7,), (3, 5, 7)]
MORE_THAN_A_RING = 5 << 20  # bytes; a rank's ring of chunks holds 4 MiB
SMALL_RING = {"BLUEFOG_SHM_CHUNK_BYTES": "4096", "BLUEFOG_SHM_CHUNKS": "2"}
ROUNDS = 100


def directed(n):
    """Rank 0 only sends, 3 only receives, and has a source that does not count."""
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(
        [(0, 1, 0.3), (1, 2, 0.7), (2, 1, 0.1), (2, 3, 0.9), (0, 3, 0.0), (0, 0, 0.5), (1, 1, 0.6)]
    )
    return graph


def values(rank, shape, dtype):
    random = torch.Generator().manual_seed(rank)
    return (torch.randn(shape, generator=random, dtype=torch.float64) * 3).to(dtype)


def rounded(x, payload):
    largest = torch.finfo(payload).max
    return (x if payload is torch.bfloat16 else x.clamp(-largest, largest)).to(payload)


def in_order(own, sources, xs, x, payload):
    """The equation, for a rank with these weights; xs: by source what is sent before rounding."""
    received = sum(sources.values())
    terms = [(own + received, x), (-received, rounded(x, payload))]
    terms += [(weight, rounded(xs[j], payload)) for j, weight in sources.items()]
    total = None
    for weight, term in terms:
        if weight != 0:
            product = np.float32(weight) * term.to(torch.float32).numpy()
            total = product if total is None else total + product
    return torch.from_numpy(np.asarray(total)).reshape(x.shape).to(x.dtype)


def expected(graph, rank, shape, own, payload):
    self_weight, sources = recv_weights(graph, rank)
    xs = {j: values(j, shape, own) for j in sources}
    return in_order(self_weight, sources, xs, values(rank, shape, own), payload)


def assert_bits(actual, wanted):
    assert actual.dtype is wanted.dtype and actual.shape == wanted.shape
    bits = {2: torch.int16, 4: torch.int32}[actual.element_size()]
    assert torch.equal(actual.contiguous().view(bits), wanted.view(bits))


def equation(rank, n, transport):
    start(transport)
    for make in (bf.ring, bf.star, bf.exponential, directed):
        graph = make(n)
        bf.set_topology(graph)
        for own, payload in PAIRS:
            for shape in SHAPES:
                y = bf.neighbor_allreduce(values(rank, shape, own), payload_dtype=payload)
                assert_bits(y, expected(graph, rank, shape, own, payload))
    for own, payload in PAIRS[:2]:
        shape = (MORE_THAN_A_RING // payload.itemsize + 3,)
        y = bf.neighbor_allreduce(values(rank, shape, own), payload_dtype=payload)
        assert_bits(y, expected(graph, rank, shape, own, payload))


@pytest.mark.parametrize(
    ("transport", "env"),
    [("shm", {}), ("shm", SMALL_RING), ("tcp", {}), ("gloo", {}), ("mixed", {})],
)
def test_equals_the_equation(transport, env):
    run_ranks(equation, 4, transport, env=env, timeout=120)


def places(rank, n, async_op):
    """Lists, outputs of all kinds, parameters, and memory that neighbours read in place."""
    start()
    graph = bf.ring(n)
    bf.set_topology(graph)
    wanted = partial(expected, graph, rank)

    def average(x, payload, **kwargs):
        result = bf.neighbor_allreduce(x, payload_dtype=payload, async_op=async_op, **kwargs)
        if not async_op:
            return result
        result.wait()
        return result.result()[0] if isinstance(x, torch.Tensor) else result.result()

    shape = (30, 50)
    for own, payload in PAIRS:
        x, y = values(rank, shape, own), wanted(shape, own, payload)
        strided = torch.full((50, 30), torch.nan, dtype=own).t()
        assert_bits(average(x, payload, out=strided), y)
        assert_bits(strided, y)
        assert_bits(average(x.t().contiguous().t(), payload), y)
        parameter = torch.nn.Parameter(x.clone())
        version = parameter._version
        average(parameter, payload, out=parameter)
        assert_bits(parameter.detach(), y)
        assert parameter.requires_grad and parameter._version > version
        with torch.inference_mode():
            assert_bits(average(x.clone(), payload), y)
        shared = bf.empty(300_000, dtype=own).copy_(values(rank, (300_000,), own))
        assert_bits(average(shared, payload, out=shared), wanted((300_000,), own, payload))
        assert_bits(x, values(rank, shape, own))

    owns = [torch.float32, torch.bfloat16, torch.float16] * 2
    xs = [values(rank, shape, own) for own, shape in zip(owns, SHAPES, strict=False)]
    for x, y in zip(xs, average(xs, E4M3), strict=True):
        assert_bits(y, wanted(x.shape, x.dtype, E4M3))
    assert average([], E4M3) == []


@pytest.mark.parametrize("async_op", [False, True])
def test_tensors_of_all_kinds(async_op):
    run_ranks(places, 4, async_op, timeout=120)


def weights_of_the_call(rank, n):
    start()
    left, right = (rank - 1) % n, (rank + 1) % n
    x, near = values(rank, (40,), torch.float32), {left: values(left, (40,), torch.float32)}
    for own, weight in ((0.25, 0.5), (-0.5, 0.5), (0.0, 1.0), (0.75, 0.0), (0.0, 0.0)):
        y = bf.neighbor_allreduce(
            x,
            self_weight=own,
            src_weights={left: weight},
            dst_weights={right: 1.0},
            payload_dtype=torch.bfloat16,
        )
        if own == weight == 0:
            assert (y == 0).all()
        else:
            assert_bits(y, in_order(own, {left: weight}, near, x, torch.bfloat16))
    nobody = {"src_weights": {}, "dst_weights": {}, "payload_dtype": torch.bfloat16}
    assert torch.equal(bf.neighbor_allreduce(x, self_weight=0.3, **nobody), x * 0.3)
    # NaN from where the weight is 0 does not count.
    y = bf.neighbor_allreduce(
        torch.full((3,), float("nan")) if rank == 0 else x[:3],
        self_weight=0.5,
        src_weights={left: 0.0 if rank == 1 else 0.5},
        dst_weights=[right],
        payload_dtype=E4M3,
    )
    assert y.isnan().all() if rank == 0 else y.isfinite().all()


def test_weights_of_the_call():
    run_ranks(weights_of_the_call, 3)


def many_rounds(rank, n, payload, spread):
    """Values that are `spread` apart, or equal on all ranks."""
    start()
    bf.set_topology(bf.ring(n))
    y = x = values(0, (500,), torch.float32) + spread * values(rank, (500,), torch.float32)
    for _ in range(ROUNDS):
        y = bf.neighbor_allreduce(y, payload_dtype=payload)
    return x, y


@pytest.mark.parametrize("payload", [torch.bfloat16, E4M3, E5M2], ids=str)
def test_the_mean_over_the_ranks_stays(payload):
    n = 4
    of_ranks = run_ranks(many_rounds, n, payload, 0.5)
    xs, ys = (torch.stack([pair[at] for pair in of_ranks]).double() for at in range(2))
    drift = (ys.mean(0) - xs.mean(0)).abs().max()
    # Each of the terms 1 x, -2/3 Q, 1/3 Q, 1/3 Q is rounded up to 4 times, by 2^-24.
    largest = max(xs.abs().max(), ys.abs().max()) * (1 + torch.finfo(payload).eps)
    bound = ROUNDS * 4 * 2.0**-24 * (1 + 2 / 3 + 2 / 3) * largest
    assert drift <= bound
    # In the 2-norm over the ranks the distance d from the mean becomes at most d / 3 (the largest
    # eigenvalue but 1), plus 4/3 of what the roundings are (the largest of W - I).
    rounding = torch.finfo(payload).eps / 2 * largest * n**0.5
    assert (ys - ys.mean(0)).norm(dim=0).max() <= 2 * rounding + bound
    plain = xs.float()
    for _ in range(ROUNDS):
        q = rounded(plain, payload).float()
        plain = plain / 3 + (q.roll(1, 0) + q.roll(-1, 0)) / 3
    assert (plain.double().mean(0) - xs.mean(0)).abs().max() > 10 * bound


@pytest.mark.parametrize("payload", [torch.bfloat16, E4M3, E5M2], ids=str)
def test_equal_ranks_stay_equal(payload):
    ys = [y for _, y in run_ranks(many_rounds, 4, payload, 0.0)]
    for y in ys[1:]:
        assert_bits(y, ys[0])


def powers_of_two(rank, n):
    """Where weights are powers of two, nothing is rounded that cancels: what is equal, stays."""
    start()
    left, right = (rank - 1) % n, (rank + 1) % n
    weights = {"self_weight": 0.5, "src_weights": {left: 0.25, right: 0.25}}
    x = values(7, (500,), torch.float32)
    for payload in (torch.bfloat16, E4M3, E5M2):
        y = bf.neighbor_allreduce(x, **weights, dst_weights=[left, right], payload_dtype=payload)
        assert_bits(y, x)


def test_equal_ranks_keep_their_value():
    run_ranks(powers_of_two, 3)


def extremes(rank, n):
    start()
    pair = {"self_weight": 0.5, "src_weights": {1 - rank: 0.5}, "dst_weights": [1 - rank]}
    inf, nan = float("inf"), float("nan")
    far = torch.tensor([1e6, -1e6, inf, -inf, nan, 1.0])
    x = far if rank == 0 else torch.zeros(6)
    for payload, largest in ((E4M3, 448.0), (E5M2, 57344.0)):
        y = bf.neighbor_allreduce(x, **pair, payload_dtype=payload)
        half = largest / 2
        here = [1e6 - half, -1e6 + half, inf, -inf, nan, 0.5]
        there = [half, -half, half, -half, nan, 0.5]
        wanted = torch.tensor(here if rank == 0 else there)
        assert torch.equal(y.nan_to_num(7.0, inf, -inf), wanted.nan_to_num(7.0, inf, -inf))
    y = bf.neighbor_allreduce(x, **pair, payload_dtype=torch.bfloat16)
    assert y.isfinite().tolist() == [True, True, False, False, False, True]
    assert y[2:5].isnan().all() if rank == 0 else y[2:5].tolist()[:2] == [inf, -inf]


def test_beyond_the_largest_value():
    run_ranks(extremes, 2)


def bytes_that_are_sent(rank, n):
    start()
    bf.set_topology(bf.ring(n))
    x = torch.ones(1000)
    for payload in (None, torch.bfloat16, E5M2):
        before = bytes_sent()
        bf.neighbor_allreduce(x, payload_dtype=payload)
        itemsize = 4 if payload is None else payload.itemsize
        assert bytes_sent() - before == 2 * 1000 * itemsize


def test_fewer_bytes():
    run_ranks(bytes_that_are_sent, 3)


def refused(rank, n):
    start()
    bf.set_topology(bf.ring(n))
    possible = "float32 goes as bfloat16, and float32, float16 and bfloat16 go as float8_e4m3fn"
    for own, payload, words in [
        (torch.float64, torch.bfloat16, "tensor 0 is float64, which cannot go as bfloat16"),
        (torch.float64, E4M3, "float64, which cannot go as float8_e4m3fn"),
        (torch.float16, torch.bfloat16, "float16, which cannot go as bfloat16"),
        (torch.float32, torch.float16, "float32, which cannot go as float16"),
        (torch.float32, torch.float32, "float32, which cannot go as float32"),
        (torch.float32, torch.int8, "float32, which cannot go as int8"),
        (torch.float32, torch.float8_e5m2fnuz, "cannot go as float8_e5m2fnuz"),
    ]:
        x = torch.ones(3, dtype=own)
        call = partial(bf.neighbor_allreduce, x, payload_dtype=payload)
        raises(TypeError, words, possible, call=call)
    x = torch.ones(3)
    call = partial(bf.neighbor_allreduce, [x, x.double()], payload_dtype=E4M3)
    raises(TypeError, "tensor 1 is float64", call=call)
    raises(
        TypeError,
        "averages float16",
        call=lambda: bf.neighbor_allreduce(x.int(), payload_dtype=torch.bfloat16),
    )
    raises(
        TypeError,
        "payload_dtype must be a torch.dtype or None, got 'bfloat16'",
        call=lambda: bf.neighbor_allreduce(x, payload_dtype="bfloat16"),
    )
    left, right = (rank - 1) % n, (rank + 1) % n
    scaled = {"self_weight": 0.5, "src_weights": {left: 0.5}, "dst_weights": {right: 2.0}}
    raises(
        ValueError,
        f"rank {rank} scales what it sends to rank {right} by 2",
        "dst_weights must be 1",
        call=lambda: bf.neighbor_allreduce(x, **scaled, payload_dtype=torch.bfloat16),
    )
    assert torch.equal(bf.neighbor_allreduce(x), x)  # all are at the same step


def test_refuses():
    run_ranks(refused, 3)


def disagreement(rank, n):
    start()
    bf.set_topology(bf.ring(n))
    x, y = torch.ones(3), torch.full((3,), 7.0)
    for own, payload, words in [
        (x, (torch.bfloat16, None)[rank], "float32[3] as bfloat16, rank 1 has 1 tensor: float32"),
        (x, (torch.bfloat16, E4M3)[rank], "as bfloat16, rank 1 has 1 tensor: float32[3] as float8"),
        ((x, x.bfloat16())[rank], (torch.bfloat16, None)[rank], "rank 1 has 1 tensor: bfloat16[3]"),
        ((x, x.bfloat16())[rank], E5M2, "float32[3] as float8_e5m2, rank 1 has 1 tensor: bfloat16"),
    ]:
        out = y.to(own.dtype)
        raises(
            bf.MismatchError,
            "the ranks bring different tensors",
            words,
            call=lambda own=own, out=out, payload=payload: bf.neighbor_allreduce(
                own, out=out, payload_dtype=payload
            ),
        )
        assert (out == 7).all()


def test_ranks_that_disagree():
    run_ranks(disagreement, 2)
