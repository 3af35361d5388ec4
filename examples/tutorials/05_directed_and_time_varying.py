# %% [markdown]
# # 5. Directed and time-varying graphs
#
# So far every rank that sent to another one also heard from it, and the graph stayed the same. Now
# edges become one-way streets and the graph changes in every step. You will see averaging agree on
# a *wrong* value, and a second number per rank mend it; optimization that goes to the optimum of
# the wrong problem, and two methods that do not; and schedules in which each rank sends one message
# per step and all have the exact mean after $\log_2 n$ of them.
#
# It needs chapters 2 and 4.
# `torchrun --nproc_per_node 6 examples/tutorials/05_directed_and_time_varying.py` runs this page as
# a plain script. Six ranks, because powers of two are too easy.

# %%
from itertools import count, islice

import networkx as nx
import numpy as np
import torch
from matplotlib.figure import Figure

import bluefog_pg
import bluefog_pg.torch as bf
from bluefog_pg import simulate, topology
from bluefog_pg.notebook import show
from bluefog_pg.torch import topology_util

bf.init()
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the ranks share this computer
n, rank = bf.size(), bf.rank()


def say(*words):
    if rank == 0:
        print(*words)


# %% [markdown]
# ## One-way streets
#
# Six ranks on a one-way ring, and rank 0 also sends to ranks 2, 3 and 4: it is heard a lot.
#
# A rank that takes the plain average of all it hears has weights that sum to 1 in each *row* of
# $W$; we call such a matrix $R$. Agreement, once reached, stays: $R \mathbf 1 = \mathbf 1$. But its
# columns do not sum to 1, so the mean of all ranks changes on the way. With the left eigenvector
# $\pi^T R = \pi^T$, $\sum_i \pi_i = 1$, it is $\pi^T x$ that stays, and so
#
# $$R^k x \to \mathbf 1 \pi^T x .$$


# %%
def R(x):
    return bf.neighbor_allreduce(x)


def eigenvector(matrix):
    """The one of eigenvalue 1, scaled to sum 1."""
    values, vectors = np.linalg.eig(matrix)
    vector = vectors[:, np.abs(values - 1).argmin()].real
    return torch.tensor(vector / vector.sum())


def follow(step, x, steps):
    """All ranks' values of x after 0, 1, ..., steps, shape (steps + 1, n)."""
    path = [x]
    for _ in range(steps):
        path.append(step(path[-1]))
    return bf.allgather(torch.stack(path).view(1, -1)).T


graph = nx.DiGraph([(i, (i + 1) % n) for i in range(n)] + [(0, j) for j in range(2, n - 1)])
bf.set_topology(graph)
pi = eigenvector(topology.mixing_matrix(graph).T)

x0 = torch.tensor([float(rank)])
ranks, mean = torch.arange(float(n)), (n - 1) / 2
by_rows = follow(R, x0, 60)
say("weights of the ranks in what is agreed on:", *(f"{p:.3f}" for p in pi))
say(f"mean {mean}, agreed on {by_rows[-1, 0]:.6f}, pi^T x {pi @ ranks:.6f}")
assert (by_rows[-1] - pi @ ranks).abs().max() < 1e-12 and abs(pi @ ranks - mean) > 0.25

# %% [markdown]
# ## Pushing
#
# A rank may not know who hears what the others say, but it can know whom *it* sends to. So let it
# give its value away in equal shares, one of which it keeps. Now each *column* sums to 1: nothing
# is lost, $\mathbf 1^T C = \mathbf 1^T$, and the mean stays. But the rows do not sum to 1: ranks
# that get many shares end with too much. With the right eigenvector $C v = v$, $\sum_i v_i = 1$,
#
# $$C^k x \to v \mathbf 1^T x = n v \bar x .$$
#
# In `neighbor_allreduce`, `dst_weights` are the shares, applied by the sender, and `src_weights`
# are all 1.


