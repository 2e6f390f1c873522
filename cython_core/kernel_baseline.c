/* The kernels for what the platform itself promises: SSE2 on x86-64, NEON on 64-bit ARM; see kernel_table.c. */
#include "template.h"

#define ISA baseline
#define VECTOR_BYTES 16
#include "kernel_path.h"
