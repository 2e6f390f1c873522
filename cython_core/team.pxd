"""Threads that share one lane: each takes some of the target columns, or of the units that ask for gradients.

Every sum is taken by one thread in its usual order, so the size of a team changes no result.
"""

from libc.stdint cimport int64_t

cdef extern from "team.h" nogil:
    void evsim_barrier()
    int evsim_team_size()

# One thread's place.  Whatever is not shared out is done by member 0 while the others wait.
cdef struct Team:
    int member
    int size


cdef inline void wait(const Team *team) noexcept nogil:
    """Until all members are here."""
    if team.size > 1:
        evsim_barrier()


cdef inline int64_t share(const Team *team, int64_t n, bint upto) noexcept nogil:
    """Where this member's share of n things begins, or (upto) ends; at multiples of 16."""
    cdef int64_t member = team.member + upto
    if member == team.size:
        return n
    return n * member // team.size // 16 * 16
