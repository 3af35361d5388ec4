"""The combine kernel's bytes per second, as a share of those of a copy in the same run."""

import statistics
from collections.abc import Callable
from functools import partial

import torch

from bluefog_pg._extension import load_cuda
from gpu.device import Device
from gpu.rows import Row, attempt, measured, parser, status

CALLS = 5  # of a sample
SAMPLES = 15
TARGET = 0.9


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--mebibytes", type=int, nargs="+", default=[64, 256])
    args = arguments.parse_args()
    load_cuda()
    device = Device()
    rows = []
    for mebibytes in args.mebibytes:
        for dtype in (torch.float32, torch.bfloat16):
            for sources in range(1, 9):
                name = f"combine, {sources} sources, {dtype}, {mebibytes} MiB".replace("torch.", "")
                numel = (mebibytes << 20) // dtype.itemsize
                measure = partial(share, device, numel, dtype, sources, name)
                rows.append(attempt(name, measure))
    return status(rows)


def share(device: Device, numel: int, dtype: torch.dtype, sources: int, name: str) -> Row:
    """Takes turns: the kernel reads sources + 1 tensors and writes one, the copy reads one and
    writes one. Random numbers, since memory of zeros can be faster."""
    x, *arrivals = (
        torch.randn(numel, device=device.torch, dtype=dtype) for _ in range(sources + 1)
    )
    y = torch.empty_like(x)
    weights = [1 / (sources + 1)] * (sources + 1)
    combine = partial(torch.ops.bluefog.combine, [y], [x], arrivals, weights)
    copy = partial(y.copy_, x)
    for warm_up in (combine, copy):
        _seconds(device, warm_up)
    times = [(_seconds(device, combine), _seconds(device, copy)) for _ in range(SAMPLES)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    size = numel * dtype.itemsize
    kernel, copied = (sources + 2) * size / ours, 2 * size / theirs
    return measured(
        name,
        round(kernel / copied, 3),
        "of a copy's bandwidth",
        at_least=TARGET,
        kernel_GB_per_s=round(kernel / 1e9),
        copy_GB_per_s=round(copied / 1e9),
    )


def _seconds(device: Device, call: Callable[[], object]) -> float:
    def several() -> None:
        for _ in range(CALLS):
            call()

    return device.milliseconds(several) / 1e3 / CALLS


if __name__ == "__main__":
    raise SystemExit(main())
