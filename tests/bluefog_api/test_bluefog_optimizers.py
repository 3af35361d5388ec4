"""Each of BlueFog's optimizers does what plain ones and explicit matrices do in one process."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from bluefog_cases import raises
from bluefog_training import Net, SideBySide, assert_equal_parameters, loss_of, make_net
from ranks import run_ranks
from torch import nn

import bluefog_pg.torch as bf
from bluefog_pg.topology import mixing_matrix

KINDS = {
    "awc": bf.DistributedAdaptWithCombineOptimizer,
    "atc": bf.DistributedAdaptThenCombineOptimizer,
    "allreduce": bf.DistributedGradientAllreduceOptimizer,
}
OPTIMIZERS = [
    lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01),
    lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.3),  # not Adam with L2
    lambda params: torch.optim.Adam(params, lr=0.05, amsgrad=True),
    lambda params: torch.optim.RMSprop(params, lr=0.01),  # BlueFog's ATC needed a momentum
    lambda params: torch.optim.Adagrad(params, lr=0.05),
    lambda params: torch.optim.Adadelta(params, lr=0.5),
    lambda params: torch.optim.NAdam(params, lr=0.05),  # BlueFog's ATC had no step for it
]
SGD = OPTIMIZERS[0]
# num_steps_per_communication, and the program: F a pass, S a step
PATTERNS = [(1, "FSFSFS"), (2, "FFSFFS"), (2, "FSFSFSFS"), (3, "FFSFSFFS")]


def uniform(n, graph=bf.ExponentialGraph):
    bare = graph(n)
    for _, _, edge in bare.edges(data=True):
        edge.clear()
    return torch.from_numpy(mixing_matrix(bare))


def compare(kind, rank, n, make_optimizer, every, pattern, cls=Net):
    reference = SideBySide(kind, n, make_optimizer, every, cls)
    model = make_net(rank, cls)
    optimizer = KINDS[kind](
        make_optimizer(model.parameters()), model=model, num_steps_per_communication=every
    )
    assert isinstance(optimizer, type(make_optimizer(make_net(0).parameters())))
    for number, letter in enumerate(pattern):
        if letter == "F":
            reference.passes(number)
            loss_of(model, rank, number).backward()
        else:
            reference.step(uniform(n))
            optimizer.step()
            optimizer.zero_grad(set_to_none=number % 2 == 0)
    assert_equal_parameters(model, reference.models[rank])


def all_kinds(rank, n):
    for kind in KINDS:
        for make_optimizer in OPTIMIZERS:
            compare(kind, rank, n, make_optimizer, *PATTERNS[1])
        for every, pattern in PATTERNS:
            compare(kind, rank, n, SGD, every, pattern)
        compare(kind, rank, n, SGD, *PATTERNS[0], cls=nn.Linear)  # one without submodules


def dynamic_topology(rank, n):
    """Weights set before each step; every third one averages over all ranks."""
    for kind in ("awc", "atc"):
        reference, model = SideBySide(kind, n, SGD), make_net(rank)
        optimizer = KINDS[kind](SGD(model.parameters()), model)
        everybody = [bf.GetDynamicOnePeerSendRecvRanks(bf.ExponentialGraph(n), r) for r in range(n)]
        for number in range(7):
            rounds = [next(peers) for peers in everybody]
            w = torch.zeros(n, n, dtype=torch.float64)
            for r, (_, sources) in enumerate(rounds):
                w[r, [r, *sources]] = 1 / (len(sources) + 1)
            send, recv = rounds[rank]
            optimizer.dst_weights = send if number % 2 else {peer: 1.0 for peer in send}
            optimizer.src_weights = {peer: 1 / (len(recv) + 1) for peer in recv}
            optimizer.self_weight = 1 / (len(recv) + 1)
            optimizer.enable_topo_check = number == 0
            optimizer.communication_type = (
                bf.CommunicationType.neighbor_allreduce
                if number % 3 != 2
                else bf.CommunicationType.allreduce
            )
            reference.passes(number)
            loss_of(model, rank, number).backward()
            reference.step(w if number % 3 != 2 else torch.full_like(w, 1 / n))
            optimizer.step()
            optimizer.zero_grad()
        assert_equal_parameters(model, reference.models[rank])


def of_machines(w, local_size):
    """The matrix of ranks for one of machines."""
    return torch.kron(w, torch.full((local_size, local_size), 1 / local_size).double())


def machines(rank, n):
    number_of, local_size = bf.machine_size(), bf.local_size()
    bf.set_machine_topology(bf.RingGraph(number_of))
    over = bf.CommunicationType.hierarchical_neighbor_allreduce
    for kind in ("awc", "atc"):
        reference, model = SideBySide(kind, n, SGD), make_net(rank)
        optimizer = KINDS[kind](SGD(model.parameters()), model, over)
        peers = bf.GetExp2DynamicSendRecvMachineRanks(n, local_size, rank, bf.local_rank())
        for number in range(6):
            w = uniform(number_of, bf.RingGraph)
            if number >= 3:
                send, recv = next(peers)
                optimizer.self_weight = 0.5
                optimizer.src_machine_weights = {m: 0.5 for m in recv}
                optimizer.dst_machine_weights = send
                hop = 2 ** ((number - 3) % int(np.ceil(np.log2(number_of))))
                w = torch.eye(number_of).double() / 2
                w += torch.roll(w, hop, 0)
            reference.passes(number)
            loss_of(model, rank, number).backward()
            reference.step(of_machines(w, local_size))
            optimizer.step()
            optimizer.zero_grad()
        assert_equal_parameters(model, reference.models[rank])


def nothing_communicated(rank, n):
    for kind in ("awc", "atc"):
        reference, model = SideBySide(kind, n, SGD), make_net(rank)
        optimizer = KINDS[kind](SGD(model.parameters()), model, bf.CommunicationType.empty)
        for number in range(3):
            reference.passes(number)
            loss_of(model, rank, number).backward()
            reference.step(torch.eye(n).double())
            optimizer.step()
            optimizer.zero_grad()
        assert_equal_parameters(model, reference.models[rank])
        optimizer.communication_type = "allreduce"
        raises(ValueError, partial(pass_and_step, model, optimizer, rank), "CommunicationType")


def pass_and_step(model, optimizer, rank):
    loss_of(model, rank, 0).backward()
    optimizer.step()


def synchronized_by_hand(rank, n):
    """Clipping between synchronize() and step(), as with Horovod; a closure; a scheduler."""
    reference, model = SideBySide("allreduce", n, SGD), make_net(rank)
    plain = SGD(model.parameters())
    optimizer = bf.DistributedGradientAllreduceOptimizer(plain, model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    plain_ones = [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in reference.optimizers]
    for number in range(4):
        reference.passes(number)
        for other in reference.models:
            nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        reference.step(None)
        loss_of(model, rank, number).backward()
        optimizer.synchronize()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        with optimizer.skip_synchronize():
            optimizer.step()
        optimizer.zero_grad()
        for each in (scheduler, *plain_ones):
            each.step()
    assert_equal_parameters(model, reference.models[rank])
    assert plain.param_groups is optimizer.param_groups and plain.state is optimizer.state

    for kind in KINDS:
        reference, model = SideBySide(kind, n, SGD), make_net(rank)
        optimizer = KINDS[kind](SGD(model.parameters()), model)
        losses = []

        def closure(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            loss = loss_of(model, rank, 5)
            loss.backward()
            return loss

        for _ in range(2):
            reference.passes(5)
            reference.step(uniform(n))
            losses.append(optimizer.step(closure).item())
        assert_equal_parameters(model, reference.models[rank])
        assert losses[0] != losses[1]

    model = make_net(rank)
    optimizer = bf.DistributedAdaptWithCombineOptimizer(SGD(model.parameters()), model)
    loss_of(model, rank, 0)
    optimizer.synchronize()  # x is W x now, without a step
    rows = torch.stack([make_net(r).token.detach().view(-1) for r in range(n)])
    torch.testing.assert_close(model.token.view(-1), (uniform(n) @ rows)[rank])


def two_models(rank, n):
    """Of equal names, one optimizer for both, and only part of the second's parameters."""
    models = [make_net(rank), make_net(rank, nn.Linear)]
    params = [*models[0].parameters(), models[1].weight]
    optimizer = bf.DistributedAdaptThenCombineOptimizer(
        torch.optim.SGD(params, lr=0.0), model=models
    )
    bias = models[1].bias.clone()
    for model in models:
        loss_of(model, rank, 0).backward()
    optimizer.step()
    rows = torch.stack([make_net(r, nn.Linear).weight.detach().view(-1) for r in range(n)])
    torch.testing.assert_close(models[1].weight.view(-1), (uniform(n) @ rows)[rank])
    assert torch.equal(models[1].bias, bias)
    rows = torch.stack([make_net(r).unused.detach() for r in range(n)])
    torch.testing.assert_close(models[0].unused, (uniform(n) @ rows)[rank])


