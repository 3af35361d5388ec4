# %% [markdown]
# # 4. Bias correction
#
# Chapter 3 ended with a disappointment: where ranks have different data, decentralized gradient
# descent stops short of the optimum. This chapter mends that with one more line of code. You will
# see three methods (exact diffusion, gradient tracking and EXTRA) go down to the last digits of a
# float64, at the speed of gradient descent on one machine; what noise in the gradients leaves of
# their advantage; and what they ask of the graph, with graphs on which they fail.
#
# It needs PyTorch, linear algebra and chapter 3.
# `torchrun --nproc_per_node 4 examples/tutorials/04_bias_correction.py` runs this page as a plain
# script.

# %%
from itertools import islice

import torch
from matplotlib.figure import Figure

import bluefog_pg
import bluefog_pg.torch as bf
from bluefog_pg.notebook import show
from bluefog_pg.topology import mixing_matrix
from bluefog_pg.torch import topology_util

bf.init()
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the ranks share this computer


def say(*words):
    if bf.rank() == 0:
        print(*words)


ring = topology_util.RingGraph(bf.size())
bf.set_topology(ring, is_weighted=True)
W = bf.neighbor_allreduce  # W(x): this rank's row of the product of the mixing matrix with all x
say(mixing_matrix(ring).round(2))

# %% [markdown]
# ## The problem
#
# Rank $i$ has $m$ rows of data and the loss
# $f_i(x) = \frac{1}{2m} \lVert A_i x - b_i \rVert^2$ with
# $\nabla f_i(x) = H_i x - c_i$, $H_i = A_i^T A_i / m$, $c_i = A_i^T b_i / m$.
# All ranks together look for
#
# $$x^\star = \arg\min_x \frac1n \sum_i f_i(x) = \bar H^{-1} \bar c .$$
#
# The data are *heterogeneous*: each $b_i$ comes from a solution of the rank's own. So at $x^\star$
# the gradients add up to zero, and yet none of them is zero.

# %%
n, m, d = bf.size(), 20, 5
common = torch.Generator().manual_seed(0)
own = torch.Generator().manual_seed(100 + bf.rank())
x_own = torch.randn(d, generator=common) + torch.randn(d, generator=own)
A = torch.randn(m, d, generator=own)
b = A @ x_own + 0.1 * torch.randn(m, generator=own)
H, c = A.T @ A / m, A.T @ b / m

H_mean = bf.allreduce(H)  # an average, as in BlueFog
x_star = torch.linalg.solve(H_mean, bf.allreduce(c))
L = max(torch.linalg.eigvalsh(h)[-1].item() for h in bf.allgather(H).split(d))


def grad(x):  # of this rank's f; x is one vector, or many as rows
    return x @ H - c


print(f"rank {bf.rank()}: its gradient at the optimum has norm {grad(x_star).norm():.2f}")
assert bf.allreduce(grad(x_star)).norm() < 1e-12
assert grad(x_star).norm() > 0.5

# %% [markdown]
# ## Where gradient descent stops
#
# Adapt, then combine (ATC, also called diffusion): $x^{k+1} = W (x^k - \alpha \nabla f(x^k))$. Here
# and below $x$ stands for the vectors of all ranks stacked, and $\nabla f(x)$ for each rank's
# gradient at its own $x_i$.
#
# Were all $x_i = x^\star$, the next step would pull them apart again, because their gradients
# differ. ATC comes to rest where pulling apart and averaging balance. That point is the solution of
# a linear system, so we can say beforehand where it is:
# $x_\infty = (I - W + \alpha W H)^{-1} \alpha W c$ with the block diagonal matrix $H$ of all $H_i$.
#
# A method is a generator of $x^1, x^2, \ldots$; `errors` follows
# $\lVert x^k - x^\star \rVert / \lVert x^\star \rVert$ over all ranks.


# %%
def diffusion(g, lr, x):
    while True:
        x = W(x - lr * g(x))
        yield x


