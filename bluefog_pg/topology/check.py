"""Whether a topology fits a group of ranks, and whether it averages."""

import networkx as nx

from .analysis.facts import Facts
from .build import check_size
from .graph import check_graph
from .schedule import Schedule, rounds


def validate(topology: nx.DiGraph | Schedule, size: int) -> None:
    """Checks that a group of `size` ranks can run `topology`; returns if so.

    Of a schedule it checks all rounds of a period, or the rounds 0..63 if it never repeats (later
    ones are checked when they are made). Weights need not be stochastic: push-sum and others work
    with weights that are not.

    Raises:
        TypeError: neither an nx.DiGraph nor a Schedule (the message says how to convert), or a
            weight that is not a real number.
        ValueError: size is below 1, nodes other than exactly 0..size-1, NaN or infinite weights,
            or weights on only some of the edges into a rank.
    """
    size = check_size(size)
    if not isinstance(topology, Schedule):
        check_graph(topology, size)
        return
    if topology.size != size:
        raise ValueError(
            f"topology has {topology.size} nodes, the group has {size} ranks: {topology!r}"
        )
    for _ in rounds(topology):
        pass  # a Schedule checks each round when it makes it


def problems(topology: nx.DiGraph | Schedule) -> list[str]:
    """Returns what keeps `topology` from bringing all ranks to their mean, in sentences.

    None of it stops a group from running it: some algorithms need less (see `require_safe`).

    Raises:
        TypeError, ValueError: it is not a valid topology.
    """
    facts = Facts(topology)
    found = (
        facts.negative_weight,
        facts.row_sum,
        facts.column_sum,
        facts.unreachable,
        facts.cycle,
    )
    return [problem for problem in found if problem]
