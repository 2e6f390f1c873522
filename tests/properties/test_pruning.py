"""What holds for every mask, schedule and pruned network."""

from itertools import pairwise

import numpy as np
import scipy.sparse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evsim.adjoint import Adjoint
from evsim.models import EGRU, EventSource
from evsim.network import Network
from evsim.optimizer import SGD, Adam
from evsim.pruning import CubicSchedule, RoundSchedule, magnitude_mask
from evsim.simulation import Simulation
from evsim.sparsity import sparsified, stored_structure, with_structure
from oracles.random_networks import recipes

SCOPES = st.sampled_from(["projection", "block", "global"])
SHARES = st.one_of(st.sampled_from([0.0, 0.5, 0.8, 0.999]), st.floats(0, 1, exclude_max=True))


@st.composite
def networks(draw):
    """An EGRU with weights of few different sizes, so that there are ties and zeros; some of them sparse."""
    units, inputs = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 3, 1000]))

    def weights(shape):
        whole = rng.integers(-levels, levels + 1, shape) / levels
        return scipy.sparse.csr_array(whole) if draw(st.booleans()) else whole

    net = Network(dtype=draw(st.sampled_from(["float32", "float64"])))
    source, hidden = net.add(EventSource(inputs, "cue")), net.add(EGRU(units, "hidden"))
    net.connect(source, hidden, weights((inputs, 3 * units)))
    net.connect(hidden, hidden, weights((units, 3 * units)))
    return net


def matrices(net, masks):
    """What is kept as dense matrices of bool, by projection; True only where something is stored."""
    found = {}
    for p in net.projections.values():
        found[p.name] = np.zeros(p.shape, bool)
        if p.is_sparse:
            row = np.repeat(np.arange(p.shape[0]), np.diff(p.indptr))
            found[p.name][row, p.indices] = masks[p.weight.name]
        else:
            found[p.name][...] = masks[p.weight.name]
    return found


@given(networks(), SHARES, SCOPES)
def test_masks_take_the_number_that_was_asked_for(net, share, scope):
    masks = magnitude_mask(net, share, scope=scope)
    kept = matrices(net, masks)
    stored = matrices(net, {name: np.ones(mask.shape, bool) for name, mask in masks.items()})
    groups = {
        "projection": [[name] for name in kept],
        "global": [list(kept)],
        "block": [[(name, b)] for name in kept for b in range(3)],
    }[scope]
    for group in groups:
        if scope == "block":
            ((name, b),) = group
            width = kept[name].shape[1] // 3
            columns = np.s_[:, b * width : (b + 1) * width]
            mine, there = kept[name][columns].ravel(), stored[name][columns].ravel()
            size = np.abs(net.projections[name].to_dense()[columns]).ravel()
        else:
            mine = np.concatenate([kept[name].ravel() for name in group])
            there = np.concatenate([stored[name].ravel() for name in group])
            size = np.concatenate([np.abs(net.projections[name].to_dense()).ravel() for name in group])
        assert (~mine).sum() == max(round(share * mine.size), (~there).sum())
        gone = there & ~mine
        if gone.any() and mine.any():
            assert size[gone].max() <= size[mine].min()


@given(networks(), SHARES, SHARES, SCOPES)
def test_masks_are_idempotent_and_grow(net, share, other, scope):
    first = magnitude_mask(net, share, scope=scope)
    for before in (None, first):
        again = magnitude_mask(net, share, scope=scope, before=before)
        assert all(np.array_equal(first[name], again[name]) for name in first)
    later = magnitude_mask(net, other, scope=scope, before=first)
    assert not any((later[name] & ~first[name]).any() for name in first)
    pruned = sparsified(net, first)
    again = magnitude_mask(pruned, share, scope=scope)
    assert all(mask.all() for mask in again.values())


@st.composite
def schedules(draw):
    begin, final = draw(st.integers(1, 50)), draw(SHARES)
    every = draw(st.integers(1, 30))
    if draw(st.booleans()):
        return RoundSchedule(begin, every, draw(st.integers(1, 8)), final)
    initial = draw(st.floats(0, final))
    return CubicSchedule(begin, begin + draw(st.integers(0, 100)), final, initial, every)


