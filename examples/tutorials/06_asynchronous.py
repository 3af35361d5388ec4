# %% [markdown]
# # 6. Ranks that do not wait
#
# In all chapters so far a rank waits for its neighbours in each step. They wait for theirs, and so
# one slow rank sets the pace of all. Here nobody waits. You will see
#
# - **windows**: tensors with mailboxes, into which others write without asking;
# - a rank ten times slower than the others, and how little the others care;
# - ranks that agree fast, but on a **wrong** value, and push-sum, which mends that to ten digits;
# - asynchronous training, what it gains, and the one thing that must be watched.
#
# It needs chapter 2 (average consensus); push-sum is explained here once more.
# `torchrun --nproc_per_node 4 examples/tutorials/06_asynchronous.py` runs this page as a plain
# script.

# %%
import time
from itertools import pairwise

import torch
import torch.distributed as dist
from matplotlib.figure import Figure

import bluefog_pg
import bluefog_pg.torch as bf
from bluefog_pg.notebook import show
from bluefog_pg.torch import topology_util

bf.init(topology_util.ExponentialTwoGraph)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
rank, n = bf.rank(), bf.size()
assert n == 4, "this page is written for 4 ranks"


def from_all(own):
    """What each rank brings, in the order of ranks. Waits for all, so it is for looking on only."""
    everything = [None] * n
    dist.all_gather_object(everything, own)
    return everything


print(f"rank {rank} hears from {bf.in_neighbor_ranks()}, speaks to {bf.out_neighbor_ranks()}")

# %% [markdown]
# ## A value and mailboxes
#
# `bf.win_create(x, "x")` gives the tensor $x_i$ of rank $i$ one mailbox $m_{ij}$ for each of its
# in-neighbours $j$. They are memory of rank $i$, into which $j$ writes by itself. After that, each
# operation is done by the rank that calls it, alone:
#
# | | |
# |---|---|
# | `win_put` | $m_{ji} \leftarrow w\,x_i$ for out-neighbours $j$: what the mailbox held is gone |
# | `win_accumulate` | $m_{ji} \leftarrow m_{ji} + w\,x_i$ |
# | `win_get` | $m_{ij} \leftarrow w\,x_j$: rank $i$ fetches for itself |
# | `win_update` | $x_i \leftarrow w_{ii} x_i + \sum_j w_{ij} m_{ij}$ |
#
# To watch, we take pictures. An update that weighs one mailbox by 1, all else by 0, and changes
# nothing (`clone=True`) shows what is in that mailbox.

# %%
x = torch.tensor([float(rank)])
bf.win_create(x, "x", zero_init=True)
pictures = []


def picture(title):
    bf.barrier()  # only so that all have done what the title says
    boxes = {j: bf.win_update("x", 0.0, {j: 1.0}, clone=True) for j in bf.in_neighbor_ranks()}
    own = x.item(), {j: box.item() for j, box in boxes.items()}
    pictures.append((title, from_all(own)))
    bf.barrier()


picture("win_create")
if rank == 0:  # and nobody else
    bf.win_get("x")
picture("rank 0: win_get")
if rank == 0:
    bf.win_update("x")
picture("rank 0: win_update")
print(f"rank {rank}: {x.item():.4f}")
expected = [(0 + 2 + 3) / 3, 1, 2, 3]
assert abs(x.item() - expected[rank]) < 1e-15

# %% [markdown]
# Rank 0 has averaged with ranks 2 and 3, which have done nothing: no cell of theirs had to run.
# Weights may be given to both operations. Here rank 0 begins again from 0, fetches *half* of rank
# 3's value, and adds 0.4 of that: $0 + 0.4 \cdot (0.5 \cdot 3) = 0.6$.

# %%
if rank == 0:
    x.zero_()
    bf.win_get("x", {3: 0.5})
    bf.win_update("x", self_weight=1.0, neighbor_weights={3: 0.4})
    print(f"rank 0: {x.item():.4f}")
    assert abs(x.item() - 0.6) < 1e-15
    x.zero_()
bf.barrier()
bf.win_put(x, "x")
picture("all: win_put")
bf.win_accumulate(x, "x")
picture("all: win_accumulate")
bf.win_free("x")
in_boxes = pictures[-1][1][rank][1]
assert in_boxes == {j: 2.0 * j for j in bf.in_neighbor_ranks()}  # put once, and added once


