"""What results must be: float64 sums, and how far a right result may be from them."""

from collections.abc import Sequence

import torch

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def values(shape: Sequence[int], dtype: torch.dtype, *seed: int) -> torch.Tensor:
    """Random values, the same for the same seed on all ranks; on the CPU."""
    number = 0
    for part in seed:
        number = number * 1009 + part + 1
    generator = torch.Generator().manual_seed(number)
    shape = list(shape)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    if dtype.is_complex or dtype.is_floating_point:
        real = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
        return real.to(dtype)
    return torch.randint(0, 120, shape, generator=generator).to(dtype)


def count_wrong(
    result: torch.Tensor,
    terms: Sequence[tuple[float, torch.Tensor]],
    sender_scales: bool = False,
) -> int:
    """How many elements are not the sum of weight * tensor, but for rounding.

    As bluefog rounds: each product and each sum, in float32 or float64, and once to the result's
    type; with sender_scales each tensor has been rounded once more in its own type.
    """
    own = result.dtype
    products = [weight * tensor.cpu().double() for weight, tensor in terms]
    exact = torch.stack(products).sum(0)
    magnitude = torch.stack([product.abs() for product in products]).sum(0)
    wide = torch.finfo(torch.float64 if own is torch.float64 else torch.float32).eps
    bound = 2 * len(products) * wide * magnitude + torch.finfo(own).eps * exact.abs()
    if sender_scales:
        bound = bound + 2 * torch.finfo(own).eps * magnitude
    bound = bound + torch.finfo(own).smallest_normal
    actual = result.cpu().double()
    if actual.shape != exact.shape:
        return max(1, exact.numel())
    return int((~((actual - exact).abs() <= bound)).sum())  # NaN is wrong


def count_different(a: torch.Tensor, b: torch.Tensor) -> int:
    """How many elements differ in a bit; all where dtype or shape do."""
    if a.dtype is not b.dtype or a.shape != b.shape:
        return max(1, b.numel())
    first, second = (t.cpu().contiguous().view(-1).view(torch.uint8) for t in (a, b))
    if a.numel() == 0:
        return 0
    return int((first != second).view(a.numel(), -1).any(1).sum())
