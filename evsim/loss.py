"""Losses: the value and its gradient together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evsim.core.softmax import differentiate, shift
from evsim.errors import GradientError

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
    gradient, at_target, wrong = shift(np.ascontiguousarray(state), wanted, n_classes)
    if wrong >= 0:
        raise GradientError(
            "cross_entropy",
            f"target {classes.flat[wrong]} is outside 0..{n_classes - 1}",
            "or -1 to ignore a step",
        )
    counted = max(int(np.count_nonzero(wanted >= 0)), 1)
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
