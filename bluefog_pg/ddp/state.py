"""What training needs beside parameters and buffers to go on where it was."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.network import Network

Variables = dict[str, dict[str, torch.Tensor]]
"""Of an algorithm: parameter's name -> variable's name -> values, of the parameter's shape."""


class TrainingState:
    """An algorithm's variables by parameter, its own state, and the step.

    Variables live in blocks. They outlast these: `keep` them before blocks go, and `restore` them
    to those that come, whichever parameters these hold. What a frozen parameter had stays here
    until it is trained again.
    """

    def __init__(self, algorithm: Algorithm, network: Network) -> None:
        self._algorithm, self._network = algorithm, network
        self._names: Mapping[torch.Tensor, str] = {}
        self._kept: Variables = {}
        self._fresh = copy.deepcopy(self.save(()))

    def keep(self, blocks: Iterable[Block]) -> None:
        """Keeps what these blocks hold."""
        self._kept.update(self._variables_of(blocks))

    def restore(self, blocks: Iterable[Block], names: Mapping[torch.Tensor, str]) -> None:
        """Fills these blocks with what was kept; variables of new parameters stay as they are.

        Args:
            names: of the parameters in the blocks.

        Raises:
            ValueError: what was kept has another shape.
        """
        self._names = names
        for name, views in self._variables_of(blocks).items():
            _fill(name, views, self._kept.pop(name, {}))
        self._kept = {
            name: {variable: values.clone() for variable, values in parts.items()}
            for name, parts in self._kept.items()
        }

    def save(self, blocks: Iterable[Block]) -> dict[str, Any]:
        """Returns all of it; tensors share memory with the blocks, as in any state dict."""
        return {
            "algorithm": self._algorithm.name,
            "rank": self._network.rank,
            "size": self._network.size,
            "step": self._network.step,
            "own": self._algorithm.state_dict(),
            "variables": {**self._kept, **self._variables_of(blocks)},
        }

    def load(self, saved: dict[str, Any] | None) -> None:
        """Takes back what `save` returned; variables wait for `restore`. None: begins anew.

        Raises:
            ValueError: it is of another algorithm, or of another rank and has variables.
        """
        saved = self._fresh if saved is None else saved
        self._check(saved)
        self._network.step = saved["step"]
        self._algorithm.load_state_dict(saved["own"])
        self._kept = dict(saved["variables"])

    def _check(self, saved: dict[str, Any]) -> None:
        if saved["algorithm"] != self._algorithm.name:
            raise ValueError(
                f"rank {self._network.rank}: the state is of algorithm={saved['algorithm']!r}, the "
                f"model has {self._algorithm.name!r}; {_HOW_TO_BEGIN_ANEW}"
            )
        theirs, ours = (saved["rank"], saved["size"]), (self._network.rank, self._network.size)
        if saved["variables"] and theirs != ours:
            raise ValueError(
                f"the state is of rank {theirs[0]} of {theirs[1]}, this is rank {ours[0]} of "
                f"{ours[1]}, and variables of {self._algorithm.name} differ between ranks: each "
                f"rank saves and loads its own; {_HOW_TO_BEGIN_ANEW}"
            )

    def _variables_of(self, blocks: Iterable[Block]) -> Variables:
        return {
            self._names[tensor]: {name: block.views(name)[at] for name in block.variables()}
            for block in blocks
            if block.variables()
            for at, tensor in enumerate(block.tensors)
        }


_HOW_TO_BEGIN_ANEW = 'to begin anew with its parameters, leave its "_extra_state" out'


def _fill(name: str, views: Mapping[str, torch.Tensor], values: Mapping[str, torch.Tensor]) -> None:
    for variable in views.keys() & values.keys():
        view, value = views[variable], values[variable]
        if view.shape != value.shape:
            raise ValueError(
                f"variable {variable} of parameter {name} has shape {tuple(value.shape)}, the "
                f"parameter {tuple(view.shape)}"
            )
        view.copy_(value)
