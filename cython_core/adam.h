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

/* In double, in a fixed order. */
TARGET double FN(sum_of_squares)(int64_t n, const REAL *restrict x)
{
    const int64_t whole = n - n % 16;
    double partial[16] = {0}, rest = 0;
    for (int64_t i = 0; i < whole; i += 16)
        for (int j = 0; j < 16; j++)
            partial[j] += (double)x[i + j] * (double)x[i + j];
    for (int64_t i = whole; i < n; i++)
        rest += (double)x[i] * (double)x[i];
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            partial[i] += partial[i + width];
    return partial[0] + rest;
}

#undef SQUARE_ROOT
