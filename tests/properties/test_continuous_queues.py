"""The queues of continuous time alone: against a list, and against a sorted list."""

import bisect

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evsim.core.queues import FIELDS, MessageQueue, UnitSchedule

#: Few different ones, so that there are ties.
TIMES = st.one_of(st.sampled_from([0.0, 1.0, 1.0 + 2**-52, 2.5, np.inf]), st.floats(0, 5))
SIZES = st.sampled_from([1, 2, 63, 64, 65, 128, 4096, 4097])


def earliest(entries):
    """(entry, time): the first of the smallest."""
    entry = min(range(len(entries)), key=entries.__getitem__)
    return entry, entries[entry]


class ScheduleMachine(RuleBasedStateMachine):
    """A schedule does what a list does."""

    @initialize(n=SIZES)
    def open(self, n):
        self.schedule, self.entries = UnitSchedule(n), [np.inf] * n

    def replace(self, entry, time):
        self.schedule.set(entry, time)
        self.entries[entry] = time

    @rule(data=st.data(), time=TIMES)
    def set_any(self, data, time):
        self.replace(data.draw(st.integers(0, len(self.entries) - 1)), time)

    @rule(time=TIMES)
    def set_earliest(self, time):
        """As after an event: the entry that comes first gets another time."""
        self.replace(self.schedule.peek()[0], time)

    @rule(seed=st.integers(0, 2**16), count=st.integers(1, 200))
    def set_many(self, seed, count):
        rng = np.random.default_rng(seed)
        for entry in rng.integers(0, len(self.entries), count).tolist():
            self.replace(entry, float(rng.choice([rng.integers(0, 4), np.inf, rng.uniform(0, 4)])))

    @rule(data=st.data(), seed=st.integers(0, 2**16))
    def write(self, data, seed):
        """A whole population at once."""
        rng, n = np.random.default_rng(seed), len(self.entries)
        first = data.draw(st.integers(0, n - 1))
        count = data.draw(st.integers(1, n - first))
        times = np.where(rng.random(count) < 0.3, np.inf, rng.integers(0, 6, count) / 2)
        self.schedule.write(first, times)
        self.entries[first : first + count] = times.tolist()

    @rule(count=st.integers(1, 70))
    def drain(self, count):
        """One after the other, as a run does."""
        for _ in range(count):
            assert self.schedule.peek() == earliest(self.entries)
            self.replace(self.schedule.peek()[0], np.inf)

    @invariant()
    def same(self):
        if hasattr(self, "schedule"):
            assert self.schedule.peek() == earliest(self.entries)
            assert self.schedule.peek() == earliest(self.entries)  # to look changes nothing


KEY = ("time", "source", "event", "projection", "place")


def order(message):
    """The total order of messages, as the docstring of messages.pxd has it."""
    fields = dict(zip(FIELDS, message, strict=True))
    return tuple(fields[name] for name in KEY)


@st.composite
def messages(draw):
    """Numbers from small sets, so that each field decides now and then."""
    time = draw(st.one_of(st.sampled_from([0.0, 1.0, 2.5]), st.floats(0, 5)))
    sent, value, gated = draw(st.floats(0, 5)), draw(st.floats(-2, 2)), draw(st.floats(-2, 2))
    small = [draw(st.integers(0, 2)) for _ in range(3)]
    return (time, sent, value, gated, small[0], small[1] - 1, small[2], draw(st.integers(0, 1)), 3)


class MessageMachine(RuleBasedStateMachine):
    """Messages come out as from a sorted list; none is lost, doubled or changed."""

    def __init__(self):
        super().__init__()
        self.queue, self.sorted, self.keys = MessageQueue(), [], set()

    def push(self, message):
        if order(message) in self.keys:
            return  # no two are alike in a run
        self.keys.add(order(message))
        self.queue.push(message)
        bisect.insort(self.sorted, message, key=order)

    @rule(message=messages())
    def push_one(self, message):
        self.push(message)

    @rule(seed=st.integers(0, 2**16), count=st.integers(1, 200))
    def push_many(self, seed, count):
        rng = np.random.default_rng(seed)
        for _ in range(count):
            floats = np.append(np.round(rng.uniform(0, 3), 1), rng.normal(size=3))
            self.push((*floats.tolist(), *rng.integers(0, 3, 5).tolist()))

    @precondition(lambda self: self.sorted)
    @rule(count=st.integers(1, 150))
    def pop(self, count):
        for _ in range(min(count, len(self.sorted))):
            assert self.queue.peek() == self.sorted[0]
            first = self.queue.pop()
            assert first == self.sorted.pop(0)
            self.keys.remove(order(first))

    @invariant()
    def same(self):
        assert len(self.queue) == len(self.sorted)
        assert self.queue.peek() == (self.sorted[0] if self.sorted else None)


TestSchedule = ScheduleMachine.TestCase
TestMessages = MessageMachine.TestCase
TestSchedule.settings = settings(max_examples=30, stateful_step_count=25)
TestMessages.settings = settings(max_examples=30, stateful_step_count=25)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 4097, 64**3 + 1])
def test_a_schedule_sorts(n):
    rng = np.random.default_rng(n)
    count = min(n, 5000)
    entries, times = rng.choice(n, count, replace=False), rng.integers(0, 50, count).astype(float)
    schedule = UnitSchedule(n)
    for entry, time in zip(entries.tolist(), times.tolist(), strict=True):
        schedule.set(entry, time)
    found = []
    for _ in range(count):
        found.append(schedule.peek())
        schedule.set(found[-1][0], np.inf)
    by = np.lexsort((entries, times))
    assert found == list(zip(entries[by].tolist(), times[by].tolist(), strict=True))
    assert schedule.peek() == (0, np.inf)


def test_what_went_in_first_does_not_matter():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 5, indexing="ij"), axis=-1).reshape(-1, 5)
    made = [(float(t), 0.0, 1.0, 1.0, s, e, place, p, s) for t, s, e, p, place in grid.tolist()]
    for _ in range(3):
        queue = MessageQueue()
        for k in rng.permutation(len(made)).tolist():
            queue.push(made[k])
        assert [queue.pop() for _ in made] == made


def test_bad_calls():
    with pytest.raises(ValueError, match="0 entries"):
        UnitSchedule(0)
    for entry in (-1, 3):
        with pytest.raises(IndexError, match=str(entry)):
            UnitSchedule(3).set(entry, 1.0)
    with pytest.raises(IndexError, match="2 to 4 of 3"):
        UnitSchedule(3).write(2, np.zeros(2))
    with pytest.raises(IndexError, match="no message"):
        MessageQueue().pop()
