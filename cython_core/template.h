/* What a file needs that compiles templates for one instruction set; it defines ISA then, and TYPE and REAL. */
#ifndef EVSIM_TEMPLATE_H
#define EVSIM_TEMPLATE_H

#include "kernel_table.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#ifdef EVSIM_X86
#include <immintrin.h>
#endif

#define JOIN_(name, isa, type) name##_##isa##_##type
#define JOIN(name, isa, type) JOIN_(name, isa, type)
#define FN(name) JOIN(name, ISA, TYPE)
#define TABLE_(what, isa) evsim_##what##_##isa
#define TABLE(what, isa) TABLE_(what, isa)
#define QUOTE_(word) #word
#define QUOTE(word) QUOTE_(word)
#define TARGET static

#endif
