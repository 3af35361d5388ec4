"""Handwritten digits on a few processes: decentralized averaging beside stock DDP.

    pip install 'bluefog_pg[demo]'
    torchrun --nproc_per_node 4 examples/digits.py            # under a minute on a laptop
    torchrun --nproc_per_node 8 examples/digits.py --epochs 60 --out eight.png

Trains one small classifier twice over the same backend, with the same start, batches and optimizer.
DDP averages the gradients of all ranks in each step; DecentralizedDataParallel averages parameters
with one other rank, another one in each step. The training images are sorted by label, so that
with 4 ranks each sees two or three of the ten digits and learns the others from its peers. Ends
with a table and a plot; the exit code is 1 if decentralized training lost more than one point.
"""

import argparse
import statistics
import sys
import time
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import bluefog_pg

MOST_POINTS_LOST = 1.0  # percent of the test images


def main():
    args = parse_arguments()
    torch.set_num_threads(1)
    dist.init_process_group(args.backend)
    rank = dist.get_rank()
    train, test = load_data(args.seed)
    ddp, decentralized = runs = [Ddp(args), Decentralized(args)]
    with progress(rank, args.epochs) as advance:
        for epoch in range(args.epochs):
            for run in runs:  # in turn, so that noise of the machine meets both
                run.train_epoch(*train, epoch)
                run.evaluate(*test)
            advance(epoch, runs)
    for run in runs:
        run.evaluate_each_rank(*test)
    if rank == 0:
        Console().print(table(runs))
        save_plot(runs, args.out)
    dist.destroy_process_group()
    lost = ddp.accuracy[-1] - decentralized.accuracy[-1]
    if lost > MOST_POINTS_LOST:
        text = f"The averaged model is {lost:.1f} points less accurate than DDP's."
        sys.exit(text if rank == 0 else 1)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=8, help="per rank (default 8)")
    parser.add_argument("--lr", type=float, default=0.2, help="of SGD, at the start (default 0.2)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the start and the order")
    parser.add_argument("--out", default="digits.png", help="file for the plot")
    parser.add_argument("--backend", default="bluefog", help="of init_process_group")
    return parser.parse_args()


