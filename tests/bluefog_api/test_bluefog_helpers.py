"""broadcast_parameters, allreduce_parameters, broadcast_optimizer_state."""

import torch
from bluefog_cases import raises, started
from ranks import run_ranks
from torch import nn

import bluefog_pg.torch as bf


def make_model(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for _ in range(seed + 1):
        model(torch.randn(5, 3))  # running statistics, and their counter
    return model.double()


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def broadcasts(rank, n):
    root = values(make_model(1))
    model = make_model(rank)
    bf.broadcast_parameters(model.state_dict(), root_rank=1)
    assert same(values(model), root)
    for params in (lambda m: m.named_parameters(), lambda m: [*m.parameters()]):
        model = make_model(rank)
        bf.broadcast_parameters(params(model), 1)
        own, sent = values(make_model(rank)), dict(model.named_parameters()).keys()
        assert same(values(model), own | {name: root[name] for name in sent})


def means(rank, n):
    every = [values(make_model(r)) for r in range(n)]
    for params in (lambda m: m.state_dict(), lambda m: m.named_parameters()):
        model = make_model(rank)
        bf.allreduce_parameters(params(model))
        for name in dict(params(model)):
            mean = sum(state[name] for state in every) / n
            if name.endswith("num_batches_tracked"):
                mean = every[rank][name]
            torch.testing.assert_close(model.state_dict()[name], mean, rtol=1e-12, atol=1e-12)


def trained(rank, make, steps):
    model = make_model(7)
    optimizer = make(model.parameters(), 0.1 + rank)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, generator=generator).double()).square().sum().backward()
        optimizer.step()
    return model, optimizer


OPTIMIZERS = [
    lambda params, lr: torch.optim.SGD(params, lr=lr, momentum=0.9),
    lambda params, lr: torch.optim.AdamW(params, lr=lr, amsgrad=True),
    lambda params, lr: torch.optim.Adagrad(params, lr=lr),
]


def optimizer_states(rank, n):
    for make in OPTIMIZERS:
        # The root has a state and the others too, it alone has one, it alone has none.
        for steps_of_root, own_steps in ((2, 2), (2, 0), (0, 2)):
            steps = steps_of_root if rank == 1 else own_steps
            _, optimizer = trained(rank, make, steps)
            bf.broadcast_optimizer_state(optimizer, root_rank=1)
            _, wanted = trained(1, make, steps_of_root)
            assert equal(optimizer.state_dict(), wanted.state_dict())
    lbfgs = torch.optim.LBFGS(make_model(0).parameters())
    raises(ValueError, lambda: bf.broadcast_optimizer_state(lbfgs, 0), "LBFGS")


def equal(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right


def run_all(rank, n):
    started()
    for check in (broadcasts, means, optimizer_states):
        check(rank, n)


def test_helpers():
    run_ranks(run_all, 4)
