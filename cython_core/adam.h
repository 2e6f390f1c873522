/* Adam in one pass over memory, and the norm of a gradient: at batch 1 both take as long as the replay if each
 * operation is a pass of its own.
 *
 * Template, see kernel_table.c.  The equations are at Adam in evsim/optimizer.py.
 */

#if REAL_IS_FLOAT
#define SQUARE_ROOT sqrtf
#else
#define SQUARE_ROOT sqrt
#endif

/* values = keep values - rate mean / (sqrt(square) / correct + eps), after mean and square took in the gradient,
 * scaled. */
TARGET void FN(adam_step)(
    int64_t n, const REAL *restrict gradient, double scale_, double first_, double second_, double correct_,
    double rate_, double eps_, double keep_,                                        /* IN */
    REAL *restrict mean, REAL *restrict square, REAL *restrict values)              /* IN and OUT */
{
    const REAL scale = (REAL)scale_, first = (REAL)first_, fresh = (REAL)(1 - first_);
    const REAL second = (REAL)second_, fresh_square = (REAL)(1 - second_);
    const REAL corrected = (REAL)(1 / correct_), rate = (REAL)rate_, eps = (REAL)eps_, keep = (REAL)keep_;
    for (int64_t i = 0; i < n; i++) {
        const REAL g = scale * gradient[i];
        mean[i] = first * mean[i] + fresh * g;
        square[i] = second * square[i] + fresh_square * (g * g);
        values[i] = keep * values[i] - rate * mean[i] / (SQUARE_ROOT(square[i]) * corrected + eps);
    }
}

/* Sums of 64 columns of so many entries are taken in REAL, which is twice as fast as in double. */
#define TOGETHER 4096

/* In a fixed order, to about the precision of REAL; in double where squares leave the range of floats. */
TARGET double FN(sum_of_squares)(int64_t n, const REAL *restrict x)
{
    const int64_t whole = n - n % 64;
    double partial[64] = {0}, exact = 0;
    for (int64_t block = 0; block < whole; block += TOGETHER) {
        const int64_t stop = block + TOGETHER < whole ? block + TOGETHER : whole;
        REAL sum[64] = {0};
        for (int64_t i = block; i < stop; i += 64)
            for (int j = 0; j < 64; j++)
                sum[j] += x[i + j] * x[i + j];
        for (int j = 0; j < 64; j++)
            partial[j] += (double)sum[j];
    }
    for (int64_t i = whole; i < n; i++)
        partial[0] += (double)x[i] * (double)x[i];
    for (int width = 32; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            partial[j] += partial[j + width];
    if (partial[0] > 1e-30 && partial[0] < 1e30) /* not NaN */
        return partial[0];
    for (int64_t i = 0; i < n; i++)
        exact += (double)x[i] * (double)x[i];
    return exact;
}

#undef TOGETHER
#undef SQUARE_ROOT
