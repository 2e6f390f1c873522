"""Cross-entropy of a softmax in two passes over the logits, with the exponentials (NumPy's) between them."""

import numpy as np

from libc.math cimport log
from libc.stdint cimport int64_t

from evsim.core.buffers cimport address
from evsim.core.layout cimport real


cdef int64_t shift_rows(
    int64_t rows, int64_t n, const real *logits, const int64_t *target, real *shifted, double *at_target,
    int64_t *counted
) noexcept nogil:
    """Logits minus the largest of their row, 0 where the target is -1; the first wrong target, or -1."""
    cdef int64_t row
    cdef int64_t i
    cdef real largest
    at_target[0] = 0
    counted[0] = 0
    for row in range(rows):
        if not -1 <= target[row] < n:
            return row
        if target[row] < 0:
            for i in range(n):
                shifted[i] = 0
        else:
            largest = logits[0]
            for i in range(1, n):
                largest = logits[i] if logits[i] > largest else largest
            for i in range(n):
                shifted[i] = logits[i] - largest
            at_target[0] += shifted[target[row]]
            counted[0] += 1
        logits += n
        shifted += n
    return -1


cdef double differentiate_rows(
    int64_t rows, int64_t n, const int64_t *target, int64_t counted, real *exponential
) noexcept nogil:
    """Turn exp(shifted) into the gradient of the mean; the sum of the logarithms of the rows' totals."""
    cdef int64_t row
    cdef int64_t i
    cdef double total
    cdef real share
    cdef double logarithms = 0
    for row in range(rows):
        if target[row] < 0:
            for i in range(n):
                exponential[i] = 0
        else:
            total = 0
            for i in range(n):
                total += exponential[i]
            logarithms += log(total)
            share = <real> (1 / (total * counted))
            for i in range(n):
                exponential[i] *= share
            exponential[target[row]] -= <real> 1 / counted
        exponential += n
    return logarithms


def shift(logits, target, int64_t n):
    """Logits minus the largest of their row, their sum at the targets, the first wrong row, or -1, and how
    many targets count.

    Parameters
    ----------
    logits : contiguous float array, shape (..., n)
    target : contiguous int64 array, shape (...)
        In 0..n-1; -1 is ignored, and its row of the result is 0.
    """
    cdef int64_t rows = target.size
    cdef bint wide = logits.itemsize == sizeof(double)
    cdef char kind = c"d" if wide else c"f"
    shifted = np.empty(logits.shape, logits.dtype)
    cdef void *x = address(logits, rows * n, kind)
    cdef void *out = address(shifted, rows * n, kind)
    cdef const int64_t *wanted = <const int64_t *> address(target, rows, c"l")
    cdef double at_target
    cdef int64_t counted
    cdef int64_t wrong
    with nogil:
        if wide:
            wrong = shift_rows(rows, n, <const double *> x, wanted, <double *> out, &at_target,
                               &counted)
        else:
            wrong = shift_rows(rows, n, <const float *> x, wanted, <float *> out, &at_target,
                               &counted)
    return shifted, at_target, wrong, counted


def differentiate(exponential, target, int64_t n, int64_t counted):
    """Turn the exponentials of what `shift` gave into the gradient of the mean over the targets that count.

    Returns the sum of the logarithms of the rows' totals; the mean cross-entropy is that sum less the one
    that `shift` gave, by ``counted``.
    """
    cdef int64_t rows = target.size
    cdef bint wide = exponential.itemsize == sizeof(double)
    cdef void *x = address(exponential, rows * n, c"d" if wide else c"f")
    cdef const int64_t *wanted = <const int64_t *> address(target, rows, c"l")
    cdef double logarithms
    with nogil:
        if wide:
            logarithms = differentiate_rows(rows, n, wanted, counted, <double *> x)
        else:
            logarithms = differentiate_rows(rows, n, wanted, counted, <float *> x)
    return logarithms
