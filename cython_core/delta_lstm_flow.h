/* The LSTM among the Delta units in continuous time.
 *
 * Template, the second part of delta_flow.h and included there.
 * x: m_i m_f m_g m_o c h sent; par: bias i f g o, threshold; K: tau.  m may have jumped since x was last
 * advanced, so h is never read from x: it is o tanh(c).
 */

/* One unit's flow of c.  The fixed point drive / u may be far away, so it enters as the pull drive - u c. */
typedef struct {
    double start, pull, end; /* c at the start; drive - u c there; drive / u */
    double u, inverse;       /* 1 - f and its inverse */
    double rate, o;          /* 1 / tau */
} FN(DeltaCell);

DELTA_INLINE FN(DeltaCell) FN(delta_lstm_cell)(double Mi, double Mf, double Mg, double Mo, double c, double rate)
{
    const double inverse = 1 + FN(exponential)(Mf), u = 1 / inverse;
    const double drive = FN(logistic)(Mi) * FN(hyperbolic_tangent)(Mg);
    return (FN(DeltaCell)){c, drive - u * c, drive * inverse, u, inverse, rate, FN(logistic)(Mo)};
}

static inline FN(DeltaCell) FN(delta_lstm_item)(const double *K, const double *par, const double *x)
{
    return FN(delta_lstm_cell)(x[0] + par[0], x[1] + par[1], x[2] + par[2], x[3] + par[3], x[4], 1 / K[0]);
}

/* c after a time of which E and D are the decay; each form where it is the one without cancellation. */
DELTA_INLINE double FN(delta_lstm_c)(FN(DeltaCell) s, double E, double D)
{
    const double near = s.start + s.pull * (D * s.inverse), far = s.end + (s.start - s.end) * E;
    return D < 0.5 ? near : far;
}

DELTA_INLINE double FN(delta_lstm_wait)(FN(DeltaCell) s, double sent, double threshold)
{
    const double h = s.o * FN(hyperbolic_tangent)(s.start), end = s.o * FN(hyperbolic_tangent)(s.end);
    /* |h'| = (o - h^2 / o)|c'|, and |c'| decays: largest now, with h where it is nearest 0 on its way. */
    const double goal = end > sent ? sent + threshold : sent - threshold;
    const double low = h < 0 ? -h : h, high = goal < 0 ? -goal : goal;
    const double nearest = h * goal > 0 ? (low < high ? low : high) : 0;
    const double slope = s.o - nearest * (nearest / s.o);
    const double pull = s.pull < 0 ? -s.pull : s.pull;
    /* The second term covers the rounding of a slope that is nearly 0. */
    return FN(delta_wait)(h, sent, end, threshold, ((slope > 0 ? slope : 0) + 1e-15 * s.o) * (pull * s.rate));
}

/* The cells of a block of items. */
typedef struct {
    double start[FN(DELTA_BLOCK)], pull[FN(DELTA_BLOCK)], end[FN(DELTA_BLOCK)];
    double u[FN(DELTA_BLOCK)], inverse[FN(DELTA_BLOCK)], o[FN(DELTA_BLOCK)];
    double rate;
} FN(DeltaCells);

DELTA_INLINE FN(DeltaCell) FN(delta_lstm_one)(const FN(DeltaCells) *restrict cells, int64_t i)
{
    return (FN(DeltaCell)){cells->start[i],   cells->pull[i], cells->end[i], cells->u[i],
                           cells->inverse[i], cells->rate,    cells->o[i]};
}

static void FN(delta_lstm_cells)(const double *K, int64_t n, int64_t stride, const double *restrict par,
                                 const double *restrict x, FN(DeltaCells) *restrict cells)
{
    const double rate = cells->rate = 1 / K[0];
    DELTA_ITEMS
    for (int64_t i = 0; i < n; i++) {
        const FN(DeltaCell) s = FN(delta_lstm_cell)(
            x[i] + par[i], x[stride + i] + par[stride + i], x[2 * stride + i] + par[2 * stride + i],
            x[3 * stride + i] + par[3 * stride + i], x[4 * stride + i], rate);
        cells->start[i] = s.start;
        cells->pull[i] = s.pull;
        cells->end[i] = s.end;
        cells->u[i] = s.u;
        cells->inverse[i] = s.inverse;
        cells->o[i] = s.o;
    }
}

/* Quadrature of what depends on h over one segment: Gauss-Legendre nodes in (0, 1).  tanh(c) has poles at the
 * distance pi / 2 of the real axis; pieces are so short, in c and in time constants, that these lie outside an
 * ellipse that makes the rule exact to some 1e-13: 5 nodes for short segments, many items at a time; 16 nodes
 * for each piece of a long one. */
