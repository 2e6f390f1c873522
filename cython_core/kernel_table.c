/* The kernels, compiled for several instruction sets from the same plain C loops, and the choice among them.
 *
 * A path is the whole set of templates under other compiler flags, so all paths do the same arithmetic in the
 * same order; with contraction switched off (setup.py) they give the same bits.  The kernels and the flows of
 * each path are files of their own, which compile side by side.  One more path is: a target_*_begin.h, a
 * kernel_*.c and a flow_*.c like the others, its tables in kernel_table.h, and a line in `paths` with what it
 * needs.
 */
#include "kernel_table.h"

#include <stddef.h>
#include <string.h>

#ifdef EVSIM_X86
#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define HAS_AVX512 (HAS("avx512f") && HAS("avx512vl") && HAS("avx512dq") && HAS("avx512bw"))
#define X86_PATHS {&evsim_kernels_avx512, HAS_AVX512}, {&evsim_kernels_avx2, HAS("avx2")},
#else
#define X86_PATHS
#endif

const KernelTable *evsim_kernel_path(int place)
{
    const struct {
        const KernelTable *table;
        int here;
    } paths[] = {X86_PATHS{&evsim_kernels_baseline, 1}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (paths[i].here && place-- == 0)
            return paths[i].table;
    return NULL;
}

const KernelTable *evsim_kernel_table(const char *name)
{
    const KernelTable *table;
    for (int place = 0; (table = evsim_kernel_path(place)); place++)
        if (!*name || !strcmp(name, table->name))
            return table;
    return NULL;
}
