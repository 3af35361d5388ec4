"""What algorithms that keep a momentum of their own have in common."""

import torch

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.options import check_momentum


class Momentum(Algorithm):
    """The algorithm has the momentum, so the user's optimizer has none: plain SGD in theory.

    Args:
        momentum: beta, from 0 to below 1.

    Raises:
        TypeError: momentum is no number.
        ValueError: it is out of range.
    """

    needs_optimizer = True

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = check_momentum("momentum", momentum)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises ValueError for one that has a momentum too: the product would be neither."""
        kind = type(optimizer).__name__
        for group in optimizer.param_groups:
            own = {"momentum": group.get("momentum"), "betas[0]": group.get("betas", (0,))[0]}
            for name, value in own.items():
                if value:
                    raise ValueError(
                        f"{self.name} keeps the momentum itself (momentum={self.momentum}), and "
                        f"{kind} has {name}={float(value)} as well: set that to 0, or take an "
                        "algorithm for any optimizer, such as atc"
                    )
            if self.needs_learning_rates and "lr" not in group:
                raise ValueError(
                    f"{self.name} reads the learning rate, and {kind} has no 'lr' in param_groups"
                )
