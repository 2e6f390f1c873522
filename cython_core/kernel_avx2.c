/* The kernels for processors with AVX2; see kernel_table.c. */
#include "template.h"

#ifdef EVSIM_X86
#include "target_avx2_begin.h"
#define ISA avx2
#define VECTOR_BYTES 32
#include "kernel_path.h"
#include "target_end.h"
#endif
