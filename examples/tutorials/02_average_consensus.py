# %% [markdown]
# # 2. Average consensus
#
# Every rank has a vector, and all want the mean, but each may talk to its neighbours only. How many
# rounds does that take? On which graph? You will see one number of the graph, its *spectral gap*,
# predict the answer to half a percent, and then a schedule of graphs that beats it: exact after
# $\log_2 n$ rounds.
#
# `torchrun --nproc_per_node 8 examples/tutorials/02_average_consensus.py` runs this page as a plain
# script.

# %%
import math

import networkx as nx
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
# Rank $i$ starts with $x_i^0 \in \mathbb R^d$ and repeats
#
# $$ x_i^{k+1} = \sum_{j} w_{ij}\, x_j^k , \qquad w_{ij} = 0 \text{ unless } j = i
#    \text{ or there is an edge } j \to i . $$
#
# With all vectors as the rows of a matrix $X^k$ this is $X^{k+1} = W X^k$, and in the end we want
# $\bar x = \frac1n \sum_i x_i^0$ in each row. $W$ has to do two things:
#
# - rows sum to one, $W \mathbf 1 = \mathbf 1$: ranks that agree go on to agree;
# - columns sum to one, $\mathbf 1^\top W = \mathbf 1^\top$: the mean is the same after each round.
#
# Such a $W$ is called *doubly stochastic* (if its entries are not negative).
#
# ## Weights for any graph
#
# In an undirected graph, *Metropolis-Hastings* weights always do. With $d_i$ the number of
# neighbours of rank $i$:
#
# $$ w_{ij} = \frac{1}{1 + \max(d_i, d_j)} \text{ for neighbours } i, j, \qquad
#    w_{ii} = 1 - \sum_{j \ne i} w_{ij} . $$
#
# A rank needs to know its neighbours' $d_j$ for that, and nothing else. Here is a graph like that
# of sensors in a field, which hear each other when they are near:

# %%
seeds = range(1000)
fields = (nx.random_geometric_graph(n, radius=0.4, seed=seed) for seed in seeds)
field = next(graph for graph in fields if nx.is_connected(graph))  # else there is no consensus

degree = dict(field.degree)
W = np.zeros((n, n))
for a, b in field.edges:
    W[a, b] = W[b, a] = 1 / (1 + max(degree[a], degree[b]))
W += np.diag(1 - W.sum(axis=1))

sensors = nx.from_numpy_array(W.T, create_using=nx.DiGraph)  # the weight of edge (j, i) is w_ij
assert np.allclose(W, topology.mixing_matrix(topology.metropolis_hastings(field)))
assert np.allclose(W.sum(axis=0), 1) and np.allclose(W.sum(axis=1), 1) and (W >= 0).all()
if i == 0:
    print(np.array_str(W, precision=2, suppress_small=True))

# %% [markdown]
# `bf.set_topology(graph, is_weighted=True)` takes a graph with its weights. Each rank then knows
# its own row of $W$:

# %%
bf.set_topology(sensors, is_weighted=True)
own, others = topology_util.GetRecvWeights(bf.load_topology(), i)
assert np.allclose([own, *others.values()], [W[i, i], *W[i, list(others)]])
row = ", ".join(f"{j}: {weight:.2f}" for j, weight in others.items())
print(f"rank {i}: self {own:.2f}, from {row}")

# %% [markdown]
# The graphs that everybody uses come ready made, with such weights: ring, star, a grid ("mesh"),
# the exponential graph, where rank $i$ sends to $i + 2^k$, and the complete graph.

# %%
graphs = {
    "ring": topology_util.RingGraph(n),
    "star": topology_util.StarGraph(n),
    "mesh": topology_util.MeshGrid2DGraph(n),
    "sensors": sensors,
    "exponential": topology_util.ExponentialTwoGraph(n),
    "complete": topology_util.FullyConnectedGraph(n),
}

