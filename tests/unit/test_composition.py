"""What silent units and pruned weights save, alone and together: the arithmetic of the papers."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evsim.composition import Case, composition, composition_table
from evsim.operations import dense_operations

#: EvNN's language model: embedding, three layers of EGRU.
SIZES = (750, 1350, 1350, 750)


def sparse(alpha, densities, beyond=0.0, sizes=SIZES):
    """The work of an EGRU whose first input is dense; ``beyond`` is what rows add to the product."""
    rows = []
    for row, density in zip(dense_operations(sizes), densities, strict=True):
        activity = 1.0 if row.source == "input" else alpha
        nonzeros = round(density * row.places)
        predicted = activity * nonzeros
        work = {"by_activity": activity * row.places, "by_weights": float(nonzeros), "predicted": predicted}
        macs = predicted * (1 + beyond)
        rows.append(replace(row, activity=activity, nonzeros=nonzeros, macs=macs, sparse=True, **work))
    return rows


@pytest.mark.parametrize(
    ("alpha", "density", "alone", "together"),
    [(0.20, 1.0, 3.3, 3.3), (0.20, 0.2, 3.3, 16.6), (0.15, 0.2, 3.9, 19.5), (0.10, 0.2, 4.7, 23.5)],
)
def test_the_arithmetic_of_twenty_times_fewer(alpha, density, alone, together):
    """24.165 M MACs of a dense GRU; 3.04 M of them are the dense embedding's."""
    (row,) = composition([Case("EGRU", sparse(alpha, [density] * 6), 61.0)])
    assert row["dense_macs"] == 24_165_000
    assert round(row["factor_activity"], 1) == alone
    assert row["factor_weights"] == pytest.approx(1 / density)
    assert round(row["factor"], 1) == together
    assert row["product"] == pytest.approx(row["factor"]) == pytest.approx(row["product_by_projection"])
    assert row["deviation"] == pytest.approx(0, abs=1e-9)
    assert row["weight_sparsity"] == pytest.approx(1 - density)
    assert (row["label"], row["perplexity"], row["tabulated"]) == ("EGRU", 61.0, [])


def test_the_dense_embedding_caps_what_activity_saves():
    """8.0 times, however silent the layers are, unless its product is looked up."""
    silent = sparse(1e-9, [1.0] * 6)
    cost = 3.0 * SIZES[1]
    looked_up = {"looked_up": True, "places": 0, "nonzeros": 0, "dense_macs": cost, "macs": cost}
    looked_up |= {"by_activity": cost, "by_weights": cost, "predicted": cost}
    plain, tabulated = composition(
        [Case("as it is", silent), Case("tabulated", [replace(silent[0], **looked_up), *silent[1:]])]
    )
    assert round(plain["factor"], 1) == 8.0
    assert tabulated["factor"] > 5000
    assert tabulated["tabulated"] == ["input->layer1"]
    assert tabulated["dense_macs"] == 24_165_000 - 3 * 750 * 1350 + cost


def test_unequal_layers_do_not_multiply_even_if_each_projection_does():
    """Weights gone where units are active save more than the product of the sums says."""
    densities = [0.05, 0.5, 0.5, 0.5, 0.5, 0.5]
    (row,) = composition([Case("", sparse(0.1, densities))])
    dense = np.array([r.places for r in dense_operations(SIZES)])
    active, kept = np.array([1.0] + [0.1] * 5), np.array(densities)
    product = dense.sum() ** 2 / ((dense * active).sum() * (dense * kept).sum())
    measured = dense.sum() / (dense * active * kept).sum()
    assert row["product"] == pytest.approx(product)
    assert row["factor"] == pytest.approx(measured) == pytest.approx(row["product_by_projection"])
    assert row["deviation"] == pytest.approx(100 * (measured / product - 1))
    assert row["deviation"] > 20


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(-0.9, 3))
def test_what_rows_add_is_all_of_the_deviation_of_one_projection(alpha, density, beyond):
    rows = [r for r in sparse(alpha, [density] * 6) if r.source == r.target == "layer1"]
    rows = [replace(r, macs=r.predicted * (1 + beyond)) for r in rows]
    (row,) = composition([Case("", rows)])
    assert row["deviation"] == pytest.approx(100 * (1 / (1 + beyond) - 1), rel=1e-9, abs=1e-9)
    assert row["product"] == pytest.approx(row["product_by_projection"], rel=1e-9)
    assert row["activity"] == pytest.approx(alpha)


def test_dense_networks_and_silent_ones():
    nothing = sparse(0.0, [0.5] * 6)[1:2]
    dense, silent = composition([Case("GRU", dense_operations(SIZES), 70.0), Case("silent", nothing)])
    assert (dense["factor"], dense["product"], dense["deviation"]) == (1, 1, 0)
    assert (silent["macs"], silent["factor"], silent["product"], silent["deviation"]) == (0, None, None, None)
    assert json.loads(json.dumps([dense, silent])) == [dense, silent]


def test_the_table_fits_the_terminal():
    cases = [
        Case("GRU", dense_operations(SIZES), 70.0),
        Case("EGRU, 80 %", sparse(0.2, [0.2] * 6, beyond=0.08), 71.25),
        Case("looked up", [replace(sparse(0.2, [0.2] * 6)[0], looked_up=True)]),
    ]
    console = Console(width=80, file=io.StringIO())
    console.print(composition_table(composition(cases)))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert "GRU 0.0 100.0 70.0 24,165 24,165 1.0 1.0 1.0 1.0 +0.0" in lines
    assert "EGRU, 80 % 80.0 30.1 71.2 1,569 24,165 3.3 5.0 16.6 15.4 -7.4" in lines
    assert "looked up: input->layer1 tabulated, one row looked up per token" in lines
