"""The figures of the papers in short, and the command that makes them."""

import json

import numpy as np
import pytest

from bluefog_pg import cli
from bluefog_pg.cli import simulate as command
from bluefog_pg.simulate.figures import (
    FIGURES,
    Comparison,
    Curve,
    Figure,
    Reference,
    compare,
    compute,
    draw,
    first_exact,
)

SHORT = {
    "ceca-least-squares": {"n": 18, "steps": 60, "runs": 1},
    "consensus": {"n": 17, "steps": 12, "runs": 2},
    "equitopo-least-squares": {"n": 20, "steps": 40, "runs": 2},
    "gradient-tracking": {"n": 10, "steps": 30, "runs": 1},
    "lost-messages": {"n": 8, "steps": 60, "runs": 2},
    "methods": {"n": 6, "steps": 60, "runs": 1},
}


def flags(name):
    return [text for key, value in SHORT[name].items() for text in (flag(key), str(value))]


def flag(key):
    return "-n" if key == "n" else f"--{key}"


def test_every_figure_has_a_short_form_and_a_command():
    assert set(SHORT) == set(FIGURES) == set(command.FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_curves_have_one_value_per_run_and_step(name):
    figure = FIGURES[name](**SHORT[name])
    steps = []
    values = compute(figure, seed=1, on_step=lambda: steps.append(1))
    runs, count = SHORT[name]["runs"], SHORT[name]["steps"]
    assert list(values) == [curve.label for curve in figure.curves]
    for label, curve in values.items():
        assert curve.shape == (runs, count + 1), label
        assert np.isfinite(curve).all(), label
    assert len(steps) == len(values) * runs * count  # the progress bar ends at 100 %
    again = compute(figure, seed=1)
    for label, curve in values.items():
        np.testing.assert_array_equal(again[label], curve, err_msg=label)


@pytest.mark.parametrize("name", FIGURES)
def test_references_belong_to_the_published_set_up(name):
    figure = FIGURES[name]()
    assert {r.curve for r in figure.references} <= {curve.label for curve in figure.curves}
    assert all(r.step is None or r.step <= figure.steps for r in figure.references)
    assert not FIGURES[name](n=8).references


def test_ceca_least_squares_beats_the_ring():
    figure = FIGURES["ceca-least-squares"](n=130, steps=400, runs=1)
    last = {label: curve.mean(axis=0)[-1] for label, curve in compute(figure).items()}
    for label in ("OD-EquiDyn", "CECA-1P", "CECA-2P"):
        assert last[label] < 1.15 * last["centralized"], label
        assert last["ring"] > 1.5 * last[label], label


def test_gradient_tracking_reaches_the_noise():
    figure = FIGURES["gradient-tracking"](n=40, steps=160, runs=1)
    curves = {label: curve[0] for label, curve in compute(figure).items()}
    for label, curve in curves.items():
        assert curve[-1] < 1e-6 * curve[0], label
    one_peer, *equi_dyn = curves.values()
    assert all(curve[40] < one_peer[40] / 5 for curve in equi_dyn)  # a larger lr is stable there


STEPS = Figure(
    title="two lines",
    ylabel="y",
    source="made up",
    steps=3,
    runs=2,
    curves=[
        Curve("a", lambda seed, on_step: np.array([8.0, 4.0, 2.0, 0.0]) + seed),
        Curve("b", lambda seed, on_step: np.array([1.0, 0.5, 1e-15, 0.0])),
    ],
    references=[Reference("a", 1, 4.0), Reference("b", None, 2), Reference("a", 9, 1.0)],
)


def test_comparison_takes_the_mean_over_the_runs():
    rows = [c.as_json() for c in compare(STEPS, compute(STEPS))]
    assert rows == [
        {"curve": "a", "what": "value at step 1", "reference": 4.0, "computed": 4.5},
        {"curve": "b", "what": "first exact step", "reference": 2, "computed": 2.0},
    ]  # step 9 is beyond the end
    never = Comparison(Reference("b", None, 2), float("inf")).as_json()
    assert json.loads(json.dumps(never))["computed"] is None


def test_first_exact_step_is_one_from_which_it_stays_so():
    assert first_exact(np.array([3.0, 1e-16, 1e-3, 1e-16, 0.0])) == 3
    assert first_exact(np.array([3.0, 1.0])) == float("inf")
    assert first_exact(np.zeros(4)) == 0


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_drawing(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure.{ending}"
    draw(STEPS, compute(STEPS), str(path))
    magic = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(magic)


def test_drawing_lays_out_all_panels(tmp_path, recwarn):
    image = pytest.importorskip("matplotlib.image")
    for name in ("lost-messages", "methods"):
        figure = FIGURES[name](**SHORT[name])
        draw(figure, compute(figure), str(tmp_path / "figure.png"))
        assert image.imread(tmp_path / "figure.png").shape[1] > 1500
    assert not [w for w in recwarn if "layout" in str(w.message)]


def test_command_prints_references_next_to_what_was_computed(capsys):
    assert cli.main(["simulate", "consensus", *flags("consensus")]) == 0
    out, err = capsys.readouterr()
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert lines["Base-2"].split("│")[2:5] == [" exact from ", "         9 ", "        9 "]
    assert "reference: own earlier computation" in out
    assert "│" not in err


def test_command_gives_json_and_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "consensus.png"
    arguments = ["simulate", "consensus", *flags("consensus"), "--json"]
    assert cli.main([*arguments, "--plot", str(path)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert {len(curve) for curve in first["curves"].values()} == {13}
    assert first["comparisons"][0] == {
        "curve": "Base-2", "what": "first exact step", "reference": 9, "computed": 9,
    }  # fmt: skip
    assert cli.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert cli.main([*arguments, "--seed", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["curves"] != first["curves"]


@pytest.mark.parametrize("name", FIGURES)
def test_smallest_figures(name):
    figure = FIGURES[name](n=1, steps=2, runs=1)
    assert all(np.isfinite(curve).all() for curve in compute(figure).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["consensus", "-n", "0"], "a topology needs at least 1 rank, got n=0"),
        (["ceca-least-squares", "-n", "7"], "needs an even n, got n=7"),
        (["methods", "-n", "-1"], "a topology needs at least 1 rank, got n=-1"),
        (["lost-messages", "-n", "6"], "needs a power of two, got n=6"),
        (["methods", "--plot", "x.abc"], "'x.abc' must end in one of ."),
        (["methods", "--plot", "no/such/folder/x.png"], "the folder of 'no/such/folder/x.png'"),
    ],
)
def test_command_refuses_before_it_computes(capsys, monkeypatch, arguments, message):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("bluefog_pg.cli.simulate._compute", None)
    assert cli.main(["simulate", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["consesnsus"], "invalid choice: 'consesnsus' (choose from"),
        (["consensus", "--runs", "0"], "--runs: must be at least 1, got 0"),
        (["consensus", "--steps", "x"], "--steps: invalid number value: 'x'"),
        (["consensus", "--seed", "-1"], "--seed: must be at least 0, got -1"),
        ([], "required: FIGURE"),
    ],
)
def test_command_line_that_does_not_parse(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["simulate", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
