"""One-sided windows: push-sum without a common step, deaths, and ranks of different speed."""

import os
import pickle
import random
import signal
import time
from contextlib import suppress

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import start, store

import bluefog_pg as bf


def random_digraph(nproc, seed):
    """Strongly connected: a ring in random order, and random chords."""
    chance = random.Random(seed)
    order = list(range(nproc))
    chance.shuffle(order)
    graph = nx.DiGraph(zip(order, order[1:] + order[:1], strict=True))
    for _ in range(2 * nproc):
        graph.add_edge(*chance.sample(range(nproc), 2))
    return graph


def value_of(rank):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(50, dtype=torch.float64, generator=generator)


def push(window, dst, require_mutex=False):
    share = 1 / (len(dst) + 1)
    window.accumulate(
        self_weight=share, dst_weights=dict.fromkeys(dst, share), require_mutex=require_mutex
    )


def push_sum(rank, nproc, transport, seed):
    """x/p becomes the mean of all x at each rank, and no mass is lost on the way.

    Delays are of random lengths; each rank goes on until all have said that they are there.
    """
    start(transport)
    bf.set_topology(random_digraph(nproc, seed))
    bf.turn_on_win_ops_with_associated_p()
    chance, talk = random.Random(seed + rank), store("stop")
    mean = sum(value_of(j) for j in range(nproc)) / nproc
    x = value_of(rank)
    window = bf.win_create(x, "x", zero_init=True)
    there = False
    for step in range(100_000):
        push(window, window.out_neighbors, require_mutex=chance.random() < 0.1)
        if chance.random() < 0.3:
            time.sleep(chance.random() * 2e-3)
        window.update_then_collect(require_mutex=chance.random() < 0.1)
        if not there and (x / window.p - mean).abs().max() < 1e-11:
            there = True
            talk.set(str(rank), "")
        if step % 20 == 0 and talk.check([str(j) for j in range(nproc)]):
            break
    bf.win_fence("x")
    window.update_then_collect()
    error = (x / window.p - mean).abs().max().item()
    p = window.p
    dist.barrier()
    bf.win_free()
    return x, p, error


@pytest.mark.parametrize(
    ("transport", "seed"), [("auto", 0), ("auto", 1), ("tcp", 2), ("mixed", 3)]
)
def test_asynchronous_push_sum(transport, seed):
    n = 8
    results = run_ranks(push_sum, n, transport, seed, timeout=120)
    total = sum(value_of(j) for j in range(n))
    assert max(error for _, _, error in results) < 1e-10
    assert (sum(x for x, _, _ in results) - total).abs().max() < 1e-12 * n
    assert sum(p for _, p, _ in results) == pytest.approx(n, abs=1e-12 * n)


def push_until_death(rank, nproc, transport, victim, rounds):
    """The victim is killed between two of its calls; the others go on without it.

    Between hosts its value dies with it; so it tells it before, when all has arrived.
    """
    start(transport)
    bf.set_topology(bf.fully_connected(nproc))
    bf.turn_on_win_ops_with_associated_p()
    talk = store("survivors")
    x = value_of(rank)
    window = bf.win_create(x, "x", zero_init=True)
    dist.barrier()
    living, after = window.out_neighbors, 0
    for step in range(1_000_000):
        if rank == victim and step == rounds:
            window.accumulate(dst_weights=dict.fromkeys(living, 0.0))  # follows all else
            window.flush()
            talk.set("shown", pickle.dumps(window.value_of(rank)))
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            push(window, living)
        except bf.PeerLostError as error:
            how = "process ended" if transport == "auto" else "connection"
            assert f"rank {victim} was lost: its {how}" in str(error)
            living = [j for j in living if j != victim]
        after += len(living) < nproc - 1
        if after == 50:
            break
        if (step + rank) % 3:
            window.update_then_collect(require_mutex=step % 2 == 0)
    with suppress(bf.PeerLostError):  # it is missing what was on its way
        window.flush()
    talk.set(str(rank), "")
    talk.wait([str(j) for j in range(nproc) if j != victim])
    window.update_then_collect()
    lost_x, lost_p = window.outstanding(victim)
    shown_x, shown_p = pickle.loads(talk.get("shown"))
    if transport == "auto":
        assert torch.equal(window.value_of(victim)[0], shown_x), "it can still be read"
    else:
        with pytest.raises(bf.PeerLostError, match=f"rank {victim} was lost"):
            window.value_of(victim)
    p = window.p
    bf.win_free()
    return x + lost_x, p + lost_p, shown_x, shown_p


@pytest.mark.parametrize(
    ("transport", "rounds"), [("auto", 1), ("auto", 30), ("auto", 101), ("tcp", 1), ("tcp", 40)]
)
def test_mass_is_conserved_when_a_rank_is_killed(transport, rounds):
    """What the dead had shown and what was in its mailboxes, and on the way there, is known."""
    n, victim = 4, 3
    results = run_ranks(push_until_death, n, transport, victim, rounds, timeout=120, dies=[victim])
    results = [result for result in results if result is not None]
    assert len(results) == n - 1
    shown_x, shown_p = results[0][2:]
    total = sum(value_of(j) for j in range(n))
    assert (sum(r[0] for r in results) + shown_x - total).abs().max() < 1e-12 * n
    assert sum(r[1] for r in results) + shown_p == pytest.approx(n, abs=1e-12 * n)
    assert 0 < shown_p < n


WORK = 0.005  # s of an iteration's work, as a sleep: ranks outnumber cores


def paces(rank, nproc, transport):
    """Iterations per second: alone with equals, beside a slow rank, and in step with it."""
    start(transport)
    bf.set_topology(bf.ring(nproc))
    x = value_of(rank)
    window = bf.win_create(x, "x")

    def asynchronous():
        window.put()
        window.update()

    def pace(iterate, slow, seconds=0.4):
        work = 10 * WORK if slow and rank == 0 else WORK
        dist.barrier()
        count, begun = 0, time.monotonic()
        while time.monotonic() < begun + seconds:
            time.sleep(work)
            iterate()
            count += 1
        return count / (time.monotonic() - begun)

    def pace_in_step(iterations=8):
        dist.barrier()
        begun = time.monotonic()
        for _ in range(iterations):
            time.sleep(10 * WORK if rank == 0 else WORK)
            bf.neighbor_allreduce(x, out=x)
        return iterations / (time.monotonic() - begun)

    rounds = [(pace(asynchronous, False), pace(asynchronous, True)) for _ in range(6)]
    in_step = pace_in_step()
    dist.barrier()
    waited = window.statistics()["waited"]
    bf.win_free()
    return sum(r[0] for r in rounds) / 6, sum(r[1] for r in rounds) / 6, in_step, waited


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_a_slow_rank_does_not_slow_its_neighbours(transport):
    results = run_ranks(paces, 4, transport, timeout=120)
    for alone, beside, in_step, waited in results[1:]:
        assert beside >= 0.9 * alone
        assert in_step < 0.5 * alone
        assert waited == 0
    assert results[0][1] < 0.3 * results[0][0], "rank 0 was slow"
