"""Losses: the value and its gradient together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.softmax import differentiate, shift
from evsim.errors import GradientError
from evsim.timed_events import TimedEvents

#: Target of a step that does not count.
IGNORED = -1


def cross_entropy(state: NDArray, target: ArrayLike) -> tuple[float, NDArray]:
    """Mean cross-entropy of softmax(state) with the target classes, in nats, and its gradient.

    Parameters
    ----------
    state : float array, shape (n_steps, n_lanes, n_classes)
        Logits.
    target : array of int, shape (n_steps, n_lanes)
        Class of each step; -1 is ignored.

    Returns
    -------
    loss : float
        Mean over the targets that count; 0 if none do.
    gradient : ndarray, shape and dtype of ``state``
    """
    classes = np.asarray(target)
    n_classes = state.shape[-1]
    if classes.shape != state.shape[:-1] or classes.dtype.kind not in "iu":
        raise GradientError(
            "cross_entropy",
            f"targets have shape {classes.shape} and dtype {classes.dtype}",
            f"give integers {state.shape[:-1]}",
        )
    wanted = np.ascontiguousarray(classes, np.int64)
    gradient, at_target, wrong, counted = shift(np.ascontiguousarray(state), wanted, n_classes)
    if wrong >= 0:
        raise GradientError(
            "cross_entropy",
            f"target {classes.flat[wrong]} is outside 0..{n_classes - 1}",
            "or -1 to ignore a step",
        )
    counted = max(counted, 1)
    np.exp(gradient, out=gradient)
    return (differentiate(gradient, wanted, n_classes, counted) - at_target) / counted, gradient


def binary_cross_entropy(state: NDArray, target: ArrayLike) -> tuple[float, NDArray]:
    """Mean cross-entropy of logistic(state) with probabilities, a unit at a time, in nats; and its gradient.

    Parameters
    ----------
    state : float array, shape (n_steps, n_lanes, n_units)
        Logits.
    target : float array of that shape
        In [0, 1]; NaN is ignored.
    """
    goal = np.asarray(target, state.dtype)
    if goal.shape != state.shape:
        raise GradientError("binary_cross_entropy", f"targets have shape {goal.shape}", f"give {state.shape}")
    counts = ~np.isnan(goal)
    if ((goal < 0) | (goal > 1)).any():
        wrong = goal[(goal < 0) | (goal > 1)][0]
        raise GradientError(
            "binary_cross_entropy", f"target {wrong} is outside [0, 1]", "or NaN to ignore it"
        )
    number = max(int(counts.sum()), 1)
    # ln(1 + e^x) - t x, without overflow
    loss = np.where(counts, np.logaddexp(0, state) - goal * state, 0)
    probability = 0.5 + 0.5 * np.tanh(0.5 * state)
    gradient = np.where(counts, probability - goal, 0) * state.dtype.type(1 / number)
    return float(np.sum(loss, dtype=np.float64) / number), gradient


def mean_squared_error(state: NDArray, target: ArrayLike) -> tuple[float, NDArray]:
    """Mean of (state - target)^2 and its gradient.

    Parameters
    ----------
    state : float array, shape (n_steps, n_lanes, n_units)
    target : float array of that shape
        NaN is ignored.
    """
    goal = np.asarray(target, state.dtype)
    if goal.shape != state.shape:
        raise GradientError("mean_squared_error", f"targets have shape {goal.shape}", f"give {state.shape}")
    counts = ~np.isnan(goal)
    difference = np.where(counts, state - goal, 0)
    number = max(int(counts.sum()), 1)
    return float(np.sum(difference * difference, dtype=np.float64) / number), difference * state.dtype.type(
        2 / number
    )


def first_events(events: TimedEvents) -> NDArray[np.int64]:
    """Row of the first event of each unit, shape (n_lanes, n_units); -1 for units that are silent."""
    first = np.full(events.n_lanes * events.n_units, -1)
    places = events.lane.astype(np.int64) * events.n_units + events.unit
    place, row = np.unique(places, return_index=True)  # the first row of each, and rows go with time
    first[place] = row
    return first.reshape(events.n_lanes, events.n_units)


def first_event_cross_entropy(
    events: TimedEvents, target: ArrayLike, tau: float, early: float = 0.0
) -> tuple[float, NDArray[np.float64]]:
    """Mean cross-entropy of softmax(-first event time / tau) with target units, in nats, and its gradient.

    The unit that is first wins.  One that is silent counts as sending at the end of the window: it can lose,
    but nothing makes it send (see `silence`).

    Parameters
    ----------
    events : TimedEvents
        Those of the units that stand for the classes.
    target : array of int, shape (n_lanes,)
        Unit that should be first in each lane; -1 is ignored.
    tau : float
        ms.
    early : float
        Nats that each ms until the target's event costs besides.  The cross-entropy knows differences only,
        and the units that should be late can drag all others along until nobody sends.

    Returns
    -------
    loss : float
        Mean over the targets that count; 0 if none do.
    gradient : ndarray of float64, shape (n_events,)
        By event time, in 1 / ms: 0 for all but the first event of a unit in a lane.
    """
    if not (np.isfinite(tau) and tau > 0):
        raise GradientError("first_event_cross_entropy", f"tau is {tau!r}", "give a positive number of ms")
    if not (np.isfinite(early) and early >= 0):
        raise GradientError("first_event_cross_entropy", f"early is {early!r}", "give nats per ms, 0 or more")
    first = first_events(events)
    sent = first >= 0
    time = np.where(sent, np.append(events.time, 0.0)[first], events.stop)
    classes = np.asarray(target)
    if classes.shape != (events.n_lanes,):
        raise GradientError(
            "first_event_cross_entropy", f"targets have shape {classes.shape}", f"give ({events.n_lanes},)"
        )
    loss, by_logit = cross_entropy(-time[None] / tau, classes[None])
    by_time = by_logit[0] / -tau
    asked = np.flatnonzero(classes >= 0)
    if early and asked.size:
        loss += early * float((time[asked, classes[asked]] - events.start).mean())
        by_time[asked, classes[asked]] += early / asked.size
    gradient = np.zeros(len(events))
    gradient[first[sent]] = by_time[sent]
    return loss, gradient


def silence(
    integral: NDArray, silent: NDArray[np.bool_], level: float, duration: float
) -> tuple[float, NDArray[np.float64]]:
    """What silent units lack: (level - their mean state) / level, summed and divided by lanes x units.

    Units that send nothing have no event times for a loss to look at.  This one moves their states up, at
    the same strength wherever they are, until they send.

    Parameters
    ----------
    integral : ndarray, shape (n_samples, n_lanes, n_units)
        Of the state over time, in pieces as a log in continuous time has them; together they cover the run.
    silent : ndarray of bool, shape (n_lanes, n_units)
        Which units count, in which lanes.  Units that are silent in some lanes are what sparse activity is
        made of, so often only those that are silent in all lanes.
    level : float
        Positive; such as the threshold.
    duration : float
        Of the run in ms.

    Returns
    -------
    loss : float
    gradient : ndarray of float64, shape of ``integral``
        In 1 / (state x ms).
    """
    for name, value in (("level", level), ("duration", duration)):
        if not (np.isfinite(value) and value > 0):
            raise GradientError("silence", f"{name} is {value!r}", "give a positive number")
    if integral.ndim != 3 or silent.shape != integral.shape[1:]:
        raise GradientError(
            "silence",
            f"silent has shape {silent.shape}, integral {integral.shape}",
            "give (n_lanes, n_units) and (n_samples, n_lanes, n_units)",
        )
    share = 1 / max(silent.size, 1)
    lacking = 1 - integral.sum(axis=0) / (duration * level)
    slope = np.where(silent, -share / (duration * level), 0.0)
    return share * float(lacking[silent].sum()), np.broadcast_to(slope, integral.shape).copy()
