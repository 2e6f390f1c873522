/* The leaky integrate-and-fire unit: one step of all units of a population in one lane, and below it its
 * vector-Jacobian product.
 *
 * Template, see kernel_table.c.  The equations are those of models/lif.py.  Numbers K of a step, in double:
 * leak, keep_e, keep_i, gain_e, gain_i (evsim/propagator.py), reset, and the steps for which v is held.
 *
 * State (4 n): v, i_e, i_i, hold.  Accumulators (2 n): what arrived on either port.  Tape (5 n): v after the
 * step; a, that is v before the reset; both currents with what arrived; hold before the step.
 */

/* What has decayed to nothing is nothing: arithmetic on denormal numbers is slow. */
static inline REAL FN(without_trace)(REAL x)
{
    return (x < 0 ? -x : x) < (REAL)1e-30 ? (REAL)0 : x;
}

TARGET int32_t FN(lif_advance)(
    int64_t n, const double *restrict K, const REAL *restrict in,           /* IN */
    const REAL *restrict bias, const REAL *restrict threshold,              /* IN, (n) */
    REAL *restrict state,                                                   /* IN and OUT, (4 n) */
    REAL *restrict tape, int32_t *restrict unit, REAL *restrict value)      /* OUT */
{
    const REAL leak = (REAL)K[0], keep_e = (REAL)K[1], keep_i = (REAL)K[2];
    const REAL gain_e = (REAL)K[3], gain_i = (REAL)K[4], reset = (REAL)K[5], steps = (REAL)K[6];
    REAL *restrict v = state, *restrict i_e = state + n, *restrict i_i = state + 2 * n;
    REAL *restrict hold = state + 3 * n;
    REAL *restrict after = tape, *restrict a = tape + n, *restrict e = tape + 2 * n, *restrict i = tape + 3 * n;
    REAL *restrict held = tape + 4 * n;
    for (int64_t j = 0; j < n; j++) {
        e[j] = i_e[j] + in[j];
        i[j] = i_i[j] + in[n + j];
        held[j] = hold[j];
    }
    for (int64_t j = 0; j < n; j++) {
        const REAL moved = v[j] + ((bias[j] - v[j]) * leak + (e[j] * gain_e + i[j] * gain_i));
        a[j] = held[j] > 0 ? reset : FN(without_trace)(moved);
        i_e[j] = FN(without_trace)(e[j] * keep_e);
        i_i[j] = FN(without_trace)(i[j] * keep_i);
    }
    for (int64_t j = 0; j < n; j++) {
        const REAL left = held[j] > 0 ? held[j] - (REAL)1 : (REAL)0;
        hold[j] = a[j] >= threshold[j] ? steps : left;
        v[j] = after[j] = a[j] >= threshold[j] ? reset : a[j];
    }
    int32_t count;
    CHOOSE(n, j, a[j] >= threshold[j], unit, count);
    for (int32_t k = 0; k < count; k++)
        value[k] = (REAL)1;
    return count;
}

/* The backward-active units: those that sent, or whose slope is not zero; that of units that are held is. */
TARGET int32_t FN(lif_active)(int64_t n, const REAL *restrict tape, const REAL *restrict threshold, /* IN */
                              REAL *restrict slope, int32_t *restrict unit) /* IN and OUT (n); OUT */
{
    const REAL *restrict a = tape + n, *restrict held = tape + 4 * n;
    for (int64_t j = 0; j < n; j++)
        slope[j] = held[j] > 0 ? (REAL)0 : slope[j];
    int32_t count;
    CHOOSE(n, j, (slope[j] != 0) | (a[j] >= threshold[j]), unit, count);
    return count;
}

/* The gradient at the state enters as that after the step and leaves as that before it.  That at the numbers of
 * the step is summed by unit, in their order. */
TARGET void FN(lif_vjp)(
    int64_t n, const double *restrict K, const REAL *restrict tape,            /* IN */
    const REAL *restrict v_before, const REAL *restrict bias,                  /* IN, (n) */
    const REAL *restrict threshold, const REAL *restrict slope,                /* IN, (n) */
    const REAL *restrict dy, const REAL *restrict d_event,                     /* IN, (n) */
    REAL *restrict dstate, REAL *restrict D,                                   /* IN and OUT (4 n); OUT (2 n) */
    REAL *restrict dbias, REAL *restrict dthreshold, REAL *restrict dnumbers)  /* sums (n), (n), (5 n) */
{
    const REAL leak = (REAL)K[0], keep_e = (REAL)K[1], keep_i = (REAL)K[2];
    const REAL gain_e = (REAL)K[3], gain_i = (REAL)K[4], reset = (REAL)K[5];
    const REAL *restrict a = tape + n, *restrict e = tape + 2 * n, *restrict i = tape + 3 * n;
    const REAL *restrict held = tape + 4 * n;
    REAL *restrict dv = dstate, *restrict de = dstate + n, *restrict di = dstate + 2 * n;
    REAL *restrict dhold = dstate + 3 * n;
    REAL *restrict dleak = dnumbers, *restrict dkeep_e = dnumbers + n, *restrict dkeep_i = dnumbers + 2 * n;
    REAL *restrict dgain_e = dnumbers + 3 * n, *restrict dgain_i = dnumbers + 4 * n;
    /* Three loops: with so many arrays in one the compiler does not vectorise. */
    for (int64_t j = 0; j < n; j++) {
        /* o enters y = o and v = a + o (reset - a) */
        const REAL fire = slope[j] * (d_event[j] + dy[j] + (reset - a[j]) * dv[j]);
        const REAL kept = a[j] >= threshold[j] ? (REAL)0 : dv[j];
        const REAL da = held[j] > 0 ? (REAL)0 : kept + fire;
        dthreshold[j] -= fire;
        dhold[j] = da; /* for the moment */
    }
    for (int64_t j = 0; j < n; j++) {
        const REAL da = dhold[j];
        dbias[j] += da * leak;
        dleak[j] += da * (bias[j] - v_before[j]);
        dgain_e[j] += da * e[j];
        dgain_i[j] += da * i[j];
        dv[j] = FN(without_trace)(da - da * leak);
    }
    for (int64_t j = 0; j < n; j++) {
        const REAL da = dhold[j];
        dkeep_e[j] += de[j] * e[j];
        dkeep_i[j] += di[j] * i[j];
        D[j] = de[j] = FN(without_trace)(da * gain_e + de[j] * keep_e);
        D[n + j] = di[j] = FN(without_trace)(da * gain_i + di[j] * keep_i);
        dhold[j] = 0;
    }
}
