/* Delta units: one step of all units of a population in one lane, and below each its vector-Jacobian product.
 *
 * Template, see kernel_table.c.  The equations are those of models/delta.py.  m holds what has arrived so far;
 * backwards, G is the gradient at m.  An arrival stays in m for good, so the gradient at what arrives in step t,
 * D_t, is the sum of all local errors from step t on: G itself.
 */

/* Send what has moved by its threshold; `sent` moves by exactly the payload. */
TARGET int32_t FN(send_changes)(int64_t n, const REAL *restrict line, const REAL *restrict threshold,
                                REAL *restrict sent, int32_t *restrict unit, REAL *restrict value)
{
    int32_t count = 0;
    for (int64_t first = 0; first < n; first += TOLD_APART) {
        REAL moved[TOLD_APART];
        const int64_t m = n - first < TOLD_APART ? n - first : TOLD_APART;
        for (int64_t k = 0; k < m; k++) {
            const REAL d = line[first + k] - sent[first + k];
            moved[k] = (d < 0 ? -d : d) >= threshold[first + k] ? d : (REAL)0;
            sent[first + k] += moved[k];
        }
        count = FN(list_values)(m, moved, first, count, unit, value);
    }
    return count;
}

/* m, bias (4 n): r, z, n, q.  Tape (5 n): r, z, n, M_q, h. */
TARGET void FN(delta_gru_advance)(
    int64_t n, const REAL *restrict bias, const REAL *restrict m, /* IN */
    REAL *restrict h,                                             /* IN and OUT, (n) */
    REAL *restrict tape)                                          /* OUT */
{
    REAL *restrict r = tape, *restrict z = tape + n, *restrict c = tape + 2 * n;
    REAL *restrict q = tape + 3 * n, *restrict out = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        r[i] = FN(logistic)(m[i] + bias[i]);
        z[i] = FN(logistic)(m[n + i] + bias[n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        q[i] = m[3 * n + i] + bias[3 * n + i];
        c[i] = FN(hyperbolic_tangent)((m[2 * n + i] + bias[2 * n + i]) + r[i] * q[i]);
        out[i] = h[i] = ((REAL)1 - z[i]) * c[i] + z[i] * h[i];
    }
}

/* The local errors D are added to G, and become what G is then.  (A loop by itself: in that of the errors it would
 * keep the compiler from vectorising.) */
static inline void FN(add_up)(int64_t n, REAL *restrict G, REAL *restrict D)
{
    for (int64_t i = 0; i < n; i++)
        D[i] = G[i] += D[i];
}

TARGET void FN(delta_gru_vjp)(
    int64_t n, const REAL *restrict tape, const REAL *restrict h_before, /* IN */
    REAL *restrict dh, REAL *restrict G,                                 /* IN and OUT: dL/dh_t to dL/dh_{t-1} */
    REAL *restrict D)                                                    /* OUT (4 n) */
{
    const REAL *restrict r = tape, *restrict z = tape + n, *restrict c = tape + 2 * n;
    const REAL *restrict q = tape + 3 * n;
    for (int64_t i = 0; i < n; i++) {
        const REAL dc = dh[i] * ((REAL)1 - z[i]) * ((REAL)1 - c[i] * c[i]);
        const REAL dz = dh[i] * (h_before[i] - c[i]) * z[i] * ((REAL)1 - z[i]);
        const REAL dr = dc * q[i] * r[i] * ((REAL)1 - r[i]);
        D[i] = dr;
        D[n + i] = dz;
        D[2 * n + i] = dc;
        D[3 * n + i] = dc * r[i];
        dh[i] *= z[i];
    }
    FN(add_up)(4 * n, G, D);
}

/* m, bias (4 n): i, f, g, o.  Tape (6 n): i, f, g, o, c, h. */
TARGET void FN(delta_lstm_advance)(
    int64_t n, const REAL *restrict bias, const REAL *restrict m, /* IN */
    REAL *restrict c,                                             /* IN and OUT, (n) */
    REAL *restrict h, REAL *restrict tape)                        /* OUT */
{
    REAL *restrict in = tape, *restrict f = tape + n, *restrict g = tape + 2 * n, *restrict o = tape + 3 * n;
    REAL *restrict cell = tape + 4 * n, *restrict out = tape + 5 * n;
    for (int64_t i = 0; i < n; i++) {
        in[i] = FN(logistic)(m[i] + bias[i]);
        f[i] = FN(logistic)(m[n + i] + bias[n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        g[i] = FN(hyperbolic_tangent)(m[2 * n + i] + bias[2 * n + i]);
        o[i] = FN(logistic)(m[3 * n + i] + bias[3 * n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        cell[i] = c[i] = f[i] * c[i] + in[i] * g[i];
        out[i] = h[i] = o[i] * FN(hyperbolic_tangent)(c[i]);
    }
}

TARGET void FN(delta_lstm_vjp)(
    int64_t n, const REAL *restrict tape, const REAL *restrict c_before, /* IN */
    REAL *restrict dc, REAL *restrict dh, REAL *restrict G,              /* IN and OUT; dh leaves as 0 */
    REAL *restrict D)                                                    /* OUT (4 n) */
{
    const REAL *restrict in = tape, *restrict f = tape + n, *restrict g = tape + 2 * n, *restrict o = tape + 3 * n;
    const REAL *restrict out = tape + 5 * n;
    for (int64_t i = 0; i < n; i++) {
        const REAL t = out[i] / o[i]; /* tanh(c); a logistic function is never 0 here, see gates.h */
        const REAL d = dc[i] + dh[i] * o[i] * ((REAL)1 - t * t);
        D[i] = d * g[i] * in[i] * ((REAL)1 - in[i]);
        D[n + i] = d * c_before[i] * f[i] * ((REAL)1 - f[i]);
        D[2 * n + i] = d * in[i] * ((REAL)1 - g[i] * g[i]);
        D[3 * n + i] = dh[i] * t * o[i] * ((REAL)1 - o[i]);
        dc[i] = d * f[i];
        dh[i] = 0;
    }
    FN(add_up)(4 * n, G, D);
}

/* v = m + bias. */
TARGET void FN(delta_readout_advance)(int64_t n, const REAL *restrict bias, const REAL *restrict m,
                                      REAL *restrict tape)
{
    for (int64_t i = 0; i < n; i++)
        tape[i] = m[i] + bias[i];
}

TARGET void FN(delta_readout_vjp)(int64_t n, const REAL *restrict loss, REAL *restrict G, REAL *restrict D)
{
    for (int64_t i = 0; i < n; i++)
        D[i] = G[i] += loss[i];
}
