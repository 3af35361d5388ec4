# %% [markdown]
# # 3. Decentralized gradient descent
#
# Ranks that hold different data find one model together, each with gradients of its own data and a
# word with its neighbours. You will see the two oldest ways to do it, ATC and AWC; that with a
# fixed step both stop *near* the optimum and not at it; and linear algebra predict where, to four
# digits.
#
# `torchrun --nproc_per_node 8 examples/tutorials/03_decentralized_gradient_descent.py` runs this
# page as a plain script.

# %%
import math

import numpy as np
import torch
from matplotlib.figure import Figure

import bluefog_pg.torch as bf
from bluefog_pg import topology
from bluefog_pg.notebook import show
from bluefog_pg.torch import topology_util

bf.init()
n, i = bf.size(), bf.rank()

# %% [markdown]
# ## The problem
#
# $$ \min_{x \in \mathbb R^d} \; \frac1n \sum_{i=0}^{n-1} f_i(x), \qquad
#    f_i(x) = \frac{1}{2m} \| A_i x - b_i \|^2 , \qquad
#    \nabla f_i(x) = \frac1m A_i^\top (A_i x - b_i) . $$
#
# Rank $i$ knows $A_i$ and $b_i$, and nobody else does. The ranks' data differ: $b_i = A_i
# x_i^\circ$ with another $x_i^\circ$ on each, so that each rank alone would find something else.

# %%
m, d = 20, 5
random = torch.Generator().manual_seed(i)
A = torch.randn(m, d, dtype=torch.float64, generator=random)
own_optimum = 1 + torch.randn(d, dtype=torch.float64, generator=random)
b = A @ own_optimum


def gradient(x):
    return A.T @ (A @ x - b) / m


# %% [markdown]
# To have something to compare with, the exact optimum $x^\star$, from sums over all ranks. There
# the gradients add up to zero, but no single one is zero:

# %%
H, c = A.T @ A / m, A.T @ b / m
optimum = torch.linalg.solve(bf.allreduce(H), bf.allreduce(c))

assert bf.allreduce(gradient(optimum)).norm() < 1e-14
print(f"rank {i}: gradient at the optimum {gradient(optimum).norm():.2f}")

# %% [markdown]
# ## Two ways
#
# **Adapt then combine** (ATC, or diffusion; Chen and Sayed, arXiv:1205.4220): everybody makes a
# gradient step, then neighbours average.
#
# $$ x_i^{k+1} = \sum_j w_{ij} \big( x_j^k - \alpha \nabla f_j(x_j^k) \big) $$
#
# **Adapt with combine** (AWC, or D-PSGD; Lian et al., arXiv:1705.09056): the average is of the old
# values, so it can travel *while* the gradient is computed.
#
# $$ x_i^{k+1} = \sum_j w_{ij}\, x_j^k - \alpha \nabla f_i(x_i^k) $$


# %%
def atc(alpha, steps):
    x = torch.zeros(d, dtype=torch.float64)
    history = [x]
    for _ in range(steps):
        x = bf.neighbor_allreduce(x - alpha * gradient(x))
        history.append(x)
    return errors_of(history)


def awc(alpha, steps):
    x = torch.zeros(d, dtype=torch.float64)
    history = [x]
    for _ in range(steps):
        handle = bf.neighbor_allreduce_nonblocking(x)
        g = gradient(x)  # while x travels
        x = bf.synchronize(handle) - alpha * g
        history.append(x)
    return errors_of(history)


def errors_of(history):
    """sqrt(1/n sum_i ||x_i^k - optimum||^2) for each k, from each rank's own list of x^k."""
    squares = (torch.stack(history) - optimum).square().sum(dim=1)
    return bf.allreduce(squares).sqrt().numpy()


# %% [markdown]
# Both on the exponential graph, with steps $\alpha$ that are halved each time:

# %%
exponential = topology_util.ExponentialTwoGraph(n)
bf.set_topology(exponential)

alphas = [0.2, 0.1, 0.05]
curves = {way: {alpha: way(alpha, steps=int(20 / alpha)) for alpha in alphas} for way in (atc, awc)}

# %%
if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for way, line in ((atc, "-"), (awc, "--")):
        for number, (alpha, error) in enumerate(curves[way].items()):
            label = f"{way.__name__.upper()}, $\\alpha$ = {alpha}"
            axes.semilogy(error, linestyle=line, color=f"C{number}", label=label)
    axes.set(title="Where a fixed step ends", xlabel="step $k$", ylabel="distance from $x^*$")
    axes.legend(fontsize=8, ncols=2)
    axes.grid(alpha=0.3)
    show(figure, "03_steps.png")

