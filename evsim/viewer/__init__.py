"""``evsim view``: a page on this machine that shows an event log of any size.

`server` answers requests, `session` knows the one log that they may ask about, `tiles` and `pyramid` count
its events into cells, `box` sums up a box of them.  What the browser runs lies beside: ``page.*``, and
modules in JavaScript without dependencies.
"""