static const double FN(delta_short_nodes)[5] = {0.046910077030668004, 0.230765344947158454, 0.5,
                                                0.769234655052841546, 0.953089922969331996};
static const double FN(delta_short_weights)[5] = {0.118463442528094544, 0.239314335249683234, 0.284444444444444444,
                                                  0.239314335249683234, 0.118463442528094544};
static const double FN(delta_nodes)[16] = {
    0.005299532504175034, 0.027712488463383712, 0.067184398806084128, 0.122297795822498483,
    0.191061877798678126, 0.270991611171386307, 0.359198224610370543, 0.45249374508118128,
    0.54750625491881872,  0.640801775389629457, 0.729008388828613693, 0.808938122201321874,
    0.877702204177501517, 0.932815601193915872, 0.972287511536616288, 0.994700467495824966};
static const double FN(delta_weights)[16] = {
    0.013576229705877047, 0.031126761969323946, 0.047579255841246392, 0.062314485627766936,
    0.074797994408288366, 0.084578259697501269, 0.091301707522461794, 0.094725305227534248,
    0.094725305227534248, 0.091301707522461794, 0.084578259697501269, 0.074797994408288366,
    0.062314485627766936, 0.047579255841246392, 0.031126761969323946, 0.013576229705877047};

DELTA_INLINE int FN(delta_lstm_is_short)(FN(DeltaCell) s, double T)
{
    const double pull = s.pull < 0 ? -s.pull : s.pull;
    return (s.u + pull) * s.rate * T <= 0.3;
}

/* Length of the next piece, from t to T at most.  *flat: tanh(c) does not change in it to the last bit, as c is
 * beyond +-20 or has decayed to its end: so a segment has some 40 pieces at most, however long it is. */
static inline double FN(delta_lstm_piece)(FN(DeltaCell) s, double t, double T, int *flat)
{
    double E, D;
    FN(delta_decay)(s.u * s.rate * t, &E, &D);
    const double c = FN(delta_lstm_c)(s, E, D), beyond = fabs(c) - 20, speed = fabs(s.pull) * E * s.rate;
    const double kappa = s.u * s.rate;
    *flat = kappa * t > 40 || (beyond >= 0 && (c > 0 ? s.end : -s.end) >= 20);
    double length = T - t;
    if (*flat)
        return length;
    if (beyond > 0.5) { /* on its way back: to 20 at once */
        *flat = 1;
        const double back = -log1p(-beyond / fabs(s.end - c)) / kappa;
        return back < length ? back : length;
    }
    const double piece = 2.5 / (kappa + speed);
    return piece < length ? piece : length;
}

/* The integrals of h and h^2 from now to T, for a unit and a T that are not short. */
static void FN(delta_lstm_long_sums)(FN(DeltaCell) s, double T, double *sum, double *square)
{
    for (double t = 0; t < T;) {
        int flat;
        const double length = FN(delta_lstm_piece)(s, t, T, &flat);
        double part = 0, part2 = 0, h[16];
        for (int j = 0; j < 16; j++) {
            double E, D;
            FN(delta_decay)(s.u * s.rate * (t + length * FN(delta_nodes)[j]), &E, &D);
            h[j] = s.o * FN(hyperbolic_tangent)(FN(delta_lstm_c)(s, E, D));
        }
        for (int j = 0; j < 16; j++) {
            part += FN(delta_weights)[j] * h[j];
            part2 += FN(delta_weights)[j] * h[j] * h[j];
        }
        /* Flat: the last node for all, as the first may lie before the decay was complete. */
        *sum += length * (flat ? h[15] : part);
        *square += length * (flat ? h[15] * h[15] : part2);
        t = length < T - t ? t + length : T;
    }
}