# %% [markdown]
# A small step is slow, and a large one stops early. There is no noise in these gradients: what is
# left is a *bias*.
#
# ## Where it stops
#
# Let $X$ have the $x_i$ as rows, and $G(X)$ the gradients. A point where ATC stands still has
#
# $$ X = W \big( X - \alpha G(X) \big) \quad\Longleftrightarrow\quad
#    (I - W)\, X = - \alpha W G(X), $$
#
# and one of AWC $(I - W)\, X = - \alpha G(X)$. If all ranks were at the optimum, the left side
# would be zero, but the right one is not, because $\nabla f_i(x^\star) \ne 0$. Averaging pulls
# ranks together, their own data pull them apart, and where both balance, the ranks disagree by
# about
#
# $$ \alpha \, \big\| (I - W)^{+} \, W \, G(X^\star) \big\| \;\text{ (ATC)}, \qquad
#    \alpha \, \big\| (I - W)^{+} \, G(X^\star) \big\| \;\text{ (AWC)}, $$
#
# with the pseudo-inverse $(I-W)^+$, whose norm is at most $1/(1-\rho)$: the bias grows with the
# step, with the difference between the ranks' data, and with the inverse of the spectral gap.
#
# Here gradients are linear, $G(X)_i = H_i x_i - c_i$, and the point can be computed: it solves a
# linear system of $nd = 40$ unknowns. It is what the iteration has to arrive at:

# %%
all_H = torch.block_diag(*bf.allgather(H).view(n, d, d)).numpy()
all_c = bf.allgather(c).numpy()
identity = np.eye(n * d)


def iteration(way, graph, alpha):
    """M and r of the iteration x <- M x + r, for the vectors of all ranks in one column."""
    W = np.kron(topology.mixing_matrix(graph), np.eye(d))
    if way is atc:
        return W @ (identity - alpha * all_H), alpha * W @ all_c
    return W - alpha * all_H, alpha * all_c


def predicted(way, graph, alpha):
    """The error of the point where the iteration stands still."""
    M, r = iteration(way, graph, alpha)
    X = np.linalg.solve(identity - M, r).reshape(n, d)
    return np.linalg.norm(X - optimum.numpy()) / math.sqrt(n)


for way in (atc, awc):
    for alpha, error in curves[way].items():
        bias = predicted(way, exponential, alpha)
        assert math.isclose(error[-1], bias, rel_tol=1e-4), (way, alpha, error[-1], bias)
        if i == 0:
            text = f"predicted {bias:.5f}   measured {error[-1]:.5f}"
            print(f"{way.__name__.upper()}, step {alpha:<5}   {text}")

# %% [markdown]
# Halve the step, and you halve the bias: in a plot with two logarithmic axes, lines of slope one.
# And for small steps they are the lines that the formula says.


# %%
def first_order(way, graph, alpha):
    """The formula above: alpha ||(I - W)^+ W G||, without that W for AWC; per rank, like errors."""
    W = np.kron(topology.mixing_matrix(graph), np.eye(d))
    G = all_H @ np.tile(optimum, n) - all_c
    pull = W @ G if way is atc else G
    return alpha * np.linalg.norm(np.linalg.pinv(identity - W) @ pull) / math.sqrt(n)


for way in (atc, awc):
    half = curves[way][alphas[-1]][-1] / curves[way][alphas[-2]][-1]
    formula, exact = first_order(way, exponential, 1e-4), predicted(way, exponential, 1e-4)
    assert 0.5 < half < 0.54, (way, half)
    assert math.isclose(formula, exact, rel_tol=0.01), (way, formula, exact)

if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    steps = np.geomspace(0.02, 0.25)
    for number, way in enumerate((atc, awc)):
        name, color = way.__name__.upper(), f"C{number}"
        line = [predicted(way, exponential, alpha) for alpha in steps]
        axes.loglog(steps, line, color=color, label=f"{name}, predicted")
        dots = [error[-1] for error in curves[way].values()]
        axes.loglog(alphas, dots, "o", color=color, label=f"{name}, measured")
    axes.set(title="The bias is proportional to the step", xlabel="step size $\\alpha$")
    axes.set(ylabel="distance from $x^*$ at the end")
    axes.set_xticks([0.02, *alphas], ["0.02", *map(str, alphas)])
    axes.set_xticks([], minor=True)
    axes.legend()
    axes.grid(alpha=0.3)
    show(figure, "03_bias.png")

# %% [markdown]
# ## The graph matters
#
# A larger spectral gap, a smaller bias. On the complete graph ATC has none: $W G(X^\star) = 0$
# there, and the method is nothing but gradient descent on the mean. AWC has one even there,
# because ranks step away from their mean *after* they have agreed on it.

# %%
graphs = {
    "ring": topology_util.RingGraph(n),
    "exponential": exponential,
    "complete": topology_util.FullyConnectedGraph(n),
}
bias = {}
for name, graph in graphs.items():
    bf.set_topology(graph, is_weighted=True)
    for way in (atc, awc):
        bias[name, way] = way(alpha := 0.2, steps=120)[-1]
        assert abs(bias[name, way] - predicted(way, graph, alpha)) < 1e-6
    if i == 0:
        rho, found = topology.consensus_rate(graph), [bias[name, way] for way in (atc, awc)]
        print(f"{name:12} rho = {rho:.3f}   ATC {found[0]:.1e}   AWC {found[1]:.1e}")

