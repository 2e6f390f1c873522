/* The EGRU: one step of all units of a population in one lane, and below it its vector-Jacobian product.
 *
 * Template, see kernel_table.c.  The equations are those of models/egru.py; backwards, of the EGRU adjoint:
 * D is the gradient at the accumulators, in their layout; dc enters as dL/dc_t and leaves as dL/dc_{t-1}.
 */

/* Units above threshold, in order, with their states; the arrays have room for n. */
static inline int32_t FN(fire)(int64_t n, const REAL *restrict a, const REAL *restrict threshold,
                               int32_t *restrict unit, REAL *restrict value)
{
    int32_t count;
    CHOOSE(n, i, a[i] > threshold[i], unit, count);
    for (int32_t e = 0; e < count; e++)
        value[e] = a[unit[e]];
    return count;
}

/* EvNN's form.  Accumulators (4 n): z, r, g from the input port, q = y'R_g + b_Rg.
 * Tape (5 n): z, r, g, q, a. */
TARGET int32_t FN(egru_evnn_advance)(
    int64_t n, const REAL *restrict in, const REAL *restrict threshold, /* IN */
    REAL *restrict c,                                                   /* IN and OUT, (n) */
    REAL *restrict tape, int32_t *restrict unit, REAL *restrict value)  /* OUT */
{
    REAL *restrict z = tape, *restrict r = tape + n, *restrict g = tape + 2 * n;
    REAL *restrict q = tape + 3 * n, *restrict a = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        z[i] = FN(logistic)(in[i]);
        r[i] = FN(logistic)(in[n + i]);
    }
    for (int64_t i = 0; i < n; i++) {
        q[i] = in[3 * n + i];
        g[i] = FN(hyperbolic_tangent)(in[2 * n + i] + r[i] * q[i]);
        a[i] = z[i] * c[i] + ((REAL)1 - z[i]) * g[i];
    }
    for (int64_t i = 0; i < n; i++)
        c[i] = a[i] - (a[i] > threshold[i] ? threshold[i] : (REAL)0);
    return FN(fire)(n, a, threshold, unit, value);
}

/* `before` is c before the step; or, if it still `resets`, a of the step before it, thresholds not yet taken off. */
TARGET void FN(egru_evnn_vjp)(
    int64_t n, const REAL *restrict tape,                              /* IN */
    const REAL *restrict before, int32_t resets, const REAL *restrict threshold, /* IN, (n) */
    const REAL *restrict slope, const REAL *restrict dy, const REAL *restrict d_event,
    REAL *restrict dc,                                                 /* IN and OUT */
    REAL *restrict D, REAL *restrict dbias, REAL *restrict dthreshold) /* OUT (4 n), sums (4 n), (n) */
{
    const REAL *restrict z = tape, *restrict r = tape + n, *restrict g = tape + 2 * n;
    const REAL *restrict q = tape + 3 * n, *restrict a = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        const REAL o = a[i] > threshold[i] ? (REAL)1 : (REAL)0;
        const REAL c_before = before[i] - (resets && before[i] > threshold[i] ? threshold[i] : (REAL)0);
        /* o enters y = o a and c = a - o threshold */
        const REAL dv = slope[i] * (d_event[i] + a[i] * dy[i] - threshold[i] * dc[i]);
        const REAL da = dc[i] + o * dy[i] + dv;
        dthreshold[i] -= dv + o * dc[i];
        dc[i] = z[i] * da;
        const REAL dz = z[i] * ((REAL)1 - z[i]) * (c_before - g[i]) * da;
        const REAL dg = ((REAL)1 - g[i] * g[i]) * ((REAL)1 - z[i]) * da;
        const REAL dr = r[i] * ((REAL)1 - r[i]) * q[i] * dg;
        D[i] = dz;
        D[n + i] = dr;
        D[2 * n + i] = dg;
        D[3 * n + i] = r[i] * dg;
    }
    for (int64_t i = 0; i < 4 * n; i++)
        dbias[i] += D[i];
}

