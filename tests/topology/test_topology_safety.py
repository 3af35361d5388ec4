"""Which algorithms are refused on which topologies, and that what is refused does diverge."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.simulate import least_squares, optimize
from bluefog_pg.topology import (
    Schedule,
    algorithms,
    base_graph,
    ceca,
    de_bruijn,
    equi_dyn,
    exponential,
    metropolis_hastings,
    mixing_matrix,
    one_peer_exponential,
    one_peer_hypercube,
    require_safe,
    ring,
    safe_for,
    star,
    symmetric_exponential,
)


def symmetrised(graph):
    w = mixing_matrix(graph)
    return nx.from_numpy_array((w + w.T) / 2, create_using=nx.DiGraph)


STATIC_SYMMETRIC = {
    "ring": ring,
    "symmetrised exponential": lambda n: symmetrised(exponential(n)),
    "star": star,
}
OTHERS = {  # static and directed, or changing
    "exponential": exponential,
    "one-peer exponential": one_peer_exponential,
    "Base-2": base_graph,
    "OD-EquiDyn": equi_dyn,
    "OU-EquiDyn": lambda n: equi_dyn(n, directed=False),
}
CORRECTORS = ("d2", "decentlam", "exact_diffusion", "extra")
AVERAGING = ("atc", "awc", "diging", "dmsgd", "dmsgd_mixed", "gasloc", "gossipgrad",
             "gradient_tracking", "momentum_tracking", "noloco", "push_pull", "qg_dsgdm",
             "semi_atc_tracking")  # fmt: skip
PUSH = ("push_diging", "push_sum")
NO_NEEDS = ("diloco", "gradient_allreduce", "hierarchical_sgd", "local_sgd", "post_local_sgd",
            "slowmo")  # fmt: skip
PAIRWISE = ("a2cid2", "ad_psgd")
ONE_SIDED = ("async_push_sum", "pull_get", "win_put")
ALL = (*CORRECTORS, *AVERAGING, *PUSH, *NO_NEEDS, *PAIRWISE, *ONE_SIDED)


@pytest.mark.parametrize("n", [8, 12, 16, 17, 33])
def test_correctors_are_refused_where_w_changes_or_is_not_symmetric_and_nothing_else_is(n):
    for make in STATIC_SYMMETRIC.values():
        assert set(safe_for(make(n))) >= set(ALL)
    for name, make in OTHERS.items():
        graph = make(n)
        asynchronous = ONE_SIDED if "Equi" not in name else ()  # these never repeat themselves
        both_ways = PAIRWISE if name == "Base-2" else ()
        expected = {*AVERAGING, *PUSH, *NO_NEEDS, *asynchronous, *both_ways}
        assert set(safe_for(graph)) == expected, name


def test_every_algorithm_is_accounted_for():
    assert set(algorithms()) == {*ALL, "relay_sgd", "ceca"}
    assert algorithms() == sorted(algorithms())


def distances(w_of, mix, n=8, gamma=0.05, steps=400):
    """Distances from the optimum of mean((x - b_i)^2 h_i / 2) under D2 with W or exact diffusion.

    psi = x - gamma g;  x+ = mix(W) (psi + x - psi_before)
    """
    rng = np.random.default_rng(0)
    h, b = rng.uniform(0.5, 1.5, n), rng.standard_normal(n)
    optimum = (h * b).sum() / h.sum()
    x, before = np.zeros(n), None
    for step in range(steps):
        psi = x - gamma * h * (x - b)
        x = mix(w_of(step)) @ (psi if before is None else psi + x - before)
        before = psi
        yield np.abs(x - optimum).max()


def lazy(w):
    return (np.eye(len(w)) + w) / 2


def of(schedule):
    return lambda step: mixing_matrix(schedule(step))


@pytest.mark.parametrize("gamma", [0.05, 0.3])
def test_d2_diverges_where_it_is_refused(gamma):
    for schedule in (one_peer_exponential(8), base_graph(8), one_peer_exponential(12)):
        with pytest.raises(ValueError, match="d2 needs a static graph"):
            require_safe("d2", schedule)
        *_, last = distances(of(schedule), lambda w: w, schedule.size, gamma)
        assert not last < 1e3, schedule


@pytest.mark.parametrize("lr", [0.005, 0.03])
def test_decentlam_diverges_where_it_is_refused(lr):
    problem = least_squares(8)
    for topology in (exponential(8), one_peer_exponential(8), base_graph(8), equi_dyn(8)):
        with pytest.raises(ValueError, match="decentlam needs a static graph with symmetric"):
            require_safe("decentlam", topology)
        assert not optimize("decentlam", problem, topology, 1500, lr)[-1] < 1e3, topology
    for make in STATIC_SYMMETRIC.values():
        assert optimize("decentlam", problem, make(8), 1500, lr)[-1] < 0.2  # at first it is 1


@pytest.mark.parametrize("mix", [lambda w: w, lazy], ids=["d2", "exact diffusion"])
def test_correctors_converge_where_they_are_allowed(mix):
    for make in STATIC_SYMMETRIC.values():
        w = mixing_matrix(make(8))
        *_, last = distances(lambda step, w=w: w, mix, gamma=0.3, steps=1500)
        assert last < 1e-9


def test_d2_wants_no_eigenvalue_below_minus_one_third():
    w = nx.DiGraph()
    w.add_weighted_edges_from([(0, 1, 0.7), (1, 0, 0.7), (0, 0, 0.3), (1, 1, 0.3)])  # 1 and -0.4
    with pytest.raises(ValueError, match=r"smallest eigenvalue of W is -0\.4 .* exact_diffusion"):
        require_safe("d2", w)
    require_safe("exact_diffusion", w)
    matrix = mixing_matrix(w)
    *_, d2 = distances(lambda step: matrix, lambda w: w, n=2)
    *_, exact_diffusion = distances(lambda step: matrix, lazy, n=2, steps=1500)
    assert not d2 < 1e3
    assert exact_diffusion < 1e-9
    require_safe("d2", ring(8))  # exactly -1/3
    assert safe_for(symmetric_exponential(33)) == tuple(sorted({*ALL} - {"d2"}))  # -0.36


def test_a_schedule_of_one_round_is_static():
    require_safe("d2", Schedule.from_graphs([ring(5)]))
    require_safe("d2", one_peer_exponential(2))


def digraph(*edges):
    graph = nx.DiGraph()
    graph.add_weighted_edges_from(edges)
    return graph


def test_push_sum_needs_columns_only_and_push_pull_rows():
    columns = digraph((0, 0, 0.5), (0, 1, 0.5), (1, 1, 0.25), (1, 0, 0.25), (1, 2, 0.5), (2, 0, 1))
    assert safe_for(columns) == tuple(sorted({"async_push_sum", *PUSH, *NO_NEEDS}))
    rows = columns.reverse()
    assert safe_for(rows) == tuple(sorted({"push_pull", *ONE_SIDED, *NO_NEEDS}))  # C: of the edges
    unweighted = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])  # as is push-sum's C
    assert safe_for(unweighted) == tuple(sorted({"push_pull", *ONE_SIDED, *PUSH, *NO_NEEDS}))


@pytest.mark.parametrize(
    ("algorithm", "topology", "message"),
    [
        ("atc", digraph((0, 0, 0.5), (1, 0, 0.4), (0, 1, 0.5), (1, 1, 0.5)),
         r"atc needs doubly stochastic .*rank applies must sum to 1; rank 0: 0\.9$"),
        ("atc", digraph((0, 0, 0.5), (1, 0, 0.5), (0, 1, 1)),
         r"give to one rank's value must sum to 1; rank 0: 1\.5, rank 1: 0\.5$"),
        ("push_sum", digraph((0, 0, 0.5), (0, 1, 0.4), (1, 0, 1)),
         r"push_sum needs column-stochastic .*rank 0: 0\.9$"),
        ("push_sum", Schedule.from_graphs([ring(2), digraph((0, 0, 0), (0, 1, 1), (1, 1, 1))]),
         r"rank 0 would be left with nothing \(round 1\)$"),
        ("awc", digraph((0, 0, 1.5), (1, 0, -0.5), (0, 1, -0.5), (1, 1, 1.5)),
         r"weight of edge \(1, 0\) is -0\.5, less than 0$"),
        ("awc", nx.disjoint_union(ring(3), ring(2)),
         "no path leads from rank 0 to ranks 3, 4$"),
        ("awc", digraph((0, 1, 1), (1, 0, 1)), "values go round in cycles for ever$"),
        ("d2", one_peer_exponential(8),
         r"Schedule\(one_peer_exponential, size=8, period=3\) changes from step to step: "
         "it has a period of 3 steps$"),
        ("extra", equi_dyn(8), "it never repeats$"),
        ("exact_diffusion", ring(8, "left"),
         r"not symmetric: rank 0 gives 0\.5 to rank 1, which gives 0 to it$"),
        ("relay_sgd", ring(4), "4 edges between 4 ranks make a cycle$"),
        ("relay_sgd", ring(4, "left"), "rank 0 sends to rank 3, which does not send to it$"),
        ("relay_sgd", nx.disjoint_union(star(2), star(2)),
         "no path leads from rank 0 to ranks 2, 3$"),
        ("relay_sgd", one_peer_hypercube(4), "changes from step to step"),
        ("ad_psgd", exponential(4),
         "edges that connect all ranks and go both ways: rank 0 sends to rank 1, which does not"),
        ("win_put", equi_dyn(8), r"a period: Schedule\(.*\) never repeats itself$"),
        ("ceca", ring(4), r"ceca needs a CecaSchedule: .*bluefog_pg\.topology\.ceca\(n\)$"),
    ],
)  # fmt: skip
def test_reasons_name_the_ranks(algorithm, topology, message):
    with pytest.raises(ValueError, match=message):
        require_safe(algorithm, topology)


def test_many_ranks_are_cut():
    graph = ring(30)
    nx.set_edge_attributes(graph, 0.5, "weight")
    with pytest.raises(ValueError, match=r"rank 7: 1\.5 and 22 more$"):
        require_safe("atc", graph)
    with pytest.raises(ValueError, match=r"to ranks 3, 4, 5, 6, 7, 8, 9, 10 and 12 more$"):
        require_safe("atc", nx.disjoint_union(ring(3), ring(20)))


def test_trees_and_two_variables():
    tree = metropolis_hastings(nx.balanced_tree(2, 3))
    require_safe("relay_sgd", tree)
    require_safe("relay_sgd", star(6, center=3))
    tree[0][0]["weight"] = 7.0  # RelaySGD has no use for weights
    require_safe("relay_sgd", tree)
    for n in (1, 2, 7):
        require_safe("ceca", ceca(n))


def test_values_that_go_round():
    cycle = digraph(*((i, (i + 1) % 5, 1.0) for i in range(5)))
    assert "atc" not in safe_for(cycle)
    cycle[4][0]["weight"] = 0.5
    cycle.add_weighted_edges_from([(3, 0, 0.5), (3, 4, 0.5), (4, 4, 0.5)])
    assert "atc" in safe_for(de_bruijn(8))  # few self-loops


def test_unknown_algorithm_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown algorithm 'ATC'; known algorithms: a2cid2, "):
        require_safe("ATC", ring(4))


def test_what_is_no_topology():
    with pytest.raises(TypeError, match="got Graph"):
        require_safe("atc", nx.cycle_graph(3))