@given(schedules())
def test_schedules_only_grow_and_end_where_they_should(schedule):
    shares = [schedule(step) for step in range(schedule.last + 40)]
    assert all(0 <= share <= schedule.final for share in shares)
    assert all(b >= a - 1e-12 for a, b in pairwise(shares))
    due = [step for step in range(schedule.last + 40) if schedule.due(step)]
    assert due[-1] == schedule.last
    assert due[0] == schedule.begin
    assert shares[schedule.last] == schedule.final
    assert shares[0] == 0


@given(networks(), SHARES, st.booleans(), st.integers(0, 2**32 - 1))
def test_masks_survive_steps(net, share, adam, seed):
    parameters, rng = net.parameters(), np.random.default_rng(seed)
    optimizer = (
        Adam(parameters, lr=0.1, weight_decay=0.1, clip=1.0)
        if adam
        else SGD(parameters, lr=0.1, momentum=0.9, clip=1.0)
    )

    def step():
        optimizer.step({n: rng.normal(size=p.values.shape).astype(net.dtype) for n, p in parameters.items()})

    step()
    masks = magnitude_mask(net, share)
    optimizer.keep(masks)
    for _ in range(3):
        step()
        for name, mask in masks.items():
            assert not parameters[name].values[~mask].any()
            state = optimizer.state()
            assert not any(state[f"{slot}/{name}"][~mask].any() for slot in optimizer.slots)


@given(recipes(), SHARES, SCOPES)
@settings(max_examples=60)
def test_pruned_networks_run_as_dense_ones_with_zeros(recipe, share, scope):
    """EGRU, LIF and delta units, delays, several lanes: the same bits forwards, gradients to rounding."""
    net = recipe.build()
    assume(net.projections)
    masks = magnitude_mask(net, share, "*", scope)
    zeros, small = net.copy(), sparsified(net, masks)
    for name, mask in masks.items():
        weight = zeros.parameters()[name]
        weight.assign(np.where(mask, weight.values, 0))
    logs, gradients = [], []
    for twin in (zeros, small):
        simulation = Simulation(twin, threads=1)
        logs.append(simulation.run(recipe.stimulus()))
        adjoint = Adjoint(simulation.plan, eps=2.0, threads=1)
        gradients.append(adjoint.replay(logs[-1], recipe.losses()))
    for name in logs[0]:
        one, other = logs[0][name], logs[1][name]
        if one.events is not None:
            np.testing.assert_array_equal(one.events.unit, other.events.unit)
            np.testing.assert_array_equal(one.events.value, other.events.value)
        if one.tape is not None:
            np.testing.assert_array_equal(one.state, other.state)
    if recipe.dtype == "float32":  # a dot product is eight partial sums over what is stored: to rounding only
        return
    for name, whole in gradients[0].items():
        wanted = whole[masks[name]] if name in masks else whole
        scale = max(float(np.abs(whole).max(initial=0)), 1e-6)
        assert np.abs(gradients[1][name] - wanted).max(initial=0) <= 1e-10 * scale, name


@given(networks(), SHARES)
def test_a_structure_gives_the_network_back(net, share):
    small = sparsified(net, magnitude_mask(net, share))
    structure = stored_structure(small)
    if not any(p.is_sparse for p in net.projections.values()):
        again = with_structure(net, structure)
        for name, p in small.parameters().items():
            np.testing.assert_array_equal(p.values, again.parameters()[name].values)
    again = with_structure(small, structure)
    assert all(np.array_equal(structure[name], array) for name, array in stored_structure(again).items())


def test_a_share_of_almost_all_leaves_a_rounded_number():
    net = Network()
    net.add(EventSource(2, "cue"))
    net.add(EGRU(3, "hidden"))
    net.connect("cue", "hidden")
    assert magnitude_mask(net, 0.95)["cue->hidden.weight"].sum() == 1
    assert magnitude_mask(net, 0.99)["cue->hidden.weight"].sum() == 0
