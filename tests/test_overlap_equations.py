"""ATC follows its equation, however its exchanges overlap with computation."""

import torch
import torch.distributed as dist
from overlapped import CAP_MB, LR, Way, flat, make, make_network, serial_run, train_step
from ranks import run_ranks

import bluefog_pg as bf

STEPS = 5
MOMENTUM = {"lr": LR, "momentum": 0.9}
WAYS = [
    Way(lazy=False),
    Way(),
    Way(lazy=False, in_backward=True),
    Way(in_backward=True),
    Way(in_backward=True, options=MOMENTUM),
    Way(in_backward=True, awc_blocks=3),
    Way(awc_blocks=3),
    Way(lazy=False, awc_blocks=100),
    Way(micro_batches=3, in_backward=True),
    Way(micro_batches=2),
    Way(in_backward=True, optimizer="AdamW", options={"lr": 0.01}),
]


def run_ways(rank, nproc, topology, ways):
    dist.init_process_group("bluefog")
    finals = []
    for way in ways:
        model, optimizer = make(way, topology, seed=rank)  # rank 0's start is everybody's
        for step in range(STEPS):
            train_step(way, model, optimizer, rank, step)
        model.settle()
        finals.append(flat(model))
    return finals


def check(topology, nproc, ways):
    by_rank = run_ranks(run_ways, nproc, topology, ways, timeout=240)
    for at, way in enumerate(ways):
        expected = serial_run(way, bf.topology.get(topology)(nproc), nproc, STEPS)
        actual = torch.stack([finals[at] for finals in by_rank])
        error = (actual - expected).abs().max().item()
        assert error <= 1e-12, f"{way}: {error}"
        assert (expected - expected.mean(0)).abs().max() > 1e-4  # averaging has something to do


def test_all_ways():
    check("one_peer_exponential", 4, WAYS)


def test_six_ranks():
    check("exponential", 6, [Way(), Way(in_backward=True, awc_blocks=1)])


TRACKING = ("gradient_tracking", "semi_atc_tracking", "diging", "momentum_tracking")
CORRECTED = ("d2", "exact_diffusion", "extra")
OWN_MOMENTUM = ("dmsgd", "dmsgd_mixed", "decentlam", "qg_dsgdm")


def in_backward_or_after(rank, nproc):
    dist.init_process_group("bluefog")
    for name in ("awc", *TRACKING, *CORRECTED, *OWN_MOMENTUM):
        after, within = (
            one_run(rank, name, in_backward, lazy)
            for in_backward, lazy in ((False, False), (True, True))
        )
        assert torch.equal(after, within), name


def one_run(rank, algorithm, in_backward, lazy):
    model = bf.DecentralizedDataParallel(
        make_network(),
        algorithm=algorithm,
        topology="ring",
        bucket_cap_mb=CAP_MB,
        lazy_combine=lazy,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    if in_backward:
        model.step_in_backward(optimizer)
    for step in range(STEPS):
        train_step(Way(), model, optimizer, rank, step)
    model.settle()
    return flat(model)


def test_other_algorithms_do_the_same_in_backward_as_after_it():
    run_ranks(in_backward_or_after, 3)