def errors(method, steps, lr, g=grad):
    path = torch.stack([x for x in islice(method(g, lr, torch.zeros(d)), steps)])
    squares = (path - x_star).square().sum(1)
    return (bf.allreduce(squares) / x_star.square().sum()).sqrt()  # one message for all steps


def resting_point(lr):
    """x_i of all ranks where diffusion stops, shape (n, d)."""
    mixing = torch.kron(torch.tensor(mixing_matrix(ring)), torch.eye(d))
    all_h, all_c = torch.block_diag(*bf.allgather(H).split(d)), bf.allgather(c)
    matrix = torch.eye(n * d) - mixing + lr * mixing @ all_h
    return torch.linalg.solve(matrix, lr * mixing @ all_c).view(n, d)


lr = 0.2
atc, atc_half = errors(diffusion, 200, lr), errors(diffusion, 200, lr / 2)
for step_size, error in (lr, atc[-1]), (lr / 2, atc_half[-1]):
    predicted = (resting_point(step_size) - x_star).norm() / (n**0.5 * x_star.norm())
    say(f"step {step_size}: stops at an error of {error:.6f}, predicted {predicted:.6f}")
    assert abs(error / predicted - 1) < 1e-5
assert 1.9 < atc[-1] / atc_half[-1] < 2  # the bias is proportional to the step, and a bit less

# %% [markdown]
# Half the step gives half the bias and takes twice as long. A better way out is to change the
# method.
#
# ## Exact diffusion
#
# Averaging shifts $x$ away from where the gradient step has put it. Exact diffusion
# (arXiv:1702.05122) remembers that shift and adds it back in the next step:
#
# $$\psi^{k+1} = x^k - \alpha \nabla f(x^k), \qquad
#   \phi^{k+1} = \psi^{k+1} + x^k - \psi^k, \qquad
#   x^{k+1} = \bar W \phi^{k+1}, \qquad \bar W = \tfrac12 (I + W),$$
#
# and $\phi^1 = \psi^1$ at first, because $\psi^0 = x^0$. Why can it only rest at $x^\star$? At rest
# $\psi$ does not change, so that $\phi = x$ and $x = \bar W x$, which means that all ranks agree.
# And averaging keeps means, so the mean over ranks of the shift $x^k - \psi^k$ stays what it is at
# first, 0. The mean of $x$ thus makes plain gradient steps,
# $\bar x^{k+1} = \bar x^k - \alpha \frac1n \sum_i \nabla f_i(x_i^k)$, which end only at $x^\star$.
#
# One message per step, as before, and one more vector of memory.


# %%
def exact_diffusion(g, lr, x):
    psi_old = x
    while True:
        psi = x - lr * g(x)
        phi = psi + x - psi_old
        x, psi_old = (phi + W(phi)) / 2, psi
        yield x


exact = errors(exact_diffusion, 200, lr)
say("error of exact diffusion after 100 and 200 steps:", *(f"{e:.1e}" for e in exact[99::100]))
assert exact[-1] < 1e-12

# %% [markdown]
# ## Gradient tracking
#
# Another idea: follow the *mean* gradient instead of one's own. Each rank has an estimate $y_i$ of
# it, averages that with its neighbours, and adds what is new in its own gradient:
#
# $$x^{k+1} = W (x^k - \alpha y^k), \qquad
#   y^{k+1} = W (y^k + \nabla f(x^{k+1}) - \nabla f(x^k)), \qquad y^0 = \nabla f(x^0).$$
#
# Averaging keeps the mean, so at all times $\frac1n \sum y_i = \frac1n \sum \nabla f_i(x_i)$: that
# is asserted below. It takes two messages per step, but it never asks for a symmetric $W$, nor for
# one that stays the same: see chapter 5.


# %%
def gradient_tracking(g, lr, x):
    y = gx = g(x)
    while True:
        x = W(x - lr * y)
        g_old, gx = gx, g(x)
        y = W(y + gx - g_old)
        invariant.append(y - gx)
        yield x