assert bias["complete", atc] < 1e-6 < bias["exponential", atc] < bias["ring", atc]
assert 0.1 < bias["complete", awc] < bias["exponential", awc] < bias["ring", awc]
assert all(bias[name, atc] < bias[name, awc] for name in graphs)

# %% [markdown]
# ## How large a step may be
#
# The iteration is $x \leftarrow M x + r$ with $M = W (I - \alpha H)$ for ATC and $M = W - \alpha H$
# for AWC, where $H$ holds all ranks' $H_i$. It converges if no eigenvalue of $M$ has a modulus
# above one. With $L$ the largest eigenvalue of any $H_i$ and a symmetric $W$ that is certain for
#
# $$ \alpha < \frac{2}{L} \;\text{ (ATC, as for gradient descent)}, \qquad
#    \alpha < \frac{1 + \lambda_{\min}(W)}{L} \;\text{ (AWC).} $$
#
# On a ring of 8, $\lambda_{\min}(W) = -\frac13$: AWC is only sure of a third of the step. Let us
# take one in between:

# %%
alpha, ring = 0.6, graphs["ring"]
L = np.linalg.eigvalsh(all_H).max()
lowest = np.linalg.eigvalsh(topology.mixing_matrix(ring)).min()
assert math.isclose(lowest, -1 / 3) and (1 + lowest) / L < alpha < 2 / L

bf.set_topology(ring)
errors = {way: way(alpha, steps=60) for way in (atc, awc)}
radius = {
    way: np.abs(np.linalg.eigvals(iteration(way, ring, alpha)[0])).max() for way in (atc, awc)
}
growth = (errors[awc][60] / errors[awc][30]) ** (1 / 30)

assert radius[atc] < 1 < radius[awc]
assert math.isclose(errors[atc][-1], predicted(atc, ring, alpha), rel_tol=1e-6)
assert math.isclose(growth, radius[awc], rel_tol=0.01), (growth, radius[awc])
if i == 0:
    print(f"ATC: spectral radius {radius[atc]:.3f}, ends at {errors[atc][-1]:.3f}")
    print(f"AWC: spectral radius {radius[awc]:.3f}, grows by {growth:.3f} per step")

# %% [markdown]
# ## If ranks agree in the end
#
# The bias comes from gradients that are not zero at the optimum. Where *one* $x$ is best for all
# ranks, which is nearly so if data are dealt out at random or the model is large enough to fit them
# all, there is none, with the same step on the same ring:

# %%
b = A @ torch.ones(d, dtype=torch.float64)
optimum = torch.ones(d, dtype=torch.float64)
errors = {way: way(0.2, steps=150) for way in (atc, awc)}
assert all(error[-1] < 1e-8 for error in errors.values())
if i == 0:
    print(
        "; ".join(
            f"{way.__name__.upper()} ends at {error[-1]:.0e}" for way, error in errors.items()
        )
    )

# %% [markdown]
# ## The same for any model
#
# `DecentralizedDataParallel` does this for a `torch.nn.Module` and any optimizer. With SGD and
# `algorithm="awc"` it is the equation above, number for number:

# %%
from bluefog_pg import DecentralizedDataParallel

module = torch.nn.Linear(d, 1, bias=False, dtype=torch.float64)
torch.nn.init.zeros_(module.weight)
model = DecentralizedDataParallel(module, algorithm="awc", topology=ring)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

history = [module.weight.detach().flatten().clone()]
for _ in range(100):
    optimizer.zero_grad()
    (0.5 * (model(A).flatten() - b).square().mean()).backward()
    optimizer.step()
    history.append(module.weight.detach().flatten().clone())

error = errors_of(history)
assert np.allclose(error, errors[awc][:101], rtol=1e-9, atol=0)
if i == 0:
    print(f"after 100 steps: {error[-1]:.6e}, and by hand {errors[awc][100]:.6e}")

# %% [markdown]
# ## What to remember
#
# - ATC, $x \leftarrow W (x - \alpha g)$, has the smaller bias and stands the larger step. AWC,
#   $x \leftarrow W x - \alpha g$, hides the exchange behind the gradient.
# - With a fixed step both end near the optimum: at a distance proportional to the step, to the
#   difference between the ranks' data, and at most to $1/(1-\rho)$ of the graph.
# - `DecentralizedDataParallel(model, algorithm="atc", topology=...)` is either of them for any
#   model.
#
# Next: [algorithms without that bias](04_bias_correction.ipynb). All of them, with equations and
# costs: [`docs/algorithms.md`](../../docs/algorithms.md).
