/* The kernels for processors with AVX-512; see kernel_table.c. */
#include "template.h"

#ifdef EVSIM_X86
#include "target_avx512_begin.h"
#define ISA avx512
#define VECTOR_BYTES 64
#include "kernel_path.h"
#include "target_end.h"
#endif
