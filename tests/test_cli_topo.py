"""bluefog-pg topo: list, show, check and auto, and the files that they read."""

import json
import re
import sys
from pathlib import Path

import networkx as nx
import pytest

from bluefog_pg.cli import main
from bluefog_pg.topology import (
    Link,
    Links,
    analyze,
    choose,
    edge_list,
    exponential,
    fingerprint,
    names,
    one_peer_exponential,
    ring,
    rounds,
    star,
)

DOCS = Path(__file__).parents[1] / "docs" / "topologies.md"


@pytest.fixture
def topo(capsys):
    """Runs `bluefog-pg topo`; returns (exit code, output, errors)."""

    def run(*arguments):
        code = main(["topo", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its name."""

    def write(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_list_names_all(topo):
    code, out, _ = topo("list")
    assert code == 0
    assert all(f" {name} " in out for name in names())
    assert "direction='both'" in out
    found = json.loads(topo("list", "--json")[1])
    assert [entry["name"] for entry in found] == names()
    assert all(entry["summary"].endswith((".", ";")) for entry in found)


def test_list_with_sizes(topo):
    code, out, _ = topo("list", "-n", 6, 8)
    assert code == 0
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in out.splitlines() if "│" in line]
    assert ["ring", "1", "2", "0.805", "0.805", "0.195", ""] in rows
    assert ["one_peer_exponential", "3", "1", "0.217", "0.6", "", ""] in rows
    assert ["one_peer_exponential", "3", "1", "0", "0", "", "3"] in rows
    assert ["one_peer_hypercube", *"------"] in rows
    assert "- one_peer_hypercube needs a power of two, got n=6" in out
    entries = json.loads(topo("list", "-n", 6, "--json")[1])
    by_name = {entry["name"]: entry for entry in entries}
    assert by_name["ring"]["analysis"] == json.loads(json.dumps(analyze(ring(6)).to_dict()))
    assert "power" in by_name["one_peer_hypercube"]["reason"]


def test_the_table_in_docs_is_what_the_command_prints(topo):
    text = DOCS.read_text()
    command = re.search(r"`bluefog-pg topo (list -n [\d ]+ --markdown)`", text).group(1)
    _, out, _ = topo(*command.split())
    _, _, table = text.partition("<!-- table -->\n")
    assert table == out, f"regenerate it: bluefog-pg topo {command}"


def test_show_prints_an_analysis(topo):
    code, out, _ = topo("show", "ring", "-n", 8)
    assert code == 0
    for words in (
        "ring, n = 8",
        "doubly stochastic; symmetric",
        "0.805 after 1 step, 0.805 per step",
        "1.14 times a ring all-reduce",
        "not for relay_sgd",
    ):
        assert words in out


def test_show_as_json(topo):
    code, out, _ = topo("show", "one_peer_exponential", "-n", 6, "--json", "--bytes", 1000)
    result = json.loads(out)
    assert code == 0
    schedule = one_peer_exponential(6)
    assert result["edges"] == edge_list(schedule)
    expected = analyze(schedule, message_bytes=1000).to_dict()
    assert result["analysis"] == json.loads(json.dumps(expected))


def test_arguments_of_the_constructor(topo):
    def edges(*arguments):
        return json.loads(topo("show", *arguments, "--json")[1])["edges"]

    assert edges("ring", "-n", 5, "--set", "direction=left") == edge_list(ring(5, "left"))
    assert edges("star", "-n", 5, "--set", "center=2") == edge_list(star(5, center=2))
    both = edges("mesh2d", "-n", 6, "--set", "shape=3,2")
    assert both == edges("mesh2d", "-n", 6, "--set", "shape=[3, 2]")
    undirected = edges("equi_dyn", "-n", 5, "--set", "directed=false", "--set", "seed=3")
    assert {(step, j, i, w) for step, i, j, w in undirected} == set(map(tuple, undirected))


def test_show_for_graphviz(topo):
    code, out, err = topo("show", "ring", "-n", 3, "--dot")
    assert (code, err) == (0, "")
    assert out.startswith("digraph topology {") and '0 -> 1 [label="0.3333"];' in out


def test_plot(topo, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, _ = topo("show", "ring", "-n", 3, "--plot", tmp_path / "ring.png")
    assert code == 0 and "ring, n = 3" in out
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib(topo, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = topo("show", "ring", "-n", 3, "--plot", tmp_path / "ring.png")
    assert (code, err) == (2, "bluefog-pg: plots need matplotlib: pip install 'bluefog_pg[plot]'\n")


def test_auto(topo, write):
    code, out, _ = topo("auto", "-n", 6)
    assert code == 0
    assert out.replace("\n", " ").startswith(choose(6).explanation)
    assert "left out: ceca: keeps a second copy" in out
    assert topo("auto", "-n", 6, "--extra-copy")[1].startswith("ceca for 6 ranks")
    assert topo("auto", "-n", 12, "--max-degree", 1, "--symmetric")[1].startswith("base_graph(k=1)")
    assert topo("auto", "-n", 8, "--algorithm", "d2")[1].startswith("ring for 8 ranks")
    assert topo("auto", "-n", 8, "--ranks-per-host", 4)[1].startswith("one_peer_hypercube for 8")
    links = write("links.json", Links(Link(1, 1), Link(2, 1), hosts=(0, 0)).to_dict())
    result = json.loads(topo("auto", "-n", 2, "--links", links, "--bytes", 9, "--json")[1])
    assert result["candidates"][0]["seconds"] == 10
    assert result["edges"] == edge_list(ring(2))


def test_auto_refuses(topo, write):
    assert topo("auto", "-n", 8, "--algorithm", "d2", "--max-degree", 1)[0] == 2
    code, _, err = topo("auto", "-n", 8, "--links", write("links.json", {"hosts": [0]}))
    assert (code, "not what Links.to_dict() returns" in err) == (2, True)


def loaded(topo, file, *arguments):
    """The edges of a file that has no problem for push-sum (which many graphs are good for)."""
    code, out, err = topo("show", file, *arguments, "--json")
    assert (code, err) == (0, ""), err
    return json.loads(out)["edges"]


@pytest.mark.parametrize("key", ["edges", "links"])
def test_node_link_files(topo, write, key):
    for graph in (ring(4), exponential(5)):
        data = json.loads(json.dumps(nx.node_link_data(graph, edges=key)))
        assert loaded(topo, write("graph.json", data)) == edge_list(graph)
    undirected = nx.node_link_data(nx.cycle_graph(5), edges=key)
    assert loaded(topo, write("graph.json", undirected)) == edge_list(ring(5))


def test_schedules_in_files(topo, write):
    schedule = one_peer_exponential(6)
    graphs = [nx.node_link_data(graph, edges="edges") for graph in rounds(schedule)]
    assert loaded(topo, write("graph.json", {"rounds": graphs})) == edge_list(schedule)
    peers = [
        {"sends": [[(i + d) % 6] for i in range(6)], "receives": [[(i - d) % 6] for i in range(6)]}
        for d in (1, 2, 4)
    ]
    assert loaded(topo, write("peers.json", {"rounds": peers})) == edge_list(schedule)
    lines = "\n".join(f"{step} {src} {dst} {w}" for step, src, dst, w in edge_list(schedule))
    assert loaded(topo, write("graph.txt", lines)) == edge_list(schedule)


def test_edge_lists(topo, write):
    weighted = "# a ring\n" + "\n".join(f"{i} {j} {w!r}" for _, i, j, w in edge_list(ring(4)))
    assert loaded(topo, write("graph.txt", weighted)) == edge_list(ring(4))
    plain = "0 1  # and back\n\n1\t0\n"
    assert loaded(topo, write("graph.txt", plain)) == edge_list(ring(2))
    assert loaded(topo, write("graph", plain), "-n", 3)[-1] == [0, 2, 2, 1.0]  # a rank on its own


PYTHON = """
import networkx as nx
import bluefog_pg
from bluefog_pg.topology import one_peer_exponential

def sized(n, direction="both"):
    return bluefog_pg.ring(n, direction)

def fixed():
    return one_peer_exponential(4)

def several(n):
    return [bluefog_pg.ring(n), bluefog_pg.star(n)]

def broken(n):
    return [1, 2][n]

def other(n):
    return nx.cycle_graph(n)

graph = bluefog_pg.star(3)
"""


def test_python_files(topo, write):
    file = write("graph.py", PYTHON)
    assert loaded(topo, f"{file}:sized", "-n", 5) == edge_list(ring(5))
    left = loaded(topo, f"{file}:sized", "-n", 5, "--set", "direction=left")
    assert left == edge_list(ring(5, "left"))
    assert loaded(topo, f"{file}:fixed") == edge_list(one_peer_exponential(4))
    assert {edge[0] for edge in loaded(topo, f"{file}:several", "-n", 3)} == {0, 1}
    assert loaded(topo, f"{file}:graph") == edge_list(star(3))


def test_check_passes(topo, write):
    code, out, _ = topo("check", write("graph.txt", "0 1\n1 2\n2 0\n"))
    assert code == 0 and "no problem found" in out
    assert topo("check", "ring", "-n", 5, "--algorithm", "d2")[0] == 0
    code, out, _ = topo("check", "ring", "-n", 5, "--json")
    assert code == 0 and json.loads(out)["problems"] == []
    assert json.loads(out)["analysis"]["size"] == 5


LINK = {"source": 0, "target": 1}
BAD_FILES = [
    ("a.txt", "0 1\n1 0\n0 1\n", r"line 3: edge \(0, 1\) again, it is on line 1 too"),
    ("a.txt", "0 1\n1 0 0.5\n", "line 2: expected 'src dst', 'src dst weight' or"),
    ("a.txt", "0 one\n", "line 1: not a number in '0 one'"),
    ("a.txt", "0 -1\n", r"line 1: edge \(0, -1\), but there is no rank -1"),
    ("a.txt", "# nothing\n", "the file has no edges"),
    ("a.txt", "0 0 1 0.5\n2 1 0 0.5\n", "step 1 has no edges, but step 2 has"),
    ("a.txt", "0 1 nan\n1 0 1\n", r"weight of edge \(0, 1\) is nan"),
    ("a.txt", "0 1 0.5\n1 0 0.5\n", "must sum to 1; rank 0: 0.5, rank 1: 0.5"),
    ("a.txt", "0 1\n1 0\n2 3\n3 2\n", "no path leads from rank 0 to ranks 2, 3"),
    ("a.json", "{", "not JSON"),
    ("a.json", "[]", "expected a node-link graph"),
    ("a.json", {"rounds": []}, "expected a node-link graph"),
    ("a.json", {"nodes": [{"id": 0}]}, "round 0 is not a node-link graph: .*links"),
    (
        "a.json",
        {"directed": True, "nodes": [{"id": 0}, {"id": 1}], "edges": [LINK, LINK]},
        r"round 0, edge 1: edge \(0, 1\) again, it is on round 0, edge 0 too",
    ),
    (
        "a.json",
        {"directed": True, "nodes": [{"id": 0}, {"id": 2}], "edges": []},
        "missing: 1; not a rank: 2",
    ),
    (
        "a.json",
        {"rounds": [{"sends": [[1], []], "receives": [[], []]}]},
        "round 0: sends and receives do not match: rank 0 sends to rank 1, which does not receive",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_check_names_the_problem(topo, write, name, content, message):
    code, out, err = topo("check", write(name, content))
    assert (code, err) == (1, "")
    assert re.search(f"^problem: .*{message}", out, re.MULTILINE), out
    code, out, _ = topo("check", write(name, content), "--json")
    assert code == 1
    assert any(re.search(message, sentence) for sentence in json.loads(out)["problems"])


def test_check_of_python_files(topo, write):
    file = write("graph.py", PYTHON)
    line = PYTHON[: PYTHON.index("[1, 2][n]")].count("\n") + 1
    code, out, _ = topo("check", f"{file}:broken", "-n", 7)
    assert (code, out) == (
        1,
        f"problem: {file}, line {line}: IndexError: list index out of range\n",
    )
    code, out, _ = topo("check", f"{file}:other", "-n", 7)
    assert code == 1 and re.match(r"problem: .*got Graph; .*to_directed\(\)", out)
    wrong = write("wrong.py", "def f(:\n")
    assert topo("check", f"{wrong}:f")[0] == 1


def test_check_for_an_algorithm(topo):
    code, out, _ = topo("check", "one_peer_exponential", "-n", 8, "--algorithm", "d2")
    assert code == 1
    assert out.startswith("problem: d2 needs a static graph with symmetric, doubly stochastic")
    code, out, _ = topo("check", "star", "-n", 4, "--algorithm", "relay_sgd")
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ring"], "ring needs a number of ranks: -n 8"),
        (["ring", "-n", 0], "at least 1 rank, got n=0"),
        (["ring", "-n", -5], "at least 1 rank, got n=-5"),
        (["rings", "-n", 4], "unknown topology 'rings'; known topologies: auto, "),
        (["ring", "-n", 4, "--set", "direction"], "--set wants KEY=VALUE, got 'direction'"),
        (["ring", "-n", 4, "--set", "way=left"], "ring takes direction; got 'way'"),
        (["fully_connected", "-n", 4, "--set", "k=1"], "takes nothing but n; got 'k'"),
        (["ring", "-n", 4, "--set", "direction=up"], "both, left, right, got 'up'"),
        (["one_peer_hypercube", "-n", 6], "needs a power of two, got n=6"),
        (["exponential", "-n", 4, "--set", "base=1"], "base must be at least 2, got 1"),
        (["absent.json"], "No such file or directory: 'absent.json'"),
        (["absent.py:make"], "No such file or directory: 'absent.py'"),
        (
            ["ring", "-n", 4, "--algorithm", "adam"],
            "unknown algorithm 'adam'; known: a2cid2, ad_psgd, ",
        ),
    ],
)
def test_usage_is_told_from_problems(topo, arguments, message):
    code, out, err = topo("check", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("bluefog-pg: ") and message in err


def test_another_number_of_ranks_than_the_file_has(topo, write):
    file = write("graph.json", nx.node_link_data(ring(3), edges="edges"))
    code, _, err = topo("check", file, "-n", 4)
    assert (code, err) == (2, f"bluefog-pg: {file} has 3 ranks, not 4\n")
    python = write("graph.py", PYTHON)
    assert topo("check", f"{python}:fixed", "-n", 5)[0] == 2
    assert "needs a number of ranks" in topo("check", f"{python}:sized")[2]
    assert "has no 'nothing'" in topo("check", f"{python}:nothing")[2]


def test_names_with_colons_are_no_emoji(topo, write):
    file = write("graph.py", "import bluefog_pg\nzero = bluefog_pg.ring(3)\n")
    assert f"{file}:zero, n = 3" in topo("show", f"{file}:zero")[1].replace("\n", "")


def test_files_and_json_agree(topo, write):
    """What `show --json` prints as edges is what an edge list reads."""
    edges = json.loads(topo("show", "base_graph", "-n", 5, "--json")[1])["edges"]
    file = write("edges.txt", "\n".join(" ".join(map(repr, edge)) for edge in edges))
    assert loaded(topo, file) == edges
    assert fingerprint(ring(4)) != fingerprint(ring(5))
