"""In the place of torch.nn.parallel.DistributedDataParallel: parameters averaged by neighbours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from bluefog_pg import topology as topologies
from bluefog_pg.algorithms import Algorithm, resolve
from bluefog_pg.blocks.block import AVERAGED_DTYPES, Block
from bluefog_pg.blocks.buffers import BufferBlock
from bluefog_pg.blocks.flat import split_into_buckets
from bluefog_pg.blocks.network import Network
from bluefog_pg.ddp import module_sync, statistics
from bluefog_pg.ddp.arguments import check_payload, device_of, first_given, moved, refuse
from bluefog_pg.ddp.backward import BackwardWatch
from bluefog_pg.ddp.backward_step import BackwardStep
from bluefog_pg.ddp.cycle import Cycle
from bluefog_pg.ddp.joining import Joining
from bluefog_pg.ddp.lazy import LazyCombine
from bluefog_pg.ddp.means import distance_from_mean, put_means_in_place
from bluefog_pg.ddp.state import TrainingState
from bluefog_pg.ddp.untraced import untraced
from bluefog_pg.group import GroupState, Topology, TopologyLike, backend_of


class DecentralizedDataParallel(nn.Module, Joining):
    """Data parallelism where each rank averages its parameters with a few neighbours.

    Where DDP makes all ranks wait for the mean of the gradients, a step here is by default

        x_i <- sum_j w_ij x_j - lr * d(g_i(x_i))        (D-PSGD, arXiv:1705.09056; "awc")

    with d the update of the user's own optimizer, unwrapped and unaware. The exchange of x starts
    with the forward pass, runs during forward and backward, and its result is put in place at the
    end of backward(), before optimizer.step(). Other algorithms exchange other things at other
    moments, see `bluefog_pg.algorithms`. Parameters that a step does not use are averaged like all
    others.

    Every forward pass in training mode with gradients enabled takes part in one exchange, so all
    ranks make equally many of them; a second forward pass before the backward one joins the first.

    Args:
        module: the model, on the CPU or on one GPU, with float16, bfloat16, float32 or float64
            parameters.
        algorithm: how ranks learn together: a name (`bluefog-pg algorithms` lists them), or a class
            or an object of `bluefog_pg.algorithms`; an object belongs to one model.
        topology: an nx.DiGraph, a `Schedule`, a name ("ring") or a constructor (`bluefog_pg.ring`).
            Default: the group's topology if `set_topology` was called, else the algorithm's own
            (of "awc" and most others one-peer exponential).
        process_group: of backend "bluefog"; default: the world.
        broadcast_buffers: average floating-point buffers (BatchNorm statistics) with the neighbours
            as well; default: yes. DDP's name for keeping them close; nothing is broadcast after the
            start. Its newer name, forward_sync_buffers, counts where both are given.
        init_sync: broadcast parameters and buffers from rank 0 at the start, as DDP does.
        lazy_combine: let averages that are still under way at the start of a forward pass arrive
            during it, each before the first module that uses it. For algorithms whose exchange
            follows the step ("atc"), and models of more than one block.
        payload_dtype: a narrower dtype in which parameters, and what else the algorithm averages
            over a graph, go to the neighbours: bfloat16 for float32 (half the bytes), float8_e4m3fn
            or float8_e5m2 for float32, float16 and bfloat16; the same on all ranks. The mean over
            the ranks is kept as without, but ranks stay about as far apart as it rounds: see
            `bluefog_pg.neighbor_allreduce`. Parameters that are not wider, buffers, and averages
            over all ranks go as they are. Default: everything does.
        bucket_cap_mb: most MiB that go as one exchange; default 25.
        device_ids: None, or a list of the module's own device. On a GPU inputs are moved to it
            then, as DDP does.
        output_device: None, or the module's own device.
        dim, find_unused_parameters, gradient_as_bucket_view, static_graph: accepted and without
            effect, as there are no gradient buckets; so are batched_grad_copy and
            lazy_bucket_allocation.

    Raises:
        TypeError: a keyword that DDP does not have either, a parameter of another dtype, or a
            payload_dtype in which no parameter can go.
        ValueError: a keyword of DDP that cannot be honoured, named; no trainable parameters; a
            module on several devices; an unknown algorithm; a topology that does not fit the
            group, or has not what the algorithm needs of its weights; a payload_dtype with an
            algorithm that cannot have one: those that use windows, allreduce alone, or
            column-stochastic weights, and "relay_sgd".
        MismatchError: ranks have different models or topologies.
    """

    def __init__(
        self,
        module: nn.Module,
        device_ids: list[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool | None = None,
        init_sync: bool = True,
        process_group: Any = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        gradient_as_bucket_view: bool = False,
        static_graph: bool = False,
        *,
        batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
        lazy_bucket_allocation: bool = False,
        algorithm: str | type[Algorithm] | Algorithm = "awc",
        topology: TopologyLike | None = None,
        lazy_combine: bool = False,
        payload_dtype: torch.dtype | None = None,
        **other_keywords_of_ddp: Any,
    ) -> None:
        super().__init__()
        Joining.__init__(self)
        refuse(other_keywords_of_ddp)
        self._device = device_of(module, device_ids, output_device)
        self._moves_inputs = bool(device_ids) and self._device.type != "cpu"
        self.module = module
        self.process_group = process_group
        self.broadcast_buffers = first_given(forward_sync_buffers, broadcast_buffers, default=True)
        self.algorithm = resolve(algorithm)
        self._cap_bytes = int((25 if bucket_cap_mb is None else bucket_cap_mb) * 2**20)
        self._backend = backend_of(process_group)
        check_payload(payload_dtype, self.algorithm, module, self._backend.is_narrower)
        self._cycle = Cycle(self.algorithm, self._make_network(topology, payload_dtype))
        self._state = TrainingState(self.algorithm, self._cycle.network)
        self._sync = True
        self._backward = BackwardWatch(self._cycle.backward_ended, self._gradient_arrived)
        self._lazy_combine = lazy_combine
        self._lazy: LazyCombine | None = None
        module_sync.check_equal(module, self._backend)
        if init_sync:
            module_sync.broadcast(module, self._backend)
        self._attach()
        self.register_load_state_dict_post_hook(lambda model, _: model._attach())

    @property
    def topology(self) -> Topology:
        """The nx.DiGraph or `Schedule` that parameters are averaged over."""
        return self._cycle.network.topology()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._moves_inputs:
            args, kwargs = moved(args, kwargs, self._device)
        training = self.training and torch.is_grad_enabled()
        lazy = None if torch.compiler.is_compiling() or not training else self._lazy
        self._before_forward(training, late=lazy is not None and lazy.is_ready())
        if lazy is None:
            outputs = self.module(*args, **kwargs)
        else:
            with lazy.forward():
                outputs = self.module(*args, **kwargs)
        self._after_forward(outputs)
        return outputs

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forward passes inside start no exchange: local steps, or gradient accumulation.

        To accumulate, put all micro-batches but the last one inside, as with DDP: the step that
        follows the last one sees the sum of the gradients. The same goes for several losses with a
        backward() each: parameters may change at the end of the first one outside.
        """
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    def step_in_backward(self, *optimizers: torch.optim.Optimizer) -> None:
        """From now on backward() steps the optimizers, and starts exchanges as it goes.

        Once all gradients of a block are there, its parameters step and are on their way to the
        neighbours while the pass goes on to lower layers; their gradients are freed. The program
        stays as it is: its own optimizer.step() has nothing left to do but what hooks and learning
        rate schedulers hang onto it. Blocks have their turns from the last layer to the first;
        those without gradients have it at the end of backward(), so a layer that one rank skips
        keeps nobody waiting. In `no_sync` gradients accumulate as usual.

        Where the whole gradient is needed before a step (clip_grad_norm_, GradScaler), use the
        ordinary step: gradients raise when they are looked at after backward(). Optimizers must
        treat parameters one by one, as all of torch but LBFGS do.

        Collective. Without optimizers: back to the ordinary step.

        Raises:
            TypeError: not a torch optimizer.
            ValueError: an optimizer needs a closure or has hooks before its step(); a parameter is
                in none of them.
        """
        self._cycle.settle()
        in_backward = BackwardStep(optimizers, self._names()) if optimizers else None
        if in_backward:
            in_backward.take(self._cycle.blocks)
        self._backend.barrier().wait()
        if self._cycle.in_backward:
            self._cycle.in_backward.close()
        self._cycle.in_backward = in_backward

    def settle(self) -> None:
        """Takes the step that has begun to its end: parameters are final, nothing is under way.

        For a look at parameters, or a change of them, between optimizer.step() and the next forward
        pass. All ranks call it at the same point of their programs.
        """
        self._cycle.settle()

    @contextmanager
    def averaged(self) -> Iterator["DecentralizedDataParallel"]:
        """Puts the exact average over all ranks in place, for evaluation and saving. Collective.

        Parameters and floating-point buffers are averaged (half precision in float32), and
        restored on leaving. Training inside is pointless: its results are undone.
        """
        self._cycle.settle()
        tensors = self._averaged_tensors()
        own = [tensor.detach().clone() for tensor in tensors]
        try:
            with self.no_sync():
                put_means_in_place(tensors, self._backend)
                yield self
        finally:
            with torch.no_grad():
                torch._foreach_copy_(tensors, own)

    def finalize(self) -> None:
        """Replaces the model by its exact average over all ranks, to end training. Collective.

        Parameters and floating-point buffers become equal on all ranks (half precision is averaged
        in float32). One such average recovers most of what ranks that were kept apart lack
        (arXiv:2507.06542).
        """
        self._cycle.settle()
        put_means_in_place(self._averaged_tensors(), self._backend)

    def consensus_distance(self) -> float:
        """Returns sqrt(1/N sum_i ||x_i - mean(x)||^2) over all parameters x. Collective."""
        self._cycle.settle()
        return distance_from_mean(self.module.parameters(), self._backend)

    def statistics(self) -> statistics.Statistics:
        """Returns what this rank has sent, waited for and allocated so far."""
        return statistics.gather(self._cycle.network, self._cycle.blocks, self._cycle.buffers)

    # ---- Saving: one key beside DDP's, "_extra_state"

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the algorithm's variables, its step and name, for `state_dict()`.

        Settles first, so save between steps; each rank saves its own.
        """
        self._cycle.settle()
        return self._state.save(self._cycle.blocks)

    def set_extra_state(self, state: dict[str, Any] | None) -> None:
        """Takes back what `get_extra_state` returned; None: the algorithm begins anew.

        Raises:
            ValueError: it is of another algorithm, or of another rank and has variables.
        """
        self._cycle.settle()
        self._state.load(state)
        self._cycle.take([], [])  # what they hold is replaced

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Loads a state dict of this class, of DDP (both "module.name"), or of the module.

        With one of this class the algorithm goes on where it was, otherwise it begins anew with
        the parameters that are loaded.

        Raises:
            ValueError: as `set_extra_state`; nothing has been loaded then.
        """
        if not state_dict or any(name.startswith("module.") for name in state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.set_extra_state(None)
        try:
            return self.module.load_state_dict(state_dict, strict=strict, assign=assign)
        finally:
            self._attach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", None)  # DDP's have none
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # ---- Moments of a step

    @untraced
    def _before_forward(self, training: bool, late: bool) -> None:
        if not self._sync or not training:
            self._cycle.combine(late)
            return
        self._backward.begin()
        if not self._is_attached():
            self._cycle.settle()
            self._attach()
        if not self._cycle.has_begun:
            self._cycle.end_step()
            self._tell_those_without_data()
        self._cycle.forward(late)

    @untraced
    def _after_forward(self, outputs: Any) -> None:
        if self._cycle.awaits_gradients:
            self._backward.watch_outputs(outputs)

    def _gradient_arrived(self, parameter: torch.Tensor) -> None:
        if self._cycle.awaits_gradients:
            self._cycle.gradient_arrived(parameter)

    # ---- Parameters and graphs

    def _make_network(self, topology: Any, payload_dtype: torch.dtype | None) -> Network:
        if topology is None:
            of_group = GroupState.of(self._backend).neighborhood
            topology = of_group or self.algorithm.default_topology
        round_of = self.algorithm.round
        return Network(topology, self._safe_graphs, self._backend, round_of, payload_dtype)

    def _safe_graphs(self, topology: Topology) -> Mapping[str, Topology]:
        graphs = self.algorithm.graphs(topology)
        topologies.require_safe(self.algorithm.safety or self.algorithm.name, graphs["W"])
        return graphs

    def _attach(self) -> None:
        """Builds blocks of the parameters that are trained now, and hooks onto their gradients."""
        self._state.keep(self._cycle.blocks)
        ignored = module_sync.ignored_names(self.module)
        named = [(n, p) for n, p in self.module.named_parameters() if n not in ignored]
        self._trained = [parameter for _, parameter in named if parameter.requires_grad]
        self._frozen = [parameter for _, parameter in named if not parameter.requires_grad]
        if not self._trained:
            raise ValueError("DecentralizedDataParallel got a module without trainable parameters")
        for name, parameter in named:
            if parameter.requires_grad and parameter.dtype not in AVERAGED_DTYPES:
                raise TypeError(
                    f"parameter {name} has dtype {parameter.dtype}, which cannot be averaged"
                )
        self._backward.watch(self._trained)
        averages_buffers = self.broadcast_buffers and not self.algorithm.asynchronous
        buffers = module_sync.floating_buffers(self.module) if averages_buffers else []
        network, cap = self._cycle.network, self._cap_bytes
        self._cycle.take(
            [self._make_block(*of) for of in enumerate(split_into_buckets(self._trained, cap))],
            [BufferBlock(ts, network) for ts in split_into_buckets(buffers, cap)],
        )
        with torch.no_grad():
            self._state.restore(self._cycle.blocks, {p: name for name, p in named})
        if self._lazy:
            self._lazy.forget()
        self._lazy = LazyCombine(self.module, self._cycle) if self._lazy_combine else None

    def _make_block(self, index: int, tensors: list[torch.Tensor]) -> Block:
        block = Block(tensors, self._cycle.network, index)
        block.add(*self.algorithm.exchanged, exchanged=True)
        block.add(*self.algorithm.kept)
        with torch.no_grad():
            self.algorithm.begin(block)
        return block

    def _is_attached(self) -> bool:
        """Whether the blocks hold the parameters that are trained now, where these live now."""
        return (
            not any(parameter.requires_grad for parameter in self._frozen)
            and all(parameter.requires_grad for parameter in self._trained)
            and all(block.is_current() for block in self._cycle.blocks)
        )

    def _names(self) -> dict[int, str]:
        return {id(parameter): name for name, parameter in self.module.named_parameters()}

    def _averaged_tensors(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *module_sync.floating_buffers(self.module)]