# %%
def C(x):
    share = 1 / (len(bf.out_neighbor_ranks()) + 1)
    return bf.neighbor_allreduce(
        x,
        self_weight=share,
        src_weights=dict.fromkeys(bf.in_neighbor_ranks(), 1.0),
        dst_weights=dict.fromkeys(bf.out_neighbor_ranks(), share),
        enable_topo_check=False,  # all ranks' edges are those of the graph
    )


C_matrix = topology.mixing_matrix(topology.column_stochastic(graph))
v = eigenvector(C_matrix)
by_columns = follow(C, x0, 60)
say("after 60 steps:", *(f"{value:.4f}" for value in by_columns[-1]))
say("n v times mean:", *(f"{value:.4f}" for value in n * v * mean))
assert (by_columns.mean(1) - mean).abs().max() < 1e-12
assert (by_columns[-1] - n * v * mean).abs().max() < 1e-6

# %% [markdown]
# ## Push-sum
#
# How much too much a rank has does not depend on $x$. So push a second number $w$ along that starts
# as 1 everywhere: it goes to $n v_i$, and the quotient to the mean (Kempe, Dobra and Gehrke, 2003):
#
# $$x^{k+1} = C x^k, \qquad w^{k+1} = C w^k, \qquad z^k = x^k / w^k \to \bar x .$$
#
# It gets there as fast as $|\lambda_2(C)|^k$.

# %%
pairs = follow(C, torch.cat([x0, torch.ones(1)]), 60)  # shape (2 * 61, n): x and w in turn
pairs = pairs.view(61, 2, n)
push_sum = pairs[:, 0] / pairs[:, 1]
error = (push_sum - mean).norm(dim=1)
slope = (error[60] / error[20]).log() / 40
second = np.sort(np.abs(np.linalg.eigvals(C_matrix)))[-2]
say(f"push-sum: error {error[-1]:.1e}, {slope.exp():.4f} per step; |lambda_2| = {second:.4f}")
assert error[-1] < 1e-7 and abs(slope / np.log(second) - 1) < 0.05

if rank == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    places = np.exp(2j * np.pi * (0.25 - np.arange(n) / n))
    for sender, receiver in graph.edges:
        ends = [(z.real, z.imag) for z in (places[receiver], places[sender])]
        arrow = {"arrowstyle": "->", "shrinkA": 10, "shrinkB": 10, "color": f"C{sender > 0:d}"}
        left.annotate("", *ends, arrowprops=arrow)
    for i, place in enumerate(places):
        left.text(place.real, place.imag, str(i), ha="center", va="center")
    left.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", title="who sends to whom")
    left.axis("off")
    for name, values in ("R, rows", by_rows), ("C, columns", by_columns), ("push-sum", push_sum):
        right.semilogy((values - mean).norm(dim=1), label=name)
    right.set(xlabel="step", ylabel="distance from the mean", title="Averaging")
    right.legend(fontsize=8)
    right.grid(alpha=0.3)
    show(figure, "05_push_sum.png")

# %% [markdown]
# The same happens where edges take turns. On a star in which each rank sends to one neighbour per
# step, sometimes five ranks send to the centre and sometimes one. BlueFog's iterators say whom this
# rank sends to and receives from; plain averages of what is received go wrong, shares do not.


# %%
def take_turns(weights_of):
    peers = topology_util.GetDynamicOnePeerSendRecvRanks(bf.StarGraph(n), rank)

    def step(x):
        to, of = next(peers)
        self_weight, src, dst = weights_of(to, of)
        return bf.neighbor_allreduce(
            x,
            self_weight=self_weight,
            src_weights=dict.fromkeys(of, src),
            dst_weights=dict.fromkeys(to, dst),
            enable_topo_check=False,
        )

    return step


def receiver_averages(to, of):
    return 1 / (len(of) + 1), 1 / (len(of) + 1), 1.0


def sender_shares(to, of):
    return 1 / (len(to) + 1), 1.0, 1 / (len(to) + 1)


