"""Ranks as ipyparallel engines, for notebooks with ``%%px`` cells.

    from bluefog_pg.notebook import cluster
    ranks = cluster(4)

    %%px
    import torch
    import bluefog_pg.torch as bf          # bf.init() has been called
    print(bf.neighbor_allreduce(torch.tensor([float(bf.rank())])))

Needs ``pip install 'bluefog_pg[notebook]'``.
"""

import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

from torch.distributed import TCPStore

if TYPE_CHECKING:
    import matplotlib.figure

EXTRA = "bluefog_pg[notebook]"


class Cluster:
    """Engines with a process group set up; engine i is rank i. Made by `cluster`."""

    def __init__(self, engines: Any, client: Any, store: TCPStore) -> None:
        self.client = client
        """The ipyparallel.Client."""
        self.view = client[:]
        """All ranks, as an ipyparallel.DirectView: what ``%%px`` uses."""
        self._engines, self._store = engines, store

    def interrupt(self) -> None:
        """Interrupts Python code that runs in the ranks, as Ctrl-C does.

        A rank that waits in an operation for one that does not call it cannot be interrupted:
        `stop`, and start a new cluster.
        """
        self._engines.signal_engines_sync(2)

    def stop(self) -> None:
        """Ends the processes."""
        self.client.close()
        self._engines.stop_cluster_sync()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def cluster(n: int, local_size: int | None = None) -> Cluster:
    """Starts n ranks on this host, calls ``bf.init()`` in each, and activates ``%%px`` for them.

    Args:
        n: number of ranks.
        local_size: as in `bluefog_pg.torch.init`.

    Raises:
        ImportError: ipyparallel is missing.
        ValueError: n is below 1.
    """
    try:
        import ipyparallel
        from traitlets.config import Config  # comes with it
    except ImportError:
        raise ImportError(f"bluefog_pg.notebook needs ipyparallel: pip install '{EXTRA}'") from None
    if n < 1:
        raise ValueError(f"a cluster has at least 1 rank, got {n}")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    quick = {"LocalProcessLauncher": {"stop_seconds_until_kill": 1}}  # SIGTERM ends none
    engines = ipyparallel.Cluster(n=n, config=Config(quick))
    ranks = Cluster(engines, engines.start_and_connect_sync(), store)
    try:
        calls = [
            ranks.client[rank].apply_async(_start, rank, n, store.port, local_size)
            for rank in range(n)
        ]
        for call in calls:
            call.get()
    except BaseException:
        ranks.stop()
        raise
    ranks.view.block = True  # a cell ends when all ranks have run it, and shows what they print
    ranks.view.activate()
    return ranks


def show(figure: "matplotlib.figure.Figure", name: str) -> None:
    """Shows a matplotlib figure under a notebook's cell; in a plain script, saves it and says so.

    Also for a ``%%px`` cell, where it is shown for each rank that calls this.

    Args:
        figure: a matplotlib.figure.Figure, made with or without pyplot.
        name: of the file that a plain script writes, such as "decay.png".
    """
    ipython = sys.modules.get("IPython")
    if getattr(ipython and ipython.get_ipython(), "kernel", None) is None:
        figure.savefig(name, dpi=150)
        print(f"Plot: {name}")
        return
    png = BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the same in each version
    ipython.display.display(ipython.display.Image(png.getvalue()))


def _start(rank: int, n: int, port: int, local_size: int | None) -> None:
    """In an engine: does what torchrun would do, and `init`."""
    import os

    import torch

    if n > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(n),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the notebook's process has the store
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    import bluefog_pg.torch

    bluefog_pg.torch.init(local_size=local_size)
