/* One path: all kernels for both float types, and the table of them; needs template.h, ISA and the bytes of
 * a vector register, VECTOR_BYTES. */

#define TYPE f32
#define REAL float
#define REAL_IS_FLOAT 1
#include "kernel_body.h"
#undef REAL_IS_FLOAT
#undef REAL
#undef TYPE

#define TYPE f64
#define REAL double
#define REAL_IS_FLOAT 0
#include "kernel_body.h"
#undef REAL_IS_FLOAT
#undef REAL
#undef TYPE

#define KERNEL(name, result, arguments) FN(name),
const KernelTable TABLE(kernels, ISA) = {
    QUOTE(ISA),
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
    &TABLE(flows, ISA),
};
#undef KERNEL
#undef ISA
#undef VECTOR_BYTES