def load_data(seed):
    """This rank's training images and all test images, each as (images, labels)."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=seed)
    x, x_test, y, y_test = map(torch.tensor, split)
    size = len(y) // dist.get_world_size()  # the same on all ranks, and so is the number of steps
    mine = y.argsort(stable=True)[dist.get_rank() * size :][:size]
    return (x[mine].float() / 16, y[mine]), (x_test.float() / 16, y_test)


def make_model():
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )


class Run:
    """One training, and what was measured of it; a subclass says how ranks learn together."""

    def __init__(self, args):
        self.args = args
        torch.manual_seed(args.seed)
        self.model = self.distributed(make_model())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=args.lr)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, args.epochs, eta_min=args.lr / 10
        )
        self.step_ms = []
        self.accuracy = []  # percent, of the averaged model, after each epoch
        self.consensus_distance = []  # after each epoch
        self.rank_accuracy = []  # percent, of each rank's own model, at the end

    def train_epoch(self, x, y, epoch):
        order = torch.Generator().manual_seed(self.args.seed + 1000 * epoch + dist.get_rank())
        for batch in torch.randperm(len(y), generator=order).split(self.args.batch_size):
            started = time.perf_counter()
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x[batch]), y[batch]).backward()
            self.optimizer.step()
            self.step_ms.append(1000 * (time.perf_counter() - started))
        self.schedule.step()

    @torch.no_grad()
    def evaluate(self, x, y):
        with self.averaged():
            self.accuracy.append(percent_right(self.model, x, y))
        self.consensus_distance.append(self.distance())

    @torch.no_grad()
    def evaluate_each_rank(self, x, y):
        own = torch.tensor([percent_right(self.model, x, y)])
        self.rank_accuracy = [torch.empty(1) for _ in range(dist.get_world_size())]
        dist.all_gather(self.rank_accuracy, own)


class Ddp(Run):
    name = "DDP"
    bytes_from = "by formula"

    def distributed(self, model):
        return nn.parallel.DistributedDataParallel(model)

    def averaged(self):
        return nullcontext()  # all ranks have the same parameters

    def distance(self):
        return 0.0

    def bytes_per_step(self):
        """Of a ring allreduce of all gradients, by formula: gloo has no counter to read."""
        ranks = dist.get_world_size()
        return 2 * (ranks - 1) / ranks * sum(p.nbytes for p in self.model.parameters())


class Decentralized(Run):
    name = "decentralized"
    bytes_from = "counted"
    bytes_sent = 0

    def distributed(self, model):
        topology = bluefog_pg.one_peer_exponential(dist.get_world_size())
        return bluefog_pg.DecentralizedDataParallel(model, topology=topology)

    def train_epoch(self, x, y, epoch):
        before = bluefog_pg.ops.bytes_sent()
        super().train_epoch(x, y, epoch)
        self.bytes_sent += bluefog_pg.ops.bytes_sent() - before

    def averaged(self):
        return self.model.averaged()

    def distance(self):
        return self.model.consensus_distance()

    def bytes_per_step(self):
        return self.bytes_sent / len(self.step_ms)


def percent_right(model, x, y):
    return 100 * (model(x).argmax(1) == y).double().mean().item()


@contextmanager
def progress(rank, epochs):
    """Yields a function to call after each epoch: it moves a bar, or prints where none can be."""
    console = Console(stderr=True)
    text = TextColumn("{task.fields[text]}")
    columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(20), text)
    with Progress(*columns, console=console, disable=rank > 0 or not console.is_terminal) as bar:
        task = bar.add_task("", total=epochs, text="")

        def advance(epoch, runs):
            text = "   ".join(f"{run.name} {run.accuracy[-1]:.1f} %" for run in runs)
            text += f"   consensus distance {runs[-1].consensus_distance[-1]:.3f}"
            bar.update(task, completed=epoch + 1, text=text)
            if bar.disable and rank == 0 and (epoch + 1) % max(1, epochs // 5) == 0:
                print(f"epoch {epoch + 1}/{epochs}   {text}", file=sys.stderr)

        yield advance


def table(runs):
    """One row for each run. Narrow enough for 80 columns."""
    result = Table(title=f"Test accuracy and cost on {dist.get_world_size()} ranks")
    result.add_column("", no_wrap=True)
    columns = ("averaged", "each rank, %", "consensus distance", "per step", "sent per step")
    for column in columns:
        result.add_column(column, justify="right")
    first_ms = statistics.median(runs[0].step_ms)
    for run in runs:
        ms = statistics.median(run.step_ms)
        each_rank = [f"{accuracy.item():.1f}" for accuracy in run.rank_accuracy]
        result.add_row(
            run.name,
            f"{run.accuracy[-1]:.1f} %",
            " ".join(each_rank),
            f"{run.consensus_distance[-1]:.3f}",
            f"{ms:.2f} ms\n{ms / first_ms:.2f} x",
            f"{run.bytes_per_step() / 1000:.1f} kB\n{run.bytes_from}",
        )
    return result


def save_plot(runs, path):
    from matplotlib.figure import Figure  # here, because only one rank needs it

    figure = Figure(figsize=(7, 6), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True)
    epochs = range(1, len(runs[0].accuracy) + 1)
    for run in runs:
        top.plot(epochs, run.accuracy, label=run.name)
    top.set_title("the averaged model")
    top.set_ylabel("test accuracy, %")
    top.legend()
    bottom.semilogy(epochs, runs[1].consensus_distance, color="C1")
    bottom.set_title("distance of the ranks from it")
    bottom.set_ylabel("consensus distance")
    bottom.set_xlabel("epoch")
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    print(f"Plot: {path}")


if __name__ == "__main__":
    main()
