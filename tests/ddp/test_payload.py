"""DecentralizedDataParallel(payload_dtype=): training that sends narrower parameters."""

import copy

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import raises
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms

BF16, F8 = torch.bfloat16, torch.float8_e4m3fn
NARROWING = [name for name in algorithms.names() if algorithms.get(name).keeps_dtype is None]
TINY_BLOCKS = 1e-5  # MiB: a block per parameter
LR = 0.05


def make_module(dtype=torch.float32):
    torch.manual_seed(0)
    layers = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)
    return nn.Sequential(*layers).to(dtype)


def wrap(module, algorithm="awc", payload=BF16, **keywords):
    return bf.DecentralizedDataParallel(
        module, algorithm=algorithm, topology="ring", payload_dtype=payload, **keywords
    )


def batch(rank, step, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return (torch.randn(6, 5, generator=generator) + rank).to(dtype)


def train(model, optimizer, rank, steps, dtype=torch.float32):
    for step in steps:
        optimizer.zero_grad()
        model(batch(rank, step, dtype)).square().mean().backward()
        optimizer.step()
    return model


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=LR)


def parameters_of(model):
    return [parameter.detach() for parameter in model.parameters()]


def by_the_operation(rank, n):
    """Of the first steps, bit for bit: what the operation makes of the same parameters."""
    dist.init_process_group("bluefog")
    bf.set_topology("ring")
    cases = [(torch.float32, BF16), (torch.float32, F8), (torch.bfloat16, F8)]
    for dtype, payload in cases:
        for algorithm in ("awc", "atc"):
            plain = nn.Linear(5, 3).to(dtype)
            dist.broadcast(plain.weight.data, 0)
            dist.broadcast(plain.bias.data, 0)
            model = wrap(copy.deepcopy(plain), algorithm, payload)
            optimizer = sgd(plain)
            train(model, sgd(model), rank, range(5), dtype).settle()
            for step in range(5):
                xs = parameters_of(plain)
                optimizer.zero_grad()
                plain(batch(rank, step, dtype)).square().mean().backward()
                if algorithm == "awc":
                    bf.neighbor_allreduce(xs, out=xs, payload_dtype=payload)
                optimizer.step()
                if algorithm == "atc":
                    bf.neighbor_allreduce(xs, out=xs, payload_dtype=payload)
            for mine, theirs in zip(parameters_of(model), parameters_of(plain), strict=True):
                assert torch.equal(mine, theirs), (algorithm, dtype, payload)


def test_averages_as_the_operation_does():
    run_ranks(by_the_operation, 4)


def least_squares(rank, n, algorithm, payload):
    """Returns the loss of the mean model on all ranks' data, before and after training."""
    dist.init_process_group("bluefog")
    data = [torch.cat([batch(r, step) for step in range(4)]) - 0.75 * r for r in range(n)]
    targets = [
        x.sum(1, keepdim=True) * 0.5 + (2 * x[:, :1]).sin() + 0.1 * r for r, x in enumerate(data)
    ]
    model = wrap(nn.Linear(5, 1), algorithm, payload)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    @torch.no_grad()
    def loss():
        with model.averaged():
            pairs = zip(data, targets, strict=True)
            return sum((model(x) - t).square().mean().item() for x, t in pairs) / n

    before = loss()
    for _ in range(150):
        optimizer.zero_grad()
        (model(data[rank]) - targets[rank]).square().mean().backward()
        optimizer.step()
    return before, loss()


@pytest.mark.parametrize("algorithm", ["awc", "atc"])
def test_comes_to_the_same_loss(algorithm):
    (before, plain), *_ = run_ranks(least_squares, 4, algorithm, None)
    (_, narrow), *_ = run_ranks(least_squares, 4, algorithm, BF16)
    assert plain < 0.7 * before
    # Gradients are taken where ranks are, which is off by bfloat16's rounding, relatively 2^-8.
    assert abs(narrow - plain) <= 2**-8 * plain


def costs(rank, n):
    dist.init_process_group("bluefog")
    sent = {}
    for payload in (None, BF16, F8):
        model = wrap(nn.Linear(64, 64), payload=payload)
        before = bf.ops.bytes_sent()
        train_once(model)
        sent[payload] = model.statistics().bytes_sent
        assert sent[payload] == bf.ops.bytes_sent() - before
    assert sent[None] == 2 * sent[BF16] == 4 * sent[F8] > 0


def train_once(model):
    model(torch.ones(4, 64)).sum().backward()
    model.settle()


