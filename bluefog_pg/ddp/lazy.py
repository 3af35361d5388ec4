"""Averages put in place as late as possible: right before the first module that needs them.

Which module needs which block is learned in a training forward pass for which everything was in
place beforehand. A block is needed by the modules that own its parameters; where such a module is
not called itself (nn.MultiheadAttention uses its out_proj's parameters without calling it), or only
inside of compiled code, by the nearest module around it that is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.versions import share_versions
from bluefog_pg.ddp.cycle import Cycle
from bluefog_pg.ddp.guards import can_hide, hide, show

Users = dict[nn.Module, list[Block]]


class LazyCombine:
    """Forward passes of one module, with the averages of `cycle.blocks` arriving underway.

    Until a block's averages are in place its parameters are hidden, so that code which uses one
    too early raises. At the end of the forward pass all are in place. When submodules are replaced,
    compiled or go to another mode (train, eval), one forward pass learns anew.
    """

    def __init__(self, module: nn.Module, cycle: Cycle) -> None:
        self._module, self._cycle = module, cycle
        self._hooks: list[Any] = []
        self._structure: list[tuple[Any, ...]] | None = None
        self._hidden: dict[int, Block] = {}
        self._can = (
            cycle.algorithm.lazy
            and len(cycle.blocks) > 1
            and all(can_hide(tensor) for block in cycle.blocks for tensor in block.tensors)
            and not share_versions(cycle.blocks)
        )

    def is_ready(self) -> bool:
        """Whether a forward pass may start before the averages are in place."""
        if self._structure is not None and not _is_same(self._structure):
            self.forget()
        return self._structure is not None

    def forget(self) -> None:
        """Removes all hooks; a later forward pass learns anew."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._structure = [], None

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Around a forward pass in training mode."""
        if self._cycle.pending:
            with self._hiding():
                yield
        elif self._can and self._structure is None:
            with _calls_of(self._module) as called:
                yield
            self._learn(called)
        else:
            yield

    @contextmanager
    def _hiding(self) -> Iterator[None]:
        for block in self._of_module:
            self._cycle.combine_block(block)
        for block in self._cycle.pending:
            self._hidden[id(block)] = block
            for tensor in block.tensors:
                hide(tensor)
        try:
            yield
        finally:
            for block in [*self._hidden.values()]:
                self._show(block)
            self._cycle.combine()

    def _show(self, block: Block) -> None:
        del self._hidden[id(block)]
        for tensor in block.tensors:
            show(tensor)

    def _learn(self, called: set[nn.Module]) -> None:
        users = users_of(self._module, called, self._cycle.blocks)
        self._of_module = users.pop(self._module, [])  # has no hook: it may be compiled
        self._structure = _structure_of(self._module)
        self._hooks = [
            module.register_forward_pre_hook(self._before(blocks), prepend=True)
            for module, blocks in users.items()
        ]

    def _before(self, blocks: list[Block]) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if torch.compiler.is_compiling():
                return  # combined before the compiled code was entered
            if self._hidden:
                for block in blocks:
                    if id(block) in self._hidden:
                        self._show(block)
                        self._cycle.combine_block(block)

        return hook


def users_of(module: nn.Module, called: set[nn.Module], blocks: Sequence[Block]) -> Users:
    """Returns the blocks that each called module (or `module`) needs, in the order of blocks."""
    block_of = {id(tensor): block for block in blocks for tensor in block.tensors}
    by_path = dict(module.named_modules(remove_duplicate=False))
    users: Users = {}
    for path, owner in by_path.items():
        needed = {
            id(block): block for p in owner.parameters(False) if (block := block_of.get(id(p)))
        }
        while path and by_path[path] not in called:
            path = path.rpartition(".")[0]
        of_user = users.setdefault(by_path[path], [])
        of_user += [block for block in needed.values() if block not in of_user]
    return {user: sorted(needed, key=_index) for user, needed in users.items() if needed}


@contextmanager
def _calls_of(module: nn.Module) -> Iterator[set[nn.Module]]:
    """Gives the set of modules that are called meanwhile, outside of compiled code."""
    called: set[nn.Module] = set()

    def hook(of: nn.Module, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            called.add(of)

    inner = [m for m in module.modules() if not isinstance(m, torch.jit.ScriptModule)]
    hooks = [m.register_forward_pre_hook(hook, prepend=True) for m in inner]
    try:
        yield called
    finally:
        for handle in hooks:
            handle.remove()


def _structure_of(module: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (m, m.training, m._compiled_call_impl, (*m._modules.values(),)) for m in module.modules()
    ]


def _is_same(structure: list[tuple[Any, ...]]) -> bool:
    return all(
        m.training is training
        and m._compiled_call_impl is compiled
        and (*m._modules.values(),) == children
        for m, training, compiled, children in structure
    )


def _index(block: Block) -> int:
    return block.index
