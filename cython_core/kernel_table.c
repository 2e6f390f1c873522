/* The kernels, compiled for several instruction sets from the same plain C loops, and the choice among them.
 *
 * A path is the whole set of templates under other compiler flags, so all paths do the same arithmetic in the
 * same order; with contraction switched off (setup.py) they give the same bits.
 */
#include "kernel_table.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define JOIN_(name, isa, type) name##_##isa##_##type
#define JOIN(name, isa, type) JOIN_(name, isa, type)
#define FN(name) JOIN(name, ISA, TYPE)
#define TARGET static

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#endif

#define REAL float
#define REAL_IS_FLOAT 1
#define TYPE f32
#define ISA baseline
#include "kernel_body.h"
#undef ISA
#ifdef HAVE_AVX2
#include "target_avx2_begin.h"
#define ISA avx2
#include "kernel_body.h"
#undef ISA
#include "target_end.h"
#endif
#undef REAL
#undef REAL_IS_FLOAT
#undef TYPE

#define REAL double
#define REAL_IS_FLOAT 0
#define TYPE f64
#define ISA baseline
#include "kernel_body.h"
#undef ISA
#ifdef HAVE_AVX2
#include "target_avx2_begin.h"
#define ISA avx2
#include "kernel_body.h"
#undef ISA
#include "target_end.h"
#endif
#undef REAL
#undef REAL_IS_FLOAT
#undef TYPE

#define KERNEL(name, result, arguments) FN(name),

#define ISA baseline
static const KernelTable baseline = {
    "baseline",
#define TYPE f32
    {
#include "kernel_list.h"
    },
#undef TYPE
#define TYPE f64
    {
#include "kernel_list.h"
    },
#undef TYPE
};
#undef ISA

#ifdef HAVE_AVX2
#define ISA avx2
static const KernelTable avx2 = {
    "avx2",
#define TYPE f32
    {
#include "kernel_list.h"
    },
#undef TYPE
#define TYPE f64
    {
#include "kernel_list.h"
    },
#undef TYPE
};
#undef ISA
#endif

const KernelTable *evsim_kernel_table(const char *name)
{
#ifdef HAVE_AVX2
    if ((!*name || !strcmp(name, avx2.name)) && __builtin_cpu_supports("avx2"))
        return &avx2;
#endif
    if (!*name || !strcmp(name, baseline.name))
        return &baseline;
    return NULL;
}