/* The paper's form.  Accumulators (3 n): u, r, z.  Tape (5 n): u, z, r, p, a, where r is set by the caller
 * for senders only and p is the input part of r's accumulator. */
TARGET int32_t FN(egru_paper_advance)(
    int64_t n, const REAL *restrict in, const REAL *restrict threshold, /* IN */
    REAL *restrict c, REAL *restrict y,                                 /* IN and OUT, (n): state, last y */
    REAL *restrict tape, int32_t *restrict unit, REAL *restrict value)  /* OUT */
{
    REAL *restrict u = tape, *restrict z = tape + n, *restrict a = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        u[i] = FN(logistic)(in[i]);
        z[i] = FN(hyperbolic_tangent)(in[2 * n + i]);
        a[i] = u[i] * z[i] + ((REAL)1 - u[i]) * c[i] - y[i];
    }
    for (int64_t i = 0; i < n; i++) {
        c[i] = a[i];
        y[i] = a[i] > threshold[i] ? a[i] : (REAL)0;
    }
    return FN(fire)(n, a, threshold, unit, value);
}

/* Leaves D's r block at zero: it needs the product with the recurrent z rows first (paper_form.pxd). */
TARGET void FN(egru_paper_vjp)(
    int64_t n, const REAL *restrict tape,                              /* IN */
    const REAL *restrict c_before, const REAL *restrict threshold,     /* IN, (n) */
    const REAL *restrict slope, const REAL *restrict dy, const REAL *restrict d_event,
    REAL *restrict dc,                                                 /* IN and OUT */
    REAL *restrict D, REAL *restrict dreset, REAL *restrict dthreshold) /* OUT (3 n), dL/da (n), sums (n) */
{
    const REAL *restrict u = tape, *restrict z = tape + n, *restrict a = tape + 4 * n;
    for (int64_t i = 0; i < n; i++) {
        const REAL o = a[i] > threshold[i] ? (REAL)1 : (REAL)0;
        const REAL dv = slope[i] * (d_event[i] + a[i] * dy[i]);
        const REAL da = dc[i] + o * dy[i] + dv;
        dthreshold[i] -= dv;
        dc[i] = ((REAL)1 - u[i]) * da;
        dreset[i] = da;
        D[i] = u[i] * ((REAL)1 - u[i]) * (z[i] - c_before[i]) * da;
        D[n + i] = 0;
        D[2 * n + i] = ((REAL)1 - z[i] * z[i]) * u[i] * da;
    }
}

/* Slope of the pseudo-derivative dH/dv at v = a - threshold; kind as in evsim/adjoint.py. */
TARGET void FN(pseudo_derivative)(int32_t kind, double gamma_, double eps_, int64_t n, const REAL *restrict a,
                                  const REAL *restrict threshold, REAL *restrict slope)
{
    const REAL gamma = (REAL)gamma_, eps = (REAL)eps_;
    if (kind == 0) /* triangle */
        for (int64_t i = 0; i < n; i++) {
            const REAL v = a[i] - threshold[i];
            const REAL height = (REAL)1 - eps * (v < 0 ? -v : v);
            slope[i] = gamma * (height > 0 ? height : (REAL)0);
        }
    else if (kind == 1) /* rectangle */
        for (int64_t i = 0; i < n; i++) {
            const REAL v = a[i] - threshold[i];
            slope[i] = eps * (v < 0 ? -v : v) < (REAL)1 ? gamma : (REAL)0;
        }
    else /* fast sigmoid */
        for (int64_t i = 0; i < n; i++) {
            const REAL v = a[i] - threshold[i];
            const REAL width = (REAL)1 + eps * (v < 0 ? -v : v);
            slope[i] = gamma / (width * width);
        }
}

/* The backward-active units: those that fired, or whose slope is not zero. */
TARGET int32_t FN(backward_active)(int64_t n, const REAL *restrict a, const REAL *restrict threshold,
                                   const REAL *restrict slope, int32_t *restrict unit)
{
    int32_t count;
    CHOOSE(n, i, (slope[i] != 0) | (a[i] > threshold[i]), unit, count);
    return count;
}
