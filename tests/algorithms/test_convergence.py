"""Where algorithms end on heterogeneous least squares with 16 ranks: at the optimum, or beside it.

The figures are those of a simulation in numpy with n = 16, d = 10, 60 rows a rank.
"""

import itertools

import pytest
from quadratic import Row, on_ranks, problem_for

N = 16
SKIPPED = ((3, 0), (5, 40))  # what a rank leaves out must not leave a trace
EXACT = [
    *(
        Row(algorithm, "one_peer_exponential", lr=0.2, steps=230, skips=SKIPPED)
        for algorithm in ("gradient_tracking", "semi_atc_tracking")
    ),
    Row(
        "momentum_tracking",
        "one_peer_exponential",
        lr=0.1,
        options=(("momentum", 0.5),),
        steps=230,
        skips=SKIPPED,
    ),
    *(
        Row(algorithm, "ring", lr=0.2, steps=330, skips=SKIPPED)
        for algorithm in ("extra", "exact_diffusion", "d2")
    ),
]
FLOORS = {  # relative error in the end
    Row("awc", "ring", lr=0.05, steps=120, skips=SKIPPED): 0.23,
    Row("atc", "ring", lr=0.05, steps=120, skips=SKIPPED): 0.21,
    Row("dmsgd", "ring", lr=0.005, steps=150, skips=SKIPPED): 0.21,
    Row("dmsgd_mixed", "ring", lr=0.005, steps=150, skips=SKIPPED): 0.17,
    Row("decentlam", "ring", lr=0.005, steps=150, skips=SKIPPED): 0.037,
    Row("qg_dsgdm", "ring", lr=0.005, steps=600, skips=SKIPPED): 0.037,
}


@pytest.fixture(scope="module")
def errors():
    ends = on_ranks([*EXACT, *FLOORS], N, cap_mb=1, timeout=600, only_last=True)
    return {row.algorithm: problem_for(N).error(end[0]) for row, end in ends.items()}


@pytest.mark.parametrize("row", EXACT, ids=str)
def test_exact_algorithms_reach_the_optimum(errors, row):
    assert errors[row.algorithm] <= 1e-11


@pytest.mark.parametrize(("row", "floor"), FLOORS.items(), ids=str)
def test_biased_algorithms_stop_at_their_floors(errors, row, floor):
    assert errors[row.algorithm] == pytest.approx(floor, rel=0.2)


def test_floors_are_ordered_as_theory_has_it(errors):
    # With lr / (1 - momentum) as large, momentum does not change the bias of a diffusion.
    order = ["awc", "atc", "dmsgd_mixed", "decentlam"]
    for larger, smaller in itertools.pairwise(order):
        assert errors[larger] > errors[smaller]
    assert errors["dmsgd"] == pytest.approx(errors["atc"], rel=1e-3)
    assert errors["dmsgd_mixed"] > 3 * errors["qg_dsgdm"]
