"""Counts of what became of damaged files, kept in a file so that a run can go on where it ended."""

import collections
import json
import time

from fuzz.judging import FINE

#: Files after which counts are put on disk.
OFTEN = 200


class Tally:
    """Counts by (kind of damage, outcome).

    Parameters
    ----------
    seed, first : int
        Seed of the files, and the first of them.
    path : Path, optional
        Where counts are kept; what is there is gone on from, and its seed counts.

    Attributes
    ----------
    counts : Counter
    next : int
        The first file that was not counted.
    """

    def __init__(self, seed, first, path=None):
        self.seed, self.next, self.path, self.counts = seed, first, path, collections.Counter()
        self._before, self._begun = 0.0, time.monotonic()
        if path is not None and path.exists():
            kept = json.loads(path.read_text())
            self.seed, self.next, self._before = kept["seed"], kept["next"], kept["seconds"]
            self.counts.update({tuple(key.split(": ")): n for key, n in kept["counts"].items()})

    @property
    def seconds(self):
        """Time that all of it took."""
        return self._before + time.monotonic() - self._begun

    @property
    def n_findings(self):
        """Files that did what none may do."""
        return sum(n for (_, outcome), n in self.counts.items() if outcome not in FINE)

    def add(self, number, kind, outcome):
        """Count file ``number``."""
        self.counts[kind, outcome] += 1
        self.next = number + 1
        if self.next % OFTEN == 0:
            self.keep()

    def keep(self):
        """Put the counts on disk."""
        if self.path is None:
            return
        counts = {": ".join(key): n for key, n in sorted(self.counts.items())}
        text = json.dumps({"seed": self.seed, "next": self.next, "seconds": self.seconds, "counts": counts})
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self.path)

    def __str__(self):
        """A line for each kind of damage, and one for all."""
        lines = []
        for kind in sorted({kind for kind, _ in self.counts}):
            row = {outcome: n for (k, outcome), n in sorted(self.counts.items()) if k == kind}
            lines.append(f"{kind:18s} " + ", ".join(f"{outcome}: {n}" for outcome, n in row.items()))
        total = sum(self.counts.values())
        lines.append(f"{total} files in {self.seconds:.0f} s, {self.n_findings} findings")
        return "\n".join(lines)
