"""Parameters that go as one exchange, and the variables that an algorithm keeps beside them."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from bluefog_pg.blocks.flat import Flat
from bluefog_pg.blocks.network import ALL, Network

AVERAGED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Block:
    """Some parameters x of one dtype, side by side in one flat tensor, as an algorithm sees them.

    ``block["x"]`` are the parameters and ``block["y"]`` an algorithm's variable y, flat tensors of
    equal layout. `start` sends some of them and `finish` puts their averages in their place.

    What is exchanged lives in memory of the backend, which neighbours read in place, and has a
    second piece of it in which the average arrives; `finish` makes the two change places, so that
    nothing is copied. So a variable must not change between `start` and `finish`, and flat tensors
    must be asked for anew after `finish`. Assigning to ``parameter.data`` takes a parameter out of
    its block: see `is_current`.
    """

    converted = False
    """For an algorithm's own use: whether x is something else than it is between steps."""
    window: Any = None
    """For an algorithm's own use: a `bluefog_pg.Window` on x, which `finish` must not move then."""

    def __init__(self, tensors: Sequence[torch.Tensor], network: Network, index: int = 0) -> None:
        """index: its place among the blocks of a model, in the order of a forward pass."""
        self.tensors = list(tensors)
        self.index = index
        self.network = network
        self._values = {"x": self._allocate()}
        self._arrivals: dict[str, Flat] = {}
        self._gradient: Flat | None = None
        self._reduced = self._users = torch.empty(0)
        self._sent: tuple[str, ...] = ()
        self._versions: list[int] = []
        self._outdated: bool | None = None
        self.learning_rates = [0.0] * len(self.tensors)
        """Of each parameter in this step's optimizer.step(); 0 where it has not been stepped.

        Known from `after_step` on, to algorithms of which `needs_learning_rates` is set.
        """
        self._works: list[Any] = []
        self._values["x"].fill(self.tensors)
        self._move_parameters()

    # ---- Variables

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._values[name].flat

    def add(self, *names: str, exchanged: bool = False) -> None:
        """Adds variables, zeros at first; `exchanged` ones can be sent."""
        for name in names:
            self._values[name] = self._allocate() if exchanged else Flat(self.tensors)

    def add_scalars(self, name: str, value: float) -> None:
        """Adds a variable of one float64 number per parameter, which can be sent."""
        ones = [tensor.new_ones(1, dtype=torch.float64) for tensor in self.tensors]
        self._values[name] = Flat(ones, self.network.allocate)
        self._arrivals[name] = Flat(ones, self.network.allocate)
        torch._foreach_add_(self.views(name), value)

    def scalars(self, name: str) -> list[float]:
        """Returns a variable of `add_scalars`, one number per parameter."""
        return torch.cat(self.views(name)).tolist()

    def swap(self, a: str, b: str) -> None:
        """Makes two variables change places, both of them exchanged ones; copies nothing."""
        self._values[a], self._values[b] = self._values[b], self._values[a]
        if "x" in (a, b):
            self._move_parameters()

    def views(self, name: str) -> list[torch.Tensor]:
        """Returns a variable as one tensor per parameter."""
        return self._values[name].views

    def cut(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """Returns any flat tensor of the block's layout as one tensor per parameter."""
        return self._values["x"].cut(flat)

    def variables(self) -> list[str]:
        """Returns the names of all variables but the parameters."""
        return [name for name in self._values if name != "x"]

    def memory(self) -> dict[str, int]:
        """Returns bytes by part: "x", other variables, "x arriving", "gradients" and so on."""
        parts = {name: flat.flat.nbytes for name, flat in self._values.items()}
        parts |= {f"{name} arriving": flat.flat.nbytes for name, flat in self._arrivals.items()}
        parts |= {"gradients": self._gradient.flat.nbytes} if self._gradient else {}
        return parts | ({"window": self.window.nbytes} if self.window else {})

    def nbytes(self) -> int:
        """Returns the bytes of all of its memory, parameters included."""
        return sum(self.memory().values())

    # ---- Gradients

    def gradient(self) -> torch.Tensor:
        """Returns the gradients, flat; 0 where a parameter has none. Changing it changes nothing.

        Raises:
            NotImplementedError: a gradient is sparse.
        """
        gradient = self._flat_gradient()
        _copy_gradients(self.tensors, gradient)
        return gradient.flat

    def set_gradient(self, value: torch.Tensor) -> None:
        """Makes `value`, flat, the gradient of all parameters, also of those that had none."""
        gradient = self._flat_gradient()
        if value is not gradient.flat:
            gradient.flat.copy_(value)
        _use_as_gradients(gradient, self.tensors)

    def read_gradient(self, name: str) -> None:
        """Makes a variable what `gradient` returns, which needs no memory then.

        Raises:
            NotImplementedError: a gradient is sparse.
        """
        _copy_gradients(self.tensors, self._values[name])

    def use_as_gradient(self, name: str) -> None:
        """Makes a variable the gradient of all parameters, with its memory: it is theirs now."""
        _use_as_gradients(self._values[name], self.tensors)

    def start_gradient(self) -> None:
        """Posts the mean of `gradient` over all ranks, by allreduce; returns at once."""
        assert not self._sent, f"{self._sent} are still under way"
        self.gradient()
        self._users.copy_(torch.tensor([tensor.grad is not None for tensor in self.tensors]))
        self._works.append(self.network.start([self._reduced], [self._reduced], ALL))

    def finish_gradient(self) -> None:
        """Waits for the mean, and makes it the gradient of what has one on some rank."""
        self.wait()
        for tensor, view, users in zip(
            self.tensors, self._flat_gradient().views, self._users.tolist(), strict=True
        ):
            if users > 0:
                tensor.grad = view

    def _flat_gradient(self) -> Flat:
        if self._gradient is None:
            size = self["x"].numel()
            self._reduced = self["x"].new_zeros(size + len(self.tensors))
            self._gradient = Flat(self.tensors, lambda *_, **__: self._reduced[:size])
            self._users = self._reduced[size:]  # how many ranks have a gradient, for each tensor
        return self._gradient

    # ---- Exchange: at most one of a variable is under way

    def start(self, *names: str, over: str = "W", steps_ago: int = 0) -> None:
        """Posts one exchange of these variables; returns at once.

        over: a graph of the network, or `ALL` for the exact average over all ranks.
        steps_ago: of a schedule it is the round of an earlier step.
        """
        assert not {*names} & {*self._sent}, f"{self._sent} are still under way"
        values = [self._values[name].flat for name in names]
        arrivals = [self._arrival(name).flat for name in names]
        self._works.append(self.network.start(values, arrivals, over, steps_ago))
        self._sent, self._outdated = (*self._sent, *names), None
        self.mark()

    @property
    def is_under_way(self) -> bool:
        """Whether an exchange has been started and not finished."""
        return bool(self._sent)

    def wait(self) -> None:
        """Waits for all averages that are under way. Raises what the first failed exchange raised.

        Blocks whose parameters are views of one tensor share a count of changes: wait for all of
        them before any is finished.
        """
        if self._works:
            while self._works:
                self.network.wait(self._works.pop(0))
            if self._outdated is None:
                self._outdated = self.changed()

    def check(self) -> None:
        """Looks for changes of the parameters now, for `finish`, which does it otherwise."""
        if self._works and self._outdated is None:
            self._outdated = self.changed()

    def finish(self) -> None:
        """Waits for the averages and puts them in place. Does nothing if none are under way.

        Parameters that the program has changed meanwhile are kept, with a warning. Raises what the
        exchange raised; all variables are as before then.
        """
        self.wait()
        names, self._sent = self._sent, ()
        for name in names:
            if name == "x" and self._outdated:
                _warn_of_changes()
                # They change places all the same: x lies in the same memory on all ranks.
                self._arrivals[name].flat.copy_(self._values[name].flat)
            self._values[name], self._arrivals[name] = self._arrivals[name], self._values[name]
            if name == "x":
                self._move_parameters()

    def abandon(self) -> None:
        """Waits for exchanges that are under way, and leaves all variables as they are."""
        while self._works:
            with contextlib.suppress(Exception):  # the first failure has been raised
                self.wait()
        self._sent = ()

    def shift(self, name: str) -> torch.Tensor:
        """Returns what `finish` has just added to a variable v: W v - v; 0 if it was dropped.

        Ask once, and use it before the next `start`: it lies in the memory of `arrived`.
        """
        return self._arrivals[name].flat.neg_().add_(self._values[name].flat)

    def mix(self, *names: str, over: str = "W", steps_ago: int = 0) -> None:
        """`start` and `finish`."""
        self.start(*names, over=over, steps_ago=steps_ago)
        self.finish()

    def arrived(self, name: str) -> torch.Tensor:
        """Returns the memory that the next average of a variable arrives in; free until `start`.

        After `finish` it holds what was sent.
        """
        return self._arrival(name).flat

    # ---- Parameters

    def is_current(self) -> bool:
        """Whether the parameters still live in the block."""
        return all(
            tensor.data_ptr() == view.data_ptr() and tensor.dtype == view.dtype
            for tensor, view in zip(self.tensors, self._values["x"].views, strict=True)
        )

    def touch(self) -> None:
        """Tells autograd that ``block["x"]`` was written to."""
        for tensor in self.tensors:
            torch.autograd.graph.increment_version(tensor)

    def mark(self) -> None:
        """Takes the parameters for unchanged as they are."""
        self._versions = self._versions_now()

    def changed(self) -> bool:
        """Whether parameters have changed since the last `mark` or `start`."""
        return self._versions != self._versions_now()

    def _move_parameters(self) -> None:
        for tensor, view in zip(self.tensors, self._values["x"].views, strict=True):
            tensor.data = view
        self.touch()

    def _arrival(self, name: str) -> Flat:
        """Memory is taken when it is first needed: not every algorithm sends x."""
        if name not in self._arrivals:
            self._arrivals[name] = self._allocate()
        return self._arrivals[name]

    def _allocate(self) -> Flat:
        return Flat(self.tensors, self.network.allocate)

    def _versions_now(self) -> list[int]:
        return [tensor._version for tensor in self.tensors]


def _copy_gradients(tensors: Sequence[torch.Tensor], into: Flat) -> None:
    for tensor, view in zip(tensors, into.views, strict=True):
        if tensor.grad is None:
            view.zero_()
        elif tensor.grad.is_sparse:
            raise NotImplementedError(
                f"a parameter of shape {tuple(tensor.shape)} has a sparse gradient, which this "
                "algorithm cannot average; use sparse=False in its layer"
            )
        elif tensor.grad.data_ptr() != view.data_ptr():
            view.copy_(tensor.grad)


def _use_as_gradients(values: Flat, tensors: Sequence[torch.Tensor]) -> None:
    for tensor, view in zip(tensors, values.views, strict=True):
        tensor.grad = view


def _warn_of_changes() -> None:
    warnings.warn(
        "parameters changed while their averages were under way, which are dropped: change them "
        "after backward() and before optimizer.step() only, and let gradients come from "
        "backward(), not torch.autograd.grad()",
        stacklevel=6,
    )
