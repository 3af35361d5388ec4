"""Averaging over links that lose messages: which rules keep the mean, and by how much."""

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.simulate import RULES, average_with_loss
from bluefog_pg.simulate.repair import Messages
from bluefog_pg.topology import (
    exponential,
    one_peer_exponential,
    one_peer_hypercube,
    random_matching,
    ring,
)

TOPOLOGIES = {
    "static exponential": exponential(16),
    "one-peer exponential": one_peer_exponential(16),
    "one-peer hypercube": one_peer_hypercube(16),
    "random matching": random_matching(16),
    "ring": ring(16),
}
SYMMETRIC = ("one-peer hypercube", "random matching", "ring")
LOSS, ROUNDS = 0.05, 400


def run(rule, topology, loss=LOSS, rounds=ROUNDS, seed=0):
    result = average_with_loss(TOPOLOGIES[topology], rule, loss, rounds, seed)
    # The faults did happen, as many as there should be.
    spread = 5 * np.sqrt(result.sent * loss * (1 - loss))
    assert result.sent > 0
    assert abs(result.lost - result.sent * loss) <= spread
    return result


@pytest.mark.parametrize("topology", SYMMETRIC)
def test_edges_that_both_ends_drop_keep_the_mean(topology):
    result = run("mutual_drop", topology)
    assert result.drift.max() < 1e-13  # in every round
    if topology != "ring":
        assert result.errors[-1] < 1e-13


@pytest.mark.parametrize("topology", ["static exponential", *SYMMETRIC[:2], "one-peer exponential"])
def test_running_sums_come_to_the_exact_mean(topology):
    # A random partner comes back after 15 rounds in the mean, and only then makes up for a loss.
    result = run("running_sums", topology, rounds=800 if topology == "random matching" else ROUNDS)
    assert result.drift[-1] < 1e-13
    assert result.errors[-1] < 1e-12
    assert result.drift.max() > 1e-3  # on the way, while mass is in flight, it is off


@pytest.mark.parametrize("rule", ["renormalize", "missing_to_self", "push_sum"])
@pytest.mark.parametrize(
    "topology", ["static exponential", "one-peer exponential", "one-peer hypercube"]
)
def test_other_rules_drift_measurably(rule, topology):
    drifts = [run(rule, topology, seed=seed).drift[-1] for seed in range(7)]
    assert 3e-3 < np.median(drifts) < 0.15
    errors = run(rule, topology).errors
    assert errors[-1] == pytest.approx(errors[-50], rel=1e-9)  # agreed, but on a wrong value


@pytest.mark.parametrize("rule", RULES)
def test_without_loss_all_rules_average(rule):
    symmetric = run(rule, "one-peer hypercube", loss=0, rounds=4)
    np.testing.assert_array_less(symmetric.drift, 1e-15)
    assert symmetric.errors[-1] < 1e-15 < 0.1 < symmetric.errors[-2]
    assert symmetric.lost == 0
    plain = run("renormalize", "one-peer hypercube", loss=0, rounds=4)
    np.testing.assert_allclose(symmetric.errors, plain.errors, rtol=0, atol=1e-15)


@pytest.mark.parametrize("rule", RULES)
def test_when_all_is_lost_ranks_keep_their_values(rule):
    result = run(rule, "ring", loss=1, rounds=5)
    assert result.lost == result.sent == 5 * 32
    np.testing.assert_allclose(result.errors, result.errors[0], rtol=1e-14)


def test_the_same_messages_are_lost_for_every_rule():
    lost = [run(rule, "ring", seed=3).lost for rule in RULES]
    assert len(set(lost)) == 1
    assert run("renormalize", "ring", seed=4).lost != lost[0]
    np.testing.assert_array_equal(
        run("push_sum", "ring", seed=3).errors, run("push_sum", "ring", seed=3).errors
    )


def pair(lost=()):
    """Two ranks that exchange halves; `lost` names sources."""
    index = np.array([1, 0]), np.array([0, 1])  # messages 1 -> 0 and 0 -> 1
    messages = Messages(np.full(2, 0.5), *index, np.full(2, 0.5))
    return messages, np.array([1 not in lost, 0 not in lost])


@pytest.mark.parametrize(
    ("rule", "after_loss", "after_next"),
    [
        # Rank 0 has 0, rank 1 has 8, and rank 1's first message is lost.
        ("renormalize", [0, 4], [2, 2]),
        ("missing_to_self", [0, 4], [2, 2]),
        ("mutual_drop", [0, 8], [4, 4]),
        # Mass (0, 1/2) and (4, 1), then (2, 3/4) for both: a quarter of the start is gone.
        ("push_sum", [0, 4], [8 / 3, 8 / 3]),
        # The second message carries 4 + 2 and 1/2 + 1/2: (6, 5/4) and (2, 3/4), nothing is lost.
        ("running_sums", [0, 4], [6 / 1.25, 2 / 0.75]),
    ],
)
def test_one_lost_message_by_hand(rule, after_loss, after_next):
    rounds = [pair(lost=[1]), pair()]
    states = list(RULES[rule](np.array([0.0, 8.0]), rounds))
    np.testing.assert_allclose(states, [after_loss, after_next], rtol=1e-15)


def test_running_sums_are_repaired_by_the_next_message_on_the_edge():
    rounds = [pair(lost=[1]), pair(lost=[1, 0]), *[pair()] * 60]
    *_, last = RULES["running_sums"](np.array([0.0, 8.0]), rounds)
    np.testing.assert_allclose(last, [4, 4], rtol=1e-14)


@pytest.mark.parametrize("topology", ["static exponential", "one-peer exponential"])
def test_mutual_drop_needs_symmetric_weights(topology):
    with pytest.raises(ValueError, match=r"needs symmetric weights; \(\d+, \d+\) and .* differ"):
        run("mutual_drop", topology)


@pytest.mark.parametrize(
    ("topology", "rule", "loss", "steps", "message"),
    [
        (ring(4), "retry", 0.1, 1, "unknown rule 'retry'; known rules: renormalize, "),
        (ring(4), "push_sum", 1.5, 1, r"loss must be a probability in 0\.\.1, got 1\.5"),
        (ring(4), "push_sum", float("nan"), 1, "got nan"),
        (ring(4), "push_sum", 0.1, -1, "steps must be at least 0, got -1"),
        (nx.DiGraph([(0, 1)]), "push_sum", 0.1, 1, r"column 0 of W sums to 1\.5"),
    ],
)
def test_refused_arguments(topology, rule, loss, steps, message):
    with pytest.raises(ValueError, match=message):
        average_with_loss(topology, rule, loss, steps)