invariant = []
tracking = errors(gradient_tracking, 200, lr)
assert bf.allreduce(torch.stack(invariant)).abs().max() < 1e-12
say("error of gradient tracking after 200 steps:", f"{tracking[-1]:.1e}")
assert tracking[-1] < 1e-12

# %% [markdown]
# ## EXTRA
#
# EXTRA (arXiv:1404.6264) came first. It takes the difference of two steps of
# $x^{k+1} = W x^k - \alpha \nabla f(x^k)$, the second with $\bar W$ in place of $W$, so that what
# the steps have in common, bias included, cancels:
#
# $$x^{k+2} - x^{k+1} = W x^{k+1} - \bar W x^k
#   - \alpha \bigl( \nabla f(x^{k+1}) - \nabla f(x^k) \bigr), \qquad
#   x^1 = W x^0 - \alpha \nabla f(x^0).$$
#
# Its exchange of $x$ can run while the gradient of $x$ is computed.


# %%
def extra(g, lr, x_old):
    mixed_old, g_old = W(x_old), g(x_old)
    x = mixed_old - lr * g_old
    while True:
        yield x
        mixed, gx = W(x), g(x)
        x_new = x + mixed - (x_old + mixed_old) / 2 - lr * (gx - g_old)
        x_old, mixed_old, g_old, x = x, mixed, gx, x_new


extras = errors(extra, 200, lr)
say("error of EXTRA after 200 steps:", f"{extras[-1]:.1e}")
assert extras[-1] < 1e-12

# %% [markdown]
# ## How fast
#
# On one machine with all data, gradient descent goes down by $1 - \alpha \mu$ per step in the end,
# $\mu$ being the smallest eigenvalue of $\bar H$. If averaging is faster than that (here its factor
# is $\rho = 1/3$), theory promises the same for all three methods, up to terms in $\alpha^2$. So
# the three lines below should be parallel to the dashed one, and they are.


# %%
def one_machine(g, lr, x):  # with the mean of all gradients, as DDP does
    while True:
        x = x - lr * bf.allreduce(g(x))
        yield x


def slope(curve):
    return (curve[150] / curve[50]).log() / 100


descent = errors(one_machine, 200, lr)
for name, curve in ("exact diffusion", exact), ("gradient tracking", tracking), ("EXTRA", extras):
    difference = slope(curve) / slope(descent) - 1
    say(f"{name:18} decay differs from that of one machine by {difference:+.2%}")
    assert abs(difference) < 0.01

if bf.rank() == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(atc, label=f"diffusion, step {lr}")
    axes.semilogy(atc_half, label=f"diffusion, step {lr / 2}")
    axes.semilogy(exact, label="exact diffusion")
    axes.semilogy(tracking, "-.", label="gradient tracking")
    axes.semilogy(extras, ":", linewidth=2.5, label="EXTRA")
    axes.semilogy(descent, "k--", linewidth=1, label="one machine, all data")
    axes.set(xlabel="step k", ylabel="relative error", title="Different data on each of 4 ranks")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    show(figure, "04_correction.png")

