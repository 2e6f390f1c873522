/* The flows for processors with AVX2; see kernel_table.c. */
#include "template.h"

#ifdef EVSIM_X86
#include <immintrin.h>

#include "target_avx2_begin.h"
#define ISA avx2
#define AVX2
#include "flow_body.h"
#include <immintrin.h>

#include "target_end.h"
#endif
