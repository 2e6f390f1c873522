"""A subject run by evsim and by Brian2, compared, and judged by stated tolerances."""

from __future__ import annotations

import time
from collections.abc import Sequence

from evsim.brian.check_steps import check_steps
from evsim.brian.check_times import check_times
from evsim.brian.library import Target
from evsim.brian.plant import Plant
from evsim.brian.result import Criterion, Crosscheck
from evsim.brian.subject import Subject

#: Largest difference of states and payloads, in steps.
STATE = 1e-12


def check(
    subject: Subject,
    *,
    target: Target = "numpy",
    dts: Sequence[float] = (0.1, 0.05, 0.025, 0.0125, 0.00625),
    tolerance: float | None = None,
    plant: Plant | None = None,
) -> Crosscheck:
    """Run a subject in both and compare.

    Parameters
    ----------
    subject : Subject
    target : {"numpy", "cython", "standalone"}
        How Brian2 runs it.
    dts : sequence of float
        In continuous time: Brian2's steps in ms.  A chaotic subject is run with the first one only.
    tolerance : float, optional
        Largest difference of states and payloads in steps, by default 1e-12; in continuous time of the order
        of convergence, by default 0.1; of a chaotic subject of rates, by default 0.01.
    plant : Plant, optional
        An error to put into Brian2's side.

    Raises
    ------
    NetworkError, StimulusError
        Something that has no twin in Brian2 here.
    MissingExtraError
        Brian2 is not installed.
    """
    began = time.perf_counter()
    result = Crosscheck(subject, plant)
    other = subject.network if plant is None else plant.into(subject.network)
    if subject.network.continuous:
        dts = sorted(dts, reverse=True)
        check_times(result, other, target, dts[:1] if subject.chaotic else dts, tolerance)
    else:
        check_steps(result, other, target, STATE if tolerance is None else tolerance)
    wrong = [entry for entry in result.entries if entry.difference]
    n_values = sum(entry.n_values for entry in result.entries)
    largest = max((entry.difference for entry in wrong), default=0.0)
    measured = (
        f"{len(wrong)} of {len(result.entries)} differ, by up to {largest:.3g}" if wrong else "all equal"
    )
    name = f"Parameters read back from Brian2, {n_values:,} values"
    result.criteria.append(Criterion(name, measured, "equal to rounding", largest, 0.0, not wrong))
    result.seconds["all"] = time.perf_counter() - began
    return result