# %%
def draw_mailboxes(pictures):
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    figure.suptitle("Values (circles) and mailboxes (squares, with the sender's number)")
    for axes, (title, ranks) in zip(figure.subplots(1, len(pictures)), pictures, strict=True):
        axes.set_title(title, fontsize=8)
        for i, (value, boxes) in enumerate(ranks):
            y = n - 1 - i
            axes.text(-0.55, y, f"{i}", ha="center", va="center", color="gray")
            axes.text(0.1, y, f"{value:.2f}", ha="center", va="center", fontsize=7)
            axes.plot(0.1, y, "o", ms=24, mfc="none", mec="C0")
            for at, (j, held) in enumerate(boxes.items(), start=1):
                axes.text(at, y, f"{held:.0f}", ha="center", va="center", fontsize=8)
                axes.plot(at, y, "s", ms=19, mfc=f"C{j}" if held else "none", mec="gray", alpha=0.4)
                axes.text(at + 0.3, y + 0.38, f"{j}", ha="center", va="center", fontsize=6)
        axes.set(xlim=(-0.8, 2.6), ylim=(-0.6, n - 0.3))
        axes.axis("off")
    return figure


if rank == 0:
    show(draw_mailboxes(pictures), "06_mailboxes.png")

# %% [markdown]
# The last two pictures show the difference on which the second half of this page rests: a `put`
# replaces what nobody has read yet, an `accumulate` adds to it.
#
# ## A straggler
#
# Let rank 0 be ten times slower than the others: 30 ms of "computing" per step instead of 3. First
# the averages that you know. `neighbor_allreduce` waits for the in-neighbours of the same step.

# %%
STEPS = 30
SLOW, FAST = 0.030, 0.003  # seconds


def compute():
    time.sleep(SLOW if rank == 0 else FAST)


def synchronous(steps):
    """Each rank's steps, as the times of their ends in seconds from a common start."""
    x = torch.eye(n)[rank]
    bf.barrier()
    started, ends = time.perf_counter(), []
    for _ in range(steps):
        compute()
        x = bf.neighbor_allreduce(x)
        ends.append(time.perf_counter() - started)
    assert (x - 1 / n).abs().max() < 1e-12  # the mean
    return from_all(ends)


waiting = synchronous(STEPS)
seconds = waiting[0][-1]
if rank == 0:
    took = ", ".join(f"{ends[-1]:.2f}" for ends in waiting)
    print(f"{STEPS} steps take the ranks {took} seconds")
# A step that needs what rank 0 has computed cannot end before; rank 3 learns of it one step later.
assert min(ends[-1] for ends in waiting) > 0.9 * (STEPS - 1) * SLOW

# %% [markdown]
# Now the same time again, and windows: put to the neighbours, average with what has come.
#
# $$m_{ji} \leftarrow x_i \quad (i \to j), \qquad
# x_i \leftarrow w_{ii} x_i + \sum_j w_{ij} m_{ij}.$$
#
# Rank $i$ starts with the $i$-th unit vector. So component $k$ of what the ranks agree on is **the
# say of rank $k$**, the weight that its start has in the result. For the mean all are $1/4$.


# %%
def at_own_pace(seconds, step):
    """Repeats a step, each rank for itself. Returns what all ranks have seen: (time, result)."""
    bf.barrier()
    started, seen = time.perf_counter(), []
    while time.perf_counter() - started < seconds:
        compute()
        result = step().clone()
        seen.append((time.perf_counter() - started, result))
    bf.barrier()
    return from_all(seen)


x = torch.eye(n)[rank].clone()
bf.win_create(x, "x")
bf.win_put(x, "x")  # so that mailboxes hold the neighbours' starts


def put_and_average():
    bf.win_put(x, "x")
    return bf.win_update("x")


put = at_own_pace(seconds, put_and_average)
bf.win_free("x")
counts = [len(seen) for seen in put]
if rank == 0:
    print(f"steps in {seconds:.2f} s: {counts}, and {STEPS} for each rank that waits")
# Who waits can be two steps ahead of rank 0, so twice as many are proof. Nine or ten times as many
# are expected, fewer where cores are busy with something else.
assert min(counts[1:]) > 2 * STEPS


# %%
def draw_steps(runs, until):
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    for axes, (title, ranks) in zip(figure.subplots(2, sharex=True), runs.items(), strict=True):
        for i, ends in enumerate(ranks):
            bars = [(a, b - a) for a, b in pairwise([0, *ends]) if a < until]
            axes.broken_barh(bars, (i - 0.4, 0.8), facecolor=f"C{i}", edgecolor="white", lw=0.8)
        axes.set(title=title, yticks=range(n), ylabel="rank", xlim=(0, until))
        axes.invert_yaxis()
    axes.set_xlabel("seconds; each bar is a step")
    return figure


