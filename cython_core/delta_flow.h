/* Delta units in continuous time: the flow between two changes of their accumulators, when it carries a unit
 * over its threshold, and below each its adjoint.
 *
 * Template, see kernel_table.c; REAL is double.  The accumulators M = m + bias are constant between two calls,
 * so the state decays to a fixed point as exp(-kappa t), and its crossings have closed forms:
 *
 *   GRU     tau h' = (1 - z)(n - h)           z = s(M_z), n = tanh(M_n + s(M_r) M_q)
 *   LSTM    tau c' = -(1 - f) c + i g         h = o tanh(c)         in delta_lstm_flow.h
 *
 * A unit sends when |h - sent| reaches its threshold.  Item i has state k in x[k * stride + i] and parameter k in
 * par[k * stride + i]; times are in ms.  Event times are held fixed backwards, as in the clocked Delta units.
 */

#ifndef DELTA_ITEMS /* before a loop over items: no item depends on another (restrict on rows does not tell) */
#if defined(__clang__)
#define DELTA_ITEMS _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define DELTA_ITEMS _Pragma("GCC ivdep")
#else
#define DELTA_ITEMS
#endif
/* What such a loop calls has to become part of it. */
#ifdef __GNUC__
#define DELTA_INLINE static inline __attribute__((always_inline))
#else
#define DELTA_INLINE static inline
#endif
#endif

enum { FN(DELTA_BLOCK) = 64 }; /* items handled at a time where a loop needs room for each */

/* E = exp(-a) and D = 1 - E for a >= 0, both to the last bits however small; as exponential in gates.h. */
DELTA_INLINE void FN(delta_decay)(double a, double *E, double *D)
{
    const double x = a > 700.0 ? -700.0 : -a;
    const double shifted = x * 1.4426950408889634074 + 6755399441055744.0;
    const double k = shifted - 6755399441055744.0;
    const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int64_t)((uint64_t)bits << 52) + 0x3ff0000000000000LL;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    const double q = scale * (p * r); /* scale * (exp(r) - 1) */
    *E = scale + q;
    *D = (1.0 - scale) - q;
}

/* (1 - e^-a - a e^-a) / a^2: minus the derivative of (1 - e^-a) / a. */
DELTA_INLINE double FN(delta_lag)(double a, double E, double D)
{
    const double s = a < 0.5 ? a : 0.5; /* series below 0.5, where the difference cancels */
    double p = 1.0 / (479001600.0 * 14);
    p = 1.0 / (39916800.0 * 13) - p * s;
    p = 1.0 / (3628800.0 * 12) - p * s;
    p = 1.0 / (362880.0 * 11) - p * s;
    p = 1.0 / (40320.0 * 10) - p * s;
    p = 1.0 / (5040.0 * 9) - p * s;
    p = 1.0 / (720.0 * 8) - p * s;
    p = 1.0 / (120.0 * 7) - p * s;
    p = 1.0 / (24.0 * 6) - p * s;
    p = 1.0 / (6.0 * 5) - p * s;
    p = 1.0 / (2.0 * 4) - p * s;
    p = 1.0 / 3 - p * s;
    p = 1.0 / 2 - p * s;
    const double b = a < 0.5 ? 0.5 : a;
    return a < 0.5 ? p : (D - b * E) / (b * b);
}

/* Lower bound of the time to the threshold for h, whose speed is at most `speed` on the way and which ends in
 * `end`.  A hair below the quotient, so that rounding does not push it over the crossing. */
DELTA_INLINE double FN(delta_wait)(double h, double sent, double end, double threshold, double speed)
{
    const double y = h - sent, w = end - sent;
    const double ahead = w > 0 ? y : -y, reach = w > 0 ? w : -w, moved = y < 0 ? -y : y;
    const double wait = (threshold - ahead) / speed * (1 - 0x1p-50);
    const double some = reach > threshold ? wait : INFINITY;
    return moved >= threshold ? 0 : some;
}

/* ---- GRU.  x: m_r m_z m_n m_q h sent; par: bias r z n q, threshold; K: tau ---- */

/* kappa tau = 1 - z, never as a difference, and the fixed point n. */
DELTA_INLINE void FN(delta_gru_gates)(double Mr, double Mz, double Mn, double Mq, double *u, double *n)
{
    *u = FN(logistic)(-Mz);
    *n = FN(hyperbolic_tangent)(Mn + FN(logistic)(Mr) * Mq);
}