if i == 0:
    figure = Figure(figsize=(6, 4), layout="constrained")
    places = {name: nx.circular_layout(graph) for name, graph in graphs.items()}
    places["star"] = {j: (0, 0) if j == 0 else places["star"][j] for j in range(n)}
    places["mesh"] = {j: divmod(j, n // 2)[::-1] for j in range(n)}
    places["sensors"] = nx.get_node_attributes(field, "pos")
    for axes, (name, graph) in zip(figure.subplots(2, 3).flat, graphs.items(), strict=True):
        edges = [(j, k) for j, k in graph.edges if j != k]
        look = {"node_color": "#bcd7ee", "node_size": 130, "font_size": 8, "arrowsize": 6}
        curve = "arc3,rad=0.15" if name == "exponential" else "arc3"
        nx.draw_networkx(
            graph, places[name], edgelist=edges, ax=axes, width=0.7, connectionstyle=curve, **look
        )
        axes.set_title(name)
        axes.margins(0.15)
        axes.set_axis_off()
    show(figure, "02_graphs.png")

# %% [markdown]
# ## How fast
#
# Take away the mean: since $W \mathbf 1 = \mathbf 1$ and $\mathbf 1^\top W = \mathbf 1^\top$,
#
# $$ X^{k+1} - \mathbf 1 \bar x^\top
#    = \Big(W - \tfrac1n \mathbf 1 \mathbf 1^\top\Big) \big(X^k - \mathbf 1 \bar x^\top\big)
#    \quad\Longrightarrow\quad
#    \big\| X^k - \mathbf 1 \bar x^\top \big\|_F \le \rho^k\,
#    \big\| X^0 - \mathbf 1 \bar x^\top \big\|_F ,
#    \qquad \rho = \Big\| W - \tfrac1n \mathbf 1 \mathbf 1^\top \Big\|_2 . $$
#
# $1 - \rho$ is the **spectral gap**. All of these $W$ are normal matrices, whose $\rho$ is also the
# second largest modulus of an eigenvalue, so that the bound is not only a bound: sooner or later
# the error falls by the factor $\rho$ in each round. $\rho$ is a matter of the graph alone:

# %%
rho = {}
for name, graph in graphs.items():
    W = topology.mixing_matrix(graph)
    rho[name] = np.linalg.norm(W - np.ones((n, n)) / n, ord=2)
    assert math.isclose(rho[name], topology.consensus_rate(graph), abs_tol=1e-12)  # has it ready
if i == 0:
    print("\n".join(f"{name:12} rho = {value:.4f}" for name, value in rho.items()))

# %% [markdown]
# Now run it. The iteration is one line. Errors are computed afterwards, from what each rank has
# noted of its own $x_i^k$.


# %%
x0 = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(i))
mean = bf.allreduce(x0)


def errors_of(history):
    """||X^k - 1 mean^T||_F for each k, from each rank's own list of x^k."""
    squares = (torch.stack(history) - mean).square().sum(dim=1)
    return bf.allreduce(squares, average=False).sqrt().numpy()


def consensus(graph, rounds):
    bf.set_topology(graph, is_weighted=True)
    x, history = x0, [x0]
    for _ in range(rounds):
        x = bf.neighbor_allreduce(x)
        history.append(x)
    return errors_of(history)


errors = {
    name: consensus(graph, rounds=round(30 / (1 - rho[name]))) for name, graph in graphs.items()
}

# %% [markdown]
# Is it as predicted? The bound must hold in every round. And the slope of $\log \|\cdot\|$,
# measured between the errors $10^{-8}$ and $10^{-12}$, must be $\log \rho$.

# %%
measured = {}
for name, error in errors.items():
    bound = error[0] * rho[name] ** np.arange(len(error))
    assert (error <= bound * (1 + 1e-9) + 1e-13).all(), name
    if rho[name] < 1e-12:
        assert error[1] < 1e-14  # the complete graph: exact in one round
        continue
    first, last = np.searchsorted(-error, [-1e-8, -1e-12])
    measured[name] = (error[last] / error[first]) ** (1 / (last - first))
    slope, predicted = math.log(measured[name]), math.log(rho[name])
    assert math.isclose(slope, predicted, rel_tol=0.005), (name, slope, predicted)
    if i == 0:
        print(f"{name:12} predicted {rho[name]:.4f}   measured {measured[name]:.4f}")

# %%
if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, error in errors.items():
        (line,) = axes.semilogy(error, label=name)
        bound = error[0] * rho[name] ** np.arange(len(error))
        axes.semilogy(bound, color=line.get_color(), linestyle=":", linewidth=1)
    axes.set(title="Consensus: errors, and dotted $\\rho^k$", xlabel="round $k$", xlim=(0, 120))
    axes.set(ylabel="$\\|X^k - 1\\bar{x}^T\\|$", ylim=(1e-13, 30))
    axes.legend(fontsize=8, loc="upper right")
    axes.grid(alpha=0.3)
    show(figure, "02_decay.png")

# %% [markdown]
# The complete graph needs one round, but in it each rank receives from all others. The exponential
# graph halves the error in each round, and receives from three.
#
# ## One peer is enough
#
# The exponential graph has $\log_2 n$ out-neighbours. Use them *in turn*, one in each round: in
# round $k$ rank $i$ sends to $i + 2^{k \bmod \log_2 n}$ and averages, half and half. Each round is
# as cheap as can be. And something happens that no single graph but the complete one can do:
#
# $$ W^{(2)}\, W^{(1)}\, W^{(0)} = \tfrac1n \mathbf 1 \mathbf 1^\top
#    \qquad (n = 8; \text{ in general } \log_2 n \text{ factors, in any order}), $$
#
# the *exact* average after $\log_2 n$ rounds (Ying et al., arXiv:2110.13363). Why: after round 0
# each rank has the mean of two; after round 1 the mean of two such means that have no rank in
# common, so of four; and so on.

# %%
schedule = topology.one_peer_exponential(n)
product = np.eye(n)
for graph in topology.rounds(schedule):
    product = topology.mixing_matrix(graph) @ product
    distance = np.linalg.norm(product - np.ones((n, n)) / n, ord=2)
    if i == 0:
        print(f"distance of the product from the average: {distance:.3f}")
assert np.allclose(product, 1 / n, rtol=0, atol=1e-15)

# %% [markdown]
# In code: `GetDynamicOnePeerSendRecvRanks` gives, round by round, whom to send to and whom to
# receive from; the call takes them in place of the topology's neighbours.

# %%
bf.set_topology(topology_util.ExponentialTwoGraph(n))
peers = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), i)

