"""Damaged event logs, by the thousand.

None may crash, hang, take memory without bound, reach outside the file, or give data that were not written.

::

    python tests/fuzz_logs.py --files 100000 --tally counts.json

A run that was ended goes on from its counts with the same command.  File k is made from seed (``--seed``, k)
alone, so that any can be made again: ``--only K --keep PATH``.

Two kinds of damage are done.  *Blind* damage changes bytes in 9 ways (45 % of the files): what is read then
must be an error (EvsimError), or the truth, or, where the end of a journal is gone, a shorter run that says
that it is not complete.  *Sly* damage makes a file whose checksums are right, with h5py in 13 ways (30 %) or
by changing HDF5's metadata and computing its checksums (25 %): such a file may say something else, but must
not harm.

Of eleven files to be damaged, of runs in steps and in continuous time, saved whole, streamed, or left by a
writer that was killed, four are tiny, and serve for 63 % of the files.  Each damaged file is opened, read
whole and in windows, and checked; every tenth also once more with `EventLog.open`, by `describe`, and in many
windows, and every twentieth is copied.  That is done in a worker process, with 1 GB of memory more than it
starts with and 2 s of computing time for each file.  A core reads some 40 files a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from fuzz.judging import look
from fuzz.running import damage, prepare, watch, work
from fuzz.tally import Tally


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, help="append what is wrong to this file")
    parser.add_argument("--tally", type=Path, help="keep counts here, and go on from what is there")
    parser.add_argument("--only", type=int, help="make and read this one file")
    parser.add_argument("--keep", type=Path, help="and leave it here")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], options.seed, range(int(options.work[1]), int(options.work[2])))
        return
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        prepare(folder)
        if options.only is not None:
            paths = {p.stem.replace("_", " "): p for p in sorted((Path(folder) / "good").glob("*.h5"))}
            good = {name: path.read_bytes() for name, path in paths.items()}
            blocks = json.loads((Path(folder) / "blocks.json").read_text())
            path = options.keep or Path(folder) / "only.h5"
            print(damage(good, blocks, options.only, options.seed, path))
            answers, _ = look(path, np.random.default_rng([options.seed, options.only, 1]))
            for what, answer in answers:
                print(what, "->", answer)
            return

        def report(text):
            print(text, flush=True)
            if options.findings:
                with open(options.findings, "a") as file:
                    file.write(text + "\n")

        tally = Tally(options.seed, options.first, options.tally)
        watch(folder, tally, options.first + options.files, report)
        print(tally)
        sys.exit(tally.n_findings > 0)


if __name__ == "__main__":
    main()