if rank == 0:
    own_pace = [[t for t, _ in seen] for seen in put]
    runs = {"neighbor_allreduce": waiting, "win_put and win_update": own_pace}
    show(draw_steps(runs, until=0.2), "06_steps.png")

# %% [markdown]
# ## They agree, and are wrong
#
# All ranks have the same vector in the end. But is it the mean?

# %%
final = torch.stack([seen[-1][1] for seen in put])
say = final.mean(0)


def rounded(values, digits):
    return " ".join(f"{value:.{digits}f}" for value in values)


if rank == 0:
    print(f"distance between ranks: {(final - say).abs().max():.0e}")
    print(f"the say of each rank:   {rounded(say, 3)}")
assert (final - say).abs().max() < 1e-6  # agreed
assert abs(say.sum() - 1) < 1e-12  # on an average, with weights that sum to 1
assert (say - 1 / n).abs().max() > 0.05  # but not on the mean, where each weight is 0.25

# %% [markdown]
# The slow rank has won. In the time in which rank 0 looks up once, the others average with the
# value that it put last ten times over, and have come to it.
#
# A formula for this: let rank $i$ look up at random times, $\lambda_i$ of them a second, and
# average by a doubly stochastic $W$. In expectation $\dot x = \Lambda (W - I) x$. That keeps
# $\pi^\top x$ if $\pi^\top \Lambda (W - I) = 0$, and since $\mathbf 1^\top (W - I) = 0$, it does so
# for $\pi_i \propto 1 / \lambda_i$. With $\lambda \propto (1, 10, 10, 10)$ rank 0 has a say of
# $10/13 = 0.77$. Clocks here are regular and not random, which changes the number and not the
# tendency.
#
# What is lost is **mass**. Let $W$ have columns that sum to 1. Synchronous steps then keep
# $\sum_i x_i$, because all that a rank gives away arrives somewhere, once. A put that nobody has
# read before the next one arrives nowhere; one that is read ten times arrives ten times.
#
# ## Push-sum
#
# So let nothing be lost, and nothing be counted twice. A rank with $d$ out-neighbours divides what
# it has into $d + 1$ shares, keeps one and **accumulates** one in each mailbox. To receive is to
# empty the mailboxes:
#
# $$m_{ji} \leftarrow m_{ji} + \frac{x_i}{d_i + 1}, \quad x_i \leftarrow \frac{x_i}{d_i + 1}; \qquad
# x_i \leftarrow x_i + \sum_j m_{ij}, \quad m_{ij} \leftarrow 0.$$
#
# Values and mailboxes together now have the same sum at all times. How much of it lies where is a
# matter of chance. But a number $p_i$, which is 1 at first and goes the same ways, knows: whatever
# mixture of starts $x_i$ has become, $p_i$ is the sum of the mixture's weights, so
# $z_i = x_i / p_i$ is an average, and it tends to the mean (arXiv:1811.10792, arXiv:2111.04287).
# `turn_on_win_ops_with_associated_p` has $p$ travel along.

# %%
bf.turn_on_win_ops_with_associated_p()
x = torch.eye(n)[rank].clone()
bf.win_create(x, "x", zero_init=True)  # mailboxes must be empty: what is in them counts
share = 1 / (len(bf.out_neighbor_ranks()) + 1)
to = dict.fromkeys(bf.out_neighbor_ranks(), share)


def push_and_collect():
    bf.win_accumulate(x, "x", self_weight=share, dst_weights=to)
    bf.win_update_then_collect("x", require_mutex=False)  # exact without, and nobody waits
    return x / bf.win_associated_p("x")


push = at_own_pace(2 * seconds, push_and_collect)
bf.win_update_then_collect("x")  # what came after a rank's last step: nothing is sent any more
p = bf.win_associated_p("x")
z = x / p
x_sum, p_sum = sum(from_all(x)), sum(from_all(p))
error = max(from_all((z - 1 / n).abs().max().item()))
if rank == 0:
    print(f"sum of all x: {rounded(x_sum, 14)}, of all p: {p_sum:.14f}")
print(f"rank {rank}: p = {p:.3f}, x / p = {rounded(z, 12)}")
bf.win_free("x")
bf.turn_off_win_ops_with_associated_p()

assert (x_sum - 1).abs().max() < 1e-12 and abs(p_sum - n) < 1e-12  # mass: up to rounding
assert error < 1e-10  # the mean


