/* From here to target_end.h: code for processors with AVX-512 as in Skylake-X and Zen 4, in whole registers.
 * AVX-512F has fused multiply-add in it: without -ffp-contract=off (setup.py) this path would have other bits. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512")
#endif