class Mixed(nn.Module):
    """64 numbers each of float32, bfloat16 and float64, and as many in a buffer."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.ones(64))
        self.b = nn.Parameter(torch.ones(64, dtype=BF16))
        self.c = nn.Parameter(torch.ones(64, dtype=torch.float64))
        self.register_buffer("d", torch.ones(64))

    def forward(self, x):
        return (x * self.a * self.b * self.c).sum()


def mixed_costs(rank, n):
    dist.init_process_group("bluefog")
    for payload, itemsizes in ((None, (4, 2, 8, 4)), (BF16, (2, 2, 8, 4)), (F8, (1, 1, 8, 4))):
        model = wrap(Mixed(), payload=payload)
        train_once(model)
        assert model.statistics().bytes_sent == 2 * 64 * sum(itemsizes)  # a ring: to two ranks


def test_sends_fewer_bytes():
    run_ranks(costs, 3)
    run_ranks(mixed_costs, 3)


def resumed(rank, n):
    dist.init_process_group("bluefog")
    for algorithm in ("awc", "atc", "gradient_tracking"):
        runs = [wrap(make_module(), algorithm, bucket_cap_mb=TINY_BLOCKS) for _ in range(3)]
        whole, first, second = ((run, sgd(run)) for run in runs)
        train(*whole, rank, range(8))
        train(*first, rank, range(5))
        second[0].load_state_dict(copy.deepcopy(first[0].state_dict()))
        train(*second, rank, range(5, 8))
        for run, _ in (whole, second):
            run.settle()
        resumed_state = second[0].module.state_dict()
        for name, value in whole[0].module.state_dict().items():
            assert torch.equal(value, resumed_state[name]), (algorithm, name)


def test_resumes_bit_for_bit():
    run_ranks(resumed, 4)


def ways_of_a_step(rank, n):
    """Late averages, and steps in backward, change nothing."""
    dist.init_process_group("bluefog")
    results = []
    for lazy, in_backward in ((False, False), (True, False), (True, True)):
        model = wrap(make_module(), "atc", bucket_cap_mb=TINY_BLOCKS, lazy_combine=lazy)
        optimizer = sgd(model)
        if in_backward:
            model.step_in_backward(optimizer)
        train(model, optimizer, rank, range(6)).settle()
        results.append(torch.cat([value.reshape(-1) for value in parameters_of(model)]))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_goes_with_overlap():
    run_ranks(ways_of_a_step, 4)


def every_algorithm(rank, n):
    """Ranks are about as near to each other as without."""
    dist.init_process_group("bluefog")
    for name in NARROWING:
        distances = []
        for payload in (None, BF16):
            model = bf.DecentralizedDataParallel(
                make_module(), algorithm=name, payload_dtype=payload
            )
            train(model, sgd(model), rank, range(12)).settle()
            flat = torch.cat([value.reshape(-1) for value in parameters_of(model)])
            assert flat.isfinite().all(), name
            distances.append(model.consensus_distance())
        rounding = 2**-8 * float(flat.norm())
        assert distances[1] <= 1.5 * distances[0] + 10 * rounding, (name, distances)


def test_every_algorithm_that_averages_over_a_graph():
    assert {"awc", "atc", "gradient_tracking", "exact_diffusion", "ceca"} <= set(NARROWING)
    run_ranks(every_algorithm, 4, timeout=120)


def refused(rank, n):
    dist.init_process_group("bluefog")
    others = set(algorithms.names()) - set(NARROWING)
    assert {"push_sum", "push_pull", "win_put", "gradient_allreduce", "diloco"} <= others
    for name in others:
        raises(
            ValueError,
            f"algorithm={name!r} cannot have payload_dtype=torch.bfloat16",
            algorithms.get(name).keeps_dtype,
            call=lambda name=name: bf.DecentralizedDataParallel(
                make_module(), algorithm=name, payload_dtype=BF16
            ),
        )
    for dtype, payload in (
        (torch.float64, BF16),
        (torch.bfloat16, BF16),
        (torch.float16, BF16),
        (torch.float64, F8),
        (torch.float32, torch.float16),
    ):
        raises(
            TypeError,
            f"payload_dtype={payload}: parameters are {dtype}; float32 goes as bfloat16",
            call=lambda dtype=dtype, payload=payload: wrap(make_module(dtype), payload=payload),
        )
    raises(TypeError, "must be a torch.dtype", call=lambda: wrap(make_module(), payload="bf16"))


def test_refuses():
    run_ranks(refused, 2)
