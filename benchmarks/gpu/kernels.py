"""The combine kernel: against float64 sums, and bit by bit against the CPU."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from bluefog_pg._extension import load_cuda
from gpu.device import Device
from gpu.reference import FLOATS, count_different, count_wrong, values
from gpu.rows import Row, attempt, checked, parser, status

F8 = [torch.float8_e4m3fn, torch.float8_e5m2]
TYPES = [
    *((own, own) for own in FLOATS),
    (torch.float32, torch.bfloat16),
    *((own, payload) for own in FLOATS[:3] for payload in F8),
]
WEIGHTS = [1 / 3, 0.1, 0.7, 1e-3, -2.9, 0.25, -0.5, 1.0, 3e-2]
SIZES = [0, 1, 2, 7, 31, 255, 1025, 4097, 100_003]
LARGE = 1_500_001
QUICK_SIZES = [0, 1, 7, 255, 4097]
MARGIN = 8  # elements around a slice, which must stay as they are
MANY = 300  # sources: more than a launch takes


@dataclass
class Case:
    """offsets: where in their memory inputs, arrivals and outputs begin, in elements; those of
    several tensors follow one another."""

    own: torch.dtype
    payload: torch.dtype
    sizes: list[int]
    sources: int
    offset: int = 0
    in_place: bool = False


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="few cases: for a sanitizer")
    args = arguments.parse_args()
    load_cuda()
    device = Device()
    return status([run(device, own, payload, args.quick) for own, payload in TYPES])


def run(device: Device, own: torch.dtype, payload: torch.dtype, quick: bool = False) -> Row:
    name = f"combine {_name(own)} += {_name(payload)}"

    def all_cases() -> Row:
        wrong = different = elements = 0
        worst = ""
        for case in cases(own, payload, quick):
            far, unequal = count(device, case)
            elements += sum(case.sizes)
            wrong, different = wrong + far, different + unequal
            if (far or unequal) and not worst:
                worst = str(case)
        row = checked(name, wrong + different, far_from_float64=wrong, bits_unlike_cpu=different)
        return row | {"elements": elements, "first_wrong": worst}

    return attempt(name, all_cases)


def cases(own: torch.dtype, payload: torch.dtype, quick: bool) -> Iterator[Case]:
    sizes = QUICK_SIZES if quick else SIZES
    for sources in (0, 1, 3, 8) if quick else range(9):
        for size in sizes:
            yield Case(own, payload, [size], sources)
        yield Case(own, payload, sizes, sources)  # as one list
        yield Case(own, payload, sizes, sources, in_place=True)
        for offset in (1, 3):
            yield Case(own, payload, sizes, sources, offset)
            yield Case(own, payload, sizes, sources, offset, in_place=True)
    yield Case(own, payload, [5000, 3], MANY)
    if not quick:
        yield Case(own, payload, [LARGE], 3)
        yield Case(own, payload, [LARGE], 8, offset=1)
    yield Case(own, payload, [33] * 400, 2)  # more tensors than a launch takes, perhaps


def count(device: Device, case: Case) -> tuple[int, int]:
    """Returns how many elements are far from the float64 sum, and how many unlike the CPU's."""
    weights = WEIGHTS[: case.sources + 1]
    if case.sources == MANY:
        weights = [1 / (MANY + 1)] * (MANY + 1)
    own = [_values(size, case.own, 0, t) for t, size in enumerate(case.sizes)]
    arrivals = [
        _values(size, case.payload, 1 + j, t)
        for j in range(case.sources)
        for t, size in enumerate(case.sizes)
    ]
    inputs = _Placed(own, case.offset, device)
    payloads = _Placed(arrivals, case.offset + 1 if case.offset else 0, device)
    outputs = inputs
    if not case.in_place:
        poison = [torch.full_like(x, 77) for x in own]
        outputs = _Placed(poison, case.offset + 2 if case.offset else 0, device)
    torch.ops.bluefog.combine(outputs.tensors, inputs.tensors, payloads.tensors, weights)
    device.synchronize()
    by_cpu = [torch.empty_like(x) for x in own]
    torch.ops.bluefog.combine(by_cpu, own, arrivals, weights)

    far = unequal = outputs.overwritten() + inputs.overwritten() + payloads.overwritten()
    for t, (x, expected) in enumerate(zip(own, by_cpu, strict=True)):
        y = outputs.tensors[t]
        terms = list(zip(weights, [x, *arrivals[t :: len(own)]], strict=True))
        far += count_wrong(y, terms)
        unequal += count_different(y, expected)
    return far, unequal


class _Placed:
    """Copies of tensors on a device, in one piece of memory, with margins around them."""

    def __init__(self, tensors: list[torch.Tensor], offset: int, device: Device) -> None:
        starts, end = [], MARGIN * 16 + offset
        for tensor in tensors:
            starts.append(end)
            end += tensor.numel() + MARGIN
            if offset == 0:
                end += -end % 256
        dtype = tensors[0].dtype if tensors else torch.float32
        host = torch.full([end + MARGIN], 99.0).to(dtype)
        for start, tensor in zip(starts, tensors, strict=True):
            host[start : start + tensor.numel()] = tensor
        self._before = host
        self._memory = host.to(device.torch, copy=True)
        self.tensors = [
            self._memory[start : start + tensor.numel()]
            for start, tensor in zip(starts, tensors, strict=True)
        ]
        self._outside = torch.ones(host.numel(), dtype=torch.bool)
        for start, tensor in zip(starts, tensors, strict=True):
            self._outside[start : start + tensor.numel()] = False

    def overwritten(self) -> int:
        """How many elements around the tensors are not what they were."""
        now, before = (
            memory.view(torch.uint8).view(len(self._before), -1)
            for memory in (self._memory.cpu(), self._before)
        )
        return int((now[self._outside] != before[self._outside]).any(1).sum())


@lru_cache(maxsize=2000)
def _values(size: int, dtype: torch.dtype, *seed: int) -> torch.Tensor:
    """Which cases share, and none changes."""
    return values([size], dtype, *seed)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    raise SystemExit(main())