TARGET void FN(delta_gru_flow_advance)(
    const double *K, int64_t m, int64_t stride, const double *restrict h, const double *restrict par, /* IN */
    double *x,                                                                        /* IN and OUT */
    double *sums)                                                                     /* NULL, or added to */
{
    const double *restrict br = par, *restrict bz = par + stride, *restrict bn = par + 2 * stride;
    const double *restrict bq = par + 3 * stride;
    const double *restrict mr = x, *restrict mz = x + stride, *restrict mn = x + 2 * stride;
    const double *restrict mq = x + 3 * stride;
    double *restrict state = x + 4 * stride;
    const double rate = 1 / K[0];
    if (!sums) {
        DELTA_ITEMS
        for (int64_t i = 0; i < m; i++) {
            double u, n, E, D;
            FN(delta_gru_gates)(mr[i] + br[i], mz[i] + bz[i], mn[i] + bn[i], mq[i] + bq[i], &u, &n);
            FN(delta_decay)(u * rate * h[i], &E, &D);
            state[i] = state[i] + (n - state[i]) * D;
        }
        return;
    }
    double *restrict sum = sums, *restrict square = sums + stride;
    DELTA_ITEMS
    for (int64_t i = 0; i < m; i++) {
        double u, n, E, D;
        FN(delta_gru_gates)(mr[i] + br[i], mz[i] + bz[i], mn[i] + bn[i], mq[i] + bq[i], &u, &n);
        const double T = h[i], start = state[i], d = start - n;
        FN(delta_decay)(u * rate * T, &E, &D);
        const double lag = D / (u * rate); /* integral of exp(-kappa t) */
        state[i] = start - d * D;
        sum[i] += n * T + d * lag;
        square[i] += n * n * T + d * lag * (2 * n + 0.5 * d * (1 + E));
    }
}

TARGET void FN(delta_gru_flow_bound)(
    const double *K, int64_t m, int64_t stride, const double *restrict par, double *restrict x, /* IN */
    double *restrict wait)                                                                            /* OUT */
{
    const double *br = par, *bz = par + stride, *bn = par + 2 * stride, *bq = par + 3 * stride;
    const double *threshold = par + 4 * stride;
    const double *mr = x, *mz = x + stride, *mn = x + 2 * stride, *mq = x + 3 * stride;
    const double *state = x + 4 * stride, *sent = x + 5 * stride;
    const double rate = 1 / K[0];
    DELTA_ITEMS
    for (int64_t i = 0; i < m; i++) {
        double u, n;
        FN(delta_gru_gates)(mr[i] + br[i], mz[i] + bz[i], mn[i] + bn[i], mq[i] + bq[i], &u, &n);
        const double gap = n - state[i];
        wait[i] = FN(delta_wait)(state[i], sent[i], n, threshold[i], u * rate * (gap < 0 ? -gap : gap));
    }
}

TARGET int32_t FN(delta_gru_flow_locate)(const double *K, const double *par, const double *x, double *when)
{
    double u, n;
    FN(delta_gru_gates)(x[0] + par[0], x[1] + par[1], x[2] + par[2], x[3] + par[3], &u, &n);
    const double kappa = u * (1 / K[0]), y = x[4] - x[5], w = n - x[5], gap = fabs(n - x[4]);
    const double least = FN(delta_wait)(x[4], x[5], n, par[4], kappa * gap);
    *when = least;
    if (least == 0 || least == INFINITY)
        return least == 0;
    const double way = par[4] - (w > 0 ? y : -y), rest = fabs(w) - par[4]; /* to the threshold, and beyond it */
    const double time = (way < 0.5 * gap ? -log1p(-way / gap) : log(gap / rest)) / kappa;
    *when = time > least ? time : least; /* equal but for rounding; never 0, which would not move */
    return 1;
}

TARGET double FN(delta_gru_flow_fire)(const double *K, const double *par, double *x)
{
    (void)K, (void)par;
    const double payload = x[4] - x[5];
    x[5] = x[4];
    return payload;
}

TARGET void FN(delta_gru_flow_rate)(
    const double *K, int64_t m, int64_t stride, const double *restrict par, const double *restrict x, /* IN */
    double *restrict f)                                                                               /* OUT */
{
    const double *br = par, *bz = par + stride, *bn = par + 2 * stride, *bq = par + 3 * stride;
    const double *mr = x, *mz = x + stride, *mn = x + 2 * stride, *mq = x + 3 * stride;
    const double rate = 1 / K[0];
    for (int64_t k = 0; k < 6; k++)
        for (int64_t i = 0; i < m; i++)
            f[k * stride + i] = 0;
    DELTA_ITEMS
    for (int64_t i = 0; i < m; i++) {
        double u, n;
        FN(delta_gru_gates)(mr[i] + br[i], mz[i] + bz[i], mn[i] + bn[i], mq[i] + bq[i], &u, &n);
        f[4 * stride + i] = u * rate * (n - x[4 * stride + i]);
    }
}

