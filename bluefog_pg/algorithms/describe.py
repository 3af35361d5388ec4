"""What is known of the registered algorithms, for tables."""

import inspect
import re
from dataclasses import dataclass

from bluefog_pg.algorithms import registry
from bluefog_pg.topology import need_of


@dataclass(frozen=True)
class Description:
    """One algorithm; memory and messages are in sizes of the model."""

    name: str
    title: str
    equation: str
    source: str
    """arXiv ids, or empty."""
    needs: str
    """What it needs of the mixing matrix."""
    memory: str
    """Memory beside parameters, gradients and the optimizer's state."""
    sends: str
    """What a rank sends to each out-neighbour, or to all, in a step that averages."""
    default_topology: str


def describe(name: str) -> Description:
    """Returns what the class registered under `name` says of itself.

    Raises:
        ValueError: no algorithm has this name, or its docstring has no second paragraph with an
            equation.
    """
    kind = registry.get(name)
    title, equation = _paragraphs(kind.__doc__ or "", name)[:2]
    return Description(
        name=name,
        title=re.sub(r" \(.*\)\.?$|\.$", "", title.split(": ")[0]),
        equation=equation,
        source=", ".join(re.findall(r"arXiv:(\d{4}\.\d{4,5})", title)),
        needs=need_of(kind.safety or name),
        memory=str(kind.memory),
        sends="allreduce" if kind.allreduces else f"{kind.messages:g}",
        default_topology=kind.default_topology,
    )


def _paragraphs(doc: str, name: str) -> list[str]:
    paragraphs = [" ".join(p.split()) for p in inspect.cleandoc(doc).split("\n\n")]
    if len(paragraphs) < 2 or "=" not in paragraphs[1]:
        raise ValueError(f"the docstring of algorithm {name!r} has no equation below its title")
    return paragraphs
