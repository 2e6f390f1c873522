/* The barrier of a parallel region; without OpenMP there is one thread and nothing to wait for. */
#ifndef EVSIM_TEAM_H
#define EVSIM_TEAM_H

/* Wait for the other threads of this parallel region. */
static inline void evsim_barrier(void)
{
#ifdef _OPENMP
#pragma omp barrier
#endif
}

#endif