# %% [markdown]
# ## What noise leaves of the advantage
#
# Deep learning has stochastic gradients, with noise of variance $\sigma^2$ per entry, say. Then no
# method with a constant step reaches $x^\star$. What is left? For quadratic losses the mean of $x$
# goes its way as if there were no noise, so that
#
# $$\text{mean square error} = \text{bias}^2 + \text{variance}.$$
#
# The variance of the mean of all ranks is that of SGD on one machine, with the eigenvalues $h_k$ of
# $\bar H$:
#
# $$\frac{\alpha^2 \sigma^2}{n} \sum_k \frac{1}{1 - (1 - \alpha h_k)^2}
#   \approx \frac{\alpha \sigma^2}{2n} \operatorname{tr} \bar H^{-1} .$$
#
# On top comes what ranks differ from their mean, one term for each eigenvalue $\lambda \neq 1$ of
# $W$ (a small exercise on time series, for small $\alpha$; $d$ is the dimension of $x$):
#
# $$\frac{\alpha^2 \sigma^2 d}{n} \sum_\lambda \frac{\lambda^2}{1 - \lambda^2}
#   \ \text{(diffusion)}, \qquad
#   \frac{\alpha^2 \sigma^2 d}{n} \sum_w \frac{2 w^2}{(1 - w)(1 + 3 w)}
#   \ \text{(exact diffusion, } w = \tfrac12 (1 + \lambda) \text{)}.$$
#
# So the bias, $O(\alpha^2)$, is gone, and some variance, $O(\alpha^2 \sigma^2)$, has come.
#
# We run 200 copies for each of five noise levels at once: to `neighbor_allreduce` a tensor of
# shape (levels, copies, d) is as good as any other.

# %%
sigmas, copies, lr = torch.logspace(-2, 1, 5), 200, 0.1


def noisy(seed):
    random = torch.Generator().manual_seed(seed + bf.rank())

    def g(x):
        return grad(x) + sigmas[:, None, None] * torch.randn(x.shape, generator=random)

    return g


def mean_square(method):
    """Mean square error of late steps, for each sigma, relative to ||x*||^2."""
    path = islice(method(noisy(7), lr, torch.zeros(len(sigmas), copies, d)), 120, 240, 4)
    squares = [(x - x_star).square().sum(-1).mean(1) for x in path]
    return bf.allreduce(torch.stack(squares).mean(0)) / x_star.square().sum()


single, biased, corrected = map(mean_square, (one_machine, diffusion, exact_diffusion))

h = torch.linalg.eigvalsh(H_mean)
lam = torch.linalg.eigvalsh(torch.tensor(mixing_matrix(ring)))[:-1]
w = (1 + lam) / 2
unit = lr**2 * sigmas**2 / n / x_star.square().sum()
bias = (resting_point(lr) - x_star).square().sum() / (n * x_star.square().sum())
single_theory = unit * (1 / (1 - (1 - lr * h) ** 2)).sum()
biased_theory = bias + single_theory + unit * d * (lam**2 / (1 - lam**2)).sum()
corrected_theory = single_theory + unit * d * (2 * w**2 / (1 - w) / (1 + 3 * w)).sum()

say("mean square error for sigma =", *(f"{s:8.2f}" for s in sigmas))
for name, measured, theory in (
    ("SGD on one machine", single, single_theory),
    ("diffusion", biased, biased_theory),
    ("exact diffusion", corrected, corrected_theory),
):
    say(f"{name:28}", *(f"{v:8.1e}" for v in measured))
    assert (measured / theory - 1).abs().max() < 0.08

# %% [markdown]
# Where there is little noise, the correction gains orders of magnitude; where there is much, the
# bias drowns in it, and nothing is gained. *Little* means $\sigma^2$ small against the bias, that
# is: large batches, large steps, very different data, a badly connected graph.

# %%
assert biased[0] > 100 * corrected[0] and corrected[-1] > biased[-1]

if bf.rank() == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(sigmas, biased, "o", label="diffusion")
    axes.loglog(sigmas, corrected, "s", label="exact diffusion")
    axes.loglog(sigmas, single, "^", label="SGD on one machine")
    for theory in (biased_theory, corrected_theory, single_theory):
        axes.loglog(sigmas, theory, "k--", linewidth=0.8)
    axes.plot([], [], "k--", linewidth=0.8, label="theory")
    axes.axhline(bias, color="C0", linestyle=":", label="bias of diffusion, squared")
    axes.set(xlabel=r"noise $\sigma$", ylabel="mean square error", title="Bias and noise")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    show(figure, "04_noise.png")

