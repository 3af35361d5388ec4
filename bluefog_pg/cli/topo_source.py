"""Topologies from what a user names: a registered constructor, or a file (see `cli.topo`).

What is wrong in a file is told apart from wrong usage: it is what `topo check` looks for.
"""

import ast
import importlib.util
import inspect
import json
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx

from bluefog_pg.topology import Schedule, from_peers, get, names
from bluefog_pg.topology.analysis.facts import Facts

Topology = nx.DiGraph | Schedule
Edge = tuple[str, int, int, float | None]
"""(where it stands, source, destination, weight)."""


class FileError(ValueError):
    """What is in a file is no topology; the message names the place."""


def load(source: str, n: int | None, arguments: dict[str, Any]) -> Topology:
    """Returns the topology that `source` names; `n` and `arguments` are for its constructor.

    Raises:
        FileError: the file is wrong.
        TypeError, ValueError: source names nothing, n is missing or not what the file has, or the
            constructor refuses its arguments.
        OSError: the file cannot be read.
    """
    if source in names():
        if n is None:
            raise ValueError(f"{source} needs a number of ranks: -n 8")
        _check_arguments(source, get(source), arguments)
        return get(source)(n, **arguments)
    file, _, name = source.rpartition(":")
    if file.endswith(".py"):
        topology = _from_python(Path(file), name, n, arguments)
    elif Path(source).suffix or Path(source).exists():
        topology = _from_file(Path(source), n)
    else:
        get(source)  # raises, and says which names there are
    size = topology.size if isinstance(topology, Schedule) else len(topology)
    if n is not None and n != size:
        raise ValueError(f"{source} has {size} ranks, not {n}")
    return topology


def parse_arguments(settings: Iterable[str]) -> dict[str, Any]:
    """Returns {key: value} of "key=value" texts; values are Python literals or else strings."""
    arguments = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key.isidentifier() and equals):
            raise ValueError(f"--set wants KEY=VALUE, got {setting!r}")
        arguments[key] = _value(text)
    return arguments


def _value(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text, text))
    except (SyntaxError, ValueError):
        return text


def _check_arguments(name: str, constructor: Any, arguments: dict[str, Any]) -> None:
    parameters = list(inspect.signature(constructor).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for key in arguments:
        if key not in known:
            raise ValueError(f"{name} takes {', '.join(known) or 'nothing but n'}; got {key!r}")


def _from_python(file: Path, name: str, n: int | None, arguments: dict[str, Any]) -> Topology:
    file.read_bytes()  # an OSError now, if at all
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    with _errors_in(file):
        spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise ValueError(f"{file} has no {name!r}")
    made = getattr(module, name)
    if callable(made) and not isinstance(made, Schedule):
        parameters = inspect.signature(made).parameters.values()
        if n is None and any(p.default is p.empty for p in parameters):
            raise ValueError(f"{file}:{name} needs a number of ranks: -n 8")
        with _errors_in(file):
            made = made(*([] if n is None or not parameters else [n]), **arguments)
    with _errors_in(file):
        return _checked(Schedule.from_graphs(made, name) if isinstance(made, list) else made)


def _from_file(file: Path, n: int | None) -> Topology:
    text = file.read_text()
    with _errors_in(file):
        rounds = _from_json(text) if text.lstrip()[:1] in ("{", "[") else _from_lines(text, n)
        return _checked(rounds[0] if len(rounds) == 1 else Schedule.from_graphs(rounds, file.stem))


def _checked(topology: Any) -> Topology:
    Facts(topology)
    return topology


@contextmanager
def _errors_in(file: Path) -> Iterator[None]:
    """Whatever goes wrong in a file becomes a FileError, with the line where it is Python."""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        at = [frame.lineno for frame in frames if Path(frame.filename) == file.resolve()]
        where = f"{file}, line {at[-1]}: {type(error).__name__}: " if at else ""
        raise FileError(f"{where}{error}") from error


def _from_lines(text: str, n: int | None) -> list[nx.DiGraph]:
    """Reads lines "src dst", "src dst weight" or "step src dst weight"."""
    rounds: dict[int, list[Edge]] = {}
    width = 0
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        width = width or len(fields)
        if len(fields) != width or width not in (2, 3, 4):
            raise ValueError(
                f"line {number}: expected 'src dst', 'src dst weight' or 'step src dst weight', "
                f"the same on all lines, got {line.strip()!r}"
            )
        try:
            step, src, dst = map(int, fields[:3] if width == 4 else ("0", *fields[:2]))
            weight = None if width == 2 else float(fields[-1])
        except ValueError:
            raise ValueError(f"line {number}: not a number in {line.strip()!r}") from None
        rounds.setdefault(step, []).append((f"line {number}", src, dst, weight))
    if not rounds:
        raise ValueError("the file has no edges")
    if missing := set(range(max(rounds) + 1)) - set(rounds):
        raise ValueError(f"step {min(missing)} has no edges, but step {max(rounds)} has")
    size = n or 1 + max(max(src, dst) for edges in rounds.values() for _, src, dst, _ in edges)
    return [_graph(range(size), rounds[step]) for step in sorted(rounds)]


def _from_json(text: str) -> list[nx.DiGraph]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    rounds = value.get("rounds", [value]) if isinstance(value, dict) else None
    if not rounds:
        raise ValueError('expected a node-link graph or {"rounds": [...]}')
    return [_from_node_link(f"round {at}", entry) for at, entry in enumerate(rounds)]


def _from_node_link(where: str, value: Any) -> nx.DiGraph:
    if isinstance(value, dict) and "sends" in value and "receives" in value:
        try:
            return from_peers(value["sends"], value["receives"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
    try:
        nodes = [node["id"] for node in value["nodes"]]
        links = value["edges"] if "edges" in value else value["links"]
        edges = [
            (f"{where}, edge {at}", link["source"], link["target"], link.get("weight"))
            for at, link in enumerate(links)
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where} is not a node-link graph: {error!r}") from None
    if not value.get("directed", False):
        edges += [(at, dst, src, weight) for at, src, dst, weight in edges if src != dst]
    return _graph(nodes, edges)


def _graph(nodes: Iterable[int], edges: Iterable[Edge]) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    at: dict[tuple[int, int], str] = {}
    for where, src, dst, weight in edges:
        if (src, dst) in at:
            raise ValueError(f"{where}: edge ({src}, {dst}) again, it is on {at[src, dst]} too")
        for rank in (src, dst):
            if rank not in graph:
                raise ValueError(f"{where}: edge ({src}, {dst}), but there is no rank {rank}")
        at[src, dst] = where
        graph.add_edge(src, dst, **({} if weight is None else {"weight": weight}))
    return graph
