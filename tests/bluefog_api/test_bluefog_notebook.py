"""Ranks in notebooks."""

import base64
import sys

import pytest

from bluefog_pg import notebook


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyparallel", None)
    with pytest.raises(ImportError, match=r"pip install 'bluefog_pg\[notebook\]'"):
        notebook.cluster(2)


def test_cells_run_on_all_ranks(capsys):
    pytest.importorskip("ipyparallel", reason="ipyparallel, of bluefog_pg[notebook], is missing")
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    with pytest.raises(ValueError, match="at least 1"):
        notebook.cluster(0)
    with notebook.cluster(4, local_size=2) as ranks:
        assert ranks.client.ids == [0, 1, 2, 3]
        shell.run_cell_magic(
            "px",
            "",
            "import torch\n"
            "import bluefog_pg.torch as bf\n"
            "x = bf.neighbor_allreduce(torch.tensor([3.0 * bf.rank()])).item()\n"
            "place = bf.machine_rank(), bf.local_rank()\n"
            "print('rank', bf.rank(), 'has', torch.get_num_threads(), 'thread')\n",
        )
        shown = capsys.readouterr().out
        assert all(f"rank {rank} has 1 thread" in shown for rank in range(4))
        assert ranks.view["x"] == [5.0, 4.0, 3.0, 6.0]  # of each, one step and two steps before it
        assert ranks.view["place"] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        check_that_a_figure_is_shown(ranks)


FIGURE = """
from matplotlib.figure import Figure
from bluefog_pg.notebook import show
figure = Figure(figsize=(6, 3.5))
figure.subplots().plot([1, 2, 4])
show(figure, "growth.png")
"""


def check_that_a_figure_is_shown(ranks):
    pytest.importorskip("matplotlib", reason="matplotlib, of bluefog_pg[plot], is missing")
    result = ranks.client[1].execute(FIGURE, silent=False, block=True)
    (shown,) = result.outputs
    assert is_picture(base64.b64decode(shown["data"]["image/png"]))
    assert result.stdout == ""


def test_a_plain_script_saves_figures(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib, of bluefog_pg[plot], is missing")
    monkeypatch.chdir(tmp_path)
    exec(FIGURE, {})
    assert capsys.readouterr().out == "Plot: growth.png\n"
    assert is_picture(tmp_path.joinpath("growth.png").read_bytes())


def is_picture(data):
    return data.startswith(b"\x89PNG") and len(data) > 5000