# %% [markdown]
# ## Noise can be corrected as well
#
# Where the noise comes from drawing rows of finite data, SVRG (Johnson and Zhang, NeurIPS 2013)
# removes it: now and then it computes the full gradient at a snapshot $\tilde x$, and in between
# takes, for a random row $s$,
# $\nabla f_{i,s}(x) - \nabla f_{i,s}(\tilde x) + \nabla f_i(\tilde x)$. Its mean is the gradient,
# and its variance vanishes as $x$ and $\tilde x$ both approach $x^\star$. With exact diffusion
# against the ranks' differences and SVRG against the rows', each step looks at *one* row and one
# neighbourhood, and still there is no floor.


# %%
def one_row(seed):
    random = torch.Generator().manual_seed(seed + bf.rank())

    def gradients(*points):  # at each of the points, of the same row's loss
        row = torch.randint(m, (), generator=random)
        return [A[row] * (A[row] @ x - b[row]) for x in points]

    return gradients


def svrg(seed, every=m):
    gradients, calls, kept = one_row(seed), iter(range(10**9)), {}

    def g(x):
        if next(calls) % every == 0:
            kept.update(x=x, g=grad(x))
        at_x, at_snapshot = gradients(x, kept["x"])
        return at_x - at_snapshot + kept["g"]

    return g


sampled_gradients = one_row(3)
sampled = errors(exact_diffusion, 500, lr, lambda x: sampled_gradients(x)[0])
reduced = errors(exact_diffusion, 500, lr, svrg(3))
say(f"error after 500 steps of one row each: {sampled[-1]:.2f}, with SVRG {reduced[-1]:.1e}")
assert sampled[-100:].min() > 1e-2 and reduced[-1] < 1e-11

if bf.rank() == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(sampled, label="exact diffusion, one row per step")
    axes.semilogy(reduced, label="the same with SVRG")
    axes.set(xlabel="step", ylabel="relative error", title="Variance reduction on top")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    show(figure, "04_svrg.png")

# %% [markdown]
# ## What the graph must have
#
# $D^2$ (arXiv:1803.07068) is exact diffusion with $W$ in place of $\bar W$. Let us look at it where
# losses are flat: if $W$ has the eigenvalue $\lambda$, then along its eigenvector
# $x^{k+1} = \lambda (2 x^k - x^{k-1})$, which grows like $z^k$, $z^2 - 2 \lambda z + \lambda = 0$.
# For $\lambda < 0$ the larger root is $|z| = |\lambda| + \sqrt{\lambda^2 + |\lambda|}$, and that is
# above 1 as soon as $\lambda < -1/3$. In $\bar W$ all eigenvalues are between 0 and 1: it is safe.
#
# A ring in which ranks trust themselves little, $w_{ii} = 0.2$, has $\lambda = -0.6$. A smaller
# step does not help: with hardly any step at all the error grows by $|z| = 1.58$ each time.


# %%
def d2(g, lr, x):
    psi_old = x
    while True:
        psi = x - lr * g(x)
        phi = psi + x - psi_old
        x, psi_old = W(phi), psi
        yield x


distrustful = topology_util.RingGraph(n)
for sender, receiver in distrustful.edges:
    distrustful[sender][receiver]["weight"] = 0.2 if sender == receiver else 0.4
smallest = torch.linalg.eigvalsh(torch.tensor(mixing_matrix(distrustful)))[0].abs()

bf.set_topology(distrustful, is_weighted=True)
diverging = errors(d2, 60, 1e-3)
safe = errors(exact_diffusion, 200, 0.2)
growth = (diverging[-1] / diverging[-21]) ** (1 / 20)
predicted = smallest + (smallest**2 + smallest).sqrt()
say(f"D2 grows by {growth:.4f} per step, predicted {predicted:.4f}")
say(f"exact diffusion reaches {safe[-1]:.1e}")
assert abs(growth - predicted) < 0.01 and safe[-1] < 1e-12