# %%
def draw_says(put, push):
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, title, ranks in ((left, "put", put), (right, "push-sum", push)):
        for i, seen in enumerate(ranks):
            path = [(0.0, float(i == 0)), *((t, value[0].item()) for t, value in seen)]
            axes.step(*zip(*path, strict=True), where="post", label=f"rank {i}", lw=1)
        axes.axhline(1 / n, color="gray", ls=":", label="the mean")
        axes.set(title=title, xlabel="seconds", xlim=(0, 0.3))
    left.set_ylabel("say of rank 0 in each rank's value")
    right.legend()
    return figure


if rank == 0:
    show(draw_says(put, push), "06_says.png")

# %% [markdown]
# Look at $p$: how much each rank has in the end is a matter of chance, and while rank 0 sleeps most
# of the mass lies in its mailboxes. That does no harm: whoever has much $x$ has much $p$.
#
# Two things to keep in mind when you write such a program. Mailboxes must be empty at the start
# (`zero_init=True`). And at the end a barrier, and one more `win_update_then_collect`, bring home
# what is still in mailboxes.
#
# ## Training without waiting
#
# `DecentralizedDataParallel` has five asynchronous algorithms. Push-sum is one of them,
# `"async_push_sum"`. We take AD-PSGD, `"ad_psgd"` (arXiv:1710.06952): after its step a rank $i$
# chooses one neighbour $j$ at random, looks at what that one has last shown, and the two meet
# halfway,
#
# $$d = x_i - x_j, \qquad x_i \leftarrow x_i - d / 2, \qquad x_j \leftarrow x_j + d / 2.$$
#
# The first half is done at once, the second is an accumulate, which $j$ finds when it next looks.
# So nothing is lost here either: mass is kept without weights $p$, for edges that go both ways.
#
# A small problem, to know the answer: $f_i(z) = \frac{1}{2m} \lVert A_i z - b_i \rVert^2$, with
# $A_i \in \mathbb R^{m \times 5}$. At first all $b_i = A_i x^\circ$, so that one and the same
# $x^\circ$ is best for all ranks.

# %%
m, d = 200, 5
draw = torch.Generator().manual_seed(0)
A_all = torch.randn(n, m, d, generator=draw)
x_true = torch.randn(d, generator=draw)
A, b = A_all[rank], A_all[rank] @ x_true
LR = 0.2
SLOW, FAST = 0.1, 0.01  # seconds: gradients take longer than averages
STEPS = 12


def make(algorithm, lr, start):
    linear = torch.nn.Linear(d, 1, bias=False)
    linear.weight.data.copy_(start)
    model = bluefog_pg.DecentralizedDataParallel(linear, algorithm=algorithm, topology="ring")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return model, optimizer


def training_step(model, optimizer, b):
    def step():
        optimizer.zero_grad()
        ((model(A).squeeze(1) - b).square().mean() / 2).backward()
        optimizer.step()
        return model.module.weight.detach()[0]

    return step


model, optimizer = make("awc", LR, start=torch.zeros(d))  # chapter 3's: it waits
step = training_step(model, optimizer, b)
bf.barrier()
started, seen = time.perf_counter(), []
for _ in range(STEPS):
    compute()
    value = step().clone()
    seen.append((time.perf_counter() - started, value))
synchronous_training = from_all(seen)

model, optimizer = make("ad_psgd", LR, start=torch.zeros(d))
asynchronous_training = at_own_pace(
    synchronous_training[0][-1][0], training_step(model, optimizer, b)
)
model.finalize()  # here all ranks meet: the exact average, mailboxes included


# %%
def error_curve(seen, optimum):
    return [t for t, _ in seen], [(value - optimum).norm().item() for _, value in seen]


if rank == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, ranks, style in (
        ("waits (awc)", synchronous_training, "--"),
        ("does not wait (ad_psgd)", asynchronous_training, "-"),
    ):
        for i in (0, 1):
            curve = error_curve(ranks[i], x_true)
            axes.semilogy(*curve, style, color=f"C{i}", label=f"{name}, rank {i}")
    axes.set(
        title="Least squares; rank 0 is slow", xlabel="seconds", ylabel="distance from $x^\\circ$"
    )
    axes.legend(fontsize=8)
    show(figure, "06_training.png")

late = max((seen[-1][1] - x_true).norm().item() for seen in synchronous_training)
error = (model.module.weight.detach()[0] - x_true).norm().item()
if rank == 0:
    print(
        f"steps: {STEPS} each with waiting, {[len(each) for each in asynchronous_training]} without"
    )
    print(f"distance from the optimum: {late:.1e} with waiting, {error:.1e} without")
