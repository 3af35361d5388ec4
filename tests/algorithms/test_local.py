"""Methods with local steps against the simulator's equations; what they send, and refuse."""

import copy
from itertools import count, islice

import networkx as nx
import numpy as np
import pytest
import torch
import torch.distributed as dist
from quadratic import Row, iterate, make, on_ranks, problem_for, simulated, start_for, step
from ranks import run_ranks

import bluefog_pg as bf
from bluefog_pg import algorithms, simulate

ROWS = [
    Row("gradient_allreduce", "ring"),
    Row("local_sgd", "ring", options=(("every", 4),)),
    Row("post_local_sgd", "ring", options=(("warmup", 5), ("every", 3))),
    Row("hierarchical_sgd", "ring", options=(("periods", ((2, 2), (6, 4))),)),
    Row("slowmo", "ring", options=(("every", 3), ("momentum", 0.6), ("slow_lr", 0.9))),
    Row("diloco", "ring", options=(("every", 4),)),
    Row("noloco", "random_matching", options=(("every", 3),)),
    Row("gasloc", "one_peer_exponential", options=(("every", 2), ("momentum", 0.5))),
    Row("gasloc", "ring", options=(("every", 3), ("outer_lr", 1.0), ("momentum", 0.3))),
]
ROWS_OF_6 = [
    Row("hierarchical_sgd", "ring", options=(("periods", ((1, 3), (4, 6))),), steps=9),
    Row("noloco", "base_graph", options=(("every", 2),), steps=13),
]


@pytest.fixture(scope="module")
def iterates():
    return on_ranks(ROWS, nproc=4)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_follows_its_equation(iterates, row):
    np.testing.assert_allclose(iterates[row], simulated(row, 4), rtol=0, atol=1e-12)
    distances = np.ptp(iterates[row], axis=1).max(axis=1)
    assert distances[-5:].max() > 1e-3 or row.algorithm == "gradient_allreduce"


def test_six_ranks():
    for row, path in on_ranks(ROWS_OF_6, nproc=6).items():
        np.testing.assert_allclose(path, simulated(row, 6), rtol=0, atol=1e-12)


# ---- One start of 4 ranks for all that follows; each test looks at its part.


