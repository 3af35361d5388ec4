# %% [markdown]
# # 1. Hello world
#
# Four processes say hello, average a number with everybody, then with neighbours only, and see that
# both ways lead to the same place. You need PyTorch, `bluefog_pg` and a CPU with a core or two:
# no GPU, no MPI.
#
# `torchrun --nproc_per_node 4 examples/tutorials/01_hello_world.py` runs this page as a plain
# script. In the notebook, `cluster(4)` starts the four processes, and a cell with `%%px` on top
# runs on all of them at once; what they print is marked with the number of the process.

# %% [markdown]
# ## Ranks
#
# All processes run the same program. Each has a number, its *rank*, and that is all that makes them
# different. `bf.init()` lets them find each other.

# %%
import networkx as nx
import torch
from matplotlib.figure import Figure

import bluefog_pg.torch as bf
from bluefog_pg.notebook import show
from bluefog_pg.torch import topology_util

bf.init()
n, i = bf.size(), bf.rank()
print(f"Hello, I am rank {i} of {n}")

# %% [markdown]
# Each has its own memory, so a variable has one value *per rank*. We write $x_i$ for the value that
# `x` has on rank $i$. Here $x_i = 10\,i$:

# %%
x = torch.tensor([10.0 * i])
print(f"x_{i} = {x.item():g}")

# %% [markdown]
# ## Everybody with everybody
#
# Three *collective* operations: all ranks call them, and all ranks together get something done.
# `allreduce` gives every rank the mean (or, with `average=False`, the sum):
#
# $$ \bar x = \frac1n \sum_{i=0}^{n-1} x_i $$

# %%
mean = bf.allreduce(x)
total = bf.allreduce(x, average=False)
assert mean.item() == 15.0 and total.item() == 60.0
print(f"rank {i}: mean {mean.item():g}, sum {total.item():g}")

# %% [markdown]
# `broadcast` gives everybody what one rank has, and `allgather` gives everybody everything, in the
# order of the ranks.

# %%
from_two = bf.broadcast(x, root_rank=2)
everything = bf.allgather(x)
assert from_two.item() == 20.0
assert everything.tolist() == [0.0, 10.0, 20.0, 30.0]
print(f"rank {i}: from rank 2 {from_two.item():g}, from all {everything.tolist()}")

# %% [markdown]
# This is what data parallel training usually is made of, and its trouble: each of these operations
# waits for *all* ranks. One that is slow makes everybody slow, and the more ranks there are, the
# more there is to wait for.
#
# ## Neighbours only
#
# bluefog adds operations on a *graph*. Its nodes are the ranks, and its edges say who sends to
# whom. After `init` it is the exponential graph: rank $i$ sends to $i+1, i+2, i+4, \dots$ (modulo
# $n$).

# %%
graph = bf.load_topology()
print(f"rank {i}: receives from {bf.in_neighbor_ranks()}, sends to {bf.out_neighbor_ranks()}")

if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    for axes, (name, drawn) in zip(
        figure.subplots(1, 2),
        [("exponential graph", graph), ("ring", topology_util.RingGraph(n))],
        strict=True,
    ):
        edges = [(j, k) for j, k in drawn.edges if j != k]
        nx.draw_networkx(
            drawn,
            nx.circular_layout(drawn),
            edgelist=edges,
            ax=axes,
            node_color="#bcd7ee",
            node_size=600,
            connectionstyle="arc3,rad=0.12",
        )
        axes.set_title(f"{name}, {n} ranks")
        axes.set_aspect("equal")
        axes.margins(0.15)
        axes.set_axis_off()
    show(figure, "01_graphs.png")

# %% [markdown]
# `neighbor_allreduce` averages with the in-neighbours $\mathcal N_i$, the ranks that have an edge
# to rank $i$:
#
# $$ x_i^{+} = w_{ii}\,x_i + \sum_{j \in \mathcal N_i} w_{ij}\,x_j , \qquad
#    w_{ij} = \frac{1}{|\mathcal N_i| + 1} \text{ unless you say otherwise.} $$
#
# A rank waits for its neighbours, and for nobody else. Let us compare with the formula:

