"""Look at topologies: list, show, check them, or have one chosen.

A TOPOLOGY is a registered name (see `bluefog-pg topo list`), or a file of yours:

  graph.json        networkx node-link JSON (nx.node_link_data), or {"rounds": [such graphs]}, or
                    {"rounds": [{"sends": [[1], ...], "receives": [[2], ...]}]}: the ranks that each
                    rank sends to and receives from
  graph.txt         one edge a line: "src dst", "src dst weight" or "step src dst weight"; # comment
  graph.py:make     a function of the number of ranks or of nothing, or an object, that is or
                    returns an nx.DiGraph, a bluefog_pg.Schedule or a list of graphs
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bluefog_pg.cli import add_command

if TYPE_CHECKING:
    from bluefog_pg.cli.topo_source import Topology


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_list(commands)
    _add_show(commands)
    _add_check(commands)
    _add_auto(commands)


def run(args: argparse.Namespace) -> int:
    return args.command(args)


def _add_list(commands: Any) -> None:
    text = "List the registered topologies; with -n, what they do for so many ranks."
    parser = add_command(commands, "list", text)
    parser.add_argument("-n", type=int, nargs="+", default=[], help="numbers of ranks")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--markdown", action="store_true", help="print as Markdown tables")
    parser.set_defaults(command=_list)


def _add_show(commands: Any) -> None:
    text = "Analyse and draw one topology."
    parser = add_command(commands, "show", text)
    parser.add_argument("topology", metavar="TOPOLOGY", help="a name or a file")
    _add_source(parser)
    _add_links(parser)
    _add_output(parser)
    parser.set_defaults(command=_show)


def _add_check(commands: Any) -> None:
    text = (
        "Say what is wrong with a topology, and at which ranks; the exit code is then 1.\n\n"
        "Without --algorithm it has to bring all ranks to their mean."
    )
    parser = add_command(commands, "check", text)
    parser.add_argument("topology", metavar="TOPOLOGY", help="a file or a name")
    _add_source(parser)
    parser.add_argument("--algorithm", help="check what this one needs: atc, d2, push_sum, ...")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(command=_check)


def _add_auto(commands: Any) -> None:
    parser = add_command(commands, "auto", "Choose a topology, and say why this one.")
    parser.add_argument("-n", type=int, required=True, help="number of ranks")
    _add_links(parser)
    parser.add_argument(
        "--max-degree", type=int, default=2, help="most messages per rank and step (default: 2)"
    )
    parser.add_argument("--symmetric", action="store_true", help="symmetric weights only")
    parser.add_argument(
        "--extra-copy", action="store_true", help="allow CECA, with a second copy of the model"
    )
    parser.add_argument("--algorithm", help="only what this one is safe with: atc, d2, ...")
    _add_output(parser)
    parser.set_defaults(command=_auto)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=int, help="number of ranks")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="argument of the constructor, such as direction=left; repeatable",
    )


def _add_links(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bytes", type=int, help="size of the model (default: 100 MB)")
    parser.add_argument(
        "--ranks-per-host", type=int, help="consecutive ranks that share a host (default: 1)"
    )
    parser.add_argument(
        "--links", metavar="FILE", help="JSON of bluefog_pg.probe_links().to_dict()"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print as JSON")
    form.add_argument("--dot", action="store_true", help="print for Graphviz")
    parser.add_argument("--plot", metavar="FILE", help="draw to a .png, .pdf or .svg file")


def _list(args: argparse.Namespace) -> int:
    from bluefog_pg.cli import topo_text

    if args.markdown:
        if not args.n:
            raise ValueError("--markdown needs numbers of ranks: -n 6 8")
        print(topo_text.markdown(args.n))
    elif args.json:
        print(json.dumps(topo_text.as_dict(args.n), indent=1))
    else:
        topo_text.print_list(args.n)
    return 0


def _show(args: argparse.Namespace) -> int:
    from bluefog_pg.cli import topo_text
    from bluefog_pg.topology import analyze

    topology = _load(args)
    analysis = analyze(topology, **_link_options(args))
    title = f"{args.topology}, n = {analysis.size}"
    _output(args, topology, title, {"name": args.topology, "analysis": analysis.to_dict()})
    if not (args.json or args.dot):
        topo_text.print_analysis(title, analysis)
    return 0


def _check(args: argparse.Namespace) -> int:
    from bluefog_pg.cli import topo_source, topo_text
    from bluefog_pg.topology import algorithms, analyze, problems

    if args.algorithm not in (None, *algorithms()):
        raise ValueError(f"unknown algorithm {args.algorithm!r}; known: {', '.join(algorithms())}")
    found, analysis = [], None
    try:
        topology = _load(args)
        analysis = analyze(topology)
        refused = analysis.refused
        if args.algorithm:
            found = [refused[args.algorithm]] if args.algorithm in refused else []
        else:
            found = problems(topology)
    except topo_source.FileError as error:
        found = [str(error)]
    if args.json:
        result = {"problems": found, "analysis": analysis and analysis.to_dict()}
        print(json.dumps(result, indent=1))
    elif found:
        print("\n".join(f"problem: {sentence}" for sentence in found))
    else:
        topo_text.print_analysis(f"{args.topology}: no problem found", analysis)
    return 1 if found else 0


def _auto(args: argparse.Namespace) -> int:
    from bluefog_pg.cli import topo_text
    from bluefog_pg.topology import choose

    choice = choose(
        args.n,
        max_degree=args.max_degree,
        symmetric=args.symmetric,
        extra_copy=args.extra_copy,
        algorithm=args.algorithm,
        **_link_options(args),
    )
    title = f"{choice.candidates[0]}, n = {args.n}"
    _output(args, choice.topology, title, choice.to_dict())
    if not (args.json or args.dot):
        topo_text.print_choice(choice)
    return 0


def _load(args: argparse.Namespace) -> "Topology":
    from bluefog_pg.cli import topo_source

    return topo_source.load(args.topology, args.n, topo_source.parse_arguments(args.set))


def _link_options(args: argparse.Namespace) -> dict[str, Any]:
    from bluefog_pg.topology import Links

    options = {"ranks_per_host": args.ranks_per_host}
    if args.bytes is not None:
        options["message_bytes"] = args.bytes
    if args.links:
        options["links"] = Links.from_dict(json.loads(Path(args.links).read_text()))
    return options


def _output(
    args: argparse.Namespace, topology: "Topology", title: str, result: dict[str, Any]
) -> None:
    """--plot, --dot and --json; text is up to the caller."""
    from bluefog_pg.topology import edge_list
    from bluefog_pg.topology.analysis import pictures

    if args.plot:
        pictures.plot(topology, args.plot, title)
    if args.dot:
        print(pictures.dot(topology))
    if args.json:
        print(json.dumps(result | {"edges": edge_list(topology)}, indent=1))
