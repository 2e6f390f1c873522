/* First crossing of a polynomial from below, certified.
 *
 * Template, see kernel_table.c; REAL is double.  On [0, length] the polynomial is written in Bernstein form:
 * its values lie within the hull of the coefficients, and it has at most as many roots as they have changes of
 * sign.  So: all negative means no crossing, one change means one crossing, and anything else is halved, left
 * half first.  Two crossings close together are not missed, and as halving never adds changes of sign, at most
 * degree / 2 pieces of each width are ever halved.
 */

#define CROSSING_DEGREE 16
#define CROSSING_DEPTH 47 /* 2^-47 of the length = 7e-15: below, a tangency counts as no crossing */

/* The root of sum_k coef[k] s^k between low, where it is negative, and high, where it is not. */
static double FN(crossing_between)(int32_t degree, const double *coef, double low, double high, double s)
{
    for (int32_t round = 0; round < 100; round++) {
        if (!(s > low && s < high))
            s = 0.5 * (low + high);
        if (!(s > low && s < high))
            return high;
        double p = coef[degree], slope = 0.0;
        for (int32_t k = degree - 1; k >= 0; k--) {
            slope = slope * s + p;
            p = p * s + coef[k];
        }
        if (p < 0)
            low = s;
        else
            high = s;
        const double newton = s - p / slope; /* not finite where the slope is 0: then the middle is taken */
        const double moved = newton - s;
        /* Newton's error, moved^2 |p''| / 2 slope, is then below that of rounding, 1e-16 |p| / slope. */
        if ((moved < 0 ? -moved : moved) <= 3e-9 * s)
            return newton < low ? low : newton > high ? high : newton;
        /* From above a steep side Newton can creep; every fourth round halves. */
        s = (round & 3) == 3 && round > 8 ? 0.5 * (low + high) : newton;
    }
    return high;
}

/* p(s) = sum_k coef[k] s^k, k = 0 .. degree <= 16, on 0 <= s <= length.  1: p first reaches 0 from below at
 * *when (at 0 if p(0) >= 0); 0: p < 0 everywhere, *when is left alone. */
static int32_t FN(first_crossing)(int32_t degree, const double *coef, double length, double *when)
{
    double stack[CROSSING_DEPTH + 1][CROSSING_DEGREE + 1]; /* the pieces still to do, the leftmost on top */
    double start[CROSSING_DEPTH + 1];                      /* where they begin, as a part of the length */
    if (coef[0] >= 0) {
        *when = 0;
        return 1;
    }

    /* Bernstein coefficients: b_j = sum_k C(j, k) / C(degree, k) coef_k length^k, by Pascal's additions. */
    double *b = stack[0], factor = 1.0;
    for (int32_t k = 0; k <= degree; k++) {
        b[k] = coef[k] * factor;
        factor *= length * ((double)(k + 1) / (degree - k)); /* the last is not used */
    }
    for (int32_t k = 1; k <= degree; k++)
        for (int32_t j = degree; j >= k; j--)
            b[j] += b[j - 1];

    int32_t depths[CROSSING_DEPTH + 1]; /* a piece is 2^-depth of the length */
    int32_t top = 0;
    start[0] = 0.0;
    depths[0] = 0;
    while (top >= 0) {
        b = stack[top];
        const int32_t depth = depths[top];
        const double width = 1.0 / (double)((int64_t)1 << depth);
        int32_t changes = 0;
        for (int32_t k = 0; k < degree; k++)
            changes += (b[k] < 0) != (b[k + 1] < 0);
        if (changes == 0 && b[0] < 0) {
            top--;
            continue;
        }
        if (b[0] >= 0) { /* only by rounding: the piece before ended below 0 */
            *when = start[top] * length;
            return 1;
        }
        if (changes == 1 || (depth == CROSSING_DEPTH && b[degree] >= 0)) {
            const double low = start[top] * length, high = (start[top] + width) * length;
            const double secant = low + (high - low) * (b[0] / (b[0] - b[degree]));
            *when = FN(crossing_between)(degree, coef, low, high, secant);
            return 1;
        }
        if (depth == CROSSING_DEPTH) {
            top--;
            continue;
        }
        double *left = stack[top + 1]; /* de Casteljau; the right half stays in b */
        left[0] = b[0];
        for (int32_t k = 1; k <= degree; k++) {
            for (int32_t j = 0; j <= degree - k; j++)
                b[j] = 0.5 * (b[j] + b[j + 1]);
            left[k] = b[0];
        }
        start[top + 1] = start[top];
        start[top] += 0.5 * width;
        depths[top] = depths[top + 1] = depth + 1;
        top++;
    }
    return 0;
}
