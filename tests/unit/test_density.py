"""Densities against numpy.histogram2d, from memory and in pieces; what is estimated, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evsim import density as module
from evsim.core import counting
from evsim.density import density, pieces, row_bounds
from evsim.errors import LogError
from evsim.event_rows import first_step
from evsim.event_table import EventTable
from oracles.block_population import BlockPopulation

UNITS, LANES, STOP = 10, 3, 40.0


def make(n=500, dt=None, seed=0, **options):
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(0, STOP, n))
    time = time if dt is None else np.floor(time / dt) * dt
    node = (rng.beta(1, 2, n) * UNITS * LANES).astype(np.int64)
    gradient = rng.normal(size=n)
    sizes = {"n_units": UNITS, "n_lanes": LANES, "dt": dt, "n_steps": 0 if dt is None else round(STOP / dt)}
    return BlockPopulation(
        time, node, rng.random(n).astype(np.float32), **sizes, gradient=gradient, **options
    )


def as_table(population):
    lane, unit = np.divmod(population.node.astype(np.int32), UNITS)
    gradient = population.gradients(slice(None))
    return EventTable(
        "hidden", UNITS, LANES, 0.0, STOP, population.time, lane, unit, population.value, gradient
    )


def histogram(population, edges, row, n_rows, weights=None):
    """Cells as NumPy counts them, whose last column would include its right edge."""
    keep = (row >= 0) & (population.time < edges[-1])
    bins = [np.arange(n_rows + 1), edges]
    weights = None if weights is None else weights[keep]
    return np.histogram2d(row[keep], population.time[keep], bins=bins, weights=weights)[0]


# -- the core --------------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from([np.uint16, np.uint32, np.uint64]))
def test_cells_are_those_of_a_plain_loop(data, dtype):
    nodes = np.array(data.draw(st.lists(st.integers(0, 12), max_size=40)), dtype)
    first, n_rows = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 4))
    table = np.array(data.draw(st.lists(st.integers(-1, n_rows - 1), max_size=10)), np.int32)
    cuts = st.lists(st.integers(0, len(nodes)), min_size=1, max_size=6)
    ends = np.array(sorted(data.draw(cuts)), np.int64)
    values = np.arange(len(nodes), dtype=np.float32)
    expected, totals = np.zeros((2, len(ends), n_rows))
    for column, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        for k in range(start, stop):
            place = int(nodes[k]) - first
            if 0 <= place < len(table) and table[place] >= 0:
                expected[column, table[place]] += 1
                totals[column, table[place]] += values[k]
    counts, again = np.zeros((2, len(ends), n_rows), np.uint32)
    sums = np.zeros(counts.shape)
    counting.count_cells(nodes, ends, first, table, counts)
    counting.sum_cells(nodes, values, ends, first, table, again, sums)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(again, expected)
    np.testing.assert_array_equal(sums, totals)
    per_node = np.zeros(9, np.int64)
    assert counting.count_nodes(nodes, per_node) == (nodes >= 9).sum()
    np.testing.assert_array_equal(per_node, np.bincount(nodes.astype(np.int64), minlength=9)[:9])


@given(st.data())
def test_synchrony_sums_are_those_of_the_counts_in_bins(data):
    n_lanes, n_units = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    nodes = np.array(data.draw(st.lists(st.integers(0, n_lanes * n_units - 1), max_size=40)), np.uint16)
    cut = data.draw(st.integers(0, len(nodes)))  # rows come in two pieces
    cuts = st.lists(st.integers(0, len(nodes)), min_size=1, max_size=6)
    ends = np.append(sorted(data.draw(cuts)), len(nodes)).astype(np.int64)
    sums = counting.Synchrony(n_lanes, n_units)
    sums.add(nodes[:cut], ends[ends < cut])
    sums.add(nodes[cut:], ends[ends >= cut] - cut)
    bins = np.split(nodes, ends[:-1])
    count = np.array([np.bincount(part, minlength=n_lanes * n_units) for part in bins])
    count = count.reshape(len(ends), n_lanes, n_units)
    assert sums.n_bins == len(ends)
    np.testing.assert_array_equal(sums.node_counts, count.sum(axis=0).ravel())
    np.testing.assert_array_equal(sums.node_squares, (count**2).sum(axis=(0, 2)))
    np.testing.assert_array_equal(sums.lane_counts, count.sum(axis=(0, 2)))
    np.testing.assert_array_equal(sums.lane_squares, (count.sum(axis=2) ** 2).sum(axis=0))


@pytest.mark.parametrize("dt", [None, 0.5])
def test_intervals_are_those_of_each_node(dt):
    population = make(dt=dt)
    sums = counting.Intervals(UNITS * LANES)
    for rows in pieces(population, slice(0, 500), 33):
        nodes = population.nodes(rows)
        if dt is None:
            sums.add(nodes, population.times(rows))
            continue
        step = int(population.time[rows.start] / dt)
        ends = np.clip(population.row_ptr[step + 1 :], rows.start, rows.stop) - rows.start
        sums.add_steps(nodes, ends, step)
    for node in range(UNITS * LANES):
        gaps = np.diff(population.time[population.node == node]) / (dt or 1.0)
        found = (sums.counts[node], sums.sums[node], sums.squares[node])
        np.testing.assert_allclose(found, (len(gaps), gaps.sum(), (gaps**2).sum()), rtol=1e-10)
    before = list(sums.counts)
    sums.forget()
    sums.add(np.arange(30, dtype=np.uint16), np.zeros(30))
    assert list(sums.counts) == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ends": [3, 2]}, "column 1 ends at row 2, after 3, of 4 rows"),
        ({"ends": [3, 5]}, "ends at row 5"),
        ({"ends": [4]}, "1 columns for counts of 2"),
        ({"table": [0, 2]}, "place 2 of 2"),
    ],
)
def test_what_does_not_fit_is_not_counted(change, match):
    given = {"ends": [3, 4], "table": [0, 1]} | change
    ends, table = np.array(given["ends"], np.int64), np.array(given["table"], np.int32)
    with pytest.raises(ValueError, match=match):
        counting.count_cells(np.zeros(4, np.uint16), ends, 0, table, np.zeros((2, 2), np.uint32))


# -- exact -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [None, 0.5])
@pytest.mark.parametrize("size", [5, 64, 2**20])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_window_is_counted_as_by_numpy(monkeypatch, dt, size, in_memory):
    monkeypatch.setattr(module, "PIECE", size)
    monkeypatch.setattr(module.pieces, "__defaults__", (size,))
    population = make(dt=dt)
    source = as_table(population) if in_memory else population
    found = density(source, 3.3, 31.7, 17, (4, 25), 6, exact=True, value="value", dt=dt)
    node = population.node.astype(np.int64)
    row = np.where((node >= 4) & (node < 25), (node - 4) * 6 // 21, -1)
    np.testing.assert_allclose(found.edges, np.linspace(3.3, 31.7, 18))
    np.testing.assert_array_equal(found.counts, histogram(population, found.edges, row, 6))
    sums = histogram(population, found.edges, row, 6, population.value)
    np.testing.assert_allclose(found.sums, sums)
    np.testing.assert_array_equal(found.nodes, np.bincount(np.arange(21) * 6 // 21))
    assert found.exact
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.mean, sums / found.counts)
    width = 1e-3 * (31.7 - 3.3) / 17
    np.testing.assert_allclose(found.rate, found.counts / (found.nodes[:, None] * width))


def test_a_gradient_can_be_summed_and_rows_chosen():
    population = make()
    row_of = np.full(30, -1)
    row_of[[29, 3, 4]] = [0, 1, 1]
    for source in (population, as_table(population)):
        found = density(source, edges=[0, 10, STOP], row_of=row_of, value="gradient")
        row = row_of[population.node]
        sums = histogram(population, found.edges, row, 2, population.gradients(slice(None)))
        np.testing.assert_allclose(found.sums, sums)
        np.testing.assert_array_equal(found.nodes, [1, 2])


@pytest.mark.parametrize("dt", [0.1, 0.5, 1 / 3])
def test_activity_shows_no_stripes_where_columns_cover_unequally_many_steps(dt):
    n_steps = round(STOP / dt)
    step = np.repeat(np.arange(n_steps), 2)
    sizes = {"n_units": 2, "n_lanes": 1, "dt": dt, "n_steps": n_steps}
    population = BlockPopulation(step * dt, np.tile([0, 1], n_steps), np.ones(2 * n_steps), **sizes)
    found = density(population, 0.0, STOP, 37, dt=dt)
    np.testing.assert_array_equal(found.active, 100.0)
    assert len(set(found.counts[0])) > 1
    assert found.steps.sum() == n_steps
    with pytest.raises(LogError, match="has no steps"):
        _ = density(make(), 0.0, STOP, 37).active
    with pytest.raises(LogError, match="has no sums"):
        _ = found.mean


@pytest.mark.parametrize("dt", [0.1, 0.3, 1 / 3, 1e-3, 1.0])
def test_the_first_step_of_a_time_is_that_of_its_events(dt):
    step = np.arange(2000)
    for times in (step * dt, np.nextafter(step * dt, np.inf), np.nextafter(step * dt, -1.0)):
        np.testing.assert_array_equal(first_step(times, dt), step)
    np.testing.assert_array_equal(first_step((step + 0.01) * dt, dt), step + 1)
    np.testing.assert_array_equal(first_step((step - 0.99) * dt, dt), step)


def test_very_many_nodes_need_no_table(monkeypatch):
    population = make()
    expected = density(population, 0.0, STOP, 9, (4, 25), 6)
    monkeypatch.setattr(module, "MOST_PLACES", 20)
    found = density(population, 0.0, STOP, 9, (4, 25), 6)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.nodes, expected.nodes)
    estimated = density(population, 0.0, STOP, 9, (4, 25), 6, exact=False)
    assert estimated.counts.shape == expected.counts.shape


def test_rows_by_default_cover_equally_many_nodes():
    columns = [np.zeros(0), np.zeros(0, np.int64), np.zeros(0)]
    found = density(BlockPopulation(*columns, n_units=500, n_lanes=2), 0, 1, 5)
    assert found.nodes.tolist() == [3] * 333 + [1]
    assert not found.counts.any()


@pytest.mark.parametrize("dt", [None, 0.5])
def test_edges_cost_only_the_blocks_they_lie_in(dt):
    population = make(dt=dt)
    edges = np.array([-1.0, 0.0, 7.5, 20.0, 20.0, 39.9, 41.0])
    np.testing.assert_array_equal(row_bounds(population, edges), np.searchsorted(population.time, edges))
    assert population.read <= (4 * 7 if dt is None else 0)


def test_pieces_are_of_whole_blocks():
    population = make()
    cuts = [(rows.start, rows.stop) for rows in pieces(population, slice(3, 60), 20)]
    assert cuts == [(3, 21), (21, 35), (35, 49), (49, 60)]
    cuts = [(rows.start, rows.stop) for rows in pieces(population, slice(3, 12), 4)]
    assert cuts == [(3, 7), (7, 11), (11, 12)]
    assert list(pieces(population, slice(5, 5))) == []


# -- estimated -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dt", [None, 0.5])
def test_many_events_are_estimated_from_blocks(monkeypatch, dt):
    monkeypatch.setattr(module, "MOST_ROWS", 3000)
    population = make(200_000, dt=dt, block=100, groups=3)
    found = density(population, 5.0, 35.0, 12, (4, 25), 6)
    assert population.read <= 200
    assert not found.exact
    true = density(population, 5.0, 35.0, 12, (4, 25), 6, exact=True)
    assert true.exact
    assert abs(int(found.counts.sum()) - int(true.counts.sum())) < 0.002 * true.counts.sum()
    # The noise of counting is the square root of the count.
    apart = found.counts.astype(float) - true.counts
    assert (np.abs(apart) < 5 * np.sqrt(true.counts) + 5).all()
    assert density(population, 5.0, 5.1, 12).exact


def test_an_estimate_is_exact_where_blocks_and_groups_are_the_cells():
    time, node = np.repeat(np.arange(10.0), 8), np.tile(np.arange(8), 10)
    keep = np.random.default_rng(0).random(80) < 0.9
    time, node = time[keep], node[keep]
    sizes = {"n_units": 8, "n_lanes": 1, "block": 1, "groups": 8}
    population = BlockPopulation(time, node, np.ones(len(node)), **sizes, dt=1.0, n_steps=10)
    found, true = (density(population, 0.0, 10.0, 10, n_rows=8, exact=exact) for exact in (False, True))
    np.testing.assert_array_equal(found.counts, true.counts)


def test_an_estimate_of_nothing():
    population = make()
    for window in ((50.0, 60.0), (-5.0, -1.0)):
        assert not density(population, *window, 5, exact=False).counts.any()


# -- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"nodes": (5, 5)}, "has no nodes 5 to 5; it has 0 to 30"),
        ({"nodes": (0, 31)}, "has no nodes 0 to 31"),
        ({"n_columns": 0}, "has 0 columns"),
        ({"n_rows": 0}, "has 0 rows"),
        ({"edges": [0.0]}, "give at least two finite times"),
        ({"edges": [0.0, np.nan]}, "give at least two finite times"),
        ({"edges": [3.0, 2.0]}, "give at least two finite times"),
        ({"row_of": [0, 1]}, "for each of 30 nodes"),
        ({"row_of": [4] * 30, "n_rows": 3}, "give a row below 3"),
        ({"value": "time_gradient"}, "its events have no time gradient"),
    ],
)
def test_what_makes_no_picture_is_refused(options, match):
    with pytest.raises(LogError, match=match):
        density(make(), **({"start": 0.0, "stop": STOP} | options))


def test_a_table_knows_its_window():
    table = as_table(make())
    assert density(table).edges[[0, -1]].tolist() == [0.0, STOP]
    with pytest.raises(LogError, match="its events have no time gradient; gradients are written by a replay"):
        density(table, value="time_gradient")