/* Backwards h0 = n + (h1 - n) / E.  With T the length, a = kappa T, phi = (1 - e^-a) / a and psi = delta_lag:
 *   h1 = n + d E,   sum = n T + d T phi(a),   square = n^2 T + 2 n d T phi(a) + d^2 T phi(2 a),   d = h0 - n
 * and phi' = -psi, phi = E + a psi, phi(2 a) = phi (1 + E) / 2, psi(2 a) = (psi (1 + E) + E phi) / 4. */
TARGET void FN(delta_gru_flow_retreat)(
    const double *K, int64_t m, int64_t stride, const double *restrict h, const double *restrict par, /* IN */
    double *x, double *lam,                                       /* IN at the end and OUT at the start */
    const double *dsums,                                          /* NULL or IN */
    double *dpar, double *dK)                                     /* added to */
{
    const double rate = 1 / K[0];
    for (int64_t first = 0; first < m; first += FN(DELTA_BLOCK)) {
        const int64_t left = m - first, n_items = left < FN(DELTA_BLOCK) ? left : FN(DELTA_BLOCK);
        double dsum[FN(DELTA_BLOCK)] = {0}, dsquare[FN(DELTA_BLOCK)] = {0}, dtau[FN(DELTA_BLOCK)];
        if (dsums) {
            memcpy(dsum, dsums + first, (size_t)n_items * sizeof *dsum);
            memcpy(dsquare, dsums + stride + first, (size_t)n_items * sizeof *dsquare);
        }
        const double *restrict T = h + first, *restrict bias = par + first, *restrict mr = x + first;
        const double *restrict mz = mr + stride, *restrict mn = mz + stride, *restrict mq = mn + stride;
        double *restrict state = x + first + 4 * stride;
        double *restrict lr = lam + first, *restrict lz = lr + stride, *restrict ln = lz + stride;
        double *restrict lq = ln + stride, *restrict lh = lq + stride;
        double *restrict dr = dpar + first, *restrict dz = dr + stride, *restrict dn = dz + stride;
        double *restrict dq = dn + stride;
        DELTA_ITEMS
        for (int64_t i = 0; i < n_items; i++) {
            const double Mq = mq[i] + bias[3 * stride + i], r = FN(logistic)(mr[i] + bias[i]);
            const double e = FN(exponential)(mz[i] + bias[stride + i]), u = 1 / (1 + e), z = e * u;
            const double n = FN(hyperbolic_tangent)(mn[i] + bias[2 * stride + i] + r * Mq);
            const double a = u * rate * T[i];
            double E, D;
            FN(delta_decay)(a, &E, &D);
            const double psi = FN(delta_lag)(a, E, D), phi = E + a * psi;
            const double phi2 = 0.5 * phi * (1 + E), psi2 = 0.25 * (psi * (1 + E) + E * phi);
            const double d1 = state[i] - n, d = d1 / E;
            const double g = lh[i], direct = dsum[i] + 2 * n * dsquare[i], twice = 2 * d * dsquare[i];
            state[i] = state[i] + d1 * (D / E);
            lh[i] = E * g + T[i] * (direct * phi + twice * phi2);
            /* 1 - phi = D - a psi and phi - phi2 = phi D / 2, without cancellation */
            const double d_n = D * g + T[i] * (direct * (D - a * psi) + 0.5 * twice * phi * D);
            const double d_kappa = -T[i] * (d1 * g + d * T[i] * (direct * psi + twice * psi2));
            const double d_sum = d_n * (1 - n * n), d_z = -d_kappa * (u * rate) * z;
            const double d_r = d_sum * Mq * r * (1 - r);
            lr[i] += d_r;
            dr[i] += d_r;
            lz[i] += d_z;
            dz[i] += d_z;
            ln[i] += d_sum;
            dn[i] += d_sum;
            lq[i] += d_sum * r;
            dq[i] += d_sum * r;
            dtau[i] = -d_kappa * (u * rate) * rate;
        }
        for (int64_t i = 0; i < n_items; i++)
            dK[0] += dtau[i];
    }
}

/* The adjoint of fire.  dpar is for the units whose payload depends on parameters: not this one. */
TARGET void FN(delta_gru_flow_unfire)(const double *K, const double *par, double *x, double *lam, double payload,
                                      double dpayload, double *dpar)
{
    (void)K, (void)par, (void)dpar;
    x[5] -= payload;
    lam[4] += dpayload + lam[5];
    lam[5] = -dpayload;
}

#include "delta_lstm_flow.h"
