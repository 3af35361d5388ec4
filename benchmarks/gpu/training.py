"""DecentralizedDataParallel on a GPU, in four ranks, against the same training on the CPU.

The CPU also trains in float64. What a float32 run there is away from that is what roundings make of
it, and a run on the GPU may be a few times as far away.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import bluefog_pg as bf
from bluefog_pg import algorithms
from gpu.launch import Rank, run_ranks
from gpu.reference import count_different
from gpu.rows import emit, parser, status

STEPS = 8
WIDTH, BATCH = 64, 16
TIMES = 10  # as far from float64 as the CPU's float32 run
BUCKET_MB = 0.01  # several blocks
ALGORITHMS: dict[str, tuple[Callable[[], Any], Any]] = {
    "awc": (lambda: "awc", None),
    "atc": (lambda: "atc", None),
    "gradient_tracking": (lambda: "gradient_tracking", "exponential"),
    "exact_diffusion": (lambda: "exact_diffusion", "ring"),
    "push_sum": (lambda: "push_sum", None),
    "diloco": (lambda: algorithms.DiLoCo(every=3), None),
    "gradient_allreduce": (lambda: "gradient_allreduce", None),
}


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--ranks", type=int, default=4)
    arguments.add_argument("--seconds", type=float, default=100)
    arguments.add_argument("--only", nargs="+", choices=[*ALGORITHMS, "more"])
    arguments.add_argument("--compiler", default="inductor", help="backend of torch.compile")
    args = arguments.parse_args()
    given = {"seconds": args.seconds}
    only = args.only or [*ALGORITHMS, "more"]
    rows = [emit(row) for row in run_ranks("training", checks, args.ranks, only, **given)]
    if "more" in only:
        found = run_ranks("torch.compile", compiles, 2, args.compiler, **given)
        rows += [emit(row) for row in found]
    return status(rows)


def checks(rank: Rank, only: list[str]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    for name in ALGORITHMS:
        if name in only:
            rank.check(f"training by {name}", partial(_like_on_cpu, rank, name))
    if "more" in only:
        rank.check("training with steps in backward", partial(_like_on_cpu, rank, "atc", True))
        rank.check("autocast and GradScaler", lambda: _scaled(rank))
        rank.check("going on from a state_dict", lambda: _resumed(rank))
        rank.check("averaged() and finalize()", lambda: _means(rank))


def compiles(rank: Rank, backend: str) -> None:
    rank.check("torch.compile", lambda: _compiled(rank, backend))


class Training:
    """A model and its optimizer in one rank; equal on all devices, but for roundings."""

    def __init__(
        self, rank: Rank, name: str, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.GELU()),
            *(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 4)),
        )
        algorithm, topology = ALGORITHMS[name]
        self.model = bf.DecentralizedDataParallel(
            net.to(device, dtype),
            algorithm=algorithm(),
            topology=topology,
            bucket_cap_mb=BUCKET_MB,
            device_ids=[device] if device.type == "cuda" else None,
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self._rank, self._dtype, self._device = rank, dtype, device

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        draw = torch.Generator().manual_seed(1000 * step + self._rank.rank)
        x = torch.randn(BATCH, WIDTH, generator=draw)
        y = torch.randn(BATCH, 4, generator=draw)
        return x.to(self._device, self._dtype), y.to(self._device, self._dtype)

    def loss(self, step: int, model: nn.Module | None = None) -> torch.Tensor:
        model = self.model if model is None else model
        x, y = self.batch(step)
        return (model(x) - y).square().mean()

    def train(self, steps: range, model: nn.Module | None = None) -> torch.Tensor:
        for step in steps:
            self.optimizer.zero_grad()
            self.loss(step, model).backward()
            self.optimizer.step()
        return self.values()

    def parameters(self) -> torch.Tensor:
        self.model.settle()
        return torch.cat([p.detach().cpu().double().reshape(-1) for p in self.model.parameters()])

    def values(self) -> torch.Tensor:
        """All parameters and statistics, on the CPU in float64."""
        self.model.settle()
        state = [t for t in self.model.module.state_dict().values() if t.is_floating_point()]
        return torch.cat([t.detach().cpu().double().reshape(-1) for t in state])


def _like_on_cpu(rank: Rank, name: str, in_backward: bool = False) -> int:
    """Counts what is too far away from the float64 run."""
    cpu = torch.device("cpu")
    runs = [
        Training(rank, name, cpu, torch.float64),
        Training(rank, name, cpu),
        Training(rank, name, rank.device.torch),
    ]
    if in_backward:
        for run in runs:
            run.model.step_in_backward(run.optimizer)
    exact, on_cpu, on_device = (run.train(range(STEPS)) for run in runs)
    return _too_far(on_device, exact, on_cpu)


def _too_far(values: torch.Tensor, exact: torch.Tensor, on_cpu: torch.Tensor) -> int:
    epsilon = torch.finfo(torch.float32).eps
    bound = TIMES * max(float((on_cpu - exact).abs().max()), epsilon * float(exact.abs().max()))
    return int((~((values - exact).abs() <= bound)).sum())


def _scaled(rank: Rank) -> int:
    """Half precision: near the float32 run, with the same decisions on all ranks.

    The first scale overflows, so that steps are skipped, which change no parameters: these are
    equal on all ranks then.
    """
    run, plain = (Training(rank, "atc", rank.device.torch) for _ in range(2))
    before = run.parameters()
    scaler = bf.GradScaler("cuda", init_scale=2.0**30)
    skipped, taken = 0, 0
    while taken < STEPS and skipped < 30:
        run.optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            loss = run.loss(taken)
        scaler.scale(loss).backward()
        scaler.step(run.optimizer)
        scale = scaler.get_scale()
        scaler.update()
        if scaler.get_scale() < scale:
            skipped += 1
        else:
            taken += 1
    plain.train(range(STEPS))
    expected, result = plain.parameters(), run.parameters()
    scales: list[Any] = [None] * rank.size
    dist.all_gather_object(scales, (scaler.get_scale(), skipped, taken))
    is_near = float((result - expected).norm()) < 0.1 * float((expected - before).norm())
    return sum((not is_near, len(set(scales)) > 1, skipped == 0, taken < STEPS))


def _resumed(rank: Rank) -> int:
    """Half of the steps, a state_dict through the CPU, and the other half in a new model."""
    name = "gradient_tracking"  # which has variables of its own
    exact, on_cpu = (
        Training(rank, name, torch.device("cpu"), dtype) for dtype in (torch.float64, torch.float32)
    )
    first, second = (Training(rank, name, rank.device.torch) for _ in range(2))
    first.train(range(STEPS // 2))
    saved = copy.deepcopy((first.model.state_dict(), first.optimizer.state_dict()))
    second.model.load_state_dict(saved[0])
    second.optimizer.load_state_dict(saved[1])
    result = second.train(range(STEPS // 2, STEPS))
    return _too_far(result, exact.train(range(STEPS)), on_cpu.train(range(STEPS)))


def _means(rank: Rank) -> int:
    run = Training(rank, "atc", rank.device.torch)
    own = run.train(range(STEPS))
    everybody = [torch.empty_like(own) for _ in range(rank.size)]
    dist.all_gather(everybody, own)
    mean = torch.stack(everybody).mean(0)
    close = partial(torch.allclose, rtol=1e-6, atol=1e-6)
    with run.model.averaged():
        wrong = int(not close(run.values(), mean))
    wrong += count_different(run.values(), own)
    distance = float((torch.stack(everybody) - mean).square().sum(1).mean().sqrt())
    of_model = run.model.consensus_distance()  # parameters alone
    wrong += int(not of_model <= distance * (1 + 1e-5))
    run.model.finalize()
    return wrong + int(not close(run.values(), mean))


def _compiled(rank: Rank, backend: str) -> int:
    """The wrapper, compiled, beside one that is not."""
    wrong = 0
    for name in ("awc", "gradient_tracking"):
        cpu = torch.device("cpu")
        exact, on_cpu = (Training(rank, name, cpu, t) for t in (torch.float64, torch.float32))
        run = Training(rank, name, rank.device.torch)
        result = run.train(range(STEPS), torch.compile(run.model, backend=backend))
        wrong += _too_far(result, exact.train(range(STEPS)), on_cpu.train(range(STEPS)))
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
