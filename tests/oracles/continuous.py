"""Networks in continuous time, twice: an ODE solver for the whole network, and closed forms.

``simulate`` is the plain one: all states of all units as one system, by SciPy, from instant to instant.
``simulate_fast`` gives the same by formulas, fast and smooth enough for `central_differences`.  Both share
what happens at an event (`oracles.continuous_driver`), which is checked by hand-computed cases.
"""

import numpy as np

from oracles.continuous_description import Description, from_network
from oracles.continuous_driver import Result
from oracles.continuous_eventprop import eventprop
from oracles.continuous_fast import FastDriver
from oracles.continuous_ode import OdeDriver

__all__ = [
    "Description",
    "Result",
    "central_differences",
    "eventprop",
    "from_network",
    "one_lane",
    "simulate",
    "simulate_fast",
]


def simulate(network, stimulus, duration, samples=(), initial=None, fixed_times=None, fixed=None, start=0.0):
    """Run one lane of a network.

    Parameters
    ----------
    network : Description
    stimulus : dict of str to (time, unit, value)
        External events by source, in any order; arrays, or what broadcasts.  Those outside of the window are
        left out.
    duration : float
        The window is [start, start + duration), in ms.
    samples : increasing times, in [start, start + duration]
    initial : dict of str to dict of str to array, optional
        States at the start by population and name, else those at rest.  Also ``"hold"`` of LIF units: for how
        much longer v is held.  The h of an LSTM is not read: it follows from c and m_o.
    fixed_times : list of (population, unit, time), optional
        Units send at these times instead of when they cross their thresholds, in the order of the list where
        times are equal, after the external events and arrivals of that instant.  Payloads are those of the
        state then: h - sent, or c of an EGRU that transmits values.
    fixed : set of str, optional
        The populations for which that holds; the others send on their own.  Default: all that emit.
    start : float

    Returns
    -------
    Result
    """
    return OdeDriver(network, stimulus, duration, samples, initial, fixed_times, fixed, start).run()


def simulate_fast(
    network, stimulus, duration, samples=(), initial=None, fixed_times=None, fixed=None, start=0.0
):
    """As `simulate`, by closed forms; EGRU by collocation of order 12."""
    return FastDriver(network, stimulus, duration, samples, initial, fixed_times, fixed, start).run()


def one_lane(stimulus, lane):
    """{source: (time, unit, value)} of one lane of {source: (time, lane, unit, value)}."""
    found = {}
    for source, columns in stimulus.items():
        time, lanes, unit, value = map(np.asarray, columns)
        found[source] = tuple(column[lanes == lane] for column in (time, unit, value))
    return found


def central_differences(f, arrays, step, pick=None, order=2):
    """Gradients of a number by central differences.

    Parameters
    ----------
    f : function of ``arrays``
        Returns the number, and a raster: anything that can be compared and has to stay the same.
    arrays : dict of str to float64 array
        Perturbed in place, and restored.
    step : float
    pick : dict of str to sequence of int, optional
        Which elements (of the flattened array), by name; names that are missing: none.  Default: all.
    order : 2 or 4
        Of the error in ``step``.

    Returns
    -------
    gradients : dict of str to array
        nan where nothing was asked for.
    changed : dict of str to array of bool
        Where the raster was another one than without perturbation: such a difference means nothing.
    """
    stencil = {2: [(1, 0.5), (-1, -0.5)], 4: [(1, 2 / 3), (-1, -2 / 3), (2, -1 / 12), (-2, 1 / 12)]}[order]
    base = f(arrays)[1]
    gradients = {name: np.full(array.shape, np.nan) for name, array in arrays.items()}
    changed = {name: np.zeros(array.shape, bool) for name, array in arrays.items()}
    for name, array in arrays.items():
        for index in range(array.size) if pick is None else pick.get(name, ()):
            at = np.unravel_index(index, array.shape)
            before, total = array[at], 0.0
            for factor, weight in stencil:
                array[at] = before + factor * step
                value, raster = f(arrays)
                # By what was really added.
                total += weight * value * factor * step / (array[at] - before)
                changed[name][at] |= raster != base
            array[at] = before
            gradients[name][at] = total / step
    return gradients, changed