def step_function(rank, n):
    reference, model = SideBySide("atc", n, SGD), make_net(rank)
    optimizer = bf.DistributedAdaptThenCombineOptimizer(SGD(model.parameters()), model)

    def sign_step(self, parameter, gradient, group):
        assert self is optimizer
        parameter.add_(gradient.sign(), alpha=-group["lr"])

    optimizer.register_step_function(sign_step)
    reference.optimizers = [
        torch.optim.Rprop(m.parameters(), lr=0.05, etas=(0.5, 1.0 + 1e-9), step_sizes=(0.05, 0.05))
        for m in reference.models
    ]
    reference.passes(0)
    loss_of(model, rank, 0).backward()
    reference.step(uniform(n))
    optimizer.step()
    assert_equal_parameters(model, reference.models[rank])


def too_many_passes(rank, n):
    for kind, make in KINDS.items():
        model = make_net(rank)
        optimizer = make(SGD(model.parameters()), model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss_of(model, rank, 0).backward()
            model.eval()
            loss_of(model, rank, 0)
            model.train()
            with torch.no_grad():
                loss_of(model, rank, 0)
            assert not caught, kind
            loss_of(model, rank, 1).backward()
        assert [w.category for w in caught] == [UserWarning]
        assert "Unexpected behavior" in str(caught[0].message)
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss_of(model, rank, 0).backward()
            optimizer.step()


def replaced_data(rank, n):
    """A program that assigns to parameter.data, as loading and pruning do."""
    model = make_net(rank, nn.Linear)
    optimizer = bf.DistributedAdaptWithCombineOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0), model
    )
    model.weight.data = torch.full((1, 4), float(rank)).double()
    loss_of(model, rank, 0).backward()
    optimizer.step()
    mean = uniform(n)[rank] @ torch.arange(n).double()
    torch.testing.assert_close(model.weight, torch.full((1, 4), mean.item()).double())


