"""The validation matrix in small: every unit type, both kinds of time."""

from dataclasses import replace

import pytest

from evsim.brian.validation import CLOCKED, CONTINUOUS, MORE_HALVINGS, Cell, Outcome, Size, cells, matrix, run
from evsim.brian.validation_page import page

STEPS = Size(
    units=20,
    steps=100,
    delays=(1, 20),
    layers=(2,),
    densities=(0.3,),
    timed_units=12,
    duration=30.0,
    timed_delays=("spread",),
    timed_layers=(1,),
    timed_densities=(1.0,),
    dts=(0.1, 0.05),
)


def name(cell):
    return f"{cell.title}, delay {cell.delay}"


def test_cells_are_all_combinations():
    size = Size()
    found = cells(size)
    timed = [cell for cell in found if cell.continuous]
    assert len(found) - len(timed) == len(CLOCKED) * 3 * 2 * 3
    assert len(timed) == len(CONTINUOUS) * 2 * 2 * 3
    assert len({(c.title, c.continuous, c.delay, c.density, c.layers) for c in found}) == len(found)
    assert all(len(cell.dts) == 5 for cell in timed)  # four halvings


@pytest.mark.peer
@pytest.mark.parametrize("cell", [c for c in cells(STEPS) if not c.continuous], ids=name)
def test_steps(brian2, cell):
    found = run(cell)
    assert found.ok, found
    assert found.n_events > 100
    assert found.n_different == 0
    assert found.state_error <= 1e-12


@pytest.mark.peer
@pytest.mark.parametrize("cell", [c for c in cells(STEPS) if c.continuous], ids=name)
def test_continuous_time(brian2, cell):
    """So few events say little of the order; that all have partners and are near, they do say."""
    found = run(cell)
    assert found.n_events > 8
    assert found.n_different == 0
    assert found.time_error < 10 * found.finest
    assert found.finest >= min(cell.dts) / 2**MORE_HALVINGS


@pytest.mark.peer
def test_processes_give_the_same_in_the_same_order(brian2):
    wanted = [cell for cell in cells(STEPS) if not cell.continuous][:3]
    plain, shared = (list(matrix(wanted, processes)) for processes in (1, 2))
    assert [o.cell for o in shared] == wanted
    assert [(o.n_events, o.state_error) for o in shared] == [(o.n_events, o.state_error) for o in plain]


def outcome(**changes):
    cell = Cell("EGRU, form evnn", "egru", False, "5", 1.0, 2, {})
    plain = Outcome(cell, 1234, 0, 3e-16, *[float("nan")] * 4, 0.1, 2.0, True)
    return replace(plain, **changes)


def test_page_tells_what_was_found():
    timed = Cell("LIF", "lif", True, "spread", 0.3, 1, {}, (0.1, 0.05))
    late = {"order": 1.02, "mean_order": 0.84, "time_error": 2e-3, "finest": 0.025}
    text = page([outcome(), outcome(cell=timed, **late)], Size(dts=(0.1, 0.05)), {"Brian2": "2.9.0"})
    assert "2 networks, every one holds" in text
    assert "Brian2 2.9.0." in text
    assert "| unit | layers | weights | delay 5 steps |" in text
    assert "| EGRU, form evnn | 2 | dense | 1,234; 3.0e-16 |" in text
    assert "| LIF | 1 | 30% | 1,234; 1.02 (0.84); 2.0e-03 ms at dt 0.025 ms |" in text


def test_page_shows_what_does_not_hold():
    text = page([outcome(), outcome(n_different=7, ok=False)], Size(), {})
    assert "2 networks, **1 of them fail**" in text
    assert "**1,234, 7 differ; 3.0e-16**" in text