# %%
averaged = bf.neighbor_allreduce(x)
sources = bf.in_neighbor_ranks()
by_hand = (x + sum(everything[j] for j in sources)) / (len(sources) + 1)
assert torch.allclose(averaged, by_hand)
print(f"rank {i}: {x.item():g} and {everything[sources].tolist()} make {averaged.item():.4f}")

# %% [markdown]
# The ranks now have different numbers, but numbers that are closer together. So do it again, and
# again:

# %%
history = [everything]
for _ in range(20):
    x = bf.neighbor_allreduce(x)
    history.append(bf.allgather(x))  # only to draw it
history = torch.stack(history)  # (steps + 1, ranks)

assert (history[-1] - mean).abs().max() < 1e-5
print(f"rank {i}: {x.item():.6f}")

# %%
if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for j in range(n):
        axes.plot(history[:9, j], marker="o", label=f"rank {j}")
    axes.axhline(mean.item(), color="black", linestyle=":", label="mean of all")
    axes.set(title="Averaging with neighbours", xlabel="number of steps", ylabel="$x_i$")
    axes.legend()
    axes.grid(alpha=0.3)
    show(figure, "01_averaging.png")

# %% [markdown]
# Everybody has the mean of all, and nobody has talked to all. That is the idea that the rest of
# these tutorials is about; how fast it happens on which graph is the subject of the next one.
#
# ## While it travels
#
# Each operation has a form that returns at once. It gives a *handle*; the result is there when
# `synchronize` returns. In between the rank may compute.

# %%
x = torch.tensor([10.0 * i])
handle = bf.neighbor_allreduce_nonblocking(x)
work = torch.linalg.matrix_norm(torch.ones(300, 300))  # something useful, meanwhile
y = bf.synchronize(handle)
assert torch.equal(y, averaged) and abs(work.item() - 300) < 1e-3
print(f"rank {i}: computed {work.item():g}, received {y.item():.4f}")

# %% [markdown]
# ## When ranks disagree
#
# Neighbours compare notes before they use anything. If they bring tensors that do not fit together,
# both get the same error, which names both, and nothing has been changed: the next call works.
# In this ring everybody hears from one other rank; rank 3 brings a tensor that is too long.

# %%
bf.set_topology(topology_util.RingGraph(n, connect_style=2))  # everybody sends to the right
try:
    bf.neighbor_allreduce(torch.ones(5 if i == 3 else 4))
    print(f"rank {i}: fine")
except ValueError as error:
    print(f"rank {i}: {error}")

assert bf.neighbor_allreduce(torch.ones(4)).tolist() == [1.0, 1.0, 1.0, 1.0]

# %% [markdown]
# And if a rank does not call at all? Then its neighbours wait for it, as in a cell with
# `if bf.rank() == 0: bf.neighbor_allreduce(x)`, and the cell does not end. The cure in a notebook:
# interrupt the kernel (the button with the square), which gives you your notebook back; the rank
# still waits, so `ranks.stop()`, run `cluster(4)` again, and go on from the top. In a script the
# operation fails after the process group's timeout, with an error that names who did not come.
#
# ## What to remember
#
# - Every rank runs the same program; `bf.rank()` makes the difference.
# - `allreduce`, `broadcast`, `allgather` wait for all ranks. `neighbor_allreduce` waits for
#   neighbours, and `bf.set_topology` says who they are.
# - Averaging with neighbours, over and over, gives everybody the mean of all.
# - Names ending in `_nonblocking` return a handle for `bf.synchronize`.
#
# Next: [how fast, on which graph](02_average_consensus.ipynb). The operations of this page, and how
# they relate to BlueFog's: [`docs/bluefog.md`](../../docs/bluefog.md).
