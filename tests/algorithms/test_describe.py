"""What is said of algorithms: in the table, and in the docs."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms
from bluefog_pg.algorithms.describe import describe
from bluefog_pg.cli import main
from bluefog_pg.topology import recv_weights

DOCS = Path(__file__).parents[2] / "docs" / "algorithms.md"
OPTIONS = {"hierarchical_sgd": {"periods": {1: 4}}, "post_local_sgd": {"warmup": 1, "every": 1}}
ASYNCHRONOUS = [name for name in algorithms.names() if algorithms.get(name).asynchronous]
LOCAL = ("diloco", "gasloc", "local_sgd", "noloco", "slowmo")  # two steps are a round


def measured(rank, nproc):
    """Memory after three steps, in sizes of the model."""
    dist.init_process_group("bluefog")
    found = {}
    for name in algorithms.names():
        options = OPTIONS.get(name, {"every": 2} if name in LOCAL else {})
        model = bf.DecentralizedDataParallel(
            nn.Linear(512, 511), algorithm=algorithms.get(name)(**options)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 512)).square().mean().backward()
            optimizer.step()
        model.settle()
        blocks = model._cycle.blocks
        total = sum(block.nbytes() for block in blocks)
        degree = len(recv_weights(model.topology, rank)[1]) if name in ASYNCHRONOUS else 0
        found[name] = total / sum(block["x"].nbytes for block in blocks) - 1, degree
    return found


def test_memory_is_what_is_said():
    for found in run_ranks(measured, 4, timeout=120):
        for name, (memory, degree) in found.items():
            said = algorithms.get(name).memory
            if name in ASYNCHRONOUS:  # "4 d + 3", d in-neighbours
                per_neighbor, _, rest = said.partition(" d")
                said = int(per_neighbor) * degree + int(rest.strip(" +") or 0)
            if name == "relay_sgd":  # see test_relay.py
                assert said == "2 per neighbour"
            else:
                assert memory == pytest.approx(said, abs=0.01), name


def test_every_algorithm_has_a_row():
    for name in algorithms.names():
        row = describe(name)
        assert "=" in row.equation and len(row.title) < 80 and row.needs
        assert row.source or name == "gradient_allreduce"


def test_the_command(capsys):
    assert main(["algorithms", "atc", "d2", "--json"]) == 0
    atc, d2 = json.loads(capsys.readouterr().out)
    assert atc["equation"] == "x' = W (x - lr g(x))" and atc["sends"] == "1"
    assert d2["needs"].startswith("a static graph with symmetric")
    assert main(["algorithms"]) == 0
    assert "push_diging" in capsys.readouterr().out
    assert main(["algorithms", "adam"]) == 2
    assert (
        "unknown algorithm 'adam'; known algorithms: a2cid2, ad_psgd, " in capsys.readouterr().err
    )


def test_the_table_in_the_docs_is_the_command_s(capsys):
    assert main(["algorithms", "--markdown"]) == 0
    (table,) = re.findall(r"<!-- table -->\n(.*?)\n<!-- end -->", DOCS.read_text(), flags=re.S)
    assert table.strip() == capsys.readouterr().out.strip()
