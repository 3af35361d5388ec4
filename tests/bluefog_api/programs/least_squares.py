"""min sum_i 1/2 ||A_i x - b_i||^2 by DGD (ATC and AWC), exact diffusion and gradient tracking."""

import torch

import bluefog_pg.torch as bf
from bluefog_pg.torch import topology_util

bf.init()
bf.set_topology(topology_util.RingGraph(bf.size()))
torch.manual_seed(123417 + bf.rank())
m, n = 20, 5
A = torch.randn(m, n).to(torch.double)
x_o = torch.randn(n, 1).to(torch.double)
b = A.mm(x_o) + 0.1 * torch.randn(m, 1)


def gradient(x):
    return A.T.mm(A.mm(x) - b)


def relative_error(x):
    return (torch.norm(x - x_opt) / torch.norm(x_opt)).item()


# the reference: distributed gradient descent
x_opt = torch.zeros(n, 1, dtype=torch.double)
for _ in range(500):
    x_opt = x_opt - 0.02 * bf.allreduce(gradient(x_opt), name="gradient")
assert bf.allreduce(gradient(x_opt)).norm() < 1e-10


def atc(step, alpha=0.01):
    x = torch.zeros(n, 1, dtype=torch.double)
    for _ in range(step):
        y = x - alpha * gradient(x)
        x = bf.neighbor_allreduce(y, name="local variable")
    return x


def awc(step, alpha=0.01):
    x = torch.zeros(n, 1, dtype=torch.double)
    for _ in range(step):
        handle = bf.neighbor_allreduce_nonblocking(x, name="local variable")
        grad = gradient(x)  # computed while x is on its way
        x = bf.wait(handle) - alpha * grad
    return x


def exact_diffusion(step, alpha=0.01):
    self_weight, neighbor_weights = topology_util.GetRecvWeights(bf.load_topology(), bf.rank())
    self_weight = (self_weight + 1) / 2
    neighbor_weights = {k: v / 2 for k, v in neighbor_weights.items()}
    x = torch.zeros(n, 1, dtype=torch.double)
    psi_prev = x.clone()
    for _ in range(step):
        psi = x - alpha * gradient(x)
        phi = psi + x - psi_prev
        x = bf.neighbor_allreduce(
            phi, self_weight=self_weight, src_weights=neighbor_weights, name="local variable"
        )
        psi_prev = psi.clone()
    return x


def gradient_tracking(step, alpha=0.003):
    x = torch.zeros(n, 1, dtype=torch.double)
    q = gradient(x)
    grad_prev = q.clone()
    for _ in range(step):
        x_handle = bf.neighbor_allreduce_nonblocking(x, name="x")
        q_handle = bf.neighbor_allreduce_nonblocking(q, name="q")
        x = bf.wait(x_handle) - alpha * q
        grad = gradient(x)
        q = bf.wait(q_handle) + grad - grad_prev
        grad_prev = grad
    return x


errors = {f.__name__: relative_error(f(500)) for f in (atc, awc, exact_diffusion)}
errors["gradient_tracking"] = relative_error(gradient_tracking(1500))
halved = {f.__name__: relative_error(f(1000, alpha=0.005)) for f in (atc, awc)}
worst = {name: bf.allreduce(torch.tensor([e]), average=False).item() for name, e in errors.items()}
smaller = {name: bf.allreduce(torch.tensor([e]), False).item() for name, e in halved.items()}

# DGD has a bias that goes down with its step, the others have none
for name in ("atc", "awc"):
    assert worst[name] > 1e-3 and smaller[name] < 0.8 * worst[name], (name, worst, smaller)
for name in ("exact_diffusion", "gradient_tracking"):
    assert worst[name] < 1e-6, (name, worst)
if bf.rank() == 0:
    print(errors)
bf.shutdown()