wrong = follow(take_turns(receiver_averages), x0, 150)[-1]
pairs = follow(take_turns(sender_shares), torch.cat([x0, torch.ones(1)]), 150).view(151, 2, n)[-1]
say(f"averages of what comes: {wrong[0]:.4f}; push-sum: {pairs[0, 0] / pairs[1, 0]:.12f}")
assert (wrong - mean).abs().min() > 0.25
assert (pairs[0] / pairs[1] - mean).abs().max() < 1e-10

# %% [markdown]
# ## The optimum of another problem
#
# With $R$ in place of $W$, gradient descent $x^{k+1} = R (x^k - \alpha \nabla f(x^k))$ minimizes
# $\sum_i \pi_i f_i$ in place of $\frac1n \sum_i f_i$. A smaller step does not remove that bias:
# as $\alpha \to 0$, its resting point $(I - R + \alpha R H)^{-1} \alpha R c$ goes to
# $x_\pi = (\sum \pi_i H_i)^{-1} \sum \pi_i c_i$. The problem is that of chapter 4.

# %%
m, d = 20, 5
common = torch.Generator().manual_seed(0)
own = torch.Generator().manual_seed(200 + rank)
x_own = torch.randn(d, generator=common) + torch.randn(d, generator=own)
A = torch.randn(m, d, generator=own)
b = A @ x_own + 0.1 * torch.randn(m, generator=own)
H, c = A.T @ A / m, A.T @ b / m
all_H, all_c = bf.allgather(H[None]), bf.allgather(c[None])
x_star = torch.linalg.solve(all_H.mean(0), all_c.mean(0))
x_pi = torch.linalg.solve(torch.einsum("i,ijk->jk", pi, all_H), pi @ all_c)


def grad(x):
    return H @ x - c


def errors(method, steps, lr):
    path = torch.stack(list(islice(method(lr, torch.zeros(d)), steps)))
    squares = (path - x_star).square().sum(1)
    return (bf.allreduce(squares) / x_star.square().sum()).sqrt()


def relative(distance):
    return (distance.norm() / (distance.numel() / d) ** 0.5 / x_star.norm()).item()


def row_descent(lr, x):
    while True:
        x = R(x - lr * grad(x))
        yield x


def resting_point(lr):
    mixing = torch.kron(torch.tensor(topology.mixing_matrix(graph)), torch.eye(d))
    matrix = torch.eye(n * d) - mixing + lr * mixing @ torch.block_diag(*all_H)
    return torch.linalg.solve(matrix, lr * mixing @ all_c.view(-1)).view(n, d)


lr = 0.15
rows = errors(row_descent, 200, lr)
assert abs(rows[-1] / relative(resting_point(lr) - x_star) - 1) < 1e-5
for small in (lr, lr / 100, lr / 10000):
    rest = resting_point(small)
    say(
        f"step {small:8.6f}: rests {relative(rest - x_star):.4f} from the optimum,"
        f" {relative(rest - x_pi):.5f} from that of sum pi_i f_i"
    )
assert relative(rest - x_star) > 0.3 and relative(rest - x_pi) < 1e-4

# %% [markdown]
# ## Push-sum for gradients, Push-DIGing, Push-Pull
#
# Stochastic gradient push (arXiv:1811.10792) puts push-sum around gradient descent. It is biased
# like diffusion, but it solves the right problem:
#
# $$x^{k+1} = C (x^k - \alpha \nabla f(z^k)), \qquad w^{k+1} = C w^k, \qquad z = x / w .$$
#
# **Push-DIGing** (arXiv:1607.03218) is gradient tracking with push-sum, and exact:
#
# $$u^{k+1} = C (u^k - \alpha y^k), \quad w^{k+1} = C w^k, \quad x^{k+1} = u^{k+1} / w^{k+1}, \quad
#   y^{k+1} = C (y^k + \nabla f(x^{k+1}) - \nabla f(x^k)) .$$
#
# **Push-Pull** (arXiv:1810.06653) uses both kinds of weights and needs no quotient: *pull*
# solutions, which have to agree, by rows, and *push* gradients, whose sum has to stay, by columns:
#
# $$x^{k+1} = R (x^k - \alpha y^k), \qquad
#   y^{k+1} = C y^k + \nabla f(x^{k+1}) - \nabla f(x^k) .$$


