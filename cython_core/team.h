/* What a parallel region must tell its threads; without OpenMP there is one thread and nothing to wait for. */
#ifndef EVSIM_TEAM_H
#define EVSIM_TEAM_H

#ifdef _OPENMP
#include <omp.h>
#endif

/* Wait for the other threads of this parallel region. */
static inline void evsim_barrier(void)
{
#ifdef _OPENMP
#pragma omp barrier
#endif
}

/* Threads of this parallel region: fewer than asked for if the environment says so (OMP_THREAD_LIMIT). */
static inline int evsim_team_size(void)
{
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

#endif
