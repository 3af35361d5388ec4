"""The operator bluefog::combine by torch's own operations, and whether CUDA has its kernel."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from support import FLOATS, start

import bluefog_pg as bf
from bluefog_pg import _build_info
from bluefog_pg._extension import load, load_cuda

F8 = [torch.float8_e4m3fn, torch.float8_e5m2]
TYPES = [
    *((own, own) for own in FLOATS),
    (torch.float32, torch.bfloat16),
    *((own, payload) for own in FLOATS[:3] for payload in F8),
]
SHAPES = [(), (1,), (0,), (7,), (3, 5), (2, 3, 4, 5), (2500,)]
WEIGHTS = [1 / 3, 0.1, 0.7, 1e-3, -2.9]


@pytest.fixture(autouse=True, scope="module")
def extension():
    load()


def combine(outputs, inputs, arrivals, weights):
    assert torch.ops.bluefog.combine(outputs, inputs, arrivals, weights) is None


def values(shape, dtype, seed):
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=random, dtype=torch.float64) * 3).to(dtype)


def in_order(x, arrivals, weights):
    """One rounding after the other: what kernels/combine.h promises."""
    wide = np.float64 if x.dtype is torch.float64 else np.float32
    terms = [t.to(torch.float64).numpy().astype(wide) for t in (x, *arrivals)]
    sum = wide(weights[0]) * terms[0]
    for weight, term in zip(weights[1:], terms[1:], strict=True):
        sum = sum + wide(weight) * term
    return torch.from_numpy(np.asarray(sum)).to(x.dtype)


def assert_bits(a, b):
    assert a.dtype == b.dtype and a.shape == b.shape
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    assert torch.equal(a.view(bits), b.view(bits))


@pytest.mark.parametrize("own, payload", TYPES, ids=str)
@pytest.mark.parametrize("sources", [0, 1, 2, 4])
def test_values(own, payload, sources):
    weights = WEIGHTS[: sources + 1]
    inputs = [values(shape, own, t) for t, shape in enumerate(SHAPES)]
    arrivals = [
        values(shape, payload, 100 * (j + 1) + t)
        for j in range(sources)
        for t, shape in enumerate(SHAPES)
    ]
    before = [x.clone() for x in inputs]
    outputs = [torch.full_like(x, 77) for x in inputs]
    combine(outputs, inputs, arrivals, weights)
    for t, (x, y) in enumerate(zip(inputs, outputs, strict=True)):
        mine = arrivals[t :: len(SHAPES)]
        assert_bits(x, before[t])
        assert_bits(y, in_order(x, mine, weights))
        terms = [w * r.double() for w, r in zip(weights, [x, *mine], strict=True)]
        exact = sum(terms).double()
        # A rounding for each product and each sum, of what has been added up so far, and the last.
        wide = torch.finfo(torch.float64 if own is torch.float64 else torch.float32).eps
        bound = 2 * (sources + 1) * wide * sum(term.abs() for term in terms)
        bound = bound + torch.finfo(own).eps * exact.abs() + torch.finfo(own).smallest_normal
        assert ((y.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_the_output_may_be_the_input(dtype):
    xs, rs = [values((2500,), dtype, 1), values((3, 4), dtype, 2)], []
    rs = [values(x.shape, dtype, 9 + i) for i, x in enumerate(xs * 2)]
    expected = [in_order(x, rs[t::2], WEIGHTS[:3]) for t, x in enumerate(xs)]
    combine(xs, xs, rs, WEIGHTS[:3])
    for x, y in zip(xs, expected, strict=True):
        assert_bits(x, y)


def test_types_may_differ_within_a_list():
    xs = [values((40,), dtype, 1) for dtype in FLOATS]
    rs = [values((40,), dtype, 2) for dtype in FLOATS]
    rs[2] = rs[2].to(torch.bfloat16)
    ys = [torch.empty_like(x) for x in xs]
    combine(ys, xs, rs, [0.3, 0.7])
    for x, r, y in zip(xs, rs, ys, strict=True):
        assert_bits(y, in_order(x, [r], [0.3, 0.7]))


# Three times 1 + 2^-9, at bfloat16's eight bits: rounded after each sum it would stay at 1.
def test_half_types_are_rounded_once():
    one, small = torch.ones(9, dtype=torch.bfloat16), torch.full((9,), 2**-9, dtype=torch.bfloat16)
    y = torch.empty_like(one)
    combine([y], [one], [small] * 3, [1.0, 1.0, 1.0, 1.0])
    assert (y == 1 + 2**-7).all()


def test_additions_are_in_the_order_of_the_sources():
    big, small = torch.full((9,), 1e8), torch.ones(9)
    y = torch.empty(9)
    combine([y], [big], [small, big], [1.0, 1.0, -1.0])
    assert (y == 0).all()
    combine([y], [big], [big, small], [1.0, -1.0, 1.0])
    assert (y == 1).all()


def test_products_are_rounded():
    e = 2.0**-12
    y = torch.empty(100)
    combine([y], [torch.full((100,), -1 - 2 * e)], [torch.full((100,), 1 + e)], [1.0, 1 + e])
    assert (y == 0).all()  # a fused multiply-add leaves e^2


def test_no_tensors():
    combine([], [], [], [0.5, 0.5])


def test_more_terms_than_a_launch_has():
    x, rs = values((50,), torch.float32, 0), [values((50,), torch.float32, j) for j in range(300)]
    y = torch.empty_like(x)
    combine([y], [x], rs, [1 / 301] * 301)
    assert_bits(y, in_order(x, rs, [1 / 301] * 301))


def test_shapes_may_differ_where_numbers_of_elements_do_not():
    y = torch.empty(2, 3)
    combine([y], [torch.ones(2, 3)], [torch.arange(6.0)], [1.0, 2.0])
    assert y.tolist() == [[1, 3, 5], [7, 9, 11]]


def test_views_that_are_negated_when_they_are_read():
    x = torch.arange(6.0)
    y = torch.empty(6)
    combine([y], [x._neg_view()], [x], [1.0, 3.0])
    assert y.tolist() == (2 * x).tolist()


def test_parameters_are_written_in_place_without_a_graph():
    x = torch.nn.Parameter(torch.ones(3))
    combine([x], [x], [torch.zeros(3)], [0.5, 0.5])
    assert x.tolist() == [0.5] * 3 and x.is_leaf and x.grad_fn is None


X, HALF = torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float16)
BAD = {
    "no weights": (([X], [X], [], []), ValueError, "no weights"),
    "inputs": (([X], [], [X], [0.5, 0.5]), ValueError, "0 inputs for 1 outputs"),
    "arrivals": (([X], [X], [X], [0.5] * 3), ValueError, "1 arrivals for 1 outputs and 2 sources"),
    "count": (([X], [X[:1]], [], [1.0]), ValueError, "inputs[0] has 3 elements, but outputs[0]"),
    "arrival's count": (([X], [X], [X, X[:1]], [0.5] * 3), ValueError, "arrivals[1] has 3 elem"),
    "stride": (([X], [X], [torch.ones(3, 2).T], [0.5] * 2), ValueError, "arrivals[0] is not cont"),
    "device": (
        ([X], [X.to("meta")], [], [1.0]),
        ValueError,
        "inputs[0] is on meta, but outputs[0]",
    ),
    "integers": (([X.int()], [X.int()], [], [1.0]), TypeError, "outputs[0] is Int"),
    "own type": (([X], [HALF], [], [1.0]), TypeError, "inputs[0] is Half, but outputs[0] is Float"),
    "wider": (([HALF], [HALF], [X], [0.5] * 2), TypeError, "arrivals[0] is Float, which is not ad"),
    "payload": (
        ([X], [X], [HALF], [0.5] * 2),
        TypeError,
        "arrivals[0] is Half, which is not added",
    ),
    "mixed": (([X], [X], [X, X.bfloat16()], [0.5] * 3), TypeError, "arrivals[1] is BFloat16, but"),
    "float8": (([X.to(F8[0])], [X.to(F8[0])], [], [1.0]), TypeError, "outputs[0] is Float8_e4m3fn"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    arguments, kind, words = BAD[name]
    with pytest.raises(kind) as raised:
        combine(*arguments)
    assert str(raised.value).startswith("combine: ") and words in str(raised.value)


def against_the_cores_kernel(rank, n):
    """neighbor_allreduce on the CPU combines with csrc/kernels/combine_cpu.cc."""
    start()
    graph = bf.fully_connected(n)
    for i in range(n):
        scale = sum(WEIGHTS[:n])
        graph.add_edge(i, i, weight=WEIGHTS[0] / scale)
        others = [j for j in range(n) if j != i]
        for k, j in enumerate(others):
            graph.add_edge(j, i, weight=WEIGHTS[k + 1] / scale)
    bf.set_topology(graph)
    weights = [w / sum(WEIGHTS[:n]) for w in WEIGHTS[:n]]
    for dtype in FLOATS:
        xs = [values((2501,), dtype, r) for r in range(n)]
        others = [xs[j] for j in range(n) if j != rank]
        y = torch.empty_like(xs[rank])
        combine([y], [xs[rank]], others, weights)
        assert_bits(y, bf.neighbor_allreduce(xs[rank]))
    dist.destroy_process_group()


def test_agrees_with_the_cores_kernel():
    run_ranks(against_the_cores_kernel, 4)


def nvcc_is_here():
    return shutil.which("nvcc", path="/usr/local/cuda/bin") or shutil.which("nvcc")


def test_cuda_has_a_kernel_where_there_is_nvcc():
    if not (torch.version.cuda and nvcc_is_here()):
        assert load_cuda() is None or _build_info.CUDA
        pytest.skip("no nvcc, or a torch without CUDA")
    assert _build_info.CUDA, "nvcc is here: _C_cuda should have been built"
    module = load_cuda()
    assert module is load_cuda()
    assert module.cuda_version() == _build_info.CUDA
    assert module.architectures()
    assert torch._C._dispatch_has_kernel_for_dispatch_key("bluefog::combine", "CUDA")


BROKEN = """
import sys, warnings
import torch
sys.modules["bluefog_pg._C_cuda"] = None
from bluefog_pg import _build_info
from bluefog_pg._extension import load_cuda
_build_info.CUDA = "13.0"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert load_cuda() is None and load_cuda() is None
(warning,) = caught
assert issubclass(warning.category, RuntimeWarning)
assert "which does not load" in str(warning.message), warning.message
_build_info.CUDA = ""
load_cuda.cache_clear()
warnings.simplefilter("error")
assert load_cuda() is None
x = torch.ones(3)
torch.ops.bluefog.combine([x], [x], [x], [0.5, 0.25])
assert x.tolist() == [0.75] * 3
"""


def test_a_cuda_extension_that_does_not_load_is_a_warning():
    done = subprocess.run([sys.executable, "-c", BROKEN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
