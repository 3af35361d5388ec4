"""probe_links on live groups: which links it finds, what it measures, that it disturbs nothing."""

import json
import time

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import assert_same, dense, raises, start, value_of

import bluefog_pg as bf
from bluefog_pg import probe
from bluefog_pg.probe import probe_links
from bluefog_pg.topology import Link, Links, choose

QUICK = {"large_bytes": 1 << 18, "repeats": 3}


def probed(rank, n, transport):
    start(transport)
    return probe_links(**QUICK).to_dict()


def measured(transport, n):
    """The Links that all ranks agree on, after a way through JSON."""
    results = run_ranks(probed, n, transport)
    assert all(result == results[0] for result in results)
    return Links.from_dict(json.loads(json.dumps(results[0])))


@pytest.mark.parametrize(
    ("transport", "hosts", "same", "other"),
    [
        ("shm", (0, 0, 0, 0), True, False),
        ("gloo", (0, 1, 2, 3), False, True),
        ("mixed", (0, 1, 0, 0), True, True),
    ],
)
def test_kinds_of_links(transport, hosts, same, other):
    links, default = measured(transport, 4), Links()
    assert links.hosts == hosts
    for link, untouched, is_there in (
        (links.same_host, default.same_host, same),
        (links.other_host, default.other_host, other),
    ):
        if is_there:
            assert link != untouched
            assert 0 <= link.latency < 10 and 1e4 < link.bandwidth < 1e12
        else:
            assert link == untouched
    assert choose(4, links=links).candidates[0].seconds > 0


@pytest.mark.parametrize("n", [1, 2])
def test_few_ranks(n):
    links = measured("auto", n)
    assert links.hosts == (0,) * n
    assert (links.same_host == Links().same_host) == (n == 1)


WAIT, BYTES_PER_SECOND = 0.02, 5e6


def probed_with_a_slow_rank(rank, n):
    start()
    if rank == 2:
        fast = probe.neighbor_allreduce

        def slow(x, **kwargs):
            time.sleep(WAIT + x.nbytes / BYTES_PER_SECOND)
            return fast(x, **kwargs)

        probe.neighbor_allreduce = slow
    return probe_links(**QUICK).to_dict()


def test_the_slowest_rank_counts_on_all():
    results = run_ranks(probed_with_a_slow_rank, 3)
    assert all(result == results[0] for result in results)
    link = Links.from_dict(results[0]).same_host
    # Sleeps may be late on a busy machine, never early.
    assert WAIT * 0.99 <= link.latency < 10 * WAIT
    assert BYTES_PER_SECOND / 4 < link.bandwidth < BYTES_PER_SECOND * 4


def topology_and_step_stay(rank, n):
    start()
    schedule = bf.one_peer_exponential(n)
    bf.set_topology(schedule)
    x = value_of(rank, (3,))
    assert_same(bf.neighbor_allreduce(x), dense(schedule(0), rank, (3,)))
    probe_links(**QUICK)
    assert bf.get_topology() is schedule
    assert_same(bf.neighbor_allreduce(x), dense(schedule(1), rank, (3,)))


def test_topology_and_step_stay():
    run_ranks(topology_and_step_stay, 4)


def a_group_of_its_own(rank, n):
    start()
    odd = dist.new_group([1, 3], backend="bluefog")
    links = probe_links(odd, **QUICK) if rank % 2 else None
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == n
    return links and links.hosts


def test_a_group_of_its_own():
    assert run_ranks(a_group_of_its_own, 4) == [None, (0, 0), None, (0, 0)]


def refused(rank, n):
    start()
    raises(ValueError, "repeats must be at least 1, got 0", call=lambda: probe_links(repeats=0))
    raises(ValueError, "large_bytes must be above 64", call=lambda: probe_links(large_bytes=64))
    gloo = dist.new_group(backend="gloo")
    raises(ValueError, "backend 'bluefog'", "Gloo", call=lambda: probe_links(gloo))


def test_refused():
    run_ranks(refused, 2)
    with pytest.raises(ValueError, match="init_process_group"):
        probe_links()


def test_the_line_through_two_times():
    link = probe._link(small=1e-3 + 64 / 1e9, large=1e-3 + 1e6 / 1e9, large_bytes=1_000_000)
    assert link.latency == pytest.approx(1e-3)
    assert link.bandwidth == pytest.approx(1e9)
    # Noise: the large message was faster, or all but a negative latency remains.
    assert probe._link(2e-3, 1e-3, 1000) == Link(2e-3, 1000 / 1e-3)
    assert probe._link(1e-9, 1.0, 1064).latency == 0


@pytest.mark.parametrize(
    ("hosts", "same", "other"),
    [
        ((0,), None, None),
        ((0, 0, 0), 1, None),
        ((0, 1, 2), None, 1),
        ((0, 0, 1, 1), 1, 2),  # i + 2 is always on the other host
        ((0, 1, 0, 1), 2, 1),
    ],
)
def test_the_shift_that_most_ranks_can_take(hosts, same, other):
    assert probe._busiest_shift(hosts, True) == same
    assert probe._busiest_shift(hosts, False) == other
