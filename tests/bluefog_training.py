"""What BlueFog's optimizers should do, by all ranks' models side by side in one process."""

import torch
from torch import nn


class Net(nn.Module):
    """Parameters of its own beside those of layers, as vision transformers have them."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4))
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, x):
        return self.layers(x + self.token)


def make_net(rank, cls=Net):
    """Starts elsewhere on each rank, in float64."""
    torch.manual_seed(100 + rank)
    return (nn.Linear(4, 1) if cls is nn.Linear else cls()).double()


def loss_of(model, rank, number):
    """The loss of a rank's batch of this number."""
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1000 * number + rank)).double()
    return (model(x) - x.sum(1, keepdim=True) - rank).square().mean()


class SideBySide:
    """n models and plain optimizers; a step mixes what BlueFog's wrapper of this kind would.

    kind: "awc", "atc" or "allreduce"; every: num_steps_per_communication.
    """

    def __init__(self, kind, n, make_optimizer, every=1, cls=Net):
        self.models = [make_net(rank, cls) for rank in range(n)]
        self.optimizers = [make_optimizer(model.parameters()) for model in self.models]
        self._kind, self._every, self._passes, self._sent = kind, every, 0, None

    def passes(self, number):
        """Forward and backward; gradients add up."""
        self._passes += 1
        if self._kind == "awc" and self._passes == self._every:
            self._sent = self._rows([[*model.parameters()] for model in self.models])
        for rank, model in enumerate(self.models):
            loss_of(model, rank, number).backward()
        if self._kind == "allreduce" and self._passes == self._every:
            self._mean_of_gradients()

    @torch.no_grad()
    def step(self, w):
        """optimizer.step() and zero_grad(); w: the matrix in use, row = receiver."""
        is_due = self._passes >= self._every
        if self._kind == "awc" and is_due:
            self._put(w @ self._sent)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if self._kind == "atc" and is_due:
            self._put(w @ self._rows([[*model.parameters()] for model in self.models]))
        self._passes = 0 if is_due else self._passes

    @staticmethod
    def _rows(tensors):
        return torch.stack([torch.cat([t.detach().reshape(-1) for t in row]) for row in tensors])

    def _put(self, rows):
        for model, row in zip(self.models, rows, strict=True):
            nn.utils.vector_to_parameters(row, model.parameters())

    @torch.no_grad()
    def _mean_of_gradients(self):
        for same in zip(*(model.parameters() for model in self.models), strict=True):
            if same[0].grad is not None:
                mean = sum(p.grad for p in same) / len(same)
                for p in same:
                    p.grad = mean.clone()


def assert_equal_parameters(model, expected):
    wanted = dict(expected.named_parameters())
    for name, parameter in model.named_parameters():
        error = (parameter - wanted[name]).abs().max().item()
        assert error <= 1e-10, f"{name} is off by {error}"
