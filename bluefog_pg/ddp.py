"""In the place of torch.nn.parallel.DistributedDataParallel: parameters averaged by neighbours."""

import itertools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bluefog_pg import module_sync
from bluefog_pg.buckets import (
    AVERAGED_DTYPES,
    Bucket,
    BufferBucket,
    copy_from_flat,
    flat_by_dtype,
    split_into_buckets,
)
from bluefog_pg.group import GroupState, Neighborhood, TopologyLike, backend_of

# Keywords of DDP that have no meaning here; given with another value than the default they raise.
_REFUSED = {
    "check_reduction": (False, "it does nothing in DDP either"),
    "delay_all_reduce_named_params": (None, "gradients are not reduced"),
    "param_to_hook_all_reduce": (None, "gradients are not reduced"),
    "mixed_precision": (None, "use torch.autocast"),
    "device_mesh": (None, "pass process_group=mesh.get_group(...) of a 1-D mesh"),
    "skip_all_reduce_unused_params": (False, "gradients are not reduced"),
}


class DecentralizedDataParallel(nn.Module):
    """Data parallelism where each rank averages its parameters with a few neighbours.

    Where DDP makes all ranks wait for the mean of the gradients, a step here is

        x_i <- sum_j w_ij x_j - lr * d(g_i(x_i))        (D-PSGD, arXiv:1705.09056; "AWC")

    with d the update of the user's own optimizer, unwrapped and unaware. The exchange of x starts
    with the forward pass, runs during forward and backward, and its result is put in place at the
    end of backward(), before optimizer.step(). Parameters that a step does not use are averaged
    like all others.

    Every forward pass in training mode with gradients enabled takes part in one exchange, so all
    ranks make equally many of them; a second forward pass before the backward one joins the first.

    Args:
        module: the model, on the CPU, with float16, bfloat16, float32 or float64 parameters.
        topology: an nx.DiGraph, a `Schedule`, a name ("ring") or a constructor (`bluefog_pg.ring`).
            Default: the group's topology if `set_topology` was called, else one-peer exponential.
        process_group: of backend "bluefog"; default: the world.
        broadcast_buffers: average floating-point buffers (BatchNorm statistics) with the neighbours
            as well. DDP's name for keeping them close; nothing is broadcast after the start.
        init_sync: broadcast parameters and buffers from rank 0 at the start, as DDP does.
        bucket_cap_mb: most MiB that go as one exchange; default 25.
        device_ids, output_device: None, or the CPU: accepted for DDP's sake.
        dim, find_unused_parameters, gradient_as_bucket_view, static_graph: accepted and without
            effect: there are no gradient buckets to arrange.

    Raises:
        TypeError: a keyword that DDP does not have either, or a parameter of another dtype.
        ValueError: a keyword of DDP that cannot be honoured, named; no trainable parameters; a
            module that is not on the CPU; a topology that does not fit.
        MismatchError: ranks have different models or topologies.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        *,
        topology: TopologyLike | None = None,
        **other_keywords_of_ddp: Any,
    ) -> None:
        super().__init__()
        _refuse(other_keywords_of_ddp)
        _check_devices(module, device_ids, output_device)
        self.module = module
        self.process_group = process_group
        self.broadcast_buffers = broadcast_buffers
        self._cap_bytes = int((25 if bucket_cap_mb is None else bucket_cap_mb) * 2**20)
        self._backend = backend_of(process_group)
        self._neighborhood = self._make_neighborhood(topology)
        self._step = 0
        self._sync = True
        self._hooks: list[Any] = []
        module_sync.check_equal(module, self._backend)
        if init_sync:
            module_sync.broadcast(module, self._backend)
        self._attach()

    @property
    def topology(self) -> Any:
        """The nx.DiGraph or `Schedule` that parameters are averaged over."""
        return self._neighborhood.topology

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._sync and self.training and torch.is_grad_enabled():
            self._start_exchange()
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forward passes inside start no exchange: local steps, or gradient accumulation."""
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    @contextmanager
    def averaged(self) -> Iterator["DecentralizedDataParallel"]:
        """Puts the exact average over all ranks in place, for evaluation and saving. Collective.

        Parameters and floating-point buffers are averaged (half precision in float32), and
        restored on leaving. Training inside is pointless: its results are undone.
        """
        self._finish_exchange()
        tensors = self._averaged_tensors()
        own = [tensor.detach().clone() for tensor in tensors]
        try:
            with self.no_sync():
                with torch.no_grad():
                    for group, flat in self._means(tensors):
                        copy_from_flat(group, flat)
                yield self
        finally:
            with torch.no_grad():
                torch._foreach_copy_(tensors, own)

    def consensus_distance(self) -> float:
        """Returns sqrt(1/N sum_i ||x_i - mean(x)||^2) over all parameters x. Collective."""
        self._finish_exchange()
        parameters = list(self.module.parameters())
        with torch.no_grad():
            squares = torch.zeros(1, dtype=torch.float64)
            for group, mean in self._means(parameters):
                ((_, own),) = flat_by_dtype(group)
                squares += (own.double() - mean.double()).square().sum()
        self._backend.allreduce([squares]).wait()
        return float((squares / self._backend.size()).sqrt())

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads a state dict of this class, of DDP (both "module.name"), or of the module."""
        prefixed = not state_dict or any(name.startswith("module.") for name in state_dict)
        target = super() if prefixed else self.module
        result = target.load_state_dict(state_dict, strict=strict, assign=assign)
        self._attach()  # assign=True replaces parameters
        return result

    def _make_neighborhood(self, topology: TopologyLike | None) -> Neighborhood:
        if topology is None:
            of_group = GroupState.of(self._backend).neighborhood
            if of_group is not None:
                return of_group
            topology = "one_peer_exponential"
        return Neighborhood(topology, self._backend)

    # ---- The exchange: at most one is under way.

    def _attach(self) -> None:
        """Builds buckets of the parameters that are trained now, and hooks onto their gradients."""
        for hook in self._hooks:
            hook.remove()
        ignored = module_sync.ignored_names(self.module)
        named = [(n, p) for n, p in self.module.named_parameters() if n not in ignored]
        self._trained = [parameter for _, parameter in named if parameter.requires_grad]
        if not self._trained:
            raise ValueError("DecentralizedDataParallel got a module without trainable parameters")
        for name, parameter in named:
            if parameter.requires_grad and parameter.dtype not in AVERAGED_DTYPES:
                raise TypeError(
                    f"parameter {name} has dtype {parameter.dtype}, which cannot be averaged"
                )
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._on_gradient) for p in self._trained
        ]
        self._frozen = [parameter for _, parameter in named if not parameter.requires_grad]
        self._buckets = [
            Bucket(ts, self._backend) for ts in split_into_buckets(self._trained, self._cap_bytes)
        ]
        if self.broadcast_buffers:
            buffers = module_sync.floating_buffers(self.module)
            self._buckets += [
                BufferBucket(ts, self._backend)
                for ts in split_into_buckets(buffers, self._cap_bytes)
            ]
        self._pending = False
        self._callback_queued = False

    def _start_exchange(self) -> None:
        self._callback_queued = False
        if self._pending and self._versions == self._versions_now():
            return  # a second forward pass before the backward one
        if self._pending:
            self._drop_exchange()
        if any(parameter.requires_grad for parameter in self._frozen) or not all(
            [
                *(parameter.requires_grad for parameter in self._trained),
                *(bucket.is_current() for bucket in self._buckets),
            ]
        ):
            self._attach()
        plan, at = self._neighborhood.plan(self._step)
        self._step += 1
        for bucket in self._buckets:
            bucket.start(self._backend, plan, at)
        self._pending = True
        self._versions = self._versions_now()

    def _on_gradient(self, _: torch.Tensor) -> None:
        """Called for each parameter in backward(); asks to be called again at its very end."""
        if self._pending and not self._callback_queued:
            self._callback_queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._finish_exchange)

    @torch.no_grad()
    def _finish_exchange(self) -> None:
        """x <- W x. Nothing is replaced unless all buckets have arrived."""
        self._callback_queued = False
        if not self._pending:
            return
        self._pending = False
        for bucket in self._buckets:
            bucket.wait()
        for bucket in self._buckets:
            bucket.finish()

    def _drop_exchange(self) -> None:
        warnings.warn(
            "parameters changed between forward() and the end of backward(): the averages of one "
            "exchange are dropped. Gradients must come from backward(), not torch.autograd.grad()",
            stacklevel=4,
        )
        self._pending = False
        for bucket in self._buckets:
            bucket.wait()

    def _versions_now(self) -> list[int]:
        return [parameter._version for parameter in self._trained]

    # ---- Exact averages

    def _averaged_tensors(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *module_sync.floating_buffers(self.module)]

    def _means(
        self, tensors: list[torch.Tensor]
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Gives the mean over all ranks of tensors, flat and by dtype."""
        for group, flat in flat_by_dtype(tensors):
            self._backend.allreduce([flat]).wait()
            yield group, flat.div_(self._backend.size())


def _refuse(keywords: dict[str, Any]) -> None:
    for name, value in keywords.items():
        if name not in _REFUSED:
            raise TypeError(f"DecentralizedDataParallel has no keyword {name!r}, nor has DDP")
        default, why = _REFUSED[name]
        if value is not default:
            raise ValueError(
                f"DecentralizedDataParallel cannot honour DDP's {name}={value!r}: {why}"
            )


def _check_devices(module: nn.Module, device_ids: list[Any] | None, output_device: Any) -> None:
    for asked in [*(device_ids or []), *([] if output_device is None else [output_device])]:
        if torch.device(asked).type != "cpu":
            raise ValueError(
                f"device_ids={device_ids}, output_device={output_device}: neighbor operations have "
                "no CUDA transport yet; leave both out and keep the module on the CPU"
            )
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if tensor.device.type != "cpu":
            raise ValueError(
                f"{name} is on {tensor.device}: neighbor operations have no CUDA transport yet"
            )
