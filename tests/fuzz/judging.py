"""Reads damaged files, and says what became of them."""

import numpy as np

from evsim.errors import EvsimError
from evsim.eventlog import EventLog
from evsim.inspection import describe
from evsim.log_file import LogFile

#: What becomes of a file, if all is well.
FINE = ("refused", "equal", "prefix", "harmless", "not made")


def look(path, rng):
    """All that is in a file, as far as it can be had: (what was asked for, answer or EvsimError)."""
    answers = []

    def ask(what, question):
        try:
            answers.append((what, question()))
        except EvsimError as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
            answers.append((what, error))
            if isinstance(error.__cause__, MemoryError):
                raise MemoryError(str(error)) from error
            if isinstance(error.__cause__, AssertionError):
                raise

    if rng.random() < 0.1:  # else a window of all, which is the same
        ask("log", lambda: EventLog.open(path))
    try:
        file = LogFile(path)
    except EvsimError as error:
        return [*answers, ("log", error)], None
    with file:
        a, b = sorted(rng.uniform(file.start, max(file.stop, file.start), 2).tolist())
        ask("summary", file.summary)
        ask("parameters", lambda: file.parameters)
        ask("network", lambda: file.network)
        ask("check", file.check)
        if "log" not in dict(answers):
            ask("log", file.window)
        ask("window", lambda: file.window(a, b))
        for name, population in file.populations.items():
            ask((name, "state"), lambda population=population: population.state(a, b))
            if population.sends:
                ask((name, "table", None, None), population.table)
                ask((name, "table", a, b), lambda population=population: population.table(a, b))
                ask((name, "unit_events"), lambda population=population: population.unit_events)
                ask((name, "block_counts"), lambda population=population: population.block_counts)
        ask("stop", lambda: (file.complete, file.stop))
        seldom = rng.random()
        if seldom < 0.1:
            ask("windows", lambda: sum(len(log.populations) for log in file.windows(500)))
        elif seldom < 0.2:
            ask("description", lambda: describe(file))
        elif seldom < 0.25:
            ask("copy", lambda: file.copy(path.with_suffix(".copy"), overwrite=True))
    return answers, file


def same_columns(mine, theirs):
    return mine.columns.keys() == theirs.columns.keys() and all(
        np.array_equal(column, getattr(theirs, name)) for name, column in mine.columns.items()
    )


def judge(answers, truth):
    """What became of a file that was damaged blindly, or an AssertionError."""
    said = dict(answers)
    refused = any(isinstance(answer, EvsimError) for answer in said.values())
    if "stop" not in said:
        assert all(isinstance(answer, EvsimError) for answer in said.values()), "one opens what is refused"
        return "refused"
    complete, stop = said["stop"]
    shorter = stop != truth.stop
    if shorter:
        assert not complete, "a shorter run that says it is complete"
        assert stop < truth.stop, "a longer run"
    opened = said["log"]
    if not isinstance(opened, EvsimError) and not shorter:
        assert opened.equal(truth.log), "EventLog.open gives other data"
    for what, answer in said.items():
        if isinstance(answer, EvsimError) or not isinstance(what, tuple):
            continue
        name, what, *window = what
        if what == "table":
            start, end = (window[0], window[1]) if window[0] is not None else (None, stop)
            expected = truth.log[name].table(start, min(end, stop))
            assert same_columns(answer, expected), f"the table of {name} is not the truth"
        elif what == "unit_events":
            table = truth.log[name].table(None, stop)
            count = np.bincount(table.node, minlength=answer.size).reshape(answer.shape)
            assert np.array_equal(answer, count), f"the counts of {name} are not the truth"
    if said["check"] == [] and not shorter:
        assert not refused, "check finds nothing wrong with a file that is refused"
    return "refused" if refused else "prefix" if shorter else "equal"


def harmless(answers):
    """A file that may say anything, as long as it is a log."""
    said = dict(answers)
    for answer in said.values():
        if hasattr(answer, "columns"):
            assert ((answer.unit >= 0) & (answer.unit < answer.n_units)).all(), "units that there are not"
            assert ((answer.lane >= 0) & (answer.lane < answer.n_lanes)).all(), "lanes that there are not"
            assert len({len(column) for column in answer.columns.values()}) == 1, (
                "columns of different lengths"
            )
        elif hasattr(answer, "populations"):
            for population in answer.populations.values():
                if population.events is not None:
                    population.events.check()
    return "refused" if any(isinstance(answer, EvsimError) for answer in said.values()) else "harmless"


class Truth:
    """What a good file holds."""

    def __init__(self, path):
        self.log = EventLog.open(path)
        with LogFile(path) as file:
            self.stop = file.stop