def deprecated_names(rank, n):
    for make, over in (
        (bf.DistributedAllreduceOptimizer, "allreduce"),
        (bf.DistributedNeighborAllreduceOptimizer, "neighbor_allreduce"),
        (bf.DistributedHierarchicalNeighborAllreduceOptimizer, "hierarchical_neighbor_allreduce"),
    ):
        model = make_net(rank, nn.Linear)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer = make(SGD(model.parameters()), model)
        assert [w.category for w in caught] == [PendingDeprecationWarning]
        assert optimizer.communication_type is bf.CommunicationType[over]
        loss_of(model, rank, 0).backward()
        optimizer.step()


def wrong_arguments(rank, n):
    model = make_net(rank)
    make, plain = bf.DistributedAdaptWithCombineOptimizer, SGD(model.parameters())
    raises(ValueError, lambda: make(plain, make_net(rank)), "no trainable parameter")
    raises(ValueError, lambda: make(torch.optim.LBFGS(model.parameters()), model), "LBFGS")
    raises(ValueError, lambda: make(plain, model, num_steps_per_communication=0))
    raises(TypeError, lambda: make(make(plain, model), model), "plain torch optimizer")
    optimizer = make(plain, model)
    optimizer.src_weights = {(rank + 1) % n: 0.5}  # and no self_weight
    raises(ValueError, lambda: loss_of(model, rank, 0), "self_weight")


CHECKS = (
    all_kinds,
    dynamic_topology,
    machines,
    nothing_communicated,
    synchronized_by_hand,
    two_models,
    step_function,
    too_many_passes,
    replaced_data,
    deprecated_names,
    wrong_arguments,
)


def run_all(rank, n):
    bf.init(local_size=2)
    for check in CHECKS:
        check(rank, n)


def test_optimizers():
    run_ranks(run_all, 4, timeout=150)


def run_on_many(rank, n):
    bf.init(local_size=2)
    dynamic_topology(rank, n)
    machines(rank, n)


def test_eight_ranks():
    run_ranks(run_on_many, 8, timeout=120)


def test_before_init():
    with pytest.raises(ValueError, match="not been initialized"):
        model = nn.Linear(2, 1)
        bf.DistributedAdaptThenCombineOptimizer(SGD(model.parameters()), model)