/* The same for a block of items, short or not. */
static void FN(delta_lstm_sums)(int64_t n, const FN(DeltaCells) *restrict cells, const double *restrict T,
                                double *restrict sum, double *restrict square)
{
    double part[FN(DELTA_BLOCK)] = {0}, part2[FN(DELTA_BLOCK)] = {0};
    for (int j = 0; j < 5; j++)
        DELTA_ITEMS
        for (int64_t i = 0; i < n; i++) {
            const FN(DeltaCell) s = FN(delta_lstm_one)(cells, i);
            double E, D;
            FN(delta_decay)(s.u * s.rate * (T[i] * FN(delta_short_nodes)[j]), &E, &D);
            const double h = s.o * FN(hyperbolic_tangent)(FN(delta_lstm_c)(s, E, D));
            part[i] += FN(delta_short_weights)[j] * h;
            part2[i] += FN(delta_short_weights)[j] * h * h;
        }
    for (int64_t i = 0; i < n; i++) {
        const FN(DeltaCell) s = FN(delta_lstm_one)(cells, i);
        if (FN(delta_lstm_is_short)(s, T[i])) {
            sum[i] += T[i] * part[i];
            square[i] += T[i] * part2[i];
        } else
            FN(delta_lstm_long_sums)(s, T[i], sum + i, square + i);
    }
}

TARGET void FN(delta_lstm_flow_advance)(
    const double *K, int64_t m, int64_t stride, const double *restrict h, const double *restrict par, /* IN */
    double *x,                                                                        /* IN and OUT */
    double *sums)                                                                     /* NULL, or added to */
{
    for (int64_t first = 0; first < m; first += FN(DELTA_BLOCK)) {
        const int64_t left = m - first, n_items = left < FN(DELTA_BLOCK) ? left : FN(DELTA_BLOCK);
        FN(DeltaCells) cells;
        FN(delta_lstm_cells)(K, n_items, stride, par + first, x + first, &cells);
        const double *restrict T = h + first;
        if (sums)
            FN(delta_lstm_sums)(n_items, &cells, T, sums + first, sums + stride + first);
        double *restrict state = x + 4 * stride + first, *restrict out = x + 5 * stride + first;
        DELTA_ITEMS
        for (int64_t i = 0; i < n_items; i++) {
            double E, D;
            FN(delta_decay)(cells.u[i] * cells.rate * T[i], &E, &D);
            state[i] = FN(delta_lstm_c)(FN(delta_lstm_one)(&cells, i), E, D);
            out[i] = cells.o[i] * FN(hyperbolic_tangent)(state[i]);
        }
    }
}

TARGET void FN(delta_lstm_flow_bound)(
    const double *K, int64_t m, int64_t stride, const double *restrict par, double *restrict x, /* IN */
    double *restrict wait)                                                                            /* OUT */
{
    for (int64_t first = 0; first < m; first += FN(DELTA_BLOCK)) {
        const int64_t left = m - first, n_items = left < FN(DELTA_BLOCK) ? left : FN(DELTA_BLOCK);
        FN(DeltaCells) cells;
        FN(delta_lstm_cells)(K, n_items, stride, par + first, x + first, &cells);
        const double *threshold = par + 4 * stride + first, *sent = x + 6 * stride + first;
        for (int64_t i = 0; i < n_items; i++)
            wait[first + i] = FN(delta_lstm_wait)(FN(delta_lstm_one)(&cells, i), sent[i], threshold[i]);
    }
}

TARGET int32_t FN(delta_lstm_flow_locate)(const double *K, const double *par, const double *x, double *when)
{
    const FN(DeltaCell) s = FN(delta_lstm_item)(K, par, x);
    const double least = FN(delta_lstm_wait)(s, x[6], par[4]);
    *when = least;
    if (least == 0 || least == INFINITY)
        return least == 0;
    const double goal = (s.pull > 0 ? x[6] + par[4] : x[6] - par[4]) / s.o; /* of tanh(c) */
    const double c = fabs(goal) < 1 ? atanh(goal) : goal > 0 ? INFINITY : -INFINITY;
    const double way = (c - s.start) * s.u / s.pull; /* part of the way to the end */
    if (!(way < 1)) {
        *when = INFINITY;
        return 0;
    }
    const double time = (way < 0.5 ? -log1p(-way) : log((s.end - s.start) / (s.end - c))) / (s.u * s.rate);
    *when = time > least ? time : least; /* as for the GRU */
    return 1;
}

TARGET double FN(delta_lstm_flow_fire)(const double *K, const double *par, double *x)
{
    const FN(DeltaCell) s = FN(delta_lstm_item)(K, par, x);
    x[5] = s.o * FN(hyperbolic_tangent)(x[4]);
    const double payload = x[5] - x[6];
    x[6] = x[5];
    return payload;
}