# %%
def gradient_push(lr, x):
    z, w = x, torch.ones(1)
    while True:
        x, w = C(torch.cat([x - lr * grad(z), w])).split([d, 1])
        z = x / w
        yield z


def push_diging(lr, x):
    u, w = x, torch.ones(1)
    y = g = grad(x)
    while True:
        u, w = C(torch.cat([u - lr * y, w])).split([d, 1])  # one message for both
        x = u / w
        g_old, g = g, grad(x)
        y = C(y + g - g_old)
        yield x


def push_pull(lr, x):
    y = g = grad(x)
    while True:
        x = R(x - lr * y)
        g_old, g = g, grad(x)
        y = C(y) + g - g_old
        yield x


curves = {
    "rows only": rows,
    "gradient push": errors(gradient_push, 120, lr),
    "Push-DIGing": errors(push_diging, 220, lr),
    "Push-Pull": errors(push_pull, 220, lr),
}
half = errors(gradient_push, 160, lr / 2)[-1]
for name, curve in curves.items():
    say(f"{name:13} error after {len(curve)} steps: {curve[-1]:.1e}")
assert 1.8 < curves["gradient push"][-1] / half < 2.1  # a bias proportional to the step
assert curves["Push-DIGing"][-1] < 1e-10 and curves["Push-Pull"][-1] < 1e-12

if rank == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.semilogy(curve, label=name)
    axes.set(xlabel="step", ylabel="relative error", title="Least squares on a directed graph")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    show(figure, "05_directed.png")

# %% [markdown]
# What `DecentralizedDataParallel` says about this graph: `atc` is refused. `push_sum`
# (gradient push), `push_diging` and `push_pull` are taken, and make their own weights where the
# graph has none.

# %%
model = torch.nn.Linear(d, 1, bias=False)
try:
    bluefog_pg.DecentralizedDataParallel(model, algorithm="atc", topology=graph)
    raise AssertionError("a graph that keeps no mean was taken")
except ValueError as refusal:
    say(refusal)
for algorithm in "push_sum", "push_diging", "push_pull":
    bluefog_pg.DecentralizedDataParallel(model, algorithm=algorithm, topology=graph)

# %% [markdown]
# ## One message per step, and the exact mean
#
# Now weights are doubly stochastic again, but the graph changes. In the one-peer exponential graph
# rank $i$ sends at step $k$ to $i + 2^{k \bmod \tau}$ only, $\tau = \lceil \log_2 n \rceil$, and
# $W^{(k)} = \frac12 (I + P_{2^k})$, where $P_s$ shifts by $s$.
#
# **Lemma** (arXiv:2110.13363). If $n = 2^\tau$, any $\tau$ steps in a row give the exact average:
#
# $$W^{(k + \tau - 1)} \cdots W^{(k + 1)} W^{(k)} = \tfrac1n \mathbf 1 \mathbf 1^T .$$
#
# *Proof.* Multiply out: each of the $2^\tau$ terms takes or leaves each power of two, so that the
# product is $2^{-\tau} \sum_{s=0}^{2^\tau - 1} P_s$, every shift once. If $n < 2^\tau$, some shifts
# come twice, and what is left is not zero.

# %%
left_over = {}
for size in range(2, 17):
    product = np.eye(size)
    for round_of in topology.rounds(topology.one_peer_exponential(size)):
        product = topology.mixing_matrix(round_of) @ product
    left_over[size] = np.linalg.norm(product - 1 / size, 2)
    assert (left_over[size] < 1e-15) == bf.isPowerOf(size, 2)
say(*(f"n={size}: {rest:.3f}" for size, rest in left_over.items()))