assert error < late / 10

# %% [markdown]
# Even the slow rank gains, because the others work for it.
#
# ## What must be watched: the objective
#
# All is learnt. Now rank 0, the slow one, gets data that say something else,
# $b_0 = A_0 (x^\circ + \delta)$, and training goes on. The best for all together is
# $x^\star = \arg\min \sum_i f_i$, about $x^\circ + \delta / 4$. But a rank that makes $\lambda_i$
# steps a second subtracts $\gamma_i \nabla f_i$ that often. Nothing is lost on the way, so the sum
# of all $x_i$ stands still, for small $\gamma_i$, where
#
# $$\sum_i \lambda_i \gamma_i \nabla f_i(z) = 0,$$
#
# and that is the minimum of $\sum_i \lambda_i \gamma_i f_i$: with equal $\gamma_i$ **fast ranks
# weigh more**. The same equation says what to do: $\gamma_i \propto 1 / \lambda_i$.

# %%
delta = torch.ones(d)
b_all = A_all @ x_true
b_all[0] += A_all[0] @ delta


def say_of_rank_0(z):
    """s of z = x_true + s delta, as nearly as there is one."""
    return ((z - x_true) @ delta / (delta @ delta)).item()


def best(weights):
    """The minimum of the sum of weights[i] * f_i."""
    H = torch.einsum("i,imd,ime->de", weights, A_all, A_all)
    return torch.linalg.solve(H, torch.einsum("i,imd,im->d", weights, A_all, b_all))


def found(lr):
    model, optimizer = make("ad_psgd", lr, start=x_true)
    seen = at_own_pace(2.5, training_step(model, optimizer, b_all[rank]))
    model.finalize()
    counts = torch.tensor([float(len(each)) for each in seen])
    return say_of_rank_0(model.module.weight.detach()[0]), counts, seen


biased, counts, biased_path = found(lr=0.02)
mended, _, mended_path = found(lr=0.02 * (counts.max() / counts[rank]).item())
fair, by_steps = say_of_rank_0(best(torch.ones(n))), say_of_rank_0(best(counts))
if rank == 0:
    print(f"steps made: {rounded(counts, 0)}; the say of rank 0 in what is found:")
    print(f"equal rates:        {biased:.3f} (best, weighted by steps: {by_steps:.3f})")
    print(f"rates ~ 1 / steps:  {mended:.3f} (best, fair: {fair:.3f})")
assert abs(biased - by_steps) < abs(biased - fair) / 2
assert abs(mended - fair) < abs(biased - fair) / 2


# %%
def draw_training_on():
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    runs = (("equal rates", biased_path, by_steps), ("rates ~ 1 / steps", mended_path, fair))
    for color, (name, path, goal) in zip(("C1", "C2"), runs, strict=True):
        says = [(t, say_of_rank_0(z)) for t, z in path[1]]
        axes.plot(*zip(*says, strict=True), color=color, label=name, lw=1)
        axes.axhline(goal, color=color, ls=":", label=f"minimum: {goal:.2f}")
    axes.set(title="New data at the slow rank, as rank 1 learns of them", xlabel="seconds")
    axes.set_ylabel("say of rank 0")
    axes.legend(fontsize=8)
    return figure


if rank == 0:
    show(draw_training_on(), "06_objective.png")

# %% [markdown]
# ## What to remember
#
# - With a window a rank writes to its neighbours and reads from its own memory. Only making and
#   freeing one waits for others (and mutexes, if you ask for them).
# - `put` and `update` agree, but on an average in which slow ranks have the greatest say.
# - `accumulate` and `update_then_collect` with $p$ keep all mass, and reach the mean to machine
#   precision, however the ranks' speeds differ. The graph need only be strongly connected.
# - Asynchronous training makes as many steps as each rank can. The optimum then weighs ranks by
#   $\lambda_i \gamma_i$: scale learning rates, or let fast ranks have data that speak for all, or
#   take `"async_push_sum"`, whose steps count by $p$, which is small where steps are many. As with
#   all methods that keep $\gamma$ constant, what is found is near that, at a distance of order
#   $\gamma$.
# - Runs differ from each other: who reads what is decided by the clock. What this page asserts
#   holds for all of them.
#
# More: `docs/windows.md` says what can be relied on (nothing torn, nothing lost, what happens when
# a rank dies) and how a mailbox works; `docs/algorithms.md`, "Ranks of unequal speed", has the
# other asynchronous algorithms. Between hosts windows send messages, which a thread of the other
# rank takes: there a `put` is in the mailbox a little later.
