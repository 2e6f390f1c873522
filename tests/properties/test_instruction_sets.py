"""Whole runs and replays of random networks are the same bits on every instruction set of this machine."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evsim.adjoint import Adjoint
from evsim.core import kernels
from evsim.simulation import Simulation
from oracles.random_networks import Recipe, bits, facts, recipes

SHAPES = ("triangle", "rectangle", "fast_sigmoid")


@contextlib.contextmanager
def instruction_set(name: str):
    before = kernels.in_use()
    kernels.use(name)
    try:
        yield
    finally:
        kernels.use(before)


def everything(recipe: Recipe, shape: str) -> list:
    """Events, states, tapes, counters and gradients of two windows of a run, and an online step then."""
    simulation = Simulation(recipe.build(), threads=1)
    adjoint = Adjoint(simulation.plan, shape, gamma=0.7, eps=2.0, threads=1)
    found = []
    for window in (1, 2):
        log = simulation.run(recipe.stimulus(window), carry=window > 1)
        gradients = adjoint.replay(log, recipe.losses(window), inputs=True, initial=True)
        found += [facts(log), {name: log[name].tape.tobytes() for name in log if log[name].tape is not None}]
        found += [bits(gradients), bits(gradients.inputs), log.counters, gradients.counters]
        found += [bits(initial) for initial in gradients.initial.values()]
    after = simulation.step({name: dense[0] for name, dense in recipe.stimulus(3).items()})
    return [*found, {name: value.tobytes() for name, value in after.items()}]


@pytest.mark.parametrize("name", [name for name in kernels.available() if name != "baseline"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=30)
@given(data=st.data())
def test_every_instruction_set_gives_what_the_baseline_gives(name, dtype, data):
    recipe, shape = data.draw(recipes(dtypes=(dtype,))), data.draw(st.sampled_from(SHAPES))
    with instruction_set("baseline"):
        expected = everything(recipe, shape)
    with instruction_set(name):
        found = everything(recipe, shape)
    assert found == expected
