/* The flows of one path and the table of them, see flow.h; needs template.h and ISA. */

#define TYPE f64
#define REAL double
#define REAL_IS_FLOAT 0
#include "gates.h"
#include "vec.h"
#include "crossing.h"
#include "egru_series.h"
#include "egru_flow.h"
#include "egru_back.h"
#include "lif_flow.h"
#include "delta_flow.h"
#include "readout_flow.h"

/* Without a branch on what the numbers are: which one is the smallest cannot be foretold. */
TARGET int64_t FN(least)(int64_t n, const double *numbers, double *smallest)
{
    VEC low = FN(splat)(INFINITY);
    uint64_t equal = 0;
    for (int64_t i = 0; i < n; i += WIDTH)
        low = FN(smaller)(FN(load)(numbers, i), low);
    *smallest = FN(lowest)(low);
    for (int64_t i = 0; i < n; i += WIDTH)
        equal |= (uint64_t)FN(equal)(FN(load)(numbers, i), *smallest) << i;
    return equal ? __builtin_ctzll(equal) : 0;
}

TARGET void FN(lower_bounds)(int64_t n, int64_t each, const double *numbers, double *smallest)
{
    for (int64_t first = 0; first < n; first += each) {
        const int64_t stop = first + each < n ? first + each : n;
        VEC low = FN(splat)(INFINITY);
        for (int64_t i = first; i < stop; i += WIDTH)
            low = FN(smaller)(FN(load)(numbers, i), low);
        *smallest++ = FN(lowest)(low);
    }
}

TARGET int32_t FN(elapse)(int64_t n, double now, int32_t back, double *restrict last, double *restrict h)
{
    int64_t moves = 0;
    for (int64_t i = 0; i < n; i++) {
        const double passed = now - last[i];
        h[i] = back ? -passed : passed;
        last[i] = now;
        moves |= h[i] > 0;
    }
    return moves != 0;
}

TARGET int32_t FN(renew)(int64_t n, double now, const double *restrict wait, int64_t *restrict sure,
                         double *restrict entry)
{
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t due = sure[i] & -(int64_t)(entry[i] <= now);
        entry[i] = due ? entry[i] : now + wait[i];
        sure[i] = due;
        wrong |= wait[i] != wait[i];
    }
    return wrong != 0;
}

TARGET void FN(lift)(int64_t n, int64_t stride, const double *restrict from, double *restrict to)
{
    for (int64_t k = 0; k < n; k++)
        for (int p = 0; p < PARTS; p++)
            FN(store)(to, k * GROUP + p * WIDTH, FN(splat)(from[k * stride]));
}

TARGET void FN(widen)(int64_t n, const float *restrict from, double *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i];
}

TARGET void FN(add_to_float)(int64_t n, const double *restrict from, float *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += (float)from[i];
}

TARGET void FN(add_to_double)(int64_t n, const double *restrict from, double *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

#define CROSSING(kind, undo)                                                                                  \
    {FN(kind##_advance), FN(kind##_bound), FN(kind##_locate), FN(kind##_fire), FN(kind##_rate),              \
     FN(kind##_retreat), undo}
#define SILENT(kind)                                                                                          \
    {FN(kind##_advance), NULL, NULL, NULL, FN(kind##_rate), FN(kind##_retreat), NULL}
const FlowTable TABLE(flows, ISA) = {
    {CROSSING(egru, NULL), CROSSING(lif, NULL), CROSSING(delta_gru_flow, FN(delta_gru_flow_unfire)),
     CROSSING(delta_lstm_flow, FN(delta_lstm_flow_unfire)), SILENT(leaky_readout), SILENT(delta_readout_flow)},
    FN(least), FN(lower_bounds), FN(elapse), FN(renew), FN(egru_receive),
    FN(egru_give_back), FN(lift), FN(widen), FN(add_to_float),
    FN(add_to_double),
};

#undef SILENT
#undef CROSSING
#undef REAL_IS_FLOAT
#undef REAL
#undef TYPE
#undef ISA