def with_sgd(rank, nproc, name, steps, spoil=None, **options):
    """Returns the iterates and the bytes sent per step; (rank, step) of `spoil` has no gradient."""
    row = Row(name, "random_matching" if name == "noloco" else "ring", lr=0.05,
              options=tuple(options.items()))  # fmt: skip
    model, optimizer, _ = make(row, rank, nproc, 6e-5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    traffic, path, sent = model._cycle.network.traffic, [], []
    for at in range(steps):
        before = bf.ops.bytes_sent(), traffic.bytes_sent, traffic.exchanges
        optimizer.zero_grad()
        scaler.scale(model() * (np.inf if (rank, at) == spoil else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        path.append(iterate(model))
        after = bf.ops.bytes_sent(), traffic.bytes_sent, traffic.exchanges
        sent.append(np.subtract(after, before))
    return np.stack(path), np.stack(sent)


def schedule_of_lr(rank, nproc):
    """SlowMo divides by the learning rate, which a scheduler changes after each round."""
    row = Row("slowmo", "ring", lr=0.08)
    model, optimizer, _ = make(row, rank, nproc, 6e-5)
    algorithm = algorithms.SlowMo(every=2, fast_lr=lambda: optimizer.param_groups[0]["lr"])
    model = bf.DecentralizedDataParallel(model.module, algorithm=algorithm)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.7)
    path = []
    for _ in range(8):
        step(model, optimizer)
        scheduler.step()  # before the round is closed, as in any script
        path.append(iterate(model))
    return np.stack(path)


def resumed(rank, nproc):
    """Saved within a round, and loaded by a model that went elsewhere.

    The blocks are the same: how an allreduce rounds depends on a number's place in its tensor.
    """
    paths = {}
    for name, options in {
        "post_local_sgd": (("warmup", 2), ("every", 3)),
        "slowmo": (("every", 3),),
        "diloco": (("every", 3),),
        "noloco": (("every", 3),),
        "gasloc": (("every", 3),),
    }.items():
        row = Row(name, "one_peer_exponential", options=options,
                  optimizer_options=(("momentum", 0.5),))  # fmt: skip
        model, optimizer, _ = make(row, rank, nproc, 6e-5)
        whole = []
        for at in range(13):
            step(model, optimizer)
            whole.append(iterate(model))
            if at == 6:
                saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        model, optimizer, _ = make(row, rank, nproc, 6e-5)
        step(model, optimizer)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        again = []
        for _ in range(7, 13):
            step(model, optimizer)
            again.append(iterate(model))
        paths[name] = np.stack(whole[7:]), np.stack(again)
    return paths


def moved_by_hand(rank, nproc):
    """A change of parameters between two rounds is no local step: the next one begins there."""
    model, optimizer, _ = make(Row("diloco", "ring", options=(("every", 2),)), rank, nproc, 6e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(100)
    step(model, optimizer)
    step(model, optimizer)
    return iterate(model)


def memory(rank, nproc):
    """Returns {algorithm: bytes of its blocks over those of x}, after a round."""
    ratios = {}
    for name in ("gradient_allreduce", "local_sgd", "post_local_sgd", "slowmo", "diloco", "gasloc"):
        algorithm = algorithms.get(name)(**{} if name == "gradient_allreduce" else {"every": 1})
        module = torch.nn.Linear(1000, 100, bias=False)
        model = bf.DecentralizedDataParallel(module, algorithm=algorithm)
        model(torch.ones(1, 1000)).sum().backward()
        model.settle()
        blocks = model._cycle.blocks
        ratios[name] = sum(b.nbytes() for b in blocks) / (4 * module.weight.numel())
    return ratios


def averages_of_half_precision(rank, nproc):
    """Sums of bfloat16 are taken in float32: 256 + 1 is 256 in bfloat16."""
    model = bf.DecentralizedDataParallel(
        torch.nn.Linear(4, 4).bfloat16(), algorithm=algorithms.LocalSGD(every=1)
    )
    with torch.no_grad():
        model.module.weight.fill_(256 if rank == 0 else 4 * rank)
    model(torch.ones(1, 4).bfloat16()).sum().backward()
    model.settle()
    return model.module.weight.detach().float()


def buffers(rank, nproc):
    """Running means are averaged where parameters are, and exactly."""
    torch.manual_seed(rank)
    norm = torch.nn.BatchNorm1d(3, momentum=1.0)
    model = bf.DecentralizedDataParallel(norm, algorithm=algorithms.LocalSGD(every=2))
    means = []
    for at in range(4):
        with torch.no_grad():
            norm.running_mean.fill_(rank + at)
        norm.momentum = 0.0  # the forward pass leaves them as they are
        model(torch.randn(4, 3)).sum().backward()
        means.append(norm.running_mean[0].item())
        model.settle()
    return means


def refused(rank, nproc):
    for periods, words in [
        ({2: 2, 4: 8}, r"group of the largest period must be all 4 ranks, got 4: 8"),
        ({3: None, 1: 3}, r"groups of 3 ranks do not divide 4 ranks"),
        ({2: 2}, r"group of the largest period must be all 4 ranks, got 2: 2"),
    ]:
        with pytest.raises(ValueError, match=words):
            bf.DecentralizedDataParallel(
                torch.nn.Linear(2, 2), algorithm=algorithms.HierarchicalSGD(periods)
            )
    model = bf.DecentralizedDataParallel(
        torch.nn.Linear(2, 2), algorithm=algorithms.SlowMo(every=1, fast_lr=lambda: 0.0)
    )
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ValueError, match=r"fast_lr\(\) must be above 0 and finite, got 0"):
        model.settle()
    with pytest.raises(ValueError, match="noloco needs doubly stochastic"):
        bf.DecentralizedDataParallel(
            torch.nn.Linear(2, 2), algorithm="noloco", topology=_one_sided(nproc)
        )
    for name in ("diloco", "gradient_allreduce", "local_sgd", "post_local_sgd", "slowmo"):
        bf.DecentralizedDataParallel(
            torch.nn.Linear(2, 2), algorithm=name, topology=_one_sided(nproc)
        )


def _one_sided(nproc):
    """Rows sum to 1, columns do not."""
    return nx.DiGraph([(0, rank) for rank in range(1, nproc)] + [(nproc - 1, 0)])


SPOIL = (1, 2)
"""Rank and step whose gradients overflow."""


def everything(rank, nproc):
    dist.init_process_group("bluefog")
    return {
        "post_local_sgd": with_sgd(rank, nproc, "post_local_sgd", 8, warmup=3, every=2),
        "noloco": with_sgd(rank, nproc, "noloco", 6, every=3),
        "hierarchical_sgd": with_sgd(rank, nproc, "hierarchical_sgd", 6, periods={2: 2, 6: 4}),
        "spoilt local_sgd": with_sgd(rank, nproc, "local_sgd", 6, SPOIL, every=3),
        "spoilt gasloc": with_sgd(rank, nproc, "gasloc", 6, SPOIL, every=3),
        "spoilt gradient_allreduce": with_sgd(rank, nproc, "gradient_allreduce", 6, SPOIL),
        "schedule of lr": schedule_of_lr(rank, nproc),
        "resumed": resumed(rank, nproc),
        "moved by hand": moved_by_hand(rank, nproc),
        "memory": memory(rank, nproc),
        "half precision": averages_of_half_precision(rank, nproc),
        "buffers": buffers(rank, nproc),
        "refused": refused(rank, nproc),
    }


@pytest.fixture(scope="module")
def results():
    return run_ranks(everything, 4, timeout=240)


def path_of(results, name):
    return np.stack([result[name][0] for result in results], axis=1)


def reference(name, steps, gradient=None, topology=None, lr=0.05, start=None, **options):
    gradient = problem_for(4).gradient if gradient is None else gradient
    start = start_for(4) if start is None else start
    run = simulate.iterates(name, gradient, topology or bf.ring(4), start, lr, **options)
    return np.stack(list(islice(run, steps)))


def spoilt(ranks):
    """The gradient, but zero on these ranks in the step that overflows."""
    calls, problem = count(), problem_for(4)

    def gradient(x):
        g = problem.gradient(x)
        if next(calls) == SPOIL[1]:
            g[ranks] = 0
        return g

    return gradient


def same(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_a_step_that_a_grad_scaler_skips_keeps_ranks_in_line(results):
    only_one = spoilt([SPOIL[0]])
    same(path_of(results, "spoilt local_sgd"), reference("local_sgd", 6, only_one, every=3))
    only_one = spoilt([SPOIL[0]])
    same(path_of(results, "spoilt gasloc"), reference("gasloc", 6, only_one, every=3))
    # A mean of gradients carries the overflow to all ranks, and all of them skip.
    expected = reference("gradient_allreduce", 6, spoilt([0, 1, 2, 3]))
    same(path_of(results, "spoilt gradient_allreduce"), expected)


BLOCKS, BYTES = 2, 8 * 8 * 2
"""Of `quadratic.make`: 6 and 4 doubles, in memory a multiple of 64 bytes each."""


def test_nothing_is_sent_in_local_steps(results):
    ring = 2 * 3 / 4  # what a rank sends in an allreduce among 4, over the size
    for result in results:
        _, (to_neighbors, to_all, exchanges) = result["noloco"][0], result["noloco"][1].T
        assert exchanges.tolist() == [0, 0, BLOCKS] * 2
        assert to_neighbors.tolist() == to_all.tolist() == [0, 0, BYTES] * 2

        to_neighbors, to_all, exchanges = result["hierarchical_sgd"][1].T
        assert exchanges.tolist() == [0, BLOCKS] * 3
        assert to_neighbors.tolist() == [0, BYTES, 0, BYTES, 0, 0]
        assert to_all.tolist() == [0, BYTES, 0, BYTES, 0, ring * BYTES]

        to_neighbors, to_all, exchanges = result["post_local_sgd"][1].T
        assert not to_neighbors.any()
        assert exchanges.tolist() == [BLOCKS] * 3 + [0, BLOCKS, 0, BLOCKS, 0]
        users = 8 * ring * 2  # one number per parameter: how many ranks have its gradient
        expected = [ring * BYTES + users] * 3 + [0, ring * BYTES, 0, ring * BYTES, 0]
        assert to_all.tolist() == expected

        assert not result["spoilt local_sgd"][1][:, 0].any()


def test_slowmo_follows_a_schedule_of_learning_rates(results):
    path = np.stack([result["schedule of lr"] for result in results], axis=1)
    # The simulator's learning rate is that of the round.
    expected = reference("slowmo", 8, lr=lambda number: 0.08 * 0.7**number, every=2)
    same(path, expected)


def test_a_run_is_resumed_within_a_round(results):
    for result in results:
        for name, (whole, again) in result["resumed"].items():
            np.testing.assert_array_equal(again, whole, err_msg=name)


def test_a_round_begins_where_the_parameters_are(results):
    expected = reference("diloco", 2, start=start_for(4) + 100, every=2)[-1]
    same(np.stack([result["moved by hand"] for result in results]), expected)


def test_memory(results):
    for result in results:
        assert result["memory"] == pytest.approx(
            {
                "gradient_allreduce": 2,
                "local_sgd": 2,
                "post_local_sgd": 2,  # 3 after the warm-up
                "slowmo": 4,
                "diloco": 4,
                "gasloc": 4,
            },
            rel=1e-3,
        )


def test_half_precision_is_summed_in_float32(results):
    mean = torch.tensor((256 + 4 + 8 + 12) / 4).bfloat16().float()
    for result in results:
        assert torch.equal(result["half precision"], mean.expand(4, 4))


def test_buffers_are_averaged_exactly_where_parameters_are(results):
    for rank, result in enumerate(results):
        assert result["buffers"] == [rank, 2.5, rank + 2, 4.5]


def test_no_topology_is_refused_that_is_not_used(results):
    assert all(result["refused"] is None for result in results)


@pytest.mark.parametrize(
    ("make_it", "error", "words"),
    [
        (lambda: algorithms.LocalSGD(every=0), ValueError, "every must be at least 1, got 0"),
        (lambda: algorithms.LocalSGD(every=2.5), TypeError, "every must be an int, not 2.5"),
        (lambda: algorithms.PostLocalSGD(warmup=-1), ValueError, "warmup must be at least 0"),
        (lambda: algorithms.SlowMo(momentum=1.0), ValueError, "momentum must be at least 0 and"),
        (lambda: algorithms.SlowMo(slow_lr=0), ValueError, "slow_lr must be above 0 and finite"),
        (lambda: algorithms.DiLoCo(outer_lr=float("nan")), ValueError, "outer_lr must be above 0"),
        (lambda: algorithms.DiLoCo(momentum="0.9"), TypeError, "momentum must be a number"),
        (lambda: algorithms.NoLoCo(momentum=-0.1), ValueError, "momentum must be at least 0"),
        (lambda: algorithms.GASLoC(every=-3), ValueError, "every must be at least 1, got -3"),
        (lambda: algorithms.HierarchicalSGD({}), ValueError, "periods must not be empty"),
        (lambda: algorithms.HierarchicalSGD({0: 4}), ValueError, "a period must be at least 1"),
        (lambda: algorithms.HierarchicalSGD({2: 2, 3: 4}), ValueError, "got 2: 2 and 3: 4"),
        (lambda: algorithms.HierarchicalSGD({2: 2, 4: 3}), ValueError, "got 2: 2 and 4: 3"),
        (lambda: algorithms.HierarchicalSGD({2: None, 4: 4}), TypeError, "period 2 must be an int"),
    ],
)  # fmt: skip
def test_options_are_checked(make_it, error, words):
    with pytest.raises(error, match=words):
        make_it()
