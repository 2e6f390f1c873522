"""Estimates of energy, worked out by hand from the stated costs."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evsim.energy import (
    ACCESS,
    HOROWITZ_45NM_FLOAT16,
    HOROWITZ_45NM_FLOAT32,
    HOROWITZ_45NM_INT8,
    Costs,
    Energy,
    Update,
    dense_twin,
    energy,
    energy_table,
)
from evsim.errors import ParameterError
from evsim.operations import dense_operations, total
from oracles.pruning_cases import refused


def layer(macs=1000.0, activity=0.25, density=0.1, sparse=True, n=100, unit="EGRU", **other):
    """hidden -> hidden, 100 units, three gates."""
    row = dense_operations([1, n])[1]
    facts = {"activity": activity, "nonzeros": round(density * row.places), "unit": unit}
    return replace(row, macs=macs, sparse=sparse, **facts, **other)


def test_the_costs_are_those_of_the_source():
    """Horowitz, ISSCC 2014, fig. 1.1.9, in pJ."""
    one, half, small = HOROWITZ_45NM_FLOAT32, HOROWITZ_45NM_FLOAT16, HOROWITZ_45NM_INT8
    assert (one.multiply, one.add, one.weight_bytes) == (3.7, 0.9, 4)
    assert (half.multiply, half.add, half.weight_bytes) == (1.1, 0.4, 2)
    assert (small.multiply, small.add, small.weight_bytes) == (0.2, 0.1, 1)
    assert all((c.gate_multiply, c.gate_add) == (3.7, 0.9) for c in (one, half, small))
    assert ACCESS == {"cache_8kb": 10, "cache_32kb": 20, "sram_1mb": 100, "dram": 1300, "dram_high": 2600}


def test_a_sparse_layer_by_hand():
    """1,000 MACs, 25 of 100 units send; weights of 4 + 4 bytes from 1 MB, the rest in 32 kB."""
    found = energy([layer()])
    assert found.arithmetic == pytest.approx(1000 * (3.7 + 0.9) / 1000)
    assert found.weights == pytest.approx(1000 * 8 * 12.5 / 1000)
    assert found.events == pytest.approx(25 * 8 * 2 * 2.5 / 1000)  # written, and read
    gates = (2 + 3 * 8) * 3.7 + (9 + 3 * 8) * 0.9
    assert found.states == pytest.approx(100 * (gates + 2 * 4 * 2.5) / 1000)
    assert found.total == pytest.approx(4.6 + 100 + 1.0 + found.states)
    assert json.loads(json.dumps(found.summary()))["total"] == found.total


@pytest.mark.parametrize(
    ("costs", "arithmetic", "weights"),
    [
        (HOROWITZ_45NM_FLOAT16, 1.5, 4 * 162.5),
        (HOROWITZ_45NM_INT8, 0.3, 3 * 162.5),
    ],
)
def test_narrow_weights_in_dram(costs, arithmetic, weights):
    found = energy([layer()], costs, "dram", near="cache_8kb")
    assert found.arithmetic == pytest.approx(arithmetic)
    assert found.weights == pytest.approx(weights)
    assert found.events == pytest.approx(25 * 8 * 2 * 1.25 / 1000)


def test_dense_rows_store_no_columns():
    assert energy([layer(sparse=False)]).weights == pytest.approx(1000 * 4 * 12.5 / 1000)


def test_the_dense_twin_reads_every_weight_once_and_sends_no_unit_numbers():
    (twin,) = dense_twin([layer()])
    assert (twin.macs, twin.density, twin.sparse, twin.unit) == (30_000, 1, False, "GRU")
    found = energy([twin])
    assert found.arithmetic == pytest.approx(30_000 * 4.6 / 1000)
    assert found.weights == pytest.approx(30_000 * 4 * 12.5 / 1000)
    assert found.events == pytest.approx(100 * 4 * 2 * 2.5 / 1000)
    gates = (2 + 3 * 8) * 3.7 + (7 + 3 * 8) * 0.9
    assert found.states == pytest.approx(100 * (gates + 20) / 1000)
    assert energy([twin], HOROWITZ_45NM_INT8).events == pytest.approx(100 * 2 * 2.5 / 1000)
    assert dense_twin(dense_operations([4, 5], "LSTM"))[0].unit == "LSTM"


def test_what_goes_two_ways_is_written_once_and_each_unit_is_updated_once():
    """input -> 1, 1 -> 1, 1 -> 2, 2 -> 2: layer 1 is read twice."""
    rows = dense_operations([10, 20, 30], "LSTM")
    found = energy(rows)
    read, written = (10 + 20 + 20 + 30) * 4, (10 + 20 + 30) * 4
    assert found.events == pytest.approx((read + written) * 2.5 / 1000)
    gates = (3 + 5 * 8) * 3.7 + (5 + 5 * 8) * 0.9
    assert found.states == pytest.approx((20 + 30) * (gates + 20) / 1000)
    assert found.arithmetic == pytest.approx(total(rows).macs * 4.6 / 1000)


def test_a_row_that_is_looked_up_is_added():
    """300 columns: no products, nothing sent."""
    found = energy([layer(macs=300.0, activity=1.0, sparse=False, looked_up=True)])
    assert found.arithmetic == pytest.approx(300 * 0.9 / 1000)
    assert found.weights == pytest.approx(300 * 4 * 12.5 / 1000)
    assert found.events == 0
    assert found.states > 0


@given(
    st.floats(0.001, 1),
    st.floats(0.001, 1),
    st.sampled_from([HOROWITZ_45NM_FLOAT32, HOROWITZ_45NM_INT8]),
    st.sampled_from(list(ACCESS)),
)
def test_sparsity_saves_what_it_is_said_to_save(alpha, density, costs, memory):
    """Weights cost by MAC; below one weight in two (three with int8), columns are worth storing."""
    macs = alpha * density * 30_000
    found = energy([layer(macs=macs, activity=alpha, density=density)], costs, memory)
    dense = energy(dense_twin([layer()]), costs, memory)
    assert found.arithmetic == pytest.approx(alpha * density * dense.arithmetic, rel=1e-9)
    more = (costs.weight_bytes + costs.index_bytes) / costs.weight_bytes
    assert found.weights == pytest.approx(more * alpha * density * dense.weights, rel=1e-9)
    assert found.states == pytest.approx(dense.states + 100 * 2 * 0.9 / 1000, rel=1e-9)  # compare, reset


def test_costs_and_units_of_ones_own():
    costs = Costs("mine", 1, 1, 0, 0, 8, 0, event_bytes=0, state_bytes=0)
    rows = [layer(unit="LeakyReadout")]
    found = energy(rows, costs, "cache_8kb", updates={"LeakyReadout": Update(1, 1, 0, 1)})
    assert found == Energy(2.0, 10.0, 0.0, 0.0)
    refused(lambda: energy(rows), ParameterError, "LeakyReadout", "updates")
    refused(lambda: energy([]), ParameterError, "no projections")
    refused(lambda: energy([layer()], memory="disk"), ParameterError, "disk", "sram_1mb")
    refused(lambda: energy([layer()], near="disk"), ParameterError, "disk")
    refused(lambda: energy([total([layer()])]), ParameterError, "'total'")


def test_the_table_compares_with_its_first_row():
    rows = [("dense GRU", energy(dense_twin([layer()]))), ("EGRU", energy([layer()]))]
    console = Console(width=80, file=io.StringIO())
    console.print(energy_table(rows))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "dense GRU 138 1,500 2 14.4 1,654 1.0 x" in lines
    assert "EGRU 4.6 100 1 14.6 120 13.8 x" in lines
