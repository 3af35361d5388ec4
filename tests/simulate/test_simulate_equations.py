"""The methods' equations: one step by hand, and cases in which they become the central method."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.simulate import LeastSquares, iterates, least_squares, methods
from bluefog_pg.topology import (
    Schedule,
    ceca,
    equi_dyn,
    exponential,
    fully_connected,
    mesh2d,
    metropolis_hastings,
    mixing_matrix,
    one_peer_exponential,
    ring,
    star,
)

LR, BETA = 0.05, 0.9
WITH_MOMENTUM = ("decentlam", "dmsgd", "dmsgd_mixed", "momentum_tracking", "qg_dsgdm")


def take(method, gradient, topology, x, steps, lr=LR, **options):
    run = iterates(method, gradient, topology, x, lr, **options)
    return [next(run) for _ in range(steps)]


def start(problem, seed=0):
    return np.random.default_rng(seed).standard_normal((problem.n, problem.dim))


@pytest.mark.parametrize("make", [ring, exponential, lambda n: mesh2d(n, (1, n))])
def test_one_step_of_adapt_with_communication_and_of_adapt_then_combine(make):
    problem = least_squares(16)
    x, w = start(problem), mixing_matrix(make(16))
    (awc,) = take("awc", problem.gradient, make(16), x, 1)
    (atc,) = take("atc", problem.gradient, make(16), x, 1)
    np.testing.assert_allclose(awc, w @ x - LR * problem.gradient(x), rtol=0, atol=1e-14)
    np.testing.assert_allclose(atc, w @ (x - LR * problem.gradient(x)), rtol=0, atol=1e-14)
    assert np.abs(awc - atc).max() > 0.1


def test_extra_equals_its_cumulative_form():
    # x_{k+1} = W x_k - lr g(x_k) + sum_{t < k} (W - (I + W)/2) x_t, arXiv 1404.6264.
    problem = least_squares(8)
    w = mixing_matrix(ring(8))
    xs = [start(problem)]
    for x in take("extra", problem.gradient, ring(8), xs[0], 12):
        expected = w @ xs[-1] - LR * problem.gradient(xs[-1])
        expected += (w - np.eye(8)) / 2 @ sum(xs[:-1], np.zeros_like(x))
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-13)
        xs.append(x)


@pytest.mark.parametrize(
    ("method", "power"), [("diging", 0), ("push_pull", 1), ("gradient_tracking", 2)]
)
def test_gradient_tracking_without_its_tracker(method, power):
    # Eliminating y leaves x_{k+2} = 2 W x_{k+1} - W^2 x_k - lr W^p (g_{k+1} - g_k): the three
    # methods differ in how often the gradients' change is averaged before it acts.
    problem = least_squares(9)
    w = mixing_matrix(exponential(9))
    x0 = start(problem)
    x1, *rest = take(method, problem.gradient, exponential(9), x0, 10)
    for x2 in rest:
        change = problem.gradient(x1) - problem.gradient(x0)
        expected = 2 * w @ x1 - w @ w @ x0 - LR * np.linalg.matrix_power(w, power) @ change
        np.testing.assert_allclose(x2, expected, rtol=0, atol=1e-13)
        x0, x1 = x1, x2


def test_push_methods_by_hand():
    # 0 -> 1 -> 2 -> 0 and 0 -> 2: each rank gives equal shares to itself and its out-neighbors.
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    c = np.array([[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]])
    problem = least_squares(3)
    x = y = start(problem)
    g = problem.gradient(x)
    u, v, w, t = x, np.ones((3, 1)), np.ones((3, 1)), g
    push_sum = take("push_sum", problem.gradient, graph, x, 4)
    diging = take("push_diging", problem.gradient, graph, x, 4)
    for z, x_new in zip(push_sum, diging, strict=True):
        y, v = c @ (y - LR * problem.gradient(y / v)), c @ v
        np.testing.assert_allclose(z, y / v, rtol=0, atol=1e-13)
        u, w = c @ (u - LR * t), c @ w
        np.testing.assert_allclose(x_new, u / w, rtol=0, atol=1e-13)
        t, g = c @ (t + problem.gradient(u / w) - g), problem.gradient(u / w)


def test_ceca_takes_the_gradient_where_it_sends():
    # n - 1 = 5 = 101 in binary: x goes out in the first and the third round, z in the second.
    problem, schedule = least_squares(6), ceca(6)
    x = z = start(problem)
    for step, after in enumerate(take("dsgd_ceca", problem.gradient, schedule, x, 6)):
        sent = x if "101"[step % 3] == "1" else z
        moved = np.concatenate([x, z]) - LR * np.tile(problem.gradient(sent), (2, 1))
        x, z = np.split(schedule.joint_matrix(step) @ moved, 2)
        np.testing.assert_allclose(after, x, rtol=0, atol=1e-13)


def test_mean_of_gradient_tracking_moves_by_the_mean_gradient():
    problem = least_squares(12)
    x = start(problem)
    topology = equi_dyn(12, seed=4)
    for method in ("gradient_tracking", "diging", "push_pull"):
        before = x
        for after in take(method, problem.gradient, topology, x, 20):
            moved = before.mean(axis=0) - LR * problem.gradient(before).mean(axis=0)
            np.testing.assert_allclose(after.mean(axis=0), moved, rtol=0, atol=1e-13)
            before = after


def centralized(gradient, x, steps, momentum=0.0, lr=LR):
    """Gradient descent with heavy-ball momentum; its iterates 1..steps."""
    m, path = 0.0, []
    for _ in range(steps):
        m = momentum * m + gradient(x)
        x = x - lr * m
        path.append(x)
    return path


def quasi_global(gradient, x, steps):
    """What QG-DSGDm does with one rank."""
    m, path = 0.0, []
    for _ in range(steps):
        direction = BETA * m + gradient(x)
        x = x - LR * direction
        m = BETA * m + (1 - BETA) * direction
        path.append(x)
    return path


def central_path(method, gradient, x, steps):
    if method == "qg_dsgdm":
        return quasi_global(gradient, x, steps)
    return centralized(gradient, x, steps, BETA if method in WITH_MOMENTUM else 0.0)


ADAPT_THEN_COMBINE = [
    "d2",
    "decentlam",
    "atc",
    "dmsgd",
    "dmsgd_mixed",
    "gossipgrad",
    "gradient_tracking",
    "push_diging",
    "push_pull",
    "qg_dsgdm",
    "push_sum",
]


@pytest.mark.parametrize("method", ADAPT_THEN_COMBINE)
def test_complete_graph_is_the_centralized_method(method):
    problem = least_squares(6)
    x = np.zeros((6, problem.dim))
    path = central_path(method, lambda row: mean_gradient(problem, row), x[0], 30)
    for rows, central in zip(
        take(method, problem.gradient, fully_connected(6), x, 30), path, strict=True
    ):
        np.testing.assert_allclose(rows, np.tile(central, (6, 1)), rtol=0, atol=1e-12)


def test_two_ranks_of_relaysgd_are_the_centralized_method():
    problem = least_squares(2)
    x = np.zeros((2, problem.dim))
    path = centralized(lambda row: mean_gradient(problem, row), x[0], 30)
    ours = take("relay_sgd", problem.gradient, ring(2), x, 30)
    np.testing.assert_allclose(ours, np.stack([path, path], axis=1), rtol=0, atol=1e-12)


def mean_gradient(problem, row):
    return problem.gradient(np.tile(row, (problem.n, 1))).mean(axis=0)


OUTER_STEPS = ("diloco", "gasloc", "noloco", "slowmo")  # see test_simulate_local.py
OTHERS = [name for name in methods.names() if name not in OUTER_STEPS]
SINGLE_COPY = [name for name in OTHERS if name not in ("dsgd_ceca", "relay_sgd")]
TREE = metropolis_hastings(nx.full_rary_tree(2, 12))
HOMOGENEOUS = [
    *((name, ring(12)) for name in SINGLE_COPY),
    *((name, one_peer_exponential(12)) for name in SINGLE_COPY),
    ("dsgd_ceca", ceca(12)),
    ("dsgd_ceca", ceca(12, variant=1)),
]


@pytest.mark.parametrize(("method", "topology"), HOMOGENEOUS)
def test_equal_ranks_do_the_centralized_method_on_any_graph(method, topology):
    one = least_squares(1)
    gradient = lambda x: np.tile(one.gradient(x[:1]), (len(x), 1))  # noqa: E731
    x = np.zeros((12, one.dim))
    path = central_path(method, one.gradient, x[:1], 40)
    ours = take(method, gradient, topology, x, 40, **needed(method, 12))
    for rows, central in zip(ours, path, strict=True):
        np.testing.assert_allclose(rows, np.tile(central, (12, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", OTHERS)
def test_one_rank_is_the_centralized_method(method):
    one = least_squares(1)
    topology = ceca(1) if method == "dsgd_ceca" else ring(1)
    x = np.zeros((1, one.dim))
    path = central_path(method, one.gradient, x, 20)
    ours = take(method, one.gradient, topology, x, 20, **needed(method, 1))
    np.testing.assert_allclose(ours, path, rtol=0, atol=1e-12)


def needed(method, n):
    """Options without a default."""
    return {"periods": {3: n}} if method == "hierarchical_sgd" else {}


@pytest.mark.parametrize("n", [8, 16])
def test_ceca_of_a_power_of_two_is_one_peer_exponential(n):
    problem = least_squares(n)
    x = np.zeros((n, problem.dim))
    ours = take("dsgd_ceca", problem.gradient, ceca(n), x, 40)
    np.testing.assert_allclose(
        ours,
        take("atc", problem.gradient, one_peer_exponential(n), x, 40),
        rtol=0,
        atol=1e-13,
    )


def test_ceca_without_gradient_averages_exactly():
    x = np.arange(13.0)[:, None] ** 2
    path = take("dsgd_ceca", np.zeros_like, ceca(13), x, 8)
    np.testing.assert_allclose(path[3], np.full((13, 1), x.mean()), rtol=1e-15)
    np.testing.assert_allclose(path[7], np.full((13, 1), x.mean()), rtol=1e-15)


def test_push_methods_are_the_others_where_weights_are_doubly_stochastic():
    problem = least_squares(9)
    x = start(problem)
    for push, plain in (("push_sum", "atc"), ("push_diging", "gradient_tracking")):
        ours = take(push, problem.gradient, exponential(9), x, 25)
        np.testing.assert_allclose(
            ours, take(plain, problem.gradient, exponential(9), x, 25), rtol=0, atol=1e-13
        )


def test_relaysgd_sums_with_the_delay_of_the_path():
    # Without gradients every rank holds the exact mean once all sums have come through, and before
    # that it replaces what it has not heard of by its own value.
    chain = mesh2d(4, shape=(1, 4))
    x = np.array([[1.0], [3.0], [5.0], [11.0]])
    first, second, third = take("relay_sgd", np.zeros_like, chain, x, 3)
    np.testing.assert_allclose(first[0], (3 * 1 + 3) / 4)
    np.testing.assert_allclose(first[1], (2 * 3 + 1 + 5) / 4)
    # Rank 1 now sends rank 0 its new value and what rank 2 sent before.
    np.testing.assert_allclose(second[0], (2 * first[0] + first[1] + 5) / 4)
    np.testing.assert_allclose(third[0], (first[0] * 0 + second[0] + second[1] + first[2] + 11) / 4)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (ring(4), r"needs a tree; got 4 ranks with 4 edges in 1 part\(s\)"),
        (ring(4, "right"), r"undirected tree; \(3, 0\) has no way back"),
        (metropolis_hastings(nx.Graph([(0, 1), (1, 2), (2, 0), (3, 3)])), "3 edges in 2 part"),
    ],
)
def test_relaysgd_needs_a_tree(graph, message):
    with pytest.raises(ValueError, match=message):
        take("relay_sgd", np.zeros_like, graph, np.zeros((4, 1)), 1)


def test_relaysgd_needs_one_tree():
    trees = Schedule.from_graphs([mesh2d(4, (1, 4)), star(4)])
    with pytest.raises(ValueError, match="the same tree in every round"):
        take("relay_sgd", np.zeros_like, trees, np.zeros((4, 1)), 2)


def test_learning_rate_may_depend_on_the_step():
    problem = LeastSquares(np.ones((1, 1, 1)), np.zeros((1, 1)) + 1)
    rates = [0.5, 0.25, 1.0]
    path = take("awc", problem.gradient, ring(1), np.zeros((1, 1)), 3, lr=rates.__getitem__)
    np.testing.assert_allclose(np.ravel(path), [0.5, 0.625, 1.0])


def test_arguments_stay_as_they_are():
    problem = least_squares(12)
    for method in methods.names():
        x = start(problem)
        before = x.copy()
        topology = {"dsgd_ceca": ceca(12), "relay_sgd": TREE}.get(method, ring(12))
        first, second = take(method, problem.gradient, topology, x, 2, **needed(method, 12))
        np.testing.assert_array_equal(x, before)
        assert first is not second


def test_weights_for_pushing_and_pulling():
    graph = nx.DiGraph([(0, 1), (0, 2), (1, 2), (2, 0)])
    (w,) = captured(graph)
    c, r = methods.column_stochastic(w).toarray(), methods.row_stochastic(w).toarray()
    third, half = 1 / 3, 1 / 2
    np.testing.assert_allclose(c, [[third, 0, half], [third, half, 0], [third, half, half]])
    np.testing.assert_allclose(r, [[half, 0, half], [half, half, 0], [third, third, third]])
    for matrix in captured(exponential(7)):
        assert methods.column_stochastic(matrix) is matrix
        assert methods.row_stochastic(matrix) is matrix


def captured(graph):
    seen = []

    def method(x, gradient, rounds):
        for w, _ in rounds:
            seen.append(w)
            yield x

    take(method, None, graph, np.zeros((len(graph), 1)), 1)
    return seen


def test_registry():
    assert methods.get("extra") is methods.extra
    assert set(methods.names()) <= set(methods.__all__)
    with pytest.raises(ValueError, match="unknown method 'adam'; known methods: atc, awc, d2, "):
        methods.get("adam")

    def extra(x, gradient, rounds):
        raise AssertionError("never called")

    with pytest.raises(ValueError, match=r"'extra' is taken by .*methods\.correction"):
        methods.register(extra)


@pytest.mark.parametrize(
    ("method", "topology", "rows", "message"),
    [
        ("awc", ring(4), 5, "x has 5 rows, the topology has 4 ranks"),
        ("dsgd_ceca", ring(4), 4, "dsgd_ceca runs on a CecaSchedule"),
        ("extra", ceca(4), 4, "extra averages one variable; on .*ceca2p.* use dsgd_ceca"),
    ],
)
def test_refused_arguments(method, topology, rows, message):
    with pytest.raises(ValueError, match=message):
        iterates(method, np.zeros_like, topology, np.zeros((rows, 1)), LR)
