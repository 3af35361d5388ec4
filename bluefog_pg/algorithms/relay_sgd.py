import torch

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.group import Topology
from bluefog_pg.topology import row_stochastic
from bluefog_pg.topology.matchings import matchings


@register("relay_sgd")
class RelaySGD(Algorithm):
    """RelaySGD: sums that travel along a tree in the place of averages (arXiv:2110.04175).

    y = x - lr g(x);
    m_ij' = y_i + sum of m_qi over the neighbours q of i but j;  c_ij' = 1 + sum of c_qi likewise;
    x_i' = ((n - sum_j c_ji') y_i + sum_j m_ji') / n;  m0 = c0 = 0

    Exact on heterogeneous data, and late by the path's length. A static tree, whose weights do not
    matter. Each neighbour gets a message of its own, one after the other, from optimizer.step() to
    the next use of the parameters. Its memory is twice x for each neighbour. What a failed exchange
    leaves behind is gone after a path's length. Any optimizer; theory is for SGD.
    """

    memory = "2 per neighbour"
    keeps_dtype = "its messages are handed on, not averaged, and roundings would add up on the way"
    default_topology = "balanced_tree"
    buffers_over = "R"

    def graphs(self, topology: Topology) -> dict[str, Topology]:
        """Message "m0" goes over the graph "m0", and so on: each rank has one neighbour in each."""
        turns = {f"m{turn}": graph for turn, graph in enumerate(matchings(topology))}
        return {"W": topology, "R": row_stochastic(topology), **turns}

    def begin(self, block: Block) -> None:
        for message in _turns(block):
            if block.network.plan(message).sources:
                block.add(message, exchanged=True)
                block.add_scalars(_count(message), 0.0)
            else:  # has no neighbour then, but must start as many exchanges as the others
                block.add_scalars(message, 0.0)

    def after_step(self, block: Block) -> None:
        own = _own(block)
        if own:
            _relay(block, own, block["x"])
            _relay(block, [*map(_count, own)], torch.ones(1))
        for message in _turns(block):
            counted = [_count(message)] if message in own else []
            block.start(message, *counted, over=message)

    def combine(self, block: Block) -> None:
        block.finish()
        own, n = _own(block), block.network.size
        if own:
            heard_of = torch.tensor([block.scalars(_count(message)) for message in own]).sum(0)
            torch._foreach_mul_(block.views("x"), (n - heard_of).tolist())
            for message in own:
                block["x"].add_(block[message])
            block["x"].div_(n)
            block.touch()


def _relay(block: Block, variables: list[str], y: torch.Tensor) -> None:
    """m_ij' = y_i + sum of all m_qi - m_ji, in the place of m_ji."""
    total = block.arrived(variables[0]).copy_(y)
    for name in variables:
        total.add_(block[name])
    for name in variables:
        block[name].neg_().add_(total)


def _turns(block: Block) -> list[str]:
    return [name for name in block.network.names() if name.startswith("m")]


def _own(block: Block) -> list[str]:
    """The turns in which this rank has a neighbour."""
    return [message for message in _turns(block) if _count(message) in block.variables()]


def _count(message: str) -> str:
    return message.replace("m", "c")
