/* The flows for processors with AVX-512; see kernel_table.c. */
#include "template.h"

#ifdef EVSIM_X86
#include <immintrin.h>

#include "target_avx512_begin.h"
#define ISA avx512
#define WIDTH 8
#include "flow_body.h"
#include <immintrin.h>

#include "target_end.h"
#endif