TARGET void FN(delta_lstm_flow_rate)(
    const double *K, int64_t m, int64_t stride, const double *restrict par, const double *restrict x, /* IN */
    double *restrict f)                                                                               /* OUT */
{
    for (int64_t k = 0; k < 7; k++)
        for (int64_t i = 0; i < m; i++)
            f[k * stride + i] = 0;
    for (int64_t first = 0; first < m; first += FN(DELTA_BLOCK)) {
        const int64_t left = m - first, n_items = left < FN(DELTA_BLOCK) ? left : FN(DELTA_BLOCK);
        FN(DeltaCells) cells;
        FN(delta_lstm_cells)(K, n_items, stride, par + first, x + first, &cells);
        DELTA_ITEMS
        for (int64_t i = 0; i < n_items; i++) {
            const double t = FN(hyperbolic_tangent)(cells.start[i]), dc = cells.pull[i] * cells.rate;
            f[4 * stride + first + i] = dc;
            f[5 * stride + first + i] = cells.o[i] * (1 - t * t) * dc;
        }
    }
}

/* Gradients of a block of items at what its flow of c and its h are made of. */
typedef struct {
    double c[FN(DELTA_BLOCK)], drive[FN(DELTA_BLOCK)], u[FN(DELTA_BLOCK)], o[FN(DELTA_BLOCK)];
    double tau[FN(DELTA_BLOCK)];
} FN(DeltaGradients);

/* Add what a gradient g at c(t) = start + pull w(t) makes of item i; w = (1 - exp(-u t / tau)) / u. */
DELTA_INLINE void FN(delta_lstm_add)(FN(DeltaGradients) *restrict G, int64_t i, FN(DeltaCell) s, double t,
                                      double E, double D, double g)
{
    const double w = D * s.inverse, scaled = t * s.rate;
    G->c[i] += g * E;
    G->drive[i] += g * w;
    G->u[i] -= g * (s.start * w + s.pull * (scaled * (scaled * FN(delta_lag)(s.u * scaled, E, D))));
    G->tau[i] -= g * s.pull * E * scaled * s.rate;
}

/* The adjoint of delta_lstm_long_sums. */
static void FN(delta_lstm_long_vjp)(FN(DeltaCell) s, double T, double dsum, double dsquare,
                                    FN(DeltaGradients) *restrict G, int64_t item)
{
    FN(DeltaGradients) node;
    memset(&node, 0, sizeof node);
    for (double t = 0; t < T;) {
        int flat;
        const double length = FN(delta_lstm_piece)(s, t, T, &flat);
        DELTA_ITEMS
        for (int64_t j = 0; j < 16; j++) {
            const double place = t + length * FN(delta_nodes)[flat ? 15 : j];
            const double weight = length * FN(delta_weights)[j];
            double E, D;
            FN(delta_decay)(s.u * s.rate * place, &E, &D);
            const double y = FN(hyperbolic_tangent)(FN(delta_lstm_c)(s, E, D));
            const double g = weight * (dsum + 2 * s.o * y * dsquare);
            node.o[j] += g * y;
            FN(delta_lstm_add)(&node, j, s, place, E, D, g * s.o * (1 - y * y));
        }
        t = length < T - t ? t + length : T;
    }
    for (int64_t j = 0; j < 16; j++) {
        G->c[item] += node.c[j];
        G->drive[item] += node.drive[j];
        G->u[item] += node.u[j];
        G->o[item] += node.o[j];
        G->tau[item] += node.tau[j];
    }
}

/* The adjoint of delta_lstm_sums. */
static void FN(delta_lstm_sums_vjp)(int64_t n, const FN(DeltaCells) *restrict cells, const double *restrict T,
                                    const double *restrict dsum, const double *restrict dsquare,
                                    FN(DeltaGradients) *restrict G)
{
    double few[FN(DELTA_BLOCK)]; /* 1 for an item that is short */
    for (int64_t i = 0; i < n; i++)
        few[i] = FN(delta_lstm_is_short)(FN(delta_lstm_one)(cells, i), T[i]) ? 1 : 0;
    for (int j = 0; j < 5; j++)
        DELTA_ITEMS
        for (int64_t i = 0; i < n; i++) {
            const FN(DeltaCell) s = FN(delta_lstm_one)(cells, i);
            const double t = T[i] * FN(delta_short_nodes)[j];
            double E, D;
            FN(delta_decay)(s.u * s.rate * t, &E, &D);
            const double y = FN(hyperbolic_tangent)(FN(delta_lstm_c)(s, E, D));
            const double g = few[i] * T[i] * FN(delta_short_weights)[j] * (dsum[i] + 2 * s.o * y * dsquare[i]);
            G->o[i] += g * y;
            FN(delta_lstm_add)(G, i, s, t, E, D, g * s.o * (1 - y * y));
        }
    for (int64_t i = 0; i < n; i++)
        if (few[i] == 0)
            FN(delta_lstm_long_vjp)(FN(delta_lstm_one)(cells, i), T[i], dsum[i], dsquare[i], G, i);
}