x, history = x0, [x0]
for _ in range(8):
    send, receive = next(peers)
    x = bf.neighbor_allreduce(
        x, self_weight=0.5, src_weights={j: 0.5 for j in receive}, dst_weights=send
    )
    history.append(x)
one_peer = errors_of(history)

rounds = round(math.log2(n))
assert one_peer[rounds - 1] > 0.1 and one_peer[rounds] < 1e-14
if i == 0:
    print("one peer:", *(f"{error:.1e}" for error in one_peer[: rounds + 1]))
    print("static:  ", *(f"{error:.1e}" for error in errors["exponential"][: rounds + 1]))

# %%
if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.semilogy(errors["exponential"][:9], marker="o", label="exponential graph, 3 peers")
    axes.semilogy(one_peer, marker="o", label="one peer per round")
    axes.set(title="One peer at a time", xlabel="round $k$", ylim=(1e-17, 100))
    axes.set(ylabel="$\\|X^k - 1\\bar{x}^T\\|$")
    axes.legend()
    axes.grid(alpha=0.3)
    show(figure, "02_one_peer.png")

# %% [markdown]
# This works for powers of two. For other numbers of ranks the same schedule is only fast, not
# exact, but there are others that are exact for every $n$: for example the Base-2 graph (Takezawa
# et al., arXiv:2305.11420). No ranks are needed to see that, topologies are plain data:

# %%
if i == 0:
    for make in (topology.one_peer_exponential, topology.base_graph):
        product = np.eye(6)
        for graph in topology.rounds(make(6)):
            product = topology.mixing_matrix(graph) @ product
        distance = np.linalg.norm(product - np.ones((6, 6)) / 6, ord=2)
        assert (distance < 1e-15) == (make is topology.base_graph)
        print(f"6 ranks, {make.__name__}: distance {distance:.1e}")

# %% [markdown]
# ## More ranks
#
# With eight ranks all graphs will do. With a thousand they will not. The gaps of large graphs:
#
# | graph | neighbours | $1 - \rho$ |
# |---|---|---|
# | ring | 2 | $\tfrac23 (1 - \cos\tfrac{2\pi}{n}) = O(1/n^2)$ |
# | star | $n-1$ at the centre | $1/n$ |
# | mesh | 4 | $O(1/n)$ |
# | exponential | $\log_2 n$ | $2 / (1 + \log_2 n)$ |
# | complete | $n - 1$ | 1 |

# %%
sizes = [16, 64, 256, 1024]
if i == 0:
    kinds = [topology.ring, topology.star, topology.mesh2d, topology.exponential]
    gaps = {
        make.__name__: np.array([1 - topology.consensus_rate(make(size)) for size in sizes])
        for make in kinds
    }
    print(f"{'ranks':14}", *(f"{size:10}" for size in sizes))
    for name, gap in gaps.items():
        print(f"{name:14}", *(f"{value:10.2e}" for value in gap))

    ranks = np.array(sizes)
    assert np.allclose(gaps["ring"], 2 / 3 * (1 - np.cos(2 * np.pi / ranks)), rtol=1e-3)
    assert np.allclose(gaps["star"], 1 / ranks, rtol=1e-3)
    assert np.allclose(gaps["exponential"], 2 / (1 + np.log2(ranks)), rtol=1e-3)
    slope = math.log(gaps["mesh2d"][-1] / gaps["mesh2d"][-2]) / math.log(ranks[-1] / ranks[-2])
    assert abs(slope + 1) < 0.05, slope

# %%
if i == 0:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, gap in gaps.items():
        axes.loglog(sizes, gap, marker="o", label=name)
    axes.set(title="Spectral gaps", xlabel="number of ranks", ylabel="$1 - \\rho$")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.legend()
    axes.grid(alpha=0.3)
    show(figure, "02_gaps.png")

# %% [markdown]
# A gap of $1-\rho$ means about $1/(1-\rho)$ rounds for each factor of $e \approx 2.7$: with 1024
# ranks about 80 000 on the ring, five on the exponential graph. The one-peer schedule gives the
# exact mean after ten.
#
# ## What to remember
#
# - $W$ doubly stochastic, graph connected: everybody reaches the mean. Metropolis-Hastings weights
#   make such a $W$ for every undirected graph.
# - The error falls by $\rho = \|W - \frac1n \mathbf 1 \mathbf 1^\top\|_2$ in each round;
#   `topology.consensus_rate(graph)` computes it.
# - Exponential graphs have a large gap at few neighbours, and their one-peer schedule is exact
#   after $\log_2 n$ rounds if $n$ is a power of two.
#
# Next: [optimization instead of averages](03_decentralized_gradient_descent.ipynb). All topologies,
# with rates and costs: [`docs/topologies.md`](../../docs/topologies.md).
