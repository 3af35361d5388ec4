"""The edges of a tree in few turns, in each of which every rank has one neighbour at most."""

from itertools import count

import networkx as nx

from .schedule import Schedule, rounds


def matchings(tree: nx.DiGraph | Schedule) -> list[nx.DiGraph]:
    """Returns graphs in which ranks exchange with one neighbour, who replaces their own value.

    As many as the largest number of neighbours that a rank has; together they have each edge of the
    tree once. All weights are 1: of the edges, and of the self-loops of ranks without a neighbour.
    Equal trees give equal graphs. Of a graph that is no tree some edges are left out.
    """
    ranks = next(rounds(tree)).to_undirected()
    turns: list[nx.DiGraph] = []
    taken: dict[int, set[int]] = {rank: set() for rank in ranks}
    for i, j in nx.bfs_edges(ranks, 0, sort_neighbors=sorted):
        turn = next(turn for turn in count() if turn not in taken[i])  # j has no edge yet
        if turn == len(turns):
            turns.append(_selves(len(ranks)))
        turns[turn].remove_edges_from([(i, i), (j, j)])
        turns[turn].add_weighted_edges_from([(i, j, 1.0), (j, i, 1.0)])
        taken[i].add(turn)
        taken[j].add(turn)
    return turns


def _selves(size: int) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((rank, rank, 1.0) for rank in range(size))
    return graph