/* h at the end is a function of c and M_o there: its gradient goes to them, and h has none at the start. */
TARGET void FN(delta_lstm_flow_retreat)(
    const double *K, int64_t m, int64_t stride, const double *restrict h, const double *restrict par, /* IN */
    double *x, double *lam,                                       /* IN at the end and OUT at the start */
    const double *dsums,                                          /* NULL or IN */
    double *dpar, double *dK)                                     /* added to */
{
    for (int64_t first = 0; first < m; first += FN(DELTA_BLOCK)) {
        const int64_t left = m - first, n_items = left < FN(DELTA_BLOCK) ? left : FN(DELTA_BLOCK);
        FN(DeltaCells) cells; /* at the end, then at the start */
        FN(DeltaGradients) G;
        double start[FN(DELTA_BLOCK)] = {0}, pull[FN(DELTA_BLOCK)] = {0};
        memset(&G, 0, sizeof G);
        FN(delta_lstm_cells)(K, n_items, stride, par + first, x + first, &cells);
        const double *restrict T = h + first, *restrict bias = par + first, *restrict sum_m = x + first;
        double *restrict state = x + 4 * stride + first, *restrict out = x + 5 * stride + first;
        double *restrict lc = lam + 4 * stride + first, *restrict lh = lam + 5 * stride + first;
        DELTA_ITEMS
        for (int64_t i = 0; i < n_items; i++) {
            FN(DeltaCell) s = FN(delta_lstm_one)(&cells, i);
            double E, D;
            FN(delta_decay)(s.u * s.rate * T[i], &E, &D);
            const double y = FN(hyperbolic_tangent)(s.start), g = lc[i] + lh[i] * s.o * (1 - y * y);
            start[i] = s.start = s.start - s.pull * (D * s.inverse / E);
            pull[i] = s.pull = s.pull / E;
            G.o[i] = lh[i] * y;
            lh[i] = 0;
            FN(delta_lstm_add)(&G, i, s, T[i], E, D, g);
        }
        memcpy(cells.start, start, sizeof start);
        memcpy(cells.pull, pull, sizeof pull);
        if (dsums)
            FN(delta_lstm_sums_vjp)(n_items, &cells, T, dsums + first, dsums + stride + first, &G);
        double *restrict li = lam + first, *restrict lf = li + stride, *restrict lg = lf + stride;
        double *restrict lo = lg + stride;
        double *restrict di = dpar + first, *restrict df = di + stride, *restrict dg = df + stride;
        double *restrict d_o = dg + stride;
        DELTA_ITEMS
        for (int64_t i = 0; i < n_items; i++) {
            const double in = FN(logistic)(sum_m[i] + bias[i]);
            const double g = FN(hyperbolic_tangent)(sum_m[2 * stride + i] + bias[2 * stride + i]);
            const double f = FN(logistic)(sum_m[stride + i] + bias[stride + i]), o = cells.o[i];
            const double d_in = G.drive[i] * g * in * (1 - in), d_f = -G.u[i] * f * cells.u[i];
            const double d_g = G.drive[i] * in * (1 - g * g), d_out = G.o[i] * o * (1 - o);
            state[i] = start[i];
            out[i] = o * FN(hyperbolic_tangent)(start[i]);
            lc[i] = G.c[i];
            li[i] += d_in;
            di[i] += d_in;
            lf[i] += d_f;
            df[i] += d_f;
            lg[i] += d_g;
            dg[i] += d_g;
            lo[i] += d_out;
            d_o[i] += d_out;
        }
        for (int64_t i = 0; i < n_items; i++)
            dK[0] += G.tau[i];
    }
}

/* The adjoint of fire, with m as it was then.  The payload depends on the bias of o: dpar is added to. */
TARGET void FN(delta_lstm_flow_unfire)(const double *K, const double *par, double *x, double *lam, double payload,
                                       double dpayload, double *dpar)
{
    const FN(DeltaCell) s = FN(delta_lstm_item)(K, par, x);
    const double y = FN(hyperbolic_tangent)(x[4]), g = lam[5] + dpayload + lam[6];
    const double d_out = g * y * s.o * (1 - s.o);
    x[5] = s.o * y;
    x[6] -= payload;
    lam[3] += d_out;
    dpar[3] += d_out;
    lam[4] += g * s.o * (1 - y * y);
    lam[5] = 0;
    lam[6] = -dpayload;
}
