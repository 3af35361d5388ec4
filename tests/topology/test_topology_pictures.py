"""Pictures: the text for Graphviz edge by edge, the curve that is drawn, and files."""

import re
import sys

import networkx as nx
import numpy as np
import pytest

from bluefog_pg.topology import (
    Schedule,
    base_graph,
    ceca,
    de_bruijn,
    equi_dyn,
    exponential,
    fully_connected,
    one_peer_exponential,
    ring,
    rounds,
    star,
)
from bluefog_pg.topology.analysis.pictures import consensus_errors, dot, plot

pytest.importorskip("matplotlib")


def edges_of(text):
    found = re.findall(r'(?:r(\d+)_)?(\d+) -> (?:r\d+_)?(\d+) \[label="([^"]+)"\];', text)
    return {(int(step or 0), int(src), int(dst)): float(weight) for step, src, dst, weight in found}


@pytest.mark.parametrize(
    "topology", [ring(5), star(4), exponential(7), base_graph(6), one_peer_exponential(5)], ids=repr
)
def test_dot_has_every_edge_of_every_round(topology):
    expected = {
        (step, src, dst): pytest.approx(weight, rel=1e-3)
        for step, graph in enumerate(rounds(topology))
        for src, dst, weight in graph.edges.data("weight")
        if src != dst
    }
    text = dot(topology)
    assert edges_of(text) == expected
    assert text.count("{") == text.count("}")
    assert text.count("subgraph cluster_") == (
        topology.period if isinstance(topology, Schedule) else 0
    )


def test_dot_of_graphs_without_weights_shows_those_that_are_applied():
    assert edges_of(dot(nx.DiGraph([(0, 1)]))) == {(0, 0, 1): 0.5}


def test_dot_stops_after_8_rounds():
    assert dot(equi_dyn(4)).count("subgraph cluster_") == 8


@pytest.mark.parametrize("topology", [ring(1), exponential(40), ceca(5), equi_dyn(9)], ids=repr)
def test_plots_are_pictures(topology, tmp_path):
    from matplotlib.image import imread

    plot(topology, str(tmp_path / "out.png"), "title")
    image = imread(tmp_path / "out.png")
    assert min(image.shape[:2]) >= 500
    assert np.ptp(image[..., :3]) == 1  # black on white


def test_other_files(tmp_path):
    plot(ring(3), str(tmp_path / "out.svg"), "three ranks")
    assert "<svg" in (tmp_path / "out.svg").read_text()
    with pytest.raises(ValueError, match="txt"):
        plot(ring(3), str(tmp_path / "out.txt"))


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"^plots need matplotlib: pip install 'bluefog_pg\[plot\]'$"
    ):
        plot(ring(3), str(tmp_path / "out.png"))


def test_the_curve_that_is_drawn():
    assert consensus_errors(fully_connected(4), 2) == pytest.approx([1, 0, 0], abs=1e-14)
    assert consensus_errors(ring(1), 2).tolist() == [0, 0, 0]
    slow = consensus_errors(ring(50), 200)
    rho = 1 / 3 + 2 / 3 * np.cos(2 * np.pi / 50)
    assert (slow <= rho ** np.arange(201) * (1 + 1e-12)).all()
    assert slow[200] / slow[199] == pytest.approx(rho, rel=1e-3)
    for topology, count in ((ceca(7), 3), (base_graph(6), 4), (de_bruijn(8), 3)):
        errors = consensus_errors(topology, 2 * count)
        assert errors[0] == 1
        assert (errors[count:] < 1e-14).all() and errors[count - 1] > 0.01