# %% [markdown]
# ## Any number of ranks: CECA
#
# Six is not a power of two, and yet one message per step and $\lceil \log_2 6 \rceil = 3$ steps are
# enough. CECA (arXiv:2306.00256) keeps a second value $z$, which is the mean of one rank less than
# $x$. Write $n - 1 = 5$ in binary, 101, and read it from the left with $m = 0$ at first; where $r$
# is what comes in:
#
# - bit 1: send $x$ to $i + m + 1$;
#   $\; x' = \frac12 (x + r), \;\; z' = \frac{m}{2m+1} z + \frac{m+1}{2m+1} r$;
# - bit 0: send $z$ to $i + m$;
#   $\; x' = \frac{m+1}{2m+1} x + \frac{m}{2m+1} r, \;\; z' = \frac12 (z + r)$;
#
# then $m' = 2m + \text{bit}$. At all times $x_i$ is the mean of the ranks $i-m, \ldots, i$ and
# $z_i$ that of $i-m, \ldots, i-1$; in the end $m = n - 1$.


# %%
def shifted(value, by):
    """What rank - by sends, when each rank sends to rank + by."""
    of, to = (rank - by) % n, (rank + by) % n
    weights = {"self_weight": 0.0, "src_weights": {of: 1.0}, "dst_weights": [to]}
    return bf.neighbor_allreduce(value, **weights, enable_topo_check=False)


x = z = x0
before, history = 0, []  # before: m, how many ranks before this one x is the mean of
for bit in map(int, f"{n - 1:b}"):
    small, large = before / (2 * before + 1), (before + 1) / (2 * before + 1)
    if bit:
        r = shifted(x, before + 1)
        x, z = (x + r) / 2, small * z + large * r
    else:
        r = shifted(z, before)
        x, z = large * x + small * r, (z + r) / 2
    before = 2 * before + bit
    interval = torch.tensor([float((rank - back) % n) for back in range(before + 1)])
    assert abs(x - interval.mean()) < 1e-14
    history.append(f"mean of {before + 1} ranks {x.item():.1f}")
print(f"rank {rank}:", ", ".join(history))
assert abs(x - mean) < 1e-14

# %% [markdown]
# ## Many ranks
#
# `bluefog_pg.simulate` runs the same topologies on virtual ranks. Three ways to send one message
# per step on 300 of them: CECA, exact after 9 steps; Base-2 graphs (arXiv:2305.11420), exact after
# 15, symmetric and with one value; and EquiDyn (arXiv:2210.07881), which draws a shift $s$ from
# $1, \ldots, n - 1$ anew in each step, $W = \frac12 (I + P_s)$. The latter is never exact. But in
# the mean over shifts
#
# $$\mathbb E \lVert W x - \bar x \rVert^2 = \frac{n - 2}{2 (n - 1)} \lVert x - \bar x \rVert^2 ,$$
#
# a factor of a half whatever $n$ is, where a static graph needs ever more steps, or messages.

# %%
many = 300
start = np.random.default_rng(0).standard_normal(many)
start -= start.mean()
mixed = np.array([(start + np.roll(start, s)) / 2 for s in range(1, many)])
factor = np.square(mixed).sum(1).mean() / (start @ start)
assert abs(factor - (many - 2) / (2 * (many - 1))) < 1e-12

if rank == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    fell = {}
    for name, degree in (
        ("ring", 2),
        ("exponential", 9),
        ("one_peer_exponential", 1),
        ("equi_dyn", 1),
        ("base_graph", 1),
        ("ceca", 1),
    ):
        fell[name] = simulate.consensus(topology.get(name)(many), 60, dim=20)
        axes.semilogy(np.maximum(fell[name], 1e-14), label=f"{name}, {degree} per step")
    axes.semilogy(fell["equi_dyn"][0] * 0.5 ** (np.arange(61) / 2), "k:", label="$2^{-k/2}$")
    axes.set(xlabel="step k", ylabel="distance from the mean", title=f"{many} virtual ranks")
    axes.legend(fontsize=7, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.07))
    axes.grid(alpha=0.3)
    show(figure, "05_many.png")
    assert fell["ceca"][9] < 1e-12 < fell["ceca"][8]
    assert fell["base_graph"][15] < 1e-12 < fell["base_graph"][14]
    per_step = (fell["equi_dyn"][60] / fell["equi_dyn"][0]) ** (1 / 60)
    assert per_step < 0.5**0.5  # a typical run is faster than the mean square is
    assert fell["ring"][60] > 0.1 * fell["ring"][0]

