/* The kernels, compiled for several instruction sets from the same plain C loops, and the choice among them.
 *
 * A path is the whole set of templates under other compiler flags, so all paths do the same arithmetic in the
 * same order; with contraction switched off (setup.py) they give the same bits.  One more path is: a
 * target_*_begin.h, four lines here to compile it, and a line in `paths` with what it needs.
 */
#include "kernel_table.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define JOIN_(name, isa, type) name##_##isa##_##type
#define JOIN(name, isa, type) JOIN_(name, isa, type)
#define FN(name) JOIN(name, ISA, TYPE)
#define QUOTE_(word) #word
#define QUOTE(word) QUOTE_(word)
#define TARGET static

#if defined(__x86_64__) && defined(__GNUC__)

#include "target_avx512_begin.h"
#define ISA avx512
#include "kernel_path.h"
#include "target_end.h"

#include "target_avx2_begin.h"
#define ISA avx2
#include "kernel_path.h"
#include "target_end.h"

#define HAS(feature) (__builtin_cpu_supports(feature) != 0)
#define HAS_AVX512 (HAS("avx512f") && HAS("avx512vl") && HAS("avx512dq") && HAS("avx512bw"))
#define X86_PATHS {&avx512, HAS_AVX512}, {&avx2, HAS("avx2")},

#else
#define X86_PATHS
#endif

/* What the platform itself promises: SSE2 on x86-64, NEON on 64-bit ARM. */
#define ISA baseline
#include "kernel_path.h"

const KernelTable *evsim_kernel_path(int place)
{
    const struct {
        const KernelTable *table;
        int here;
    } paths[] = {X86_PATHS{&baseline, 1}};
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