# %% [markdown]
# For EXTRA it is the step that pays for negative eigenvalues. The same calculation with curvature
# $h$ puts a root at $z = -1$ when $\alpha h = (5 + 3 \lambda) / 4$, so EXTRA wants about
# $\alpha < (5 + 3 \lambda_{\min}) / (4 L)$, where exact diffusion stands $\alpha < 2 / L$ on *any*
# symmetric graph, as gradient descent does (arXiv:1704.07807, 1906.07225). On our good ring with
# $\lambda_{\min} = -1/3$ the bounds are $1 / L$ and $2 / L$; a step of $1.6 / L$ tells them apart.

# %%
bf.set_topology(ring, is_weighted=True)
large_extra, large_exact = errors(extra, 60, 1.6 / L), errors(exact_diffusion, 120, 1.6 / L)
say(f"step 1.6 / L: EXTRA {large_extra[-1]:.1e}, exact diffusion {large_exact[-1]:.1e}")
assert large_extra[-1] > 1e3 and large_exact[-1] < 1e-12

# %% [markdown]
# Divergence is not an error message. `DecentralizedDataParallel` therefore checks $W$ when the
# model is wrapped. The same problem as a PyTorch model, first on graphs that will not do:

# %%


def wrapped(algorithm, topology):
    model = torch.nn.Linear(d, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    return bluefog_pg.DecentralizedDataParallel(model, algorithm=algorithm, topology=topology)


refused = 0
for algorithm, topology in (
    ("d2", distrustful),  # the eigenvalue
    ("exact_diffusion", topology_util.RingGraph(n, connect_style=1)),  # goes one way: not symmetric
    ("extra", bluefog_pg.one_peer_exponential(n)),  # another graph in each step
):
    try:
        wrapped(algorithm, topology)
    except ValueError as error:
        refused += 1
        say(f"refused: {error}\n")
assert refused == 3

# %% [markdown]
# And on the ring, where one name chooses the method. The optimizer is PyTorch's own, and the
# iterates are those of our generators. (Messages are padded to multiples of
# 64 bytes; gradient tracking needs none for $y$ in its first step.)

# %%
for name, method in (
    ("exact_diffusion", exact_diffusion),
    ("gradient_tracking", gradient_tracking),
    ("extra", extra),
):
    model = wrapped(name, ring)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    sent = bluefog_pg.ops.bytes_sent()
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(A)[:, 0] - b).square().mean() / 2
        loss.backward()
        optimizer.step()
    model.settle()  # what follows the last step of the optimizer
    sent = bluefog_pg.ops.bytes_sent() - sent
    (ours,) = islice(method(grad, 0.2, torch.zeros(d)), 39, 40)
    difference = (model.module.weight[0] - ours).abs().max().item()
    say(f"{name:18} sends {sent / 40:3.0f} bytes per step; differs from ours by {difference:.0e}")
    assert difference < 1e-12

# %% [markdown]
# ## What to remember
#
# - Where data differ, diffusion stops at a distance proportional to the step and to how much the
#   gradients at the optimum differ. Exact diffusion, EXTRA and gradient tracking do not.
# - They are as fast as gradient descent on one machine where averaging is faster than descending.
# - With noise, what is gained is the bias and nothing else: with large batches and different data
#   that is much, with small batches nothing.
# - Exact diffusion, $D^2$ and EXTRA: one message, a *static, symmetric* graph; $D^2$ also needs
#   $\lambda_{\min} > -1/3$, and EXTRA a smaller step. Gradient tracking: two messages, any doubly
#   stochastic weights, also those of graphs that change, with a step that is small enough.
# - `DecentralizedDataParallel(model, algorithm="exact_diffusion")` refuses what would diverge;
#   `bluefog-pg topo check graph.txt --algorithm d2` tells beforehand.
#
# All algorithms and their needs: [algorithms](../../docs/algorithms.md). Graphs:
# [topologies](../../docs/topologies.md). Next: graphs that are directed, and graphs that change.