# %% [markdown]
# ## Optimization on graphs that change
#
# Last, chapter 4's methods on our six ranks. `bluefog_pg` has such schedules as objects:
# `set_topology` takes one, and each step of `neighbor_allreduce` its graph. Gradient tracking does
# not mind which graph a step has, as long as each is doubly stochastic; it is as fast as one
# machine on all of them. $D^2$, whose correction remembers what *another* graph did, diverges.


# %%
def tracking(lr, x):
    y = g = grad(x)
    for step in count():
        x = bluefog_pg.neighbor_allreduce(x - lr * y, step=step)
        g_old, g = g, grad(x)
        y = bluefog_pg.neighbor_allreduce(y + g - g_old, step=step)
        yield x


def d2(lr, x):
    psi_old = x
    while True:
        psi = x - lr * grad(x)
        x, psi_old = bluefog_pg.neighbor_allreduce(psi + x - psi_old), psi
        yield x


def one_machine(lr, x):
    while True:
        x = x - lr * (all_H.mean(0) @ x - all_c.mean(0))
        yield x


lr, steps = 0.2, 200
alone = errors(one_machine, steps, lr)
curves = {}
for name in "one_peer_exponential", "equi_dyn", "base_graph":
    bluefog_pg.set_topology(name)
    curves[name] = errors(tracking, steps, lr)
bluefog_pg.set_topology("one_peer_exponential")
diverging = errors(d2, 150, lr)

for name, curve in curves.items():
    difference = (curve[150] / curve[50]).log() / (alone[150] / alone[50]).log() - 1
    say(f"{name:20} decay differs from that of one machine by {difference:+.2%}")
    assert curve[-1] < 1e-12 and abs(difference) < 0.02
say(f"error of D2 on one_peer_exponential after 150 steps: {diverging[-10:].max():.0e}")
assert diverging[-10:].max() > 1e5

if rank == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "-.", ":"), strict=True):
        axes.semilogy(curve, style, label=f"tracking, {name}")
    axes.semilogy(diverging, label="$D^2$, one_peer_exponential")
    axes.semilogy(alone, "k--", linewidth=1, label="one machine")
    axes.set(xlabel="step", ylabel="relative error", title="Graphs that change in each step")
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)
    show(figure, "05_changing.png")

# %% [markdown]
# ## What to remember
#
# - Rows that sum to 1 make ranks agree; columns that sum to 1 keep the mean. Averaging needs both.
#   With rows alone one gets $\pi^T x$, and the optimum of $\sum \pi_i f_i$, however small the step.
# - Push-sum needs columns only, which senders can see to, and divides by a second number. Gradient
#   push is biased like diffusion; Push-DIGing and Push-Pull are exact.
# - One message per step is enough: one-peer exponential for $n = 2^\tau$; CECA for any $n$, at two
#   copies; Base-2 graphs for any $n$ with one; EquiDyn where $n$ is large or changes.
# - On graphs that change take gradient tracking. $D^2$, exact diffusion and EXTRA want a static
#   one, and `DecentralizedDataParallel` sees to that.
#
# `DecentralizedDataParallel(model, algorithm="push_diging", topology=graph)` trains on a directed
# graph, `topology="equi_dyn"` on one that changes. Which to choose:
# [topologies](../../docs/topologies.md), `bluefog-pg topo auto -n 6`;
# [algorithms](../../docs/algorithms.md). Next: ranks that do not wait for each other.
