"""Damaged event logs, by the thousand: see `fuzz_logs`.

`logs` makes files that are right; `bytes`, `checksums` and `entries` damage them; `judging` reads what is
left and says what became of it; `running` does that for one file after the other, and `tally` counts.
"""
