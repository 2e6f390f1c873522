"""The helpers of the benchmarks: laws, break-even, contestants in turn, dense peers that compute the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.peer
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def timing(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import timing

    yield timing
    sys.modules.pop("timing")


def test_exponent_of_a_power_law(timing):
    x = np.array([1.0, 10.0, 50.0])
    assert timing.exponent(x, 3 * x**1.7) == pytest.approx(1.7)


def test_break_even_between_two_points(timing):
    assert timing.break_even([0.01, 0.1, 1.0], [1.0, 10.0, 100.0], 20.0) == pytest.approx(0.2)
    assert timing.break_even([0.01, 0.1], [1.0, 2.0], 3.0) == np.inf
    assert timing.break_even([0.01, 0.1], [4.0, 5.0], 3.0) == 0.0


def test_contestants_take_turns_with_fresh_input(timing):
    calls, now = [], [0.0]

    def task(name, seconds):
        def fresh():
            calls.append(f"draw {name}")

            def run():
                calls.append(name)
                now[0] += seconds

            return run

        return fresh

    times = timing.compare(
        {"a": task("a", 1.0), "b": task("b", 0.03)}, {"a": 10, "b": 1}, 0.0, lambda: now[0], rounds=(2, 5)
    )
    warm_up = ["draw a", "a", "draw b", "b"] * 2
    round_ = ["draw a", "a"] + ["draw b", "b"] * 4  # b has a warm-up call and fills its block
    assert calls == warm_up + 2 * round_
    assert times.ratio("a", "b") == pytest.approx((10 / 3, 10 / 3, 10 / 3))
    assert times.fastest(["a", "b"]) == "b"


def test_dense_egrus_compute_what_evsim_does(timing, monkeypatch):
    pytest.importorskip("jax")
    import peers

    assert peers.check() < 1e-5
    sys.modules.pop("peers")
