/* Tables of kernels, one per float type; kernel_*.c fill one pair per instruction set. */
#ifndef EVSIM_KERNEL_TABLE_H
#define EVSIM_KERNEL_TABLE_H

#include "event_list.h"
#include "fixed_format.h"
#include "flow.h"
#include "sparse_format.h"

#include <stdint.h>

#define KERNEL(name, result, arguments) result(*name) arguments;
#define REAL float
typedef struct {
#include "kernel_list.h"
} KernelsFloat;
#undef REAL
#define REAL double
typedef struct {
#include "kernel_list.h"
} KernelsDouble;
#undef REAL
#undef KERNEL

typedef struct {
    const char *name; /* instruction set */
    KernelsFloat f32;
    KernelsDouble f64;
    const FlowTable *flow; /* of double states */
} KernelTable;

/* The tables of all paths, each filled by a file that is called like it; with EVSIM_PLAIN_C, for tests, there
 * are no others than on any processor. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EVSIM_PLAIN_C)
#define EVSIM_X86
extern const KernelTable evsim_kernels_avx512, evsim_kernels_avx2;
extern const FlowTable evsim_flows_avx512, evsim_flows_avx2;
#endif
extern const KernelTable evsim_kernels_baseline;
extern const FlowTable evsim_flows_baseline;

/* The paths that this machine can run, best first; NULL behind the last. */
const KernelTable *evsim_kernel_path(int place);

/* The table of a named instruction set if this machine has it; "" means the best it has; NULL if there is
 * none. */
const KernelTable *evsim_kernel_table(const char *name);

/* What this file is compiled with; the modules of one build have one compiler. */
#if defined(__clang__)
#define EVSIM_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define EVSIM_COMPILER "gcc " __VERSION__
#else
#define EVSIM_COMPILER "unknown"
#endif
#ifdef _OPENMP
#define EVSIM_OPENMP 1
#else
#define EVSIM_OPENMP 0
#endif

#endif
