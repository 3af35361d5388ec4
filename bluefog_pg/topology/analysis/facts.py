"""What is true of a topology, and if it is not, of which ranks.

Each question is a property of `Facts` that holds None for "yes", or a sentence that says what is
in the way and names ranks. They are worked out when first asked for.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..build import check_size
from ..graph import check_type
from ..mixing import sparse_mixing_matrix
from ..schedule import Schedule, rounds

if TYPE_CHECKING:
    from scipy.sparse import csr_array

ATOL = 1e-10
"""How far sums of weights may be from 1, and two weights that should be equal from each other."""

_NAMED = 8


class Facts:
    """The rounds of a topology as sparse matrices, and the questions about them.

    Args:
        topology: a valid topology. For a schedule that never repeats, its rounds 0..63 count.

    Raises:
        TypeError, ValueError: as `validate`.
    """

    def __init__(self, topology: nx.DiGraph | Schedule) -> None:
        self.topology = topology
        self.is_schedule = isinstance(topology, Schedule)
        if not self.is_schedule:
            check_type(topology)
        self.size = topology.size if self.is_schedule else check_size(len(topology))
        self.period = topology.period if self.is_schedule else 1
        self.matrices = [sparse_mixing_matrix(graph) for graph in rounds(topology)]

    @cached_property
    def changes(self) -> str | None:
        """Whether W is another one in other steps."""
        if self.period == 1:
            return None
        how = "never repeats" if self.period is None else f"has a period of {self.period} steps"
        return f"{self.topology!r} changes from step to step: it {how}"

    @cached_property
    def negative_weight(self) -> str | None:
        for step, w in enumerate(self.matrices):
            if (w.data < 0).any():
                coo = w.tocoo()
                at = np.flatnonzero(coo.data < 0)[0]
                return (
                    f"the weight of edge ({coo.col[at]}, {coo.row[at]}) is {coo.data[at]:.6g}, "
                    f"less than 0{self._in_round(step)}"
                )
        return None

    @cached_property
    def row_sum(self) -> str | None:
        """Whether the weights that each rank applies sum to 1 (row-stochastic W)."""
        return self._sum_problem(1, "the weights that a rank applies must sum to 1")

    @cached_property
    def column_sum(self) -> str | None:
        """Whether the weights that are given to each rank sum to 1 (column-stochastic W)."""
        return self._sum_problem(0, "the weights that ranks give to one rank's value must sum to 1")

    @cached_property
    def asymmetry(self) -> str | None:
        for step, w in enumerate(self.matrices):
            difference = (w - w.T).tocoo()
            large = np.flatnonzero(np.abs(difference.data) > ATOL)
            if large.size:
                i, j = difference.row[large[0]], difference.col[large[0]]
                return (
                    f"its weights are not symmetric: rank {i} gives {w[i, j]:.6g} to rank {j}, "
                    f"which gives {w[j, i]:.6g} to it{self._in_round(step)}"
                )
        return None

    @cached_property
    def endless(self) -> str | None:
        """Whether there is no telling which edges it has."""
        return None if self.period else f"{self.topology!r} never repeats itself"

    @cached_property
    def one_way(self) -> str | None:
        """Whether some edge goes in one direction only, all steps together."""
        edges = set()
        for w in self.matrices:
            receivers, senders = messages(w)
            edges |= set(zip(senders.tolist(), receivers.tolist(), strict=True))
        for sender, receiver in sorted(edges):
            if (receiver, sender) not in edges:
                return f"rank {sender} sends to rank {receiver}, which does not send to it"
        return None

    @cached_property
    def unreachable(self) -> str | None:
        """Whether each rank hears, over others and in a period, of each other rank."""
        from scipy.sparse.csgraph import breadth_first_order

        # Row = receiver: the edges of W lead back to where values come from.
        union = sum(abs(w) for w in self.matrices[1:]) + abs(self.matrices[0])
        union.eliminate_zeros()
        for edges, says in (
            (union.T.tocsr(), "no path leads from rank 0 to {}"),
            (union, "no path leads from {} to rank 0"),
        ):
            seen = breadth_first_order(edges, 0, return_predecessors=False)
            if len(seen) < self.size:
                return says.format(some_ranks(set(range(self.size)) - set(seen.tolist())))
        return None

    @cached_property
    def cycle(self) -> str | None:
        """Whether values of a static graph settle, and not only go round."""
        (w, *others) = self.matrices
        if others or self.unreachable or self.size == 1 or w.diagonal().any():
            return None
        graph = nx.DiGraph(zip(*w.T.nonzero(), strict=True))
        if nx.is_aperiodic(graph):
            return None
        return "no rank keeps any of its own value, and values go round in cycles for ever"

    @cached_property
    def silent(self) -> str | None:
        """Whether each rank has something, its own value or another's, after each round."""
        for step, w in enumerate(self.matrices):
            empty = set(np.flatnonzero(abs(w).sum(axis=1) == 0).tolist())
            if empty:
                return f"{some_ranks(empty)} would be left with nothing{self._in_round(step)}"
        return None

    @cached_property
    def not_a_tree(self) -> str | None:
        """Whether the edges, each in both directions, make one tree."""
        if self.changes:
            return self.changes
        receivers, senders = messages(self.matrices[0])
        one_way = np.setdiff1d(senders * self.size + receivers, receivers * self.size + senders)
        if one_way.size:
            src, dst = divmod(int(one_way[0]), self.size)
            return f"rank {src} sends to rank {dst}, which does not send to it"
        if self.unreachable:
            return self.unreachable
        if receivers.size != 2 * (self.size - 1):
            return f"{receivers.size // 2} edges between {self.size} ranks make a cycle"
        return None

    @cached_property
    def smallest_eigenvalue(self) -> float | None:
        """Of a symmetric static W; None for others."""
        from .spectral import smallest_eigenvalue

        if self.changes or self.asymmetry:
            return None
        return smallest_eigenvalue(self.matrices[0])

    def _sum_problem(self, axis: int, rule: str) -> str | None:
        for step, w in enumerate(self.matrices):
            sums: npt.NDArray[np.float64] = w.sum(axis=axis)
            wrong = np.flatnonzero(np.abs(sums - 1) > ATOL)
            if wrong.size:
                found = ", ".join(f"rank {i}: {sums[i]:.6g}" for i in wrong[:_NAMED])
                more = f" and {wrong.size - _NAMED} more" if wrong.size > _NAMED else ""
                return f"{rule}; {found}{more}{self._in_round(step)}"
        return None

    def _in_round(self, step: int) -> str:
        return f" (round {step})" if self.is_schedule else ""


def messages(w: "csr_array") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the receiver and the sender of each message of a round.

    An edge of weight 0 is one too, and a rank's own value is not.
    """
    edges = w.tocoo()
    between = edges.row != edges.col
    return edges.row[between].astype(np.int64), edges.col[between].astype(np.int64)


def some_ranks(ranks: Iterable[int]) -> str:
    """Names the first few: "rank 3", or "ranks 3, 5 and 9 more"."""
    ordered = sorted(ranks)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return f"rank{'s' * (len(ordered) > 1)} {', '.join(map(str, ordered[:_NAMED]))}{more}"
