from collections.abc import Iterable, Mapping
from itertools import pairwise

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.network import ALL
from bluefog_pg.group import Topology
from bluefog_pg.topology import Schedule
from bluefog_pg.topology.arguments import check_int
from bluefog_pg.topology.static.cliques import cliques

Group = int | None


@register("hierarchical_sgd")
class HierarchicalSGD(Algorithm):
    """Hierarchical SGD: small groups average often, larger ones seldom (arXiv:2010.12998).

    x' = x - lr g(x);  then x' <- the mean of x' over the group of the largest period that divides
    the number of steps so far, if one does

    No topology. Ranks side by side are a group: 0..g-1, g..2g-1, ... Inside of groups ranks
    exchange with each other directly, all ranks average by allreduce. Any optimizer. Memory: that
    of the average, as large as x.

    Args:
        periods: {steps: ranks per group}, a mapping or pairs. Each number of steps divides the next
            larger one, and so does each group; the largest period's group is all ranks, or None.
            Default: pairs every 2 steps, all every 8.

    Raises:
        ValueError: that is not so.
    """

    lazy = True
    allreduces = 1
    buffers_over = ALL

    def __init__(
        self, periods: Mapping[int, Group] | Iterable[tuple[int, Group]] = ((2, 2), (8, None))
    ) -> None:
        self.periods = _check_nested(dict(periods))
        *inner, last = self.periods
        self._graph_of = {steps: f"every {steps}" for steps in inner} | {last: ALL}

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        size = topology.size if isinstance(topology, Schedule) else len(topology)
        *inner, (last, ranks) = self.periods.items()
        if ranks not in (size, None):
            raise ValueError(
                f"the group of the largest period must be all {size} ranks, got {last}: {ranks}"
            )
        groups = {self._graph_of[steps]: cliques(size, group) for steps, group in inner}
        return {"W": topology} | groups

    def average_over(self, step: int) -> str | None:
        """Returns what a step averages over, or None."""
        due = [name for steps, name in self._graph_of.items() if (step + 1) % steps == 0]
        return due[-1] if due else None

    def communicates(self, step: int) -> bool:
        return self.average_over(step) is not None

    def after_step(self, block: Block) -> None:
        if over := self.average_over(block.network.step):
            block.start("x", over=over)

    def combine(self, block: Block) -> None:
        block.finish()


def _check_nested(periods: dict[int, Group]) -> dict[int, Group]:
    """Returns them in ascending order."""
    if not periods:
        raise ValueError("periods must not be empty: {steps: ranks per group}")
    ordered = {check_int("a period", steps, 1): periods[steps] for steps in sorted(periods)}
    for steps, ranks in ordered.items():
        if ranks is not None or steps != max(ordered):
            check_int(f"the ranks per group of period {steps}", ranks, 1)
    for (short, small), (long, large) in pairwise(ordered.items()):
        if long % short or (large or small) % small:
            raise ValueError(
                f"each period and group must divide the next larger one, got {short}: {small} and "
                f"{long}: {large}"
            )
    return ordered
